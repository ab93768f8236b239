//! Signals that stop the program.

use crate::observe::{Tone, tell};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Beyond its grace a process that ends in order takes less: groups are given up, leases released, workers waited for.
const MARGIN: Duration = Duration::from_secs(10);

/// The signal that ends the process, and so how much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// Ctrl-C: end quickly.
    Interrupted,
    /// SIGTERM, as platforms send it: end in order.
    Terminated,
}

impl std::fmt::Display for StopSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::Terminated => "SIGTERM",
        })
    }
}

/// Listens from its creation on: no signal between two looks is lost.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens. Whatever becomes of those who wait for signals, the process ends `grace` and a while after the first one, or a while
    /// after the second.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen(grace: Duration) -> std::io::Result<Self> {
        watch(grace)?;
        Self::new()
    }

    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupted,
            _ = self.terminate.recv() => StopSignal::Terminated,
        }
    }
}

/// Ends a process that does not end by itself. On a thread with a runtime of its own: what is stuck may be all of the others.
fn watch(grace: Duration) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new()?
    };
    let watch = move || {
        let signal = runtime.block_on(async {
            let signal = signals.next().await;
            // Another one means at once.
            let _ = tokio::time::timeout(grace, signals.next()).await;
            signal
        });
        std::thread::sleep(MARGIN);
        tell(
            Tone::Error,
            &format!("{signal}, and the process still runs when its time is over: it is stuck, and ends now"),
        );
        std::process::exit(1);
    };
    std::thread::Builder::new().name("pie-watchdog".to_owned()).spawn(watch).map(drop)
}
