//! The script's own text while its lines are read or written: cursor and undo.

use super::line::TextChange;

/// A text, its cursor, and how to take back what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    text: String,
    cursor: usize,
    /// For each edit: what takes it back, and where the cursor was.
    done: Vec<(Vec<TextChange>, usize)>,
}

impl Draft {
    /// A text, with the cursor at its end.
    pub fn new(text: String) -> Self {
        Self { cursor: text.len(), text, done: Vec::new() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where typing goes.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// How many edits can be taken back.
    pub fn undoable(&self) -> usize {
        self.done.len()
    }

    /// Moves the cursor.
    ///
    /// # Errors
    /// A sentence, when there is no such place.
    pub fn move_to(&mut self, to: usize) -> Result<(), String> {
        if !self.text.is_char_boundary(to) {
            return Err(format!("{to} is no place in a text of {} bytes", self.text.len()));
        }
        self.cursor = to;
        Ok(())
    }

    /// Makes changes; the cursor goes behind the last.
    ///
    /// # Errors
    /// A sentence, when they do not fit the text; it is then as before.
    pub fn edit(&mut self, changes: &[TextChange]) -> Result<(), String> {
        self.check(changes)?;
        let cursor = self.cursor;
        let back = self.splice(changes);
        self.done.push((back, cursor));
        Ok(())
    }

    /// Takes the latest edit back, and the cursor to where it was; the changes that do it.
    pub fn undo(&mut self) -> Option<Vec<TextChange>> {
        let (changes, cursor) = self.done.pop()?;
        self.splice(&changes);
        self.cursor = cursor;
        Some(changes)
    }

    fn check(&self, changes: &[TextChange]) -> Result<(), String> {
        let mut behind = 0;
        for (index, TextChange { start, end, .. }) in changes.iter().enumerate() {
            if self.text.get(*start..*end).is_none() {
                let length = self.text.len();
                return Err(format!(
                    "{start}..{end} is no range of a text of {length} bytes, cut at characters"
                ));
            }
            if index > 0 && *start <= behind {
                return Err(format!(
                    "the change at {start}..{end} touches the one before it, or is out of order"
                ));
            }
            behind = *end;
        }
        if changes.is_empty() { Err("an edit of nothing".to_owned()) } else { Ok(()) }
    }

    /// Makes changes that fit, and returns those that take them back.
    fn splice(&mut self, changes: &[TextChange]) -> Vec<TextChange> {
        let mut text = String::with_capacity(self.text.len());
        let (mut at, mut back) = (0, Vec::new());
        for change in changes {
            text.push_str(&self.text[at..change.start]);
            let start = text.len();
            text.push_str(&change.text);
            back.push(TextChange {
                start,
                end: text.len(),
                text: self.text[change.start..change.end].to_owned(),
            });
            at = change.end;
        }
        self.cursor = text.len();
        text.push_str(&self.text[at..]);
        self.text = text;
        back
    }
}
