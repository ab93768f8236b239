//! Prompts that fill in the middle: what a model is to read besides both sides of the cursor, and where.
//!
//! ```text
//! begin of sentence | chunks of other texts, as parts stand in front of a document (`pie-text/src/parts.rs`)
//!   | the model's markers and both sides, in its order | what the cursor's line begins with
//! ```

use crate::error::ApiError;
use crate::prompt::{Prompt, PromptPiece, PromptSection, TextPiece, Truncation};
use axum::http::StatusCode;
use pie_proto::Reason;
use pie_text::{Fim, FimOrder, Tokenizer, led_by};
use pie_words::{Spellings, TokenId};

/// Both sides of the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    /// The text before it.
    pub before: String,
    /// The text behind it.
    pub behind: String,
    /// Whether their far ends may go.
    pub fit: Fit,
}

/// What happens to sides that are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// They are refused.
    Refused,
    /// Their far ends are left out.
    Cut,
}

/// A piece of another file, or of another place in this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextChunk {
    /// Of the file.
    pub name: String,
    /// What stands there.
    pub text: String,
}

/// Names where nobody says any.
const REPOSITORY: &str = "repository\n";
const FILE: &str = "file\n";

/// The prompt for both sides of a cursor, with chunks of other texts before them. The answer goes on behind `begun`.
///
/// # Errors
/// The model does not fill in the middle.
pub(crate) fn around(
    tokenizer: &Tokenizer,
    sides: Sides,
    chunks: Vec<ContextChunk>,
    begun: String,
) -> Result<Prompt, ApiError> {
    let Some(fim) = tokenizer.fim() else {
        let message = "the model is not known to fill in the middle: send a prompt without what follows the cursor, or have the pool \
                       started with --fim";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, Reason::FimUnsupported.as_str(), message));
    };
    let mut pieces = vec![PromptPiece::Tokens(tokenizer.prefix().to_vec())];
    if !chunks.is_empty() {
        pieces.extend(repository(tokenizer, chunks));
    }
    let Fim { open, between, close, order, .. } = fim;
    let (from_start, from_end) = match sides.fit {
        Fit::Refused => (Truncation::Fixed, Truncation::Fixed),
        Fit::Cut => (Truncation::FromStart, Truncation::FromEnd),
    };
    let before = text(sides.before, PromptSection::Before, from_start, &[]);
    let behind = text(sides.behind, PromptSection::Behind, from_end, &[]);
    let (first, second) = match order {
        FimOrder::PrefixFirst => (before, behind),
        FimOrder::SuffixFirst => (behind, before),
    };
    pieces.extend([PromptPiece::Tokens(open.clone()), first, PromptPiece::Tokens(between.clone()), second]);
    pieces.push(PromptPiece::Tokens(close.clone()));
    if !begun.is_empty() {
        pieces.push(text(begun, PromptSection::Begun, Truncation::Fixed, &[]));
    }
    Ok(Prompt { pieces })
}

/// The chunks as files of one repository, in front of this one: as documents of the pool have their parts.
fn repository(tokenizer: &Tokenizer, chunks: Vec<ContextChunk>) -> Vec<PromptPiece> {
    let markers = tokenizer.file_markers();
    let lead: Vec<TokenId> = markers.iter().map(|markers| markers.file).collect();
    let chunk = |chunk: ContextChunk| {
        text(led_by(markers, &chunk.name, &chunk.text), PromptSection::Chunk, Truncation::Whole, &lead)
    };
    let chunks = chunks.into_iter().map(chunk);
    let Some(markers) = markers else { return chunks.collect() };
    let mut pieces =
        vec![text(REPOSITORY.to_owned(), PromptSection::Name, Truncation::Fixed, &[markers.repository])];
    pieces.extend(chunks);
    pieces.push(text(FILE.to_owned(), PromptSection::Name, Truncation::Fixed, &lead));
    pieces
}

fn text(text: String, role: PromptSection, room: Truncation, lead: &[TokenId]) -> PromptPiece {
    PromptPiece::Text(TextPiece { lead: lead.to_vec(), text, role, spellings: Spellings::Text, room })
}
