//! The paper's figures 3 and 4: how far a method's keys and distributions are from full recomputation.

use super::GENERATED;
use super::compare::{HeadSizes, LayerKeys, distribution, keys, kl};
use crate::engine::Bed;
use crate::error::EvalError;
use crate::names::Method;
use pie_words::{Splices, TokenId};

/// What full recomputation generates, and from which distributions.
pub(super) struct Followed {
    tokens: Vec<TokenId>,
    /// Of each generated token, all log probabilities.
    distributions: Vec<Vec<f32>>,
}

/// Generates from the bed's document, which was just opened: what full recomputation leaves behind every edit. An
/// end-of-text token ends it.
pub(super) fn fresh(bed: &mut Bed<'_>, ends: &[TokenId], sizes: HeadSizes) -> Result<Followed, EvalError> {
    bed.report_logprobs(u32::try_from(sizes.vocabulary).unwrap_or(u32::MAX));
    let mut followed = Followed { tokens: Vec::new(), distributions: Vec::new() };
    while followed.tokens.len() < GENERATED {
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
    method: Method,
    full: &Followed,
    sizes: HeadSizes,
) -> Result<(LayerKeys, Vec<f32>), EvalError> {
    bed.report_logprobs(u32::try_from(sizes.vocabulary).unwrap_or(u32::MAX));
    let mut sampled = bed.edit(splices, method.strategy())?.next;
    let keys = keys(bed, sizes, kept)?;
    let mut kls = Vec::with_capacity(full.distributions.len());
    for (place, (token, expected)) in full.tokens.iter().zip(&full.distributions).enumerate() {
        kls.push(kl(expected, &distribution(&sampled, sizes.vocabulary)));
        if place + 1 < full.tokens.len() {
            // As an edit at the end of the document, in the same strategy: `conflict` must not settle.
            let splices = bed.splice(bed.tokens().len(), 0, vec![*token])?;
            sampled = bed.edit(splices, method.strategy())?.next;
        }
    }
    bed.report_logprobs(0);
    Ok((keys, kls))
}
