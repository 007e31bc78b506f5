//! `sonde probe`.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use sonde_proto::wire;

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Read probes, add them, take them away.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the probes
    List,
    /// Show one probe
    Get {
        /// Id of the probe
        id: String,
    },
    /// Move a probe's work to others; it stays connected, and --undo gives the work back
    Drain {
        /// Id of the probe
        id: String,
        /// Give the work back instead
        #[arg(long)]
        undo: bool,
    },
    /// Refuse a probe from now on, for ever
    Revoke {
        /// Id of the probe
        id: String,
    },
    /// Make a join string for one new probe; it is shown once and works once
    JoinToken {
        /// Region that the probe stands in
        #[arg(long)]
        region: String,
        /// Name of the probe: 1 to 64 of a-z, 0-9 and -
        #[arg(long)]
        name: String,
        /// How long the string is good, 1m to 24h
        #[arg(long, default_value = "15m", value_parser = output::parse_duration)]
        #[arg(allow_hyphen_values = true, value_name = "TIME")]
        ttl: Duration,
    },
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    region: String,
    state: String,
    version: String,
    capabilities: Vec<String>,
    checks: u32,
    last_seen_at: Option<String>,
    certificate_expires_at: Option<String>,
    clock_skew_us: i64,
    joined_at: Option<String>,
}

impl From<wire::Probe> for View {
    fn from(probe: wire::Probe) -> Self {
        Self {
            id: probe.id,
            name: probe.name,
            region: probe.region,
            state: probe.state,
            version: probe.version,
            capabilities: probe.capabilities,
            checks: probe.checks,
            last_seen_at: output::instant(probe.last_seen_at_us),
            certificate_expires_at: output::instant(probe.certificate_expires_at_us),
            clock_skew_us: probe.clock_skew_us,
            joined_at: output::instant(probe.joined_at_us),
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["id", "region", "name", "state", "checks", "version", "can run", "last seen", "certificate ends"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.region.clone(),
            self.name.clone(),
            self.state.clone(),
            self.checks.to_string(),
            self.version.clone(),
            self.capabilities.join(","),
            output::or_dash(self.last_seen_at.as_ref()),
            output::or_dash(self.certificate_expires_at.as_ref()),
        ]
    }
}

#[derive(Debug, Serialize)]
struct JoinView {
    join_string: String,
    expires_at: Option<String>,
}

impl Row for JoinView {
    const COLUMNS: &'static [&'static str] = &["join string", "expires"];

    fn cells(&self) -> Vec<String> {
        vec![self.join_string.clone(), output::or_dash(self.expires_at.as_ref())]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        let probe = match self {
            Self::List => {
                let probes = client.list_probes(wire::ListProbesRequest {}).await?.probes;
                return output::list(format, &probes.into_iter().map(View::from).collect::<Vec<_>>());
            }
            Self::JoinToken { region, name, ttl } => {
                let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
                // The collector takes 0 for its default.
                if ttl_s == 0 {
                    return Err(CliError::invalid("--ttl: must be between 1m and 24h"));
                }
                let token = client.create_join_token(wire::CreateJoinTokenRequest { region, name, ttl_s }).await?;
                let view =
                    JoinView { join_string: token.join_string, expires_at: output::instant(token.expires_at_us) };
                return output::one(format, &view);
            }
            Self::Get { id } => client.get_probe(wire::GetProbeRequest { id }).await?,
            Self::Drain { id, undo } => client.drain_probe(wire::DrainProbeRequest { id, undo }).await?,
            Self::Revoke { id } => client.revoke_probe(wire::RevokeProbeRequest { id }).await?,
        };
        output::one(format, &View::from(probe))
    }
}
