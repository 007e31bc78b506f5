//! Real probes measure real servers on loopback, and what `sonde` prints about it is right.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::{target, wait};
use sonde_ops::demo::Validity;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

const REGIONS: [&str; 3] = ["eu-west", "us-east", "ap-south"];
const PHASES: [&str; 6] = ["dns_us", "connect_us", "tls_us", "send_us", "ttfb_us", "transfer_us"];

/// A name server that answers every question with one A record.
struct NameServer {
    address: SocketAddr,
    task: AbortHandle,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "ended when the server is dropped")]
        let task = tokio::spawn(async move {
            let mut buffer = [0_u8; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                // Copy id and question, say "response, recursion available, one answer", point back to the name.
                let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
                let mut answer = buffer[..end].to_vec();
                answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
                socket.send_to(&answer, peer).await.unwrap();
            }
        })
        .abort_handle();
        Self { address, task }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The phases of a sample that happened.
fn happened(sample: &Value) -> Vec<&'static str> {
    PHASES.into_iter().filter(|phase| !sample[*phase].is_null()).collect()
}

fn check_sample(sample: &Value, expected: &[&str]) {
    assert_eq!(happened(sample), expected, "{sample}");
    let sum: u64 = PHASES.iter().filter_map(|phase| sample[*phase].as_u64()).sum();
    let total = sample["total_us"].as_u64().unwrap();
    assert!(sum <= total, "phases are disjoint parts of the total: {sample}");
    for instant in ["slot_at", "started_at"] {
        let text = sample[instant].as_str().unwrap();
        let parsed: jiff::Timestamp = text.parse().unwrap();
        assert_eq!(parsed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(), text, "RFC 3339 in UTC with microseconds");
    }
    for field in ["check_id", "probe_id", "region", "outcome"] {
        assert!(sample[field].is_string(), "{field}: {sample}");
    }
    for field in ["error", "status_code", "bytes"] {
        assert!(sample.get(field).is_some(), "{field}: {sample}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_check_is_measured_from_every_region() {
    let dir = tempfile::tempdir().unwrap();
    let https = target::https(&dir.path().join("demo"), Validity::Now).await;
    let plain = target::http().await;
    let names = NameServer::start().await;
    let mesh = Mesh::start_trusting(&REGIONS, &dir.path().join("demo/ca.pem")).await;
    let common = ["--interval", "2s", "--timeout", "1s", "--regions", "eu-west,us-east,ap-south"];
    let url = format!("http://{}/", plain.address());
    let secure = format!("https://localhost:{}/", https.address().port());
    let (http_port, tls_port) = (plain.address().port().to_string(), https.address().port().to_string());
    let server = names.address.to_string();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["http", "--name", "web", "--url", &url], &["connect_us", "send_us", "ttfb_us", "transfer_us"]),
        (
            &["http", "--name", "secure", "--url", &secure, "--http-version", "2"],
            &["dns_us", "connect_us", "tls_us", "send_us", "ttfb_us", "transfer_us"],
        ),
        (&["tcp", "--name", "port", "--host", "127.0.0.1", "--port", &http_port], &["connect_us"]),
        (&["tls", "--name", "cert", "--host", "localhost", "--port", &tls_port], &["dns_us", "connect_us", "tls_us"]),
        (&["dns", "--name", "zone", "--query", "host.example", "--server", &server], &["send_us", "ttfb_us"]),
        (&["icmp", "--name", "echo", "--host", "127.0.0.1"], &["send_us", "ttfb_us"]),
    ];
    let mut ids = Vec::new();
    for (args, _) in cases {
        let mut all = args.to_vec();
        all.extend(common);
        ids.push(mesh.create_check(&all));
    }
    for (id, (args, expected)) in ids.iter().zip(cases) {
        let samples = mesh.wait_for_samples(id, &REGIONS, 2).await;
        for sample in &samples {
            assert_eq!(sample["outcome"], "ok", "{args:?}: {sample}");
            assert_eq!(sample["error"], Value::Null, "{sample}");
            check_sample(sample, expected);
        }
        check_order_and_rhythm(&samples, 2_000_000);
    }
    check_latency(&mesh, &ids[1]);
}

/// Newest first, and in each region the slots of one rhythm, apart from those of the others.
fn check_order_and_rhythm(samples: &[Value], interval_us: i64) {
    let slot =
        |sample: &Value| sample["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond();
    assert!(samples.windows(2).all(|pair| slot(&pair[0]) >= slot(&pair[1])), "newest first");
    let mut phases = Vec::new();
    for region in REGIONS {
        let own: Vec<i64> = samples.iter().filter(|s| s["region"] == region).map(|s| slot(s) % interval_us).collect();
        assert!(own.windows(2).all(|pair| pair[0] == pair[1]), "{region} keeps its rhythm: {own:?}");
        phases.push(own[0]);
    }
    phases.sort_unstable();
    for pair in phases.windows(2) {
        let apart = pair[1] - pair[0];
        assert!((apart - interval_us / 3).abs() <= 1, "regions take turns: {phases:?}");
    }
}

fn check_latency(mesh: &Mesh, check: &str) {
    let rows = mesh.cli().json(&["latency", "--check", check, "--last", "15m"]).rows();
    for region in REGIONS {
        let own: Vec<&Value> = rows.iter().filter(|row| row["region"] == region).collect();
        let phases: Vec<&str> = own.iter().map(|row| row["phase"].as_str().unwrap()).collect();
        assert_eq!(phases, ["dns", "connect", "tls", "send", "ttfb", "transfer", "total"], "{rows:?}");
        for row in own {
            let value = |name: &str| row[name].as_u64().unwrap();
            assert!(value("p50_us") <= value("p90_us") && value("p90_us") <= value("p99_us"), "{row}");
            assert!(value("p99_us") <= value("max_us") && value("count") >= 2, "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_their_class_and_slowness_has_its_phase() {
    let dir = tempfile::tempdir().unwrap();
    let delay = Duration::from_millis(120);
    let expired = target::https(&dir.path().join("demo"), Validity::Expired).await;
    let slow = target::slow(delay).await;
    let mesh = Mesh::start_trusting(&["eu-west"], &dir.path().join("demo/ca.pem")).await;
    let closed = {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap().port().to_string()
    };
    let common = ["--interval", "1s", "--timeout", "900ms", "--regions", "eu-west"];
    let create = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(common);
        mesh.create_check(&all)
    };
    let expired_url = format!("https://localhost:{}/", expired.address().port());
    let slow_url = format!("http://{}/", slow.address());
    let failures = [
        (create(&["http", "--name", "expired", "--url", &expired_url]), "tls_expired"),
        (create(&["tcp", "--name", "closed", "--host", "127.0.0.1", "--port", &closed]), "connect_refused"),
        (create(&["tcp", "--name", "private", "--host", "10.255.0.1", "--port", "80"]), "address_forbidden"),
        (create(&["http", "--name", "status", "--url", &slow_url, "--expect-status", "404"]), "http_status"),
    ];
    let late = create(&["http", "--name", "slow", "--url", &slow_url, "--degraded-after", "100ms"]);
    for (id, class) in &failures {
        let samples = mesh.wait_for_samples(id, &["eu-west"], 1).await;
        assert_eq!(samples[0]["outcome"], "failed", "{}", samples[0]);
        assert_eq!(samples[0]["error"], *class, "{}", samples[0]);
    }
    let samples = mesh.wait_for_samples(&late, &["eu-west"], 2).await;
    let floor = u64::try_from(delay.as_micros()).unwrap();
    for sample in &samples {
        assert_eq!(sample["outcome"], "degraded", "{sample}");
        assert!(sample["ttfb_us"].as_u64().unwrap() >= floor, "the wait is in ttfb: {sample}");
        assert!(sample["connect_us"].as_u64().unwrap() < floor, "and nowhere else: {sample}");
        assert_eq!(sample["status_code"], 200);
        assert_eq!(sample["bytes"], 27);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_check_rests_and_a_changed_one_changes() {
    let plain = target::http().await;
    let mesh = Mesh::start(&["eu-west"]).await;
    let url = format!("http://{}/", plain.address());
    let common = ["--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let id = mesh.create_check(&[&["http", "--name", "web", "--url", &url], &common[..]].concat());
    mesh.wait_for_samples(&id, &["eu-west"], 2).await;
    let cli = mesh.cli();

    assert_eq!(cli.json(&["check", "pause", "web"]).json()["paused"], true);
    // What was on its way arrives; then two probe heartbeats pass without a sample.
    let settled = wait::until(PATIENCE, "the paused check rests", async || {
        let before = mesh.samples(&id);
        let newest = before[0]["slot_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        (jiff::Timestamp::now().duration_since(newest) > jiff::SignedDuration::from_secs(4)).then_some(before.len())
    })
    .await;
    assert_eq!(mesh.samples(&id).len(), settled);

    assert_eq!(cli.json(&["check", "resume", "web"]).json()["paused"], false);
    mesh.wait_for_samples(&id, &["eu-west"], settled + 1).await;

    let changed = cli.json(&["check", "update", "web", "--expect-status", "404"]).json();
    assert_eq!(changed["spec"]["expect_status"][0], "404", "{changed}");
    wait::until(PATIENCE, "the change has reached the probe", async || {
        (mesh.samples(&id)[0]["error"] == "http_status").then_some(())
    })
    .await;

    assert_eq!(cli.json(&["check", "delete", "web"]).json()["deleted"], true);
    assert_eq!(cli.run(&["check", "get", &id]).code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_samples_as_they_are_stored() {
    let plain = target::http().await;
    let mesh = Mesh::start(&["eu-west"]).await;
    let url = format!("http://{}/", plain.address());
    let args =
        ["http", "--name", "web", "--url", &url, "--interval", "1s", "--timeout", "500ms", "--regions", "eu-west"];
    let id = mesh.create_check(&args);
    let said = mesh.cli().json(&["sample", "watch", "--check", "web", "--count", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    let rows: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2, "one object per line: {said:?}");
    for row in &rows {
        assert_eq!(row["check_id"], id.as_str());
        check_sample(row, &["connect_us", "send_us", "ttfb_us", "transfer_us"]);
    }
    let stored = mesh.samples(&id);
    assert!(rows.iter().all(|row| stored.contains(row)), "what is shown is stored: {rows:?} {stored:?}");
}
