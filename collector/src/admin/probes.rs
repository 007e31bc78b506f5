//! Probes over the admin API. Every workspace may read them; only the instance admits, drains and revokes them.

use std::sync::Arc;
use std::time::Duration;

use sonde_proto::convert::join_string_encode;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{ProbeId, RegionId, cut};
use sonde_proto::model::time::Mono;
use sonde_proto::session::CloseReason;
use sonde_proto::wire;
use sonde_proto::wire::probes_server::{Probes, ProbesServer};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{ANSWER_BYTES_MAX, Deps, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::fleet::Fleet;
use crate::pki;
use crate::seal::TOKEN_BYTES;
use crate::store::{NewToken, ProbeRow};

/// Longest name of a probe, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Life of a join string unless the caller says otherwise, in seconds.
const TTL_S_DEFAULT: u32 = 900;
/// Shortest and longest life of a join string, in seconds.
const TTL_S: std::ops::RangeInclusive<u32> = 60..=86_400;

/// The mesh as it is now, and what join strings say about it.
#[derive(Debug)]
pub struct MeshView {
    /// What is known of the probes in memory.
    pub state: Arc<Fleet>,
    /// SHA-256 of the CA's public key.
    pub ca_pin: [u8; 32],
    /// Where probes enrol, `host:port`.
    pub enrol_address: String,
    /// Where probes hold their streams, `host:port`.
    pub mesh_address: String,
}

/// The service `sonde.v1.Probes`.
#[derive(Debug, Clone)]
pub struct ProbesService {
    deps: Deps,
}

impl ProbesService {
    /// The service with its limits on message sizes.
    pub fn server(deps: Deps) -> ProbesServer<Self> {
        ProbesServer::new(Self { deps })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }

    fn message(&self, row: ProbeRow) -> wire::Probe {
        message(row, &self.deps.mesh.state, self.deps.clock.now())
    }
}

#[tonic::async_trait]
impl Probes for ProbesService {
    async fn list_probes(
        &self,
        request: Request<wire::ListProbesRequest>,
    ) -> Result<Response<wire::ListProbesResponse>, Status> {
        let caller = self.deps.auth.require(&request, Scope::ProbesRead)?;
        let rows = self.deps.store.probes(&caller.workspace).await;
        let rows = rows.map_err(|failure| error::read(&caller, failure))?;
        let probes = rows.into_iter().map(|row| self.message(row)).collect();
        Ok(Response::new(wire::ListProbesResponse { probes }))
    }

    async fn get_probe(&self, request: Request<wire::GetProbeRequest>) -> Result<Response<wire::Probe>, Status> {
        let caller = self.deps.auth.require(&request, Scope::ProbesRead)?;
        let id: ProbeId = parse::id("id", &request.into_inner().id).map_err(error::invalid)?;
        let row = self.deps.store.probe(&caller.workspace, id).await;
        let row = row.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(self.message(row)))
    }

    async fn drain_probe(&self, request: Request<wire::DrainProbeRequest>) -> Result<Response<wire::Probe>, Status> {
        let caller = self.deps.auth.require(&request, Scope::ProbesWrite)?;
        caller.require_instance("draining a probe")?;
        let wire::DrainProbeRequest { id, undo } = request.into_inner();
        let id: ProbeId = parse::id("id", &id).map_err(error::invalid)?;
        let row = self.deps.store.drain_probe(&caller.workspace, caller.actor(), id, !undo).await;
        let row = row.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(self.message(row)))
    }

    async fn revoke_probe(&self, request: Request<wire::RevokeProbeRequest>) -> Result<Response<wire::Probe>, Status> {
        let caller = self.deps.auth.require(&request, Scope::ProbesWrite)?;
        caller.require_instance("revoking a probe")?;
        let id: ProbeId = parse::id("id", &request.into_inner().id).map_err(error::invalid)?;
        let row = self.deps.store.revoke_probe(&caller.workspace, caller.actor(), id).await;
        let row = row.map_err(|failure| error::store(&caller, failure))?;
        // Here at once; other collectors learn it from the store.
        let state = &self.deps.mesh.state;
        state.denied.deny(id);
        state.registry.cut(id, &CloseReason::Revoked);
        state.presence.forget(id);
        Ok(Response::new(self.message(row)))
    }

    async fn create_join_token(
        &self,
        request: Request<wire::CreateJoinTokenRequest>,
    ) -> Result<Response<wire::JoinToken>, Status> {
        let caller = self.deps.auth.require(&request, Scope::ProbesWrite)?;
        caller.require_instance("making a join string")?;
        let (region, name, ttl) = parse_token(request.into_inner()).map_err(error::invalid)?;
        let mut secret = Zeroizing::new([0_u8; TOKEN_BYTES]);
        aws_lc_rs::rand::fill(&mut secret[..])
            .map_err(|_| Status::internal("the system's random generator failed; try again"))?;
        let token = NewToken { sha256: pki::sha256(&secret[..]), region, name, ttl };
        let kept = self.deps.store.create_join_token(&caller.workspace, caller.actor(), &token).await;
        let expires_at = kept.map_err(|failure| error::store(&caller, failure))?;
        let join_string = join_string_encode(&wire::JoinString {
            enrol_address: self.deps.mesh.enrol_address.clone(),
            mesh_address: self.deps.mesh.mesh_address.clone(),
            ca_pin: self.deps.mesh.ca_pin.to_vec(),
            token: secret.to_vec(),
            name: token.name,
            region: token.region.to_string(),
        });
        Ok(Response::new(wire::JoinToken { join_string, expires_at_us: expires_at.0 }))
    }
}

fn parse_token(request: wire::CreateJoinTokenRequest) -> Result<(RegionId, String, Duration), InvalidField> {
    let region = RegionId::new(request.region)?;
    let name = request.name;
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
        let reason = format!("`{}` is not a probe name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -", cut(&name));
        return Err(InvalidField::new("name", reason));
    }
    let ttl_s = if request.ttl_s == 0 { TTL_S_DEFAULT } else { request.ttl_s };
    if !TTL_S.contains(&ttl_s) {
        let reason = format!("{ttl_s} s is out of range; use {} s to {} s", TTL_S.start(), TTL_S.end());
        return Err(InvalidField::new("ttl_s", reason));
    }
    Ok((region, name, Duration::from_secs(u64::from(ttl_s))))
}

/// What is in memory is newer than what is stored.
fn message(row: ProbeRow, state: &Fleet, now: Mono) -> wire::Probe {
    let seen = state.presence.seen(row.id).filter(|seen| seen.heard_at.is_some());
    let last_seen_at = seen.as_ref().and_then(|seen| seen.heard_at).max(row.last_seen_at);
    // Another collector's stream is known by what it hears.
    let is_live =
        seen.as_ref().is_some_and(|seen| (state.registry.has(row.id) || seen.is_elsewhere) && seen.keeps_work(now));
    let word = if row.revoked_at.is_some() {
        "revoked"
    } else if row.drained {
        "draining"
    } else if is_live {
        "live"
    } else if last_seen_at.is_some() {
        "silent"
    } else {
        "joined"
    };
    let (version, capabilities, clock_skew_us) = match seen {
        Some(seen) => {
            let names = seen.capabilities.iter().map(|protocol| protocol.name().to_owned()).collect();
            (seen.version, names, seen.clock_skew_us)
        }
        None => (row.version, row.capabilities, row.clock_skew_us),
    };
    wire::Probe {
        id: row.id.to_string(),
        name: row.name,
        region: row.region.to_string(),
        state: word.to_owned(),
        version,
        capabilities,
        last_seen_at_us: last_seen_at.map_or(0, |at| at.0),
        certificate_expires_at_us: row.certificate_expires_at.0,
        checks: u32::try_from(state.board.checks_of(row.id)).unwrap_or(u32::MAX),
        clock_skew_us,
        joined_at_us: row.joined_at.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(region: &str, name: &str, ttl_s: u32) -> Result<(RegionId, String, Duration), InvalidField> {
        parse_token(wire::CreateJoinTokenRequest { region: region.to_owned(), name: name.to_owned(), ttl_s })
    }

    #[test]
    fn a_request_for_a_join_string_is_checked_field_by_field() {
        assert_eq!(ask("eu-west", "probe-1", 0).unwrap().2, Duration::from_secs(900));
        assert_eq!(ask("Mars!", "probe-1", 0).unwrap_err().field, "region");
        assert_eq!(ask("eu-west", "", 0).unwrap_err().field, "name");
        assert_eq!(ask("eu-west", "Probe 1", 0).unwrap_err().field, "name");
        assert_eq!(ask("eu-west", "probe-1", 59).unwrap_err().field, "ttl_s");
        assert_eq!(ask("eu-west", "probe-1", 86_401).unwrap_err().field, "ttl_s");
    }
}
