//! `sonde latency`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sonde_proto::wire;

use super::{check_id, window_s};
use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Format, Row};

/// Show percentiles of a check per region and phase.
#[derive(Debug, Args)]
pub struct Latency {
    /// Id or name of the check
    #[arg(long)]
    check: String,
    /// Window before now, such as 15m or 24h, at most 365 days
    #[arg(long, default_value = "15m", value_parser = output::parse_duration, value_name = "TIME")]
    last: Duration,
}

#[derive(Debug, Serialize)]
struct View {
    region: String,
    phase: String,
    p50_us: u32,
    p90_us: u32,
    p99_us: u32,
    max_us: u32,
    count: u64,
    /// Whether the percentiles are exact; else each is within 1 % of a measured value.
    exact: bool,
}

impl View {
    fn new(row: wire::LatencyRow, exact: bool) -> Self {
        Self {
            exact,
            region: row.region,
            phase: row.phase,
            p50_us: row.p50_us,
            p90_us: row.p90_us,
            p99_us: row.p99_us,
            max_us: row.max_us,
            count: row.count,
        }
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] = &["region", "phase", "p50", "p90", "p99", "max", "count", "percentiles"];

    fn cells(&self) -> Vec<String> {
        let latency = |us: u32| output::latency(u64::from(us));
        vec![
            self.region.clone(),
            self.phase.clone(),
            latency(self.p50_us),
            latency(self.p90_us),
            latency(self.p99_us),
            latency(self.max_us),
            self.count.to_string(),
            if self.exact { "exact" } else { "within 1%" }.to_owned(),
        ]
    }
}

impl Latency {
    /// Runs the command.
    ///
    /// # Errors
    /// What the collector answered.
    pub async fn run(self, client: &Client, format: Format) -> Result<()> {
        let request = wire::GetLatencyRequest {
            check_id: check_id(client, &self.check).await?,
            last_s: window_s("--last", self.last)?,
        };
        let found = client.get_latency(request).await?;
        let exact = found.percentiles_exact;
        output::list(format, &found.rows.into_iter().map(|row| View::new(row, exact)).collect::<Vec<_>>())
    }
}
