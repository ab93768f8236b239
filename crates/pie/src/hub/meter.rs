//! How far a fetch is: a bar where somebody watches, and a line from time to time where not.

use super::api::Remote;
use super::places::ModelReference;
use crate::progress;
use indicatif::ProgressBar;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Logs have a line so often.
const LINES: Duration = Duration::from_secs(30);
/// As many digits of a commit are shown.
const DIGITS: usize = 12;

/// Counts bytes.
pub struct Meter {
    bar: ProgressBar,
    total: u64,
    done: Cell<u64>,
    begun: Instant,
    last_line: Cell<Instant>,
    what: String,
}

impl Meter {
    /// Says what is to come, of which so much was there before.
    pub fn new(place: &ModelReference, commit: &str, missing: &[&Remote], before: u64) -> Self {
        let total = missing.iter().map(|remote| remote.size).sum();
        let what = place.to_string();
        if total > 0 {
            let files =
                if missing.len() == 1 { "1 file".to_owned() } else { format!("{} files", missing.len()) };
            let kept = if before > 0 {
                format!(", {} of it is here already", super::size(before))
            } else {
                String::new()
            };
            let commit = &commit[..commit.len().min(DIGITS)];
            say!("fetching {what} at {commit}: {files}, {}{kept}", super::size(total));
        }
        let bar = progress::transfer(&what);
        progress::show(&bar, before, total);
        // What was there before is no part of the speed.
        bar.reset_eta();
        let now = Instant::now();
        Self { bar, total, done: Cell::new(before), begun: now, last_line: Cell::new(now), what }
    }

    /// So many bytes came.
    pub fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        self.bar.set_position(self.done.get());
        if self.bar.is_hidden() && self.last_line.get().elapsed() >= LINES {
            self.last_line.set(Instant::now());
            say!("{}: {} of {}", self.what, super::size(self.done.get()), super::size(self.total));
        }
    }

    /// A line that the bar makes room for.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }

    /// So many have to come again.
    pub fn back(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_sub(bytes));
        self.bar.set_position(self.done.get());
    }

    /// It is all here.
    pub fn end(&self, came: u64) {
        self.bar.finish_and_clear();
        if self.total > 0 {
            say!(
                "{} is here: {} in {:.1} s",
                self.what,
                super::size(came),
                self.begun.elapsed().as_secs_f64()
            );
        }
    }
}
