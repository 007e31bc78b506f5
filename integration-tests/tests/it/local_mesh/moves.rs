//! A local mesh whose surroundings change: another ClickHouse, other ports, a lost memory, checks that run rarely.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sonde_integration_tests::engine::Engine;
use sonde_integration_tests::process::program;
use sonde_integration_tests::wait;

use super::LocalMesh;

/// Patience with a sample on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest `up` of a mesh that has nothing to wait for; waiting for a sample in vain would take a minute.
const UP_MAX: Duration = Duration::from_secs(40);

fn up(mesh: &LocalMesh, clickhouse: &str) -> (bool, String) {
    let mut command = Command::new(program("sonde"));
    command.args(["mesh", "up", "--detach", "--dir"]).arg(&mesh.dir).env("SONDE_CLICKHOUSE_URL", clickhouse);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

fn memory(mesh: &LocalMesh) -> Value {
    serde_json::from_str(&fs::read_to_string(mesh.dir.join("mesh.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_clickhouse_is_used_instead_of_an_own_one() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "p@ss word").unwrap();
    let engine = Engine::start_with(&["--password-file", secret.path().to_str().unwrap()]).await;
    let named = engine.url().replace("http://", "http://default:p%40ss%20word@");
    let mesh = LocalMesh::new();
    let (started, said) = up(&mesh, "nonsense");
    assert!(!started && said.contains("SONDE_CLICKHOUSE_URL") && said.contains("http://host:port"), "{said}");
    let (started, said) = up(&mesh, &named);
    assert!(started, "{said}");
    assert!(!mesh.dir.join("clickhouse").exists(), "no engine of its own was started");
    let cli = mesh.cli();
    let is_named = cli.env.iter().any(|(name, value)| name == "SONDE_CLICKHOUSE" && *value == named);
    assert!(is_named, "{:?}", cli.env);
    wait::until(PATIENCE, "samples in that server", async || {
        let rows = cli.json(&["sample", "list", "--check", "demo-healthy"]).rows();
        (!rows.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_follows_its_ports_and_finds_its_data_again() {
    let mesh = LocalMesh::new();
    mesh.up();
    let cli = mesh.cli();
    let kept = cli.json(&["check", "get", "demo-healthy"]).json();
    let probes = |mesh: &LocalMesh| -> Vec<Value> {
        let rows = mesh.cli().json(&["probe", "list"]).rows();
        rows.iter().map(|row| row["id"].clone()).collect()
    };
    let joined = probes(&mesh);

    // A user who has to change a port does it in mesh.json, here while everything runs.
    let mut changed = memory(&mesh);
    let before = changed["ports"].clone();
    // Between the range that meshes choose from and the one of outgoing connections, and not where another run looks.
    let begin = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let mut free = (begin..32_000).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    for part in ["mesh", "enrol", "admin", "web", "clickhouse"] {
        changed["ports"][part] = free.next().unwrap().into();
    }
    fs::write(mesh.dir.join("mesh.json"), changed.to_string()).unwrap();
    mesh.up();
    assert_eq!(mesh.cli().json(&["check", "get", "demo-healthy"]).json(), kept);
    assert_eq!(probes(&mesh), joined, "the probes have followed");

    // A lost memory costs the ports, not the data.
    assert!(mesh.command(&["mesh", "down"]).0);
    fs::write(mesh.dir.join("mesh.json"), "{").unwrap();
    let (started, said) = mesh.command(&["mesh", "up", "--detach"]);
    assert!(!started && said.contains("mesh.json") && said.contains("delete it"), "{said}");
    fs::remove_file(mesh.dir.join("mesh.json")).unwrap();
    mesh.up();
    let now = memory(&mesh);
    assert_ne!(now["ports"], changed["ports"], "{before}");
    assert_eq!(now["id"], changed["id"]);
    assert_eq!(mesh.cli().json(&["check", "get", "demo-healthy"]).json(), kept);
    assert_eq!(probes(&mesh), joined, "nobody joined twice");

    // A mesh whose only check runs once an hour is healthy without a sample.
    let cli = mesh.cli();
    for check in cli.json(&["check", "list"]).rows() {
        assert_eq!(cli.run(&["check", "delete", check["id"].as_str().unwrap()]).code, 0);
    }
    let hourly = ["tcp", "--name", "hourly", "--host", "127.0.0.1", "--port", "9", "--regions", "eu-west"];
    let made = cli.run(&[&["check", "create"], &hourly[..], &["--interval", "1h"]].concat());
    assert_eq!(made.code, 0, "{made:?}");
    let begin = Instant::now();
    mesh.up();
    assert!(begin.elapsed() < UP_MAX, "{:?}", begin.elapsed());
}
