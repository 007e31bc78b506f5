//! Coverage over the admin API: identifies, parses, and maps the answer. What was expected and why something is missing is
//! decided in [`crate::ledger`]; never counts itself.

mod gather;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use sonde_proto::model::InvalidField;
use sonde_proto::model::id::{CheckId, RegionId};
use sonde_proto::model::time::Wall;
use sonde_proto::wire;
use sonde_proto::wire::coverage_server::{Coverage, CoverageServer};
use tonic::{Request, Response, Status};

use self::gather::{Answer, Failure, NARROWER, Question, gather};
use super::auth::Caller;
use super::{ANSWER_BYTES_MAX, Deps, REQUEST_BYTES_MAX, error, parse, samples};
use crate::authz::Scope;
use crate::clickhouse::read::Window;
use crate::ledger::{SETTLING, Tally};
use crate::store::StoreError;

/// Longest window: five years, of which one has 366 days.
const WINDOW_MAX: Duration = Duration::from_secs(157_788_000);
/// Shortest `last_s`: the last 30 s are not judged.
const LAST_S_MIN: u64 = SETTLING.as_secs() + 1;
/// Longest time that one answer takes, over all of its questions to both stores: there may be 40 of 15 s to ClickHouse alone.
/// Less than the 60 s that the command waits, so that it hears why.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(45);
/// Most rows of minutes in one answer. At about 60 bytes each: 600 KB.
const MINUTES_MAX: u32 = 10_000;

/// Names of checks by id, and whether each was deleted.
type Names = BTreeMap<CheckId, (String, bool)>;

/// The service `sonde.v1.Coverage`.
#[derive(Debug, Clone)]
pub struct CoverageService {
    deps: Deps,
}

impl CoverageService {
    /// The service with its limits on message sizes.
    pub fn server(deps: Deps) -> CoverageServer<Self> {
        CoverageServer::new(Self { deps })
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Coverage for CoverageService {
    async fn get_coverage(
        &self,
        request: Request<wire::GetCoverageRequest>,
    ) -> Result<Response<wire::GetCoverageResponse>, Status> {
        let caller = self.deps.auth.require(&request, Scope::SamplesRead)?;
        let question = question(request.get_ref(), self.deps.clock.wall()).map_err(error::invalid)?;
        samples::require_check(&self.deps, &caller, question.check).await?;
        samples::require_region(&self.deps, &caller, question.region.as_ref()).await?;
        let gathered = gather(&self.deps.store, &self.deps.clickhouse, &caller.workspace, &question);
        match within(ANSWER_TIME_MAX, gathered).await {
            Ok(answer) => {
                let names = self.names(&caller, &question, &answer).await?;
                Ok(Response::new(message(&question, &answer, &names)))
            }
            Err(Failure::Store(StoreError::Limit { noun, limit })) => {
                Err(Status::resource_exhausted(format!("the window has more than {limit} {noun}; {NARROWER}")))
            }
            Err(Failure::Store(failure)) => Err(error::read(&caller, failure)),
            Err(Failure::Samples(failure)) => Err(samples::refusal(&caller, &failure)),
            Err(Failure::Invalid(field)) => Err(error::invalid(begin_as_asked(request.get_ref(), field))),
            Err(Failure::TooMuch(detail)) => Err(Status::resource_exhausted(detail)),
            Err(Failure::TooLong(detail)) => {
                tracing::warn!(request.id = %caller.request_id, "coverage was given up: {detail}");
                Err(Status::deadline_exceeded(detail))
            }
        }
    }
}

impl CoverageService {
    /// Names of the checks that an answer lists, also of deleted ones.
    async fn names(&self, caller: &Caller, question: &Question, answer: &Answer) -> Result<Names, Status> {
        if question.check.is_some() {
            return Ok(Names::new());
        }
        let ids = answer.series.keys().map(|(check, _)| *check).collect();
        let names = self.deps.store.check_names(&caller.workspace, &ids).await;
        names.map_err(|failure| error::read(caller, failure))
    }
}

/// The answer, or that it took longer than `longest`.
async fn within(longest: Duration, gathered: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
    let late = |_elapsed| {
        let longest = longest.as_secs();
        Err(Failure::TooLong(format!("no answer within {longest} s: the window holds too much for that; {NARROWER}")))
    };
    tokio::time::timeout(longest, gathered).await.unwrap_or_else(late)
}

/// The refusal with the name of the field that said where the window begins.
fn begin_as_asked(request: &wire::GetCoverageRequest, invalid: InvalidField) -> InvalidField {
    if request.last_s > 0 && invalid.field == "from_us" {
        return InvalidField::new("last_s", invalid.reason);
    }
    invalid
}

fn question(request: &wire::GetCoverageRequest, now: Wall) -> Result<Question, InvalidField> {
    let check: Option<CheckId> =
        if request.check_id.is_empty() { None } else { Some(parse::id("check_id", &request.check_id)?) };
    if request.by_minute && check.is_none() {
        return Err(InvalidField::new("check_id", "is missing; minutes are listed for one check"));
    }
    let region = if request.region.is_empty() { None } else { Some(RegionId::new(&request.region)?) };
    let minutes = parse::limit(request.limit, MINUTES_MAX, MINUTES_MAX)?;
    let minutes = request.by_minute.then_some(minutes as usize);
    Ok(Question { check, region, window: window(request, now)?, now, minutes })
}

/// The window of a request, which ends at most 30 s before now.
fn window(request: &wire::GetCoverageRequest, now: Wall) -> Result<Window, InvalidField> {
    let settled = now - SETTLING;
    let longest = WINDOW_MAX.as_secs();
    if request.last_s > 0 {
        if request.from_us != 0 || request.until_us != 0 {
            return Err(InvalidField::new("last_s", "stands beside from_us or until_us; give one or the other"));
        }
        if !(LAST_S_MIN..=longest).contains(&request.last_s) {
            let reason = format!(
                "{} s is no window; use {LAST_S_MIN} s to {longest} s (five years): the last {} s are not judged yet",
                request.last_s,
                SETTLING.as_secs()
            );
            return Err(InvalidField::new("last_s", reason));
        }
        return Ok(Window { from: now - Duration::from_secs(request.last_s), until: settled });
    }
    if request.from_us == 0 {
        return Err(InvalidField::new(
            "last_s",
            format!("is missing; use {LAST_S_MIN} to {longest} seconds, or from_us"),
        ));
    }
    let from = Wall(request.from_us);
    let until = if request.until_us == 0 { settled } else { Wall(request.until_us).min(settled) };
    if from >= until {
        let reason = "does not lie before the end of the window, which is 30 s before now at the latest";
        return Err(InvalidField::new("from_us", reason));
    }
    if from < now - WINDOW_MAX {
        return Err(InvalidField::new("from_us", "lies more than five years back; nothing is kept for so long"));
    }
    Ok(Window { from, until })
}

fn message(question: &Question, answer: &Answer, names: &Names) -> wire::GetCoverageResponse {
    let mut total = Tally::default();
    let mut regions: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut checks: BTreeMap<CheckId, Tally> = BTreeMap::new();
    for ((check, region), tally) in &answer.series {
        total += tally;
        *regions.entry(region).or_default() += tally;
        *checks.entry(*check).or_default() += tally;
    }
    if question.check.is_some() {
        checks.clear();
    }
    wire::GetCoverageResponse {
        from_us: answer.window.from.0,
        until_us: answer.window.until.0,
        total: Some(counts(&total)),
        regions: regions
            .into_iter()
            .map(|(region, tally)| wire::RegionCoverage { region: region.to_owned(), counts: Some(counts(&tally)) })
            .collect(),
        checks: checks
            .into_iter()
            .map(|(check, tally)| {
                let (name, is_deleted) = names.get(&check).cloned().unwrap_or_default();
                wire::CheckCoverage { check_id: check.to_string(), counts: Some(counts(&tally)), name, is_deleted }
            })
            .collect(),
        minutes: answer
            .minutes
            .iter()
            .map(|(minute, region, tally)| wire::MinuteCoverage {
                minute_us: minute.0,
                region: region.to_string(),
                counts: Some(counts(tally)),
            })
            .collect(),
        minutes_next_us: answer.minutes_next.map_or(0, |next| next.0),
    }
}

fn counts(tally: &Tally) -> wire::CoverageCounts {
    wire::CoverageCounts {
        expected: tally.expected,
        stored: tally.stored,
        gaps: tally.gaps(),
        causes: tally
            .causes
            .iter()
            .map(|(cause, slots)| wire::CauseCount { cause: cause.name().to_owned(), slots: *slots })
            .collect(),
        paused: tally.paused,
        superseded: tally.superseded,
        unexpected: tally.unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000_000);

    fn last(last_s: u64) -> wire::GetCoverageRequest {
        wire::GetCoverageRequest { last_s, ..wire::GetCoverageRequest::default() }
    }

    #[test]
    fn a_window_ends_30_s_before_now() {
        let asked = question(&last(3_600), NOW).unwrap();
        assert_eq!(asked.window, Window { from: NOW - Duration::from_secs(3_600), until: NOW - SETTLING });
        let from_us = NOW.0 - 90_000_000;
        let late = wire::GetCoverageRequest { from_us, until_us: NOW.0, ..last(0) };
        assert_eq!(question(&late, NOW).unwrap().window.until, NOW - SETTLING);
        let early = wire::GetCoverageRequest { from_us, until_us: from_us + 1, ..last(0) };
        assert_eq!(question(&early, NOW).unwrap().window, Window { from: Wall(from_us), until: Wall(from_us + 1) });
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_long_is_given_up_with_advice() {
        let never = std::future::pending::<Result<Answer, Failure>>();
        let gathered = within(Duration::from_millis(1), never).await;
        let Err(Failure::TooLong(said)) = gathered else { panic!("{gathered:?}") };
        assert!(said.contains("no answer within") && said.contains("shorter window, a single check"), "{said}");
        let soon = async { Err(Failure::TooMuch("much".into())) };
        assert!(matches!(within(ANSWER_TIME_MAX, soon).await, Err(Failure::TooMuch(_))));
    }

    #[test]
    fn a_window_whose_samples_are_gone_is_named_as_it_was_asked_for() {
        let gone = || InvalidField::new("from_us", "is too old");
        assert_eq!(begin_as_asked(&last(60), gone()).field, "last_s");
        assert_eq!(begin_as_asked(&wire::GetCoverageRequest { from_us: 1, ..last(0) }, gone()).field, "from_us");
        assert_eq!(begin_as_asked(&last(60), InvalidField::new("region", "is unknown")).field, "region");
    }

    #[test]
    fn refusals_name_the_field() {
        let field = |request: wire::GetCoverageRequest| question(&request, NOW).unwrap_err().field;
        assert_eq!(field(last(0)), "last_s");
        assert_eq!(field(last(30)), "last_s");
        assert_eq!(field(last(157_788_001)), "last_s");
        assert_eq!(field(wire::GetCoverageRequest { from_us: 1, ..last(60) }), "last_s");
        assert_eq!(field(wire::GetCoverageRequest { from_us: NOW.0, ..last(0) }), "from_us");
        assert_eq!(field(wire::GetCoverageRequest { from_us: 1, ..last(0) }), "from_us");
        assert_eq!(field(wire::GetCoverageRequest { from_us: i64::MIN, until_us: i64::MAX, ..last(0) }), "from_us");
        assert_eq!(field(wire::GetCoverageRequest { by_minute: true, ..last(60) }), "check_id");
        assert_eq!(field(wire::GetCoverageRequest { check_id: "x".into(), ..last(60) }), "check_id");
        assert_eq!(field(wire::GetCoverageRequest { region: "EU'".into(), ..last(60) }), "region");
        assert_eq!(field(wire::GetCoverageRequest { limit: 10_001, ..last(60) }), "limit");
    }
}
