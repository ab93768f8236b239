//! What a session of the pool holds of a prompt: the tokens, and the texts that they were made of, so that a prompt that differs a
//! little is tokenized a little.

use crate::pool::ForwardingClient;
use crate::prompt::{Prompt, PromptPiece, PromptSection, TextPiece, Truncation};
use pie_text::{Document, TextError, Tokenizer};
use pie_words::{Spellings, Splices, TokenId};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Texts that are too long lose this part of what the prompt may have at a time, so that their first token is not another one with each
/// key that somebody types.
const CUT_STEPS: usize = 16;
/// Of what is left for both sides of the cursor, the side before it gets so many parts of [`SIDE_PARTS`] if both are too long.
const BEFORE_PARTS: usize = 3;
const SIDE_PARTS: usize = 4;

/// A session of the pool and what it holds.
#[derive(Debug)]
pub(crate) struct HeldSession {
    /// Its name in the pool.
    pub name: String,
    /// None before it is opened.
    pub life: Option<PoolSession>,
    /// F1: the tokens that it has at this revision.
    pub tokens: Vec<TokenId>,
    /// Texts of earlier prompts with their tokens: what is lost of them is tokenized again.
    pub texts: Vec<HeldText>,
}

impl HeldSession {
    /// A session that is not open yet.
    pub fn unopened(name: String) -> Self {
        Self { name, life: None, tokens: Vec::new(), texts: Vec::new() }
    }
}

/// An open session, as the pool told it.
#[derive(Debug)]
pub(crate) struct PoolSession {
    /// Whose it is: whoever closes it when it makes room may be another tenant.
    pub caller: ForwardingClient,
    /// Which life of its name.
    pub identity: String,
    /// After the last edit.
    pub revision: u64,
}

/// A text that was tokenized.
#[derive(Debug)]
pub(crate) struct HeldText {
    role: PromptSection,
    spellings: Spellings,
    hash: u128,
    document: Document,
}

/// A prompt that was tokenized.
#[derive(Debug)]
pub(crate) struct TokenizedPrompt {
    /// All of it.
    pub tokens: Vec<TokenId>,
    /// Its texts, for the next one.
    pub texts: Vec<HeldText>,
    /// Some of it was left out because the whole is too long.
    pub is_cut: bool,
}

/// Why a prompt cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It does not fit in the model's context.
    #[error(
        "the prompt has {length} {unit}, and the model's context takes {limit} tokens, those that are generated included: send a part of it"
    )]
    TooLong {
        /// How long it is.
        length: usize,
        /// In what.
        unit: &'static str,
        /// The context.
        limit: usize,
    },
    /// The tokenizer refuses it.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// How many tokens a prompt may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenBudget {
    /// The model's context.
    pub context: usize,
    /// Of that, tokens that are kept free for what is generated, where texts can be cut for it.
    pub generated: usize,
}

/// Turns prompts into tokens.
#[derive(Debug)]
pub(crate) struct PromptTokenizer {
    tokenizer: Arc<Tokenizer>,
}

/// A piece's tokens, before it is known which of them fit.
struct TokenizedPiece {
    lead: Vec<TokenId>,
    tokens: Vec<TokenId>,
    room: Truncation,
}

impl TokenizedPiece {
    fn len(&self) -> usize {
        self.lead.len() + self.tokens.len()
    }
}

impl PromptTokenizer {
    /// A reader for a model.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer }
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The tokens of a prompt. Texts that were there `before` are not tokenized again, and those that differ a little around what
    /// differs only.
    ///
    /// # Errors
    /// [`ReadError`]; nothing was changed but texts that may go.
    pub fn read(
        &self,
        prompt: Prompt,
        mut before: Vec<HeldText>,
        space: TokenBudget,
    ) -> Result<TokenizedPrompt, ReadError> {
        let (mut parts, mut texts) = (Vec::new(), Vec::new());
        // Those that are as they were first: what is left then may become the others.
        let hashes: Vec<Option<u128>> = prompt.pieces.iter().map(hash).collect();
        let mut known: Vec<Option<HeldText>> = prompt
            .pieces
            .iter()
            .zip(&hashes)
            .map(|(piece, hash)| take(&mut before, |held| held.is(piece, *hash)))
            .collect();
        for ((piece, hash), known) in prompt.pieces.into_iter().zip(hashes).zip(&mut known) {
            match piece {
                PromptPiece::Tokens(tokens) => {
                    parts.push(TokenizedPiece { lead: Vec::new(), tokens, room: Truncation::Fixed })
                }
                PromptPiece::Text(piece) => {
                    let held = match known.take() {
                        Some(held) => held,
                        None => self.tokenized(&piece, hash.unwrap_or_default(), &mut before)?,
                    };
                    let tokens = held.document.entries().map(|entry| entry.id).collect();
                    parts.push(TokenizedPiece { lead: piece.lead, tokens, room: piece.room });
                    texts.push(held);
                }
            }
        }
        let is_cut = cut(&mut parts, space)?;
        let tokens = parts.into_iter().flat_map(|part| part.lead.into_iter().chain(part.tokens)).collect();
        Ok(TokenizedPrompt { tokens, texts, is_cut })
    }

    /// What the tokens of a session are to become.
    pub fn splices(&self, held: &[TokenId], reading: &TokenizedPrompt) -> Splices {
        self.tokenizer.difference(held, &reading.tokens)
    }

    /// A prompt without what cannot fit, however few tokens it had: nobody looks at that.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] where it must not be cut.
    pub fn within(&self, mut prompt: Prompt, space: TokenBudget) -> Result<Prompt, ReadError> {
        let Some(most) = self.tokenizer.most_bytes(space.context) else { return Ok(prompt) };
        for piece in &mut prompt.pieces {
            if let PromptPiece::Text(piece) = piece
                && piece.text.len() > most
            {
                shorten(piece, most, space)?;
            }
        }
        Ok(prompt)
    }

    fn tokenized(
        &self,
        piece: &TextPiece,
        hash: u128,
        before: &mut Vec<HeldText>,
    ) -> Result<HeldText, ReadError> {
        let is_same = |held: &HeldText| held.role == piece.role && held.spellings == piece.spellings;
        // A chunk that is another one has nothing in common with any.
        let was = if piece.role == PromptSection::Chunk { None } else { take(before, is_same) };
        if let Some(mut held) = was {
            let change = held.document.become_text(&piece.text)?;
            held.document.commit(change)?;
            return Ok(HeldText { hash, ..held });
        }
        let tokenizer = self.tokenizer.reading(piece.spellings);
        let document = Document::open(tokenizer, &piece.text, usize::MAX)?;
        Ok(HeldText { role: piece.role, spellings: piece.spellings, hash, document })
    }
}

impl HeldText {
    fn is(&self, piece: &PromptPiece, hash: Option<u128>) -> bool {
        let PromptPiece::Text(piece) = piece else { return false };
        self.role == piece.role && self.spellings == piece.spellings && Some(self.hash) == hash
    }
}

/// A text of no more bytes than this.
fn shorten(piece: &mut TextPiece, most: usize, space: TokenBudget) -> Result<(), ReadError> {
    match piece.room {
        Truncation::Fixed => {
            let (length, limit) = (piece.text.len(), space.context);
            return Err(ReadError::TooLong { length, unit: "bytes", limit });
        }
        Truncation::FromStart => {
            let start = boundary(&piece.text, piece.text.len() - most);
            piece.text.drain(..start);
        }
        Truncation::FromEnd => piece.text.truncate(boundary(&piece.text, most)),
        Truncation::Whole => piece.text.clear(),
    }
    Ok(())
}

/// The last place in a text up to `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn hash(piece: &PromptPiece) -> Option<u128> {
    match piece {
        PromptPiece::Text(piece) => Some(xxh3_128(piece.text.as_bytes())),
        PromptPiece::Tokens(_) => None,
    }
}

fn take<T>(list: &mut Vec<T>, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
    let at = list.iter().position(is_wanted)?;
    Some(list.swap_remove(at))
}

/// Leaves out what does not fit: chunks, the first of them first, then the far ends of both sides of the cursor. Whether anything
/// was.
fn cut(parts: &mut [TokenizedPiece], space: TokenBudget) -> Result<bool, ReadError> {
    let length: usize = parts.iter().map(TokenizedPiece::len).sum();
    let of = |parts: &[TokenizedPiece], room: Truncation| -> usize {
        parts.iter().filter(|part| part.room == room).map(TokenizedPiece::len).sum()
    };
    let fixed = of(parts, Truncation::Fixed);
    let (before, behind) = (of(parts, Truncation::FromStart), of(parts, Truncation::FromEnd));
    let may_be_cut = fixed < length;
    let limit = if may_be_cut { space.context.saturating_sub(space.generated) } else { space.context };
    if length <= limit {
        return Ok(false);
    }
    let Some(left) = limit.checked_sub(fixed).filter(|_| may_be_cut) else {
        return Err(ReadError::TooLong { length, unit: "tokens", limit: space.context });
    };
    let step = (space.context / CUT_STEPS).max(1);
    let for_before = (left * BEFORE_PARTS / SIDE_PARTS).max(left.saturating_sub(behind));
    let before = before - stepped(before.saturating_sub(for_before), step).min(before);
    let for_behind = left.saturating_sub(before);
    let behind = behind - stepped(behind.saturating_sub(for_behind), step).min(behind);
    let mut for_chunks = left.saturating_sub(before + behind);
    for part in parts.iter_mut().rev() {
        match part.room {
            Truncation::Fixed => {}
            Truncation::FromStart => drop(part.tokens.drain(..part.tokens.len().saturating_sub(before))),
            Truncation::FromEnd => part.tokens.truncate(behind),
            Truncation::Whole if part.len() <= for_chunks => for_chunks -= part.len(),
            Truncation::Whole => (part.lead, part.tokens) = (Vec::new(), Vec::new()),
        }
    }
    Ok(true)
}

/// A number of tokens, rounded up to whole steps.
fn stepped(tokens: usize, step: usize) -> usize {
    tokens.div_ceil(step) * step
}

#[cfg(test)]
mod tests;
