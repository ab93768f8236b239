//! What `pie bench` does to a session: noise in, noise out.

use crate::{Failure, progress};
use pie_eval::engine::{self, Bed as Engine, Done, Machine};
use pie_plan::{Strategy, TokenId};
use std::path::Path;
use std::time::{Duration, Instant};

/// Loads a model with room for `slots` tokens, showing how far it is.
pub fn load(folder: &Path, slots: u32) -> Result<Machine, Failure> {
    let bar = progress::bytes("loading the model");
    let machine = Machine::load(folder, slots, &mut |done, total| progress::show(&bar, done, total))?;
    bar.finish_and_clear();
    Ok(machine)
}

/// Tokens a second of sessions that decode together, each behind a context of its own.
pub fn together(machine: &mut Machine, sessions: u32, context: u32, tokens: u32) -> Result<f64, Failure> {
    let mut noise = Noise::of(machine)?;
    let documents: Vec<_> = (0..sessions).map(|_| noise.tokens(context)).collect();
    let elapsed = engine::decode_together(machine, &documents, tokens)?;
    Ok(f64::from(sessions * tokens) / elapsed.as_secs_f64())
}

/// Seeded noise: speed does not depend on what the tokens are.
struct Noise {
    vocabulary: u32,
    state: u32,
}

impl Noise {
    fn of(machine: &Machine) -> Result<Self, Failure> {
        Ok(Self { vocabulary: u32::try_from(machine.model().config().vocab_size)?, state: 1 })
    }

    fn tokens(&mut self, count: u32) -> Vec<TokenId> {
        let mut next = || {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 17;
            self.state ^= self.state << 5;
            TokenId(self.state % self.vocabulary)
        };
        (0..count).map(|_| next()).collect()
    }
}

/// One session on a machine.
pub struct Bed<'a> {
    engine: Engine<'a>,
    noise: Noise,
}

impl<'a> Bed<'a> {
    pub fn new(machine: &'a mut Machine) -> Result<Self, Failure> {
        let noise = Noise::of(machine)?;
        Ok(Self { engine: Engine::new(machine)?, noise })
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

    /// From an insertion to the next token.
    pub fn insert(
        &mut self,
        at: usize,
        tokens: u32,
        strategy: Strategy,
    ) -> Result<(Duration, Done), Failure> {
        let insert = self.noise.tokens(tokens);
        let edited = self.engine.edit(self.engine.splice(at, 0, insert)?, strategy)?;
        self.engine.end_branch()?;
        Ok((edited.elapsed, edited.done))
    }

    /// Takes an insertion back, and settles.
    pub fn remove(&mut self, at: usize, tokens: u32) -> Result<(), Failure> {
        self.engine.edit(self.engine.splice(at, tokens, Vec::new())?, Strategy::Pie)?;
        Ok(self.engine.end_branch()?)
    }
}
