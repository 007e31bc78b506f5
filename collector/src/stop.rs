//! How long-running work learns that it should end. Never ends anything itself.

use tokio::sync::watch;

/// Waits until `stop` turns true, or its sender is gone, which means the same. Safe to cancel.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}
