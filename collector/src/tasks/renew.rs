//! Replaces the collector's own certificate at half its life. Never touches the certificates of probes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use super::{Health, pause};
use crate::clock::Clock;
use crate::pki::{Authority, ServerIdentity};

/// Distance between two looks, which notice a wall clock that was set; the certificate has half of its life left when it
/// is replaced.
const PERIOD: Duration = Duration::from_secs(60);
/// Distance between two looks when one has failed, or is due at once.
const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Runs until `stop` turns true.
pub async fn run(
    identity: Arc<ServerIdentity>,
    authority: Arc<Authority>,
    clock: Clock,
    mut stop: watch::Receiver<bool>,
) {
    let mut health = Health::new("renewing the collector's certificate");
    while pause(identity.renew_at().since(clock.wall()).clamp(PERIOD_MIN, PERIOD), &mut stop).await {
        let now = clock.wall();
        if identity.needs_renewal(now) && health.note(identity.renew(&authority, now)).is_some() {
            info!("the collector's certificate was renewed");
        }
    }
}
