#!/bin/sh
# Puts ClickHouse's official Python client into a virtual environment below the target folder, for the test that uses it.
set -eu

CLIENT='clickhouse-connect==1.12.0'
LZ4='lz4==4.4.5'

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/ops/progress.sh"

fail() {
    said "setup-python: $1"
    exit 1
}

folder="${CARGO_TARGET_DIR:-$root/target}/python-client"
stamp="$folder/installed"
# The environment points at the system's Python: one that has been replaced since leaves it broken.
if [ "$(cat "$stamp" 2>/dev/null)" = "$CLIENT $LZ4" ] && "$folder/bin/python" -c 'import clickhouse_connect' 2>/dev/null; then
    exit 0
fi
command -v python3 >/dev/null 2>&1 || fail "python3 is missing; install it (Debian and Ubuntu: apt-get install python3-venv) and run this again"
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
progress "making a Python environment" python3 -m venv "$folder" ||
    fail "python3 cannot make a virtual environment; install it (Debian and Ubuntu: apt-get install python3-venv) and run this again"
progress "installing ClickHouse's Python client" "$folder/bin/pip" install --quiet --disable-pip-version-check "$CLIENT" "$LZ4" ||
    fail "pip could not install $CLIENT; check the network and pip's settings"
echo "$CLIENT $LZ4" >"$stamp"
