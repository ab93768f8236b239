//! Positions and edits of a text, written with nothing but strings.

use pie_words::{LspPosition, PositionEncoding, TextEdit, TextRange};

/// Byte offsets of the lines of a text and of their ends without the line break: `\n`, `\r\n` and `\r` end lines.
fn lines(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let width = match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => 2,
            (b'\n' | b'\r', _) => 1,
            _ => 0,
        };
        if width > 0 {
            found.push((start, at));
            start = at + width;
        }
        at += width.max(1);
    }
    found.push((start, bytes.len()));
    found
}

/// The byte offset of a position, or nothing where it is inside of a character.
pub fn offset(text: &str, position: LspPosition) -> Option<usize> {
    let Some((start, end)) = lines(text).get(position.line as usize).copied() else {
        return Some(text.len());
    };
    let mut units = 0;
    for (at, character) in text[start..end].char_indices() {
        if units >= position.column as usize {
            return (units == position.column as usize).then_some(start + at);
        }
        units += match position.encoding {
            PositionEncoding::Utf8 => character.len_utf8(),
            PositionEncoding::Utf16 => character.len_utf16(),
            PositionEncoding::Utf32 => 1,
        };
    }
    (units <= position.column as usize).then_some(end)
}

/// The bytes of a range, or nothing where it is none of this text.
pub fn bytes(text: &str, range: TextRange) -> Option<(usize, usize)> {
    let (start, end) = match range {
        TextRange::Bytes { start, end } => (start, end),
        TextRange::Lsp { start, end } => (offset(text, start)?, offset(text, end)?),
    };
    text.get(start..end).map(|_| (start, end))
}

/// The text after edits, or nothing where they cannot all be made: each in the base text, none inside of another; insertions at
/// one place in the order of the request, and before a replacement that starts there.
pub fn edited(text: &str, edits: &[TextEdit]) -> Option<String> {
    let mut placed = Vec::new();
    for edit in edits {
        placed.push((bytes(text, edit.range)?, edit.insert.as_str()));
    }
    for (index, ((start, end), _)) in placed.iter().enumerate() {
        for ((other_start, other_end), _) in &placed[index + 1..] {
            let apart = end <= other_start || other_end <= start;
            if !apart {
                return None;
            }
        }
    }
    let (mut new, mut at) = (String::new(), 0);
    for place in 0..=text.len() {
        for ((start, end), insert) in &placed {
            if *start == place && start == end {
                new.push_str(&text[at..place]);
                new.push_str(insert);
                at = place;
            }
        }
        for ((start, end), insert) in &placed {
            if *start == place && start < end {
                new.push_str(&text[at..place]);
                new.push_str(insert);
                at = *end;
            }
        }
    }
    new.push_str(&text[at..]);
    Some(new)
}

/// The text after edits that follow each other, or nothing where one of them cannot be made.
pub fn edited_in_turn(text: &str, edits: &[TextEdit]) -> Option<String> {
    let mut text = text.to_owned();
    for edit in edits {
        let (start, end) = bytes(&text, edit.range)?;
        text.replace_range(start..end, &edit.insert);
    }
    Some(text)
}
