//! How tokens are drawn.

/// How the next token of a completion is drawn from the model's logits.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParameters {
    /// Divides the logits. 0 is greedy.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 is all.
    pub top_k: u32,
    /// Only the most likely tokens that together have this probability, in (0, 1]; applied after temperature and top-k.
    pub top_p: f32,
    /// With the number of the token in its completion it determines the draw: equal seeds give equal tokens.
    pub seed: u64,
    /// How many of the most likely tokens to report.
    pub top_logprobs: u32,
}

impl SamplingParameters {
    /// Always the most likely token, of which `top_logprobs` alternatives are reported.
    pub fn greedy(top_logprobs: u32) -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, top_logprobs }
    }
}
