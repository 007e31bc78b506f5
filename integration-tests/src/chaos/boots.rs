//! The oracle's second look: the numbers of every life of every probe, stored or reported lost, without a hole.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use super::clock;
use super::numbers::Numbers;
use super::stores::Asker;
use super::verdict::Verdict;
use super::witness::{Witness, stored};

/// Longest wait until the losses of lives that ended are written down.
const CLOSE_MAX: Duration = Duration::from_secs(60);
/// Distance between two looks at it.
const LOOK: Duration = Duration::from_secs(1);
/// Holes that a complaint names.
const HOLES_SHOWN: usize = 4;

#[derive(Debug, Default)]
struct Boot {
    stored: Numbers,
    reported: Numbers,
    /// Stored and reported at the same time, in gaps that claim to be exact.
    both: u64,
    /// Highest number that the probe said it had given.
    generated: u64,
}

/// Demands of every life: stored and reported numbers are 1 to the last, without overlap; nothing that was stored before a
/// kill of the engine is gone.
///
/// # Errors
/// When a store does not answer.
pub async fn check(engine: &Asker, postgres: &str, witness: &Witness, verdict: &mut Verdict) -> anyhow::Result<()> {
    let begin = clock::moment();
    let (boots, faults) = loop {
        let boots = read(engine, postgres).await?;
        let faults: Vec<String> = boots.iter().flat_map(|(name, boot)| boot.faults(name)).collect();
        if faults.is_empty() || begin.elapsed() > CLOSE_MAX {
            break (boots, faults);
        }
        tokio::time::sleep(LOOK).await;
    };
    verdict.boots = u64::try_from(boots.len())?;
    verdict.generated = boots.values().map(Boot::last).sum();
    for fault in faults {
        verdict.complain(fault);
    }
    let nothing = Numbers::default();
    for (name, seen) in &witness.seen {
        verdict.vanished += boots.get(name).map_or(&nothing, |boot| &boot.stored).lacks(seen);
    }
    verdict.looks = witness.looks;
    verdict.demand_none(verdict.vanished, "numbers that were stored before a kill of the engine are gone");
    Ok(())
}

impl Boot {
    /// The highest number that was given, as far as anybody knows.
    fn last(&self) -> u64 {
        self.stored.last().max(self.reported.last()).max(self.generated)
    }

    fn faults(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut all = self.stored.clone();
        all.absorb(&self.reported);
        let (last, holes) = (self.last(), all.holes(self.last()));
        if !holes.is_empty() {
            let shown = &holes[..holes.len().min(HOLES_SHOWN)];
            faults.push(format!(
                "boot {name}: of 1 to {last}, {} range(s) are neither stored nor reported, such as {shown:?}",
                holes.len()
            ));
        }
        if self.both > 0 {
            faults.push(format!("boot {name}: {} numbers are reported lost twice, or stored as well", self.both));
        }
        faults
    }
}

async fn read(engine: &Asker, postgres: &str) -> anyhow::Result<BTreeMap<String, Boot>> {
    let mut boots: BTreeMap<String, Boot> = BTreeMap::new();
    // What was given is asked first: lives go on while the other questions run, and must not owe what came meanwhile.
    for (boot, generated) in generated(postgres).await? {
        boots.entry(boot).or_default().generated = generated;
    }
    for (boot, numbers) in stored(engine, "1").await? {
        boots.entry(boot).or_default().stored = numbers;
    }
    let query = "SELECT concat(toString(probe_id), '/', toString(boot)), first_seq, last_seq, is_at_most FROM gaps_v
                 ORDER BY probe_id, boot, first_seq";
    for row in engine.rows(query).await? {
        let [boot, first, last, is_at_most] = row.as_slice() else { anyhow::bail!("four columns: {row:?}") };
        let (first, last): (u64, u64) = (first.parse()?, last.parse()?);
        let boot = boots.entry(boot.clone()).or_default();
        let twice = boot.reported.insert(first, last);
        if is_at_most != "true" {
            let also_stored = boot.stored.clone().insert(first, last);
            boot.both += twice + also_stored;
        }
    }
    Ok(boots)
}

/// What each life said that it had numbered, as the collectors wrote it down.
async fn generated(postgres: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let mut connection = PgConnection::connect(postgres).await?;
    let query = "select probe_id::text || '/' || boot::text, generated_through from probe_boots";
    let rows: Vec<(String, i64)> = sqlx::query_as(query).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(rows.into_iter().map(|(boot, through)| (boot, through.unsigned_abs())).collect())
}
