//! Documents, positions, and tokenizing around edits.
//!
//! **Owns** the text of a session with its revision and tokens ([`Document`]), where edits in bytes or LSP
//! positions are in it, the tokenizer of the model ([`Tokenizer`]), and the way back from tokens to text as they stream
//! ([`TokenDecoder`], [`StopStrings`]); and what a model is told to write lines of it anew ([`EditableRegion`], [`RegionAnswer`]).
//!
//! **Invariants.** T1: the tokens of a document equal its whole text tokenized, after every edit. T2: an edit costs
//! what the edit costs, not what the document costs. R1, R2 in part: an edit made against another revision is refused,
//! and [`Document::prepare`] changes nothing, so a request is applied whole or not at all.
//!
//! # Why tokenizing around an edit is exact
//! A tokenizer cuts text into *pieces* (added tokens that are text, and what the pre-tokenizer's patterns match) and merges bytes
//! inside of each piece alone. So the tokens of a piece depend on the piece, and all depends on where pieces start.
//! For the forms of [`form::PreTokenizerKind`] two facts hold:
//! 1. *Memoryless*: pieces of the text behind a piece start do not depend on the text before it. A scan may restart
//!    at any piece start, and two scans that stand on a piece start with the same text ahead go on equally.
//! 2. *Short reach*: whether a piece ends at `e` is decided by a short stretch behind `e` ([`form::LookAhead`]).
//!
//! By 2, pieces that end early enough before an edit stay. By 1, a scan of the new text may start behind them, and may
//! stop at the first piece start behind the edit that was a piece start before. With other tokenizers texts are tokenized
//! whole; a pool says so when it starts ([`Tokenizer::restart_kind`]). A normalizer, NFC, is no matter to texts that it
//! leaves alone (`nfc.rs`); others are tokenized whole too.
//!
//! **Must not know** sessions, models, the wire.

mod added;
mod alphabet;
mod beside;
mod change;
mod cursor;
mod decoder;
mod diff;
mod difference;
mod document;
mod edit;
mod error;
mod fim;
pub mod form;
mod gguf;
mod load;
mod nfc;
mod parts;
mod pieces;
mod region;
mod retokenize;
mod scan;
mod sequence;
mod stop;
mod store;
mod threads;
mod tokenizer;

pub use change::{ContentChange, DocumentChange, EditStats};
pub use cursor::Cut;
pub use decoder::TokenDecoder;
pub use document::{Document, DocumentText, Tokenizing, splices_between};
pub use error::{TextError, TokenizerError};
pub use fim::{Fim, FimError, FimOrder, FimSetting};
pub use form::RestartKind;
pub use load::TokenizerSettings;
pub use parts::{FileMarkers, led_by};
pub use region::{AnswerEnd, EditableRegion, PromptForm, RegionAnswer, UnknownForm};
pub use retokenize::Replacement;
pub use stop::StopStrings;
pub use threads::stand_back;
pub use tokenizer::{Fingerprint, Tokenizer};
