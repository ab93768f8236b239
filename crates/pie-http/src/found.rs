//! What was done for a request, for those who want to see it.

use std::time::Duration;

/// How its session was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// Its client named it.
    Named,
    /// It held the likest prompt.
    Alike,
    /// It was opened.
    #[default]
    New,
}

impl Way {
    /// All, as answers and metrics name them.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Named, "named"), (Self::Alike, "alike"), (Self::New, "new")];

    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What was done before the completion began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The pool's name of the session.
    pub session: String,
    /// Its revision.
    pub revision: u64,
    /// How it was found.
    pub way: Way,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Of those, tokens that the edit inserted.
    pub inserted: usize,
    /// Tokens that it deleted.
    pub deleted: usize,
    /// Some of the prompt was left out because the whole is too long.
    pub is_cut: bool,
    /// To find the session, waiting for it included.
    pub search: Duration,
    /// To tokenize the prompt and find out what differs.
    pub reading: Duration,
}
