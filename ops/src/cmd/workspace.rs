//! `sonde workspace`.

use std::io::Write as _;

use clap::Subcommand;
use serde::Serialize;
use sonde_proto::wire;

use super::workspace_id;
use crate::client::Client;
use crate::error::{CliError, Result};
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
        /// Id or name of the workspace
        id: String,
    },
    /// Change how long a workspace keeps what was measured; what is not named stays as it is
    SetRetention {
        /// Id or name of the workspace
        id: String,
        /// Days that samples are kept, 9 to 3660, or 0 for the default of 30
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true)]
        raw: Option<u32>,
        /// Days that rollups of minutes are kept, 9 to 3660, or 0 for the default of 396
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true)]
        minutes: Option<u32>,
        /// Days that rollups of hours are kept, 9 to 3660, or 0 for the default of 1826
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true)]
        hours: Option<u32>,
        /// Days that rollups of days are kept, 9 to 3660, or 0 for the default of 1826
        #[arg(long, value_name = "DAYS", allow_negative_numbers = true)]
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
                let id = workspace_id(client, &id).await?;
                output::one(format, &View::from(client.get_workspace(wire::GetWorkspaceRequest { id }).await?))
            }
            Self::SetRetention { id, raw, minutes, hours, days } => {
                if [raw, minutes, hours, days].iter().all(Option::is_none) {
                    return Err(CliError::invalid("there is nothing to change")
                        .hint("name at least one of --raw, --minutes, --hours and --days"));
                }
                let id = workspace_id(client, &id).await?;
                let request = wire::SetRetentionRequest {
                    id,
                    raw_days: raw,
                    minutes_days: minutes,
                    hours_days: hours,
                    days_days: days,
                };
                let view = View::from(client.set_retention(request).await?);
                if let Some(warning) = view.warning() {
                    // Nothing can be told to somebody who closed standard error.
                    let _ = writeln!(std::io::stderr(), "warning: {warning}");
                }
                output::one(format, &view)
            }
        }
    }
}

impl View {
    /// What is odd about the ages, though it is allowed: rollups are there to outlive what they were computed from.
    fn warning(&self) -> Option<String> {
        let ages = [
            ("samples", self.raw_days),
            ("minutes", self.minutes_days),
            ("hours", self.hours_days),
            ("days", self.days_days),
        ];
        ages.windows(2).find_map(|pair| match pair {
            [(finer, longer), (coarser, shorter)] if shorter < longer => Some(format!(
                "{coarser} are kept for {shorter} days and {finer} for {longer}: rollups that end before what they sum up \
                 save nothing"
            )),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_that_end_before_samples_are_worth_a_word() {
        let kept = |raw_days, minutes_days, hours_days, days_days| {
            let keeps = wire::Retention { raw_days, minutes_days, hours_days, days_days };
            View::from(wire::Workspace { keeps: Some(keeps), ..wire::Workspace::default() }).warning()
        };
        assert_eq!(kept(30, 396, 1_826, 1_826), None);
        assert_eq!(kept(9, 9, 9, 9), None);
        assert!(kept(40, 10, 50, 50).unwrap().starts_with("minutes are kept for 10 days and samples for 40"));
        assert!(kept(9, 10, 50, 49).unwrap().starts_with("days are kept for 49 days and hours for 50"));
    }
}
