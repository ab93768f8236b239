//! Tokenizers, their oracle, and texts that are hard to cut.
#![allow(dead_code, reason = "each test file uses its own part")]

mod pairs;

pub use pairs::*;

use pie_words::{Splices, TokenId};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

pub const PYTHON: &str = include_str!("../../../../scripts/train/tokenizer.py");
pub const RUST: &str = include_str!("../../src/retokenize.rs");

/// So many cases, the same ones in each run; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose others.
pub fn cases(cases: u32) -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = if given.rng_seed == RngSeed::Random { RngSeed::Fixed(20) } else { given.rng_seed };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..given }
}

/// The old tokens with the splices applied, the slow and obvious way.
pub fn spliced(old: &[TokenId], splices: &Splices) -> Vec<TokenId> {
    let mut new = old.to_vec();
    for splice in splices.iter().rev() {
        new.splice(splice.at.usize()..splice.end().usize(), splice.insert.iter().copied());
    }
    new
}
