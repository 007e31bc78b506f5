"""Uses ClickHouse's official Python client against HOST PORT; ends with `all good`, or with a traceback."""

import datetime
import sys
import uuid

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError

HOST, PORT = sys.argv[1], int(sys.argv[2])
COLUMNS = ["a", "b", "u", "d", "n", "l", "r"]
ROWS = [
    [i, f"it's {i}", uuid.UUID(int=i), datetime.datetime(2026, 1, 1, microsecond=i), None if i % 2 else i, f"kind {i % 3}", [i % 5, 2]]
    for i in range(20_000)
]


def client(**options):
    return clickhouse_connect.get_client(host=HOST, port=PORT, **options)


def expect_error(code, run):
    try:
        run()
    except DatabaseError as error:
        assert f"Code: {code}." in str(error), error
    else:
        raise AssertionError(f"no error {code}")


def main():
    for compress in (True, "lz4", "gzip", False):
        ch = client(compress=compress)
        assert ch.server_tz.key == "UTC" if hasattr(ch.server_tz, "key") else str(ch.server_tz) == "UTC", ch.server_tz
        ch.command("DROP TABLE IF EXISTS py")
        ch.command(
            "CREATE TABLE py (a UInt32, b String, u UUID, d DateTime64(6), n Nullable(Int32), l LowCardinality(String), "
            "r Array(UInt8)) ENGINE = MergeTree ORDER BY a"
        )
        assert ch.insert("py", ROWS, column_names=COLUMNS).written_rows == len(ROWS)
        found = ch.query("SELECT * FROM py ORDER BY a").result_rows
        assert [list(row) for row in found] == ROWS, (compress, found[:2])

    ch = client()
    assert ch.command("SELECT version()") == ch.server_version
    assert ch.query("SELECT {x:String}", parameters={"x": "it's\ta tab"}).result_rows == [("it's\ta tab",)]
    assert ch.query("SELECT 1 WHERE 0").result_rows == []
    assert ch.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).result_rows == [(3,)]
    assert ch.query("SELECT getSetting('async_insert')").result_rows == [(False,)]
    with ch.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(len(block) for block in stream) == 300_000
    ch.raw_insert("py", ["a", "b"], b'50000,"raw"\n', fmt="CSV")
    assert ch.raw_query("SELECT b FROM py WHERE a = 50000", fmt="CSV") == b'"raw"\n'
    expect_error(60, lambda: ch.query("SELECT * FROM missing"))
    expect_error(497, lambda: ch.command("SYSTEM FLUSH LOGS"))
    expect_error(395, lambda: ch.query("SELECT throwIf(number = 3000000), number FROM numbers(4000000)"))
    print("all good")


main()
