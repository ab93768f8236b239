//! How a run is cut short: nothing more is played, and every session that the run has opened is closed.

use tokio::sync::watch;
use tokio::time::Instant;

/// Cuts a run short.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Option<Instant>>);

/// Whether a run is cut short, and since when.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Option<Instant>>);

impl Stop {
    /// A run that may be cut short, and what cuts it.
    pub fn new() -> (Stopper, Self) {
        let (stopper, stop) = watch::channel(None);
        (Stopper(stopper), Self(stop))
    }

    /// A run that is played to its end.
    pub fn never() -> Self {
        Self::new().1
    }

    /// Since when it is.
    pub fn since(&self) -> Option<Instant> {
        *self.0.borrow()
    }

    /// Waits until it is; for ever if nobody can.
    pub async fn set(&self) {
        if self.0.clone().wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Stopper {
    /// Cuts the run short; whether it was not yet.
    pub fn stop(&self) -> bool {
        self.0.send_if_modified(|since| {
            let first = since.is_none();
            since.get_or_insert_with(Instant::now);
            first
        })
    }
}
