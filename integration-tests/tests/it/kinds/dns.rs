//! DNS: BIND with zones that its own tools signed, over UDP, TCP, TLS and HTTPS; aioquic over QUIC.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::process::Process;
use sonde_integration_tests::wait;

use super::{Certificate, PHASES, REGIONS, Servers, run};

/// The records of a zone that is going to be signed. `big` does not fit a datagram, `plain` is a zone that is not signed.
const ZONE: &str = "\
$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 300
@ IN NS ns
ns IN A 192.0.2.53
www IN A 192.0.2.1
www IN A 192.0.2.2
plain IN NS ns.plain
ns.plain IN A 192.0.2.53
";

/// A program of Debian's packages bind9-utils, or the server of bind9, which `ops/setup.sh` unpacks.
fn program(name: &str) -> PathBuf {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home).unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), cache.join("sonde/bind9/usr/sbin")]);
    let mut found = folders.map(|folder| folder.join(name)).filter(|program| program.is_file());
    found.next().unwrap_or_else(|| panic!("{name} is not there: run ops/setup.sh test"))
}

/// What `name` prints when it runs in `dir`.
fn output(name: &str, dir: &Path, args: &[&str]) -> String {
    let output = Command::new(program(name)).args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Writes and signs `zone`, with `times` for the signatures, and returns the key that others trust.
fn sign(dir: &Path, zone: &str, times: &[&str]) -> String {
    let big: String = (0..12).map(|nth| format!("big IN TXT \"{nth}{}\"\n", "x".repeat(240))).collect();
    fs::write(dir.join(zone), format!("{ZONE}{big}")).unwrap();
    let key = output("dnssec-keygen", dir, &["-a", "ECDSAP256SHA256", "-f", "KSK", zone]);
    output("dnssec-keygen", dir, &["-a", "ECDSAP256SHA256", zone]);
    output("dnssec-signzone", dir, &[&["-S", "-o", zone], times, &[zone]].concat());
    let record = fs::read_to_string(dir.join(format!("{key}.key"))).unwrap();
    record.lines().find(|line| line.contains("DNSKEY")).unwrap().to_owned()
}

/// BIND, and the keys of its zones.
struct Bind {
    _server: Process,
    /// Ports of DNS in the clear, over TLS and over HTTPS.
    ports: [u16; 3],
    signed: String,
    stale: String,
}

impl Bind {
    async fn start(dir: &Path, certificate: &Certificate) -> Self {
        let signed = sign(dir, "signed.test", &[]);
        let stale = sign(dir, "stale.test", &["-P", "-s", "20200101000000", "-e", "20200201000000"]);
        fs::write(dir.join("plain.signed.test"), ZONE).unwrap();
        // BIND takes no port 0. Somebody else may take a port before it does; then it ends, and gets others.
        for _ in 0..5 {
            let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let ports = [free(), free(), free()].map(|listener| listener.local_addr().unwrap().port());
            let settings = dir.join("named.conf");
            fs::write(&settings, configuration(dir, certificate, ports)).unwrap();
            let mut command = Command::new(program("named"));
            command.arg("-g").arg("-c").arg(&settings);
            let mut server = Process::start(command, &dir.join("named.log"));
            let is_up = wait::until(PATIENCE, "BIND is up or gone", async || {
                if server.log().contains(" running") { Some(true) } else { (!server.is_alive()).then_some(false) }
            });
            let is_bound = !is_up.await || !server.log().contains("address in use");
            if server.is_alive() && is_bound {
                return Self { _server: server, ports, signed, stale };
            }
        }
        panic!("BIND does not start: {}", fs::read_to_string(dir.join("named.log")).unwrap_or_default());
    }
}

fn configuration(dir: &Path, certificate: &Certificate, [plain, tls, https]: [u16; 3]) -> String {
    let (dir, chain, key) = (dir.display(), certificate.chain.display(), certificate.key.display());
    let zone = |name: &str, file: &str| format!("zone \"{name}\" {{ type primary; file \"{file}\"; }};\n");
    format!(
        "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;\n\
         listen-on port {plain} {{ 127.0.0.1; }};\n\
         listen-on port {tls} tls local {{ 127.0.0.1; }};\n\
         listen-on port {https} tls local http local {{ 127.0.0.1; }};\n\
         listen-on-v6 {{ none; }}; }};\n\
         controls {{ }};\n\
         tls local {{ cert-file \"{chain}\"; key-file \"{key}\"; }};\n\
         http local {{ endpoints {{ \"/dns-query\"; }}; }};\n\
         {}{}{}",
        zone("signed.test", "signed.test.signed"),
        zone("stale.test", "stale.test.signed"),
        zone("plain.signed.test", "plain.signed.test"),
    )
}

const DATAGRAM: &[&str] = &["send_us", "ttfb_us"];
const STREAM: &[&str] = &["connect_us", "send_us", "ttfb_us", "transfer_us"];

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_answers_over_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let servers = Servers::start(&certificate);
    let bind = Bind::start(dir.path(), &certificate).await;
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let [plain, tls, https] = bind.ports;
    let plain = format!("127.0.0.1:{plain}");
    let tls = format!("localhost:{tls}");
    let https = format!("https://localhost:{https}/dns-query");
    let quic = format!("localhost:{}", servers.port("doq"));
    let www = ["dns", "--query", "www.signed.test", "--no-recursion", "--server"];
    let big = ["dns", "--query", "big.signed.test", "--record", "TYPE16", "--server"];
    run(
        &mesh,
        &[
            ([&www[..], &[&plain, "--name", "udp"]].concat(), "ok", None, Some(0), DATAGRAM),
            ([&big[..], &[&plain, "--name", "truncated"]].concat(), "ok", None, Some(0), STREAM),
            ([&www[..], &[&plain, "--name", "tcp", "--transport", "tcp"]].concat(), "ok", None, Some(0), STREAM),
            ([&www[..], &[&tls, "--name", "dot", "--transport", "dot"]].concat(), "ok", None, Some(0), &PHASES),
            ([&www[..], &[&https, "--name", "doh", "--transport", "doh"]].concat(), "ok", None, Some(0), &PHASES),
            ([&www[..], &[&quic, "--name", "doq", "--transport", "doq"]].concat(), "ok", None, Some(0), &PHASES),
            (
                vec!["dns", "--name", "none", "--query", "none.signed.test", "--server", &plain],
                "failed",
                Some("dns_nxdomain"),
                Some(3),
                DATAGRAM,
            ),
            (
                [&www[..], &[&plain, "--name", "other code", "--expect-rcode", "REFUSED"]].concat(),
                "failed",
                Some("dns_rcode"),
                Some(0),
                DATAGRAM,
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_a_zone_are_verified_on_the_probe() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path());
    let bind = Bind::start(dir.path(), &certificate).await;
    let mesh = Mesh::start_trusting(&REGIONS, &certificate.authority).await;
    let [plain, tls, https] = bind.ports;
    let plain = format!("127.0.0.1:{plain}");
    let tls = format!("localhost:{tls}");
    let https = format!("https://localhost:{https}/dns-query");
    let signed = ["--dnssec", "require", "--trust-anchor", &bind.signed, "--no-recursion"];
    let stale = ["--dnssec", "validate", "--trust-anchor", &bind.stale, "--no-recursion"];
    let www = ["dns", "--query", "www.signed.test", "--server"];
    let none = ["dns", "--query", "none.signed.test", "--server", &plain, "--expect-rcode", "NXDOMAIN"];
    let below = ["dns", "--query", "www.plain.signed.test", "--server", &plain, "--name", "unsigned"];
    let expired = ["dns", "--query", "www.stale.test", "--server", &plain, "--name", "expired"];
    run(
        &mesh,
        &[
            ([&www[..], &[&plain, "--name", "udp"], &signed].concat(), "ok", None, Some(0), DATAGRAM),
            (
                [&www[..], &[&tls, "--name", "dot", "--transport", "dot"], &signed].concat(),
                "ok",
                None,
                Some(0),
                &PHASES,
            ),
            (
                [&www[..], &[&https, "--name", "doh", "--transport", "doh"], &signed].concat(),
                "ok",
                None,
                Some(0),
                &PHASES,
            ),
            ([&none[..], &["--name", "absence"], &signed].concat(), "ok", None, Some(3), DATAGRAM),
            ([&below[..], &signed].concat(), "failed", Some("dns_insecure"), Some(0), DATAGRAM),
            ([&expired[..], &stale].concat(), "failed", Some("dns_bogus"), Some(0), DATAGRAM),
            (
                [&www[..], &[&plain, "--name", "no anchor", "--dnssec", "require"]].concat(),
                "failed",
                Some("dns_chain"),
                Some(0),
                DATAGRAM,
            ),
        ],
    )
    .await;
}
