#!/bin/sh
# Installs what the project needs from the distribution's packages, and the ClickHouse engine.
# usage: ops/setup.sh run|test|bench
set -eu

purpose=${1:-run}
here=$(cd "$(dirname "$0")" && pwd)
missing=

# need PACKAGE COMMAND...: the package is missing when one of the commands is.
need() {
    package=$1
    shift
    for command in "$@"; do
        command -v "$command" >/dev/null 2>&1 || { missing="$missing $package"; return 0; }
    done
}

has_postgres() {
    [ -n "${SONDE_PG_BIN:-}" ] && [ -x "$SONDE_PG_BIN/initdb" ] && return 0
    for dir in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null || true)"; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/createdb" ] && return 0
    done
    return 1
}

need build-essential cc
has_postgres || missing="$missing postgresql"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sonde/libchdb
if [ -z "${SONDE_CLICKHOUSE_URL:-}" ] && [ -z "${SONDE_LIBCHDB:-}" ]; then
    ls "$cache"/*/libchdb.so >/dev/null 2>&1 || need npm npm
fi
case $purpose in
run) ;;
test)
    need curl curl
    need iproute2 ip
    need python3-venv python3
    need openssl openssl
    ;;
bench) need wrk wrk ;;
*)
    echo "ops/setup.sh: unknown purpose \`$purpose\`: use run, test or bench" >&2
    exit 2
    ;;
esac

if [ -n "$missing" ]; then
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
            as_root=sudo
        else
            echo "Install these packages first:  apt-get install$missing" >&2
            exit 1
        fi
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Install the equivalents of these Debian packages first:$missing" >&2
        exit 1
    fi
    echo "installing packages:$missing"
    # The project runs a private Postgres; the package need not start one of its own.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        $as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086 # the lists are words on purpose
    if ! { $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y \
        --no-install-recommends -o Dpkg::Options::=--force-confold $missing; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "the packages could not be installed:$missing" >&2
        exit 1
    fi
    rm -f "$log"
fi

if [ -z "${SONDE_CLICKHOUSE_URL:-}" ] || [ "$purpose" = test ]; then
    [ -n "${SONDE_LIBCHDB:-}" ] || "$here/setup-engine.sh"
fi
