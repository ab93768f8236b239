//! Edits of a text and cursors in it, as clients give them: not yet looked for in any text; and what they do to it.

use crate::ids::{TokenId, TokenIndex};

/// A position in a text as the Language Server Protocol 3.17 counts: lines from 0, ended by `\n`, `\r\n` or `\r`, and columns
/// from the line's start. As there, a column behind the line's end is the line's end, and a line behind the last one is
/// the text's end: editors send such positions for "to the end".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LspPosition {
    /// The line, from 0.
    pub line: u32,
    /// The units before the position in its line.
    pub column: u32,
    /// What the column counts.
    pub encoding: PositionEncoding,
}

/// What columns count: the protocol's `PositionEncodingKind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PositionEncoding {
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
pub enum TextRange {
    /// Offsets in bytes of UTF-8.
    Bytes {
        /// The first byte.
        start: usize,
        /// The byte behind the last.
        end: usize,
    },
    /// Positions as editors count them.
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
    /// What goes, in the text that the edit is made against.
    pub range: TextRange,
    /// What comes.
    pub insert: String,
}

/// A part of a text in place of another: what an edit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Bytes of the text before.
    pub start: usize,
    /// Behind the last of them.
    pub end: usize,
    /// What stands there now.
    pub text: String,
}

/// How many lines around a cursor are written anew, the cursor's own besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLines {
    /// Before it.
    pub before: u32,
    /// Behind it.
    pub behind: u32,
}

impl Default for RegionLines {
    /// As many as models for this were trained with.
    fn default() -> Self {
        Self { before: 10, behind: 10 }
    }
}

/// A token of a text, and where pieces start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextToken {
    /// The token's id in the vocabulary.
    pub id: TokenId,
    /// Bytes of text of the piece that starts with this token; 0 inside of a piece.
    pub piece_bytes: u32,
}

/// A text that stands in front of a document: of another file, or of another place in the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What the model is told that it is: a path, mostly.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What stands in front of a document, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The texts.
    pub list: Vec<Part>,
    /// What the model is told that the document is, where there are any.
    pub document: String,
}

/// A place between two characters, or between two tokens in a document of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// A UTF-8 byte offset.
    Byte(usize),
    /// A position of the Language Server Protocol.
    Lsp(LspPosition),
    /// A token index.
    Token(TokenIndex),
}
