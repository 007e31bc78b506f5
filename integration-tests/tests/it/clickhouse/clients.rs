//! Programs that people point at ClickHouse: curl, and the official Python client.

use std::path::Path;
use std::process::Command;

use sonde_integration_tests::engine::Engine;
use sonde_integration_tests::process::python;

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "60"]).args(arguments).output();
    let output = output.expect("curl is missing: run `make setup`");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "curl {arguments:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn curl_works_as_the_manual_of_clickhouse_shows_it() {
    let engine = Engine::start().await;
    let url = format!("{}/", engine.url());
    assert_eq!(curl(&[&url]), "Ok.\n");
    assert_eq!(curl(&[&url, "--data-binary", "CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a"]), "");
    assert_eq!(curl(&[&format!("{url}?query=INSERT%20INTO%20t%20VALUES"), "-d", "(1,'one'),(2,'two')"]), "");
    assert_eq!(curl(&[&format!("{url}?query=INSERT%20INTO%20t%20FORMAT%20CSV"), "--data-binary", "3,\"three\"\n"]), "");
    assert_eq!(curl(&["--compressed", &url, "-d", "SELECT * FROM t ORDER BY a"]), "1\tone\n2\ttwo\n3\tthree\n");
    assert_eq!(
        curl(&["-G", &url, "--data-urlencode", "query=SELECT b FROM t WHERE a = {n:UInt8}", "-d", "param_n=2"]),
        "two\n"
    );
    assert_eq!(curl(&[&url, "-F", "query=SELECT b FROM t WHERE a = {n:UInt8}", "-F", "param_n=3"]), "three\n");
    assert_eq!(curl(&["-u", "default:", &url, "-d", "SELECT currentUser()"]), "default\n");
    let failed = curl(&["-i", &url, "-d", "SELECT * FROM missing"]);
    assert!(
        failed.starts_with("HTTP/1.1 404") && failed.to_lowercase().contains("x-clickhouse-exception-code: 60"),
        "{failed}"
    );
}

#[tokio::test]
async fn the_official_python_client_sees_a_clickhouse_server() {
    let engine = Engine::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clickhouse/client.py");
    let (host, port) = engine.address().split_once(':').unwrap();
    let output = Command::new(python()).arg(script).args([host, port]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.ends_with("all good\n"), "{text}");
}
