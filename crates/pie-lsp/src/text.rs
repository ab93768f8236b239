//! A document's text as the editor changes it: positions in lines and columns, and what a change does in bytes.

use lsp_types::{Position, PositionEncodingKind, TextDocumentContentChangeEvent};
use pie_client::Edit;
use ropey::{Rope, RopeSlice};

/// What columns count, as editor and server agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColumnEncoding {
    /// Bytes.
    Utf8,
    /// Code units of UTF-16: what all editors know.
    #[default]
    Utf16,
    /// Characters.
    Utf32,
}

impl ColumnEncoding {
    /// The first that the editor offers; UTF-16 if it offers nothing.
    pub fn agreed(offered: Option<&[PositionEncodingKind]>) -> Self {
        let known = |kind: &PositionEncodingKind| match kind.as_str() {
            "utf-8" => Some(Self::Utf8),
            "utf-16" => Some(Self::Utf16),
            "utf-32" => Some(Self::Utf32),
            _ => None,
        };
        offered.unwrap_or_default().iter().find_map(known).unwrap_or_default()
    }

    /// Its name in the protocol.
    pub fn kind(self) -> PositionEncodingKind {
        match self {
            Self::Utf8 => PositionEncodingKind::UTF8,
            Self::Utf16 => PositionEncodingKind::UTF16,
            Self::Utf32 => PositionEncodingKind::UTF32,
        }
    }
}

/// The byte at a position. A column behind the line's end is the line's end, a line behind the last one is the document's end, and the
/// middle of a character is its start.
pub fn offset(text: &Rope, at: Position, encoding: ColumnEncoding) -> usize {
    let line = at.line as usize;
    if line >= text.len_lines() {
        return text.len_bytes();
    }
    let content = without_break(text.line(line));
    let column = at.character as usize;
    let character = match encoding {
        ColumnEncoding::Utf8 => content.byte_to_char(column.min(content.len_bytes())),
        ColumnEncoding::Utf16 => content.utf16_cu_to_char(column.min(content.len_utf16_cu())),
        ColumnEncoding::Utf32 => column.min(content.len_chars()),
    };
    text.line_to_byte(line) + content.char_to_byte(character)
}

/// The position of a byte.
pub fn position(text: &Rope, byte: usize, encoding: ColumnEncoding) -> Position {
    let character = text.byte_to_char(byte.min(text.len_bytes()));
    let line = text.char_to_line(character);
    let start = text.line_to_char(line);
    let before = text.slice(start..character);
    let column = match encoding {
        ColumnEncoding::Utf8 => before.len_bytes(),
        ColumnEncoding::Utf16 => before.len_utf16_cu(),
        ColumnEncoding::Utf32 => before.len_chars(),
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position::new(count(line), count(column))
}

/// Makes a change, and says what it was: no more than what differs, in bytes of the text before it. `None` if nothing differs.
pub fn apply(
    text: &mut Rope,
    change: TextDocumentContentChangeEvent,
    encoding: ColumnEncoding,
) -> Option<Edit> {
    let (start, end) = match change.range {
        Some(range) => {
            let (start, end) = (offset(text, range.start, encoding), offset(text, range.end, encoding));
            (start.min(end), start.max(end))
        }
        None => (0, text.len_bytes()),
    };
    let edit = differing(text.byte_slice(start..end), start, &change.text)?;
    let from = text.byte_to_char(edit.range.start);
    text.remove(from..text.byte_to_char(edit.range.end));
    text.insert(from, &edit.text);
    Some(edit)
}

/// The letters before a byte that make a word: what editors match the items of a list with.
pub fn word_before(text: &Rope, byte: usize) -> String {
    let at = text.byte_to_char(byte.min(text.len_bytes()));
    let letters = text.chars_at(at).reversed();
    let word: Vec<char> =
        letters.take_while(|letter| letter.is_alphanumeric() || *letter == '_').take(WORD).collect();
    word.into_iter().rev().collect()
}

/// Longer words are none.
const WORD: usize = 128;

/// What is left of a replacement without what both texts begin and end with. Editors replace whole words, lines, and files.
fn differing(old: RopeSlice<'_>, start: usize, new: &str) -> Option<Edit> {
    let common = |pairs: &mut dyn Iterator<Item = (char, char)>| -> usize {
        pairs.take_while(|(left, right)| left == right).map(|(left, _)| left.len_utf8()).sum()
    };
    let head = common(&mut old.chars().zip(new.chars()));
    let (rest, new) = (old.byte_slice(head..), &new[head..]);
    let tail = common(&mut rest.chars_at(rest.len_chars()).reversed().zip(new.chars().rev()));
    let range = start + head..start + old.len_bytes() - tail;
    let text = new[..new.len() - tail].to_owned();
    (!range.is_empty() || !text.is_empty()).then_some(Edit { range, text })
}

/// A line without its end: `\n`, `\r\n` or `\r`.
fn without_break(line: RopeSlice<'_>) -> RopeSlice<'_> {
    let mut backwards = line.chars_at(line.len_chars()).reversed();
    let ending = match backwards.next() {
        Some('\n') if backwards.next() == Some('\r') => 2,
        Some('\n' | '\r') => 1,
        _ => 0,
    };
    line.slice(..line.len_chars() - ending)
}

#[cfg(test)]
mod tests;
