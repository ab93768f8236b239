//! Rows that go to a disk and come back, among edits, shared rows, branches and repairs: what is read is what a fresh encoding gives.

#[allow(dead_code, reason = "each test uses its part")]
#[path = "replicas/memory.rs"]
mod memory;

use memory::{Replica, SimulatedRow};
use pie_plan::blocks::{BLOCK, Block, PlanBlocks, Realm};
use pie_plan::{Change, DigestWanted, Plan, PlanError, Run, Table};
use pie_words::{SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use std::collections::BTreeMap;

const CAPACITY: u32 = 4096;

/// Blocks by the tokens up to their ends.
type Disk = BTreeMap<Vec<TokenId>, Vec<SimulatedRow>>;

/// One thing that happens to a session.
#[derive(Clone, Debug)]
enum Action {
    /// It goes, and is opened with a text that others begin with too, up to a place.
    OpenAnew {
        session: u64,
        tokens: usize,
    },
    /// It is opened with the exact rows of another, and some of its text behind them.
    OpenLike {
        session: u64,
        from: u64,
        tokens: usize,
    },
    Edit {
        session: u64,
        at: usize,
        delete: u32,
        insert: usize,
        strategy: Strategy,
    },
    Branch {
        session: u64,
        at: usize,
        tokens: usize,
    },
    Run {
        session: u64,
        limit: u32,
        samples: bool,
    },
    /// All that is stale is encoded again.
    Heal(u64),
    Spill(u64),
    Reload {
        session: u64,
        is_there: bool,
    },
}

fn action() -> impl proptest::strategy::Strategy<Value = Action> {
    let session = || 0..3_u64;
    let strategy = prop_oneof![3 => Just(Strategy::Pie), 1 => Just(Strategy::Full)];
    prop_oneof![
        2 => (session(), 1..900_usize).prop_map(|(session, tokens)| Action::OpenAnew { session, tokens }),
        1 => (session(), session(), 0..900_usize)
            .prop_map(|(session, from, tokens)| Action::OpenLike { session, from, tokens }),
        2 => (session(), 0..900_usize, 0..9_u32, 0..9_usize, strategy).prop_map(
            |(session, at, delete, insert, strategy)| Action::Edit { session, at, delete, insert, strategy }
        ),
        1 => (session(), 0..900_usize, 0..4_usize)
            .prop_map(|(session, at, tokens)| Action::Branch { session, at, tokens }),
        3 => (session(), prop_oneof![1..700_u32, Just(u32::MAX)], any::<bool>())
            .prop_map(|(session, limit, samples)| Action::Run { session, limit, samples }),
        1 => session().prop_map(Action::Heal),
        5 => session().prop_map(Action::Spill),
        5 => (session(), prop::bool::weighted(0.9))
            .prop_map(|(session, is_there)| Action::Reload { session, is_there }),
    ]
}

/// The text that sessions begin with.
fn text(tokens: usize) -> Vec<TokenId> {
    (0..tokens as u32).map(|token| TokenId(token * 7 % 1000)).collect()
}

struct World {
    replicas: [Replica; 2],
    disk: Disk,
    spilled: BTreeMap<u64, usize>,
    read: usize,
    new: u32,
}

impl World {
    fn table(&self, session: u64) -> Option<&Table> {
        self.replicas[0].group.table(SessionId(session))
    }

    fn new_tokens(&mut self, count: usize) -> Vec<TokenId> {
        self.new += count as u32;
        (0..count as u32).map(|token| TokenId(10_000 + self.new - token)).collect()
    }

    fn act(&mut self, action: &Action) {
        let (mut changes, mut runs, mut blocks) = (vec![], vec![], PlanBlocks::default());
        let strategy = Strategy::Pie;
        match *action {
            Action::OpenAnew { session, tokens } => {
                if self.table(session).is_some() {
                    changes.push(Change::Close { session: SessionId(session) });
                }
                let session = SessionId(session);
                let splices = Splices::append(0, text(tokens)).expect("one splice");
                changes.extend([Change::Open { session }, Change::Splice { session, splices, strategy }]);
            }
            Action::OpenLike { session, from, tokens } => {
                let Some(table) = self.table(from).filter(|_| session != from) else { return };
                let share = table.frontier();
                let rest = table.tokens()[share..table.tokens().len().min(share + tokens)].to_vec();
                if self.table(session).is_some() {
                    changes.push(Change::Close { session: SessionId(session) });
                }
                let (session, from) = (SessionId(session), SessionId(from));
                let splices = Splices::append(share, rest).unwrap_or_default();
                changes.extend([
                    Change::Open { session },
                    Change::Share { session, from, length: share as u32 },
                    Change::Splice { session, splices, strategy },
                ]);
            }
            Action::Edit { session, at, delete, insert, strategy } => {
                let Some(length) = self.table(session).map(|table| table.tokens().len()) else { return };
                let at = at % (length + 1);
                let delete = delete.min((length - at) as u32);
                let splice = Splice { at: TokenIndex(at as u32), delete, insert: self.new_tokens(insert) };
                let splices = Splices::new(vec![splice], length).expect("made to fit");
                changes.push(Change::Splice { session: SessionId(session), splices, strategy });
            }
            Action::Branch { session, at, tokens } => {
                let Some(length) = self.table(session).map(|table| table.tokens().len()) else { return };
                let tokens = self.new_tokens(tokens);
                let at = TokenIndex((at % (length + 1)) as u32);
                changes.push(Change::Branch { session: SessionId(session), at, tokens });
            }
            Action::Run { session, limit, samples } => runs.push(match samples {
                true => Run::Sample { session: SessionId(session) },
                false => Run::Encode { session: SessionId(session), limit },
            }),
            Action::Heal(session) => {
                let Some(table) = self.table(session) else { return };
                let rows = table.encoded(table.frontier()..table.tokens().len());
                let rows = rows.map(|rows| rows.start as u32..rows.end as u32).collect();
                changes.push(Change::Repair { session: SessionId(session), rows });
                runs.push(Run::Encode { session: SessionId(session), limit: u32::MAX });
            }
            Action::Spill(session) => {
                let whole = self.table(session).map_or(0, Table::whole_blocks);
                let turn = self.spilled.entry(session).or_default();
                let end = (*turn * BLOCK) % (whole + BLOCK);
                *turn += 1;
                if end == 0 {
                    return;
                }
                blocks.spilled.push(block(session, end));
            }
            Action::Reload { session, .. } => {
                let Some(rows) = self.table(session).and_then(Table::missing_block) else { return };
                blocks.reloaded.push(block(session, rows.end));
            }
        }
        let group = &self.replicas[0].group;
        let (epoch, seq) = (group.epoch(), group.next_seq());
        let plan = Plan { epoch, seq, changes, runs, passes: 1, digest: DigestWanted::Skip, blocks };
        let is_there = !matches!(action, Action::Reload { is_there: false, .. });
        let mut replicas = std::mem::replace(&mut self.replicas, [Replica::new(0), Replica::new(0)]);
        let outcomes = replicas.each_mut().map(|replica| self.carry_out(replica, &plan, is_there));
        self.replicas = replicas;
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(self.replicas[0].group.digest(), self.replicas[1].group.digest(), "P4");
    }

    fn carry_out(&mut self, replica: &mut Replica, plan: &Plan, is_there: bool) -> Result<(), PlanError> {
        let work = replica.group.apply(plan)?;
        for block in &plan.blocks.reloaded {
            let (first, slots) = replica.group.reload_into(block)?;
            let slots = slots.to_vec();
            let Some(rows) = self.disk.get(&named(replica, block)).filter(|_| is_there) else { continue };
            for (slot, held) in slots.iter().zip(&rows[first - block.rows().start..]) {
                replica.memory[slot.usize()] = Some(*held);
            }
            replica.group.reloaded(std::slice::from_ref(block))?;
            self.read += 1;
        }
        for block in &plan.blocks.spilled {
            let table = replica.group.table(block.session).expect("the plan was taken");
            let rows =
                table.slots()[block.rows()].iter().map(|slot| replica.memory[slot.usize()].expect("exact"));
            let rows: Vec<SimulatedRow> = rows.collect();
            self.disk.insert(named(replica, block), rows);
        }
        replica.carry_out(&work, |_| true);
        if let Some(Run::Sample { session }) = plan.runs.first() {
            replica.group.append(&[(*session, TokenId(5000))])?;
        }
        replica.recount();
        replica.group.check().expect("K1 and K2");
        Ok(())
    }
}

fn named(replica: &Replica, block: &Block) -> Vec<TokenId> {
    replica.group.table(block.session).expect("it is open").tokens()[..block.end.usize()].to_vec()
}

fn block(session: u64, end: usize) -> Block {
    Block { session: SessionId(session), end: TokenIndex(end as u32), realm: Realm(0) }
}

fn replay(actions: &[Action]) -> usize {
    let (replicas, spilled) = ([Replica::new(CAPACITY), Replica::new(CAPACITY)], BTreeMap::new());
    let mut world = World { replicas, disk: Disk::new(), spilled, read: 0, new: 0 };
    actions.iter().for_each(|action| world.act(action));
    world.read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// H1 and H2 are counted again after each plan, row by row.
    #[test]
    fn what_is_read_is_what_encoding_gives(actions in prop::collection::vec(action(), 1..60)) {
        replay(&actions);
    }
}

/// The property is not about nothing: a document that was written is read whole.
#[test]
fn a_document_is_read_block_by_block() {
    let mut actions = vec![
        Action::OpenAnew { session: 0, tokens: 800 },
        Action::Run { session: 0, limit: u32::MAX, samples: false },
    ];
    actions.extend(vec![Action::Spill(0); 4]);
    actions.push(Action::OpenAnew { session: 1, tokens: 850 });
    actions.extend(vec![Action::Reload { session: 1, is_there: true }; 5]);
    assert_eq!(replay(&actions), 2 * 3, "three blocks, on two replicas");
}

#[test]
fn blocks_that_no_plan_may_have_are_refused() {
    let mut replica = Replica::new(CAPACITY);
    let (open, filled) = (SessionId(0), SessionId(1));
    let splice = |session, tokens| {
        let splices = Splices::append(0, text(tokens)).expect("one splice");
        Change::Splice { session, splices, strategy: Strategy::Pie }
    };
    let plan = |replica: &Replica, changes, runs, blocks| {
        let (epoch, seq) = (replica.group.epoch(), replica.group.next_seq());
        Plan { epoch, seq, changes, runs, passes: 1, digest: DigestWanted::Skip, blocks }
    };
    let changes = vec![
        Change::Open { session: open },
        splice(open, 700),
        Change::Open { session: filled },
        splice(filled, 700),
    ];
    let encode = |session| Run::Encode { session, limit: 600 };
    replica
        .group
        .apply(&plan(&replica, changes, vec![encode(filled)], PlanBlocks::default()))
        .expect("right");
    let spilled = |session, end| PlanBlocks { spilled: vec![block(session, end)], ..PlanBlocks::default() };
    let reloaded = |blocks: &[(u64, usize)]| PlanBlocks {
        reloaded: blocks.iter().map(|(session, end)| block(*session, *end)).collect(),
        ..PlanBlocks::default()
    };
    let none = |session, end: usize| PlanError::NoSuchBlock { session, end: TokenIndex(end as u32) };
    let cases = [
        (spilled(1, 768), vec![], none(filled, 768)),
        (spilled(1, 100), vec![], none(filled, 100)),
        (spilled(1, 0), vec![], none(filled, 0)),
        (spilled(0, 256), vec![], none(open, 256)),
        (spilled(9, 256), vec![], PlanError::UnknownSession(SessionId(9))),
        (spilled(1, 256), vec![encode(filled)], PlanError::RunsTwice(filled)),
        (reloaded(&[(0, 512)]), vec![], none(open, 512)),
        (reloaded(&[(1, 768)]), vec![], none(filled, 768)),
        (reloaded(&[(0, 256), (0, 256)]), vec![], PlanError::RunsTwice(open)),
        (reloaded(&[(0, 256)]), vec![encode(open)], PlanError::RunsTwice(open)),
    ];
    for (blocks, runs, expected) in cases {
        let digest = replica.group.digest();
        let refused = replica.group.apply(&plan(&replica, vec![], runs, blocks.clone()));
        assert_eq!(refused, Err(expected), "{blocks:?}");
        assert_eq!(replica.group.digest(), digest);
    }
    for blocks in [spilled(1, 512), reloaded(&[(0, 256)])] {
        replica.group.apply(&plan(&replica, vec![], vec![], blocks)).expect("right");
    }
}
