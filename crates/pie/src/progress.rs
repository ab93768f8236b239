//! Progress on standard error, where somebody watches; silent unless it is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether another process shows how it goes for this one, too.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on nothing is shown: processes that share a terminal draw over each other.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// A bar of bytes; its length comes with [`show`].
pub fn bytes(what: &str) -> ProgressBar {
    bar(what, None, "{msg} {bar:30} {bytes}/{total_bytes}")
}

/// A bar of bytes that come from elsewhere, with their speed; its length comes with [`show`].
pub fn transfer(what: &str) -> ProgressBar {
    bar(what, None, "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left")
}

/// A bar of things to do.
pub fn count(what: &str, total: usize) -> ProgressBar {
    bar(what, Some(total as u64), "{msg} {bar:30} {pos}/{len}")
}

/// A bar of slow things to do, with the time that is left; its length comes with [`show`].
pub fn cases(what: &str) -> ProgressBar {
    bar(what, None, "{msg} {bar:30} {pos}/{len}, {eta} left")
}

/// A bar of seconds, whose message says how it goes; its length comes with [`show`].
pub fn seconds(what: &str) -> ProgressBar {
    bar(what, None, "{bar:20} {pos}/{len} s  {msg}")
}

/// Moves a bar to what a loader reports.
pub fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}

fn bar(what: &str, total: Option<u64>, template: &str) -> ProgressBar {
    let watched = std::io::stderr().is_terminal() && crate::observe::for_people();
    let target = if watched && !QUIET.load(Ordering::Relaxed) {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, target).with_style(style).with_message(what.to_owned())
}
