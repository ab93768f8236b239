//! Distances between two caches: of their keys, and of the distributions that they lead to.

use crate::engine::Bed;
use crate::error::EvalError;
use pie_model::Model;
use pie_worker::SampledToken;

/// Keys of all layers, and how they are cut into heads.
pub(super) struct LayerKeys {
    layers: Vec<Vec<f32>>,
    head_dim: usize,
}

/// The sizes that comparing needs.
#[derive(Clone, Copy)]
pub(super) struct HeadSizes {
    /// Tokens that the model knows: entries of its logits.
    pub vocabulary: usize,
    /// Layers, each with keys of its own.
    pub layers: usize,
    /// Numbers of one head's key.
    pub head_dim: usize,
    /// Heads whose keys are cached: a token's key has `kv_heads * head_dim` numbers.
    pub kv_heads: usize,
}

impl HeadSizes {
    /// The sizes in a model's configuration.
    pub fn of(model: &Model) -> Self {
        let config = model.config();
        Self {
            vocabulary: config.vocab_size,
            layers: config.layers,
            head_dim: config.head_dim,
            kv_heads: config.kv_heads,
        }
    }

    /// The log probabilities of all tokens.
    pub fn all(self) -> u32 {
        u32::try_from(self.vocabulary).unwrap_or(u32::MAX)
    }
}

/// The keys of some tokens of the document.
pub(super) fn keys(bed: &Bed<'_>, sizes: HeadSizes, tokens: &[usize]) -> Result<LayerKeys, EvalError> {
    let row = sizes.kv_heads * sizes.head_dim;
    let layer = |layer| {
        let all = bed.keys(layer)?;
        Ok(tokens.iter().flat_map(|token| &all[token * row..][..row]).copied().collect())
    };
    let layers = (0..sizes.layers).map(layer).collect::<Result<_, EvalError>>()?;
    Ok(LayerKeys { layers, head_dim: sizes.head_dim })
}

/// For each layer the cosine of two keys, one head of one token at a time, since that is what attention reads; mean over
/// all. Without tokens it is 1.
pub(super) fn cosine(a: &LayerKeys, b: &LayerKeys) -> Vec<f32> {
    a.layers.iter().zip(&b.layers).map(|(x, y)| mean_cosine(x, y, a.head_dim) as f32).collect()
}

fn mean_cosine(a: &[f32], b: &[f32], head_dim: usize) -> f64 {
    let cosines = a.chunks_exact(head_dim).zip(b.chunks_exact(head_dim)).map(|(a, b)| {
        let (mut product, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
        for (x, y) in a.iter().zip(b) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            product += x * y;
            of_a += x * x;
            of_b += y * y;
        }
        let length = (of_a * of_b).sqrt();
        if length > 0.0 { product / length } else { 1.0 }
    });
    let (sum, count) = cosines.fold((0.0, 0), |(sum, count), cosine| (sum + cosine, count + 1));
    if count == 0 { 1.0 } else { sum / f64::from(count) }
}

/// All log probabilities, by token.
pub(super) fn distribution(sampled: &SampledToken, vocabulary: usize) -> Vec<f32> {
    let mut logprobs = vec![f32::NEG_INFINITY; vocabulary];
    for (token, logprob) in &sampled.top {
        if let Some(place) = logprobs.get_mut(token.0 as usize) {
            *place = *logprob;
        }
    }
    logprobs
}

/// KL(p || q) over the whole vocabulary, in nats; never below 0, which rounding could give.
pub(super) fn kl(p: &[f32], q: &[f32]) -> f32 {
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p), f64::from(*q));
        p.exp() * (p - q)
    };
    p.iter().zip(q).map(term).sum::<f64>().max(0.0) as f32
}
