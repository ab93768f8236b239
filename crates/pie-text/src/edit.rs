//! Text edits: ranges in bytes or LSP positions, checked against one text and put in order.

use crate::error::TextError;
use pie_words::{LspPosition, PositionEncoding, TextEdit, TextRange};
use ropey::{Rope, RopeSlice};

/// An edit that was checked: byte offsets at character boundaries of the base text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckedEdit<'a> {
    /// The first byte that goes.
    pub start: usize,
    /// The byte behind the last that goes.
    pub end: usize,
    /// The text that comes in its place.
    pub insert: &'a str,
    /// Where the edit stands in its request.
    pub index: usize,
}

/// Checks edits against their base text and sorts them. Insertions at one place stay in request order and come before
/// a replacement that starts there, as in LSP's `TextEdit[]`. Edits that do nothing are dropped.
pub(crate) fn place<'a>(text: &Rope, edits: &'a [TextEdit]) -> Result<Vec<CheckedEdit<'a>>, TextError> {
    let placed = |(index, edit): (usize, &'a TextEdit)| {
        let (start, end) = bytes(text, index, edit.range)?;
        Ok(CheckedEdit { start, end, insert: edit.insert.as_str(), index })
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
pub(crate) fn apply(text: &Rope, edits: &[CheckedEdit]) -> Rope {
    let mut new = text.clone();
    for edit in edits.iter().rev() {
        let start = new.byte_to_char(edit.start);
        new.remove(start..new.byte_to_char(edit.end));
        new.insert(start, edit.insert);
    }
    new
}

pub(crate) fn bytes(text: &Rope, edit: usize, range: TextRange) -> Result<(usize, usize), TextError> {
    let (start, end) = match range {
        TextRange::Bytes { start, end } => (start, end),
        TextRange::Lsp { start, end } => (position(text, edit, start)?, position(text, edit, end)?),
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
    let LspPosition { line, column, encoding } = position;
    if line as usize >= text.len_lines() {
        return Ok(text.len_bytes());
    }
    let content = text.line(line as usize);
    let content = content.slice(..content.len_chars() - line_break(content));
    let at = column as usize;
    let inside = match encoding {
        // In the middle of a character it is refused as any byte offset there.
        PositionEncoding::Utf8 => at.min(content.len_bytes()),
        PositionEncoding::Utf32 => content.char_to_byte(at.min(content.len_chars())),
        PositionEncoding::Utf16 => {
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
