//! Where streams come from: people who are made up, and people who left their history in git.

mod generate;
mod replay;
mod typist;

pub use generate::{Corpus, lines};
pub use replay::{Replay, replay};

use crate::script::{Caret, CompletionMode};
use std::time::Duration;

/// How people work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habits {
    /// Bytes of a document, about.
    pub document_bytes: usize,
    /// From the last key to asking for a completion.
    pub debounce: Duration,
    /// Share of the completions that are taken over, whole or in part.
    pub accepted: f64,
    /// Where completions are asked for.
    pub place: Caret,
    /// What completions see of the text.
    pub mode: CompletionMode,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            document_bytes: 8 << 10,
            debounce: Duration::ZERO,
            accepted: 0.25,
            place: Caret::Cursor,
            mode: CompletionMode::Continue,
        }
    }
}
