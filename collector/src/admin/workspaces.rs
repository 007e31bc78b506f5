//! Workspaces over the admin API. A workspace sees itself; the instance sees and creates all of them.

use sonde_proto::model::id::WorkspaceId;
use sonde_proto::wire;
use sonde_proto::wire::workspaces_server::{Workspaces, WorkspacesServer};
use tonic::{Request, Response, Status};

use super::{ANSWER_BYTES_MAX, Core, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::seal::new_id;
use crate::store::WorkspaceRow;

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
        let rows = rows.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(wire::ListWorkspacesResponse { workspaces: rows.iter().map(message).collect() }))
    }

    async fn get_workspace(
        &self,
        request: Request<wire::GetWorkspaceRequest>,
    ) -> Result<Response<wire::Workspace>, Status> {
        let caller = self.core.auth.require(&request, Scope::WorkspacesRead)?;
        let id = parse::id("id", &request.get_ref().id).map_err(error::invalid)?;
        let found = self.core.store.workspace(&caller.workspace, id).await;
        let row = found.map_err(|failure| error::store(&caller, failure))?;
        Ok(Response::new(message(&row)))
    }
}

fn message(row: &WorkspaceRow) -> wire::Workspace {
    wire::Workspace { id: row.id.to_string(), name: row.name.clone(), created_at_us: row.created_at.0 }
}
