//! What a prompt is made of.

use pie_words::{Spellings, TokenId};
use std::borrow::Cow;

/// A prompt, piece by piece. Each piece is tokenized by itself, and its tokens follow those of the piece before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// In order.
    pub pieces: Vec<PromptPiece>,
}

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptPiece {
    /// Tokens as they are: what the pool puts around texts, or what a client has tokenized itself.
    Tokens(Vec<TokenId>),
    /// A text.
    Text(TextPiece),
}

impl PromptPiece {
    /// A text that its client has put together, with the control tokens that it spells.
    pub fn whole(text: String) -> Self {
        let (role, spellings, room) = (PromptSection::Whole, Spellings::ControlTokens, Truncation::Fixed);
        Self::Text(TextPiece { lead: Vec::new(), text, role, spellings, room })
    }
}

/// A text of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextPiece {
    /// Tokens in front that come and go with it, such as what parts files.
    pub lead: Vec<TokenId>,
    /// The text.
    pub text: String,
    /// What it stands for.
    pub role: PromptSection,
    /// Whether it may spell control tokens.
    pub spellings: Spellings,
    /// What of it may go when the whole is too long.
    pub room: Truncation,
}

/// What a text stands for. One that is not as it was is compared with the one that stood for the same before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PromptSection {
    /// All of a prompt that its client has put together.
    Whole,
    /// Before the cursor.
    Before,
    /// Behind the cursor.
    Behind,
    /// What the answer begins with: it is the cursor's line, mostly.
    Begun,
    /// A name in front of a file.
    Name,
    /// Of another file, or of another place in this one. It does not change: another one comes in its place.
    Chunk,
}

/// What of a text may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truncation {
    /// Nothing: the caller is told that it is too long.
    Fixed,
    /// Its begin, which is far from the cursor.
    FromStart,
    /// Its end.
    FromEnd,
    /// All of it: the first that go are those farthest from the cursor.
    Whole,
}

impl Prompt {
    /// The bytes by which it is told from others: its texts, and the tokens of clients that tokenize.
    pub fn bytes(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        self.pieces.iter().filter_map(|piece| match piece {
            PromptPiece::Text(piece) => Some(Cow::Borrowed(piece.text.as_bytes())),
            // Markers are the same in every prompt.
            PromptPiece::Tokens(tokens) if tokens.len() < MARKERS => None,
            PromptPiece::Tokens(tokens) => {
                Some(tokens.iter().flat_map(|token| token.0.to_le_bytes()).collect())
            }
        })
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        let texts = self.pieces.iter().filter_map(|piece| match piece {
            PromptPiece::Text(piece) => Some(piece.text.len()),
            PromptPiece::Tokens(_) => None,
        });
        texts.sum()
    }
}

/// No model puts so many tokens between two texts.
const MARKERS: usize = 16;
