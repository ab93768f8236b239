//! Text edits: ranges in bytes or LSP positions, checked against one text and put in order.

use crate::error::TextError;
use ropey::Rope;

/// Counts the applied edits of a document. An edit names the revision that it was made against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after one more edit.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a text as the Language Server Protocol 3.17 counts: lines from 0, ended by `\n`, `\r\n` or `\r`, and
/// UTF-16 code units from the line's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LspPosition {
    /// The line, from 0.
    pub line: u32,
    /// UTF-16 code units before the place in its line. Unlike in LSP, one behind the line's end is an error: clients
    /// that count differently from the pool should hear of it.
    pub utf16_column: u32,
}

/// What an edit replaces: start inclusive, end exclusive; empty for an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Offsets in bytes of UTF-8.
    Bytes {
        /// The first byte.
        start: usize,
        /// The byte behind the last.
        end: usize,
    },
    /// Places as editors count them.
    Lsp {
        /// The first character.
        start: LspPosition,
        /// The character behind the last.
        end: LspPosition,
    },
}

/// Replaces a range by a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEdit {
    /// What goes, in the text of the base revision.
    pub range: Range,
    /// What comes.
    pub insert: String,
}

/// An edit that was checked: byte offsets at character boundaries of the base text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed<'a> {
    /// The first byte that goes.
    pub start: usize,
    /// The byte behind the last that goes.
    pub end: usize,
    /// What comes.
    pub insert: &'a str,
    /// Where the edit stands in its request.
    pub index: usize,
}

/// Checks edits against their base text and sorts them. Insertions at one place stay in request order and come before
/// a replacement that starts there, as in LSP's `TextEdit[]`. Edits that do nothing are dropped.
pub(crate) fn place<'a>(text: &Rope, edits: &'a [TextEdit]) -> Result<Vec<Placed<'a>>, TextError> {
    let placed = |(index, edit): (usize, &'a TextEdit)| {
        let (start, end) = bytes(text, index, edit.range)?;
        Ok(Placed { start, end, insert: edit.insert.as_str(), index })
    };
    let mut list = edits.iter().enumerate().map(placed).collect::<Result<Vec<_>, TextError>>()?;
    list.sort_by_key(|edit| (edit.start, edit.end));
    for pair in list.windows(2) {
        let [first, second] = pair else { continue };
        if second.start < first.end {
            return Err(TextError::EditsOverlap {
                edit: first.index.max(second.index),
                other: first.index.min(second.index),
                start: second.start,
                end: first.end,
            });
        }
    }
    list.retain(|edit| edit.start < edit.end || !edit.insert.is_empty());
    Ok(list)
}

/// The text after edits that [`place`] put in order.
pub(crate) fn apply(text: &Rope, edits: &[Placed]) -> Rope {
    let mut new = text.clone();
    for edit in edits.iter().rev() {
        let start = new.byte_to_char(edit.start);
        new.remove(start..new.byte_to_char(edit.end));
        new.insert(start, edit.insert);
    }
    new
}

pub(crate) fn bytes(text: &Rope, edit: usize, range: Range) -> Result<(usize, usize), TextError> {
    let (start, end) = match range {
        Range::Bytes { start, end } => (start, end),
        Range::Lsp { start, end } => (position(text, edit, start)?, position(text, edit, end)?),
    };
    if start > end {
        return Err(TextError::RangeReversed { edit, start, end });
    }
    if end > text.len_bytes() {
        return Err(TextError::RangeOutOfBounds { edit, end, length: text.len_bytes() });
    }
    for offset in [start, end] {
        let before = text.char_to_byte(text.byte_to_char(offset));
        if before != offset {
            let after = text.char_to_byte(text.byte_to_char(offset) + 1);
            return Err(TextError::InsideCharacter { edit, offset, before, after });
        }
    }
    Ok((start, end))
}

fn position(text: &Rope, edit: usize, position: LspPosition) -> Result<usize, TextError> {
    let LspPosition { line, utf16_column: column } = position;
    let (index, lines) = (line as usize, text.len_lines());
    if index >= lines {
        return Err(TextError::BadLine { edit, line, lines });
    }
    let start = text.line_to_char(index);
    let (first, length) = (text.char_to_utf16_cu(start), units_of_line(text, index));
    if column as usize > length {
        return Err(TextError::ColumnPastEnd { edit, line, column, length });
    }
    let place = text.utf16_cu_to_char(first + column as usize);
    if text.char_to_utf16_cu(place) != first + column as usize {
        return Err(TextError::ColumnInsidePair { edit, line, column });
    }
    Ok(text.char_to_byte(place))
}

/// UTF-16 code units of a line without its end.
fn units_of_line(text: &Rope, line: usize) -> usize {
    let content = text.line(line);
    let mut length = content.len_utf16_cu();
    let mut backwards = content.chars_at(content.len_chars()).reversed();
    match backwards.next() {
        Some('\n') => length -= if backwards.next() == Some('\r') { 2 } else { 1 },
        Some('\r') => length -= 1,
        _ => {}
    }
    length
}
