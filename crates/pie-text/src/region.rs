//! Writing the lines around a cursor anew, with what the latest edits ask for there: the *region*, what a model is told of it, and
//! what its answer changes.
//!
//! The document stays where it is: what the model is told stands behind it, and is all that is encoded for it.

mod answer;
mod prompt;

pub use answer::{AnswerEnd, RegionAnswer};
pub use prompt::{PromptForm, UnknownForm};

use crate::diff::diff;
use crate::document::Document;
use crate::edit::bytes;
use crate::error::TextError;
use pie_words::{Cursor, RegionLines, TextRange, TokenId};
use prompt::{EditedLines, Told};
use ropey::Rope;
use similar::DiffOp;
use std::ops::Range;

/// Lines of the text around each of the latest edits that a model is shown with it.
const AROUND: usize = 1;
/// Edits that a model is told of, the latest.
const EDITS: usize = 8;
/// Bytes of an edit that a model is told of; larger ones stand in the document anyway.
const EDIT_BYTES: usize = 2 << 10;
/// Bytes of the largest region.
const REGION_BYTES: usize = 16 << 10;

/// A region, and what a model is told to write it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditableRegion {
    /// Its bytes in the document: whole lines.
    pub bytes: Range<usize>,
    /// Its text as it is.
    pub text: String,
    /// Its tokens, which are likely to come again.
    pub expected: Vec<TokenId>,
    /// What the model is told, behind the document.
    pub prompt: Vec<TokenId>,
    /// Besides the model's own, what ends the region in its answer.
    pub stop: Vec<String>,
}

impl Document {
    /// The lines around a cursor, or at the document's end, and what a model is told to write them anew: the latest edits of the
    /// document, as far as they are known, and what stands there now. Changes nothing.
    ///
    /// # Errors
    /// A cursor that is no place in the document; [`TextError::TokensOnly`]; [`TextError::RegionTooLong`].
    pub fn region(&self, cursor: Option<Cursor>, lines: RegionLines) -> Result<EditableRegion, TextError> {
        let text = self.rope().ok_or(TextError::TokensOnly)?;
        let range = match cursor {
            None => TextRange::Bytes { start: text.len_bytes(), end: text.len_bytes() },
            Some(Cursor::Byte(at)) => TextRange::Bytes { start: at, end: at },
            Some(Cursor::Lsp(at)) => TextRange::Lsp { start: at, end: at },
            Some(Cursor::Token(_)) => return Err(TextError::TextOnly),
        };
        let (at, _) = bytes(text, 0, range)?;
        let line = text.byte_to_line(at);
        let [before, behind] = [lines.before, lines.behind].map(|lines| lines as usize);
        let rows = line.saturating_sub(before)..line.saturating_add(behind).saturating_add(1);
        let rows = without_blank_ends(text, rows.start..rows.end.min(text.len_lines()));
        let bytes = text.line_to_byte(rows.start)..text.line_to_byte(rows.end);
        if bytes.len() > REGION_BYTES {
            return Err(TextError::RegionTooLong { bytes: bytes.len(), limit: REGION_BYTES });
        }
        let now = text.byte_slice(bytes.clone()).to_string();
        let lines = if self.bursts().before_all().is_some() { lines_of(text) } else { Vec::new() };
        let original =
            self.bursts().before_latest().map(|before| as_it_was(&lines_of(before), &lines, rows.clone()));
        let told = Told {
            path: self.parts().document.clone(),
            edits: self
                .bursts()
                .before_all()
                .map_or_else(Vec::new, |before| edited_lines(&lines_of(before), &lines)),
            // What was much longer says little of what comes next.
            original: original
                .filter(|original| original.len() <= REGION_BYTES)
                .unwrap_or_else(|| now.clone()),
            before_cursor: at.clamp(bytes.start, bytes.end) - bytes.start,
            rows,
            now: now.clone(),
        };
        let tokenizer = self.text_tokenizer();
        let prompt = tokenizer.prompt_form().prompt(&told, &tokenizer)?;
        let expected = tokenizer.text_tokens(&now.replace("\r\n", "\n"))?;
        Ok(EditableRegion { bytes, text: now, expected, prompt: prompt.tokens, stop: prompt.stop })
    }
}

/// Models are careless about empty lines at the ends of what they write.
fn without_blank_ends(text: &Rope, rows: Range<usize>) -> Range<usize> {
    let is_blank = |row: &usize| text.line(*row).chars().all(char::is_whitespace);
    let Some(last) = rows.clone().rev().find(|row| !is_blank(row)) else { return rows };
    rows.start + rows.clone().take_while(is_blank).count()..last + 1
}

fn lines_of(text: &Rope) -> Vec<String> {
    text.lines().map(|line| line.to_string()).collect()
}

/// The latest places where a text differs from what it was, from its begin to its end.
fn edited_lines(old: &[String], new: &[String]) -> Vec<EditedLines> {
    let around = |lines: &[String], range: Range<usize>| {
        lines[range.start.saturating_sub(AROUND)..lines.len().min(range.end + AROUND)].concat()
    };
    let shown = |hunk: &DiffOp| EditedLines {
        original: around(old, hunk.old_range()),
        updated: around(new, hunk.new_range()),
    };
    let mut all: Vec<EditedLines> = diff(old, new).iter().map(shown).collect();
    all.retain(|edit| edit.original.len().max(edit.updated.len()) <= EDIT_BYTES);
    all.split_off(all.len().saturating_sub(EDITS))
}

/// Lines of a text as they were in an earlier one.
fn as_it_was(old: &[String], new: &[String], rows: Range<usize>) -> String {
    let (mut text, mut next) = (String::new(), rows.start);
    for hunk in diff(old, new) {
        let there = hunk.new_range();
        if there.end < rows.start || there.start >= rows.end || there.start < next {
            continue;
        }
        text.push_str(&new[next..there.start].concat());
        text.push_str(&old[hunk.old_range()].concat());
        next = there.end.min(rows.end);
    }
    text.push_str(&new[next..rows.end].concat());
    text
}
