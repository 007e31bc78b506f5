#!/bin/sh
# Checks licences, bans and sources of the dependencies with cargo-deny, which is built once into the user's cache.
set -eu
cd "$(dirname "$0")/.."
. ops/progress.sh

VERSION=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sonde/tools
deny=$tools/bin/cargo-deny

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
    mkdir -p "$tools"
    progress "building cargo-deny $VERSION, once (about four minutes)" cargo install --locked --root "$tools" \
        --target-dir "$tools/target" "cargo-deny@$VERSION" || {
        said "deny: cargo-deny could not be built; check the network and cargo's settings"
        exit 1
    }
    rm -rf "$tools/target"
fi
cargo fetch --locked
"$deny" --offline --log-level warn check bans licenses sources
