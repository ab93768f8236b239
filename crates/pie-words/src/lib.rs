//! The words that all crates share: values that travel from a request to a kernel and mean the same on the whole way.
//!
//! **Owns** the numbers of a group ([`SessionId`], [`Slot`], [`TokenIndex`], …), text edits and cursors as clients give them
//! ([`TextEdit`], [`Cursor`]), token splices ([`Splices`]), the strategies of the paper, and how tokens are drawn.
//!
//! **Invariant.** S1: a [`Splices`] is sorted and disjoint. Everything else here is a plain value: whoever gives it a meaning lives
//! above.
//!
//! **Must not know** any other crate of this workspace.

mod edit;
mod ids;
mod sampling;
mod splice;
mod strategy;

pub use edit::{
    Cursor, LspPosition, Part, Parts, PositionEncoding, RegionLines, Rewrite, TextEdit, TextRange, TextToken,
};
pub use ids::{Epoch, Revision, Seq, SessionId, Slot, TokenId, TokenIndex};
pub use sampling::SamplingParameters;
pub use splice::{Splice, SpliceError, Splices};
pub use strategy::{AskedFollowing, Following, Spellings, Strategy};
