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
    /// Change how long a workspace keeps what was measured; what is not named stays as it is
    SetRetention {
        /// Id of the workspace
        id: String,
        /// Days that samples are kept, 8 to 3660, or 0 for the default of 30
        #[arg(long, value_name = "DAYS")]
        raw: Option<u32>,
        /// Days that rollups of minutes are kept, 8 to 3660, or 0 for the default of 396
        #[arg(long, value_name = "DAYS")]
        minutes: Option<u32>,
        /// Days that rollups of hours are kept, 8 to 3660, or 0 for the default of 1826
        #[arg(long, value_name = "DAYS")]
        hours: Option<u32>,
        /// Days that rollups of days are kept, 8 to 3660, or 0 for the default of 1826
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    created_at: Option<String>,
    raw_days: u32,
    minutes_days: u32,
    hours_days: u32,
    days_days: u32,
}

impl From<wire::Workspace> for View {
    fn from(workspace: wire::Workspace) -> Self {
        let keeps = workspace.keeps.unwrap_or_default();
        Self {
            id: workspace.id,
            name: workspace.name,
            created_at: output::instant(workspace.created_at_us),
            raw_days: keeps.raw_days,
            minutes_days: keeps.minutes_days,
            hours_days: keeps.hours_days,
            days_days: keeps.days_days,
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["id", "name", "created", "samples", "minutes", "hours", "days"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.id.clone(), self.name.clone(), output::or_dash(self.created_at.as_ref())];
        cells
            .extend([self.raw_days, self.minutes_days, self.hours_days, self.days_days].map(|days| format!("{days}d")));
        cells
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
            Self::SetRetention { id, raw, minutes, hours, days } => {
                let request = wire::SetRetentionRequest {
                    id,
                    raw_days: raw,
                    minutes_days: minutes,
                    hours_days: hours,
                    days_days: days,
                };
                output::one(format, &View::from(client.set_retention(request).await?))
            }
        }
    }
}
