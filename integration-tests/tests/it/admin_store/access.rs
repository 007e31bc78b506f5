//! Who gets in, what bad input is told, what a repeat does, and what happens while Postgres is away.

use std::time::Duration;

use sonde_collector::admin::auth::Auth;
use sonde_collector::authz::{Scope, Task, Workspace};
use sonde_collector::clock::Clock;
use sonde_collector::config::Postgres;
use sonde_collector::seal::ApiKey;
use sonde_collector::store::{Actor, CHECKS_PER_WORKSPACE_MAX, Store, StoreError};
use sonde_integration_tests::postgres::{Cable, TestDb};
use sonde_proto::model::id::RegionId;
use sonde_proto::wire;
use sonde_proto::wire::keys_client::KeysClient;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::api::{api, definition, new_key, with};

#[tokio::test]
async fn a_repeated_request_gets_the_first_result() {
    let api = api(&TestDb::create().url).await;
    let request = Uuid::from_u128(77).to_string();
    let first = api.create_check(&api.admin, "web", &request).await.unwrap();
    let entries = api.audit(&api.admin).await.len();
    assert_eq!(api.create_check(&api.admin, "web", &request).await.unwrap(), first);
    assert_eq!(api.audit(&api.admin).await.len(), entries, "a repeat changes nothing");
    let other = api.create_check(&api.admin, "api", &request).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    assert!(other.message().starts_with("request_id: "), "{}", other.message());
    // Names of requests are each caller's own.
    let (_, tenant) = api.tenant("team").await;
    assert_ne!(api.create_check(&tenant, "web", &request).await.unwrap().id, first.id);
    api.checks().delete_check(with(&api.admin, wire::DeleteCheckRequest { id: first.id })).await.unwrap();
    let gone = api.create_check(&api.admin, "web", &request).await.unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition, "{}", gone.message());
}

#[tokio::test]
async fn concurrent_repeats_make_one_check() {
    let api = api(&TestDb::create().url).await;
    let request = Uuid::from_u128(78).to_string();
    let repeats = (0..8).map(|_| api.create_check(&api.admin, "web", &request));
    let made = futures::future::join_all(repeats).await;
    let ids: std::collections::BTreeSet<String> = made.into_iter().map(|check| check.unwrap().id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let api = api(&TestDb::create().url).await;
    let mut unknown = definition("web");
    unknown.regions = vec!["eu-west".into(), "mars".into()];
    let status = api.define(&api.admin, unknown, "").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "regions");
    let told = "`mars` is not a region of this mesh; use one of eu-west, us-east";
    assert_eq!((violation.description.as_str(), status.message()), (told, format!("regions: {told}").as_str()));
    let mut hasty = definition("web");
    hasty.interval_us = 1_000_000;
    let status = api.define(&api.admin, hasty, "").await.unwrap_err();
    assert!(status.message().starts_with("interval: "), "{}", status.message());
    let status = api.create_check(&api.admin, "web", "x").await.unwrap_err();
    assert!(status.message().starts_with("request_id: "), "{}", status.message());
    let status = api.checks().get_check(with(&api.admin, wire::GetCheckRequest { id: "x".into() })).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "id: `x` is not a UUID"));
    let status = api.create_region(&api.admin, "EU").await.unwrap_err();
    assert!(status.message().starts_with("name: "), "{}", status.message());
    let none = wire::CreateKeyRequest { name: "k".into(), scopes: vec!["all".into()], ..Default::default() };
    let status = api.create_key(&api.admin, none).await.unwrap_err();
    assert!(status.message().starts_with("scopes: `all` is not one of checks:read"), "{}", status.message());
}

#[tokio::test]
async fn keys_open_what_their_scopes_say_and_nothing_else() {
    let api = api(&TestDb::create().url).await;
    let reader = api.key_with(&["checks:read", "keys:write"]).await.secret;
    api.checks().list_checks(with(&reader, wire::ListChecksRequest {})).await.unwrap();
    let denied = api.create_check(&reader, "web", "").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("`checks:write`"), "{}", denied.message());
    let more = wire::CreateKeyRequest { name: "k".into(), scopes: vec!["*".into()], ..Default::default() };
    let denied = api.create_key(&reader, more).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "a key hands out only what it has");
    let mut unknown = api.checks();
    let missing = unknown.list_checks(Request::new(wire::ListChecksRequest {})).await.unwrap_err();
    let stranger = ApiKey::mint();
    let unknown = unknown.list_checks(with(stranger.reveal(), wire::ListChecksRequest {})).await.unwrap_err();
    let malformed = api.checks().list_checks(with("hunter2", wire::ListChecksRequest {})).await.unwrap_err();
    for (status, word) in [(missing, "missing"), (unknown, "unknown"), (malformed, "malformed")] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().starts_with(&format!("the API key is {word}")), "{}", status.message());
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_by_other_collectors_after_their_refresh() {
    let db = TestDb::create();
    let api = api(&db.url).await;
    let made = api.key_with(&["checks:read"]).await;
    let other = Store::connect(&Postgres { url: db.url.clone() }).await.unwrap();
    let auth = Auth::new(Clock::system());
    let call = || with(&made.secret, wire::ListChecksRequest {});
    assert_eq!(auth.require(&call(), Scope::ChecksRead).unwrap_err().code(), Code::Unavailable, "nothing was read yet");
    auth.reload(&other).await.unwrap();
    auth.require(&call(), Scope::ChecksRead).unwrap();
    let revoke = with(&api.admin, wire::RevokeKeyRequest { id: made.key.unwrap().id });
    let revoked = KeysClient::new(api.channel.clone()).revoke_key(revoke).await.unwrap().into_inner();
    assert!(revoked.revoked_at_us > 0);
    let refused = api.checks().list_checks(call()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "the API key was revoked; use another one")
    );
    auth.reload(&other).await.unwrap();
    assert_eq!(auth.require(&call(), Scope::ChecksRead).unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let db = TestDb::create();
    let api = api(&db.url).await;
    let secret = ApiKey::mint();
    let brief = new_key(&secret, Some(Duration::from_micros(1)));
    let system = Workspace::system(Task::Bootstrap);
    api.store.create_key(&system, Actor::system(Task::Bootstrap), brief).await.unwrap();
    let auth = Auth::new(Clock::system());
    auth.reload(&api.store).await.unwrap();
    let refused = auth.require(&with(secret.reveal(), ()), Scope::ChecksRead).unwrap_err();
    assert!(refused.message().contains("expired"), "{}", refused.message());
}

#[tokio::test]
async fn secrets_are_nowhere_in_the_database() {
    let db = TestDb::create();
    let api = api(&db.url).await;
    let secret = api.key_with(&["checks:read"]).await.secret;
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    let found: i64 = sqlx::query_scalar(
        "select (select count(*) from api_keys k where position($1 in k::text) > 0)
              + (select count(*) from audit_log a where position($1 in a::text) > 0)",
    )
    .bind(&secret["sonde_".len() + 6..])
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(found, 0);
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be_away_and_found_again() {
    let cable = Cable::to(&TestDb::create());
    let api = api(&cable.url).await;
    cable.cut();
    let away = api.create_check(&api.admin, "web", "").await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
    assert!(away.message().starts_with("the configuration store (Postgres) cannot be reached"), "{}", away.message());
    // Who lacks the scope is told so without the store.
    let none = api.checks().list_checks(with("hunter2", wire::ListChecksRequest {})).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    let failure = Store::connect(&Postgres { url: cable.url.clone() }).await.unwrap_err();
    assert!(matches!(failure, StoreError::Unavailable(_)) && failure.is_retryable(), "{failure:?}");
    cable.heal();
    api.create_check(&api.admin, "web", "").await.unwrap();
}

#[tokio::test]
async fn a_workspace_has_a_limit_of_checks() {
    let db = TestDb::create();
    let api = api(&db.url).await;
    let first = api.create_check(&api.admin, "web", "").await.unwrap();
    let pool = sqlx::PgPool::connect(&db.url).await.unwrap();
    sqlx::query(
        "insert into checks (id, workspace_id, name, definition, definition_bytes, paused)
         select gen_random_uuid(), workspace_id, 'copy ' || n, definition, definition_bytes, paused
         from checks, generate_series(2, $1) n",
    )
    .bind(CHECKS_PER_WORKSPACE_MAX as i64)
    .execute(&pool)
    .await
    .unwrap();
    let full = api.create_check(&api.admin, "one more", "").await.unwrap_err();
    assert_eq!((full.code(), full.message().contains("10000")), (Code::ResourceExhausted, true), "{}", full.message());
    api.checks().delete_check(with(&api.admin, wire::DeleteCheckRequest { id: first.id })).await.unwrap();
    api.create_check(&api.admin, "one more", "").await.unwrap();
}

#[tokio::test]
async fn the_planner_sees_every_workspace_and_what_was_lost_lately() {
    let api = api(&TestDb::create().url).await;
    let (_, tenant) = api.tenant("team").await;
    let kept = api.create_check(&api.admin, "kept", "").await.unwrap();
    let gone = api.create_check(&tenant, "gone", "").await.unwrap();
    let mut narrowed = definition("kept");
    narrowed.regions = vec!["us-east".into()];
    let update = wire::UpdateCheckRequest { id: kept.id.clone(), definition: Some(narrowed) };
    let mut hints = api.store.hints().await.unwrap();
    api.checks().update_check(with(&api.admin, update)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), hints.next()).await.expect("a change is announced").unwrap();
    api.checks().delete_check(with(&tenant, wire::DeleteCheckRequest { id: gone.id.clone() })).await.unwrap();
    let planner = Workspace::system(Task::Replan);
    let rows = api.store.intent(&planner, Duration::from_secs(3_600)).await.unwrap().rows;
    let row = |id: &str| rows.iter().find(|row| row.id.to_string() == id).unwrap();
    assert_eq!(rows.len(), 2);
    assert!(row(&gone.id).deleted && !row(&kept.id).deleted);
    assert_ne!(row(&gone.id).workspace, row(&kept.id).workspace);
    assert_eq!(row(&kept.id).former_regions, [RegionId::new("eu-west").unwrap()].into());
    let rows = api.store.intent(&planner, Duration::ZERO).await.unwrap().rows;
    assert!(rows.len() == 1 && rows[0].former_regions.is_empty(), "{rows:?}");
}
