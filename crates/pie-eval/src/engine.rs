//! A rank of world size 1 with one session, driven by plans as its group's owner would. `pie bench` drives it too.

mod repair;
mod together;

use crate::error::EvalError;
use pie_comm::{Collective, Solo};
use pie_kv::{KvCache, Precision};
use pie_model::{Compute, Model, OnCpu};
use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Plan, Run, Table};
use pie_proto::plan::{Sampling, Step};
use pie_words::{Epoch, SamplingParameters, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_worker::{RankExecutor, SampledToken, Saved, StepReport};
pub use repair::{RATE_ROWS, RepairSelection};
use std::path::Path;
use std::time::{Duration, Instant};
pub use together::Together;

const SESSION: SessionId = SessionId(1);
/// Rows of a step, as the router's default.
const CHUNK: u32 = 512;

/// A rank's model with its cache.
pub struct Machine<C: Compute = OnCpu> {
    compute: C,
    slots: u32,
    chunk: u32,
    epoch: u64,
}

impl Machine {
    /// Loads a model folder, with a cache of `slots` tokens. `progress` hears (bytes done, bytes in all).
    ///
    /// # Errors
    /// What the model or the cache refuses.
    pub fn load(folder: &Path, slots: u32, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, EvalError> {
        let model = Model::load(folder, Solo::new().member(), progress)?;
        let cache = KvCache::new(model.kv_shape(slots as usize))?;
        Ok(Self::new(OnCpu::new(model, cache), slots))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.compute.model()
    }

    /// The same machine with a cache whose rows have another precision; no bed survives it.
    ///
    /// # Errors
    /// Memory.
    pub fn set_precision(&mut self, precision: Precision) -> Result<(), EvalError> {
        Ok(self.compute.renew_cache(precision)?)
    }
}

impl<C: Compute> Machine<C> {
    /// A machine of whatever computes alone; its cache has at least `slots` slots.
    pub fn new(compute: C, slots: u32) -> Self {
        Self { compute, slots, chunk: CHUNK, epoch: 0 }
    }

    /// The same machine with steps of so many rows at most; 512 without it.
    #[must_use]
    pub fn with_chunk(self, rows: u32) -> Self {
        Self { chunk: rows.max(1), ..self }
    }

    /// Rows of a step at most.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// What computes.
    pub fn compute(&self) -> &C {
        &self.compute
    }

    /// What computes, for measuring it by itself. Rows that beds have made are then another's to answer for.
    pub fn compute_mut(&mut self) -> &mut C {
        &mut self.compute
    }

    /// An empty rank in a group of its own.
    fn rank(&mut self) -> RankExecutor<'_> {
        self.epoch += 1;
        RankExecutor::new(&mut self.compute, Box::new(Solo::new()), Epoch(self.epoch), self.slots)
    }
}

/// What steps did for the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows that were encoded.
    pub encoded: u32,
    /// Keys that were turned.
    pub rotated: u32,
}

/// An edit, up to the token that follows.
#[derive(Clone, Debug)]
pub struct TimedEdit {
    /// From the splices to the next token: tables, turns, and the pass that also gives the next token's logits.
    pub elapsed: Duration,
    /// What it took: rows encoded, keys turned.
    pub done: Done,
    /// The most likely token behind the new context.
    pub next: SampledToken,
}

/// One session on a machine.
pub struct Bed<'a> {
    rank: RankExecutor<'a>,
    chunk: u32,
    top_logprobs: u32,
}

impl<'a> Bed<'a> {
    /// An empty session.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn new<C: Compute>(machine: &'a mut Machine<C>) -> Result<Self, EvalError> {
        let chunk = machine.chunk;
        let mut bed = Self { rank: machine.rank(), chunk, top_logprobs: 0 };
        bed.run(vec![Change::Open { session: SESSION }], None, 1)?;
        Ok(bed)
    }

    /// From here on sampled tokens come with so many log probabilities; the vocabulary's size gives all.
    pub fn report_logprobs(&mut self, count: u32) {
        self.top_logprobs = count;
    }

    /// The document's tokens.
    pub fn tokens(&self) -> &[TokenId] {
        self.table().map_or(&[], Table::tokens)
    }

    /// Makes the document these tokens, encoded as if they had been opened: everything from the first other token on, and from
    /// the first stale row on, is encoded again. Returns how many tokens stayed.
    ///
    /// # Errors
    /// A document that the cache or the model has no room for.
    pub fn become_exactly(&mut self, tokens: &[TokenId]) -> Result<usize, EvalError> {
        let old = self.tokens();
        let same = old.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let same = same.min(self.table().map_or(0, Table::frontier));
        let delete = u32::try_from(old.len() - same).unwrap_or(u32::MAX);
        let splice = Splice { at: index(same), delete, insert: tokens[same..].to_vec() };
        let splices = Splices::new(vec![splice], old.len())?;
        self.run(edit(splices, Strategy::Full), None, 1)?;
        self.catch_up(0)?;
        Ok(same)
    }

    /// Edits, and brings the cache up to the token that follows, whose logits come with the last pass. The token joins the
    /// branch. Tokens that `full` leaves to encode come in chunks, as from a router.
    ///
    /// # Errors
    /// A document that the cache or the model has no room for.
    pub fn edit(&mut self, splices: Splices, strategy: Strategy) -> Result<TimedEdit, EvalError> {
        let start = Instant::now();
        let sample = Run::Sample { session: SESSION };
        let mut done = Done::default();
        let next = if strategy == Strategy::Full || splices.inserted() > self.chunk as usize {
            self.run(edit(splices, strategy), None, 1)?;
            done = self.catch_up(self.chunk as usize)?;
            self.counted(Vec::new(), Some(sample), &mut done)?
        } else {
            self.counted(edit(splices, strategy), Some(sample), &mut done)?
        };
        let elapsed = start.elapsed();
        let next = next.into_iter().next().ok_or(EvalError::NothingSampled)?;
        Ok(TimedEdit { elapsed, done, next })
    }

    /// Edits, settles and encodes, without asking for a token.
    ///
    /// # Errors
    /// As [`Bed::edit`].
    pub fn encode(&mut self, splices: Splices, strategy: Strategy) -> Result<Done, EvalError> {
        let mut done = Done::default();
        self.counted(edit(splices, strategy), Some(encode(self.chunk)), &mut done)?;
        let rest = self.catch_up(0)?;
        Ok(Done { encoded: done.encoded + rest.encoded, rotated: done.rotated + rest.rotated })
    }

    /// Edits and turns the keys behind; inserted tokens wait.
    ///
    /// # Errors
    /// As [`Bed::edit`].
    pub fn turn(&mut self, splices: Splices) -> Result<Done, EvalError> {
        let mut done = Done::default();
        self.counted(edit(splices, Strategy::Pie), Some(encode(0)), &mut done)?;
        Ok(done)
    }

    /// Decodes greedily, all in one plan; the tokens join the branch.
    ///
    /// # Errors
    /// A cache or a model without room for them.
    pub fn decode(&mut self, tokens: u32) -> Result<Vec<SampledToken>, EvalError> {
        let (sampled, _) = self.run(Vec::new(), Some(Run::Sample { session: SESSION }), tokens)?;
        Ok(sampled)
    }

    /// Drops the branch.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn end_branch(&mut self) -> Result<(), EvalError> {
        self.run(vec![Change::EndBranch { session: SESSION }], None, 1)?;
        Ok(())
    }

    /// The one splice at token `at`.
    ///
    /// # Errors
    /// A place outside of the document.
    pub fn splice(&self, at: usize, delete: u32, insert: Vec<TokenId>) -> Result<Splices, EvalError> {
        Ok(Splices::new(vec![Splice { at: index(at), delete, insert }], self.tokens().len())?)
    }

    /// The keys of the document's tokens in one layer: [tokens][kv heads * head dimension].
    ///
    /// # Errors
    /// The layer does not exist.
    pub fn keys(&self, layer: usize) -> Result<Vec<f32>, EvalError> {
        Ok(self.rank.read(SESSION, layer)?.keys)
    }

    /// Saves the state of tokens `from` on, and the tables. Tokens before must not change until it is restored.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn save(&self, from: usize) -> Result<Saved, EvalError> {
        Ok(self.rank.save(SESSION, index(from))?)
    }

    /// Returns to a saved state.
    ///
    /// # Errors
    /// None that is no bug.
    pub fn restore(&mut self, saved: &Saved) -> Result<(), EvalError> {
        Ok(self.rank.restore(saved)?)
    }

    fn table(&self) -> Option<&Table> {
        self.rank.group().table(SESSION)
    }

    /// Encodes pending tokens in chunks until at most `left` wait.
    fn catch_up(&mut self, left: usize) -> Result<Done, EvalError> {
        let mut done = Done::default();
        while self.table().is_some_and(|table| table.pending() > left) {
            self.counted(Vec::new(), Some(encode(self.chunk)), &mut done)?;
        }
        Ok(done)
    }

    fn counted(
        &mut self,
        changes: Vec<Change>,
        run: Option<Run>,
        sum: &mut Done,
    ) -> Result<Vec<SampledToken>, EvalError> {
        let (sampled, done) = self.run(changes, run, 1)?;
        sum.encoded += done.encoded;
        sum.rotated += done.rotated;
        Ok(sampled)
    }

    /// One step.
    fn run(
        &mut self,
        changes: Vec<Change>,
        run: Option<Run>,
        passes: u32,
    ) -> Result<(Vec<SampledToken>, Done), EvalError> {
        let report = step(&mut self.rank, changes, run.into_iter().collect(), passes, self.top_logprobs)?;
        let tokens: Vec<_> = report.passes.into_iter().flatten().collect();
        if !tokens.iter().all(SampledToken::is_drawn) {
            return Err(EvalError::NoNumbers);
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok((tokens, Done { encoded: count(report.encoded), rotated: count(report.rotated) }))
    }
}

/// One step of a rank, by the plan that its group's owner would send; what samples, samples greedily.
fn step(
    rank: &mut RankExecutor<'_>,
    changes: Vec<Change>,
    runs: Vec<Run>,
    passes: u32,
    top_logprobs: u32,
) -> Result<StepReport, EvalError> {
    let (epoch, seq) = (rank.group().epoch(), rank.group().next_seq());
    let parameters = SamplingParameters::greedy(top_logprobs);
    let (stop_tokens, expected) = (Vec::new(), Vec::new());
    let sampling = Sampling { parameters, step: 0, stop_tokens, max_tokens: passes, drafts: 0, expected };
    let sampling = runs.iter().map(|run| (run.session(), sampling.clone())).collect();
    let plan =
        Plan { epoch, seq, changes, runs, passes, digest: DigestWanted::Skip, blocks: PlanBlocks::default() };
    Ok(rank.step(&Step { plan, sampling })?)
}

/// What was generated goes, as a newer edit ends a completion.
fn edit(splices: Splices, strategy: Strategy) -> Vec<Change> {
    let session = SESSION;
    vec![Change::EndBranch { session }, Change::Splice { session, splices, strategy }]
}

fn encode(limit: u32) -> Run {
    Run::Encode { session: SESSION, limit }
}

fn index(at: usize) -> TokenIndex {
    TokenIndex(u32::try_from(at).unwrap_or(u32::MAX))
}
