//! Scripts: documents and what people do to them, with times, as JSON lines; and the streams that are played.

mod compile;
mod draft;
mod line;

pub use compile::compile;
pub use draft::Draft;
pub use line::{Accept, Action, Caret, CompletionMode, ScriptLine, TextChange, parse, write};

use std::time::Duration;

/// One document's life, ready to be played: every place is an offset, every typed text is single keystrokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditStream {
    /// The document's name in the script.
    pub doc: String,
    /// Its text when it is opened.
    pub text: String,
    /// What happens, in order of time.
    pub events: Vec<TimedStep>,
    /// From opening to closing.
    pub length: Duration,
}

impl EditStream {
    /// Edits of the document that do not depend on answers.
    pub fn edits(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.step, ScriptStep::Edit { .. })).count()
    }
}

/// A step and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedStep {
    /// Since the document was opened.
    pub at: Duration,
    /// What is to be done then.
    pub step: ScriptStep,
}

/// What happens. Offsets are bytes of the script's own text, which knows nothing of accepted completions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptStep {
    /// One request: all changes at once, sorted and disjoint.
    Edit {
        /// In the text before the step.
        changes: Vec<TextChange>,
        /// How people did it.
        kind: EditKind,
    },
    /// A completion is asked for.
    Complete(ScriptCompletion),
    /// A part of the latest completion is taken over.
    Accept(AcceptanceUnit),
    /// All accepted text that is still there is deleted.
    Discard,
    /// Nothing: a remark.
    Note(String),
}

/// How people edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditKind {
    /// A character, or a text typed at once.
    Typed,
    /// Pasted text.
    Pasted,
    /// Deleted text.
    Deleted,
    /// Several cursors.
    Several,
    /// An undo.
    Undone,
}

/// A completion to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptCompletion {
    /// Where its text would be inserted.
    pub offset: usize,
    /// How the pool is told where.
    pub place: Caret,
    /// The text before its place, or on both sides.
    pub mode: CompletionMode,
    /// The most tokens; the run's own number when absent.
    pub max_tokens: Option<u32>,
}

/// Of a completion's text: how much is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptanceUnit {
    /// All that has come.
    Whole,
    /// To the end of its first line.
    Line,
    /// Its first word.
    Word,
    /// The next character, typed by hand.
    Character,
}
