//! One person at one document: keys at human times, pauses, questions, answers taken over. Writes script lines.

use super::Habits;
use crate::script::{Accept, Action, Caret, Draft, ScriptLine, TextChange};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Accepted completions after which they are deleted at the latest, so that documents keep their size.
const KEPT: u32 = 4;
/// A single keystroke takes at least this, milliseconds.
const FASTEST_KEY: u64 = 60;

pub(super) struct Typist {
    /// The document as the lines so far made it.
    pub draft: Draft,
    /// What decides everything that is not given.
    pub rng: ChaCha8Rng,
    habits: Habits,
    doc: String,
    lines: Vec<ScriptLine>,
    /// Milliseconds since opening: when the next key can come.
    clock: u64,
    kept: u32,
}

impl Typist {
    /// Somebody who opens a document; the first line says so.
    pub fn new(doc: &str, text: String, habits: Habits, rng: ChaCha8Rng) -> Self {
        let open =
            ScriptLine { at_ms: None, doc: doc.to_owned(), action: Action::Open { text: text.clone() } };
        let draft = Draft::new(text);
        Self { draft, rng, habits, doc: doc.to_owned(), lines: vec![open], clock: 0, kept: 0 }
    }

    /// A generator of its own for each (seed, name).
    pub fn rng(seed: u64, name: &str) -> ChaCha8Rng {
        // FNV-1a: names spread seeds, nothing more.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        ChaCha8Rng::seed_from_u64(name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix))
    }

    /// Milliseconds since the document was opened.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The lines; the last is a pause of 0 ms, so that the stream lasts until now.
    pub fn finish(mut self) -> Vec<ScriptLine> {
        self.push(Action::Pause { ms: 0 });
        self.lines
    }

    /// Writes a remark.
    pub fn note(&mut self, text: String) {
        self.push(Action::Note { text });
    }

    fn push(&mut self, action: Action) {
        self.lines.push(ScriptLine { at_ms: Some(self.clock), doc: self.doc.clone(), action });
    }

    /// Makes an edit; what does not fit the draft is not written.
    fn edit(&mut self, changes: &[TextChange], action: Action) {
        if self.draft.edit(changes).is_ok() {
            self.push(action);
        }
    }

    /// Key after key, with words of thought and questions between; asks at the end of each line.
    pub fn type_text(&mut self, text: &str) {
        for character in text.chars() {
            let at = self.draft.cursor();
            let change = TextChange { start: at, end: at, text: character.to_string() };
            let key = Action::Type { at: None, text: character.to_string(), key_ms: None };
            self.edit(&[change], key);
            let gap = self.key_gap();
            if character == '\n' && self.rng.random_bool(0.5) {
                self.ask_and_wait(900..2500);
            } else if " .(:,".contains(character) && self.rng.random_bool(0.12) {
                self.ask_and_wait(350..1100);
            } else if self.rng.random_bool(0.02) {
                // A hasty question: the next key comes before anybody could read an answer.
                self.ask();
                self.clock += gap;
            } else {
                self.clock += gap;
            }
        }
    }

    /// Pastes at the cursor.
    pub fn paste(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        let at = self.draft.cursor();
        let change = TextChange { start: at, end: at, text: text.clone() };
        self.edit(&[change], Action::Paste { at: None, text });
        self.rest(150..600);
    }

    /// Deletes a range of bytes.
    pub fn delete(&mut self, start: usize, end: usize) {
        self.edit(&[TextChange { start, end, text: String::new() }], Action::Delete { start, end });
        self.rest(80..400);
    }

    /// Changes several places at once.
    pub fn several(&mut self, edits: Vec<TextChange>) {
        self.edit(&edits.clone(), Action::MultiCursor { edits });
        self.rest(100..500);
    }

    /// Takes back up to so many edits, one after another.
    pub fn undo(&mut self, steps: usize) {
        let steps = steps.min(self.draft.undoable());
        for _ in 0..steps {
            self.draft.undo();
            self.push(Action::Undo { steps: 1 });
            self.rest(90..300);
        }
    }

    /// Moves the cursor to a byte; nothing is written where it is there already.
    pub fn move_to(&mut self, to: usize) {
        if to != self.draft.cursor() && self.draft.move_to(to).is_ok() {
            self.push(Action::Move { to });
            self.rest(200..900);
        }
    }

    /// Time passes: a number of milliseconds from a range.
    pub fn rest(&mut self, range: std::ops::Range<u64>) {
        self.clock += self.rng.random_range(range);
    }

    /// Asks after the last key, and waits; perhaps takes over what comes.
    pub fn ask_and_wait(&mut self, wait: std::ops::Range<u64>) {
        let debounce = self.habits.debounce.as_millis() as u64;
        let wait = self.rng.random_range(wait);
        if debounce >= wait {
            self.clock += wait;
            return;
        }
        let end = self.clock + wait;
        self.clock += debounce;
        self.ask();
        if self.rng.random_bool(self.habits.accepted) {
            self.accept(end);
        }
        self.clock = self.clock.max(end);
    }

    fn ask(&mut self) {
        let Habits { place, mode, .. } = self.habits;
        let before = match place {
            Caret::Cursor => self.draft.cursor(),
            Caret::End => self.draft.text().len(),
        };
        // Not every model can begin with nothing.
        if before == 0 {
            return;
        }
        self.push(Action::Complete { at: place, mode, max_tokens: None });
    }

    /// Takes over a part of what has come by the end of the wait, and sometimes thinks better of it.
    fn accept(&mut self, end: u64) {
        self.clock = end;
        let accept = match self.rng.random_range(0..4) {
            0 => Accept::Whole,
            1 => Accept::Line,
            2 => Accept::Word,
            _ => {
                let chars = self.rng.random_range(2..9);
                Accept::Typed { chars, key_ms: FASTEST_KEY + self.rng.random_range(0..80) }
            }
        };
        self.push(Action::Accept(accept));
        if let Accept::Typed { chars, key_ms } = accept {
            self.clock += chars as u64 * key_ms;
        }
        self.rest(300..900);
        self.kept += 1;
        if self.kept >= KEPT || self.rng.random_bool(0.4) {
            self.push(Action::Discard {});
            self.kept = 0;
            self.rest(150..500);
        }
    }

    /// Most keys follow fast, some after a look at the keyboard.
    fn key_gap(&mut self) -> u64 {
        let unhurried = if self.rng.random_bool(0.08) { 3.0 } else { 1.0 };
        let tail = -(1.0 - self.rng.random::<f64>()).ln();
        FASTEST_KEY + (55.0 * unhurried * tail) as u64
    }
}
