//! The report: rows by name, each beside its peer. Written as a whole or not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use sonde_proto::model::time::Wall;

/// Least number of repetitions of a row.
pub(crate) const REPETITIONS_MIN: usize = 3;

/// Everything that one run has measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    commit: String,
    machine: BTreeMap<&'static str, serde_json::Value>,
    started_at: String,
    rows: BTreeMap<&'static str, Row>,
}

/// One claim beside its peer; both are medians of the same run.
#[derive(Debug, Serialize)]
struct Row {
    value: f64,
    unit: &'static str,
    peer: &'static str,
    peer_value: f64,
    ratio: f64,
    n: usize,
}

/// What is claimed, and beside what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// Name of the row.
    pub(crate) name: &'static str,
    /// Unit of both values.
    pub(crate) unit: &'static str,
    /// What the peer is.
    pub(crate) peer: &'static str,
}

/// Ours and the peer's measurement of one repetition.
pub(crate) type Pair = (f64, f64);

impl Report {
    /// An empty report.
    pub(crate) fn new(commit: String, machine: BTreeMap<&'static str, serde_json::Value>, started_at: Wall) -> Self {
        let started_at = jiff::Timestamp::from_microsecond(started_at.0).unwrap_or_default().to_string();
        Self { commit, machine, started_at, rows: BTreeMap::new() }
    }

    /// Adds a row: medians over the repetitions, and the ratio of the medians.
    ///
    /// # Errors
    /// When there are too few repetitions, or one of them measured nothing.
    pub(crate) fn add(&mut self, claim: Claim, pairs: &[Pair]) -> anyhow::Result<()> {
        let name = claim.name;
        anyhow::ensure!(pairs.len() >= REPETITIONS_MIN, "{name}: {} repetitions are too few", pairs.len());
        let is_sound = |value: &f64| value.is_finite() && *value > 0.0;
        let (ours, peers): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        anyhow::ensure!(
            ours.iter().chain(&peers).all(is_sound),
            "{name}: a repetition measured nothing: {pairs:?} {}",
            claim.unit
        );
        let (value, peer_value) = (median(ours), median(peers));
        let row =
            Row { value, unit: claim.unit, peer: claim.peer, peer_value, ratio: value / peer_value, n: pairs.len() };
        eprintln!("  {name}: {value:.3} {} ({}: {peer_value:.3}); ratio {:.3}", row.unit, row.peer, row.ratio);
        self.rows.insert(name, row);
        Ok(())
    }

    /// Adds a row that was measured once, beside the bound that it has to keep.
    ///
    /// # Errors
    /// When it measured nothing.
    pub(crate) fn add_bounded(&mut self, claim: Claim, value: f64, bound: f64) -> anyhow::Result<()> {
        let Claim { name, unit, peer } = claim;
        anyhow::ensure!(value.is_finite() && value > 0.0, "{name}: nothing was measured: {value} {unit}");
        let row = Row { value, unit, peer, peer_value: bound, ratio: value / bound, n: 1 };
        eprintln!("  {name}: {value:.3} {unit} ({peer}: {bound:.3}); ratio {:.3}", row.ratio);
        self.rows.insert(name, row);
        Ok(())
    }

    /// Writes the report beside `path` and moves it there.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let draft = path.with_extension("json.new");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&draft, text).with_context(|| format!("--report: `{}` cannot be written", draft.display()))?;
        fs::rename(&draft, path).with_context(|| format!("--report: `{}` cannot be replaced", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>14} {:>14} {:>8}  unit (peer)", "row", "value", "peer", "ratio")?;
        for (name, Row { value, unit, peer, peer_value, ratio, n: _ }) in &self.rows {
            writeln!(f, "{name:<22} {value:>14.3} {peer_value:>14.3} {ratio:>8.3}  {unit} ({peer})")?;
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(*value, values[middle - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { name: "row", unit: "us", peer: "other" };

    #[test]
    fn medians_are_of_each_side() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let mut report = Report::new("c".to_owned(), BTreeMap::new(), Wall(0));
        report.add(CLAIM, &[(1.0, 10.0), (9.0, 20.0), (2.0, 5.0)]).unwrap();
        let row = &report.rows["row"];
        assert!((row.value, row.peer_value, row.n) == (2.0, 10.0, 3) && (row.ratio - 0.2).abs() < 1e-9, "{row:?}");
    }

    #[test]
    fn what_measured_nothing_is_refused() {
        let mut report = Report::new("c".to_owned(), BTreeMap::new(), Wall(0));
        for pairs in [vec![(1.0, 1.0); 2], vec![(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)], vec![(f64::NAN, 1.0); 3]] {
            assert!(report.add(CLAIM, &pairs).is_err(), "{pairs:?}");
        }
        assert!(report.rows.is_empty());
    }

    #[test]
    fn a_single_measurement_stands_beside_its_bound() {
        let mut report = Report::new("c".to_owned(), BTreeMap::new(), Wall(0));
        report.add_bounded(CLAIM, 3.0, 6.0).unwrap();
        let row = &report.rows["row"];
        assert!((row.value, row.peer_value, row.n) == (3.0, 6.0, 1) && (row.ratio - 0.5).abs() < 1e-9, "{row:?}");
        assert!(report.add_bounded(CLAIM, 0.0, 6.0).is_err());
    }

    #[test]
    fn the_file_has_the_promised_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let mut report = Report::new("c".to_owned(), BTreeMap::from([("cores", 2.into())]), Wall(1_500_000));
        report.add(CLAIM, &[(1.0, 2.0); 3]).unwrap();
        report.write(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let row =
            serde_json::json!({"value": 1.0, "unit": "us", "peer": "other", "peer_value": 2.0, "ratio": 0.5, "n": 3});
        let whole = serde_json::json!({
            "commit": "c", "machine": {"cores": 2}, "started_at": "1970-01-01T00:00:01.5Z", "rows": {"row": row},
        });
        assert_eq!(value, whole);
    }
}
