//! `sonde region`.

use clap::Subcommand;
use serde::Serialize;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Format, Row};

/// Create and list regions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a region
    Create {
        /// Name: 2 to 32 of a-z, 0-9 and -, starting with a letter
        #[arg(long)]
        name: String,
    },
    /// List the regions
    List,
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    created_at: Option<String>,
}

impl From<wire::Region> for View {
    fn from(region: wire::Region) -> Self {
        Self { id: region.name.clone(), name: region.name, created_at: output::instant(region.created_at_us) }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["name", "created"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), output::or_dash(self.created_at.as_ref())]
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
                output::one(format, &View::from(client.create_region(wire::CreateRegionRequest { name }).await?))
            }
            Self::List => {
                let regions = client.list_regions(wire::ListRegionsRequest {}).await?.regions;
                output::list(format, &regions.into_iter().map(View::from).collect::<Vec<_>>())
            }
        }
    }
}
