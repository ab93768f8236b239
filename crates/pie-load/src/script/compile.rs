//! From lines to streams: places become offsets, typing becomes keystrokes, undo becomes the edit that it is.

use super::line::{Accept, Action, Caret, ScriptLine, TextChange};
use super::{AcceptanceUnit, Draft, EditKind, EditStream, ScriptCompletion, ScriptStep, TimedStep};
use crate::error::LoadError;
use std::collections::HashMap;
use std::time::Duration;

/// The last millisecond of a document's life, a year: sums of times behind it stay far from overflow.
const LONGEST: u64 = 365 * 24 * 3_600_000;
/// Keystrokes that one line may stand for.
const MOST_KEYS: usize = 100_000;

/// The streams of a script, in the order in which their documents are opened.
///
/// # Errors
/// [`LoadError::BadScript`] for a line that does not fit its document.
pub fn compile(lines: &[ScriptLine]) -> Result<Vec<EditStream>, LoadError> {
    let mut documents: Vec<Compiler> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        // The header is line 1.
        let bad = |reason: String| LoadError::BadScript { line: index + 2, reason };
        if let Action::Open { text } = &line.action {
            if line.at_ms.unwrap_or(0) != 0 {
                return Err(
                    bad("a document's own time begins when it is opened: leave at_ms out".to_owned()),
                );
            }
            if places.insert(&line.doc, documents.len()).is_some() {
                return Err(bad(format!("the document `{}` is open already", line.doc)));
            }
            documents.push(Compiler::new(&line.doc, text));
        } else {
            let place = places.get(line.doc.as_str());
            let place = place.ok_or_else(|| bad(format!("the document `{}` is not open", line.doc)))?;
            documents[*place].take(line).map_err(bad)?;
        }
    }
    if documents.is_empty() {
        return Err(LoadError::EmptyScript);
    }
    Ok(documents.into_iter().map(Compiler::finish).collect())
}

struct Compiler {
    doc: String,
    text: String,
    draft: Draft,
    events: Vec<TimedStep>,
    /// When the next line without a time is due.
    clock: u64,
    /// The latest event's time.
    latest: u64,
}

impl Compiler {
    fn new(doc: &str, text: &str) -> Self {
        let draft = Draft::new(text.to_owned());
        Self { doc: doc.to_owned(), text: text.to_owned(), draft, events: Vec::new(), clock: 0, latest: 0 }
    }

    fn finish(self) -> EditStream {
        let length = Duration::from_millis(self.clock.max(self.latest));
        EditStream { doc: self.doc, text: self.text, events: self.events, length }
    }

    fn take(&mut self, line: &ScriptLine) -> Result<(), String> {
        if let Some(at) = line.at_ms {
            if at < self.latest {
                return Err(format!(
                    "at_ms {at} lies before the line before it, which lasts until {}",
                    self.latest
                ));
            }
            self.clock = at;
        }
        self.act(&line.action)?;
        if self.clock > LONGEST {
            return Err(format!("its time is {} ms, which is more than a year", self.clock));
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Open { .. } => Ok(()),
            Action::Type { at, text, key_ms } => self.typed(*at, text, *key_ms),
            Action::Paste { at, text } => self.insert(*at, text, EditKind::Pasted),
            Action::Delete { start, end } => self
                .edit(vec![TextChange { start: *start, end: *end, text: String::new() }], EditKind::Deleted),
            Action::Move { to } => self.draft.move_to(*to),
            Action::MultiCursor { edits } => self.edit(edits.clone(), EditKind::Several),
            Action::Undo { steps } => self.undo(*steps),
            Action::Complete { at, mode, max_tokens } => {
                let offset = match at {
                    Caret::Cursor => self.draft.cursor(),
                    Caret::End => self.draft.text().len(),
                };
                let ask = ScriptCompletion { offset, place: *at, mode: *mode, max_tokens: *max_tokens };
                self.push(ScriptStep::Complete(ask));
                Ok(())
            }
            Action::Accept(accept) => self.accept(*accept),
            Action::Discard {} => {
                self.push(ScriptStep::Discard);
                Ok(())
            }
            Action::Pause { ms } => {
                self.clock = self.clock.saturating_add(*ms);
                Ok(())
            }
            Action::Note { text } => {
                self.push(ScriptStep::Note(text.clone()));
                Ok(())
            }
        }
    }

    fn push(&mut self, step: ScriptStep) {
        self.latest = self.clock;
        self.events.push(TimedStep { at: Duration::from_millis(self.clock), step });
    }

    fn edit(&mut self, changes: Vec<TextChange>, kind: EditKind) -> Result<(), String> {
        self.draft.edit(&changes)?;
        self.push(ScriptStep::Edit { changes, kind });
        Ok(())
    }

    fn insert(&mut self, at: Option<usize>, text: &str, kind: EditKind) -> Result<(), String> {
        let at = at.unwrap_or(self.draft.cursor());
        self.edit(vec![TextChange { start: at, end: at, text: text.to_owned() }], kind)
    }

    fn typed(&mut self, at: Option<usize>, text: &str, key_ms: Option<u64>) -> Result<(), String> {
        let Some(key_ms) = key_ms else { return self.insert(at, text, EditKind::Typed) };
        if let Some(at) = at {
            self.draft.move_to(at)?;
        }
        for character in text.chars() {
            self.insert(None, character.encode_utf8(&mut [0; 4]), EditKind::Typed)?;
            self.clock = self.clock.saturating_add(key_ms);
        }
        Ok(())
    }

    fn undo(&mut self, steps: usize) -> Result<(), String> {
        if steps > self.draft.undoable() {
            return Err(format!("{steps} edits to undo, and only {} were made", self.draft.undoable()));
        }
        for _ in 0..steps {
            if let Some(changes) = self.draft.undo() {
                self.push(ScriptStep::Edit { changes, kind: EditKind::Undone });
            }
        }
        Ok(())
    }

    fn accept(&mut self, accept: Accept) -> Result<(), String> {
        match accept {
            Accept::Whole => self.push(ScriptStep::Accept(AcceptanceUnit::Whole)),
            Accept::Line => self.push(ScriptStep::Accept(AcceptanceUnit::Line)),
            Accept::Word => self.push(ScriptStep::Accept(AcceptanceUnit::Word)),
            Accept::Typed { chars, .. } if chars > MOST_KEYS => {
                return Err(format!("{chars} characters to type; at most {MOST_KEYS} at once"));
            }
            Accept::Typed { chars, key_ms } => {
                for _ in 0..chars {
                    self.push(ScriptStep::Accept(AcceptanceUnit::Character));
                    self.clock = self.clock.saturating_add(key_ms);
                }
            }
        }
        Ok(())
    }
}
