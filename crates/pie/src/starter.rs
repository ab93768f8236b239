//! Processes that end with the one that started them.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// The process that started this one: it holds the other end of standard input, which ends when it stops, however it stops.
pub struct Starter {
    /// From then on it is told that the starter is gone; until then the process ends with it at once, whatever it loads.
    serves: Arc<AtomicBool>,
    gone: oneshot::Receiver<()>,
}

impl Starter {
    /// On a thread of its own: reading standard input cannot be given up, and must not hold up the end of the process.
    pub fn follow(serves: Arc<AtomicBool>) -> Self {
        let (tell, gone) = oneshot::channel();
        let seen = serves.clone();
        std::thread::spawn(move || {
            let (mut input, mut buffer) = (std::io::stdin().lock(), [0; 64]);
            while matches!(input.read(&mut buffer), Ok(read) if read > 0) {}
            if !seen.load(Ordering::Relaxed) {
                std::process::exit(1);
            }
            let _ = tell.send(());
        });
        Self { serves, gone }
    }

    /// This process serves: it ends in order from now on.
    pub fn ready(&self) {
        self.serves.store(true, Ordering::Relaxed);
    }
}

/// Waits until the starter is gone, if there is one.
pub async fn abandoned(starter: &mut Option<Starter>) {
    match starter {
        // It ends with an error, too, when the thread has ended.
        Some(starter) => drop((&mut starter.gone).await),
        None => std::future::pending().await,
    }
}
