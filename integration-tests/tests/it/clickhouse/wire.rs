//! The HTTP interface byte by byte: bodies, encodings, headers, statuses.

use std::io::{Read, Write};

use http::{Method, StatusCode};
use sonde_integration_tests::engine::{Engine, Reply};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

async fn post(engine: &Engine, path: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Reply {
    engine.request(Method::POST, path, headers, body).await
}

#[tokio::test]
async fn statements_travel_in_the_url_in_the_body_or_in_both() {
    let engine = Engine::start().await;
    assert_eq!(engine.request(Method::GET, "/", &[], "").await.text(), "Ok.\n");
    assert_eq!(engine.request(Method::GET, "/ping", &[], "").await.text(), "Ok.\n");
    assert_eq!(engine.request(Method::GET, "/?query=SELECT%201", &[], "").await.text(), "1\n");
    assert_eq!(post(&engine, "/?query=SELECT%201%2C", &[], "2").await.text(), "1\t2\n");
    assert_eq!(post(&engine, "/?default_format=CSV", &[], "SELECT 'a', 2").await.text(), "\"a\",2\n");
    let json = post(&engine, "/", &[("X-ClickHouse-Format", "JSONEachRow")], "SELECT 1 AS a").await;
    assert_eq!((json.text(), json.header("X-ClickHouse-Format")), ("{\"a\":1}\n", "JSONEachRow"));
    assert_eq!(engine.request(Method::GET, "/nowhere", &[], "").await.status, StatusCode::NOT_FOUND);
    engine.ask("CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a").await;
    engine.ask("INSERT INTO t VALUES (1, 'semicolon; and\n\nlines'), (1 + 1, upper('x'))").await;
    let rows = post(&engine, "/?query=INSERT%20INTO%20t%20FORMAT%20RowBinary", &[], &b"\x0a\0\0\0\x02\n\n"[..]).await;
    assert_eq!((rows.status, rows.text()), (StatusCode::OK, ""));
    assert!(rows.header("X-ClickHouse-Summary").contains("\"written_rows\":\"1\""));
    post(&engine, "/", &[], "INSERT INTO t (b, a) FORMAT CSV\n\"c\",30\n").await;
    post(&engine, "/?query=INSERT%20INTO%20t%20VALUES%20(40%2C", &[], "'d')").await;
    assert_eq!(
        engine.ask("SELECT groupArray((a, b)) FROM (SELECT * FROM t ORDER BY a)").await,
        "[(1,'semicolon; and\\n\\nlines'),(2,'X'),(10,'\\n\\n'),(30,'c'),(40,'d')]"
    );
}

#[tokio::test]
async fn bodies_and_answers_are_compressed_as_asked() {
    let engine = Engine::start().await;
    engine.ask("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a").await;
    // A compressed statement must be unpacked before anybody reads it as SQL.
    let packed = gzip(b"INSERT INTO t FORMAT TSV\n1\n2\n");
    assert_eq!(post(&engine, "/", &[("Content-Encoding", "gzip")], packed).await.status, StatusCode::OK);
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(b"3\n4\n").unwrap();
    let path = "/?query=INSERT%20INTO%20t%20FORMAT%20TSV";
    post(&engine, path, &[("Content-Encoding", "lz4")], lz4.finish().unwrap()).await;
    let refused = post(&engine, path, &[("Content-Encoding", "zstd")], "x").await;
    assert_eq!((refused.status, refused.header("X-ClickHouse-Exception-Code")), (StatusCode::BAD_REQUEST, "36"));
    let damaged = post(&engine, &format!("{path}&decompress=1"), &[], vec![7_u8; 40]).await;
    assert_eq!((damaged.status, damaged.header("X-ClickHouse-Exception-Code")), (StatusCode::BAD_REQUEST, "271"));
    assert_eq!(engine.ask("SELECT sum(a), count() FROM t").await, "10\t4");

    let expected: String = (0..300_000).map(|number| format!("{number}\n")).collect();
    let sql = "SELECT number FROM numbers(300000) ORDER BY number";
    let mut text = String::new();
    let reply = post(&engine, "/", &[("Accept-Encoding", "gzip")], sql).await;
    assert_eq!(reply.header("Content-Encoding"), "gzip");
    flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut text).unwrap();
    assert!(text == expected);
    text.clear();
    let reply = post(&engine, "/?enable_http_compression=1", &[("Accept-Encoding", "lz4, gzip")], sql).await;
    assert_eq!(reply.header("Content-Encoding"), "lz4");
    lz4_flex::frame::FrameDecoder::new(&*reply.body).read_to_string(&mut text).unwrap();
    assert!(text == expected);
    let plain = post(&engine, "/?enable_http_compression=0", &[("Accept-Encoding", "lz4")], sql).await;
    assert_eq!((plain.header("Content-Encoding"), plain.text() == expected), ("", true));
    // The server's own blocks: magic byte of LZ4 behind the checksum; sending them back stores the same rows.
    let blocks = post(&engine, "/?compress=1", &[], sql).await;
    assert_eq!(blocks.body[16], 0x82);
    engine.ask("TRUNCATE TABLE t").await;
    post(&engine, &format!("{path}&decompress=1"), &[], blocks.body).await;
    assert_eq!(engine.ask("SELECT count(), sum(a) FROM t").await, "300000\t44999850000");
}

#[tokio::test]
async fn errors_carry_status_code_and_text() {
    let engine = Engine::start().await;
    let reply = post(&engine, "/?query_id=my-id", &[], "SELECT * FROM no_such_table").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.header("X-ClickHouse-Exception-Code"), "60");
    assert_eq!(reply.header("X-ClickHouse-Query-Id"), "my-id");
    assert!(
        reply.text().starts_with("Code: 60. DB::Exception: ") && reply.text().contains("(UNKNOWN_TABLE) (version "),
        "{}",
        reply.text()
    );
    for (path, sql, status, code) in [
        ("/", "SELEC 1", 400, "62"),
        ("/", "", 400, "62"),
        ("/", "SELECT 1; SELECT 2", 400, "62"),
        ("/?no_such_setting=1", "SELECT 1", 404, "115"),
        ("/?database=no_such_database", "SELECT 1", 404, "81"),
        ("/", "SELECT 1 FORMAT NoSuchFormat", 404, "73"),
        ("/", "SELECT nothing", 404, "47"),
        ("/?max_memory_usage=1000000", "SELECT groupArray(number) FROM numbers(10000000)", 500, "241"),
        (
            "/?max_execution_time=0.2",
            "SELECT sleepEachRow(0.05) FROM numbers(100) SETTINGS max_block_size = 1",
            408,
            "159",
        ),
    ] {
        let reply = post(&engine, path, &[], sql).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("X-ClickHouse-Exception-Code")),
            (status, code),
            "{path} {sql}: {}",
            reply.text()
        );
        assert!(reply.text().contains(&format!("Code: {code}. DB::Exception: ")), "{sql}: {}", reply.text());
    }
    assert_eq!(engine.ask("SELECT 1").await, "1");
}

#[tokio::test]
async fn every_format_gives_one_document_however_many_pieces_the_engine_makes() {
    let engine = Engine::start().await;
    let rows = 100_000_u32;
    let sql = |format: &str| {
        format!("SELECT number FROM numbers({rows}) ORDER BY number SETTINGS max_block_size = 5000 FORMAT {format}")
    };
    let csv: String = (0..rows).map(|number| format!("{number}\n")).collect();
    assert!(engine.run(&sql("CSV")).await.text() == csv);
    assert!(engine.run(&sql("CSVWithNames")).await.text() == format!("\"number\"\n{csv}"));
    assert!(engine.run(&sql("TSVWithNames")).await.text() == format!("number\n{csv}"));
    let json: serde_json::Value = serde_json::from_str(engine.run(&sql("JSON")).await.text()).unwrap();
    assert_eq!((json["rows"].as_u64(), json["data"].as_array().map(Vec::len)), (Some(100_000), Some(100_000)));
    let binary: Vec<u8> = (0..u64::from(rows)).flat_map(u64::to_le_bytes).collect();
    assert!(engine.run(&sql("RowBinary")).await.body == binary);
    let named = engine.run(&sql("RowBinaryWithNamesAndTypes")).await;
    assert!(named.body.strip_prefix(b"\x01\x06number\x06UInt64").expect("one header") == binary);
    let empty = engine.run("SELECT 1 AS a WHERE 0 FORMAT RowBinaryWithNamesAndTypes").await;
    assert_eq!(&*empty.body, b"\x01\x01a\x05UInt8");
    assert_eq!(
        engine.run("SELECT number AS a, count() FROM numbers(1, 1) GROUP BY a WITH TOTALS FORMAT TSV").await.text(),
        "1\t1\n\n0\t1\n"
    );
    assert_eq!(engine.run("DESCRIBE (SELECT 1 AS a) FORMAT CSV").await.text().split(',').next(), Some("\"a\""));
}

#[tokio::test]
async fn the_hello_of_the_go_driver_is_answered_in_its_revision() {
    let engine = Engine::start().await;
    let hello = "SELECT displayName(), version(), revision(), timezone()";
    let path = "/?client_protocol_version=54460&default_format=Native";
    let reply = post(&engine, path, &[], hello).await;
    let version = engine.ask("SELECT version()").await;
    let mut expected =
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00\x10sonde-clickhouse".to_vec();
    expected.extend_from_slice(b"\x09version()\x06String\x00");
    expected.push(u8::try_from(version.len()).unwrap());
    expected.extend_from_slice(version.as_bytes());
    expected.extend_from_slice(b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00\x0atimezone()\x06String\x00\x03UTC");
    assert_eq!(&*reply.body, expected.as_slice());
    // Every later answer is plain Native, because the revision above is 0.
    let rows = post(&engine, path, &[], "SELECT toUInt8(5) AS a").await;
    assert_eq!(&*rows.body, b"\x01\x01\x01a\x05UInt8\x05");
}
