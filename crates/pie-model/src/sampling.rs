//! Drawing a token from logits. Own code and not candle-transformers' `LogitsProcessor`: that one carries a generator
//! from call to call, and ranks must draw the same from (seed, step) alone (P3); it also gives no log-probabilities.

use crate::error::ModelError;
use pie_plan::TokenId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParameters {
    /// 0 is greedy.
    pub temperature: f32,
    /// Draw among this many likeliest tokens; 0: all.
    pub top_k: u32,
    /// Draw among the likeliest tokens that together have this probability; in (0, 1].
    pub top_p: f32,
    /// With the step it determines the draw.
    pub seed: u64,
    /// Likeliest tokens to report.
    pub top_logprobs: u32,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Which.
    pub token: TokenId,
    /// Natural logarithm of its probability before temperature, top-k and top-p.
    pub logprob: f32,
    /// The likeliest tokens before those cuts, likeliest first.
    pub top: Vec<(TokenId, f32)>,
}

/// Draws the token of `step` from one row of logits. Equal logits, seed and step give equal tokens; of equal logits
/// the smaller id counts as the likelier.
///
/// # Errors
/// [`ModelError::NotFinite`].
pub fn sample(logits: &[f32], parameters: &SamplingParameters, step: u64) -> Result<Sampled, ModelError> {
    if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
        return Err(ModelError::NotFinite);
    }
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    let logprob = |index: usize| (f64::from(logits[index] - most) - sum.ln()) as f32;
    let top = likeliest(logits, parameters.top_logprobs as usize);
    let index = if parameters.temperature == 0.0 {
        likeliest(logits, 1)[0]
    } else {
        draw(logits, parameters, step)
    };
    let token = |index: usize| TokenId(u32::try_from(index).unwrap_or(u32::MAX));
    let top = top.into_iter().map(|index| (token(index), logprob(index))).collect();
    Ok(Sampled { token: token(index), logprob: logprob(index), top })
}

/// The indices of the `count` largest logits, largest first.
fn likeliest(logits: &[f32], count: usize) -> Vec<usize> {
    let before = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if count == 1 {
        return (0..logits.len()).min_by(before).into_iter().collect();
    }
    let count = count.min(logits.len());
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    if count > 0 && count < indices.len() {
        indices.select_nth_unstable_by(count - 1, before);
    }
    indices.truncate(count);
    indices.sort_unstable_by(before);
    indices
}

fn draw(logits: &[f32], parameters: &SamplingParameters, step: u64) -> usize {
    let count = if parameters.top_k == 0 { logits.len() } else { parameters.top_k as usize };
    let candidates = likeliest(logits, count.max(1));
    let most = logits[candidates[0]];
    let weight = |index: &usize| (f64::from(logits[*index] - most) / f64::from(parameters.temperature)).exp();
    let mut weights: Vec<f64> = candidates.iter().map(weight).collect();
    let total: f64 = weights.iter().sum();
    let enough = total * f64::from(parameters.top_p);
    let mut sum = 0.0;
    let kept = weights.iter().position(|weight| {
        sum += weight;
        sum >= enough
    });
    weights.truncate(kept.map_or(weights.len(), |last| last + 1));
    let mut generator = ChaCha8Rng::seed_from_u64(parameters.seed);
    generator.set_stream(step);
    let mut left = generator.random::<f64>() * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    candidates[drawn.unwrap_or(weights.len() - 1)]
}
