//! When to call again: what was refused for a moment is asked for again, after the pause that the pool names at the least, and
//! each time after a longer one.

use crate::error::ClientError;
use pie_proto::Reason;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Attempts at one call. With the pauses below, about ten seconds: longer than a group takes to change its router.
const ATTEMPTS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(1600);

/// Counts how often calls of a connection were repeated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats(Arc<AtomicU64>);

impl Repeats {
    /// Calls that were made again, since the connection was made.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What to do when the pool has too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overload {
    /// Ask again after a pause, as with other refusals that pass.
    Waits,
    /// Tell the caller, whose it is to say whether asking again is worth it: people type on.
    Tells,
}

/// One call's patience.
pub(crate) struct RetryBudget {
    overload: Overload,
    left: u32,
    pause: Duration,
    repeats: Repeats,
}

impl RetryBudget {
    /// Patience for one call, which counts its repetitions among the connection's.
    pub fn new(repeats: &Repeats, overload: Overload) -> Self {
        Self { overload, left: ATTEMPTS, pause: FIRST_PAUSE, repeats: repeats.clone() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error itself, if it does not pass, or the patience is over.
    pub async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        // Whoever asks again after the last refusal has as little patience left.
        self.left = self.left.saturating_sub(1);
        let told = self.overload == Overload::Tells && error.reason() == Some(Reason::Overloaded);
        if self.left == 0 || told || !error.passes() {
            return Err(error);
        }
        tokio::time::sleep(error.retry_after().unwrap_or_default().max(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.repeats.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn patience_that_is_over_stays_over() {
        let repeats = Repeats::default();
        let mut patience = RetryBudget::new(&repeats, Overload::Waits);
        for _ in 0..ATTEMPTS {
            patience.wait(ClientError::BadToken).await.expect_err("it does not pass");
        }
        patience.wait(ClientError::CutOff).await.expect_err("it would pass, but the patience is over");
        assert_eq!(repeats.count(), 0);
    }
}
