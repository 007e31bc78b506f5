//! What a run is told on its command line. Never acts on it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Most probes of the laboratory: its network has room for 200.
const PROBES_MAX: usize = 64;
/// Most samples per second: one check gives one per second and region, and a workspace has 10,000 checks.
const RATE_MAX: usize = 10_000;

/// What may happen to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Killed with -9 and started again
    Kill,
    /// Stopped with SIGSTOP and continued
    Freeze,
    /// A link swallows packets both ways
    Drop,
    /// A link swallows packets one way
    OneWay,
    /// A link answers every packet with a reset
    Reject,
}

/// Kind of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A collector
    Collector,
    /// A probe
    Probe,
    /// The ClickHouse engine
    Engine,
    /// Postgres
    Postgres,
}

/// Size of the laboratory, its load and its faults.
#[derive(Debug, Clone, Args, Serialize, Deserialize, PartialEq, Eq)]
pub struct Options {
    /// Seed of the faults; drawn and printed when it is not given
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How long faults happen in one range, such as 45s or 8m
    #[arg(long = "for", value_name = "LENGTH", default_value = "60s", value_parser = parse_length)]
    pub length: Duration,
    /// Kills with -9 in one range
    #[arg(long, value_name = "NUMBER", default_value_t = 12)]
    pub kills: usize,
    /// Freezes and cut links in one range
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    pub disturbances: usize,
    /// First range; each range is a laboratory of its own, with faults of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub from: u64,
    /// First range that is not run any more
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub to: u64,
    /// Samples per second
    #[arg(long, value_name = "NUMBER", default_value_t = 400)]
    pub rate: usize,
    /// Kinds of faults
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "kill,freeze,drop,one-way,reject")]
    pub faults: Vec<FaultKind>,
    /// Kinds of parts that faults happen to
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_value = "collector,probe,engine,postgres")]
    pub parts: Vec<Role>,
    /// Collectors
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub collectors: usize,
    /// Regions
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub regions: usize,
    /// Probes of each region
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub probes: usize,
    /// Stop Postgres for this long in one range of the run
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    pub postgres_stop: Option<Duration>,
    /// Number of the range in which that happens, from 0
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub postgres_stop_range: u64,
    /// Delete samples of one check behind everybody's back before counting: the range must fail
    #[arg(long, hide = true)]
    pub sabotage: bool,
    /// Commit that the log names
    #[arg(long, value_name = "TEXT", default_value = "unknown")]
    pub commit: String,
    /// File that keeps what is done; a run that finds it goes on where the last one ended
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Markdown file that gets a line per range
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// JSON file for the results
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Folder that gets the logs of a range that failed
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

impl Options {
    /// Demands that the numbers fit together.
    ///
    /// # Errors
    /// One sentence that names the option.
    pub fn demand_sense(&self) -> anyhow::Result<()> {
        anyhow::ensure!((1..=4).contains(&self.collectors), "--collectors: {} is not 1 to 4", self.collectors);
        anyhow::ensure!((1..=8).contains(&self.regions), "--regions: {} is not 1 to 8", self.regions);
        let probes = self.probes * self.regions;
        anyhow::ensure!(
            self.probes >= 1 && probes <= PROBES_MAX,
            "--probes: {probes} probes in all are not 1 to {PROBES_MAX}"
        );
        anyhow::ensure!(
            self.rate >= self.regions && self.rate <= RATE_MAX,
            "--rate: {} is not {} to {RATE_MAX}",
            self.rate,
            self.regions
        );
        anyhow::ensure!(!self.faults.is_empty() && !self.parts.is_empty(), "--faults and --parts: name at least one");
        anyhow::ensure!(self.from < self.to, "--to: {} is not above --from, {}", self.to, self.from);
        anyhow::ensure!(self.length >= Duration::from_secs(5), "--for: faults need at least 5s");
        anyhow::ensure!(
            self.kills == 0 || self.faults.contains(&FaultKind::Kill),
            "--kills: {} kills are wanted, but --faults has no `kill`; use --kills 0",
            self.kills
        );
        Ok(())
    }

    /// Checks of the load: each runs once a second in every region.
    pub fn checks(&self) -> usize {
        self.rate.div_ceil(self.regions)
    }

    /// Length of the Postgres stop in range `range`.
    pub fn postgres_stop_of(&self, range: u64) -> Option<Duration> {
        self.postgres_stop.filter(|_| range == self.postgres_stop_range)
    }
}

/// Reads `90s`, `15m` or `2h`.
fn parse_length(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
        count.checked_mul(seconds)
    });
    seconds
        .filter(|seconds| (1..=86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is not a length such as `90s`, `15m` or `2h`, up to 24h"))
}
