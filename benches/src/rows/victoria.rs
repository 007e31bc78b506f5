//! VictoriaMetrics as a peer: a process of its own, fed through remote write, with its default settings.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sonde_probe::clock::Clock;
use tempfile::TempDir;

use super::Load;
use super::quiet::{settle, used};
use crate::child::{Child, part, tied, until, victoria_metrics};
use crate::http1::Connection;
use crate::part::{RemoteWrite, SERIES, Side, Written};

const START_MAX: Duration = Duration::from_secs(30);
const WRITE_MAX: Duration = Duration::from_secs(330);
/// Time for a merge of everything.
const MERGE_MAX: Duration = Duration::from_secs(60);

/// A running server; it ends and its data goes when this is dropped.
pub(super) struct Victoria {
    child: Child,
    address: String,
    results: u64,
    dir: TempDir,
}

/// What a load cost it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Until the last request was answered.
    pub(super) taken: Duration,
    /// Until it was quiet again; includes `taken`.
    pub(super) settled: Duration,
    /// From the first request until the last one was begun, without those before the time was taken.
    pub(super) offered: Duration,
    /// The same until the last answer.
    pub(super) elapsed: Duration,
}

impl Victoria {
    pub(super) async fn start(clock: Clock) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sonde-bench-vm-").tempdir().context("no temporary folder")?;
        // It does not say which port it was given, so a free one is looked for; it is bound anew within milliseconds.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
        let mut command = tied(victoria_metrics()?.as_os_str(), None)?;
        command.arg(format!("-storageDataPath={}", dir.path().join("data").display()));
        command.arg(format!("-httpListenAddr={address}")).arg("-retentionPeriod=10y");
        let mut child = Child::start("victoria-metrics", command, dir.path())?;
        until(clock, START_MAX, "VictoriaMetrics listens", async || {
            child.demand_alive()?;
            Ok(Connection::open(&address).await.ok().map(drop))
        })
        .await?;
        Ok(Self { child, address, results: 0, dir })
    }

    /// Writes what the streams of ours have carried: the same samples of the same seeds and day, `rows` of each stream, of
    /// which the first `warm_rows` come before the time is taken.
    pub(super) async fn write(
        &mut self,
        load: &Load,
        day: i64,
        seed: u64,
        [rows, warm_rows]: [usize; 2],
        clock: Clock,
    ) -> anyhow::Result<Cost> {
        let (plan_file, out) = (self.dir.path().join("write.json"), self.dir.path().join("written.json"));
        let sides = (seed..).zip(load.regions);
        let plan = RemoteWrite {
            address: self.address.clone(),
            checks: load.checks.iter().map(ToString::to_string).collect(),
            day,
            sides: sides.map(|(seed, region)| Side { region: (*region).to_owned(), seed, rows }).collect(),
            warm_rows,
        };
        fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
        let pids = [self.child.pid()];
        settle(&pids, clock).await?;
        let before = used(&pids)?;
        let mut command = part("remote-write")?;
        command.arg("--plan").arg(&plan_file).arg("--out").arg(&out);
        let child = Child::start("remote-write", command, self.dir.path())?;
        child.ended(clock, WRITE_MAX).await?;
        let taken = used(&pids)?.saturating_sub(before);
        child.reap()?;
        settle(&pids, clock).await?;
        let settled = used(&pids)?.saturating_sub(before);
        let written: Written = serde_json::from_slice(&fs::read(&out)?).context("the writer left no outcome")?;
        self.results += written.results;
        self.confirm().await?;
        let [offered, elapsed] = [written.offered_us, written.elapsed_us].map(Duration::from_micros);
        Ok(Cost { taken, settled, offered, elapsed })
    }

    /// Makes sure that it has taken every point.
    async fn confirm(&self) -> anyhow::Result<()> {
        let answer = self.get("/metrics").await?;
        let name = "vm_rows_inserted_total{type=\"promremotewrite\"} ";
        let rows = answer.lines().find_map(|line| line.strip_prefix(name)).and_then(|n| n.trim().parse::<u64>().ok());
        anyhow::ensure!(
            rows == Some(self.results * SERIES),
            "VictoriaMetrics counts {rows:?} points of {} results",
            self.results
        );
        Ok(())
    }

    /// Bytes per result on disk after a merge of everything, the index of its series included.
    pub(super) async fn bytes_per_result(&self, clock: Clock) -> anyhow::Result<f64> {
        self.get("/internal/force_flush").await?;
        let merged = tokio::time::timeout(MERGE_MAX, self.get("/internal/force_merge")).await;
        merged.context("VictoriaMetrics did not begin to merge")??;
        settle(&[self.child.pid()], clock).await?;
        let bytes = size(&self.dir.path().join("data"))?;
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
        Ok(bytes as f64 / self.results as f64)
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = Connection::open(&self.address).await?.request("GET", path, &["connection: close"], b"").await?;
        anyhow::ensure!(answer.status < 300, "VictoriaMetrics answers {} to {path}", answer.status);
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

/// Bytes of all files below a folder. Those that a merge has just removed count nothing.
fn size(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry?;
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => bytes += data.len(),
                Err(_) => {}
            }
        }
    }
    anyhow::ensure!(bytes > 0, "{} holds nothing", folder.display());
    Ok(bytes)
}
