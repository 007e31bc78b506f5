#!/bin/sh
# Fetches the ClickHouse engine library that sonde-clickhouse loads, checks it, and puts it into the user's cache.
# Safe to run again and at the same time: the library appears complete or not at all.
# usage: ops/setup-engine.sh [--is-there]
set -eu

VERSION=26.7.3-stable.1
PACKAGE=@chdb/lib-linux-x64-gnu
SHA512='XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=='
# Of the library itself.
BYTES=566330096

. "$(dirname "$0")/progress.sh"

fail() {
    said "setup-engine: $1"
    exit 1
}

# The checksum in the form that npm writes: base64 of SHA-512.
sha512_base64() {
    if command -v openssl >/dev/null 2>&1; then
        openssl dgst -sha512 -binary "$1" | base64 | tr -d '\n'
    else
        # Each pair of hexadecimal digits becomes one byte by way of its hexadecimal escape.
        sha512sum "$1" | cut -d' ' -f1 | sed 's/../\\\\x&/g' | xargs printf | base64 | tr -d '\n'
    fi
}

is_genuine() {
    found=$(sha512_base64 "$1")
    [ "$found" = "$SHA512" ] || { echo "its checksum is sha512-$found, it should be sha512-$SHA512"; return 1; }
}

fetch() (
    cd "$1" && npm pack --silent "$PACKAGE@$VERSION"
)

# One that was cut short, whatever did it, is fetched again.
is_whole() {
    [ -f "$1" ] && [ "$(wc -c <"$1")" -eq "$BYTES" ]
}

# A library that the user points at is taken as it is.
if [ -n "${SONDE_LIBCHDB:-}" ]; then
    [ -f "$SONDE_LIBCHDB" ] || fail "SONDE_LIBCHDB is $SONDE_LIBCHDB, which is no file; correct it or unset it"
    exit 0
fi
[ -n "${HOME:-}${XDG_CACHE_HOME:-}" ] || fail "neither HOME nor XDG_CACHE_HOME is set; set one of them"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/sonde/libchdb/$VERSION"
library="$folder/libchdb.so"
! is_whole "$library" || exit 0
[ "${1:-}" != --is-there ] || exit 1

system="$(uname -s) $(uname -m)"
[ "$system" = "Linux x86_64" ] ||
    fail "the engine library is for Linux x86_64 with glibc, this is $system; point SONDE_CLICKHOUSE_URL at a ClickHouse server instead"
command -v npm >/dev/null 2>&1 || fail "npm is missing; install it (Debian and Ubuntu: apt-get install npm) and run this again"
command -v openssl >/dev/null 2>&1 || command -v sha512sum >/dev/null 2>&1 ||
    fail "openssl and sha512sum are missing; install one of them and run this again"
mkdir -p "$folder" 2>/dev/null || fail "cannot make the folder $folder"

# What a run that was killed left behind is large; one that is still at work is younger than this.
find "$folder" -maxdepth 1 -name '.setup.*' -mmin +120 -exec rm -rf {} +
# On the same file system as the target, so that the last step is a rename.
work=$(mktemp -d "$folder/.setup.XXXXXX" 2>/dev/null) || fail "cannot write to $folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

progress "fetching the engine library $VERSION (178 MB)" fetch "$work" ||
    fail "npm could not fetch $PACKAGE@$VERSION; check the network and npm's settings"
set -- "$work"/*.tgz
[ -f "$1" ] || fail "npm left no package behind"
progress "checking it" is_genuine "$1" || fail "the package is not the one we know; it is not used"
progress "unpacking it (566 MB)" tar -xzf "$1" -C "$work" package/libchdb.so ||
    fail "the package does not unpack; is the disk full?"
is_whole "$work/package/libchdb.so" || fail "the package does not hold the library that we know"
chmod 0755 "$work/package/libchdb.so"
mv -f "$work/package/libchdb.so" "$library" || fail "cannot write $library"
said "engine library is at $library"
