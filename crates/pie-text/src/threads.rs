//! Threads that work on large texts beside those that serve.

use std::cell::Cell;

/// How much less of a processor than others the threads get that do large work.
const NICENESS: i32 = 10;

/// This thread takes what the others leave: ranks may compute on the same machine. It is asked once, since what is given up is not given
/// back.
pub fn stand_back() {
    thread_local! { static ASKED: Cell<bool> = const { Cell::new(false) } }
    if !ASKED.replace(true) {
        // Where it may not, it is as important as the others.
        let _ = rustix::process::nice(NICENESS);
    }
}
