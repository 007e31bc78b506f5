//! Remembers which numbers were stored before the engine was killed: they must be there for ever.

use std::collections::BTreeMap;

use super::numbers::Numbers;
use super::stores::Asker;

/// How far back a look goes: what is older was seen by an earlier look or is counted at the end.
const LOOK_BACK_S: u32 = 30;

/// What was seen.
#[derive(Debug, Default)]
pub struct Witness {
    /// Stored numbers by boot.
    pub seen: BTreeMap<String, Numbers>,
    /// Looks that were answered.
    pub looks: u64,
}

impl Witness {
    /// Looks at what was stored lately. An engine that does not answer is seen at the next look.
    pub async fn see(&mut self, engine: &Asker) {
        let filter = format!("slot_at > now64() - {LOOK_BACK_S}");
        let Ok(found) = stored(engine, &filter).await else { return };
        for (boot, numbers) in found {
            self.seen.entry(boot).or_default().absorb(&numbers);
        }
        self.looks += 1;
    }
}

/// Stored numbers by boot, of rows that match `filter`, read from the raw table.
///
/// # Errors
/// When the engine does not answer.
pub async fn stored(engine: &Asker, filter: &str) -> anyhow::Result<BTreeMap<String, Numbers>> {
    let query = format!(
        "SELECT concat(toString(probe_id), '/', toString(boot)), min(seq), max(seq) FROM (
             SELECT probe_id, boot, seq,
                    toInt64(seq) - toInt64(row_number() OVER (PARTITION BY probe_id, boot ORDER BY seq)) AS island
             FROM (SELECT DISTINCT probe_id, boot, seq FROM samples WHERE {filter})
         ) GROUP BY probe_id, boot, island"
    );
    let mut found: BTreeMap<String, Numbers> = BTreeMap::new();
    for row in engine.rows(&query).await? {
        let [boot, first, last] = row.as_slice() else { anyhow::bail!("three columns were asked for: {row:?}") };
        found.entry(boot.clone()).or_default().insert(first.parse()?, last.parse()?);
    }
    Ok(found)
}
