//! What ClickHouse fails to do for the pipeline: said once when it begins and once when it ends, and counted by question and
//! code. Never decides what follows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sonde_proto::model::time::Mono;
use tracing::{info, warn};

use crate::clickhouse::ClickHouseError;

/// The name under which a server that does not answer anything is remembered.
const AWAY: &str = "everything";

/// What fails at present. At most one entry per question, and one for all of them.
#[derive(Debug, Default)]
pub(super) struct Outages {
    open: Mutex<BTreeMap<&'static str, Outage>>,
}

#[derive(Debug)]
struct Outage {
    since: Mono,
    failures: u64,
}

impl Outages {
    /// A question failed. Returns whether that was news, which it has logged then.
    pub(super) fn failed(&self, question: &'static str, error: &ClickHouseError, now: Mono) -> bool {
        let code = code_of(error);
        metrics::counter!("sonde_collector_clickhouse_failures_total", "question" => question, "code" => code)
            .increment(1);
        // A server that is away is away for every question; one that refuses may answer others.
        let key = if error.is_retryable() { AWAY } else { question };
        let is_news = {
            // Nothing under the lock panics half-way.
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let outage = open.entry(key).or_insert(Outage { since: now, failures: 0 });
            outage.failures += 1;
            outage.failures == 1
        };
        if is_news && error.is_retryable() {
            warn!(question, %error, "ClickHouse does not answer; samples wait until it does");
        } else if is_news {
            warn!(question, %error, "ClickHouse refused; samples wait until it does not: look at its disk and at the grants of its user");
        }
        is_news
    }

    /// A question was answered. Returns whether that ended anything, which it has logged then.
    pub(super) fn answered(&self, question: &'static str, now: Mono) -> bool {
        let ended: Vec<(&str, Outage)> = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            [AWAY, question].into_iter().filter_map(|key| open.remove_entry(key)).collect()
        };
        for (what, outage) in &ended {
            let (seconds, failures) = (now.since(outage.since).as_secs(), outage.failures);
            info!(question = what, seconds, failures, "ClickHouse does again what it is asked");
        }
        !ended.is_empty()
    }
}

/// The word for an error in metrics: the server's own number when it gave one that means a refusal.
fn code_of(error: &ClickHouseError) -> String {
    match error {
        ClickHouseError::Unavailable { .. } => "away".to_owned(),
        ClickHouseError::TooBig { .. } => "too_big".to_owned(),
        ClickHouseError::Refused { code, .. } => code.to_string(),
        ClickHouseError::Protocol(_) => "protocol".to_owned(),
        ClickHouseError::Config(_) | ClickHouseError::MigrationChanged { .. } => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(5_000_000);

    #[test]
    fn an_outage_is_said_once_whatever_is_asked_meanwhile() {
        let outages = Outages::default();
        let away = ClickHouseError::Unavailable { url: "http://127.0.0.1:1".to_owned(), detail: "refused".to_owned() };
        let said: Vec<bool> =
            ["mark", "mark", "running", "stored", "kill"].map(|question| outages.failed(question, &away, NOW)).into();
        assert_eq!(said, [true, false, false, false, false]);
        assert!(outages.answered("stored", NOW) && !outages.answered("mark", NOW));
        assert!(outages.failed("mark", &away, NOW), "the next one is news again");
    }

    #[test]
    fn a_refusal_is_said_for_each_question_and_ends_with_its_own_answer() {
        let outages = Outages::default();
        let refused = |code| ClickHouseError::Refused { code, detail: "no".to_owned() };
        assert!(outages.failed("mark", &refused(243), NOW) && !outages.failed("mark", &refused(243), NOW));
        assert!(outages.failed("running", &refused(497), NOW));
        assert!(!outages.answered("stored", NOW), "another question says nothing about it");
        assert!(!outages.failed("mark", &refused(243), NOW));
        assert!(outages.answered("mark", NOW) && outages.answered("running", NOW));
        assert_eq!(code_of(&refused(243)), "243");
    }
}
