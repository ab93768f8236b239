//! The paper's figures 3 and 4: how far a method's keys and distributions are from full recomputation.

use super::GENERATED;
use super::compare::{HeadSizes, LayerKeys, distribution, keys, kl};
use super::edited;
use crate::engine::Bed;
use crate::error::EvalError;
use crate::names::Method;
use crate::results::Agreement;
use pie_words::{Splices, Strategy, TokenId};
use pie_worker::SampledToken;

/// What full recomputation generates, and from which distributions.
pub(super) struct Followed {
    tokens: Vec<TokenId>,
    /// Of each generated token, all log probabilities.
    distributions: Vec<Vec<f32>>,
}

impl Followed {
    /// What a cache that is the same one has.
    pub fn agreeing(&self) -> Agreement {
        Agreement { tokens: self.tokens.len(), kl: 0.0, greedy: 1.0 }
    }
}

/// Generates from the bed's document, which was just opened: what full recomputation leaves behind every edit. An
/// end-of-text token ends it.
pub(super) fn fresh(bed: &mut Bed<'_>, ends: &[TokenId], sizes: HeadSizes) -> Result<Followed, EvalError> {
    fresh_tokens(bed, ends, sizes, GENERATED)
}

/// The same, of so many tokens at most.
pub(super) fn fresh_tokens(
    bed: &mut Bed<'_>,
    ends: &[TokenId],
    sizes: HeadSizes,
    most: usize,
) -> Result<Followed, EvalError> {
    bed.report_logprobs(sizes.all());
    let mut followed = Followed { tokens: Vec::new(), distributions: Vec::new() };
    while followed.tokens.len() < most {
        let sampled = bed.decode(1)?.into_iter().next().ok_or(EvalError::NothingSampled)?;
        followed.distributions.push(distribution(&sampled, sizes.vocabulary));
        followed.tokens.push(sampled.token);
        if ends.contains(&sampled.token) {
            break;
        }
    }
    bed.report_logprobs(0);
    Ok(followed)
}

/// Edits by a method; returns the keys of the `kept` tokens, and for each token that full recomputation generated, given
/// those before it, KL(full || method).
pub(super) fn of(
    bed: &mut Bed<'_>,
    splices: Splices,
    kept: &[usize],
    (method, window): (Method, u32),
    full: &Followed,
    sizes: HeadSizes,
) -> Result<(LayerKeys, Vec<f32>), EvalError> {
    bed.report_logprobs(sizes.all());
    let first = edited(bed, splices, method, window)?.next;
    let keys = keys(bed, sizes, kept)?;
    let steps = follow(bed, first, full, method.strategy(), sizes)?;
    Ok((keys, steps.into_iter().map(|step| step.kl).collect()))
}

/// A cache at one of the tokens that the other generates.
struct TokenDivergence {
    kl: f32,
    /// Whether it finds the same token the most likely.
    is_same: bool,
}

/// Gives a cache the tokens of the other one by one, behind the first sampled token. They join the document.
fn follow(
    bed: &mut Bed<'_>,
    first: SampledToken,
    full: &Followed,
    strategy: Strategy,
    sizes: HeadSizes,
) -> Result<Vec<TokenDivergence>, EvalError> {
    bed.report_logprobs(sizes.all());
    let mut sampled = first;
    let mut steps = Vec::with_capacity(full.distributions.len());
    for (place, (token, expected)) in full.tokens.iter().zip(&full.distributions).enumerate() {
        let kl = kl(expected, &distribution(&sampled, sizes.vocabulary));
        steps.push(TokenDivergence { kl, is_same: sampled.token == *token });
        if place + 1 < full.tokens.len() {
            // As an edit at the end of the document, in the same strategy: `conflict` must not settle.
            let splices = bed.splice(bed.tokens().len(), 0, vec![*token])?;
            sampled = bed.edit(splices, strategy)?.next;
        }
    }
    bed.report_logprobs(0);
    Ok(steps)
}

/// How far the bed's cache is from the one that generated; what was sampled from it before is dropped. The tokens join the
/// document.
pub(super) fn agreement(
    bed: &mut Bed<'_>,
    full: &Followed,
    sizes: HeadSizes,
) -> Result<Agreement, EvalError> {
    bed.end_branch()?;
    bed.report_logprobs(sizes.all());
    let first = bed.decode(1)?.into_iter().next().ok_or(EvalError::NothingSampled)?;
    let steps = follow(bed, first, full, Strategy::Pie, sizes)?;
    let mean =
        |of: fn(&TokenDivergence) -> f64| steps.iter().map(of).sum::<f64>() / steps.len().max(1) as f64;
    let greedy = mean(|step| f64::from(u8::from(step.is_same)));
    Ok(Agreement { tokens: steps.len(), kl: mean(|step| f64::from(step.kl)) as f32, greedy: greedy as f32 })
}
