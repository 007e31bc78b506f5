//! `sonde workspace`.

use clap::Subcommand;
use serde::Serialize;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Format, Row};

/// Create and read workspaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a workspace
    Create {
        /// Name: 1 to 64 of a-z, 0-9 and -
        #[arg(long)]
        name: String,
    },
    /// List the workspaces that the key may see
    List,
    /// Show one workspace
    Get {
        /// Id of the workspace
        id: String,
    },
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    created_at: Option<String>,
}

impl From<wire::Workspace> for View {
    fn from(workspace: wire::Workspace) -> Self {
        Self { id: workspace.id, name: workspace.name, created_at: output::instant(workspace.created_at_us) }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["id", "name", "created"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.name.clone(), output::or_dash(self.created_at.as_ref())]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        match self {
            Self::Create { name } => {
                let made = client.create_workspace(wire::CreateWorkspaceRequest { name }).await?;
                output::one(format, &View::from(made))
            }
            Self::List => {
                let found = client.list_workspaces(wire::ListWorkspacesRequest {}).await?.workspaces;
                output::list(format, &found.into_iter().map(View::from).collect::<Vec<_>>())
            }
            Self::Get { id } => {
                output::one(format, &View::from(client.get_workspace(wire::GetWorkspaceRequest { id }).await?))
            }
        }
    }
}
