//! `sonde sample`.

mod detail;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use futures::StreamExt as _;
use serde::Serialize;
use sonde_proto::wire;

use super::{check_id, window_s};
use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output::{self, Format, Row};

/// Read stored samples.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List samples, newest slot first
    List {
        /// Id or name of the check; all checks without it
        #[arg(long)]
        check: Option<String>,
        /// Window before now, such as 1m or 24h, at most 365 days
        #[arg(long, default_value = "15m", value_parser = output::parse_duration)]
        #[arg(allow_hyphen_values = true, value_name = "TIME")]
        last: Duration,
        /// Most samples, 1 to 100,000
        #[arg(long, default_value_t = 10_000, value_parser = super::parse_limit, allow_negative_numbers = true)]
        limit: u32,
        /// Only this region; all regions without it
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
        /// Also show what the runs read besides, and the redirects, addresses or routers they were made of; JSON always has
        /// them
        #[arg(long)]
        detail: bool,
    },
    /// Show samples as they are stored, until interrupted; JSON is one object per line
    Watch {
        /// Id or name of the check; all checks without it
        #[arg(long)]
        check: Option<String>,
        /// End after this many samples; without it, when interrupted
        #[arg(long, allow_negative_numbers = true)]
        count: Option<u64>,
    },
}

/// A sample as the JSON promises it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    pub(crate) check_id: String,
    probe_id: String,
    pub(crate) region: String,
    slot_at: Option<String>,
    started_at: Option<String>,
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    dns_us: Option<u32>,
    connect_us: Option<u32>,
    tls_us: Option<u32>,
    send_us: Option<u32>,
    ttfb_us: Option<u32>,
    transfer_us: Option<u32>,
    pub(crate) total_us: u32,
    status_code: Option<u32>,
    bytes: Option<u64>,
    readings: BTreeMap<String, i64>,
    parts: Vec<detail::PartView>,
}

impl From<wire::SampleRow> for View {
    fn from(row: wire::SampleRow) -> Self {
        Self {
            check_id: row.check_id,
            probe_id: row.probe_id,
            region: row.region,
            slot_at: output::instant(row.slot_at_us),
            started_at: output::instant(row.started_at_us),
            outcome: row.outcome,
            error: (!row.error.is_empty()).then_some(row.error),
            dns_us: row.dns_us,
            connect_us: row.connect_us,
            tls_us: row.tls_us,
            send_us: row.send_us,
            ttfb_us: row.ttfb_us,
            transfer_us: row.transfer_us,
            total_us: row.total_us,
            status_code: row.status_code,
            bytes: row.bytes,
            readings: row.readings.into_iter().map(|reading| (reading.name, reading.value)).collect(),
            parts: row.parts.into_iter().map(detail::PartView::from).collect(),
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &[
        "slot", "region", "outcome", "dns", "connect", "tls", "send", "ttfb", "transfer", "total", "status", "bytes",
        "error", "check",
    ];

    fn cells(&self) -> Vec<String> {
        let phase = detail::phase;
        vec![
            output::or_dash(self.slot_at.as_ref()),
            self.region.clone(),
            self.outcome.clone(),
            phase(self.dns_us),
            phase(self.connect_us),
            phase(self.tls_us),
            phase(self.send_us),
            phase(self.ttfb_us),
            phase(self.transfer_us),
            output::latency(u64::from(self.total_us)),
            output::or_dash(self.status_code),
            output::or_dash(self.bytes),
            self.error.clone().unwrap_or_default(),
            self.check_id.clone(),
        ]
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        match self {
            Self::List { check, last, limit, region, detail } => {
                if limit == 0 {
                    return Err(CliError::invalid("--limit: must be between 1 and 100000"));
                }
                let request = wire::ListSamplesRequest {
                    check_id: named(client, check).await?,
                    last_s: window_s("--last", last)?,
                    limit,
                    region: super::region(region)?,
                };
                let rows = client.list_samples(request).await?.samples;
                let views: Vec<View> = rows.into_iter().map(View::from).collect();
                if detail && format == Format::Table {
                    output::list(format, &views.iter().flat_map(detail::lines).collect::<Vec<_>>())
                } else {
                    output::list(format, &views)
                }
            }
            Self::Watch { check, count } => {
                let request = wire::WatchSamplesRequest { check_id: named(client, check).await? };
                let mut rows = client.watch_samples(request).await?;
                let mut left = count.unwrap_or(u64::MAX);
                while left > 0
                    && let Some(row) = rows.next().await
                {
                    show(format, &View::from(row?))?;
                    left -= 1;
                }
                Ok(())
            }
        }
    }
}

async fn named(client: &Client, check: Option<String>) -> Result<String> {
    match check {
        Some(text) => check_id(client, &text).await,
        None => Ok(String::new()),
    }
}

fn show(format: Format, view: &View) -> Result<()> {
    match format {
        Format::Json => output::json_line(view),
        Format::Table => {
            let total = output::latency(u64::from(view.total_us));
            let slot = output::or_dash(view.slot_at.as_ref());
            let error = view.error.as_deref().unwrap_or_default();
            let line =
                format!("{slot}  {:<12} {:<9} {total:>11}  {}  {error}", view.region, view.outcome, view.check_id);
            output::write_line(output::plain(&line).trim_end())
        }
    }
}
