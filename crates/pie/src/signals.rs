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
    /// The terminal that it was started in is closed: end quickly.
    HungUp,
    /// SIGTERM, as platforms send it: end in order.
    Terminated,
}

impl std::fmt::Display for StopSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Interrupted => "interrupted",
            Self::HungUp => "the terminal is closed",
            Self::Terminated => "SIGTERM",
        })
    }
}

/// Listens from its creation on: no signal between two looks is lost.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under nohup and the like, where whoever started the process wants it to outlive the terminal.
    hangup: Option<Signal>,
}

impl Signals {
    /// Listens. Whatever becomes of those who wait for signals, the process ends `grace` and a while after the first one, or a while
    /// after the second.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen(grace: Duration) -> std::io::Result<Self> {
        watch(grace, MARGIN)?;
        Self::new()
    }

    fn new() -> std::io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored(hangup) { None } else { Some(signal(hangup)?) },
        })
    }

    /// Waits for the next one. Cancel safe.
    pub async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupted,
            _ = self.terminate.recv() => StopSignal::Terminated,
            Some(_) = async { self.hangup.as_mut()?.recv().await } => StopSignal::HungUp,
        }
    }
}

/// Whether the process was started with a signal ignored, as far as the system tells.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

/// Ends a process that does not end by itself. On a thread with a runtime of its own: what is stuck may be all of the others.
fn watch(grace: Duration, margin: Duration) -> std::io::Result<()> {
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
        std::thread::sleep(margin);
        tell(
            Tone::Error,
            &format!("{signal}, and the process still runs when its time is over: it is stuck, and ends now"),
        );
        std::process::exit(1);
    };
    std::thread::Builder::new().name("pie-watchdog".to_owned()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    const STUCK: &str = "PIE_TEST_IS_STUCK";
    const GRACE: Duration = Duration::from_millis(300);

    /// The test starts itself again, as a process whose only thread beside the watchdog never looks at a signal.
    #[test]
    fn a_stuck_process_ends_when_its_time_is_over_and_at_once_on_a_second_signal() {
        if std::env::var_os(STUCK).is_some() {
            watch(GRACE, GRACE).expect("signals can be listened for");
            outln!("stuck");
            loop {
                std::thread::park();
            }
        }
        for (signals, at_least, at_most) in [(1, 2 * GRACE, 10 * GRACE), (2, GRACE, 10 * GRACE)] {
            let name =
                "signals::tests::a_stuck_process_ends_when_its_time_is_over_and_at_once_on_a_second_signal";
            let mut child = Command::new(std::env::current_exe().expect("has a path"))
                .args([name, "--exact", "--nocapture"])
                .env(STUCK, "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("starts");
            let mut said = std::io::BufReader::new(child.stdout.take().expect("is piped"));
            let mut line = String::new();
            while !line.contains("stuck") {
                line.clear();
                assert!(
                    std::io::BufRead::read_line(&mut said, &mut line).expect("a line") > 0,
                    "it ended early"
                );
            }
            let began = Instant::now();
            for _ in 0..signals {
                let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
                assert!(killed.expect("kill runs").success());
                std::thread::sleep(Duration::from_millis(30));
            }
            assert_eq!(child.wait().expect("ends").code(), Some(1));
            let took = began.elapsed();
            assert!(took >= at_least && took < at_most, "{signals} signals: {took:?}");
        }
    }
}
