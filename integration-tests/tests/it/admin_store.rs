//! The configuration store on a real Postgres: every change leaves its entry, foreign is absent, names are unique.

mod access;
mod api;
mod bootstrap;
mod lives;
mod sessions;

use serde_json::Value;
use sonde_collector::authz::INSTANCE_WORKSPACE;
use sonde_integration_tests::postgres::TestDb;
use sonde_proto::wire;
use sonde_proto::wire::keys_client::KeysClient;
use sonde_proto::wire::workspaces_client::WorkspacesClient;
use tonic::Code;
use uuid::Uuid;

use api::{api, definition, with};

#[tokio::test]
async fn every_change_leaves_exactly_one_entry() {
    let api = api(&TestDb::create().url).await;
    let before = api.audit(&api.admin).await.len();
    let version = api.store.config_version().await.unwrap();
    let check = api.create_check(&api.admin, "web", "").await.unwrap();
    let id = check.id.clone();
    let mut changed = definition("web");
    changed.interval_us = 10_000_000;
    changed.regions = vec!["eu-west".into()];
    let update = wire::UpdateCheckRequest { id: id.clone(), definition: Some(changed) };
    let mut client = api.checks();
    // The second of two equal requests changes nothing, so it leaves no entry.
    for _ in 0..2 {
        client.update_check(with(&api.admin, update.clone())).await.unwrap();
        let pause = wire::SetCheckPausedRequest { id: id.clone(), paused: true };
        assert!(client.set_check_paused(with(&api.admin, pause)).await.unwrap().into_inner().paused);
    }
    let resume = wire::SetCheckPausedRequest { id: id.clone(), paused: false };
    client.set_check_paused(with(&api.admin, resume)).await.unwrap();
    client.delete_check(with(&api.admin, wire::DeleteCheckRequest { id: id.clone() })).await.unwrap();
    let entries = api.audit(&api.admin).await.split_off(before);
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["check.create", "check.update", "check.pause", "check.resume", "check.delete"]);
    assert_eq!(api.store.config_version().await.unwrap().0, version.0 + 5);
    for (entry, id_expected) in entries.iter().zip(before + 1..) {
        assert_eq!(entry.id, id_expected as u64);
        assert_eq!(entry.subject, format!("check:{id}"));
        assert!(entry.actor.starts_with("key:") && entry.address == "127.0.0.1", "{entry:?}");
        assert!(Uuid::parse_str(&entry.request_id).is_ok());
        let text = format!("{entry:?}");
        assert!(!text.contains("canary-4711"), "a header value stands in the audit log");
        assert!(!text.contains("Y2FuYXJ5LTQ3MTM"), "a body stands in the audit log");
    }
    assert!(entries[0].before_json.is_empty() && entries[4].after_json.is_empty());
    let after: Value = serde_json::from_str(&entries[1].after_json).unwrap();
    assert_eq!(after["regions"], serde_json::json!(["eu-west"]));
    assert_eq!(after["kind"]["http"]["body"], "(hidden)");
    assert_eq!(after["kind"]["http"]["headers"], serde_json::json!([["x-token", "(hidden)"]]));
}

#[tokio::test]
async fn a_changed_secret_is_told_without_being_shown() {
    let api = api(&TestDb::create().url).await;
    let check = api.create_check(&api.admin, "web", "").await.unwrap();
    let mut changed = definition("web");
    let Some(wire::check_kind::Kind::Http(http)) = changed.kind.as_mut().and_then(|kind| kind.kind.as_mut()) else {
        panic!("the definition is of kind http");
    };
    http.headers[0].value = "canary-4712".into();
    let update = wire::UpdateCheckRequest { id: check.id, definition: Some(changed) };
    api.checks().update_check(with(&api.admin, update)).await.unwrap();
    let entry = api.audit(&api.admin).await.pop().unwrap();
    assert!(entry.after_json.contains("hidden_changed") && !entry.before_json.contains("hidden_changed"));
    assert!(!format!("{entry:?}").contains("canary-471"));
}

#[tokio::test]
async fn regions_workspaces_and_keys_leave_entries_too() {
    let api = api(&TestDb::create().url).await;
    let version = api.store.config_version().await.unwrap();
    let before = api.audit(&api.admin).await.len();
    api.create_region(&api.admin, "ap-south").await.unwrap();
    let (_, tenant) = api.tenant("team").await;
    let key = api.key_with(&["checks:read"]).await.key.unwrap();
    let revoke = with(&api.admin, wire::RevokeKeyRequest { id: key.id });
    KeysClient::new(api.channel.clone()).revoke_key(revoke).await.unwrap();
    let actions = api.actions(&api.admin).await.split_off(before);
    assert_eq!(actions, ["region.create", "workspace.create", "key.create", "key.revoke"]);
    assert_eq!(api.actions(&tenant).await, ["key.create"], "the tenant sees who made a key for it");
    assert_eq!(api.store.config_version().await.unwrap(), version, "none of it changes an assignment");
}

#[tokio::test]
async fn the_database_refuses_to_change_the_audit_log() {
    let db = TestDb::create();
    let api = api(&db.url).await;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    for statement in [
        "update audit_log set actor = 'nobody'",
        "delete from audit_log",
        "truncate audit_log",
        "set session_replication_role = replica; delete from audit_log",
    ] {
        let error = sqlx::raw_sql(statement).execute(&pool).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{statement}: {error}");
    }
    assert!(!api.audit(&api.admin).await.is_empty());
}

#[tokio::test]
async fn names_are_unique_until_their_check_is_deleted() {
    let api = api(&TestDb::create().url).await;
    let first = api.create_check(&api.admin, "web", "").await.unwrap();
    let other = api.create_check(&api.admin, "api", "").await.unwrap();
    let taken = api.create_check(&api.admin, "web", "").await.unwrap_err();
    assert_eq!(
        (taken.code(), taken.message()),
        (Code::AlreadyExists, "check `web` already exists; choose another name")
    );
    let rename = wire::UpdateCheckRequest { id: other.id, definition: Some(definition("web")) };
    let refused = api.checks().update_check(with(&api.admin, rename)).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    api.checks().delete_check(with(&api.admin, wire::DeleteCheckRequest { id: first.id })).await.unwrap();
    api.create_check(&api.admin, "web", "").await.unwrap();
    assert_eq!(api.create_region(&api.admin, "eu-west").await.unwrap_err().code(), Code::AlreadyExists);
    let listed = api.checks().list_checks(with(&api.admin, wire::ListChecksRequest {})).await.unwrap().into_inner();
    let names: Vec<String> = listed.checks.into_iter().filter_map(|check| Some(check.definition?.name)).collect();
    assert_eq!(names, ["api", "web"]);
}

#[tokio::test]
async fn a_foreign_workspace_sees_nothing() {
    let api = api(&TestDb::create().url).await;
    let check = api.create_check(&api.admin, "web", "").await.unwrap();
    let (tenant_id, tenant) = api.tenant("team").await;
    let id = check.id.clone();
    let mut client = api.checks();
    let listed = client.list_checks(with(&tenant, wire::ListChecksRequest {})).await.unwrap().into_inner();
    assert!(listed.checks.is_empty());
    let update = wire::UpdateCheckRequest { id: id.clone(), definition: Some(definition("x")) };
    let foreign = [
        client.get_check(with(&tenant, wire::GetCheckRequest { id: id.clone() })).await.unwrap_err(),
        client.update_check(with(&tenant, update)).await.unwrap_err(),
        client.delete_check(with(&tenant, wire::DeleteCheckRequest { id: id.clone() })).await.unwrap_err(),
    ];
    let absent = Uuid::from_u128(5).to_string();
    let absent = client.get_check(with(&tenant, wire::GetCheckRequest { id: absent })).await.unwrap_err();
    for status in foreign {
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message().replace(&id, ""), absent.message().replace(&Uuid::from_u128(5).to_string(), ""));
    }
    let mut client = WorkspacesClient::new(api.channel.clone());
    let seen = client.list_workspaces(with(&tenant, wire::ListWorkspacesRequest {})).await.unwrap().into_inner();
    assert_eq!(seen.workspaces.iter().map(|w| w.id.clone()).collect::<Vec<_>>(), [tenant_id]);
    let instance = wire::GetWorkspaceRequest { id: INSTANCE_WORKSPACE.to_string() };
    assert_eq!(client.get_workspace(with(&tenant, instance)).await.unwrap_err().code(), Code::NotFound);
    // The same name is free in another workspace, and what belongs to the instance is refused.
    api.create_check(&tenant, "web", "").await.unwrap();
    assert_eq!(api.create_region(&tenant, "ap-south").await.unwrap_err().code(), Code::PermissionDenied);
    let more = wire::CreateWorkspaceRequest { name: "more".into() };
    assert_eq!(client.create_workspace(with(&tenant, more)).await.unwrap_err().code(), Code::PermissionDenied);
}
