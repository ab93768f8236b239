//! What a rank's memory is for, computed before any of it is taken: weights, KV rows, activations.

use crate::Failure;
use bytesize::ByteSize;
use pie_kv::Precision;
use pie_model::Config;
use serde::{Deserialize, Serialize};

/// Tokens of a session that is spoken of as one.
const SESSION_TOKENS: u64 = 4096;
/// Rows of the largest step that activations are counted for; `--step-tokens` is the router's, and seldom larger.
pub const STEP_ROWS: u64 = 512;
/// Completions whose logits are there at once.
pub const WANTED_ROWS: u64 = 64;

/// Bytes of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBudget {
    /// Its slice of the weights.
    pub weights: u64,
    /// Bytes of its KV rows.
    pub kv: u64,
    /// Tokens that these rows are for.
    pub slots: u64,
    /// What a step needs beside them.
    pub activations: u64,
}

/// Memory for keys and values in host memory.
#[derive(Clone, Copy, Debug)]
pub struct KvMemory {
    /// At most so much.
    pub bytes: u64,
    /// What their numbers are kept as.
    pub precision: Precision,
}

impl MemoryBudget {
    /// The budget of one of `world_size` ranks that share so many bytes of weights, with at most `kv` bytes for keys and values.
    pub fn new(config: &Config, weights: u64, world_size: u64, kv: KvMemory) -> Self {
        let number = |count: usize| count as u64;
        // More ranks than KV heads hold copies of them.
        let kv_heads = number(config.kv_heads).div_ceil(world_size);
        let row = 2 * kv.precision.bytes() * number(config.layers * config.head_dim) * kv_heads;
        let slots = (kv.bytes / row.max(1)).min(u64::from(u32::MAX));
        let (hidden, mlp) = (number(config.hidden_size), number(config.intermediate_size) / world_size);
        let heads = number((config.heads + 2 * config.kv_heads) * config.head_dim) / world_size;
        let vocabulary = number(config.vocab_size);
        Self {
            weights: weights / world_size,
            kv: slots * row,
            slots,
            // Residual, normed rows and their sum; queries, keys, values and their mix; gate and up; logits.
            activations: 4 * (STEP_ROWS * (3 * hidden + 2 * heads + 2 * mlp) + WANTED_ROWS * vocabulary),
        }
    }

    /// All three: what the rank needs.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.activations
    }

    /// Sessions whose documents are in the cache at once; more are encoded again when they are used.
    pub fn sessions(&self) -> u64 {
        self.slots / SESSION_TOKENS
    }

    /// Refuses what `ranks` ranks on this machine have no memory for.
    ///
    /// # Errors
    /// Says what is needed, what there is, and what to change.
    pub fn check(&self, ranks: u64) -> Result<(), Failure> {
        self.check_in(ranks, available(), "this machine")
    }

    /// The same of `place`, which has so many bytes.
    ///
    /// # Errors
    /// As [`MemoryBudget::check`].
    pub fn check_in(&self, ranks: u64, available: Option<u64>, place: &str) -> Result<(), Failure> {
        if self.slots < 2 {
            return Err("--kv-memory is too small: it does not hold two tokens on a rank".into());
        }
        let needed = ranks * self.total();
        match available {
            Some(there) if needed > there => Err(format!(
                "{ranks} x ({self}) is {}, and {} of memory are available on {place}: lower --kv-memory, or take more ranks elsewhere",
                ByteSize(needed),
                ByteSize(there)
            )
            .into()),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (weights, kv, activations) =
            (ByteSize(self.weights), ByteSize(self.kv), ByteSize(self.activations));
        write!(f, "weights {weights} + KV {kv} ({} tokens) + activations {activations}", self.slots)
    }
}

/// Memory that this machine, or the control group that this process is in, has left.
fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    let group = limit.map_or(u64::MAX, |limit| limit.saturating_sub(used));
    Some((kibibytes << 10).min(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_impossible_is_refused_with_numbers() {
        let config = Config::preset("test").expect("a preset for tests");
        let f32s = |bytes| KvMemory { bytes, precision: Precision::F32 };
        let row = (8 * config.layers * config.head_dim * config.kv_heads / 2) as u64;
        let budget = MemoryBudget::new(&config, 1000, 2, f32s(row * 8192 + 1));
        assert_eq!((budget.slots, budget.kv, budget.sessions()), (8192, row * 8192, 2));
        let narrow = KvMemory { bytes: row * 8192, precision: Precision::Bf16 };
        assert_eq!(MemoryBudget::new(&config, 1000, 2, narrow).slots, 2 * 8192);
        assert_eq!(budget.weights, 500);
        budget.check(1).expect("that much is there");
        let cause = MemoryBudget::new(&config, 1000, 2, f32s(1 << 41))
            .check(1)
            .expect_err("2 TiB are not")
            .to_string();
        assert!(cause.contains("2.0 TiB") && cause.contains("--kv-memory"), "{cause}");
        assert!(
            MemoryBudget::new(&config, 1000, 2, f32s(row)).check(1).is_err(),
            "one token is none to complete"
        );
    }
}
