//! Which part of the model is whose.

use crate::config::Config;
use crate::error::ModelError;
use pie_comm::Member;
use std::ops::Range;

/// A member's part of every layer (Megatron-LM's split: Shoeybi et al. 2019), and of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Query heads.
    pub heads: Range<usize>,
    /// KV heads that these query heads read. With more ranks than KV heads, several ranks hold the same one.
    pub kv_heads: Range<usize>,
    /// Columns of the MLP.
    pub mlp: Range<usize>,
    /// Entries of the vocabulary that this rank computes logits for: fewer than `vocabulary_part` at the end.
    pub vocabulary: Range<usize>,
    /// Logits of each rank, padding included: equal on all ranks, so that they can be gathered.
    pub vocabulary_part: usize,
}

impl Shard {
    /// The part of a member.
    ///
    /// # Errors
    /// [`ModelError::WorldSize`].
    pub fn new(config: &Config, member: Member) -> Result<Self, ModelError> {
        let (rank, world_size) = (member.rank().0 as usize, member.world_size().get() as usize);
        config.check_world_size(world_size)?;
        let even = |whole: usize| rank * (whole / world_size)..(rank + 1) * (whole / world_size);
        let kv_heads = if world_size <= config.kv_heads {
            even(config.kv_heads)
        } else {
            let shared = rank * config.kv_heads / world_size;
            shared..shared + 1
        };
        let part = config.vocab_size.div_ceil(world_size);
        let start = config.vocab_size.min(rank * part);
        Ok(Self {
            heads: even(config.heads),
            kv_heads,
            mlp: even(config.intermediate_size),
            vocabulary: start..config.vocab_size.min(start + part),
            vocabulary_part: part,
        })
    }
}
