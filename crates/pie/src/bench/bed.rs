//! What the benchmarks do to a session: noise in, noise out.

use crate::{Failure, progress};
use pie_eval::engine::{Bed, Done, Machine, Together};
use pie_kv::Precision;
use pie_model::Compute;
use pie_words::{Splice, Splices, Strategy, TokenId, TokenIndex};
use std::path::Path;
use std::time::{Duration, Instant};

/// Loads a model with room for `slots` tokens, showing how far it is.
pub fn load(folder: &Path, slots: u32, precision: Precision) -> Result<Machine, Failure> {
    let bar = progress::bytes("loading the model");
    let mut machine = Machine::load(folder, slots, &mut |done, total| progress::show(&bar, done, total))?;
    machine.set_precision(precision)?;
    bar.finish_and_clear();
    Ok(machine)
}

/// Sessions that decode together, each behind a context of its own.
pub struct DecodingTogether<'a>(Together<'a>);

impl<'a> DecodingTogether<'a> {
    /// Encodes so many contexts.
    pub fn open(machine: &'a mut Machine, sessions: u32, context: u32) -> Result<Self, Failure> {
        let mut noise = Noise::of(machine, 1)?;
        let mut group = Together::new(machine);
        for _ in 0..sessions {
            group.open(noise.tokens(context))?;
        }
        group.decode(sessions as usize, 1)?;
        Ok(Self(group))
    }

    /// Tokens a second of the first `sessions` of them, which generate `tokens` tokens each; those are dropped.
    pub fn tokens_per_s(&mut self, sessions: u32, tokens: u32) -> Result<f64, Failure> {
        let elapsed = self.0.decode(sessions as usize, tokens)?;
        Ok(f64::from(sessions * tokens) / elapsed.as_secs_f64())
    }
}

/// Seeded noise: speed does not depend on what the tokens are.
pub struct Noise {
    vocabulary: u32,
    state: u32,
}

impl Noise {
    /// Tokens of a machine's vocabulary.
    pub fn of<C: Compute>(machine: &Machine<C>, seed: u32) -> Result<Self, Failure> {
        let vocabulary = u32::try_from(machine.compute().config().vocab_size)?;
        // The generator stays at 0 for ever.
        Ok(Self { vocabulary, state: seed.max(1) })
    }

    /// The next so many.
    pub fn tokens(&mut self, count: u32) -> Vec<TokenId> {
        let mut next = || {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 17;
            self.state ^= self.state << 5;
            TokenId(self.state % self.vocabulary)
        };
        (0..count).map(|_| next()).collect()
    }
}

/// What comes and goes at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceShape {
    /// Index of the token before the edit.
    pub at: u32,
    /// Tokens that go.
    pub delete: u32,
    /// Tokens that come.
    pub insert: u32,
}

/// An edit, but for which tokens come: pieces in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEdit(pub Vec<SpliceShape>);

impl TokenEdit {
    /// Tokens that come at one place.
    pub fn insertion(at: u32, insert: u32) -> Self {
        Self(vec![SpliceShape { at, delete: 0, insert }])
    }

    /// What takes the edit back.
    pub fn inverse(&self) -> Self {
        let mut shift = 0;
        let inverse = |piece: &SpliceShape| {
            let at = (i64::from(piece.at) + shift) as u32;
            shift += i64::from(piece.insert) - i64::from(piece.delete);
            SpliceShape { at, delete: piece.insert, insert: piece.delete }
        };
        Self(self.0.iter().map(inverse).collect())
    }
}

/// One session on a machine.
pub struct NoiseBed<'a> {
    engine: Bed<'a>,
    noise: Noise,
}

impl<'a> NoiseBed<'a> {
    /// An empty session; the tokens of its documents come from a seed.
    pub fn new<C: Compute>(machine: &'a mut Machine<C>, seed: u32) -> Result<Self, Failure> {
        let noise = Noise::of(machine, seed)?;
        Ok(Self { engine: Bed::new(machine)?, noise })
    }

    /// Encodes a document of `tokens` tokens in chunks.
    pub fn open(&mut self, tokens: u32) -> Result<Duration, Failure> {
        let ids = self.noise.tokens(tokens);
        let start = Instant::now();
        self.engine.become_exactly(&ids)?;
        Ok(start.elapsed())
    }

    /// Decodes greedily, all in one plan, and drops what was decoded.
    pub fn decode(&mut self, tokens: u32) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.engine.decode(tokens)?;
        let elapsed = start.elapsed();
        self.engine.end_branch()?;
        Ok(elapsed)
    }

    /// From an edit to the next token.
    pub fn edit(&mut self, edit: &TokenEdit, strategy: Strategy) -> Result<(Duration, Done), Failure> {
        let splice = |piece: &SpliceShape| Splice {
            at: TokenIndex(piece.at),
            delete: piece.delete,
            insert: self.noise.tokens(piece.insert),
        };
        let splices = Splices::new(edit.0.iter().map(splice).collect(), self.engine.tokens().len())?;
        let edited = self.engine.edit(splices, strategy)?;
        self.engine.end_branch()?;
        Ok((edited.elapsed, edited.done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_and_its_inverse_cancel() {
        let piece = |at, delete, insert| SpliceShape { at, delete, insert };
        let edit = TokenEdit(vec![piece(3, 0, 5), piece(10, 4, 0), piece(20, 1, 2)]);
        let inverse = edit.inverse();
        assert_eq!(inverse.0, [piece(3, 5, 0), piece(15, 0, 4), piece(21, 2, 1)]);
        assert_eq!(inverse.inverse(), edit);
    }
}
