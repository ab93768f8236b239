//! A group of ranks in threads, driven by steps as its owner would.

use pie_comm::{Member, ThreadGroup};
use pie_kv::KvCache;
use pie_model::{Architecture, Compute, Config, Model, OnCpu};
use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Group, Plan, Run, Table, Work};
use pie_proto::plan::{Sampling, Step};
use pie_words::{Epoch, SamplingParameters, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_worker::rank::{Observer, Unobserved};
use pie_worker::{RankExecutor, StepReport};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const SLOTS: u32 = 1024;

/// What happens to a group, in order.
#[derive(Clone)]
pub enum Do {
    Step(Step),
    /// Read one layer of a session back.
    Read(SessionId, usize),
}

/// What came of it, on one rank.
#[derive(Clone, Debug)]
pub enum Out {
    Report(StepReport),
    /// [tokens][kv heads of the rank * head dimension] of keys, then of values.
    Rows(Vec<Vec<f32>>, Vec<Vec<f32>>),
}

impl Out {
    pub fn report(&self) -> &StepReport {
        match self {
            Self::Report(report) => report,
            Self::Rows(..) => panic!("rows where a report was expected"),
        }
    }

    pub fn rows(&self) -> (&[Vec<f32>], &[Vec<f32>]) {
        match self {
            Self::Rows(keys, values) => (keys, values),
            Self::Report(_) => panic!("a report where rows were expected"),
        }
    }
}

/// A seeded model with 8 KV heads and linear scaling, small enough for a test.
pub fn model_folder() -> (tempfile::TempDir, PathBuf) {
    folder_of(&pie_model::architecture::LLAMA)
}

/// The same of another architecture.
pub fn folder_of(architecture: &'static Architecture) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model");
    let config = Config { architecture, ..Config::preset("test").expect("a preset for tests") };
    pie_model::seeded::write_model(&path, &config, 7, &mut |_, _| {}).expect("it can be written");
    (folder, path)
}

/// Does the same on every rank of a group of `world_size`, and returns what came of it, by rank.
pub fn drive(folder: &Path, world_size: u32, script: &[Do]) -> Vec<Vec<Out>> {
    let members = ThreadGroup::new(world_size).expect("a world size");
    std::thread::scope(|scope| {
        let ranks: Vec<_> = members
            .into_iter()
            .map(|comm| {
                scope.spawn(move || {
                    let member = pie_comm::Collective::member(&comm);
                    let mut compute = compute(folder, member, SLOTS);
                    let mut rank = RankExecutor::new(compute.as_mut(), Box::new(comm), Epoch(1), SLOTS);
                    script.iter().map(|instruction| one(&mut rank, instruction)).collect::<Vec<_>>()
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    })
}

/// What a rank of a test computes with: the CPU, or with PIE_TEST_DEVICE=cuda a GPU that all ranks share.
pub fn compute(folder: &Path, member: Member, slots: u32) -> Box<dyn Compute> {
    #[cfg(feature = "cuda")]
    if std::env::var("PIE_TEST_DEVICE").is_ok_and(|device| device == "cuda") {
        use pie_kv::cuda::{Dtype, Gpu};
        let gpu = Gpu::open(0).expect("a GPU, or the emulated one: run scripts/gpu/test.sh");
        let (slots, mut quiet) = (slots as usize, |_, _| {});
        let gpu = pie_model::cuda::OnGpu::load(&gpu, folder, member, Dtype::F32, slots, &mut quiet);
        return Box::new(gpu.expect("the model loads"));
    }
    let model = Model::load(folder, member, &mut |_, _| {}).expect("the model loads");
    let cache = KvCache::new(model.kv_shape(slots as usize)).expect("it fits");
    Box::new(OnCpu::new(model, cache))
}

fn one(rank: &mut RankExecutor<'_>, instruction: &Do) -> Out {
    one_observed(rank, instruction, &mut Unobserved)
}

pub fn one_observed(rank: &mut RankExecutor<'_>, instruction: &Do, observer: &mut dyn Observer) -> Out {
    match instruction {
        Do::Step(step) => {
            let report = rank.step_observed(step, observer).expect("the step runs");
            rank.group().check().expect("K1 and K2 hold");
            Out::Report(report)
        }
        Do::Read(session, layer) => {
            let tokens = rank.group().table(*session).expect("the session is open").slots().len();
            let read = rank.read(*session, *layer).expect("the session is open");
            let rows = |numbers: Vec<f32>| -> Vec<Vec<f32>> {
                numbers.chunks(numbers.len() / tokens).map(<[f32]>::to_vec).collect()
            };
            Out::Rows(rows(read.keys), rows(read.values))
        }
    }
}

/// Writes scripts; keeps a replica to know lengths and numbers.
pub struct Script {
    pub instructions: Vec<Do>,
    replica: Group,
    noise: u64,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        Self { instructions: Vec::new(), replica: Group::new(Epoch(1), SLOTS), noise: seed * 2 + 1 }
    }

    /// A number below `limit`; the same for the same seed.
    pub fn random(&mut self, limit: usize) -> usize {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.noise >> 33) as usize) % limit.max(1)
    }

    pub fn tokens(&mut self, count: usize) -> Vec<TokenId> {
        (0..count).map(|_| TokenId(self.random(500) as u32)).collect()
    }

    pub fn document(&self, session: SessionId) -> Vec<TokenId> {
        self.replica.table(session).map(|table| table.tokens().to_vec()).unwrap_or_default()
    }

    pub fn table(&self, session: SessionId) -> &Table {
        self.replica.table(session).expect("the session is open")
    }

    /// A plan that only repairs, and that the ranks are made to give up.
    pub fn give_up(&mut self, changes: Vec<Change>, runs: Vec<Run>) {
        let work = self.plan(changes, runs, 1);
        let Some(Do::Step(step)) = self.instructions.last() else { return };
        self.replica.give_up(&step.plan, &work).expect("it was applied");
    }

    pub fn open(&mut self, session: SessionId, tokens: Vec<TokenId>) {
        let splices = Splices::append(0, tokens).expect("one splice");
        let changes =
            vec![Change::Open { session }, Change::Splice { session, splices, strategy: Strategy::Pie }];
        self.plan(changes, vec![Run::Encode { session, limit: u32::MAX }], 1);
    }

    pub fn edit(&mut self, session: SessionId, list: Vec<Splice>, strategy: Strategy) {
        let splices = Splices::new(list, self.document(session).len()).expect("made to fit");
        self.plan(
            vec![Change::Splice { session, splices, strategy }],
            vec![Run::Encode { session, limit: u32::MAX }],
            1,
        );
    }

    /// Samples greedily, and drops the branch at once. Returns the index of the report.
    pub fn sample(&mut self, session: SessionId, tokens: u32) -> usize {
        let index = self.instructions.len();
        self.plan(Vec::new(), vec![Run::Sample { session }], tokens);
        self.plan(vec![Change::EndBranch { session }], Vec::new(), 1);
        index
    }

    /// Samples greedily what is known to come, and keeps the branch.
    pub fn generate(&mut self, session: SessionId, tokens: &[TokenId]) {
        self.plan(Vec::new(), vec![Run::Sample { session }], tokens.len() as u32);
        self.joined(tokens.iter().map(|token| vec![(session, *token)]));
    }

    /// The tokens of a plan's passes join their branches, as the ranks report them.
    pub fn joined(&mut self, passes: impl Iterator<Item = Vec<(SessionId, TokenId)>>) {
        for (index, pass) in passes.enumerate() {
            if index > 0 {
                let sessions: Vec<SessionId> = pass.iter().map(|(session, _)| *session).collect();
                self.replica.decode(&sessions).expect("they sampled");
            }
            self.replica.append(&pass).expect("reserved");
        }
    }

    /// Of the owner's tables.
    pub fn digest(&self) -> u64 {
        self.replica.digest()
    }

    pub fn read(&mut self, session: SessionId, layer: usize) -> usize {
        self.instructions.push(Do::Read(session, layer));
        self.instructions.len() - 1
    }

    /// One to three places, each with up to 6 tokens out and up to 8 in.
    pub fn random_splices(&mut self, session: SessionId) -> Vec<Splice> {
        let length = self.document(session).len();
        let mut list: Vec<Splice> = Vec::new();
        let mut at = 0;
        for _ in 0..=self.random(3) {
            at += self.random((length - at.min(length)) / 2 + 1);
            let delete = self.random(7).min(length - at);
            let insert = self.random(9);
            let insert = self.tokens(insert);
            list.push(Splice { at: TokenIndex(at as u32), delete: delete as u32, insert });
            at += delete;
        }
        list
    }

    pub fn plan(&mut self, changes: Vec<Change>, runs: Vec<Run>, passes: u32) -> Work {
        let sampling = runs.iter().filter(|run| matches!(run, Run::Sample { .. }));
        let sampling: BTreeMap<_, _> = sampling.map(|run| (run.session(), greedy(passes))).collect();
        self.plan_with(changes, runs, passes, sampling)
    }

    /// A plan that writes blocks and reads others, which the ranks find if they are `found`.
    pub fn blocks(&mut self, blocks: PlanBlocks, found: bool) -> usize {
        self.blocks_after(vec![], blocks, found)
    }

    /// The same, with changes.
    pub fn blocks_after(&mut self, changes: Vec<Change>, blocks: PlanBlocks, found: bool) -> usize {
        let (epoch, seq) = (self.replica.epoch(), self.replica.next_seq());
        let (reloaded, digest) = (blocks.reloaded.clone(), DigestWanted::Report);
        let plan = Plan { epoch, seq, changes, runs: vec![], passes: 1, digest, blocks };
        self.replica.apply(&plan).expect("a right plan");
        if found {
            self.replica.reloaded(&reloaded).expect("it was applied");
        }
        self.instructions.push(Do::Step(Step { plan, sampling: BTreeMap::new() }));
        self.instructions.len() - 1
    }

    pub fn plan_with(
        &mut self,
        changes: Vec<Change>,
        runs: Vec<Run>,
        passes: u32,
        sampling: BTreeMap<SessionId, Sampling>,
    ) -> Work {
        let (epoch, seq) = (self.replica.epoch(), self.replica.next_seq());
        let plan = Plan {
            epoch,
            seq,
            changes,
            runs,
            passes,
            digest: DigestWanted::Report,
            blocks: PlanBlocks::default(),
        };
        let work = self.replica.apply(&plan).expect("a right plan");
        self.instructions.push(Do::Step(Step { plan, sampling }));
        work
    }
}

pub fn greedy(max_tokens: u32) -> Sampling {
    let parameters = SamplingParameters::greedy(5);
    Sampling { parameters, step: 0, stop_tokens: Vec::new(), max_tokens, drafts: 0, expected: Vec::new() }
}

/// The largest difference of two sets of rows, against the largest value in them.
pub fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len(), "rows");
    let pairs = || a.iter().flatten().zip(b.iter().flatten());
    let scale = pairs().fold(1e-6_f32, |scale, (_, b)| scale.max(b.abs()));
    pairs().fold(0.0_f32, |far, (a, b)| far.max((a - b).abs())) / scale
}
