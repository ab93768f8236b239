//! From logits on the GPU to drawn tokens. Greedy tokens are found there; only draws that look at the distribution read
//! their row, and draw by the code of the CPU.

use super::OnGpu;
use crate::batch::LogitRows;
use crate::compute::Draw;
use crate::error::ModelError;
use crate::sampling::{Sampled, sample_if_numbers};
use pie_words::TokenId;

impl OnGpu {
    /// The tokens of a pass that is over, one for each of its `logits_of`.
    pub(super) fn draw(&self, wanted: &LogitRows<'_>, draws: &[Draw]) -> Result<Vec<Sampled>, ModelError> {
        let rows = wanted.rows.len();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let drawn: Vec<u32> = self.space.drawn().read(0, 2 * rows)?;
        let (tokens, logprobs) = drawn.split_at(rows);
        let one = |(row, draw): (&u32, &Draw)| {
            let (token, logprob) = (tokens[*row as usize], f32::from_bits(logprobs[*row as usize]));
            let is_greedy = draw.parameters.temperature == 0.0 && draw.parameters.top_logprobs == 0;
            if is_greedy && logprob.is_finite() && (token as usize) < self.config.vocab_size {
                return Ok(Sampled { token: TokenId(token), logprob: logprob.min(0.0), top: Vec::new() });
            }
            let logits = self.read_logits(&[*row], rows)?;
            sample_if_numbers(&logits[0], &draw.parameters, draw.step)
        };
        wanted.order.iter().zip(draws).map(one).collect()
    }

    /// Whole rows of logits, of the `wanted` rows of the last pass.
    pub(super) fn read_logits(&self, rows: &[u32], wanted: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let (part, vocabulary) = (self.space.widths.part, self.config.vocab_size);
        let row = |row: &u32| {
            let mut whole = Vec::with_capacity(vocabulary);
            for rank in 0..self.member.world_size().get() as usize {
                let start = (rank * wanted + *row as usize) * part;
                let width = part.min(vocabulary.saturating_sub(rank * part));
                whole.extend(self.space.whole_logits().read::<f32>(4 * start, width)?);
            }
            Ok(whole)
        };
        rows.iter().map(row).collect()
    }
}
