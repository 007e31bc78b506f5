#!/bin/sh
# Installs what the project needs from the distribution's packages, and the ClickHouse engine. Says nothing when all of
# it is there.
# usage: ops/setup.sh run|test|bench
set -eu

purpose=${1:-run}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/progress.sh"
missing=
root_may=

fail() {
    said "setup: $1"
    exit 1
}

# need PACKAGE COMMAND...: the package is missing when one of the commands is.
need() {
    package=$1
    shift
    for command in "$@"; do
        # Administration programs are not on every user's path.
        (PATH="$PATH:/usr/sbin:/sbin" && command -v "$command") >/dev/null 2>&1 ||
            { missing="$missing $package"; return 0; }
    done
}

has_postgres() {
    for dir in /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null || :)"; do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/createdb" ] && return 0
    done
    return 1
}

# Debian's python3 comes without the half of venv that makes an environment.
has_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null
}

has_certificates() {
    [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -s /etc/pki/tls/certs/ca-bundle.crt ] || [ -s /etc/ssl/cert.pem ]
}

# The engine runs in every test, and in a mesh that no ClickHouse server was named for.
needs_engine() {
    [ "$purpose" = test ] || [ -z "${SONDE_CLICKHOUSE_URL:-}" ]
}

find_missing() {
    need build-essential cc
    if [ -n "${SONDE_PG_BIN:-}" ]; then
        [ -x "$SONDE_PG_BIN/initdb" ] && [ -x "$SONDE_PG_BIN/postgres" ] ||
            fail "SONDE_PG_BIN is $SONDE_PG_BIN, where there are no initdb and postgres; correct it or unset it"
    else
        has_postgres || missing="$missing postgresql"
    fi
    if needs_engine && ! "$here/setup-engine.sh" --is-there; then
        need npm npm
        has_certificates || missing="$missing ca-certificates"
    fi
    case $purpose in
    test)
        need curl curl
        need openssl openssl
        has_venv || missing="$missing python3-venv"
        # Contributors who may not send echo requests get a network of their own, which `ip` switches on.
        need iproute2 ip
        # The chaos runs give each part a network of its own and cut links.
        need nftables nft
        need util-linux unshare nsenter setpriv
        need mount mount
        # A server of names that signs zones, for checks to measure; its server is unpacked below, as is nginx.
        need bind9-utils dnssec-keygen dnssec-signzone
        # The logs of long runs name the commit.
        need git git
        ;;
    bench) need wrk wrk ;;
    esac
}

# Programs of packages that would start a server on every address of this machine: they are unpacked into the user's cache
# and not installed.
cache="${XDG_CACHE_HOME:-${HOME:-}/.cache}/sonde"

# has_unpacked COMMAND FOLDER: whether the command is there, installed or unpacked.
has_unpacked() {
    (PATH="$PATH:/usr/sbin:$2/usr/bin:$2/usr/sbin" && command -v "$1") >/dev/null 2>&1
}

# fetch PACKAGE FOLDER: downloads and unpacks the package there.
fetch() (
    cd "$2" && apt-get download "$1" && dpkg-deb --extract ./*.deb "$2" && rm -f ./*.deb
)

# unpack PACKAGE FOLDER
unpack() {
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
        fail "$1 is missing; install it so that it is found on PATH, then run this again"
    mkdir -p "$(dirname "$2")" && work=$(mktemp -d "$2.XXXXXX") || fail "cannot make a folder beside $2"
    if ! progress "fetching $1" fetch "$1" "$work"; then
        become_root
        progress "renewing the lists of packages" $root_may apt-get update || :
        progress "fetching $1" fetch "$1" "$work" ||
            { rm -rf "$work"; fail "apt-get could not download the package $1"; }
    fi
    rm -rf "$2" && mv "$work" "$2" || fail "cannot write $2"
}

# Sets root_may to what makes a command run as root; refuses with the one line that says what to install.
become_root() {
    command -v apt-get >/dev/null 2>&1 || fail "install what your system calls these Debian packages, then run this again:$missing"
    [ "$(id -u)" -ne 0 ] || return 0
    if command -v sudo >/dev/null 2>&1; then
        root_may=sudo
        sudo -n true 2>/dev/null && return 0
        # Only somebody at a terminal can give a password.
        if [ -t 0 ] && [ -t 2 ]; then
            said "setup: these packages are missing, and installing them needs root:$missing"
            sudo -v && return 0
        fi
    fi
    fail "these packages are missing; let root run: apt-get install$missing"
}

# Deletes the setting again: it was for our packages only.
allow_server() {
    $root_may rm -f "$1/sonde-setup.conf"
    $root_may rmdir "$1" 2>/dev/null || :
}

# The package would start a server of its own, which nobody asked for: the project runs a private one.
forbid_server() {
    $root_may mkdir -p "$1" && echo 'create_main_cluster = false' | $root_may tee "$1/sonde-setup.conf" >/dev/null
}

install_missing() {
    become_root
    settings=/etc/postgresql-common/createcluster.d
    case $missing in
    *postgresql*)
        trap 'allow_server "$settings"' EXIT
        trap 'exit 1' HUP INT TERM
        forbid_server "$settings" || fail "cannot write to $settings"
        ;;
    esac
    # Lists that cannot be renewed are often good enough: what counts is whether the packages arrive.
    progress "renewing the lists of packages" $root_may apt-get update ||
        said "setup: going on with the lists of packages that are there"
    # shellcheck disable=SC2086 # the lists are words on purpose
    progress "installing$missing" $root_may env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 $missing ||
        fail "these packages could not be installed:$missing"
}

case $purpose in
run | test | bench) ;;
*)
    said "setup: unknown purpose \`$purpose\`: use run, test or bench"
    exit 2
    ;;
esac
[ -n "${HOME:-}${XDG_CACHE_HOME:-}" ] || fail "neither HOME nor XDG_CACHE_HOME is set; set one of them"
command -v "${CARGO:-cargo}" >/dev/null 2>&1 || fail "cargo is missing; install Rust as https://rustup.rs says, then run this again"
find_missing
[ -z "$missing" ] || install_missing
if needs_engine; then
    "$here/setup-engine.sh"
fi
if [ "$purpose" = bench ] && ! has_unpacked victoria-metrics "$cache/victoria-metrics"; then
    unpack victoria-metrics "$cache/victoria-metrics"
fi
if [ "$purpose" = test ] && ! has_unpacked named "$cache/bind9"; then
    unpack bind9 "$cache/bind9"
fi
if [ "$purpose" = test ] && ! has_unpacked nginx "$cache/nginx"; then
    unpack nginx "$cache/nginx"
fi
