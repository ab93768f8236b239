//! Drawing a token from logits: deterministic, so that all ranks draw the same (P3).
//!
//! A rank that decodes several steps on one plan needs a draw that depends on (seed, step) alone, so the generator has no
//! history; and no cut sorts the whole vocabulary.

use crate::error::ModelError;
use pie_kv::simd::{exp, largest, wide};
use pie_words::{SamplingParameters, TokenId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// Numbers of a vocabulary that are looked at, and added up, together.
const BLOCK: usize = 1024;

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
    let top = if wanted == 0 { Vec::new() } else { most_likely_of_all(logits, wanted) };
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
    let are_finite =
        logits.chunks(BLOCK).all(|block| block.iter().fold(true, |all, logit| all & logit.is_finite()));
    if are_finite {
        return Ok(());
    }
    let index = logits.iter().position(|logit| !logit.is_finite()).unwrap_or_default();
    Err(ModelError::LogitsInvalid { index, vocabulary: logits.len(), value: logits[index] })
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

/// Logits whose greatest is looked at before they are.
const PART: usize = 64;

/// The `count` most likely ids of all, in order. So many parts have a logit that is at least the least of their greatest: no smaller
/// one is among them, and nearly all are smaller.
fn most_likely_of_all(logits: &[f32], count: usize) -> Vec<u32> {
    let mut tops: Vec<f32> = logits.chunks(PART).map(greatest).collect();
    let least = if (1..=tops.len()).contains(&count) {
        *tops.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
    } else {
        f32::NEG_INFINITY
    };
    // As they are ordered: 0 is greater than -0.
    let ids = (0..logits.len() as u32).filter(|id| logits[*id as usize].total_cmp(&least).is_ge());
    leading(ids.collect(), logits, count)
}

/// Tempered draw among what top-k and top-p leave (in this order, as Transformers does).
fn draw(logits: &[f32], parameters: &SamplingParameters, step: u64) -> u32 {
    let SamplingParameters { temperature, top_k, top_p, seed, .. } = *parameters;
    let weights = SoftmaxWeights::of(logits, temperature);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(step);
    let point: f64 = random.random();
    let most = top_k as usize;
    let drawn = if most > 0 && most < logits.len() {
        let candidates = most_likely_of_all(logits, most);
        let share = if top_p < 1.0 { weights.nucleus(candidates, logits, top_p) } else { candidates };
        weights.at(&share, point)
    } else if top_p < 1.0 {
        weights.at(&weights.nucleus((0..logits.len() as u32).collect(), logits, top_p), point)
    } else {
        weights.at_of_all(point)
    };
    // Rounding may leave a last bit: it belongs to the most likely token, which no cut has removed.
    drawn.unwrap_or_else(|| most_likely(logits))
}

/// e^((logit - greatest) / temperature) of each token: how often it is drawn, beside the most likely one.
struct SoftmaxWeights {
    each: Vec<f32>,
    /// Of each block.
    sums: Vec<f64>,
}

impl SoftmaxWeights {
    fn of(logits: &[f32], temperature: f32) -> Self {
        let greatest = greatest(logits);
        let (mut each, mut sums) = (vec![0.0_f32; logits.len()], Vec::new());
        for (weights, logits) in each.chunks_mut(BLOCK).zip(logits.chunks(BLOCK)) {
            wide(
                #[inline(always)]
                || {
                    for (weight, logit) in weights.iter_mut().zip(logits) {
                        *weight = exp((logit - greatest) / temperature);
                    }
                },
            );
            sums.push(sum(weights));
        }
        Self { each, sums }
    }

    fn weight(&self, id: u32) -> f64 {
        f64::from(self.each[id as usize])
    }

    fn total(&self, ids: &[u32]) -> f64 {
        ids.iter().map(|id| self.weight(*id)).sum()
    }

    /// The one at a point of [0, 1) when some stand side by side, each as broad as it weighs.
    fn at(&self, ids: &[u32], point: f64) -> Option<u32> {
        let mut left = point * self.total(ids);
        ids.iter().copied().find(|id| {
            left -= self.weight(*id);
            left < 0.0
        })
    }

    /// The same of all, in the order of their ids.
    fn at_of_all(&self, point: f64) -> Option<u32> {
        let mut left = point * self.sums.iter().sum::<f64>();
        for (block, sum) in self.sums.iter().enumerate() {
            if left >= *sum {
                left -= sum;
                continue;
            }
            let first = block * BLOCK;
            let found = self.each[first..].iter().take(BLOCK).position(|weight| {
                left -= f64::from(*weight);
                left < 0.0
            });
            if let Some(index) = found {
                return Some((first + index) as u32);
            }
        }
        None
    }

    /// The smallest set of most likely candidates that has at least `share` of their weight, in order.
    fn nucleus(&self, mut candidates: Vec<u32>, logits: &[f32], share: f32) -> Vec<u32> {
        let total = self.total(&candidates);
        let enough = f64::from(share) * total;
        // All that weigh less have together no more than what may be missing: the set has none of them.
        let least = (total - enough) / candidates.len() as f64;
        candidates.retain(|id| self.weight(*id) >= least);
        let mut count = 64;
        loop {
            let mut sorted = leading(candidates.clone(), logits, count);
            let mut sum = 0.0;
            let cut = sorted.iter().position(|id| {
                sum += self.weight(*id);
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
}

/// In an order of addition that no machine's vectors change.
fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 16];
    for chunk in weights.chunks(16) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*weight);
        }
    }
    lanes.iter().sum()
}

/// ln of the sum of e^logit, in an order of addition that no machine's vectors change.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let greatest = greatest(logits);
    let mut sum = 0.0_f64;
    for block in logits.chunks(BLOCK) {
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
