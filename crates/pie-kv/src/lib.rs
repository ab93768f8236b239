//! The K and V rows of one rank, RoPE, turning keys in place, and the attention that reads the rows through a session's
//! slot table.
//!
//! **Owns** the layout of the cache. Rows lie slot by slot, `[slots][kv heads][head dimension]` for each layer, so that
//! a token's row is one piece of memory and a document that shifts moves nothing: slots are found by table.
//!
//! **Invariants.** K3: after a turn by `index - rotated_for` a key equals the key rotated for its index. K4: a turn
//! never touches V. K5: angles in f64, rotation in f32, whatever the model's type
//! and the cache's; what is kept in fewer bits is rounded once. M1: a row sees no slot beyond its
//! own visibility.
//!
//! **Must not know** documents, the order of plans, where slots come from.

mod aligned;
mod attention;
mod cache;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod few;
mod many;
mod number;
mod rope;
pub mod simd;
mod view;

pub use attention::Attention;
pub use cache::{KvCache, KvShape, Precision, Strided};
pub use error::KvError;
pub use rope::{Angles, Ramp, Rope, RopeScaling};
pub use view::View;
