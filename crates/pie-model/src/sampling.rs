//! Drawing a token from logits: deterministic, so that all ranks draw the same (P3).
//!
//! A rank that decodes several steps on one plan needs a draw that depends on (seed, step) alone, so the generator has no
//! history; and top-p does not sort the whole vocabulary.

use crate::error::ModelError;
use pie_kv::simd::{exp, largest, wide};
use pie_words::{SamplingParameters, TokenId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Which.
    pub token: TokenId,
    /// Natural logarithm of its probability in the model's own distribution: before temperature, top-k and top-p.
    pub logprob: f32,
    /// The most likely tokens in that distribution with their log probabilities, most likely first.
    pub top: Vec<(TokenId, f32)>,
}

impl Sampled {
    /// Whether it was drawn. Where logits are no numbers none can be, and one stands there all the same, so that all tables stay
    /// equal: its log probability is NaN, which no drawn one's is.
    pub fn is_drawn(&self) -> bool {
        !self.logprob.is_nan()
    }
}

/// As [`sample`], but logits that are no numbers (they overflowed) give a token that is not drawn: it is the misfortune of one
/// session, not of all in its batch.
///
/// # Errors
/// Parameters out of range.
pub(crate) fn sample_if_numbers(
    logits: &[f32],
    parameters: &SamplingParameters,
    step: u64,
) -> Result<Sampled, ModelError> {
    match sample(logits, parameters, step) {
        Err(ModelError::LogitsInvalid { .. }) => {
            Ok(Sampled { token: TokenId(0), logprob: f32::NAN, top: Vec::new() })
        }
        sampled => sampled,
    }
}

/// Draws a token from [vocabulary] logits. Equal arguments give equal results on every machine; of tokens with equal
/// logits the smaller id is the more likely one.
///
/// # Errors
/// Logits that are not finite, and parameters out of range.
pub fn sample(logits: &[f32], parameters: &SamplingParameters, step: u64) -> Result<Sampled, ModelError> {
    check(logits, parameters)?;
    let total = log_sum_exp(logits);
    let token =
        if parameters.temperature == 0.0 { most_likely(logits) } else { draw(logits, parameters, step) };
    let logprob = |id: u32| ((f64::from(logits[id as usize]) - total) as f32).min(0.0);
    let wanted = (parameters.top_logprobs as usize).min(logits.len());
    let top =
        if wanted == 0 { Vec::new() } else { leading((0..logits.len() as u32).collect(), logits, wanted) };
    let top = top.into_iter().map(|id| (TokenId(id), logprob(id))).collect();
    Ok(Sampled { token: TokenId(token), logprob: logprob(token), top })
}

fn check(logits: &[f32], parameters: &SamplingParameters) -> Result<(), ModelError> {
    let wrong = |what: String| Err(ModelError::SamplingInvalid(what));
    let SamplingParameters { temperature, top_p, .. } = *parameters;
    if logits.is_empty() {
        return wrong("there are no logits".to_owned());
    }
    if !(temperature.is_finite() && temperature >= 0.0) {
        return wrong(format!("temperature {temperature}; it must be 0 (greedy) or greater"));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return wrong(format!("top_p {top_p}; it must be above 0 and at most 1"));
    }
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(index) => {
            Err(ModelError::LogitsInvalid { index, vocabulary: logits.len(), value: logits[index] })
        }
        None => Ok(()),
    }
}

/// The greatest logit; all are finite.
fn greatest(logits: &[f32]) -> f32 {
    wide(
        #[inline(always)]
        || largest(logits),
    )
}

/// The first of the greatest.
fn most_likely(logits: &[f32]) -> u32 {
    let greatest = greatest(logits);
    logits.iter().position(|logit| *logit == greatest).unwrap_or(0) as u32
}

/// More likely first; of equals the smaller id.
fn by_likelihood(logits: &[f32]) -> impl Fn(&u32, &u32) -> Ordering {
    |a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
}

/// The `count` most likely of some ids, in order; the others are never sorted.
fn leading(mut ids: Vec<u32>, logits: &[f32], count: usize) -> Vec<u32> {
    if count < ids.len() {
        ids.select_nth_unstable_by(count, by_likelihood(logits));
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_likelihood(logits));
    ids
}

/// Tempered draw among what top-k and top-p leave (in this order, as Transformers does).
fn draw(logits: &[f32], parameters: &SamplingParameters, step: u64) -> u32 {
    let SamplingParameters { temperature, top_k, top_p, seed, .. } = *parameters;
    let greatest = greatest(logits);
    let weight = |id: &u32| (f64::from(logits[*id as usize] - greatest) / f64::from(temperature)).exp();
    let all: Vec<u32> = (0..logits.len() as u32).collect();
    let candidates = match top_k as usize {
        count if count > 0 && count < all.len() => leading(all, logits, count),
        _ => all,
    };
    let candidates =
        if top_p < 1.0 { nucleus(candidates, logits, f64::from(top_p), &weight) } else { candidates };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(step);
    let total: f64 = candidates.iter().map(weight).sum();
    let mut left = random.random::<f64>() * total;
    for id in &candidates {
        left -= weight(id);
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding may leave a last bit: it belongs to the most likely token, which no cut has removed.
    most_likely(logits)
}

/// The smallest set of most likely candidates that has at least `share` of their weight.
fn nucleus(candidates: Vec<u32>, logits: &[f32], share: f64, weight: &impl Fn(&u32) -> f64) -> Vec<u32> {
    let enough = share * candidates.iter().map(weight).sum::<f64>();
    let mut count = 64;
    loop {
        let mut sorted = leading(candidates.clone(), logits, count);
        let mut sum = 0.0;
        let cut = sorted.iter().position(|id| {
            sum += weight(id);
            sum >= enough
        });
        match cut {
            Some(last) => sorted.truncate(last + 1),
            None if count < candidates.len() => {
                count *= 8;
                continue;
            }
            None => {}
        }
        return sorted;
    }
}

/// ln of the sum of e^logit, in an order of addition that no machine's vectors change.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let greatest = greatest(logits);
    let mut sum = 0.0_f64;
    for block in logits.chunks(1024) {
        let mut lanes = [0.0_f32; 16];
        wide(
            #[inline(always)]
            || {
                for chunk in block.chunks(16) {
                    for (lane, logit) in lanes.iter_mut().zip(chunk) {
                        *lane += exp(logit - greatest);
                    }
                }
            },
        );
        sum += lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
    }
    f64::from(greatest) + sum.ln()
}
