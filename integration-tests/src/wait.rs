//! Waiting for a condition with a deadline. Never waits for a fixed time.
#![expect(clippy::disallowed_methods, reason = "a deadline in a test is real time")]

use std::time::{Duration, Instant};

/// Distance between two looks at a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Looks until `condition` yields a value.
///
/// # Panics
/// When `deadline` is over first; the message says what was waited for.
pub async fn until<T>(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begin.elapsed() < deadline, "after {deadline:?} still not: {what}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
