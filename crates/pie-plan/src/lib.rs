//! pie-plan
pub mod ids;
pub mod splice;
pub use ids::{Epoch, Seq, SessionId, Slot, TokenId, TokenIndex};
pub use splice::{Splice, SpliceError, Splices};
