//! Several sessions on one machine, which decode together.

use super::{Machine, step};
use crate::error::EvalError;
use pie_model::Compute;
use pie_plan::{Change, Run};
use pie_words::{SessionId, Splices, Strategy, TokenId};
use pie_worker::RankExecutor;
use std::time::Duration;

/// Sessions of one group.
pub struct Together<'a> {
    rank: RankExecutor<'a>,
    chunk: u32,
    sessions: Vec<SessionId>,
}

impl<'a> Together<'a> {
    /// A group without sessions.
    pub fn new<C: Compute>(machine: &'a mut Machine<C>) -> Self {
        let chunk = machine.chunk();
        Self { rank: machine.rank(), chunk, sessions: Vec::new() }
    }

    /// Opens another session with a document, encoded in chunks. Returns how long that took.
    ///
    /// # Errors
    /// A document that the cache or the model has no room for.
    pub fn open(&mut self, document: Vec<TokenId>) -> Result<Duration, EvalError> {
        let session = SessionId(self.sessions.len() as u64 + 1);
        self.sessions.push(session);
        let chunks = document.len().div_ceil(self.chunk as usize);
        let (splices, strategy) = (Splices::append(0, document)?, Strategy::Pie);
        let opening = vec![Change::Open { session }, Change::Splice { session, splices, strategy }];
        let mut elapsed = self.step(opening, vec![], 1)?;
        for _ in 0..chunks {
            elapsed += self.step(vec![], vec![Run::Encode { session, limit: self.chunk }], 1)?;
        }
        Ok(elapsed)
    }

    /// Lets the first `sessions` sessions generate `tokens` tokens each, in one plan, and drops what they generated. Returns
    /// how long the generating took.
    ///
    /// # Errors
    /// A cache or a model without room for them.
    pub fn decode(&mut self, sessions: usize, tokens: u32) -> Result<Duration, EvalError> {
        let chosen: Vec<_> = self.sessions.iter().copied().take(sessions).collect();
        let runs = chosen.iter().map(|session| Run::Sample { session: *session }).collect();
        let elapsed = self.step(vec![], runs, tokens)?;
        let ends = chosen.into_iter().map(|session| Change::EndBranch { session }).collect();
        self.step(ends, vec![], 1)?;
        Ok(elapsed)
    }

    fn step(&mut self, changes: Vec<Change>, runs: Vec<Run>, passes: u32) -> Result<Duration, EvalError> {
        Ok(step(&mut self.rank, changes, runs, passes, 0)?.compute)
    }
}
