//! The client's copy of a document: the script's text with accepted completions in it.

use crate::script::TextChange;
use pie_client::Edit;

/// Accepted text: where it stands in the script's text, and how long it is. The script knows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AcceptedText {
    /// In bytes of the script's text: before the byte there.
    at: usize,
    length: usize,
}

/// A document of the client's. Invariant: without what was accepted, its text is the script's.
#[derive(Clone, Debug, Default)]
pub struct EditorBuffer {
    text: String,
    /// In order of their places; equal places in order of coming.
    accepted: Vec<AcceptedText>,
}

impl EditorBuffer {
    /// A document as it is opened.
    pub fn new(text: String) -> Self {
        Self { text, accepted: Vec::new() }
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of accepted text in it.
    pub fn accepted(&self) -> usize {
        self.accepted.iter().map(|piece| piece.length).sum()
    }

    /// Where a place of the script's text is: behind what was accepted there.
    pub fn offset(&self, place: usize) -> usize {
        place + self.before(place + 1)
    }

    /// Makes the script's changes, sorted and disjoint; the edits of the whole text that they are.
    pub fn edit(&mut self, changes: &[TextChange]) -> Vec<Edit> {
        let edits: Vec<Edit> = changes.iter().map(|change| self.edit_of(change)).collect();
        // From the back, so that places in front keep their meaning.
        for (change, edit) in changes.iter().zip(&edits).rev() {
            self.text.replace_range(edit.range.clone(), &edit.text);
            self.accepted.retain(|piece| piece.at <= change.start || piece.at >= change.end);
            let behind = |piece: &&mut AcceptedText| piece.at >= change.end && piece.at > change.start;
            for piece in self.accepted.iter_mut().filter(behind) {
                piece.at = piece.at - (change.end - change.start) + change.text.len();
            }
        }
        edits
    }

    /// Takes text over at a place of the script's text.
    pub fn accept(&mut self, place: usize, text: &str) -> Vec<Edit> {
        let offset = self.offset(place);
        self.text.insert_str(offset, text);
        let behind = self.accepted.partition_point(|piece| piece.at <= place);
        self.accepted.insert(behind, AcceptedText { at: place, length: text.len() });
        vec![Edit { range: offset..offset, text: text.to_owned() }]
    }

    /// Deletes all accepted text.
    pub fn discard(&mut self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let mut before = 0;
        for piece in std::mem::take(&mut self.accepted) {
            let start = piece.at + before;
            before += piece.length;
            match edits.last_mut() {
                Some(last) if last.range.end == start => last.range.end += piece.length,
                _ => edits.push(Edit { range: start..start + piece.length, text: String::new() }),
            }
        }
        for edit in edits.iter().rev() {
            self.text.replace_range(edit.range.clone(), "");
        }
        edits
    }

    /// Accepted bytes in front of a place of the script's text.
    fn before(&self, place: usize) -> usize {
        self.accepted.iter().take_while(|piece| piece.at < place).map(|piece| piece.length).sum()
    }

    /// What is accepted at a change's start or end stays; what is accepted inside it goes.
    fn edit_of(&self, change: &TextChange) -> Edit {
        let start = self.offset(change.start);
        let end = if change.end > change.start { change.end + self.before(change.end) } else { start };
        Edit { range: start..end, text: change.text.clone() }
    }
}
