//! Against Transformers: `scripts/goldens/make.py` made the models and what they must give.

mod common;

use common::golden::{Golden, MODELS, golden};
use common::{Logits, ModelUnderTest, TestSession, difference, greedy, on_ranks};
use pie_words::{Slot, TokenId};

/// Of the largest logit.
const TOLERANCE: f32 = 1e-4;

/// Prefills in chunks, then decodes greedily.
fn run(rank: &mut ModelUnderTest<'_>, golden: &Golden, chunk: usize) -> (Vec<Vec<f32>>, Vec<u32>) {
    let mut document = TestSession::new(&golden.prompt, 0);
    let mut logits = Vec::new();
    for start in (0..document.tokens.len()).step_by(chunk) {
        let end = document.tokens.len().min(start + chunk);
        logits.extend(rank.forward(&document.batch(start..end, Logits::All)).expect("a chunk"));
    }
    let mut tokens = vec![greedy(logits.last().expect("a prompt"))];
    while tokens.len() < golden.greedy.len() {
        let index = document.tokens.len();
        document.tokens.push(TokenId(tokens[tokens.len() - 1]));
        document.slots.push(Slot(index as u32));
        let row = rank.forward(&document.batch(index..index + 1, Logits::Last)).expect("a token");
        tokens.push(greedy(&row[0]));
    }
    (logits, tokens)
}

#[test]
fn c3_any_world_size_and_any_chunks_give_the_logits_and_tokens_of_transformers() {
    for name in MODELS {
        let golden = golden(name);
        for world_size in [1, 2, 4, 8] {
            for chunk in [golden.prompt.len(), 7] {
                let ranks = on_ranks(&golden.model, world_size, 128, |rank| run(rank, &golden, chunk));
                let place = format!("{name}, {world_size} ranks, chunks of {chunk}");
                for (logits, tokens) in &ranks {
                    for (row, (got, expected)) in logits.iter().zip(&golden.logits).enumerate() {
                        let off = difference(got, expected);
                        assert!(off < TOLERANCE, "{place}: logits of row {row} are off by {off}");
                    }
                    assert_eq!(*tokens, golden.greedy, "{place}: greedy tokens");
                    assert_eq!(*logits, ranks[0].0, "{place}: ranks differ (P3)");
                }
            }
        }
    }
}
