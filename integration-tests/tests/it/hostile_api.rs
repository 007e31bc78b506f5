//! The admin and enrolment ports against callers who mean no good: without rights, with nonsense, with ids of others.

mod enrol;
mod raw;
mod values;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use sonde_integration_tests::mesh::Mesh;
use sonde_proto::wire;
use sonde_proto::wire::samples_client::SamplesClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::ports::channel;
use raw::{Method, call, methods};

/// How long a stream may outlive its key.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// A key of `workspace` (empty for the instance's own) with `scopes`: its id and its secret.
fn key(mesh: &Mesh, name: &str, scopes: &str, workspace: &str) -> (String, String) {
    let made = mesh.cli().json(&["key", "create", "--name", name, "--scopes", scopes, "--workspace", workspace]).json();
    (text(&made, "id"), text(&made, "secret"))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}")).to_owned()
}

fn bearer(secret: &str) -> Vec<u8> {
    format!("Bearer {secret}").into_bytes()
}

/// A request that presents `secret`.
fn with<T>(secret: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_demands_a_key_with_its_scope() {
    let mesh = Mesh::start(&[]).await;
    let admin = channel(&mesh, mesh.endpoints.admin).await;
    let methods = methods("admin.proto");
    let scopes: BTreeSet<&str> = methods.iter().map(Method::scope).collect();
    let mut faults = Vec::new();
    for scope in &scopes {
        let others: Vec<&str> = scopes.iter().copied().filter(|other| other != scope).collect();
        let (_, without) = key(&mesh, "without", &others.join(","), "");
        let (_, only) = key(&mesh, "only", scope, "");
        for method in methods.iter().filter(|method| method.scope() == *scope) {
            let denied = call(&admin, &method.path, Some(&bearer(&without)), Vec::new()).await.err();
            let named = format!("`{scope}`");
            if !denied.as_ref().is_some_and(|it| it.code() == Code::PermissionDenied && it.message().contains(&named)) {
                faults.push(format!("{} without {scope}: {denied:?}", method.path));
            }
            // A stream that is let in says nothing until there is a sample.
            let asked = tokio::time::timeout(Duration::from_secs(1), async {
                call(&admin, &method.path, Some(&bearer(&only)), Vec::new()).await.err()
            });
            let refused = asked.await.ok().flatten().map(|it| it.code());
            if matches!(refused, Some(Code::PermissionDenied | Code::Unauthenticated | Code::Internal)) {
                faults.push(format!("{} with only {scope}: {refused:?}", method.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_good_key() {
    let mesh = Mesh::start(&[]).await;
    let admin = channel(&mesh, mesh.endpoints.admin).await;
    let audited = mesh.cli().json(&["audit", "list"]).rows().len();
    let (id, revoked) = key(&mesh, "revoked", "*", "");
    assert_eq!(mesh.cli().run(&["key", "revoke", &id]).code, 0);
    let (_, mut forged) = key(&mesh, "forged", "*", "");
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let long = "A".repeat(8_000);
    let bad: &[(&str, Option<Vec<u8>>)] = &[
        ("missing", None),
        ("malformed", Some(Vec::new())),
        ("malformed", Some(b"Bearer".to_vec())),
        ("malformed", Some(b"Bearer ".to_vec())),
        ("malformed", Some(b"Basic c29uZGU6c29uZGU=".to_vec())),
        ("malformed", Some(b"Bearer \xff\xfe".to_vec())),
        ("malformed", Some(bearer("' or 1=1 --"))),
        ("malformed", Some(bearer(&long))),
        ("malformed", Some(bearer(&forged))),
        ("revoked", Some(bearer(&revoked))),
    ];
    let mut faults = Vec::new();
    for method in methods("admin.proto") {
        for (word, authorization) in bad {
            let said = call(&admin, &method.path, authorization.as_deref(), Vec::new()).await.err();
            if !said.as_ref().is_some_and(|it| it.code() == Code::Unauthenticated && it.message().contains(word)) {
                faults.push(format!("{} with {authorization:?}: {said:?}", method.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Three keys were made and ended above, and nothing else was done.
    assert_eq!(mesh.cli().json(&["audit", "list"]).rows().len(), audited + 3);
}

/// What a key is told when it asks for something: the code, and the text with the id taken out.
type Told = (Code, String);

fn told(answer: Result<impl std::fmt::Debug, Status>, id: &str) -> Told {
    let status = answer.unwrap_err();
    (status.code(), status.message().replace(id, "ID"))
}

async fn ask(channel: &Channel, secret: &str, id: &str) -> Vec<Told> {
    let mut told_all = Vec::new();
    macro_rules! ask {
        ($module:ident :: $client:ident . $name:ident, $request:expr) => {
            let mut client = wire::$module::$client::new(channel.clone());
            told_all.push(told(client.$name(with(secret, $request)).await, id));
        };
    }
    let (id, definition) = (id.to_owned(), Some(values::definition()));
    ask!(checks_client::ChecksClient.get_check, wire::GetCheckRequest { id: id.clone() });
    ask!(checks_client::ChecksClient.update_check, wire::UpdateCheckRequest { id: id.clone(), definition });
    ask!(checks_client::ChecksClient.set_check_paused, wire::SetCheckPausedRequest { id: id.clone(), paused: true });
    ask!(checks_client::ChecksClient.delete_check, wire::DeleteCheckRequest { id: id.clone() });
    let list = wire::ListSamplesRequest { check_id: id.clone(), last_s: 60, ..Default::default() };
    ask!(samples_client::SamplesClient.list_samples, list);
    ask!(samples_client::SamplesClient.watch_samples, wire::WatchSamplesRequest { check_id: id.clone() });
    ask!(samples_client::SamplesClient.get_latency, wire::GetLatencyRequest { check_id: id.clone(), last_s: 60 });
    let coverage = wire::GetCoverageRequest { check_id: id.clone(), last_s: 60, ..Default::default() };
    ask!(coverage_client::CoverageClient.get_coverage, coverage);
    ask!(workspaces_client::WorkspacesClient.get_workspace, wire::GetWorkspaceRequest { id: id.clone() });
    let retention = wire::SetRetentionRequest { id: id.clone(), raw_days: Some(9), ..Default::default() };
    ask!(workspaces_client::WorkspacesClient.set_retention, retention);
    ask!(keys_client::KeysClient.revoke_key, wire::RevokeKeyRequest { id: id.clone() });
    let key = wire::CreateKeyRequest {
        name: "k".into(),
        scopes: vec!["checks:read".into()],
        workspace_id: id,
        ..Default::default()
    };
    ask!(keys_client::KeysClient.create_key, key);
    told_all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_as_absent_as_what_never_was() {
    let mesh = Mesh::start(&[]).await;
    let (cli, admin) = (mesh.cli(), channel(&mesh, mesh.endpoints.admin).await);
    assert_eq!(cli.run(&["region", "create", "--name", "eu-west"]).code, 0);
    let check = mesh.create_check(&["tcp", "--name", "ours", "--host", "x", "--port", "1", "--regions", "eu-west"]);
    let (key_id, _) = key(&mesh, "ours", "checks:read", "");
    let instance = text(&cli.json(&["workspace", "list"]).rows()[0], "id");
    let tenant = text(&cli.json(&["workspace", "create", "--name", "tenant"]).json(), "id");
    let (_, stranger) = key(&mesh, "stranger", "*", &tenant);
    let audited = cli.json(&["audit", "list"]).rows().len();

    let never = uuid::Uuid::new_v4().to_string();
    let absent = ask(&admin, &stranger, &never).await;
    for id in [&check, &key_id, &instance] {
        assert_eq!(ask(&admin, &stranger, id).await, absent, "{id}");
    }
    assert!(absent.iter().all(|(code, _)| matches!(code, Code::NotFound | Code::PermissionDenied)), "{absent:?}");
    let listed = SamplesClient::new(admin.clone())
        .list_samples(with(&stranger, wire::ListSamplesRequest { last_s: 60, ..Default::default() }))
        .await;
    assert_eq!(listed.unwrap().into_inner().samples, []);
    assert_eq!(cli.json(&["audit", "list"]).rows().len(), audited, "nothing of ours was touched");
    assert_eq!(cli.run(&["check", "get", "ours"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_does_not_outlive_its_key() {
    let mesh = Mesh::start(&[]).await;
    let admin = channel(&mesh, mesh.endpoints.admin).await;
    let (id, secret) = key(&mesh, "watcher", "samples:read", "");
    let mut client = SamplesClient::new(admin);
    let mut rows =
        client.watch_samples(with(&secret, wire::WatchSamplesRequest::default())).await.unwrap().into_inner();
    assert_eq!(mesh.cli().run(&["key", "revoke", &id]).code, 0);
    let ended = tokio::time::timeout(REVOKED_WITHIN, rows.message()).await.expect("the stream ends");
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
}
