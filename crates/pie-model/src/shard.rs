//! A member's slice of the model: which heads, which columns of the MLP, which rows of the vocabulary.

use crate::config::Config;
use crate::error::ModelError;
use pie_comm::Member;
use std::ops::Range;

/// The slice of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Query heads.
    pub heads: Range<usize>,
    /// KV heads; with more ranks than KV heads several ranks hold the same one.
    pub kv_heads: Range<usize>,
    /// Columns of the MLP.
    pub mlp: Range<usize>,
    /// Rows of the head; may be empty or short on the last ranks.
    pub vocabulary: Range<usize>,
    /// Rows of the head on a full rank: what is gathered of each.
    pub vocabulary_part: usize,
}

impl Shard {
    pub fn new(config: &Config, member: Member) -> Result<Self, ModelError> {
        let (rank, world_size) = (member.rank().0 as usize, member.world_size().get() as usize);
        let even = |what: &'static str, count: usize| {
            if count.is_multiple_of(world_size) { Ok(count / world_size) } else { Err(uneven(what, count, member)) }
        };
        let heads = even("attention heads", config.heads)?;
        let mlp = even("columns of the MLP", config.intermediate_size)?;
        let kv_heads = if world_size <= config.kv_heads {
            let part = even("KV heads", config.kv_heads)?;
            rank * part..(rank + 1) * part
        } else if world_size.is_multiple_of(config.kv_heads) {
            let head = rank * config.kv_heads / world_size;
            head..head + 1
        } else {
            return Err(uneven("KV heads", config.kv_heads, member));
        };
        let part = config.vocab_size.div_ceil(world_size);
        let row = |rank: usize| (rank * part).min(config.vocab_size);
        Ok(Self {
            heads: rank * heads..(rank + 1) * heads,
            kv_heads,
            mlp: rank * mlp..(rank + 1) * mlp,
            vocabulary: row(rank)..row(rank + 1),
            vocabulary_part: part,
        })
    }
}

fn uneven(what: &'static str, count: usize, member: Member) -> ModelError {
    let fits: Vec<_> = (1..=64).filter(|size| count.is_multiple_of(*size)).map(|size| size.to_string()).collect();
    let fits = format!("a world size of {} would do", fits.join(", "));
    ModelError::WorldSize { world_size: member.world_size().get(), what, count, fits }
}
