//! Takes back counted losses that are stored all the same, life by life. Never decides which they are: the store does.

use std::collections::VecDeque;

use sonde_proto::model::id::{BootId, ProbeId};
use tracing::warn;

use crate::clickhouse::{ClickHouseError, Client};

/// One look at the lives with losses after the other. What a round has no time for is left for the next one.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    lives: VecDeque<(ProbeId, BootId)>,
    samples: u64,
    failure: Option<ClickHouseError>,
}

impl Withdrawal {
    /// Whether nothing is left to look at.
    pub(super) fn is_over(&self) -> bool {
        self.lives.is_empty()
    }

    /// Begins a look, unless there is nothing to look at. Losses of the look before that it did not come to are among those
    /// of this one.
    ///
    /// # Errors
    /// When ClickHouse is away.
    pub(super) async fn begin(&mut self, clickhouse: &Client) -> Result<(), ClickHouseError> {
        *self = Self::default();
        let (lives, is_more) = clickhouse.lives_with_losses().await?;
        if is_more {
            warn!(
                lives = lives.len(),
                "more lives of probes lost samples within a day than are compared; the newest were"
            );
        }
        self.lives = lives.into();
        Ok(())
    }

    /// Looks at the next life. After the last one says how it went.
    ///
    /// # Errors
    /// After the last life: the first failure. Everything else was looked at.
    pub(super) async fn step(&mut self, clickhouse: &Client) -> Option<Result<(), ClickHouseError>> {
        let (probe, boot) = self.lives.pop_front()?;
        match clickhouse.withdraw_of(probe, boot).await {
            Ok(samples) => {
                metrics::counter!("sonde_collector_gap_samples_withdrawn_total").increment(samples);
                self.samples += samples;
            }
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
        self.is_over().then(|| self.finish())
    }

    fn finish(&mut self) -> Result<(), ClickHouseError> {
        let Self { samples, failure, .. } = std::mem::take(self);
        if samples > 0 {
            warn!(
                samples,
                "samples that were on record as lost are stored: ClickHouse committed them after the time limit of their \
                 insert; the record is right again"
            );
        }
        failure.map_or(Ok(()), Err)
    }
}
