#!/bin/sh
# Puts the Python packages of requirements.txt into a virtual environment below the target folder, for the tests that use them.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/ops/progress.sh"

fail() {
    said "setup-python: $1"
    exit 1
}

packages="$root/integration-tests/requirements.txt"
folder="${CARGO_TARGET_DIR:-$root/target}/python"
stamp="$folder/installed"
# The environment points at the system's Python: one that has been replaced since leaves it broken.
if cmp -s "$packages" "$stamp" && "$folder/bin/python" -c 'import clickhouse_connect, grpc' 2>/dev/null; then
    exit 0
fi
command -v python3 >/dev/null 2>&1 || fail "python3 is missing; install it (Debian and Ubuntu: apt-get install python3-venv) and run this again"
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
progress "making a Python environment" python3 -m venv "$folder" ||
    fail "python3 cannot make a virtual environment; install it (Debian and Ubuntu: apt-get install python3-venv) and run this again"
progress "installing the Python packages of tests" "$folder/bin/pip" install --quiet --disable-pip-version-check \
    --requirement "$packages" || fail "pip could not install the packages of $packages; check the network and pip's settings"
cp "$packages" "$stamp"
