//! Bad input gets one clear sentence that names the field or the thing, and an exit code that says what kind it is.

use std::fs;
use std::process::Command;

use sonde_integration_tests::cli::Cli;
use sonde_integration_tests::engine::Engine;
use sonde_integration_tests::mesh::Mesh;
use sonde_integration_tests::postgres::cluster;
use sonde_integration_tests::process::program;

/// What is typed, the exit code, and what the sentence must contain.
type Case = (&'static [&'static str], i32, &'static str);

const CASES: &[Case] = &[
    (&["check", "create", "http", "--name", "a", "--url", "ftp://x/", "--regions", "eu-west"], 3, "--url: "),
    (&["check", "create", "http", "--name", "a", "--url", "http://u:p@x/", "--regions", "eu-west"], 3, "--url: "),
    (&["check", "create", "http", "--name", "a", "--url", "http://x/", "--regions", "atlantis"], 3, "atlantis"),
    (&["check", "create", "http", "--name", "a", "--url", "http://x/", "--regions", "EU West"], 3, "region"),
    (&["check", "create", "http", "--name", "", "--url", "http://x/", "--regions", "eu-west"], 3, "name"),
    (
        &["check", "create", "http", "--name", "a", "--url", "http://x/", "--regions", "eu-west", "--method", "BREW"],
        3,
        "method",
    ),
    (
        &[
            "check",
            "create",
            "http",
            "--name",
            "a",
            "--url",
            "http://x/",
            "--regions",
            "eu-west",
            "--expect-status",
            "99",
        ],
        3,
        "status",
    ),
    (
        &["check", "create", "http", "--name", "a", "--url", "http://x/", "--regions", "eu-west", "--header", "a b: c"],
        3,
        "header",
    ),
    (
        &[
            "check",
            "create",
            "http",
            "--name",
            "a",
            "--url",
            "http://x/",
            "--regions",
            "eu-west",
            "--interval",
            "2s",
            "--timeout",
            "3s",
        ],
        3,
        "interval",
    ),
    (
        &[
            "check",
            "create",
            "http",
            "--name",
            "a",
            "--url",
            "http://x/",
            "--regions",
            "eu-west",
            "--interval",
            "500ms",
            "--timeout",
            "100ms",
        ],
        3,
        "interval",
    ),
    (
        &[
            "check",
            "create",
            "http",
            "--name",
            "a",
            "--url",
            "http://x/",
            "--regions",
            "eu-west",
            "--interval",
            "banana",
        ],
        2,
        "--interval",
    ),
    (&["check", "create", "tcp", "--name", "a", "--host", "x", "--port", "0", "--regions", "eu-west"], 3, "port"),
    (&["check", "create", "tcp", "--name", "a", "--host", "x", "--port", "65536", "--regions", "eu-west"], 3, "port"),
    (&["check", "create", "tcp", "--name", "a", "--host", "x y", "--port", "80", "--regions", "eu-west"], 3, "host"),
    (
        &["check", "create", "dns", "--name", "a", "--query", "x", "--record", "SPQR", "--regions", "eu-west"],
        3,
        "record",
    ),
    (
        &["check", "create", "dns", "--name", "a", "--query", "x", "--server", "x", "--regions", "eu-west"],
        3,
        "--server: ",
    ),
    (
        &["check", "create", "dns", "--name", "a", "--query", "x", "--transport", "dot", "--regions", "eu-west"],
        3,
        "--server: ",
    ),
    (
        &["check", "create", "dns", "--name", "a", "--query", "x", "--trust-anchor", "x", "--regions", "eu-west"],
        3,
        "--trust-anchor: ",
    ),
    (&["check", "create", "dns", "--name", "a", "--query", "a b", "--regions", "eu-west"], 3, "--query: "),
    (
        &["check", "create", "icmp", "--name", "a", "--host", "x", "--payload-bytes", "9", "--regions", "eu-west"],
        3,
        "payload",
    ),
    (&["check", "create", "gopher", "--name", "a"], 2, "gopher"),
    (&["check", "get", "00000000-0000-0000-0000-000000000000"], 4, "check"),
    (&["check", "get", "no-such-name"], 4, "no-such-name"),
    (&["check", "update", "no-such-name", "--interval", "5s"], 4, "no-such-name"),
    (&["probe", "get", "00000000-0000-0000-0000-000000000000"], 4, "probe"),
    (&["probe", "get", "not-an-id"], 3, "<id>: "),
    (&["probe", "join-token", "--region", "atlantis", "--name", "x"], 3, "atlantis"),
    (&["probe", "join-token", "--region", "eu-west", "--name", "no spaces"], 3, "name"),
    (&["probe", "join-token", "--region", "eu-west", "--name", "x", "--ttl", "48h"], 3, "--ttl: "),
    (&["sample", "list", "--check", "00000000-0000-0000-0000-000000000000"], 4, "check"),
    (&["sample", "list", "--last", "0s"], 3, "--last: "),
    (&["sample", "list", "--last", "366d"], 3, "--last: "),
    (&["sample", "list", "--last", "-5s"], 2, "--last"),
    (&["sample", "list", "--limit", "-1"], 2, "--limit"),
    (&["sample", "list", "--region", "atlantis"], 3, "--region: `atlantis`"),
    (&["sample", "list", "--region", ""], 3, "--region: is empty"),
    (&["audit", "list", "--limit", "0"], 3, "limit"),
    (&["check", "update", "no-such-name"], 3, "nothing to change"),
    (&["check", "create", "tcp", "--name", "a", "--host", "x", "--port", "web", "--regions", "eu-west"], 2, "port"),
    (
        &["check", "create", "tcp", "--name", "a", "--host", "x", "--port", "80", "--regions", "eu-west,"],
        2,
        "--regions",
    ),
    (&["probe", "join-token", "--region", "eu-west", "--name", "x", "--ttl", "99999999999h"], 2, "--ttl"),
    (&["--endpoint", "https://127.0.0.1:1/path", "check", "list"], 3, "--endpoint"),
    (&["--key-file", "/dev/null", "check", "list"], 64, "/dev/null"),
    (&["sample", "list", "--limit", "0"], 3, "limit"),
    (&["sample", "list", "--limit", "100001"], 3, "--limit: "),
    (&["latency", "--check", "00000000-0000-0000-0000-000000000000"], 4, "check"),
    (&["region", "create", "--name", "Ä"], 3, "region"),
    (&["region", "create", "--name", "eu-west"], 7, "eu-west"),
    (&["workspace", "create", "--name", ""], 3, "--name: "),
    (
        &["workspace", "set-retention", "00000000-0000-0000-0000-000000000000", "--raw", "8"],
        3,
        "--raw: 8 is out of range",
    ),
    (&["workspace", "set-retention", "00000000-0000-0000-0000-000000000000", "--days", "4000"], 3, "--days: "),
    (&["workspace", "set-retention", "x", "--raw", "9"], 4, "workspace `x`"),
    (&["workspace", "set-retention", "x"], 3, "nothing to change"),
    (&["coverage", "--from", "yesterday"], 2, "2026-11-01T00:00:00Z"),
    (&["coverage", "--last", "-5m"], 2, "without the minus"),
    (&["workspace", "get", "00000000-0000-0000-0000-000000000000"], 4, "workspace"),
    (&["key", "create", "--name", "k", "--scopes", "checks:fly"], 3, "--scopes: `checks:fly`"),
    (&["key", "create", "--name", "k", "--scopes", "*", "--workspace", "mine"], 3, "--workspace: "),
    (&["key", "revoke", "00000000-0000-0000-0000-000000000000"], 4, "key"),
    (&["audit", "list", "--limit", "10001"], 3, "--limit: "),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_named_and_changes_nothing() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    assert_eq!(cli.run(&["region", "create", "--name", "eu-west"]).code, 0);
    let audited = cli.json(&["audit", "list"]).rows().len();
    let mut faults = Vec::new();
    for (args, code, word) in CASES {
        let said = cli.run(args);
        let sentence = said.stderr.lines().next().unwrap_or_default().to_lowercase();
        if said.code != *code || !sentence.contains(&word.to_lowercase()) || !said.stdout.is_empty() {
            faults.push(format!("{args:?}: wanted {code} and `{word}`, got {} and: {}", said.code, said.stderr));
        }
        if *code != 2 && said.stderr.lines().count() > 2 {
            faults.push(format!("{args:?}: more than a sentence and a hint: {}", said.stderr));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(cli.json(&["check", "list"]).rows().len(), 0, "nothing was half-written");
    assert_eq!(cli.json(&["audit", "list"]).rows().len(), audited, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_what_their_scopes_say() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    assert_eq!(cli.run(&["region", "create", "--name", "eu-west"]).code, 0);
    let made = cli.json(&["key", "create", "--name", "reader", "--scopes", "checks:read"]).json();
    let file = mesh.dir.path().join("reader.key");
    fs::write(&file, made["secret"].as_str().unwrap()).unwrap();
    let reader = cli.with_key(&file);
    assert_eq!(reader.run(&["check", "list"]).code, 0);
    let denied = reader.run(&["region", "create", "--name", "us-east"]);
    assert_eq!(denied.code, 5, "{denied:?}");
    assert!(denied.stderr.contains("regions:write"), "names the scope: {denied:?}");
    assert_eq!(cli.run(&["key", "revoke", made["id"].as_str().unwrap()]).code, 0);
    assert_eq!(reader.run(&["check", "list"]).code, 5, "a revoked key is out at once on this collector");

    let nonsense = mesh.dir.path().join("nonsense.key");
    fs::write(&nonsense, "sonde_nonsense").unwrap();
    assert_eq!(cli.with_key(&nonsense).run(&["check", "list"]).code, 5);
    let listed = cli.json(&["key", "list"]);
    assert!(!listed.stdout.contains(made["secret"].as_str().unwrap()), "a secret is shown once");
    let missing = Cli { env: Vec::new() }.run(&["check", "list"]);
    assert_eq!(missing.code, 64, "{missing:?}");
    assert!(missing.stderr.contains("SONDE_ENDPOINT"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_nobody_reaches_is_said_to_be_away() {
    let mut mesh = Mesh::start(&[]).await;
    mesh.collector.kill9();
    let said = mesh.cli().run(&["check", "list"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.stderr.contains("cannot be reached") && said.stderr.contains("make up"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_refuses_to_start_on_what_it_cannot_use() {
    let mesh = Mesh::start(&[]).await;
    let serve = |text: &str| {
        let path = mesh.dir.path().join("other.toml");
        fs::write(&path, text).unwrap();
        let output = Command::new(program("sonde-collector")).arg("serve").arg("--config").arg(&path).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let good = fs::read_to_string(mesh.dir.path().join("collector.toml")).unwrap();

    let (code, said) = serve(&good);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use"), "a second collector on one data folder: {said}");

    let elsewhere = good.replace("/collector\"", "/collector-two\"");
    let taken = mesh.endpoints.admin.to_string();
    let (code, said) = serve(&elsewhere.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{taken}\"")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("admin") && said.contains(&mesh.endpoints.admin.port().to_string()), "{said}");

    let (code, said) = serve(&good.replace("test-1", "No Good").replace("\"sonde\"", "\"so;nde\""));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("collector_id") && said.contains("database"), "all faults in one go: {said}");

    let (code, said) = serve(&format!("colour = \"red\"\n{good}"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("colour"), "{said}");
}

#[test]
fn a_second_postgres_refuses_a_data_folder_that_is_in_use() {
    let fault = cluster().serve().unwrap_err();
    assert!(fault.message.contains("in use by another Postgres"), "{}", fault.message);
    assert!(fault.message.contains(&cluster().data.display().to_string()), "{}", fault.message);
    assert!(fault.hint.is_some_and(|hint| hint.contains("stop that server")));
    assert!(cluster().is_ready(), "the server that was there goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_refuses_a_data_folder_that_is_in_use_or_not_its_own() {
    let engine = Engine::start().await;
    let serve = |data: &std::path::Path| {
        let output = Command::new(program("sonde-clickhouse"))
            .arg("--data")
            .arg(data)
            .args(["--listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = serve(engine.data_dir());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.txt"), "x").unwrap();
    let (code, said) = serve(other.path());
    assert_eq!(code, Some(1), "{said}");
    assert!(fs::read_dir(other.path()).unwrap().count() == 1, "nothing is written into it: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_name_reaches_the_terminal_and_a_reader_may_leave() {
    let mesh = Mesh::start(&[]).await;
    let cli = mesh.cli();
    assert_eq!(cli.run(&["region", "create", "--name", "eu-west"]).code, 0);
    let turned = "x\u{202e}y";
    let target = ["--host", "x", "--port", "1", "--regions", "eu-west"];
    let made = cli.run(&[&["check", "create", "tcp", "--name", turned], &target[..]].concat());
    assert_eq!(made.code, 0, "{made:?}");
    let listed = cli.run(&["check", "list"]);
    assert!(listed.stdout.contains("x\\u{202e}y") && !listed.stdout.contains(turned), "{listed:?}");
    assert_eq!(cli.json(&["check", "list"]).rows()[0]["name"], turned, "programs get it as it is");
    let absent = cli.run(&["check", "get", "\u{1b}[2J"]);
    assert!(absent.code == 4 && !absent.stderr.contains('\u{1b}'), "{absent:?}");

    for args in [&["completion", "bash"][..], &["audit", "list"], &["check", "list", "--output", "json"]] {
        // The read end is closed before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(program("sonde"));
        command.envs(cli.env.iter().cloned()).args(args).stdout(writer);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}
