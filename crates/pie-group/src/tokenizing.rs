//! Tokenizing whole texts and large edits: beside the threads that serve, which also answer the ranks' pings, and so much at a
//! time in the whole process. Whoever waits too long for his turn is refused.

use crate::faults;
use pie_proto::{Fault, Reason};
use pie_text::stand_back;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of text that are tokenized at a time: a text takes up to 80 times its own memory meanwhile.
const AT_ONCE: usize = 4 << 20;
/// Bytes of text that may wait for their turn, beside those.
const MAY_WAIT: usize = 64 << 20;
/// How long clients' texts wait for their turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most texts at a time, whatever the processors.
const MOST_TEXTS: usize = 16;
/// A permit is so many bytes.
const UNIT: usize = 1 << 10;

/// For how long a text waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionWait {
    /// So long as a client does.
    Briefly,
    /// For as long as its caller does: it would be lost otherwise.
    Always,
}

/// Lets so many bytes in at a time.
#[derive(Debug)]
pub struct Turnstile {
    permits: Semaphore,
    waiting: AtomicUsize,
}

/// Of this process.
pub static ALL: Turnstile = Turnstile::new();

/// Texts that wait are counted for as long as they do, also when nobody asks for them any more.
struct Counted<'a>(&'a AtomicUsize, usize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Default for Turnstile {
    fn default() -> Self {
        Self::new()
    }
}

impl Turnstile {
    /// Everybody may come in.
    pub const fn new() -> Self {
        Self { permits: Semaphore::const_new(AT_ONCE / UNIT), waiting: AtomicUsize::new(0) }
    }

    /// Waits until so many bytes may be tokenized.
    ///
    /// # Errors
    /// [`Reason::Overloaded`].
    pub async fn admit(&self, bytes: usize, waits: AdmissionWait) -> Result<SemaphorePermit<'_>, Fault> {
        // As many texts at a time as there are processors: more would only hold each other up.
        let texts = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_TEXTS);
        let units = bytes.clamp(AT_ONCE / texts, AT_ONCE) / UNIT;
        let permits = self.permits.acquire_many(u32::try_from(units).unwrap_or(u32::MAX));
        let closed = |_| faults::stopping();
        if waits == AdmissionWait::Always {
            return permits.await.map_err(closed);
        }
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let _counted = Counted(&self.waiting, bytes);
        if before > 0 && before + bytes > MAY_WAIT {
            return Err(faults::too_much_text());
        }
        match tokio::time::timeout(PATIENCE, permits).await {
            Ok(permits) => permits.map_err(closed),
            Err(_) => Err(faults::too_much_text()),
        }
    }
}

/// Does work that tokenizes so many bytes, when it is their turn, on a thread that serves nobody. It is done to the end even if
/// nobody waits for it any more, and counts until then.
///
/// # Errors
/// [`Reason::Overloaded`]; [`Reason::TokenizerFailed`] where it panics.
pub async fn beside<T: Send + 'static>(
    bytes: usize,
    waits: AdmissionWait,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let turn = ALL.admit(bytes, waits).await?;
    let done = tokio::task::spawn_blocking(move || {
        stand_back();
        let done = work();
        drop(turn);
        done
    });
    done.await.map_err(|error| Fault::new(Reason::TokenizerFailed, error.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_much_at_a_time_so_much_waits_and_nobody_for_ever() {
        let turnstile = Turnstile::new();
        let large = turnstile.admit(16 << 20, AdmissionWait::Briefly).await.expect("alone, however large");
        let refused = turnstile.admit(1, AdmissionWait::Briefly).await.expect_err("after a while");
        assert_eq!((refused.reason, refused.retry_after.is_some()), (Reason::Overloaded, true));
        let first = turnstile.admit(MAY_WAIT, AdmissionWait::Briefly);
        let many = turnstile.admit(1, AdmissionWait::Briefly);
        let begun = tokio::time::Instant::now();
        let (first, many) = tokio::join!(first, many);
        assert!(first.is_err(), "it waits as long as others");
        assert_eq!(many.expect_err("too much waits").reason, Reason::Overloaded);
        assert_eq!(begun.elapsed(), PATIENCE, "the second did not wait, the first did");
        let always = turnstile.admit(1, AdmissionWait::Always);
        let freed = async {
            tokio::time::sleep(4 * PATIENCE).await;
            drop(large);
        };
        drop(tokio::join!(always, freed).0.expect("it has its turn at last"));
        assert_eq!(turnstile.waiting.load(Ordering::Relaxed), 0);
        drop(turnstile.admit(1, AdmissionWait::Briefly).await.expect("nobody else is there"));
    }
}
