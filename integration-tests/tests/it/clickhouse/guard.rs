//! What the server refuses: files, other machines, control statements, wrong passwords.

use http::{Method, StatusCode};
use sonde_integration_tests::engine::Engine;

#[tokio::test]
async fn nothing_reaches_files_or_other_machines() {
    let engine = Engine::start().await;
    let secret = engine.data_dir().with_file_name("secret.txt");
    std::fs::write(&secret, "treasure").unwrap();
    let secret = secret.display().to_string();
    engine.ask("CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a").await;
    for sql in [
        format!("SELECT * FROM file('{secret}', 'LineAsString')"),
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT file('{secret}')"),
        format!("SELECT `file`/**/('{secret}')"),
        format!("INSERT INTO t VALUES (file('{secret}'))"),
        format!("SELECT * FROM format(Values, 'a String', $q$(file('{secret}'))$q$)"),
        format!("SELECT * FROM format(Values, 'a String', $q$(file('{secret}'))$q$) SETTINGS input_format_values_interpret_expressions = 1"),
        format!("INSERT INTO t FROM INFILE '{secret}' FORMAT CSV"),
        format!("CREATE TABLE f (a String) ENGINE = File(CSV, '{secret}')"),
        format!("SELECT 1 INTO OUTFILE '{secret}.copy'"),
        format!("INSERT INTO FUNCTION file('{secret}.copy', 'CSV', 'a String') VALUES ('x')"),
        format!("BACKUP TABLE t TO File('{secret}.copy')"),
        format!("CREATE TABLE d (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{secret}.d/')"),
        format!("SELECT * FROM url('http://{}/ping', 'LineAsString', 'a String')", engine.address()),
        format!("SELECT * FROM remote('{}', 'system', 'one')", engine.address()),
        "SELECT * FROM s3('http://127.0.0.1:1/x', 'CSV', 'a String')".to_owned(),
        "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(HTTP(URL 'http://127.0.0.1:1' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(1)".to_owned(),
        "CREATE NAMED COLLECTION n AS a = 1".to_owned(),
        "SELECT * FROM executable('cat', 'CSV', 'a String')".to_owned(),
    ] {
        let reply = engine.run(&sql).await;
        assert_ne!(reply.status, StatusCode::OK, "{sql}: {}", reply.text());
        assert!(!reply.text().contains("treasure"), "{sql}: {}", reply.text());
        assert!(!std::path::Path::new(&format!("{secret}.copy")).exists(), "{sql}");
    }
    assert_eq!(engine.ask("SELECT count() FROM t").await, "0");
    // The words alone are harmless.
    assert_eq!(engine.ask("SELECT 'file(x)', length('INFILE')").await, "file(x)\t6");
}

#[tokio::test]
async fn words_that_end_a_client_are_syntax_errors() {
    let engine = Engine::start().await;
    for sql in ["exit", "quit", "q", "logout", "exit;", "\\q", ":q", "\u{4}", "\u{4}SELECT 1", " ", "-- nothing"] {
        let reply = engine.run(sql).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("X-ClickHouse-Exception-Code")),
            (400, "62"),
            "{sql:?}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn control_statements_need_the_administrator() {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "s3cret-token\n").unwrap();
    let engine = Engine::start_with(&["--admin-token-file", token.to_str().unwrap()]).await;
    for sql in [
        "SYSTEM FLUSH LOGS",
        "SET max_threads = 1",
        "USE system",
        "ATTACH TABLE t",
        "DETACH TABLE t",
        "CREATE FUNCTION f AS (x) -> x",
    ] {
        let reply = engine.run(sql).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("X-ClickHouse-Exception-Code")),
            (403, "497"),
            "{sql}: {}",
            reply.text()
        );
    }
    for (token, status) in [("s3cret-token", StatusCode::OK), ("another", StatusCode::FORBIDDEN)] {
        let headers = [("X-Sonde-Admin", token)];
        let reply = engine.request(Method::POST, "/", &headers, "SYSTEM FLUSH LOGS").await;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    // These two are the collector's: it ends inserts of unknown outcome, and merges before it counts.
    engine.ask("CREATE TABLE t (a UInt8) ENGINE = ReplacingMergeTree ORDER BY a").await;
    engine.ask("OPTIMIZE TABLE t FINAL").await;
    assert_eq!(engine.ask("KILL QUERY WHERE query_id = 'nobody' SYNC").await, "");
    let written = engine.request(Method::GET, "/?query=INSERT%20INTO%20t%20VALUES%20(1)", &[], "").await;
    assert_eq!((written.status.as_u16(), written.header("X-ClickHouse-Exception-Code")), (403, "164"));
}

#[tokio::test]
async fn a_password_is_checked_in_every_place_that_carries_one() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    std::fs::write(&file, "pw\n").unwrap();
    let engine = Engine::start_with(&["--password-file", file.to_str().unwrap()]).await;
    for (path, headers, status) in [
        ("/", vec![], 403),
        ("/", vec![("X-ClickHouse-User", "default"), ("X-ClickHouse-Key", "pw")], 200),
        ("/", vec![("X-ClickHouse-User", "root"), ("X-ClickHouse-Key", "pw")], 403),
        ("/", vec![("X-ClickHouse-Key", "wrong")], 403),
        ("/", vec![("Authorization", "Basic ZGVmYXVsdDpwdw==")], 200),
        ("/?user=default&password=pw", vec![], 200),
        ("/?password=", vec![], 403),
    ] {
        let reply = engine.request(Method::POST, path, &headers, "SELECT 1").await;
        assert_eq!(reply.status.as_u16(), status, "{path} {headers:?}: {}", reply.text());
        assert!(!reply.text().contains("pw"), "{}", reply.text());
    }
    assert_eq!(engine.request(Method::GET, "/ping", &[], "").await.status, StatusCode::OK);
}
