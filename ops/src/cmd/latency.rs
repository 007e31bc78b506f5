//! `sonde latency`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sonde_proto::wire;

use super::{check_id, window_s};
use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Format, Row};

/// Show percentiles of a check per region and phase, over all of its runs: those that failed, too.
///
/// A percentile is the measured value at position floor(p * (count - 1)), counted from 0, of all values in order.
#[derive(Debug, Args)]
pub struct Latency {
    /// Id or name of the check
    #[arg(long)]
    check: String,
    /// Window before now, such as 15m or 24h, at most 365 days
    #[arg(long, default_value = "15m", value_parser = output::parse_duration)]
    #[arg(allow_hyphen_values = true, value_name = "TIME")]
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
    /// Whether the percentiles are exact; else each is within 1 % of the measured value at its rank.
    exact: bool,
    /// Runs of the region, and how they ended.
    #[serde(flatten)]
    ended: Ended,
}

/// How the runs of a region ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Ended {
    runs: u64,
    ok: u64,
    degraded: u64,
    failed: u64,
}

impl Ended {
    /// One sentence for people.
    fn sentence(self, region: &str) -> String {
        let Self { runs, ok, degraded, failed } = self;
        let noun = if runs == 1 { "run" } else { "runs" };
        let warning = if runs > 0 && failed == runs { "; these are the latencies of failures" } else { "" };
        format!("{region}: {runs} {noun}, {ok} ok, {degraded} degraded, {failed} failed{warning}")
    }
}

impl View {
    fn new(row: wire::LatencyRow, exact: bool, ended: &BTreeMap<String, Ended>) -> Self {
        Self {
            exact,
            ended: ended.get(&row.region).copied().unwrap_or_default(),
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
        let ended: BTreeMap<String, Ended> = found.counts.into_iter().map(ended).collect();
        let rows: Vec<View> = found.rows.into_iter().map(|row| View::new(row, exact, &ended)).collect();
        if format == Format::Table && ended.is_empty() {
            let check = output::plain(&self.check);
            return output::write_line(&format!(
                "no samples in this window; `sonde coverage --check {check}` says why"
            ));
        }
        output::list(format, &rows)?;
        if format == Format::Table {
            let sentences: Vec<String> = ended.iter().map(|(region, ended)| ended.sentence(region)).collect();
            return output::write_line(&format!("\n{}", sentences.join("\n")));
        }
        Ok(())
    }
}

fn ended(counts: wire::RunCounts) -> (String, Ended) {
    let wire::RunCounts { region, runs, ok, degraded, failed, .. } = counts;
    (region, Ended { runs, ok, degraded, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_from_answers() {
        let some = Ended { runs: 3, ok: 1, degraded: 1, failed: 1 };
        assert_eq!(some.sentence("eu-west"), "eu-west: 3 runs, 1 ok, 1 degraded, 1 failed");
        let none = Ended { runs: 1, failed: 1, ..Ended::default() };
        assert!(none.sentence("x").ends_with("1 run, 0 ok, 0 degraded, 1 failed; these are the latencies of failures"));
    }
}
