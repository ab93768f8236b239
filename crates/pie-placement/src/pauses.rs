//! Pauses between attempts.

use std::time::Duration;

use rand::Rng;

/// Growing pauses between attempts, with jitter so that the holders of a pool do not return all at once.
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);

    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: Self::FIRST.min(longest), longest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}
