//! Names the caller of an admin request: API key, workspace, scope. Answers from memory, without any store,
//! so that a denial costs no database work. Never logs or keeps a secret.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use sonde_proto::model::id::KeyId;
use sonde_proto::model::time::Mono;
use subtle::ConstantTimeEq as _;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::authz::{KeyRow, Scope, Scopes, Task, Workspace};
use crate::clock::Clock;
use crate::seal::ApiKey;
use crate::store::{Actor, Store, StoreError};

/// How long keys are trusted while Postgres is away. After it nobody can be told from somebody who was revoked.
pub const KEYS_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest `authorization` value that is looked at, in bytes; a key with its scheme has 62.
const AUTHORIZATION_BYTES_MAX: usize = 256;

/// The peer of a connection, put into a request's extensions by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddr(pub SocketAddr);

/// Who calls, once the key was verified and has the scope.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The workspace of the key.
    pub workspace: Workspace,
    /// The key.
    pub key: KeyId,
    /// What the key may do.
    pub scopes: Scopes,
    /// From where, as far as the connection says.
    pub address: Option<IpAddr>,
    /// The caller's `x-request-id` when it is a UUID, else one made here.
    pub request_id: Uuid,
}

impl Caller {
    /// The caller as the audit log names it.
    pub fn actor(&self) -> Actor {
        Actor::key(self.key, self.address, self.request_id)
    }

    /// Goes on only for keys of the instance's own workspace.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` that says `what` needs such a key.
    pub fn require_instance(&self, what: &str) -> Result<(), Status> {
        if self.workspace.is_instance() {
            return Ok(());
        }
        Err(Status::permission_denied(format!("{what} needs a key of the instance's own workspace, `default`")))
    }
}

/// The keys in memory. One per collector, shared; refreshed by `tasks/keys` and after every local change.
#[derive(Debug)]
pub struct Auth {
    clock: Clock,
    keys: ArcSwapOption<Keys>,
}

#[derive(Debug)]
struct Keys {
    by_digest: BTreeMap<[u8; 32], KeyRow>,
    read_at: Mono,
}

impl Auth {
    /// Knows no key yet: refuses everybody until the first [`Auth::reload`].
    pub fn new(clock: Clock) -> Self {
        Self { clock, keys: ArcSwapOption::empty() }
    }

    /// Reads all keys anew. A reload that began earlier never replaces one that began later.
    ///
    /// # Errors
    /// As [`Store::all_keys`]; the keys read before stay in use for [`KEYS_AGE_MAX`].
    pub async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let read_at = self.clock.now();
        let rows = store.all_keys(&Workspace::system(Task::Keys)).await?;
        let by_digest = rows.into_iter().map(|row| (row.digest, row)).collect();
        let fresh = std::sync::Arc::new(Keys { by_digest, read_at });
        self.keys.rcu(|old| match old {
            Some(old) if old.read_at > read_at => Some(old.clone()),
            Some(_) | None => Some(fresh.clone()),
        });
        Ok(())
    }

    /// Verifies the caller's key and its scope.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a key that is missing, malformed, unknown, revoked or expired, `PERMISSION_DENIED`
    /// naming the scope that it lacks, `UNAVAILABLE` while the keys cannot be read.
    pub fn require<T>(&self, request: &Request<T>, scope: Scope) -> Result<Caller, Status> {
        let key = presented(request)?;
        let keys = self.keys.load_full().filter(|keys| self.clock.now().since(keys.read_at) <= KEYS_AGE_MAX);
        let keys = keys.ok_or_else(|| {
            Status::unavailable("API keys cannot be verified while the configuration store is away; try again soon")
        })?;
        let digest = key.digest();
        let row = keys
            .by_digest
            .get(&digest)
            .filter(|row| bool::from(row.digest.ct_eq(&digest)))
            .ok_or_else(|| Status::unauthenticated("the API key is unknown; create one with `sonde key create`"))?;
        if row.revoked_at.is_some() {
            return Err(Status::unauthenticated("the API key was revoked; use another one"));
        }
        if row.expires_at.is_some_and(|end| end <= self.clock.wall()) {
            return Err(Status::unauthenticated("the API key has expired; create a new one with `sonde key create`"));
        }
        if !row.scopes.allow(scope) {
            return Err(Status::permission_denied(format!(
                "this API key lacks the scope `{scope}`; use one that has it"
            )));
        }
        Ok(Caller {
            workspace: Workspace::from_verified(row),
            key: row.id,
            scopes: row.scopes.clone(),
            address: address(request),
            request_id: request_id(request),
        })
    }
}

/// The key in the request's metadata.
fn presented<T>(request: &Request<T>) -> Result<ApiKey, Status> {
    let value = request.metadata().get("authorization").ok_or_else(|| {
        Status::unauthenticated("the API key is missing; send it as metadata `authorization: Bearer <key>`")
    })?;
    let malformed =
        || Status::unauthenticated("the API key is malformed; send `authorization: Bearer sonde_…` unchanged");
    let text = value.to_str().ok().filter(|text| text.len() <= AUTHORIZATION_BYTES_MAX).ok_or_else(malformed)?;
    let (scheme, key) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    ApiKey::parse(key.trim()).ok_or_else(malformed)
}

fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    let peer = request.extensions().get::<PeerAddr>().map(|peer| peer.0).or_else(|| request.remote_addr());
    peer.map(|peer| peer.ip().to_canonical())
}

fn request_id<T>(request: &Request<T>) -> Uuid {
    let given = request.metadata().get("x-request-id").and_then(|value| value.to_str().ok());
    given.and_then(|text| Uuid::parse_str(text).ok()).unwrap_or_else(Uuid::new_v4)
}
