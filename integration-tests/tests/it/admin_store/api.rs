//! The admin services of one collector in the test's own process, on a real store, behind real gRPC.

#![expect(clippy::unwrap_used, reason = "a failing test should panic")]

use std::sync::Arc;
use std::time::Duration;

use sonde_collector::admin::auth::Auth;
use sonde_collector::admin::{Core, audit, checks, keys, regions, workspaces};
use sonde_collector::authz::{Scopes, Task, Workspace};
use sonde_collector::clock::Clock;
use sonde_collector::config::Postgres;
use sonde_collector::seal::{ApiKey, new_id};
use sonde_collector::store::{Actor, NewKey, Store};
use sonde_proto::model::id::KeyId;
use sonde_proto::wire;
use sonde_proto::wire::audit_client::AuditClient;
use sonde_proto::wire::checks_client::ChecksClient;
use sonde_proto::wire::keys_client::KeysClient;
use sonde_proto::wire::regions_client::RegionsClient;
use sonde_proto::wire::workspaces_client::WorkspacesClient;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};

/// The admin services of one collector on a loopback port, and a key that may do everything.
pub(super) struct Api {
    pub(super) store: Arc<Store>,
    pub(super) channel: Channel,
    /// A key of the instance's own workspace.
    pub(super) admin: String,
}

/// Serves the configuration services from the database at `url`, with the regions eu-west and us-east.
pub(super) async fn api(url: &str) -> Api {
    let clock = Clock::system();
    let store = Arc::new(Store::connect(&Postgres { url: url.to_owned() }).await.unwrap());
    store.migrate().await.unwrap();
    let auth = Arc::new(Auth::new(clock));
    let core = Core { store: store.clone(), auth: auth.clone(), clock };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(checks::ChecksService::server(core.clone()))
        .add_service(regions::RegionsService::server(core.clone()))
        .add_service(workspaces::WorkspacesService::server(core.clone()))
        .add_service(keys::KeysService::server(core.clone()))
        .add_service(audit::AuditService::server(core))
        .serve_with_incoming(TcpListenerStream::new(listener));
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(server);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let secret = ApiKey::mint();
    let system = Workspace::system(Task::Bootstrap);
    store.create_key(&system, Actor::system(Task::Bootstrap), new_key(&secret, None)).await.unwrap();
    auth.reload(&store).await.unwrap();
    let api = Api { store, channel, admin: secret.reveal().to_owned() };
    for name in ["eu-west", "us-east"] {
        api.create_region(&api.admin, name).await.unwrap();
    }
    api
}

pub(super) fn new_key(secret: &ApiKey, ttl: Option<Duration>) -> NewKey {
    NewKey {
        id: KeyId(new_id(Clock::system().wall())),
        name: "test".to_owned(),
        prefix: secret.prefix().to_owned(),
        digest: secret.digest(),
        scopes: Scopes::All,
        ttl,
    }
}

/// A request that presents `key`.
pub(super) fn with<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

pub(super) fn definition(name: &str) -> wire::CheckDefinition {
    let http = wire::HttpCheck {
        url: "https://example.com/health".to_owned(),
        method: "POST".to_owned(),
        body: b"canary-4713".to_vec(),
        headers: vec![wire::HttpHeader { name: "x-token".into(), value: "canary-4711".into() }],
        ..wire::HttpCheck::default()
    };
    wire::CheckDefinition {
        name: name.to_owned(),
        kind: Some(wire::CheckKind { kind: Some(wire::check_kind::Kind::Http(http)) }),
        interval_us: 5_000_000,
        timeout_us: 2_000_000,
        regions: vec!["eu-west".into(), "us-east".into()],
        ..Default::default()
    }
}

impl Api {
    pub(super) async fn create_region(&self, key: &str, name: &str) -> Result<wire::Region, Status> {
        let request = with(key, wire::CreateRegionRequest { name: name.to_owned() });
        Ok(RegionsClient::new(self.channel.clone()).create_region(request).await?.into_inner())
    }

    pub(super) async fn create_check(&self, key: &str, name: &str, request_id: &str) -> Result<wire::Check, Status> {
        self.define(key, definition(name), request_id).await
    }

    pub(super) async fn define(
        &self,
        key: &str,
        definition: wire::CheckDefinition,
        request_id: &str,
    ) -> Result<wire::Check, Status> {
        let definition = Some(definition);
        let request = wire::CreateCheckRequest { definition, paused: false, request_id: request_id.to_owned() };
        Ok(self.checks().create_check(with(key, request)).await?.into_inner())
    }

    pub(super) async fn create_key(
        &self,
        key: &str,
        request: wire::CreateKeyRequest,
    ) -> Result<wire::CreatedKey, Status> {
        Ok(KeysClient::new(self.channel.clone()).create_key(with(key, request)).await?.into_inner())
    }

    pub(super) async fn key_with(&self, scopes: &[&str]) -> wire::CreatedKey {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let request = wire::CreateKeyRequest { name: "some".into(), scopes, ..wire::CreateKeyRequest::default() };
        self.create_key(&self.admin, request).await.unwrap()
    }

    /// A new workspace, and a key that may do everything in it.
    pub(super) async fn tenant(&self, name: &str) -> (String, String) {
        let request = with(&self.admin, wire::CreateWorkspaceRequest { name: name.to_owned() });
        let created = WorkspacesClient::new(self.channel.clone()).create_workspace(request).await.unwrap().into_inner();
        let request = wire::CreateKeyRequest {
            name: format!("{name} key"),
            scopes: vec!["*".into()],
            workspace_id: created.id.clone(),
            ..wire::CreateKeyRequest::default()
        };
        (created.id, self.create_key(&self.admin, request).await.unwrap().secret)
    }

    pub(super) fn checks(&self) -> ChecksClient<Channel> {
        ChecksClient::new(self.channel.clone())
    }

    /// The audit log, oldest first.
    pub(super) async fn audit(&self, key: &str) -> Vec<wire::AuditEntry> {
        let request = with(key, wire::ListAuditRequest { limit: 10_000 });
        let answer = AuditClient::new(self.channel.clone()).list_audit(request).await.unwrap();
        answer.into_inner().entries.into_iter().rev().collect()
    }

    pub(super) async fn actions(&self, key: &str) -> Vec<String> {
        self.audit(key).await.into_iter().map(|entry| entry.action).collect()
    }
}
