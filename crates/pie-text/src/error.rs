//! What can be wrong with an edit, and with a tokenizer.

use pie_words::Revision;

use std::path::PathBuf;

/// Why a document refuses an edit. A refused edit has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// R1: the edit was made against another revision.
    #[error(
        "the edit was made against revision {base}, the document is at {current}: rebase it on the current text, or \
         open the document again with the whole text"
    )]
    RevisionMismatch {
        /// The revision that the edit names.
        base: Revision,
        /// The revision of the document.
        current: Revision,
    },
    /// A range that starts behind its end.
    #[error("edit {edit} covers bytes {start}..{end}, which starts behind its end: swap the two")]
    RangeReversed {
        /// Which edit of the request, from 0.
        edit: usize,
        /// The first byte of the range.
        start: usize,
        /// The byte behind its last, which lies before `start`.
        end: usize,
    },
    /// A range that leaves the text.
    #[error(
        "edit {edit} ends at byte {end}, the text has {length}: all edits of a request count in the base revision's text, \
         sequential ones in the text after those before"
    )]
    RangeOutOfBounds {
        /// Which edit of the request, from 0.
        edit: usize,
        /// The byte behind the range's last.
        end: usize,
        /// Bytes of the text.
        length: usize,
    },
    /// A token splice that leaves the document.
    #[error("splice {edit} ends at token {end}, the document has {length}: rebase it on the current tokens")]
    SpliceOutOfBounds {
        /// Which splice of the request, from 0.
        edit: usize,
        /// The token behind the splice's last.
        end: u64,
        /// Tokens of the document.
        length: u32,
    },
    /// A byte offset in the middle of a character.
    #[error(
        "edit {edit} has byte offset {offset}, which is inside of the character at bytes {before}..{after}: offsets \
         count bytes of UTF-8; send LSP positions if you count UTF-16 units"
    )]
    InsideCharacter {
        /// Which edit of the request, from 0.
        edit: usize,
        /// The byte offset that is no boundary of characters.
        offset: usize,
        /// Where the character starts.
        before: usize,
        /// The next boundary behind it.
        after: usize,
    },
    /// Two edits that cover the same text.
    #[error(
        "edits {other} and {edit} both cover bytes {start}..{end} (or one inserts inside of the other): merge them"
    )]
    EditsOverlap {
        /// The later of the two in the request, from 0.
        edit: usize,
        /// The place in the request of the edit that it overlaps.
        other: usize,
        /// Where the second in the text starts.
        start: usize,
        /// Where the first in the text ends.
        end: usize,
    },
    /// A column in the middle of a surrogate pair.
    #[error(
        "edit {edit} is at column {column} of line {line}, inside of a surrogate pair: move it to either side, or say what the \
         columns count"
    )]
    ColumnInsidePair {
        /// Which edit of the request, from 0.
        edit: usize,
        /// The line of the position, from 0.
        line: u32,
        /// The column, in UTF-16 code units.
        column: u32,
    },
    /// More text than a document may have.
    #[error("the text would have {bytes} bytes, at most {limit} are taken: send a part of it")]
    TooLong {
        /// Bytes that it would have.
        bytes: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// Text for a document of tokens.
    #[error("the document was opened with tokens and has no text: edit it with token splices")]
    TokensOnly,
    /// Tokens for a document of text.
    #[error("the document was opened with text: edit it with text edits, or open one with tokens")]
    TextOnly,
    /// A change that was prepared by another document.
    #[error("the change was prepared by another document: commit it there")]
    ForeignChange,
    /// Lines around a cursor that are too much to be written anew.
    #[error(
        "the lines around the cursor have {bytes} bytes, at most {limit} are written anew: ask for fewer lines"
    )]
    RegionTooLong {
        /// Bytes of these lines.
        bytes: usize,
        /// Bytes that there may be.
        limit: usize,
    },
    /// White space that the patterns of an unknown tokenizer may not get through.
    #[error(
        "the text has more than {limit} characters of white space in a row, which this model's tokenizer may cut wrongly: \
         leave them out"
    )]
    LongRun {
        /// Characters that there may be.
        limit: usize,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer failed on a text of {bytes} bytes: {message}")]
    Tokenizer {
        /// Bytes of the text.
        bytes: usize,
        /// The tokenizers crate's own words.
        message: String,
    },
}

impl TextError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RevisionMismatch { .. } => "REVISION_MISMATCH",
            Self::RangeReversed { .. } => "RANGE_REVERSED",
            Self::RangeOutOfBounds { .. } | Self::SpliceOutOfBounds { .. } => "RANGE_OUT_OF_BOUNDS",
            Self::InsideCharacter { .. } => "INSIDE_CHARACTER",
            Self::EditsOverlap { .. } => "EDITS_OVERLAP",
            Self::ColumnInsidePair { .. } => "BAD_UTF16_COLUMN",
            Self::TooLong { .. } => "DOCUMENT_TOO_LONG",
            Self::TokensOnly => "TOKENS_ONLY",
            Self::TextOnly => "TEXT_ONLY",
            Self::ForeignChange => "FOREIGN_CHANGE",
            Self::RegionTooLong { .. } => "REGION_TOO_LONG",
            Self::LongRun { .. } => "RUN_TOO_LONG",
            Self::Tokenizer { .. } => "TOKENIZER_FAILED",
        }
    }

    /// Which edit of the request is wrong, from 0.
    pub fn edit(&self) -> Option<usize> {
        match self {
            Self::RangeReversed { edit, .. }
            | Self::RangeOutOfBounds { edit, .. }
            | Self::SpliceOutOfBounds { edit, .. }
            | Self::InsideCharacter { edit, .. }
            | Self::EditsOverlap { edit, .. }
            | Self::ColumnInsidePair { edit, .. } => Some(*edit),
            _ => None,
        }
    }

    /// The document's revision, where the edit named another.
    pub fn current_revision(&self) -> Option<Revision> {
        match self {
            Self::RevisionMismatch { current, .. } => Some(*current),
            _ => None,
        }
    }
}

/// Why a tokenizer is refused at load.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}; a model folder needs a tokenizer.json")]
    Read {
        /// The file that was to be read.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file that is no tokenizer.
    #[error("{name} is no tokenizer.json that can be used: {message}")]
    Parse {
        /// The file's name.
        name: String,
        /// What is wrong in it, and where.
        message: String,
    },
    /// A file beside a tokenizer.json that cannot be used.
    #[error("{name} is no JSON: {message}; mend or remove it")]
    Beside {
        /// The file's name.
        name: String,
        /// What is wrong in it, and where.
        message: String,
    },
    /// A kind of tokenizer that is not byte-level BPE as GPT-2 began it.
    #[error(
        "{name} cannot be used: {what}; needed is a byte-level BPE (GPT-2, DeepSeek-Coder, Llama 3, StarCoder)"
    )]
    Unsupported {
        /// The file's name.
        name: String,
        /// What is in it that cannot be used.
        what: String,
    },
    /// A way to fill in the middle that the model has no tokens for.
    #[error("{name} cannot fill in the middle so: {what}")]
    Fim {
        /// The file's name.
        name: String,
        /// What it lacks.
        what: String,
    },
}

impl TokenizerError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "TOKENIZER_UNREADABLE",
            Self::Parse { .. } | Self::Beside { .. } => "TOKENIZER_INVALID",
            Self::Unsupported { .. } => "TOKENIZER_UNSUPPORTED",
            Self::Fim { .. } => "FIM_TEMPLATE_INVALID",
        }
    }
}
