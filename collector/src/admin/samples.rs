//! Samples over the admin API: lists, percentiles, and a stream of what is confirmed. Never computes a number itself.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use sonde_proto::convert::sample_row;
use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::{Mono, Wall};
use sonde_proto::wire;
use sonde_proto::wire::samples_server::{Samples, SamplesServer};
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::{ANSWER_BYTES_MAX, Deps, REQUEST_BYTES_MAX, error, parse};
use crate::authz::Scope;
use crate::clickhouse::ClickHouseError;
use crate::clickhouse::details::ListedPart;
use crate::clickhouse::latency::{Latency, LatencyRow, RunCounts};
use crate::clickhouse::read::{LIST_ROWS_MAX, ListQuery, ListedSample, Window};
use crate::clickhouse::rollup::PERCENTILE_ERROR_MAX;
use crate::ingest::admit::SLOT_AHEAD_MAX;
use crate::live::{Subscription, WatchEnded, WatchRefused};
use crate::rollup::pieces::Source;

/// Longest window in seconds: a year of 365 days.
const LAST_S_MAX: u64 = 31_536_000;
/// Rows of a list when the caller names no limit.
const LIST_ROWS_DEFAULT: u32 = 10_000;
/// How often a watcher's key is verified again, so that a revoked key ends its streams.
const KEY_RECHECK: Duration = Duration::from_secs(1);

/// The service `sonde.v1.Samples`.
#[derive(Debug, Clone)]
pub struct SamplesService {
    deps: Deps,
}

impl SamplesService {
    /// The service with its limits on message sizes.
    pub fn server(deps: Deps) -> SamplesServer<Self> {
        SamplesServer::new(Self { deps })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// A check of another workspace is as absent as one that never was.
pub(super) async fn require_check(deps: &Deps, caller: &Caller, check: Option<CheckId>) -> Result<(), Status> {
    let Some(check) = check else { return Ok(()) };
    let known = deps.store.require_check(&caller.workspace, check).await;
    known.map_err(|failure| error::read(caller, failure))
}

/// An empty answer would hide that a region was mistyped.
pub(super) async fn require_region(deps: &Deps, caller: &Caller, region: Option<&RegionId>) -> Result<(), Status> {
    let Some(region) = region else { return Ok(()) };
    let known = deps.store.regions(&caller.workspace).await;
    let known = known.map_err(|failure| error::read(caller, failure))?;
    if known.iter().any(|row| row.name == *region) {
        return Ok(());
    }
    let reason = format!("`{region}` is not a region of this mesh; `sonde region list` shows them");
    Err(error::invalid(InvalidField::new("region", reason)))
}

#[tonic::async_trait]
impl Samples for SamplesService {
    async fn list_samples(
        &self,
        request: Request<wire::ListSamplesRequest>,
    ) -> Result<Response<wire::ListSamplesResponse>, Status> {
        let caller = self.deps.auth.require(&request, Scope::SamplesRead)?;
        let now = self.deps.clock.wall();
        let mut query = list_query(request.get_ref(), now).map_err(error::invalid)?;
        require_check(&self.deps, &caller, query.check).await?;
        require_region(&self.deps, &caller, query.region.as_ref()).await?;
        // The engine removes rows some time after their age is reached; nobody sees them meanwhile.
        let kept = self.deps.store.retention(&caller.workspace).await;
        let kept = kept.map_err(|failure| error::read(&caller, failure))?;
        query.window.from = query.window.from.max(kept.begin(Source::Raw, now));
        let listed = self.deps.clickhouse.list_samples(&caller.workspace, &query).await;
        let listed = listed.map_err(|failure| refusal(&caller, &failure))?;
        Ok(Response::new(wire::ListSamplesResponse { samples: listed.into_iter().map(message).collect() }))
    }

    type WatchSamplesStream = Pin<Box<dyn Stream<Item = Result<wire::SampleRow, Status>> + Send>>;

    async fn watch_samples(
        &self,
        request: Request<wire::WatchSamplesRequest>,
    ) -> Result<Response<Self::WatchSamplesStream>, Status> {
        let caller = self.deps.auth.require(&request, Scope::SamplesRead)?;
        let check = optional_check(&request.get_ref().check_id).map_err(error::invalid)?;
        require_check(&self.deps, &caller, check).await?;
        let subscription = self.deps.live.subscribe(caller.workspace.id(), check).map_err(|refused| match refused {
            WatchRefused::Full => Status::resource_exhausted(refused.to_string()),
            WatchRefused::Closed => Status::unavailable(refused.to_string()),
        })?;
        // The credentials live as long as the stream, to be verified again and again.
        let (metadata, extensions, _) = request.into_parts();
        let credentials = Request::from_parts(metadata, extensions, ());
        let checked_at = self.deps.clock.now();
        let watch = Watch { deps: self.deps.clone(), credentials, checked_at, subscription };
        let stream = futures::stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(row) => Some((Ok(row), Some(watch))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_latency(
        &self,
        request: Request<wire::GetLatencyRequest>,
    ) -> Result<Response<wire::GetLatencyResponse>, Status> {
        let caller = self.deps.auth.require(&request, Scope::SamplesRead)?;
        // One instant for window and age: a window as long as samples are kept must not begin before them.
        let now = self.deps.clock.wall();
        let (check, window) = latency_query(request.get_ref(), now).map_err(error::invalid)?;
        require_check(&self.deps, &caller, Some(check)).await?;
        let kept = self.deps.store.retention(&caller.workspace).await;
        let kept = kept.map_err(|failure| error::read(&caller, failure))?;
        let found = self.deps.clickhouse.latency(&caller.workspace, check, window, &kept, now).await;
        let found = found.map_err(|failure| refusal(&caller, &failure))?;
        Ok(Response::new(latency_answer(found)))
    }
}

/// One open stream.
struct Watch {
    deps: Deps,
    credentials: Request<()>,
    /// When the credentials were last found good.
    checked_at: Mono,
    subscription: Subscription,
}

impl Watch {
    async fn next(&mut self) -> Result<wire::SampleRow, Status> {
        loop {
            let now = self.deps.clock.now();
            if now.since(self.checked_at) >= KEY_RECHECK {
                self.deps.auth.require(&self.credentials, Scope::SamplesRead)?;
                self.checked_at = now;
            }
            match tokio::time::timeout(KEY_RECHECK, self.subscription.next()).await {
                Ok(Ok(sample)) => return Ok(sample_row(&sample.stored, &sample.region)),
                Ok(Err(ended @ WatchEnded::Lagged)) => return Err(Status::resource_exhausted(ended.to_string())),
                Ok(Err(ended @ WatchEnded::Closed)) => return Err(Status::unavailable(ended.to_string())),
                Err(_elapsed) => {}
            }
        }
    }
}

fn list_query(request: &wire::ListSamplesRequest, now: Wall) -> Result<ListQuery, InvalidField> {
    Ok(ListQuery {
        check: optional_check(&request.check_id)?,
        region: optional_region(&request.region)?,
        window: window(request.last_s, now)?,
        limit: parse::limit(request.limit, LIST_ROWS_DEFAULT, LIST_ROWS_MAX)?,
    })
}

fn latency_query(request: &wire::GetLatencyRequest, now: Wall) -> Result<(CheckId, Window), InvalidField> {
    Ok((parse::id("check_id", &request.check_id)?, window(request.last_s, now)?))
}

fn optional_check(text: &str) -> Result<Option<CheckId>, InvalidField> {
    if text.is_empty() { Ok(None) } else { parse::id("check_id", text).map(Some) }
}

fn optional_region(text: &str) -> Result<Option<RegionId>, InvalidField> {
    if text.is_empty() { Ok(None) } else { RegionId::new(text).map(Some) }
}

/// The last seconds before now, and whatever probes with fast clocks have put ahead of it.
fn window(last_s: u64, now: Wall) -> Result<Window, InvalidField> {
    if !(1..=LAST_S_MAX).contains(&last_s) {
        let reason = format!("{last_s} s is no window; use 1 s to {LAST_S_MAX} s (365 days)");
        return Err(InvalidField::new("last_s", reason));
    }
    Ok(Window { from: now - Duration::from_secs(last_s), until: now + SLOT_AHEAD_MAX })
}

/// The answer to a caller whose question the sample store did not answer.
pub(super) fn refusal(caller: &Caller, failure: &ClickHouseError) -> Status {
    match failure {
        ClickHouseError::Unavailable { .. } => {
            tracing::warn!(request.id = %caller.request_id, error = %failure, "the sample store is away");
            Status::unavailable(
                "the sample store (ClickHouse) cannot be reached; nothing is lost, try again in a few seconds",
            )
        }
        ClickHouseError::TooBig { .. } => {
            tracing::warn!(request.id = %caller.request_id, error = %failure, "a question was too big");
            Status::resource_exhausted(
                "the question is too big for the sample store; ask for a shorter window or a single check",
            )
        }
        ClickHouseError::Refused { .. }
        | ClickHouseError::Protocol(_)
        | ClickHouseError::Config(_)
        | ClickHouseError::MigrationChanged { .. } => {
            tracing::error!(request.id = %caller.request_id, error = %failure, "a request failed inside the sample store");
            Status::internal(format!(
                "the sample store (ClickHouse) refused the question; the operator finds the cause in the collector's \
                 log under request {}",
                caller.request_id
            ))
        }
    }
}

fn message(listed: ListedSample) -> wire::SampleRow {
    wire::SampleRow {
        check_id: listed.check.to_string(),
        probe_id: listed.probe.to_string(),
        region: listed.region,
        slot_at_us: listed.slot_at.0,
        started_at_us: listed.started_at.0,
        outcome: listed.outcome,
        error: listed.error,
        dns_us: listed.phases.dns_us,
        connect_us: listed.phases.connect_us,
        tls_us: listed.phases.tls_us,
        send_us: listed.phases.send_us,
        ttfb_us: listed.phases.ttfb_us,
        transfer_us: listed.phases.transfer_us,
        total_us: listed.total_us,
        status_code: listed.status_code.map(u32::from),
        bytes: listed.bytes,
        readings: listed
            .detail
            .readings()
            .iter()
            .map(|(name, value)| wire::SampleReading { name: name.clone(), value: *value })
            .collect(),
        parts: listed.detail.parts().map(part_message).collect(),
    }
}

fn part_message(part: ListedPart) -> wire::SamplePart {
    wire::SamplePart {
        kind: part.kind,
        number: part.number.into(),
        addr: part.addr.map(|addr| addr.to_string()).unwrap_or_default(),
        error: part.error,
        status_code: part.status_code.map(u32::from),
        dns_us: part.phases.dns_us,
        connect_us: part.phases.connect_us,
        tls_us: part.phases.tls_us,
        send_us: part.phases.send_us,
        ttfb_us: part.phases.ttfb_us,
        transfer_us: part.phases.transfer_us,
        total_us: part.total_us,
        sent: part.sent.into(),
        received: part.received.into(),
    }
}

fn latency_answer(found: Latency) -> wire::GetLatencyResponse {
    let counts = found.counts.into_iter().map(|(region, counts)| {
        let RunCounts { runs, slots, ok, degraded, failed } = counts;
        wire::RunCounts { region, runs, slots, ok, degraded, failed }
    });
    wire::GetLatencyResponse {
        rows: found.rows.into_iter().map(latency_message).collect(),
        percentiles_exact: found.is_exact,
        percentile_error: if found.is_exact { 0.0 } else { PERCENTILE_ERROR_MAX },
        counts: counts.collect(),
    }
}

fn latency_message(row: LatencyRow) -> wire::LatencyRow {
    wire::LatencyRow {
        region: row.region,
        phase: row.phase.to_owned(),
        p50_us: row.p50_us,
        p90_us: row.p90_us,
        p99_us: row.p99_us,
        max_us: row.max_us,
        count: row.count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000_000);

    fn request(last_s: u64) -> wire::ListSamplesRequest {
        wire::ListSamplesRequest { last_s, ..wire::ListSamplesRequest::default() }
    }

    #[test]
    fn a_list_has_defaults_for_everything_but_the_window() {
        let query = list_query(&request(60), NOW).unwrap();
        assert_eq!((query.check, query.region, query.limit), (None, None, 10_000));
        assert_eq!(query.window.from, NOW - Duration::from_secs(60));
        assert!(query.window.until > NOW);
    }

    #[test]
    fn refusals_name_the_field() {
        let field = |request: wire::ListSamplesRequest| list_query(&request, NOW).unwrap_err().field;
        assert_eq!(field(request(0)), "last_s");
        assert_eq!(field(request(LAST_S_MAX + 1)), "last_s");
        assert_eq!(field(wire::ListSamplesRequest { limit: 100_001, ..request(1) }), "limit");
        assert_eq!(field(wire::ListSamplesRequest { check_id: "x".into(), ..request(1) }), "check_id");
        assert_eq!(field(wire::ListSamplesRequest { region: "EU'; --".into(), ..request(1) }), "region");
        let missing = wire::GetLatencyRequest { check_id: String::new(), last_s: 1 };
        assert_eq!(latency_query(&missing, NOW).unwrap_err().field, "check_id");
    }
}
