//! The audit log over the admin API. Reads only: entries come with the changes that they tell of.

use sonde_proto::wire;
use sonde_proto::wire::audit_server::{Audit, AuditServer};
use tonic::{Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::store::AuditRow;

/// Entries in an answer when the request does not say.
const ENTRIES_DEFAULT: u32 = 100;
/// Most entries in an answer.
const ENTRIES_MAX: u32 = 10_000;

/// The service `sonde.v1.Audit`.
#[derive(Debug, Clone)]
pub struct AuditService {
    core: Core,
}

impl AuditService {
    /// The service with its limits on message sizes.
    pub fn server(core: Core) -> AuditServer<Self> {
        AuditServer::new(Self { core })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Audit for AuditService {
    async fn list_audit(
        &self,
        request: Request<wire::ListAuditRequest>,
    ) -> Result<Response<wire::ListAuditResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::AuditRead)?;
        let limit = parse::limit(request.get_ref().limit, ENTRIES_DEFAULT, ENTRIES_MAX).map_err(error::invalid)?;
        let rows = self.core.store.audit(&caller.workspace, limit).await;
        let rows = rows.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(wire::ListAuditResponse { entries: rows.into_iter().map(message).collect() }))
    }
}

fn message(row: AuditRow) -> wire::AuditEntry {
    let text = |state: Option<serde_json::Value>| state.map(|state| state.to_string()).unwrap_or_default();
    wire::AuditEntry {
        id: row.id,
        at_us: row.at.0,
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        before_json: text(row.before),
        after_json: text(row.after),
        address: row.address,
        request_id: row.request_id.to_string(),
    }
}
