//! A rank in a formed group: one step at a time, in lockstep with its peers.

use crate::error::WorkerError;
use crate::speculating::{Drafts, DrawnTokens, StepProgress};
use crate::spill::{BlockName, Spill};
use crate::timed::Timed;
use pie_comm::Collective;
use pie_model::{Batch, Compute, Draw, Interrupt, KvRows, ModelError, Sampled};
use pie_plan::blocks::Block;
use pie_plan::speculation::Lookup;
use pie_plan::{DigestWanted, Group, SequenceRows, Then, Work};
use pie_proto::plan::{SampledToken, Speculated, Step};
use pie_words::{Epoch, Seq, SessionId, Slot, TokenIndex};
use std::time::{Duration, Instant};

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The tokens of each forward pass that sampled, in the order in which they joined their branches.
    pub passes: Vec<Vec<SampledToken>>,
    /// Of the tables afterwards, if asked for.
    pub digest: Option<u64>,
    /// Of all sampled tokens.
    pub sampled_digest: u64,
    /// Sessions whose rows the model cannot see: they were left out; and those whose logits were no numbers, so that their last token
    /// was not drawn. The same on all ranks.
    pub refused: Vec<SessionId>,
    /// Sessions whose block was read from disk, by all ranks.
    pub reloaded: Vec<SessionId>,
    /// Its one pass, which only repairs, was given up in the middle.
    pub is_given_up: bool,
    /// Forward passes: fewer than `passes`, where what was looked up was drawn.
    pub forwards: u32,
    /// What they looked up.
    pub speculated: Vec<Speculated>,
    /// Rows of all its passes.
    pub encoded: usize,
    /// Keys that were turned.
    pub rotated: usize,
    /// The whole step.
    pub compute: Duration,
    /// Of that, in collectives.
    pub collective: Duration,
}

/// Who follows a step while it runs.
pub trait Observer: Sync {
    /// A pass sampled these tokens, and another follows.
    fn sampled(&mut self, tokens: &[SampledToken]);
    /// Whether the plan is to end after the pass that just ran, or in the middle of one that [only repairs](pie_plan::Plan::only_repairs).
    /// The ranks agree: one that says so ends it for all.
    fn interrupted(&self, seq: Seq) -> bool;
}

/// Nobody follows.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn sampled(&mut self, _tokens: &[SampledToken]) {}

    fn interrupted(&self, _seq: Seq) -> bool {
        false
    }
}

/// The tables at one moment, and the rows of one session from a token on: a state to return to, for experiments that try
/// several plans from it.
#[derive(Clone, Debug)]
pub struct Saved {
    group: Group,
    slots: Vec<Slot>,
    layers: Vec<KvRows>,
}

/// A rank in a formed group.
pub struct RankExecutor<'a> {
    compute: &'a mut dyn Compute,
    comm: Timed,
    group: Group,
    spill: Option<&'a Spill>,
}

impl<'a> RankExecutor<'a> {
    /// Joins a group of `slots` slots that is still empty; the cache of `compute` has at least as many.
    pub fn new(compute: &'a mut dyn Compute, comm: Box<dyn Collective>, epoch: Epoch, slots: u32) -> Self {
        Self { compute, comm: Timed::new(comm), group: Group::new(epoch, slots), spill: None }
    }

    /// The same rank, which writes rows to disk and reads them back where a plan says so.
    #[must_use]
    pub fn with_spill(self, spill: Option<&'a Spill>) -> Self {
        Self { spill, ..self }
    }

    /// The same tables and rows, with the same peers, in a new epoch. All ranks of the group do so, between the same two plans.
    pub fn renew(&mut self, epoch: Epoch) {
        self.group.renew(epoch);
    }

    /// The tables.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The rows of one session in one layer, in token order.
    ///
    /// # Errors
    /// The session is not open, or the layer does not exist.
    pub fn read(&self, session: SessionId, layer: usize) -> Result<KvRows, WorkerError> {
        let table = self.group.table(session).ok_or(pie_plan::PlanError::UnknownSession(session))?;
        Ok(self.compute.rows(layer, table.slots())?)
    }

    /// Saves the tables, and the rows of a session from token `from` on. Rows before it, and those of other sessions, must
    /// not change before [`RankExecutor::restore`].
    ///
    /// # Errors
    /// The session is not open.
    pub fn save(&self, session: SessionId, from: TokenIndex) -> Result<Saved, WorkerError> {
        let table = self.group.table(session).ok_or(pie_plan::PlanError::UnknownSession(session))?;
        let slots = table.slots()[from.usize().min(table.slots().len())..].to_vec();
        let layers = 0..self.compute.kv_shape().layers;
        let layers = layers.map(|layer| self.compute.rows(layer, &slots)).collect::<Result<_, _>>()?;
        Ok(Saved { group: self.group.clone(), slots, layers })
    }

    /// Returns to a saved state, number for number. All ranks of a group, and its owner, must do the same: plans go on
    /// from the number that was next then.
    ///
    /// # Errors
    /// A state of another cache.
    pub fn restore(&mut self, saved: &Saved) -> Result<(), WorkerError> {
        for (layer, rows) in saved.layers.iter().enumerate() {
            self.compute.set_rows(layer, &saved.slots, rows)?;
        }
        self.group = saved.group.clone();
        Ok(())
    }

    /// Applies a plan: changes the tables, turns keys, runs the forward passes.
    ///
    /// # Errors
    /// Any error leaves this rank out of step with its peers: it must leave the group.
    pub fn step(&mut self, step: &Step) -> Result<StepReport, WorkerError> {
        self.step_observed(step, &mut Unobserved)
    }

    /// The same, with somebody who follows its passes and may end it early.
    ///
    /// # Errors
    /// As [`RankExecutor::step`].
    pub fn step_observed(
        &mut self,
        step: &Step,
        observer: &mut dyn Observer,
    ) -> Result<StepReport, WorkerError> {
        let start = Instant::now();
        let mut work = self.group.apply(&step.plan)?;
        let mut done = StepProgress::new(self.unseen(&work));
        if !done.refused.is_empty() {
            work = without(work, &done.refused);
        }
        // Slots that are read here, or written, may be what is copied from and to.
        self.move_rows(&work)?;
        let reloaded = self.reload(&step.plan.blocks.reloaded)?;
        self.spill(&step.plan.blocks.spilled)?;
        let mut is_given_up = false;
        loop {
            done.rotated += work.turns.slots.len();
            let drafts = self.drafts(&work, step, &done);
            let drawn = match self.pass(&work, step, &drafts, &done, observer) {
                Err(WorkerError::Model(ModelError::GivenUp)) => {
                    self.group.give_up(&step.plan, &work)?;
                    is_given_up = true;
                    break;
                }
                drawn => drawn?,
            };
            done.encoded += work.rows.len() + drafts.rows();
            done.forwards += 1;
            if drawn.is_empty() {
                break;
            }
            let told = done.passes.len();
            let positions = self.compute.config().max_position_embeddings;
            let (going, copies) = drafts.join(&drawn, &mut self.group, step, positions, &mut done)?;
            self.compute.copy(&copies.from, &copies.to)?;
            if going.is_empty() {
                break;
            }
            done.passes[told..].iter().for_each(|pass| observer.sampled(pass));
            if self.somebody_says(observer.interrupted(step.plan.seq))? {
                break;
            }
            work = self.group.decode(&going)?;
            self.move_rows(&work)?;
        }
        let digest = match step.plan.digest {
            DigestWanted::Skip => None,
            DigestWanted::Report => {
                self.group.check()?;
                Some(self.group.digest())
            }
        };
        let (sampled_digest, speculated) = (digest_of(&done.passes), done.speculated());
        let StepProgress { passes, forwards, encoded, rotated, refused, .. } = done;
        Ok(StepReport {
            passes,
            digest,
            sampled_digest,
            refused,
            reloaded,
            is_given_up,
            forwards,
            speculated,
            encoded,
            rotated,
            compute: start.elapsed(),
            collective: self.comm.take_spent(),
        })
    }

    /// Reads blocks that all ranks have: one that lacks it leaves it to be encoded, for all. The sessions that got theirs.
    fn reload(&mut self, blocks: &[Block]) -> Result<Vec<SessionId>, WorkerError> {
        let mut reloaded = Vec::new();
        for block in blocks {
            let (first, slots) = self.group.reload_into(block)?;
            let slots = slots.to_vec();
            let layers = self.spill.and_then(|spill| spill.read(self.key(block)));
            if self.somebody_says(layers.is_none())? {
                continue;
            }
            let numbers = (first - block.rows().start) * self.compute.kv_shape().numbers();
            for (layer, rows) in layers.into_iter().flatten().enumerate() {
                let rows = match numbers {
                    0 => rows,
                    _ => KvRows {
                        keys: rows.keys[numbers..].to_vec(),
                        values: rows.values[numbers..].to_vec(),
                    },
                };
                self.compute.set_rows(layer, &slots, &rows)?;
            }
            self.group.reloaded(std::slice::from_ref(block))?;
            reloaded.push(block.session);
        }
        Ok(reloaded)
    }

    /// Has blocks written that are not on disk yet. Each rank for itself: one that cannot lacks them later.
    fn spill(&mut self, blocks: &[Block]) -> Result<(), WorkerError> {
        if blocks.is_empty() {
            return Ok(());
        }
        // Nothing else in such a plan may keep ranks together, and a new owner finds the caches of ranks that are.
        self.somebody_says(false)?;
        let Some(spill) = self.spill else { return Ok(()) };
        for block in blocks {
            let key = self.key(block);
            if spill.knows(key) {
                spill.keep(key);
                continue;
            }
            let Some(table) = self.group.table(block.session) else { continue };
            let slots = &table.slots()[block.rows()];
            let layers = 0..self.compute.kv_shape().layers;
            let layers = layers.map(|layer| self.compute.rows(layer, slots)).collect::<Result<_, _>>()?;
            spill.write(key, layers);
        }
        Ok(())
    }

    fn key(&self, block: &Block) -> BlockName {
        let tokens = self.group.table(block.session).map_or(&[][..], pie_plan::Table::tokens);
        BlockName::new(&tokens[..block.end.usize().min(tokens.len())], block.realm)
    }

    /// The sessions of a pass with rows that the model cannot see. The owner refuses them before; where it did not, one session
    /// must not end the epoch for all. Every rank finds the same ones.
    fn unseen(&self, work: &Work) -> Vec<SessionId> {
        let config = self.compute.config();
        let (positions, tokens) = (config.max_position_embeddings, config.vocab_size);
        let unseen =
            |row: &pie_plan::Row| row.position.usize() >= positions || row.token.0 as usize >= tokens;
        let sequences = work.sequences.iter();
        let sequences = sequences.filter(|sequence| work.rows[sequence.rows.clone()].iter().any(unseen));
        sequences.map(|sequence| sequence.session).collect()
    }

    /// What the sessions of a pass that sample may look up: no more than they may draw in this step behind the pass's own token, and
    /// than the model has positions for.
    fn drafts(&self, work: &Work, step: &Step, done: &StepProgress) -> Drafts {
        let positions = self.compute.config().max_position_embeddings;
        let lookup = |sequence: &SequenceRows| {
            let session = sequence.session;
            let sampling = step.sampling.get(&session)?;
            let room = positions.saturating_sub(self.group.table(session)?.context_length());
            let left = done.left(step, session).saturating_sub(1).min(sampling.drafts);
            Some(Lookup { session, expected: &sampling.expected, most: room.min(left as usize) })
        };
        let sampling = work.sequences.iter().filter(|sequence| sequence.then == Then::Sample);
        let lookups: Vec<Lookup<'_>> = sampling.filter_map(lookup).collect();
        Drafts::new(&self.group, self.group.draft(&lookups))
    }

    /// C1: all ranks ask at the same place of a plan, and hear the same.
    fn somebody_says(&mut self, here: bool) -> Result<bool, WorkerError> {
        let mut votes = [if here { 1.0 } else { 0.0 }];
        self.comm.all_reduce_sum(&mut votes)?;
        Ok(votes[0] > 0.0)
    }

    /// Copies and turns of the cache, before anything is read or encoded.
    fn move_rows(&mut self, work: &Work) -> Result<(), WorkerError> {
        self.compute.copy(&work.copies.from, &work.copies.to)?;
        Ok(self.compute.turn(&work.turns.slots, &work.turns.deltas)?)
    }

    /// One ragged forward pass.
    fn pass(
        &mut self,
        work: &Work,
        step: &Step,
        drafts: &Drafts,
        done: &StepProgress,
        observer: &dyn Observer,
    ) -> Result<Vec<DrawnTokens>, WorkerError> {
        if work.rows.is_empty() {
            return Ok(Vec::new());
        }
        let is_interrupted = || observer.interrupted(step.plan.seq);
        // Where a session was left out, a pass that is given up would leave other tables here than with the owner.
        let is_whole = work.sequences.len() == step.plan.runs.len();
        let interrupt = (is_whole && step.plan.only_repairs()).then_some(Interrupt(&is_interrupted));
        let batch = Batch { interrupt, ..drafts.batch(&self.group, work)? };
        let sampling = work.sequences.iter().filter(|sequence| sequence.then == Then::Sample);
        let sessions: Vec<SessionId> = sampling.map(|sequence| sequence.session).collect();
        let mut draws = Vec::with_capacity(batch.logits_of.len());
        for session in &sessions {
            let sampling = step.sampling.get(session).ok_or(WorkerError::NoSampling(*session))?;
            let first = sampling.step + u64::from(done.drawn(*session));
            let steps = (first..).take(1 + drafts.tokens(*session).len());
            draws.extend(steps.map(|step| Draw { parameters: sampling.parameters.clone(), step }));
        }
        let mut sampled = self.compute.forward(&batch, &draws, &mut self.comm)?.into_iter();
        let of = |session: SessionId| {
            let own = sampled.by_ref().take(1 + drafts.tokens(session).len());
            let token = |Sampled { token, logprob, top }| SampledToken { session, token, logprob, top };
            DrawnTokens { session, tokens: own.map(token).collect() }
        };
        Ok(sessions.into_iter().map(of).collect())
    }
}

/// The work of all sessions but these. Their keys turn all the same: the tables say so.
fn without(work: Work, refused: &[SessionId]) -> Work {
    let (mut rows, mut sequences) = (Vec::new(), Vec::new());
    for sequence in work.sequences.into_iter().filter(|sequence| !refused.contains(&sequence.session)) {
        let first = rows.len();
        rows.extend_from_slice(&work.rows[sequence.rows]);
        sequences.push(SequenceRows { rows: first..rows.len(), ..sequence });
    }
    Work { rows, sequences, ..work }
}

fn digest_of(passes: &[Vec<SampledToken>]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for sampled in passes.iter().flatten() {
        hasher.update(&sampled.session.0.to_le_bytes());
        hasher.update(&sampled.token.0.to_le_bytes());
    }
    hasher.digest()
}
