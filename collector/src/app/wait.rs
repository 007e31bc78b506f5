//! Waits for both stores at start-up, for a bounded time, and brings their tables up to date. Never waits for what will not pass.

use std::time::Duration;

use anyhow::anyhow;
use sonde_proto::model::time::Mono;
use tracing::info;

use crate::clickhouse::{self, ClickHouseError};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::{Store, StoreError};

/// Longest wait for a store that is starting beside us.
const STORE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(250);

/// Connects to Postgres and ClickHouse, migrates both, and tries whether we may do there what we must.
///
/// # Errors
/// When one does not answer within 30 s, or refuses.
pub(super) async fn for_stores(config: &Config, clock: Clock) -> anyhow::Result<(Store, clickhouse::Client)> {
    let deadline = clock.now() + STORE_WAIT_MAX;
    let store = Store::open(&config.postgres)?;
    let postgres = retry("Postgres", deadline, clock, StoreError::is_retryable, async || {
        store.ping().await?;
        store.migrate().await
    });
    let client = clickhouse::Client::connect(&config.clickhouse)?;
    let clickhouse = retry("ClickHouse", deadline, clock, ClickHouseError::is_retryable, async || {
        client.ready().await?;
        client.migrate().await?;
        client.check_grants().await
    });
    let (postgres, clickhouse) = tokio::join!(postgres, clickhouse);
    postgres.map_err(|error| anyhow!("{}; look at `postgres.url` and at the server", chain(&error)))?;
    clickhouse.map_err(|error| anyhow!("{}", chain(&error)))?;
    Ok((store, client))
}

/// Tries until it works, cannot work, or the deadline passes; then the last error.
async fn retry<E: std::error::Error>(
    name: &str,
    deadline: Mono,
    clock: Clock,
    is_retryable: impl Fn(&E) -> bool,
    attempt: impl AsyncFn() -> Result<(), E>,
) -> Result<(), E> {
    let mut has_waited = false;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if is_retryable(&error) && clock.now() < deadline => {
                if !std::mem::replace(&mut has_waited, true) {
                    info!(%error, seconds_max = STORE_WAIT_MAX.as_secs(), "waiting for {name}");
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
