//! The peer of the whole way: the same results to VictoriaMetrics through Prometheus' remote write, seven series each.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use prost::Message;
use serde::{Deserialize, Serialize};
use sonde_probe::clock::Clock;
use sonde_proto::model::id::CheckId;
use sonde_proto::model::sample::Sample;
use sonde_proto::model::time::Mono;
use tokio::task::JoinSet;

use super::insert::Side;
use super::write_whole;
use crate::http1::Connection;
use crate::workload::Workload;

/// Series of one result: six phases and the total.
pub(crate) const SERIES: u64 = 7;
/// Results of one request: 9,996 points; vmagent sends 10,000 at most.
const RESULTS_PER_REQUEST: usize = 1_428;
/// How long all requests may take.
const SEND_MAX: Duration = Duration::from_secs(300);
const HEADERS: [&str; 3] =
    ["content-type: application/x-protobuf", "content-encoding: snappy", "x-prometheus-remote-write-version: 0.1.0"];
const PHASES: [&str; 7] = ["dns", "connect", "tls", "send", "ttfb", "transfer", "total"];

/// Bodies of requests, in their order.
type Requests = Vec<Vec<u8>>;

/// What to send.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoteWrite {
    /// `address:port` of the server.
    pub(crate) address: String,
    /// Checks of the workload.
    pub(crate) checks: Vec<String>,
    /// UTC day of the slots.
    pub(crate) day: i64,
    /// One part, on a connection of its own, for each stream that ours had.
    pub(crate) sides: Vec<Side>,
    /// Results of each part that are sent before the time is taken.
    pub(crate) warm_rows: usize,
}

/// What the requests came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Results that were taken, those before the time was taken among them.
    pub(crate) results: u64,
    /// Time from the first request until the last one was begun, in microseconds.
    pub(crate) offered_us: u64,
    /// Time from the first request to the last answer, in microseconds.
    pub(crate) elapsed_us: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Point>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Point {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// Makes every request first, then sends them; only the sending is timed.
pub(super) fn run(plan: &Path, out: &Path) -> anyhow::Result<()> {
    let plan: RemoteWrite = serde_json::from_slice(&fs::read(plan)?)?;
    let checks: Vec<CheckId> = plan.checks.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let cut = |from, until| {
        let sides = plan.sides.iter().map(|side| requests(&checks, plan.day, side, from..side.rows.min(until)));
        sides.collect::<anyhow::Result<Vec<Requests>>>()
    };
    let (warm, measured) = (cut(0, plan.warm_rows)?, cut(plan.warm_rows, usize::MAX)?);
    let results = plan.sides.iter().map(|side| side.rows as u64).sum();
    let clock = Clock::system();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (offered, elapsed) = runtime.block_on(async {
        send_all(&plan.address, warm, clock).await?;
        let begin = clock.now();
        let offered_at = send_all(&plan.address, measured, clock).await?;
        anyhow::Ok((offered_at.since(begin), clock.now().since(begin)))
    })?;
    let (offered_us, elapsed_us) = (u64::try_from(offered.as_micros())?, u64::try_from(elapsed.as_micros())?);
    write_whole(out, &Written { results, offered_us, elapsed_us })
}

/// Sends every part on a connection of its own, all at once; returns when the last request was begun.
async fn send_all(address: &str, parts: Vec<Requests>, clock: Clock) -> anyhow::Result<Mono> {
    let mut senders = JoinSet::new();
    for requests in parts {
        senders.spawn(send(address.to_owned(), requests, clock));
    }
    let all = async {
        let mut offered_at = clock.now();
        while let Some(sender) = senders.join_next().await {
            offered_at = offered_at.max(sender??);
        }
        anyhow::Ok(offered_at)
    };
    tokio::time::timeout(SEND_MAX, all).await.context("the server took too long")?
}

/// Returns when the last request was begun.
async fn send(address: String, requests: Requests, clock: Clock) -> anyhow::Result<Mono> {
    let mut connection = Connection::open(&address).await?;
    let mut begun_at = clock.now();
    for request in requests {
        begun_at = clock.now();
        let answer = connection.request("POST", "/api/v1/write", &HEADERS, &request).await?;
        let said = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(answer.status == 204, "the server answered {}: {said}", answer.status);
    }
    Ok(begun_at)
}

/// The requests of some of the rows of one side: protobuf, then Snappy.
fn requests(checks: &[CheckId], day: i64, side: &Side, rows: Range<usize>) -> anyhow::Result<Requests> {
    let samples: Vec<Sample> = Workload::new(checks, day, side.seed).take(rows.end).skip(rows.start).collect();
    let mut snappy = snap::raw::Encoder::new();
    let pack = |samples: &[Sample]| {
        let timeseries = samples.iter().flat_map(|sample| series(sample, &side.region)).collect();
        Ok(snappy.compress_vec(&WriteRequest { timeseries }.encode_to_vec())?)
    };
    samples.chunks(RESULTS_PER_REQUEST).map(pack).collect()
}

fn series<'a>(sample: &'a Sample, region: &'a str) -> impl Iterator<Item = TimeSeries> + 'a {
    let values = sample.phases.in_order().into_iter().flatten().chain([sample.total_us]);
    PHASES.into_iter().zip(values).map(move |(phase, micros)| {
        let label = |name: &str, value: String| Label { name: name.to_owned(), value };
        TimeSeries {
            labels: vec![
                label("__name__", "sonde_phase_us".to_owned()),
                label("check", sample.check.to_string()),
                label("phase", phase.to_owned()),
                label("region", region.to_owned()),
            ],
            // As a scraper stamps it: when the run began, in milliseconds.
            samples: vec![Point { value: f64::from(micros), timestamp_ms: sample.started_at.0 / 1_000 }],
        }
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_result_becomes_seven_points_with_its_own_values() {
        let checks = [CheckId(Uuid::from_u128(1))];
        let side = Side { region: "eu".to_owned(), seed: 5, rows: 3_000 };
        let packed = requests(&checks, 20_000, &side, 0..3_000).unwrap();
        assert_eq!((packed.len(), requests(&checks, 20_000, &side, 1_500..3_000).unwrap().len()), (3, 2));
        let mut points = 0;
        for request in packed {
            let bytes = snap::raw::Decoder::new().decompress_vec(&request).unwrap();
            points += WriteRequest::decode(&bytes[..]).unwrap().timeseries.len();
        }
        assert_eq!(points as u64, 3_000 * SERIES);
        let sample = Workload::new(&checks, 20_000, 5).next().unwrap();
        let series: Vec<TimeSeries> = series(&sample, "eu").collect();
        let sum: f64 = series[..6].iter().map(|series| series.samples[0].value).sum();
        assert!(series[6].samples[0].value >= sum && series.len() as u64 == SERIES, "{series:?}");
    }
}
