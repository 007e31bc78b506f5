//! Workspaces over the admin API. A workspace sees itself; the instance sees and creates all of them.

use std::time::Duration;

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::WorkspaceId;
use sonde_proto::wire;
use sonde_proto::wire::workspaces_server::{Workspaces, WorkspacesServer};
use tonic::{Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::ingest::admit::SLOT_AGE_MAX;
use crate::seal::new_id;
use crate::store::{KEEP_DAYS, KeepChange, WorkspaceRow};

/// The oldest sample that is taken, the UTC day that it lies in, and a day for its rollups.
const _: () = assert!(*KEEP_DAYS.start() as u64 * 86_400 >= SLOT_AGE_MAX.as_secs() + 2 * 86_400);

/// The service `sonde.v1.Workspaces`.
#[derive(Debug, Clone)]
pub struct WorkspacesService {
    core: Core,
}

impl WorkspacesService {
    /// The service with its limits on message sizes.
    pub fn server(core: Core) -> WorkspacesServer<Self> {
        WorkspacesServer::new(Self { core })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Workspaces for WorkspacesService {
    async fn create_workspace(
        &self,
        request: Request<wire::CreateWorkspaceRequest>,
    ) -> Result<Response<wire::Workspace>, Status> {
        let caller = self.core.auth.require(&request, Scope::WorkspacesWrite)?;
        caller.require_instance("creating a workspace")?;
        let name = parse::workspace_name(&request.get_ref().name).map_err(error::invalid)?;
        let id = WorkspaceId(new_id(self.core.clock.wall()));
        let created = self.core.store.create_workspace(&caller.workspace, caller.actor(), id, name).await;
        let row = created.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(message(&row)))
    }

    async fn list_workspaces(
        &self,
        request: Request<wire::ListWorkspacesRequest>,
    ) -> Result<Response<wire::ListWorkspacesResponse>, Status> {
        let caller = self.core.auth.require(&request, Scope::WorkspacesRead)?;
        let rows = self.core.store.workspaces(&caller.workspace).await;
        let rows = rows.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(wire::ListWorkspacesResponse { workspaces: rows.iter().map(message).collect() }))
    }

    async fn get_workspace(
        &self,
        request: Request<wire::GetWorkspaceRequest>,
    ) -> Result<Response<wire::Workspace>, Status> {
        let caller = self.core.auth.require(&request, Scope::WorkspacesRead)?;
        let id = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let found = self.core.store.workspace(&caller.workspace, id).await;
        let row = found.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(message(&row)))
    }

    async fn set_retention(
        &self,
        request: Request<wire::SetRetentionRequest>,
    ) -> Result<Response<wire::Workspace>, Status> {
        let caller = self.core.auth.require(&request, Scope::WorkspacesWrite)?;
        caller.require_instance("changing the retention of a workspace")?;
        let wanted = request.get_ref();
        let id: WorkspaceId = parse::id("id", &wanted.id).map_err(error::invalid)?;
        let change = KeepChange {
            raw: change("raw_days", wanted.raw_days).map_err(error::invalid)?,
            minutes: change("minutes_days", wanted.minutes_days).map_err(error::invalid)?,
            hours: change("hours_days", wanted.hours_days).map_err(error::invalid)?,
            days: change("days_days", wanted.days_days).map_err(error::invalid)?,
        };
        let Some(target) = caller.workspace.acting_in(id) else {
            return Err(Status::not_found("there is no such workspace"));
        };
        let changed = self.core.store.set_retention(&target, caller.actor(), change).await;
        changed.map_err(|failure| error::store(&caller, failure))?;
        let found = self.core.store.workspace(&caller.workspace, id).await;
        let row = found.map_err(|failure| error::read(&caller, failure))?;
        Ok(Response::new(message(&row)))
    }
}

/// What a request changes: absent leaves a value as it is, 0 makes it the default again.
fn change(field: &str, days: Option<u32>) -> Result<Option<Option<u32>>, InvalidField> {
    match days {
        None => Ok(None),
        Some(0) => Ok(Some(None)),
        Some(days) if KEEP_DAYS.contains(&days) => Ok(Some(Some(days))),
        Some(days) => {
            let reason = format!("{days} is out of range; use {} to {}, or 0", KEEP_DAYS.start(), KEEP_DAYS.end());
            Err(InvalidField::new(field, format!("{reason} for the default")))
        }
    }
}

fn message(row: &WorkspaceRow) -> wire::Workspace {
    let kept = row.keep.retention();
    // Days that a request may name fit.
    let days = |kept: Duration| u32::try_from(kept.as_secs() / 86_400).unwrap_or(u32::MAX);
    wire::Workspace {
        id: row.id.to_string(),
        name: row.name.clone(),
        created_at_us: row.created_at.0,
        keeps: Some(wire::Retention {
            raw_days: days(kept.raw),
            minutes_days: days(kept.minute),
            hours_days: days(kept.hour),
            days_days: days(kept.day),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_kept_changed_or_made_the_default() {
        assert_eq!(change("raw_days", None).unwrap(), None);
        assert_eq!(change("raw_days", Some(0)).unwrap(), Some(None));
        assert_eq!(change("raw_days", Some(9)).unwrap(), Some(Some(9)));
        let refused = change("raw_days", Some(8)).unwrap_err();
        assert!(refused.field == "raw_days" && refused.to_string().contains("9 to 3660"), "{refused}");
    }
}
