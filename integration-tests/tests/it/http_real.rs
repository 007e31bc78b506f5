//! Options of `http` checks from `sonde check create` to `sonde sample list`, against nginx.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sonde_integration_tests::mesh::{Mesh, PATIENCE};
use sonde_integration_tests::process::Process;
use sonde_integration_tests::wait;

const REGIONS: [&str; 1] = ["eu-west"];
const COMMON: [&str; 6] = ["--interval", "2s", "--timeout", "2s", "--regions", "eu-west"];

/// nginx, from the system or as `ops/setup.sh test` unpacked it.
fn nginx() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join("nginx")).collect();
    places.push(PathBuf::from("/usr/sbin/nginx"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    places.extend(cache.map(|cache| cache.join("sonde/nginx/usr/sbin/nginx")));
    places.into_iter().find(|place| place.exists()).expect("nginx is missing: run `ops/setup.sh test`")
}

/// A certificate for `names`, and its key, as files of `dir` that begin with `name`.
fn issue(dir: &Path, name: &str, names: &[&str], issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, format!("a {name}"));
    let certificate = params.signed_by(&key, issuer).unwrap();
    fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// Makes an authority and what it vouches for: the server, and a client.
fn certificates(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority of tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    fs::write(dir.join("ca.pem"), root.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    issue(dir, "server", &["localhost", "127.0.0.1"], &issuer);
    issue(dir, "client", &["probe.example"], &issuer);
}

/// Two servers: one in the clear that leads to the other, and one over TLS with HTTP/1.1 and HTTP/2.
fn configuration(dir: &Path, plain: u16, secure: u16) -> String {
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        r#"daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{plain};
        location / {{ return 301 https://localhost:{secure}/second; }}
        location /loop {{ return 302 /loop; }}
        location /private {{ return 302 http://10.0.0.1/; }}
    }}
    server {{
        listen 127.0.0.1:{secure} ssl http2;
        ssl_certificate {dir}/server.pem;
        ssl_certificate_key {dir}/server.key;
        ssl_client_certificate {dir}/ca.pem;
        ssl_verify_client optional;
        location / {{ return 200 "ok"; }}
        location /second {{ return 307 /end; }}
        location /down {{ return 302 http://127.0.0.1:{plain}/; }}
        location /login {{
            auth_basic "here";
            auth_basic_user_file {dir}/users;
            alias {dir}/served/;
        }}
        location /mutual {{
            if ($ssl_client_verify != SUCCESS) {{ return 403; }}
            return 200 "known";
        }}
    }}
}}
"#
    )
}

/// A running nginx.
struct Nginx {
    _server: Process,
    plain: u16,
    secure: u16,
}

impl Nginx {
    async fn start(dir: &Path) -> Self {
        certificates(dir);
        fs::write(dir.join("users"), "ann:{PLAIN}canary-1\n").unwrap();
        fs::create_dir(dir.join("served")).unwrap();
        fs::write(dir.join("served/page"), "a page").unwrap();
        // It takes no port 0. Somebody else may take a port before it does; then it ends, and gets others.
        for _ in 0..5 {
            let [plain, secure] = [0, 0].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
            let [plain, secure] = [plain, secure].map(|listener| listener.local_addr().unwrap().port());
            let file = dir.join("nginx.conf");
            fs::write(&file, configuration(dir, plain, secure)).unwrap();
            let mut command = Command::new(nginx());
            command.arg("-p").arg(dir).arg("-c").arg(&file).args(["-e", "stderr"]);
            let mut server = Process::start(command, &dir.join("nginx.log"));
            let is_up = wait::until(PATIENCE, "nginx is up or gone", async || {
                let answers = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
                if answers(plain) && answers(secure) { Some(true) } else { (!server.is_alive()).then_some(false) }
            });
            if is_up.await {
                return Self { _server: server, plain, secure };
            }
        }
        panic!("nginx does not start: {}", fs::read_to_string(dir.join("nginx.log")).unwrap_or_default());
    }
}

/// A check, and what its samples say: error, status, version of HTTP, and the status of each request of a chain.
type Case<'a> = (Vec<&'a str>, Option<&'a str>, Option<u64>, Option<u64>, &'a [u64]);

async fn run(mesh: &Mesh, cases: &[Case<'_>]) {
    let ids: Vec<String> = cases.iter().map(|(args, ..)| mesh.create_check(&[args, &COMMON[..]].concat())).collect();
    for (id, (args, error, status, version, chain)) in ids.iter().zip(cases) {
        for sample in mesh.wait_for_samples(id, &REGIONS, 1).await {
            assert_eq!(sample["error"].as_str(), *error, "{args:?}: {sample}");
            assert_eq!(sample["status_code"].as_u64(), *status, "{args:?}: {sample}");
            assert_eq!(sample["readings"]["http_version"].as_u64(), *version, "{args:?}: {sample}");
            let parts = sample["parts"].as_array().unwrap();
            let followed: Vec<u64> = parts.iter().filter_map(|part| part["status_code"].as_u64()).collect();
            assert_eq!(followed, *chain, "{args:?}: {sample}");
            assert!(parts.iter().all(|part| part["kind"] == "redirect"), "{sample}");
        }
    }
}

/// The words that create a check.
fn check(name: &str, url: &str, flags: Vec<&str>) -> Vec<String> {
    ["http", "--name", name, "--url", url].into_iter().chain(flags).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_is_measured_through_redirects_logins_and_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let Nginx { _server, plain, secure } = Nginx::start(dir.path()).await;
    let mesh = Mesh::start(&REGIONS).await;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    fs::write(dir.path().join("login"), "ann:canary-1\n").unwrap();
    let login = format!("@{}", file("login"));
    let at = |path: &str| format!("https://localhost:{secure}{path}");
    let [http, end, login_url, mutual, down] =
        [format!("http://127.0.0.1:{plain}"), at("/"), at("/login/page"), at("/mutual"), at("/down")];
    let [looped, private, start] = ["/loop", "/private", "/"].map(|path| format!("{http}{path}"));
    let trusted = ["--target-ca", &ca];
    let [follow, once] = ["3", "1"].map(|most| ["--follow-redirects", most]);
    let shown = ["--client-cert", &certificate, "--client-key", &key];
    let http1 = ["--http-version", "1.1"];
    let checks = [
        (check("chain", &start, [&trusted[..], &follow].concat()), None, Some(200), Some(20), &[301, 307, 200][..]),
        (check("first only", &start, vec![]), None, Some(301), None, &[]),
        (
            check("few", &start, [&trusted[..], &once].concat()),
            Some("redirect_limit"),
            Some(307),
            Some(20),
            &[301, 307],
        ),
        (check("loop", &looped, follow.to_vec()), Some("redirect_loop"), Some(302), None, &[302]),
        (check("private", &private, follow.to_vec()), Some("address_forbidden"), None, None, &[302]),
        (
            check("down", &down, [&trusted[..], &follow].concat()),
            Some("redirect_downgrade"),
            Some(302),
            Some(20),
            &[302],
        ),
        (check("stranger", &end, vec![]), Some("tls_untrusted"), None, None, &[]),
        (check("http 1", &end, [&trusted[..], &http1].concat()), None, Some(200), Some(11), &[]),
        (
            check("login", &login_url, [&trusted[..], &["--basic-auth", &login]].concat()),
            None,
            Some(200),
            Some(20),
            &[],
        ),
        (
            check("wrong login", &login_url, [&trusted[..], &["--basic-auth", "ann:canary-2"]].concat()),
            Some("http_status"),
            Some(401),
            Some(20),
            &[],
        ),
        (check("mutual", &mutual, [&trusted[..], &shown].concat()), None, Some(200), Some(20), &[]),
        (check("mutual in 1.1", &mutual, [&trusted[..], &shown, &http1].concat()), None, Some(200), Some(11), &[]),
        (check("unknown", &mutual, trusted.to_vec()), Some("http_status"), Some(403), Some(20), &[]),
        (
            check("small", &login_url, [&trusted[..], &["--basic-auth", &login, "--body-bytes-max", "5"]].concat()),
            Some("body_too_large"),
            Some(200),
            Some(20),
            &[],
        ),
    ];
    let cases = checks.iter().map(|(args, error, status, version, chain)| {
        (args.iter().map(String::as_str).collect(), *error, *status, *version, *chain)
    });
    let cases: Vec<Case<'_>> = cases.collect();
    run(&mesh, &cases).await;
    nothing_is_shown(&mesh, &login_url);
}

/// No secret comes back, and a check that is changed keeps its own only for the place that it was given for.
fn nothing_is_shown(mesh: &Mesh, url: &str) {
    let check = mesh.cli().run(&["check", "get", "mutual"]);
    assert!(check.stdout.contains("CN=a client, until 4096-"), "{check:?}");
    let login = mesh.cli().json(&["check", "get", "login"]).json();
    assert_eq!(login["spec"]["auth"], "basic, user ann", "{login}");
    let elsewhere = mesh.cli().run(&["check", "update", "login", "--url", "https://evil.example/"]);
    assert!(elsewhere.code != 0 && elsewhere.stderr.contains("--basic-auth: holds a secret"), "{elsewhere:?}");
    let other_path = format!("{url}?a=b");
    let kept = mesh.cli().run(&["check", "update", "login", "--url", &other_path]);
    assert_eq!(kept.code, 0, "{kept:?}");
    let said = [
        mesh.cli().run(&["check", "list", "--output", "json"]).stdout,
        mesh.cli().run(&["audit", "list", "--output", "json"]).stdout,
        mesh.collector.log(),
    ];
    for text in said {
        assert!(!text.contains("canary") && !text.contains("PRIVATE KEY"), "{text}");
    }
}
