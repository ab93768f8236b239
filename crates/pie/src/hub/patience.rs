//! How often something is tried again, and after which pause.

use super::problem::{Problem, RetryAdvice};
use std::time::Duration;

/// Failures in a row, without getting on in between, before it is given up.
const FAILURES: u32 = 5;
/// The first pause; each next one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// No pause is longer, and who is told to wait longer is not kept waiting, but told.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct ConsecutiveFailures {
    failures: u32,
}

impl ConsecutiveFailures {
    /// Something was got: the next failure is a first one.
    pub fn got_on(&mut self) {
        self.failures = 0;
    }

    /// Waits before another attempt; `tell` hears a line about it.
    ///
    /// # Errors
    /// The problem itself, when it stays or there were too many.
    pub async fn bear(&mut self, problem: Problem, tell: impl FnOnce(&str)) -> Result<(), Problem> {
        self.failures += 1;
        let grown = FIRST * 2_u32.saturating_pow(self.failures - 1);
        let pause = match problem.again {
            RetryAdvice::Never => return Err(problem),
            RetryAdvice::Soon => grown.min(LONGEST),
            RetryAdvice::After(time) if time > LONGEST => {
                let what = format!(
                    "{}; it asks to wait {} s: give the command again then",
                    problem.what,
                    time.as_secs()
                );
                return Err(Problem { what, ..problem });
            }
            RetryAdvice::After(time) => time.max(FIRST),
        };
        if self.failures >= FAILURES {
            return Err(problem);
        }
        tell(&format!("{problem}: trying again in {:.1} s", pause.as_secs_f64()));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
