//! API keys over the admin API. The secret is drawn here, answered once, and never stored or logged.

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{KeyId, WorkspaceId};
use sonde_proto::model::time::Wall;
use sonde_proto::wire;
use sonde_proto::wire::keys_server::{Keys, KeysServer};
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error, parse};
use crate::authz::{KeyRow, Scope, Scopes, Workspace};
use crate::seal::{ApiKey, new_id};
use crate::store::NewKey;

/// The service `sonde.v1.Keys`.
#[derive(Debug, Clone)]
pub struct KeysService {
    core: Core,
}

impl KeysService {
    /// The service with its limits on message sizes.
    pub fn server(core: Core) -> KeysServer<Self> {
        KeysServer::new(Self { core })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Lets this collector act on a change of keys at once; the others read them within a second or two.
    async fn refresh(&self) {
        if let Err(failure) = self.core.auth.reload(&self.core.store).await {
            tracing::warn!(error = %failure, "keys changed, but could not be read anew; the next refresh will tell");
        }
    }
}

#[tonic::async_trait]
impl Keys for KeysService {
    async fn create_key(&self, request: Request<wire::CreateKeyRequest>) -> Result<Response<wire::CreatedKey>, Status> {
        let caller = self.core.auth.require(&request, Scope::KeysWrite)?;
        let secret = ApiKey::mint();
        let new = new_key(request.get_ref(), &secret, self.core.clock.wall()).map_err(error::invalid)?;
        let workspace = target(&caller, &request.get_ref().workspace_id)?;
        require_own_scopes(&caller, &new.scopes)?;
        let created = self.core.store.create_key(&workspace, caller.actor(), new).await;
        let row = created.map_err(|failure| error::store(&caller, failure))?;
        self.refresh().await;
        Ok(Response::new(wire::CreatedKey { key: Some(message(&row)), secret: secret.reveal().to_owned() }))
    }

    async fn list_keys(
        &self,
        request: Request<wire::ListKeysRequest>,
    ) -> Result<Response<wire::ListKeysResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::KeysRead)?;
        let rows = self.core.store.keys(&caller.workspace).await.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(wire::ListKeysResponse { keys: rows.iter().map(message).collect() }))
    }

    async fn revoke_key(&self, request: Request<wire::RevokeKeyRequest>) -> Result<Response<wire::Key>, Status> {
        let caller = self.core.auth.require(&request, Scope::KeysWrite)?;
        let id = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let revoked = self.core.store.revoke_key(&caller.workspace, caller.actor(), id).await;
        let row = revoked.map_err(|failure| error::store(&caller, failure))?;
        self.refresh().await;
        Ok(Response::new(message(&row)))
    }
}

fn new_key(request: &wire::CreateKeyRequest, secret: &ApiKey, now: Wall) -> Result<NewKey, InvalidField> {
    Ok(NewKey {
        id: KeyId(new_id(now)),
        name: parse::key_name(&request.name)?.to_owned(),
        prefix: secret.prefix().to_owned(),
        digest: secret.digest(),
        scopes: Scopes::parse(&request.scopes)?,
        ttl: parse::key_ttl(request.ttl_s)?,
    })
}

/// The workspace that the key is for: the caller's, or another one for the instance.
fn target(caller: &Caller, workspace_id: &str) -> Result<Workspace, Status> {
    if workspace_id.is_empty() {
        return Ok(caller.workspace.clone());
    }
    let id: WorkspaceId = parse::id("workspace_id", workspace_id).map_err(error::invalid)?;
    let workspace = caller.workspace.acting_in(id).ok_or_else(|| {
        Status::permission_denied("a key for another workspace needs a key of the instance's own workspace, `default`")
    })?;
    if workspace != caller.workspace && !caller.scopes.allow(Scope::WorkspacesWrite) {
        let scope = Scope::WorkspacesWrite;
        return Err(Status::permission_denied(format!("a key for another workspace needs the scope `{scope}`")));
    }
    Ok(workspace)
}

/// A key hands out only what it may do itself; otherwise `keys:write` would be everything.
fn require_own_scopes(caller: &Caller, wanted: &Scopes) -> Result<(), Status> {
    match caller.scopes.lacking(wanted) {
        None => Ok(()),
        Some(word) => Err(Status::permission_denied(format!(
            "this API key lacks the scope `{word}`, so it cannot hand it out; use a key that has it"
        ))),
    }
}

fn message(row: &KeyRow) -> wire::Key {
    wire::Key {
        id: row.id.to_string(),
        name: row.name.clone(),
        prefix: row.prefix.clone(),
        scopes: row.scopes.words(),
        created_at_us: row.created_at.0,
        expires_at_us: row.expires_at.map_or(0, |at| at.0),
        revoked_at_us: row.revoked_at.map_or(0, |at| at.0),
        workspace_id: row.workspace.to_string(),
    }
}
