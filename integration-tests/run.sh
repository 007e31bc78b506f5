#!/bin/sh
# `make test`: set-up, form, lints, dependencies, then every test. Stops at the first failure and says how long what took.
set -eu
cd "$(dirname "$0")/.."
. ops/progress.sh
export CARGO_INCREMENTAL=0
# Both cargo and the tests must mean the same folder, whatever the user's cargo configuration says.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
# Each test may start an engine (a third of a gigabyte) and a collector, and all share one Postgres of 200 connections.
TESTS_AT_ONCE_MAX=8
cores=$(nproc)
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((cores < TESTS_AT_ONCE_MAX ? cores : TESTS_AT_ONCE_MAX))}"
# Tests start everything themselves. A mesh or a ClickHouse server that this shell knows of is none of their business.
for name in $(env | sed -n 's/^\(SONDE_[A-Z0-9_]*\)=.*/\1/p'); do
    case $name in
    SONDE_PG_BIN | SONDE_LIBCHDB) ;;
    *) unset "$name" ;;
    esac
done

begin=$(date +%s)
step_begin=$begin
step_name=

# step NAME: ends the step before and begins this one.
step() {
    now=$(date +%s)
    [ -z "$step_name" ] || said "== $step_name: done in $((now - step_begin)) s"
    step_name=$1
    step_begin=$now
    [ -z "$1" ] || said "== $1"
}

# Whether this user may send echo requests, which the tests of icmp checks do.
may_ping() {
    [ "$(id -u)" -ne 0 ] || return 0
    # With `cat`: files like this one are whole in the first read only, and the shell reads byte by byte.
    # shellcheck disable=SC2046 # two numbers
    set -- $(cat /proc/sys/net/ipv4/ping_group_range)
    for group in $(id -G); do
        [ "$group" -lt "${1:-1}" ] || [ "$group" -gt "${2:-0}" ] || return 0
    done
    return 1
}

# A network of one's own, with nothing but loopback, where echo requests are allowed. Inside, the user and the group are
# the same as outside: Postgres does not run as root, not even as a root who is none.
# shellcheck disable=SC2016 # the inner shell expands it
in_own_network() {
    unshare --user --map-root-user --net -- sh -euc '
        ip link set lo up
        echo "0 0" >/proc/sys/net/ipv4/ping_group_range
        user=$1 group=$2
        shift 2
        exec unshare --user --map-user="$user" --map-group="$group" -- "$@"
    ' sh "$(id -u)" "$(id -g)" "$@"
}

# Finds out before anything long begins how the tests can be run.
choose_network() {
    within=
    may_ping && return 0
    within=in_own_network
    in_own_network true 2>/dev/null && return 0
    said "The tests send echo requests to loopback, which this user may not, and user namespaces, in which it might, are \
forbidden here: let root run \`sysctl -w net.ipv4.ping_group_range='0 2147483647'\`, then run this again."
    exit 1
}

step "set-up"
ops/setup.sh test
integration-tests/setup-python.sh
choose_network

step "format"
cargo fmt --all -- --check

step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "dependencies"
integration-tests/deny.sh

step "build"
# The programs first: the tests start them from beside the test executable.
cargo build --locked --workspace --bins
cargo test --locked --workspace --no-run

step "tests"
$within cargo test --locked --workspace
step ""
said "== all is well, after $(($(date +%s) - begin)) s"
