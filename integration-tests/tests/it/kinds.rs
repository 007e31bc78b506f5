//! Each kind of check from `sonde check create` to `sonde sample list`, against servers that other people wrote.

mod dns;
mod domain;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::process::{Process, python};
use sonde_integration_tests::wait;
use sonde_ops::mesh::postgres::{Cluster, Installation, RunAs};

/// A certificate for `localhost` and 127.0.0.1, and the authority that vouches for it.
struct Certificate {
    authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn make(dir: &Path) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.distinguished_name.push(DnType::CommonName, "an authority of tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let paths = ["ca.pem", "chain.pem", "key.pem"].map(|name| dir.join(name));
        for (path, text) in paths.iter().zip([root.pem(), leaf.pem(), key.serialize_pem()]) {
            fs::write(path, text).unwrap();
        }
        let [authority, chain, key] = paths;
        Self { authority, chain, key }
    }
}

/// The servers of `servers.py`.
struct Servers {
    child: Child,
    ports: Value,
}

impl Servers {
    fn start(certificate: &Certificate) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kinds/servers.py");
        let mut command = Command::new(python());
        command.arg(script).args([&certificate.chain, &certificate.key]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("servers.py: {fault}: {line:?}"));
        Self { child, ports }
    }

    fn port(&self, name: &str) -> String {
        self.ports[name].as_u64().unwrap_or_else(|| panic!("servers.py has no {name}")).to_string()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It ends with its standard input; killed, it ends at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Postgres that speaks TLS on a TCP port.
struct Postgres {
    _server: Process,
    port: u16,
}

impl Postgres {
    async fn start(dir: &Path, certificate: &Certificate) -> Self {
        let installation = Installation::find().unwrap();
        let folder = dir.join("postgres");
        // The server's user has to get there.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        installation.folder(&folder).unwrap();
        let run_as = installation.run_as();
        let cluster = Cluster { installation, data: folder.join("data"), socket: folder.clone() };
        cluster.create("tests").unwrap();
        let owned = |from: &Path, name: &str| {
            let path = folder.join(name);
            fs::copy(from, &path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if let Some(RunAs { uid, gid }) = run_as {
                chown(&path, Some(uid), Some(gid)).unwrap();
            }
            path.display().to_string()
        };
        let chain = format!("ssl_cert_file={}", owned(&certificate.chain, "chain.pem"));
        let key = format!("ssl_key_file={}", owned(&certificate.key, "key.pem"));
        // Postgres takes no port 0. Somebody else may take the port before it does; then it ends, and gets another.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut command = cluster.serve().unwrap();
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}"), "-c", "ssl=on"]);
            command.args(["-c", &chain, "-c", &key]);
            let mut server = Process::start(command, &dir.join("postgres.log"));
            let is_up = wait::until(PATIENCE, "Postgres is up or gone", async || {
                if cluster.is_ready() { Some(true) } else { (!server.is_alive()).then_some(false) }
            });
            if is_up.await {
                return Self { _server: server, port };
            }
        }
        panic!("Postgres does not start: {}", fs::read_to_string(dir.join("postgres.log")).unwrap_or_default());
    }
}

const REGIONS: [&str; 1] = ["eu-west"];
const COMMON: [&str; 6] = ["--interval", "2s", "--timeout", "2s", "--regions", "eu-west"];
const PHASES: [&str; 6] = ["dns_us", "connect_us", "tls_us", "send_us", "ttfb_us", "transfer_us"];

/// A check, and what its samples say: outcome, error, status code, phases that happened.
type Case<'a> = (Vec<&'a str>, &'a str, Option<&'a str>, Option<u64>, &'a [&'a str]);

async fn run(mesh: &Mesh, cases: &[Case<'_>]) {
    let ids: Vec<String> = cases.iter().map(|(args, ..)| mesh.create_check(&[args, &COMMON[..]].concat())).collect();
    for (id, (args, outcome, error, status, phases)) in ids.iter().zip(cases) {
        for sample in mesh.wait_for_samples(id, &REGIONS, 2).await {
            assert_eq!(sample["outcome"], *outcome, "{args:?}: {sample}");
            assert_eq!(sample["error"].as_str(), *error, "{args:?}: {sample}");
            assert_eq!(sample["status_code"].as_u64(), *status, "{args:?}: {sample}");
            let happened: Vec<&str> = PHASES.into_iter().filter(|phase| !sample[*phase].is_null()).collect();
            assert_eq!(happened, *phases, "{args:?}: {sample}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_and_database_servers_upgrade_to_tls() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let servers = Servers::start(&certificate);
    let postgres = Postgres::start(dir.path(), &certificate).await;
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let (smtp, database) = (servers.port("smtp"), postgres.port.to_string());
    let mail = ["--host", "localhost", "--port", &smtp];
    let base = ["--host", "localhost", "--port", &database];
    let over_tls: &[&str] = &["dns_us", "connect_us", "tls_us"];
    let talk = ["--send", r"EHLO sonde.example\r\n", "--expect", r"(?m)^250[ -]"];
    run(
        &mesh,
        &[
            (
                [&["tcp", "--name", "greeting"], &mail[..], &["--expect", "^220 .*a mail server"]].concat(),
                "ok",
                None,
                None,
                &["dns_us", "connect_us", "ttfb_us", "transfer_us"],
            ),
            (
                [&["tcp", "--name", "mail"], &mail[..], &["--starttls", "smtp"], &talk].concat(),
                "ok",
                None,
                None,
                &PHASES,
            ),
            (
                [&["tls", "--name", "mail cert"], &mail[..], &["--starttls", "smtp"]].concat(),
                "ok",
                None,
                None,
                over_tls,
            ),
            (
                [&["tls", "--name", "database cert"], &base[..], &["--starttls", "postgres"]].concat(),
                "ok",
                None,
                None,
                over_tls,
            ),
            (
                [&["tcp", "--name", "wrong answer"], &mail[..], &["--send", r"QUIT\r\n", "--expect", "^554"]].concat(),
                "failed",
                Some("expect_mismatch"),
                None,
                &["dns_us", "connect_us", "send_us", "ttfb_us", "transfer_us"],
            ),
            (
                [&["tls", "--name", "not this protocol"], &mail[..], &["--starttls", "imap"]].concat(),
                "failed",
                Some("starttls_protocol"),
                None,
                over_tls,
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_health_services_and_websockets_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let servers = Servers::start(&certificate);
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let [udp, grpc, grpc_tls] = ["udp", "grpc", "grpc_tls"].map(|name| servers.port(name));
    let ws = format!("ws://localhost:{}/", servers.port("ws"));
    let wss = format!("wss://localhost:{}/", servers.port("wss"));
    let datagram = ["--host", "127.0.0.1", "--port", &udp, "--send", r"ping\x00"];
    let health = ["--host", "127.0.0.1", "--port", &grpc];
    let secure = ["--host", "localhost", "--port", &grpc_tls, "--tls"];
    let exchange: &[&str] = &["connect_us", "send_us", "ttfb_us", "transfer_us"];
    let named: &[&str] = &["dns_us", "connect_us", "send_us", "ttfb_us", "transfer_us"];
    run(
        &mesh,
        &[
            (
                [&["udp", "--name", "echo"], &datagram[..], &["--expect", r"^you said ping\x00$"]].concat(),
                "ok",
                None,
                None,
                &["send_us", "ttfb_us"],
            ),
            (
                [&["udp", "--name", "no echo"], &datagram[..], &["--expect", "pong"]].concat(),
                "failed",
                Some("expect_mismatch"),
                None,
                &["send_us", "ttfb_us"],
            ),
            ([&["grpc", "--name", "server"], &health[..]].concat(), "ok", None, Some(200), exchange),
            (
                [&["grpc", "--name", "cart"], &secure[..], &["--service", "shop.v1.Cart"]].concat(),
                "ok",
                None,
                Some(200),
                &PHASES,
            ),
            (
                [&["grpc", "--name", "broken"], &health[..], &["--service", "shop.v1.Broken"]].concat(),
                "failed",
                Some("grpc_not_serving"),
                Some(200),
                exchange,
            ),
            (
                [&["grpc", "--name", "absent"], &health[..], &["--service", "shop.v1.Absent"]].concat(),
                "failed",
                Some("grpc_not_serving"),
                Some(5),
                exchange,
            ),
            (vec!["websocket", "--name", "upgrade", "--url", &ws], "ok", None, Some(101), named),
            (
                vec!["websocket", "--name", "feed", "--url", &wss, "--send", "hello", "--expect", "^you said hello$"],
                "ok",
                None,
                Some(101),
                &PHASES,
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_3_and_quic_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let servers = Servers::start(&certificate);
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let port = servers.port("http3");
    let found = format!("https://localhost:{port}/health");
    let absent = format!("https://localhost:{port}/absent");
    let quic = ["--host", "localhost", "--port", &port];
    let handshake: &[&str] = &["dns_us", "connect_us", "tls_us"];
    let twice: &[&str] = &["dns_us", "connect_us", "tls_us", "ttfb_us", "transfer_us"];
    run(
        &mesh,
        &[
            (vec!["http", "--name", "found", "--url", &found, "--http-version", "3"], "ok", None, Some(200), &PHASES),
            (
                vec![
                    "http",
                    "--name",
                    "posted",
                    "--url",
                    &found,
                    "--http-version",
                    "3",
                    "--method",
                    "POST",
                    "--body",
                    "a",
                ],
                "ok",
                None,
                Some(200),
                &PHASES,
            ),
            (
                vec!["http", "--name", "absent", "--url", &absent, "--http-version", "3"],
                "failed",
                Some("http_status"),
                Some(404),
                &PHASES,
            ),
            ([&["quic", "--name", "edge"], &quic[..]].concat(), "ok", None, None, handshake),
            ([&["quic", "--name", "back"], &quic[..], &["--zero-rtt"]].concat(), "ok", None, None, twice),
        ],
    )
    .await;
    let ticket = mesh.create_check(&[&["quic", "--name", "ticket"], &quic[..], &["--zero-rtt"], &COMMON].concat());
    for sample in mesh.wait_for_samples(&ticket, &REGIONS, 1).await {
        let read = |name: &str| sample["readings"][name].as_i64();
        assert_eq!((read("quic_version"), read("quic_zero_rtt")), (Some(1), Some(1)), "{sample}");
    }
}
