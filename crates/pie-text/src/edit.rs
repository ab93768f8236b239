//! Text edits: ranges in bytes or LSP positions, checked against one text and put in order.

use crate::error::TextError;
use ropey::{Rope, RopeSlice};

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

/// A place in a text as the Language Server Protocol 3.17 counts: lines from 0, ended by `\n`, `\r\n` or `\r`, and columns
/// from the line's start. As there, a column behind the line's end is the line's end, and a line behind the last one is
/// the text's end: editors send such positions for "to the end".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LspPosition {
    /// The line, from 0.
    pub line: u32,
    /// Units before the place in its line.
    pub column: u32,
    /// What the column counts.
    pub units: Units,
}

/// What columns count: the protocol's `PositionEncodingKind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Units {
    /// Bytes of UTF-8.
    Utf8,
    /// Code units of UTF-16, unless client and server agree on others.
    #[default]
    Utf16,
    /// Characters.
    Utf32,
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
    let LspPosition { line, column, units } = position;
    if line as usize >= text.len_lines() {
        return Ok(text.len_bytes());
    }
    let content = text.line(line as usize);
    let content = content.slice(..content.len_chars() - line_break(content));
    let at = column as usize;
    let inside = match units {
        // In the middle of a character it is refused as any byte offset there.
        Units::Utf8 => at.min(content.len_bytes()),
        Units::Utf32 => content.char_to_byte(at.min(content.len_chars())),
        Units::Utf16 => {
            let place = content.utf16_cu_to_char(at.min(content.len_utf16_cu()));
            if content.char_to_utf16_cu(place) < at.min(content.len_utf16_cu()) {
                return Err(TextError::ColumnInsidePair { edit, line, column });
            }
            content.char_to_byte(place)
        }
    };
    Ok(text.line_to_byte(line as usize) + inside)
}

/// Characters of a line's end.
fn line_break(line: RopeSlice) -> usize {
    let mut backwards = line.chars_at(line.len_chars()).reversed();
    match backwards.next() {
        Some('\n') if backwards.next() == Some('\r') => 2,
        Some('\n' | '\r') => 1,
        _ => 0,
    }
}
