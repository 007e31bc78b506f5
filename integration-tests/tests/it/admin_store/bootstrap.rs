//! Setting an instance up: once, twice, after a crash in the middle, and against a store that is away.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sonde_collector::authz::{Scopes, Task, Workspace};
use sonde_collector::bootstrap::{BootstrapError, run};
use sonde_collector::clock::Clock;
use sonde_collector::config::{Config, Postgres};
use sonde_collector::seal::ApiKey;
use sonde_collector::store::{Actor, Store};
use sonde_integration_tests::postgres::{Cable, TestDb};

fn config(folder: &Path, url: &str) -> Config {
    let data_dir = folder.join("collector").display().to_string();
    let text = format!(
        r#"collector_id = "test-1"
trust_domain = "sonde.test"
data_dir = "{data_dir}"
[listen]
mesh = "127.0.0.1:0"
enrol = "127.0.0.1:0"
admin = "127.0.0.1:0"
web = "127.0.0.1:0"
[postgres]
url = "{url}"
[clickhouse]
url = "http://127.0.0.1:8123"
database = "sonde"
user = "default"
"#
    );
    Config::parse(&text, "test.toml").unwrap()
}

async fn keys(url: &str) -> usize {
    let store = Store::connect(&Postgres { url: url.to_owned() }).await.unwrap();
    store.keys(&Workspace::system(Task::Bootstrap)).await.unwrap().len()
}

#[tokio::test]
async fn a_second_bootstrap_changes_nothing() {
    let (db, folder) = (TestDb::create(), tempfile::tempdir().unwrap());
    let (config, file) = (config(folder.path(), &db.url), folder.path().join("admin.key"));
    let first = run(&config, &file, Clock::system()).await.unwrap();
    assert!(first.key_file_created && first.key_registered);
    assert_eq!(first.key.scopes, Scopes::All);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ca = std::fs::read_to_string(config.data_dir.join("ca.pem")).unwrap();
    assert!(ca.contains("BEGIN CERTIFICATE"));
    let text = std::fs::read_to_string(&file).unwrap();
    let second = run(&config, &file, Clock::system()).await.unwrap();
    assert!(!second.key_file_created && !second.key_registered);
    assert_eq!((second.key, std::fs::read_to_string(&file).unwrap()), (first.key, text));
    assert_eq!(std::fs::read_to_string(config.data_dir.join("ca.pem")).unwrap(), ca);
    assert_eq!(keys(&db.url).await, 1);
}

#[tokio::test]
async fn a_bootstrap_that_crashed_between_file_and_row_is_completed() {
    let (db, folder) = (TestDb::create(), tempfile::tempdir().unwrap());
    let (config, file) = (config(folder.path(), &db.url), folder.path().join("admin.key"));
    // What such a crash leaves behind: the file of a key that the store has never heard of.
    let key = ApiKey::mint();
    std::fs::write(&file, format!("{}\n", key.reveal())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let report = run(&config, &file, Clock::system()).await.unwrap();
    assert!(!report.key_file_created && report.key_registered);
    assert_eq!(report.key.digest, key.digest());
    let store = Store::connect(&config.postgres).await.unwrap();
    let entry = store.audit(&Workspace::system(Task::Bootstrap), 1).await.unwrap().pop().unwrap();
    assert_eq!((entry.actor.as_str(), entry.action.as_str(), entry.id), ("system:bootstrap", "key.create", 1));
}

#[tokio::test]
async fn bootstraps_at_the_same_moment_agree_on_one_key() {
    let (db, folder) = (TestDb::create(), tempfile::tempdir().unwrap());
    let (config, file) = (config(folder.path(), &db.url), folder.path().join("admin.key"));
    let clock = Clock::system();
    let reports = futures::future::join_all((0..3).map(|_| run(&config, &file, clock))).await;
    let digests: Vec<[u8; 32]> = reports.into_iter().map(|report| report.unwrap().key.digest).collect();
    let key = ApiKey::parse(std::fs::read_to_string(&file).unwrap().trim()).unwrap();
    assert_eq!(digests, [key.digest(); 3]);
    assert_eq!(keys(&db.url).await, 1);
}

#[tokio::test]
async fn a_revoked_key_file_is_named_instead_of_being_replaced() {
    let (db, folder) = (TestDb::create(), tempfile::tempdir().unwrap());
    let (config, file) = (config(folder.path(), &db.url), folder.path().join("admin.key"));
    let made = run(&config, &file, Clock::system()).await.unwrap();
    let store = Store::connect(&config.postgres).await.unwrap();
    let system = Workspace::system(Task::Bootstrap);
    store.revoke_key(&system, Actor::system(Task::Bootstrap), made.key.id).await.unwrap();
    let error = run(&config, &file, Clock::system()).await.unwrap_err();
    assert!(matches!(error, BootstrapError::KeyFileUnusable { .. }));
    assert!(error.to_string().contains("remove the file"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_away_leaves_nothing_half_done() {
    let (db, folder) = (TestDb::create(), tempfile::tempdir().unwrap());
    let cable = Cable::to(&db);
    let (config, file) = (config(folder.path(), &cable.url), folder.path().join("admin.key"));
    cable.cut();
    let error = run(&config, &file, Clock::system()).await.unwrap_err().to_string();
    assert!(error.contains("Postgres") && error.contains("postgres.url"), "{error}");
    assert!(!file.exists() && !config.data_dir.exists());
    cable.heal();
    run(&config, &file, Clock::system()).await.unwrap();
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_fault_of_the_url() {
    let db = TestDb::create();
    let url = db.url.replacen("postgres:///", "postgres:///no_such_", 1);
    let error = Store::connect(&Postgres { url }).await.unwrap_err();
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.starts_with("postgres.url: is refused by the server: ") && text.contains("no_such_"), "{text}");
}
