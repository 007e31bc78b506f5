//! Lets the recorded metrics shed what is old, also when nobody scrapes them. Never records anything.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use super::pause;

/// Distance between two rounds.
const PERIOD: Duration = Duration::from_secs(30);

/// Runs until `stop` turns true.
pub async fn run(metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) {
    while pause(PERIOD, &mut stop).await {
        metrics.run_upkeep();
    }
}
