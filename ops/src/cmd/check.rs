//! `sonde check`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use sonde_proto::wire;

use super::check_assert::{self, AssertArgs, AssertChanges};
use super::check_kind::{self, KindArgs, KindChanges};
use super::check_reach::{self, ReachArgs, ReachChanges};
use super::{check_id, micros};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Timeout of a check whose author names none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Create, read and change checks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a check
    #[command(subcommand)]
    #[expect(private_interfaces, reason = "flags are built by the parser only")]
    Create(Box<KindArgs>),
    /// List the checks, ordered by name
    List,
    /// Show one check
    Get {
        /// Id or name of the check
        check: String,
    },
    /// Change a check; flags that are not given leave their part as it is
    #[expect(private_interfaces, reason = "flags are built by the parser only")]
    Update(Box<UpdateArgs>),
    /// Keep a check without running it
    Pause {
        /// Id or name of the check
        check: String,
    },
    /// Run a paused check again
    Resume {
        /// Id or name of the check
        check: String,
    },
    /// Delete a check; its samples stay until their retention ends
    Delete {
        /// Id or name of the check
        check: String,
    },
}

/// Flags that every kind of check has.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name for people, 1 to 120 characters, unique in the workspace
    #[arg(long)]
    name: String,
    /// Distance between two runs in one region, 1s to 24h
    #[arg(long, default_value = "60s", value_parser = output::parse_duration)]
    #[arg(allow_hyphen_values = true, value_name = "TIME")]
    interval: Duration,
    /// How long a run may take, 10ms to 60s, not above the interval [default: 10s, or the interval if shorter]
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Regions to run from, separated by commas; `sonde region list` shows them
    #[arg(long, value_delimiter = ',', required = true, value_parser = output::parse_word, value_name = "NAMES")]
    regions: Vec<String>,
    /// Total latency from which a good answer counts as degraded, shorter than the timeout [default: never]
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    degraded_after: Option<Duration>,
    #[command(flatten)]
    assertions: AssertArgs,
    #[command(flatten)]
    reach: ReachArgs,
    /// Create it without running it
    #[arg(long)]
    paused: bool,
    /// UUID of this request: a repetition returns the first result
    #[arg(long, default_value = "", hide_default_value = true, value_name = "UUID")]
    request_id: String,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    /// Id or name of the check
    check: String,
    /// New name, 1 to 120 characters
    #[arg(long)]
    name: Option<String>,
    /// New distance between two runs in one region, 1s to 24h
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    interval: Option<Duration>,
    /// New time that a run may take, 10ms to 60s, not above the interval
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    timeout: Option<Duration>,
    /// New regions, separated by commas; replaces all of them
    #[arg(long, value_delimiter = ',', value_parser = output::parse_word, value_name = "NAMES")]
    regions: Option<Vec<String>>,
    /// New latency from which a good answer counts as degraded, shorter than the timeout; 0s for never
    #[arg(long, value_parser = output::parse_duration, allow_hyphen_values = true, value_name = "TIME")]
    degraded_after: Option<Duration>,
    #[command(flatten)]
    assertions: AssertChanges,
    #[command(flatten)]
    reach: ReachChanges,
    #[command(flatten)]
    kind: KindChanges,
}

impl UpdateArgs {
    fn changes_nothing(&self) -> bool {
        self.name.is_none()
            && self.interval.is_none()
            && self.timeout.is_none()
            && self.regions.is_none()
            && self.degraded_after.is_none()
            && self.assertions.is_empty()
            && self.reach.is_empty()
            && self.kind.flags_given().next().is_none()
    }
}

#[derive(Debug, Serialize)]
struct View {
    id: String,
    name: String,
    kind: &'static str,
    target: String,
    interval_us: u64,
    timeout_us: u64,
    degraded_after_us: Option<u64>,
    regions: Vec<String>,
    paused: bool,
    reach: serde_json::Value,
    assertions: serde_json::Value,
    spec: serde_json::Value,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl From<wire::Check> for View {
    fn from(check: wire::Check) -> Self {
        let definition = check.definition.unwrap_or_default();
        let (kind, target) = check_kind::describe(definition.kind.as_ref());
        Self {
            id: check.id,
            name: definition.name,
            kind,
            target,
            interval_us: definition.interval_us,
            timeout_us: definition.timeout_us,
            degraded_after_us: (definition.degraded_after_us > 0).then_some(definition.degraded_after_us),
            regions: definition.regions,
            paused: check.paused,
            reach: check_reach::details(definition.reach.as_ref()),
            assertions: check_assert::details(definition.assertions.as_ref()),
            spec: check_kind::details(definition.kind.as_ref()),
            created_at: output::instant(check.created_at_us),
            updated_at: output::instant(check.updated_at_us),
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "kind", "target", "interval", "timeout", "regions", "state"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.kind.to_owned(),
            self.target.clone(),
            output::length(self.interval_us),
            output::length(self.timeout_us),
            self.regions.join(","),
            if self.paused { "paused" } else { "running" }.to_owned(),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("degraded after", self.degraded_after_us.map_or_else(|| "never".to_owned(), output::length)),
            ("created", output::or_dash(self.created_at.as_ref())),
            ("updated", output::or_dash(self.updated_at.as_ref())),
        ];
        rows.extend(check_assert::settings(&self.assertions));
        rows.extend(check_reach::settings(&self.reach));
        rows.extend(check_kind::settings(&self.spec));
        rows
    }
}

#[derive(Debug, Serialize)]
struct Deleted {
    id: String,
    deleted: bool,
}

impl Row for Deleted {
    const COLUMNS: &'static [&'static str] = &["id", "deleted"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.deleted.to_string()]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered, or a flag that does not belong to the check's kind.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        let check = match self {
            Self::List => {
                let checks = client.list_checks(wire::ListChecksRequest {}).await?.checks;
                return output::list(format, &checks.into_iter().map(View::from).collect::<Vec<_>>());
            }
            Self::Delete { check } => {
                let id = check_id(client, &check).await?;
                let gone = client.delete_check(wire::DeleteCheckRequest { id }).await?;
                return output::one(format, &Deleted { id: gone.id, deleted: true });
            }
            Self::Create(kind) => create(client, *kind).await?,
            Self::Get { check } => {
                let id = check_id(client, &check).await?;
                client.get_check(wire::GetCheckRequest { id }).await?
            }
            Self::Update(args) => update(client, *args).await?,
            Self::Pause { check } => set_paused(client, &check, true).await?,
            Self::Resume { check } => set_paused(client, &check, false).await?,
        };
        output::one(format, &View::from(check))
    }
}

async fn create(client: &Client, kind: KindArgs) -> Result<wire::Check> {
    let (common, kind) = kind.split();
    let definition = wire::CheckDefinition {
        name: common.name,
        kind: Some(kind),
        interval_us: micros(common.interval),
        timeout_us: micros(common.timeout.unwrap_or(TIMEOUT_DEFAULT.min(common.interval))),
        regions: common.regions,
        degraded_after_us: common.degraded_after.map_or(0, micros),
        reach: Some(common.reach.into()),
        assertions: Some(common.assertions.into()),
    };
    client
        .create_check(wire::CreateCheckRequest {
            definition: Some(definition),
            paused: common.paused,
            request_id: common.request_id,
        })
        .await
}

async fn update(client: &Client, args: UpdateArgs) -> Result<wire::Check> {
    if args.changes_nothing() {
        return Err(CliError::invalid(format!("check `{}`: nothing to change: give at least one flag", args.check))
            .hint("`sonde check update --help` lists the flags"));
    }
    let id = check_id(client, &args.check).await?;
    let check = client.get_check(wire::GetCheckRequest { id: id.clone() }).await?;
    let mut definition = check.definition.unwrap_or_default();
    if let Some(name) = args.name {
        definition.name = name;
    }
    if let Some(interval) = args.interval {
        definition.interval_us = micros(interval);
    }
    if let Some(timeout) = args.timeout {
        definition.timeout_us = micros(timeout);
    }
    if let Some(regions) = args.regions {
        definition.regions = regions;
    }
    if let Some(after) = args.degraded_after {
        definition.degraded_after_us = micros(after);
    }
    args.assertions.apply(&mut definition.assertions);
    args.reach.apply(&mut definition.reach);
    let kind = definition.kind.as_mut().and_then(|kind| kind.kind.as_mut());
    let kind =
        kind.ok_or_else(|| CliError::invalid("kind: this version of sonde does not know it; use a newer one"))?;
    args.kind.apply(kind)?;
    client.update_check(wire::UpdateCheckRequest { id, definition: Some(definition) }).await
}

async fn set_paused(client: &Client, check: &str, paused: bool) -> Result<wire::Check> {
    let id = check_id(client, check).await?;
    client.set_check_paused(wire::SetCheckPausedRequest { id, paused }).await
}
