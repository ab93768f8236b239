//! A rank of world size 1 with one session, driven by plans as its group's owner would.

use crate::Failure;
use pie_comm::Solo;
use pie_kv::KvCache;
use pie_model::Model;
use pie_plan::{
    Change, DigestWanted, Epoch, Group, Plan, Run, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex,
};
use pie_proto::plan::{Sampling, Step};
use pie_worker::Rank;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const SESSION: SessionId = SessionId(1);
/// Tokens of a step, as the router's default.
const CHUNK: u32 = 512;

/// A loaded model and its cache.
pub struct Machine {
    model: Model,
    cache: KvCache,
    slots: u32,
    epoch: u64,
}

impl Machine {
    pub fn load(folder: &Path, slots: u32) -> Result<Self, Failure> {
        let (model, cache) =
            crate::worker::load(folder, &Solo::new(), crate::worker::Capacity::Slots(slots))?;
        Ok(Self { model, cache, slots, epoch: 0 })
    }

    pub fn parameters(&self) -> u64 {
        self.model.config().parameters()
    }
}

/// What a step did for the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub encoded: u32,
    pub rotated: u32,
}

/// One session on a machine.
pub struct Bed<'a> {
    rank: Rank<'a>,
    /// The owner's replica, which says how much is pending.
    replica: Group,
    vocabulary: u32,
    state: u32,
}

impl<'a> Bed<'a> {
    pub fn new(machine: &'a mut Machine) -> Result<Self, Failure> {
        machine.epoch += 1;
        let epoch = Epoch(machine.epoch);
        let vocabulary = u32::try_from(machine.model.config().vocab_size)?;
        let rank = Rank::new(&machine.model, &mut machine.cache, Box::new(Solo::new()), epoch, machine.slots);
        let replica = Group::new(epoch, machine.slots);
        let mut bed = Self { rank, replica, vocabulary, state: 1 };
        bed.run(vec![Change::Open { session: SESSION }], None, 1)?;
        Ok(bed)
    }

    /// Encodes a document of `tokens` tokens in chunks.
    pub fn open(&mut self, tokens: u32) -> Result<Duration, Failure> {
        let ids = self.tokens(tokens);
        let splices = Splices::append(0, ids)?;
        let start = Instant::now();
        self.run(vec![Change::Splice { session: SESSION, splices, strategy: Strategy::Pie }], None, 1)?;
        self.catch_up(0)?;
        Ok(start.elapsed())
    }

    /// Decodes greedily, all in one plan, and drops what was decoded.
    pub fn decode(&mut self, tokens: u32) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.run(Vec::new(), Some(Run::Sample { session: SESSION }), tokens)?;
        let elapsed = start.elapsed();
        self.run(vec![Change::EndBranch { session: SESSION }], None, 1)?;
        Ok(elapsed)
    }

    /// From an insertion to the next token.
    pub fn insert(
        &mut self,
        at: usize,
        tokens: u32,
        strategy: Strategy,
    ) -> Result<(Duration, Done), Failure> {
        let insert = self.tokens(tokens);
        let splices = self.splices(at, 0, insert)?;
        let start = Instant::now();
        let edit = Change::Splice { session: SESSION, splices, strategy };
        let mut done = Done::default();
        if strategy == Strategy::Full {
            self.run(vec![edit], None, 1)?;
            done = self.catch_up(CHUNK as usize)?;
            add(&mut done, self.run(Vec::new(), Some(Run::Sample { session: SESSION }), 1)?);
        } else {
            add(&mut done, self.run(vec![edit], Some(Run::Sample { session: SESSION }), 1)?);
        }
        let elapsed = start.elapsed();
        self.run(vec![Change::EndBranch { session: SESSION }], None, 1)?;
        Ok((elapsed, done))
    }

    /// Takes an insertion back, and settles.
    pub fn remove(&mut self, at: usize, tokens: u32) -> Result<(), Failure> {
        let splices = self.splices(at, tokens, Vec::new())?;
        let undo = Change::Splice { session: SESSION, splices, strategy: Strategy::Pie };
        self.run(vec![undo], Some(Run::Sample { session: SESSION }), 1)?;
        self.run(vec![Change::EndBranch { session: SESSION }], None, 1)?;
        Ok(())
    }

    /// Encodes pending tokens in chunks until at most `left` wait.
    fn catch_up(&mut self, left: usize) -> Result<Done, Failure> {
        let mut done = Done::default();
        while self.replica.table(SESSION).is_some_and(|table| table.pending() > left) {
            add(&mut done, self.run(Vec::new(), Some(Run::Encode { session: SESSION, limit: CHUNK }), 1)?);
        }
        Ok(done)
    }

    fn run(&mut self, changes: Vec<Change>, run: Option<Run>, passes: u32) -> Result<Done, Failure> {
        let (epoch, seq) = (self.replica.epoch(), self.replica.next_seq());
        let runs = run.into_iter().collect();
        let plan = Plan { epoch, seq, changes, runs, passes, digest: DigestWanted::Skip };
        let work = self.replica.apply(&plan)?;
        let report = self.rank.step(&Step { plan, sampling: BTreeMap::from([(SESSION, greedy(passes))]) })?;
        for (index, pass) in report.passes.iter().enumerate() {
            let sampled: Vec<_> = pass.iter().map(|sampled| (sampled.session, sampled.token)).collect();
            if index > 0 {
                self.replica.decode(&[SESSION])?;
            }
            self.replica.append(&sampled)?;
        }
        Ok(Done { encoded: u32::try_from(work.rows.len())?, rotated: u32::try_from(work.turns.slots.len())? })
    }

    fn splices(&self, at: usize, delete: u32, insert: Vec<TokenId>) -> Result<Splices, Failure> {
        let length = self.replica.table(SESSION).map_or(0, pie_plan::Table::document_length);
        Ok(Splices::new(vec![Splice { at: TokenIndex(u32::try_from(at)?), delete, insert }], length)?)
    }

    /// Seeded noise: speed does not depend on what the tokens are.
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

fn add(sum: &mut Done, done: Done) {
    sum.encoded += done.encoded;
    sum.rotated += done.rotated;
}

fn greedy(max_tokens: u32) -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        seed: 0,
        step: 0,
        top_logprobs: 0,
        stop_tokens: Vec::new(),
        max_tokens,
    }
}
