//! Every fault of a configuration file, as the person who wrote it sees it.

use super::*;

const GOOD: &str = r#"
    collector_id = "local-1"
    trust_domain = "sonde.internal"
    data_dir = "/var/lib/sonde"
    [listen]
    mesh = "127.0.0.1:7401"
    enrol = "127.0.0.1:7402"
    admin = "127.0.0.1:0"
    web = "127.0.0.1:7404"
    [advertise]
    mesh = "mesh.example.org:7401"
    names = ["localhost", "::1"]
    [postgres]
    url = "postgres:///sonde?host=/run/pg&user=sonde"
    [clickhouse]
    url = "http://127.0.0.1:8123"
    database = "sonde"
"#;

#[test]
fn a_complete_file_is_read() {
    let config = Config::parse(GOOD, "c.toml").unwrap();
    assert_eq!(config.collector_id, "local-1");
    assert_eq!(config.listen.admin.port(), 0);
    assert_eq!(config.ca_dir, config.data_dir);
    let shared = Config::parse(&format!("ca_dir = \"/etc/sonde/ca\"\n{GOOD}"), "c.toml").unwrap();
    assert_eq!((shared.ca_dir, shared.data_dir), ("/etc/sonde/ca".into(), "/var/lib/sonde".into()));
    assert_eq!(config.advertise.names, ["localhost", "::1"]);
    assert_eq!(config.clickhouse.user, "default");
    assert!(!format!("{config:?}").contains("/run/pg"), "the database URL may hold a password");
}

#[test]
fn the_guide_names_every_key_and_its_example_is_good() {
    let page = include_str!("../../../docs/guide/collector-config.md");
    let source = include_str!("../config.rs");
    let mut keys = 0;
    for reader in source.split("\nfn read_").skip(1) {
        let section = reader.split_once('(').unwrap().0;
        for call in ["parsed(\"", "parsed_optional(\"", "texts(\""] {
            for found in reader.split(call).skip(1) {
                let key = found.split_once('"').unwrap().0;
                let name = if section == "root" { key.to_owned() } else { format!("{section}.{key}") };
                assert!(
                    page.contains(&format!("| `{name}` |")),
                    "docs/guide/collector-config.md has no row for `{name}`"
                );
                keys += 1;
            }
        }
    }
    assert!(keys >= 17, "the source has another form now: only {keys} keys were found in it");
    let example = page.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    Config::parse(example, "the example").unwrap();
}

#[test]
fn certificates_may_live_shorter_but_not_longer() {
    let lifetime = |text: &str| {
        let file = format!("{GOOD}\n[certificates]\nlifetime = \"{text}\"\n");
        Config::parse(&file, "c.toml").map(|config| config.certificate_lifetime.as_secs()).map_err(|e| e.to_string())
    };
    assert_eq!(Config::parse(GOOD, "c.toml").unwrap().certificate_lifetime.as_secs(), 86_400);
    assert_eq!(lifetime("24h"), Ok(86_400));
    assert_eq!(lifetime("90m"), Ok(5_400));
    assert_eq!(lifetime("30s"), Ok(30));
    for wrong in ["25h", "29s", "0h", "day", "-1h", "18446744073709551615h", ""] {
        let fault = lifetime(wrong).unwrap_err();
        assert!(fault.contains("certificates.lifetime: ") && fault.contains("24h"), "{fault}");
    }
}

#[test]
fn a_cluster_has_the_name_of_a_cluster() {
    let cluster = |text: &str| {
        let file = format!("{GOOD}\ncluster = \"{text}\"\n");
        Config::parse(&file, "c.toml").map(|config| config.clickhouse.cluster).map_err(|error| error.to_string())
    };
    assert_eq!(Config::parse(GOOD, "c.toml").unwrap().clickhouse.cluster, None);
    assert_eq!(cluster("eu-1.a_b"), Ok(Some("eu-1.a_b".to_owned())));
    for wrong in ["", "a b", "o'clock", "{cluster}"] {
        let fault = cluster(wrong).unwrap_err();
        assert!(fault.contains("clickhouse.cluster: "), "{fault}");
    }
}

#[test]
fn every_fault_is_reported_at_once() {
    let text = GOOD
        .replace("\"local-1\"", "\"Local 1\"")
        .replace("127.0.0.1:7404", "0.0.0.0:7404")
        .replace("\"127.0.0.1:7402\"", "7402")
        .replace("postgres:///", "mysql:///")
        .replace("database = \"sonde\"", "databas = \"sonde\"")
        .replace("\"/var/lib/sonde\"", "\"var/lib\"");
    let message = Config::parse(&text, "c.toml").unwrap_err().to_string();
    let expected = [
        "collector_id: use 1 to 64",
        "data_dir: `var/lib` is not an absolute path",
        "listen.enrol: must be a text in quotes",
        "listen.web: 0.0.0.0:7404 is not a loopback address",
        "postgres.url: must begin with `postgres://`",
        "clickhouse.database: is missing",
        "clickhouse.databas: is unknown",
    ];
    for part in expected {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
    assert!(message.contains(&format!("{} fault(s)", expected.len())), "{message}");
}

#[test]
fn an_empty_file_names_everything_that_is_missing() {
    let message = Config::parse("", "c.toml").unwrap_err().to_string();
    for part in ["collector_id", "trust_domain", "data_dir", "listen", "postgres", "clickhouse"] {
        assert!(message.contains(&format!("{part}: is missing")), "{message}");
    }
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    let message = Config::parse(&GOOD.replace("7402", "7401"), "c.toml").unwrap_err().to_string();
    assert!(message.contains("listen.enrol: 127.0.0.1:7401 is already taken by listen.mesh"), "{message}");
}

#[test]
fn listening_everywhere_needs_an_advertised_address() {
    let text = GOOD.replace("enrol = \"127.0.0.1:7402\"", "enrol = \"0.0.0.0:7402\"");
    let message = Config::parse(&text, "c.toml").unwrap_err().to_string();
    assert!(message.contains("advertise.enrol: is missing; listen.enrol is 0.0.0.0:7402"), "{message}");
    assert!(!message.contains("advertise.mesh"), "{message}");
}

#[test]
fn text_that_is_no_toml_is_one_sentence() {
    let message = Config::parse("collector_id = ", "c.toml").unwrap_err().to_string();
    assert!(message.starts_with("`c.toml` is not TOML") && !message.contains('\n'), "{message}");
}
