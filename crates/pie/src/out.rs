//! Standard output, which may be a pipe whose reader has gone (`pie ctl sessions | head -1`): `println!` would panic there.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What a shell says of a process that SIGPIPE ended: 128 + 13.
const BROKEN_PIPE: i32 = 141;

/// Writes to standard output, at once. Where nobody reads it any more the process ends, as other commands in a pipe do; where it
/// cannot be written, it says so and fails.
pub fn write(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    crate::observe::tell(crate::observe::Tone::Error, &format!("standard output cannot be written: {error}"));
    std::process::exit(1);
}

/// `print!`, where the reader may go.
macro_rules! out {
    ($($part:tt)*) => { $crate::out::write(format_args!($($part)*)) };
}

/// `println!`, where the reader may go.
macro_rules! outln {
    () => { $crate::out::write(format_args!("\n")) };
    ($($part:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($part)*))) };
}

/// What a command says of itself on standard error: a line for people, or one of JSON where the log is JSON.
macro_rules! say {
    ($($part:tt)*) => { $crate::observe::tell($crate::observe::Tone::Info, &format!($($part)*)) };
}
