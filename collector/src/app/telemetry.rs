//! Every metric of the collector with its meaning, and the recorder that keeps them. Never records one itself.
//! `docs/guide/metrics.md` says the same for people.

use anyhow::Context as _;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper ends of the buckets of every duration, in seconds: from an insert over loopback to one that is resolved after
/// minutes.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Name and meaning of each counter.
const COUNTERS: &[(&str, &str)] = &[
    ("sonde_collector_ingest_doubtful_total", "Batches that could not be judged yet, by doubt and what became of them"),
    ("sonde_collector_generations_disbelieved_total", "Generations named by probes that nobody gave out"),
    ("sonde_collector_samples_stored_total", "Samples that ClickHouse has confirmed"),
    ("sonde_collector_samples_refused_total", "Samples of batches that can never be accepted, by code"),
    ("sonde_collector_batches_received_total", "Batches that streams have handed to the ingest pipeline"),
    ("sonde_collector_batches_refused_total", "Batches that can never be accepted, by code"),
    ("sonde_collector_ingest_joined_total", "Batches that came again while they were in flight"),
    ("sonde_collector_ingest_repeated_total", "Batches that came again after they were stored, byte for byte"),
    ("sonde_collector_ingest_compared_total", "Batches with numbers long past that were compared with what is stored"),
    ("sonde_collector_ingest_held_total", "Inserts that had to wait, because the lease did not allow them to begin"),
    ("sonde_collector_ingest_taken_samples_total", "Samples given up, because another collector may have the session"),
    ("sonde_collector_ingest_gaps_retried_total", "Attempts to store gaps that were not confirmed and were repeated"),
    ("sonde_collector_in_doubt_samples_total", "Samples held back while another collector might still be storing them"),
    (
        "sonde_collector_streams_refused_total",
        "Streams ended because the probe broke the protocol or took too much memory, by code",
    ),
    ("sonde_collector_alarms_total", "Audit entries about probes that say what an honest one never says, by alarm"),
    ("sonde_collector_ingest_inserts_total", "Attempts to insert a group of batches"),
    ("sonde_collector_ingest_uncertain_total", "Attempts whose outcome had to be asked for"),
    ("sonde_collector_clickhouse_failures_total", "What ClickHouse did not answer or refused, by question and code"),
    ("sonde_collector_ingest_partial_total", "Groups of which ClickHouse held a part; must stay 0"),
    (
        "sonde_collector_gap_samples_total",
        "Samples put on record as lost, at most; a repeated report is not counted again",
    ),
    ("sonde_collector_gap_samples_withdrawn_total", "Samples on record as lost that were found stored and taken back"),
    ("sonde_collector_late_runs_total", "Runs that began more than a second after their slot, as probes say"),
    ("sonde_collector_plans_total", "Plans that changed an assignment"),
    ("sonde_collector_gate_verdicts_total", "Whether an insert might begin, by verdict"),
    ("sonde_collector_boots_forgotten_total", "Lives of probes that could not be written down"),
    ("sonde_collector_placements_dropped_total", "Changes of who runs what that could not be written down"),
    ("sonde_collector_sessions_total", "Streams that were welcomed"),
    ("sonde_collector_sessions_provisional_total", "Streams that were welcomed without Postgres"),
    ("sonde_collector_handshakes_failed_total", "TLS handshakes that failed, by port"),
    ("sonde_collector_connections_refused_total", "Connections turned away because the port was full, by port"),
    ("sonde_collector_connections_crowded_total", "Connections ended because their probe opened more than four"),
    ("sonde_collector_joins_refused_total", "Attempts to join with a token that is not good"),
    ("sonde_collector_renewals_total", "Certificates of probes that were renewed"),
    ("sonde_collector_renewals_refused_total", "Renewals that were refused, or put off because Postgres was away"),
    ("sonde_collector_watchers_lagged_total", "Live views that could not keep up"),
    ("sonde_collector_rollup_marks_total", "Buckets that were marked before an insert that touches them, by level"),
    ("sonde_collector_rollup_recomputed_total", "Buckets of rollups that were computed, by level"),
    (
        "sonde_collector_rollup_differences_total",
        "Buckets that the hourly check found different from the samples, by level",
    ),
];

/// Name and meaning of each gauge.
const GAUGES: &[(&str, &str)] = &[
    ("sonde_collector_probes_live", "Probes that were heard within the last 15 s"),
    ("sonde_collector_streams", "Streams that are open here"),
    ("sonde_collector_leads", "1 on the collector that plans, computes rollups and prunes"),
    ("sonde_collector_others", "Other collectors that were there within the last minute"),
    ("sonde_collector_lease_left_seconds", "Time in which inserts of this life may run"),
    ("sonde_collector_checks_unplaced", "Pairs of check and region that no probe runs"),
    ("sonde_collector_config_version", "Version of the configuration that is planned for"),
    ("sonde_collector_streams_paused", "Streams that are not read, because too many bytes wait for the store"),
    ("sonde_collector_check_numbers_taken", "Check numbers of streams beyond 512 each, of 1,048,576"),
    ("sonde_collector_ingest_budget_taken_bytes", "Bytes of samples that wait for the store, of 64 MiB"),
    ("sonde_collector_ingest_batches_queued", "Batches that wait to be admitted, at most 64"),
    ("sonde_collector_ingest_gap_reports_queued", "Reports of gaps that wait to be stored, at most 64"),
    ("sonde_collector_ingest_batches_in_flight", "Batches admitted and not yet stored"),
    ("sonde_collector_ingest_batches_parked", "Batches that cannot be judged yet, at most 1,024"),
    ("sonde_collector_clock_skew_seconds", "This collector's clock minus that of Postgres"),
    ("sonde_collector_ingest_groups_in_flight", "Groups that are being inserted or resolved"),
    ("sonde_collector_ingest_rows_gathered", "Samples that wait for their group to be frozen"),
    ("sonde_collector_rollup_dirty_buckets", "Buckets of rollups that wait to be computed, by level"),
    (
        "sonde_collector_identity_contradictions",
        "Samples of the last hour stored twice with different content; must be 0",
    ),
    ("sonde_collector_physical_copies", "Samples of the last hour stored more than once; readers see each once"),
    ("sonde_collector_task_failing", "1 while a task of the collector fails at its work, by task"),
];

/// Name and meaning of each histogram.
const HISTOGRAMS: &[(&str, &str)] = &[
    ("sonde_collector_ingest_insert_seconds", "One attempt to insert a group, whatever came of it"),
    ("sonde_collector_ingest_group_seconds", "From the first attempt to insert a group to the proof that it is stored"),
];

/// Installs the recorder of this process.
///
/// # Errors
/// When the process has one already.
pub(super) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics cannot be recorded")?;
    for (name, meaning) in COUNTERS {
        metrics::describe_counter!(*name, *meaning);
    }
    for (name, meaning) in GAUGES {
        metrics::describe_gauge!(*name, *meaning);
    }
    for (name, meaning) in HISTOGRAMS {
        metrics::describe_histogram!(*name, Unit::Seconds, *meaning);
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every word of `text` that looks like the name of a metric.
    fn names(text: &str, found: &mut BTreeSet<String>) {
        for rest in text.split("sonde_collector_").skip(1) {
            let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            found.insert(format!("sonde_collector_{word}"));
        }
    }

    fn names_below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names_below(&path, found);
            } else if !path.ends_with("app/telemetry.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for line in
                    text.lines().filter(|line| ["counter!(", "gauge!(", "histogram!("].iter().any(|m| line.contains(m)))
                {
                    names(line, found);
                }
            }
        }
    }

    #[test]
    fn what_is_recorded_is_described_and_documented() {
        let described: BTreeSet<String> =
            [COUNTERS, GAUGES, HISTOGRAMS].concat().into_iter().map(|(name, _)| name.to_owned()).collect();
        let mut recorded = BTreeSet::new();
        names_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut recorded);
        assert_eq!(recorded, described);
        let mut documented = BTreeSet::new();
        names(include_str!("../../../docs/guide/metrics.md"), &mut documented);
        assert_eq!(documented, described);
    }
}
