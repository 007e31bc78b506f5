#!/bin/sh
# `make test`: set-up, form, lints, dependencies, then every test in one go. Stops at the first failure.
set -eu
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0

step() {
    printf '== %s\n' "$1"
}

step "set-up"
ops/setup.sh test
integration-tests/setup-python.sh

step "format"
cargo fmt --all -- --check

step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "dependencies"
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sonde/tools
mkdir -p "$tools"
deny=$tools/bin/cargo-deny
version=0.20.2
if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "building cargo-deny $version once (about four minutes)"
    cargo install --locked --root "$tools" --target-dir "$tools/target" "cargo-deny@$version" >"$tools.log" 2>&1 || {
        tail -n 20 "$tools.log" >&2
        exit 1
    }
    rm -rf "$tools/target"
fi
cargo fetch --locked --quiet
"$deny" --offline --log-level warn check bans licenses sources

step "tests"
# The programs first: the tests start them from beside the test executable.
cargo build --locked --workspace --bins
cargo test --locked --workspace
