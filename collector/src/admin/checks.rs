//! Checks over the admin API. Never judges a definition itself: that is [`CheckSpec`]'s own business.

use sonde_proto::convert::{check_definition, check_spec, check_spec_over, holds_hidden};
use sonde_proto::model::InvalidField;
use sonde_proto::model::check::CheckSpec;
use sonde_proto::model::id::CheckId;
use sonde_proto::model::time::Wall;
use sonde_proto::wire;
use sonde_proto::wire::checks_server::{Checks, ChecksServer};
use tonic::{Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::seal::new_id;
use crate::store::{CheckRow, NewCheck};

/// The service `sonde.v1.Checks`.
#[derive(Debug, Clone)]
pub struct ChecksService {
    core: Core,
}

impl ChecksService {
    /// The service with its limits on message sizes.
    pub fn server(core: Core) -> ChecksServer<Self> {
        ChecksServer::new(Self { core })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Checks for ChecksService {
    async fn create_check(&self, request: Request<wire::CreateCheckRequest>) -> Result<Response<wire::Check>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksWrite)?;
        let new = new_check(request.into_inner(), self.core.clock.wall()).map_err(error::invalid)?;
        let created = self.core.store.create_check(&caller.workspace, caller.actor(), new).await;
        created.map(|row| answer(&row)).map_err(|failure| error::store(&caller, failure))
    }

    async fn list_checks(
        &self,
        request: Request<wire::ListChecksRequest>,
    ) -> Result<Response<wire::ListChecksResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksRead)?;
        let rows = self.core.store.checks(&caller.workspace).await.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(wire::ListChecksResponse { checks: rows.iter().map(message).collect() }))
    }

    async fn get_check(&self, request: Request<wire::GetCheckRequest>) -> Result<Response<wire::Check>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksRead)?;
        let id = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let found = self.core.store.check(&caller.workspace, id).await;
        found.map(|row| answer(&row)).map_err(|failure| error::read(&caller, failure))
    }

    async fn update_check(&self, request: Request<wire::UpdateCheckRequest>) -> Result<Response<wire::Check>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksWrite)?;
        let wire::UpdateCheckRequest { id, definition } = request.into_inner();
        let id = parse::id("id", &id).map_err(error::invalid)?;
        let stored = match &definition {
            Some(definition) if holds_hidden(definition) => {
                let found = self.core.store.check(&caller.workspace, id).await;
                Some(found.map_err(|failure| error::read(&caller, failure))?.spec)
            }
            Some(_) | None => None,
        };
        let spec = replacement(definition, stored.as_ref()).map_err(error::invalid)?;
        let updated = self.core.store.update_check(&caller.workspace, caller.actor(), id, spec).await;
        updated.map(|row| answer(&row)).map_err(|failure| error::store(&caller, failure))
    }

    async fn set_check_paused(
        &self,
        request: Request<wire::SetCheckPausedRequest>,
    ) -> Result<Response<wire::Check>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksWrite)?;
        let id = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let paused = request.get_ref().paused;
        let set = self.core.store.set_check_paused(&caller.workspace, caller.actor(), id, paused).await;
        set.map(|row| answer(&row)).map_err(|failure| error::store(&caller, failure))
    }

    async fn delete_check(
        &self,
        request: Request<wire::DeleteCheckRequest>,
    ) -> Result<Response<wire::DeleteCheckResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::ChecksWrite)?;
        let id: CheckId = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let deleted = self.core.store.delete_check(&caller.workspace, caller.actor(), id).await;
        deleted.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(wire::DeleteCheckResponse { id: id.to_string() }))
    }
}

fn new_check(request: wire::CreateCheckRequest, now: Wall) -> Result<NewCheck, InvalidField> {
    let spec = spec(request.definition, request.paused)?;
    Ok(NewCheck { id: CheckId(new_id(now)), spec, request_id: parse::request_id(&request.request_id)? })
}

/// Reads what a check becomes. Secrets that the definition only stands for stay those of `stored`.
fn replacement(
    definition: Option<wire::CheckDefinition>,
    stored: Option<&CheckSpec>,
) -> Result<CheckSpec, InvalidField> {
    match (definition, stored) {
        (Some(definition), Some(stored)) => check_spec_over(definition, stored),
        // Whether it is paused is not part of a definition; the store keeps it as it is.
        (definition, _) => spec(definition, false),
    }
}

fn spec(definition: Option<wire::CheckDefinition>, paused: bool) -> Result<CheckSpec, InvalidField> {
    let definition = definition.ok_or_else(|| InvalidField::new("definition", "is missing; say what to measure"))?;
    check_spec(definition, paused)
}

fn answer(row: &CheckRow) -> Response<wire::Check> {
    Response::new(message(row))
}

fn message(row: &CheckRow) -> wire::Check {
    wire::Check {
        id: row.id.to_string(),
        definition: Some(check_definition(&row.spec)),
        paused: row.spec.paused,
        created_at_us: row.created_at.0,
        updated_at_us: row.updated_at.0,
    }
}
