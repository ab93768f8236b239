//! Random plans on several replicas, against memory that is moved by hand.

mod memory;

use memory::Replica;
use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Group, Plan, PlanError, Run, Table, Then, Work};
use pie_words::{SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use proptest::prelude::*;
use std::collections::BTreeMap;

const CAPACITY: u32 = 96;

/// A session that is never open.
const NOBODY: SessionId = SessionId(999);

impl Replica {
    /// What the next run of an action says that it takes, before it does.
    fn announced(&self, action: &Action) -> Option<Announced> {
        let (run, rows) = match action {
            Action::Encode { session, limit } => {
                let pending = self.group.table(SessionId(*session))?.pending();
                (Run::Encode { session: SessionId(*session), limit: *limit }, pending.min(*limit as usize))
            }
            Action::Sample { session, .. } => {
                let rows = self.group.table(SessionId(*session))?.context_pending();
                (Run::Sample { session: SessionId(*session) }, rows)
            }
            _ => return None,
        };
        Some(Announced { rows, tokens: self.group.reach(run).tokens })
    }
}

/// What a run would take: rows, and one more than the largest of their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announced {
    rows: usize,
    tokens: u32,
}

/// One thing that happens to a session; numbers are reduced to what fits when it is carried out.
#[derive(Clone, Debug)]
enum Action {
    Open(u64),
    Edit {
        session: u64,
        places: Vec<(u32, u32, u8)>,
        strategy: Strategy,
    },
    Branch {
        session: u64,
        at: u32,
        given: u8,
    },
    EndBranch(u64),
    Accept {
        session: u64,
        count: u32,
    },
    OpenLike {
        session: u64,
        from: u64,
        length: u32,
    },
    Repair {
        session: u64,
        rows: Vec<(u32, u32)>,
        limit: u32,
    },
    RepairAndSample {
        session: u64,
        rows: Vec<(u32, u32)>,
    },
    /// The same, given up in the middle: no row was written to its end.
    GiveUp {
        session: u64,
        rows: Vec<(u32, u32)>,
        limit: u32,
    },
    /// All from the frontier on is encoded again.
    Heal(u64),
    Clear(u64),
    Close(u64),
    Encode {
        session: u64,
        limit: u32,
    },
    Sample {
        session: u64,
        passes: u32,
    },
}

fn action() -> impl Strategy2<Value = Action> {
    let session = 0..4_u64;
    let strategy =
        prop_oneof![4 => Just(Strategy::Pie), 1 => Just(Strategy::Full), 1 => Just(Strategy::Conflict)];
    let places = prop::collection::vec((0..64_u32, 0..6_u32, 0..7_u8), 1..4);
    let rows = prop::collection::vec((0..12_u32, 1..9_u32), 1..4);
    prop_oneof![
        2 => session.clone().prop_map(Action::Open),
        8 => (session.clone(), places, strategy)
            .prop_map(|(session, places, strategy)| Action::Edit { session, places, strategy }),
        2 => (session.clone(), 0..64_u32, 0..4_u8)
            .prop_map(|(session, at, given)| Action::Branch { session, at, given }),
        1 => session.clone().prop_map(Action::EndBranch),
        3 => (session.clone(), 1..6_u32).prop_map(|(session, count)| Action::Accept { session, count }),
        2 => (session.clone(), session.clone(), 0..64_u32)
            .prop_map(|(session, from, length)| Action::OpenLike { session, from, length }),
        2 => (session.clone(), rows.clone(), 1..40_u32)
            .prop_map(|(session, rows, limit)| Action::Repair { session, rows, limit }),
        1 => (session.clone(), rows.clone(), 1..40_u32)
            .prop_map(|(session, rows, limit)| Action::GiveUp { session, rows, limit }),
        2 => (session.clone(), rows).prop_map(|(session, rows)| Action::RepairAndSample { session, rows }),
        1 => session.clone().prop_map(Action::Heal),
        1 => session.clone().prop_map(Action::Clear),
        1 => session.clone().prop_map(Action::Close),
        4 => (session.clone(), 1..9_u32).prop_map(|(session, limit)| Action::Encode { session, limit }),
        4 => (session, 1..4_u32).prop_map(|(session, passes)| Action::Sample { session, passes }),
    ]
}

use proptest::strategy::Strategy as Strategy2;

/// The naive twin: each session's document as a list, nothing else.
#[derive(Default)]
struct Twin {
    documents: BTreeMap<u64, Vec<TokenId>>,
    fresh: u32,
}

impl Twin {
    /// Sorted, disjoint splices out of arbitrary numbers.
    fn splices(&mut self, session: u64, places: &[(u32, u32, u8)]) -> Splices {
        let length = self.documents.get(&session).map_or(0, Vec::len) as u32;
        let mut places: Vec<_> =
            places.iter().map(|(at, delete, insert)| (at % (length + 1), *delete, *insert)).collect();
        places.sort_unstable();
        let mut list: Vec<Splice> = Vec::new();
        for (at, delete, insert) in places {
            let at = at.max(list.last().map_or(0, |last| last.end().0));
            let insert = (0..insert).map(|_| self.token()).collect();
            list.push(Splice { at: TokenIndex(at), delete: delete.min(length - at), insert });
        }
        Splices::new(list, length as usize).expect("made sorted and disjoint")
    }

    fn token(&mut self) -> TokenId {
        self.fresh += 1;
        TokenId(self.fresh)
    }

    fn edit(&mut self, session: u64, splices: &Splices) {
        let document = self.documents.get_mut(&session).expect("the group took the edit");
        for splice in splices.iter().collect::<Vec<_>>().into_iter().rev() {
            document.splice(splice.at.usize()..splice.end().usize(), splice.insert.iter().copied());
        }
    }
}

/// Sorted, disjoint ranges of encoded rows of a session's document before a row, out of arbitrary numbers.
fn encoded(table: Option<&Table>, rows: &[(u32, u32)], before: usize) -> Vec<std::ops::Range<u32>> {
    let Some(table) = table else { return vec![] };
    let mut end = 0;
    let range = |(gap, count): &(u32, u32)| {
        let start = end + *gap as usize;
        end = start + *count as usize;
        start..end.min(before)
    };
    let ranges: Vec<_> = rows.iter().map(range).collect();
    let encoded = ranges.into_iter().flat_map(|range| table.encoded(range));
    encoded.map(|rows| rows.start as u32..rows.end as u32).collect()
}

fn plan_of(group: &Group, action: &Action, twin: &mut Twin) -> Plan {
    let (mut changes, mut runs, mut passes) = (Vec::new(), Vec::new(), 1);
    match action {
        Action::Open(session) => changes.push(Change::Open { session: SessionId(*session) }),
        Action::Branch { session, at, given } => {
            let table = group.table(SessionId(*session));
            let length = table.map_or(0, |table| table.tokens().len()) as u32;
            let mut tokens: Vec<TokenId> = (0..*given).map(|_| twin.token()).collect();
            let mut at = TokenIndex(at % (length + 1));
            // Every third one goes on with what is there, as a completion does whose owner has died.
            if let Some(table) = table.filter(|table| at.0.is_multiple_of(3) && !table.branch().is_empty()) {
                at = TokenIndex(table.share() as u32);
                let kept = table.branch().len().min(2 * usize::from(*given));
                tokens.splice(0..0, table.branch()[..kept].iter().copied());
            }
            changes.push(Change::Branch { session: SessionId(*session), at, tokens });
        }
        Action::Accept { session, count } => {
            let table = group.table(SessionId(*session));
            let (at, tokens) = table.map_or((0, vec![]), |table| (table.share(), table.branch().to_vec()));
            let insert = tokens.into_iter().take(*count as usize).collect();
            let splice = Splice { at: TokenIndex(at as u32), delete: 0, insert };
            let splices = Splices::new(vec![splice], at).expect("at the end of the shared part");
            changes.push(Change::Splice { session: SessionId(*session), splices, strategy: Strategy::Pie });
        }
        Action::OpenLike { session, from, length } => {
            let (session, from) = (SessionId(*session), SessionId(*from));
            let exact = group.table(from).map_or(0, Table::frontier) as u32;
            changes.push(Change::Open { session });
            changes.push(Change::Share { session, from, length: length % (exact + 1) });
        }
        Action::Repair { session, rows, limit } | Action::GiveUp { session, rows, limit } => {
            let session = SessionId(*session);
            changes.push(Change::Repair { session, rows: encoded(group.table(session), rows, usize::MAX) });
            runs.push(Run::Encode { session, limit: *limit });
        }
        Action::RepairAndSample { session, rows } => {
            let session = SessionId(*session);
            let table = group.table(session);
            let rows = encoded(table, rows, table.map_or(0, Table::share));
            changes.push(Change::Repair { session, rows });
            runs.push(Run::Sample { session });
        }
        Action::Heal(session) => {
            let session = SessionId(*session);
            let table = group.table(session);
            let frontier = table.map_or(0, Table::frontier) as u32;
            let rows = encoded(table, &[(frontier, u32::MAX)], usize::MAX);
            changes.push(Change::Repair { session, rows });
            runs.push(Run::Encode { session, limit: u32::MAX });
        }
        Action::Clear(session) => changes.push(Change::Clear { session: SessionId(*session) }),
        Action::EndBranch(session) => changes.push(Change::EndBranch { session: SessionId(*session) }),
        Action::Close(session) => changes.push(Change::Close { session: SessionId(*session) }),
        Action::Edit { session, places, strategy } => {
            let splices = twin.splices(*session, places);
            changes.push(Change::Splice { session: SessionId(*session), splices, strategy: *strategy });
        }
        Action::Encode { session, limit } => {
            runs.push(Run::Encode { session: SessionId(*session), limit: *limit })
        }
        Action::Sample { session, passes: wanted } => {
            passes = *wanted;
            runs.push(Run::Sample { session: SessionId(*session) });
        }
    }
    Plan {
        epoch: group.epoch(),
        seq: group.next_seq(),
        changes,
        runs,
        passes,
        digest: DigestWanted::Skip,
        blocks: PlanBlocks::default(),
    }
}

fn follow(twin: &mut Twin, action: &Action, plan: &Plan) {
    match action {
        Action::Open(session) => drop(twin.documents.insert(*session, Vec::new())),
        Action::Close(session) => drop(twin.documents.remove(session)),
        Action::OpenLike { session, from, .. } => match &plan.changes[1] {
            Change::Share { length, .. } => {
                let document = twin.documents[from][..*length as usize].to_vec();
                twin.documents.insert(*session, document);
            }
            _ => unreachable!("it shares"),
        },
        Action::Clear(session) => twin.documents.get_mut(session).expect("the group took it").clear(),
        Action::Edit { session, .. } | Action::Accept { session, .. } => match &plan.changes[0] {
            Change::Splice { splices, .. } => twin.edit(*session, splices),
            _ => unreachable!("an edit is a splice"),
        },
        _ => {}
    }
}

/// Carries a plan out on a replica, with a sampler that all replicas share; returns the sampled tokens.
fn carry_out(
    replica: &mut Replica,
    action: &Action,
    plan: &Plan,
    twin_token: u32,
    settled: impl Fn(SessionId) -> bool,
) -> Result<usize, PlanError> {
    let announced = replica.announced(action);
    let mut work = replica.group.apply(plan)?;
    if let Some(announced) = announced {
        let (rows, largest) = (work.rows.len(), work.rows.iter().map(|row| row.token.0).max());
        // A last token that is only encoded again is nothing new to the model.
        let tokens = if announced.tokens == 0 { 0 } else { largest.map_or(0, |largest| largest + 1) };
        assert!(announced.rows == rows && announced.tokens <= tokens, "{announced:?} of {rows} {tokens}");
    }
    let adopted = work.adopted;
    if matches!(action, Action::GiveUp { .. }) && plan.only_repairs() {
        // The rows of a pass that ended in the middle hold neither what they held nor what they should.
        let written = work.rows.iter().map(|row| row.slot).collect();
        replica.carry_out(&Work { rows: vec![], sequences: vec![], ..work.clone() }, &settled);
        replica.spoil(written);
        replica.group.give_up(plan, &work)?;
        return Ok(adopted);
    }
    replica.carry_out(&work, &settled);
    for pass in 0..plan.passes {
        let sampled = work.sequences.iter().filter(|sequence| sequence.then == Then::Sample);
        let sampled: Vec<_> =
            sampled.map(|sequence| (sequence.session, TokenId(1_000_000 + twin_token + pass))).collect();
        if sampled.is_empty() {
            break;
        }
        replica.group.append(&sampled)?;
        if pass + 1 < plan.passes {
            let sessions: Vec<_> = sampled.iter().map(|(session, _)| *session).collect();
            work = replica.group.decode(&sessions)?;
            replica.carry_out(&work, &settled);
        }
    }
    Ok(adopted)
}

/// Every encoded key of a session that just ran with `pie` or `full` stands at its index, and is its own token's.
fn assert_settled(replica: &Replica, session: SessionId) {
    let table = replica.group.table(session).expect("it just ran");
    for (index, (slot, rotated_for)) in table.slots().iter().zip(table.rotations()).enumerate() {
        if let Some(position) = rotated_for {
            let held = replica.memory[slot.usize()].expect("an encoded row holds something");
            assert_eq!(held.token, table.tokens()[index], "the table knows what the rank holds");
            assert_eq!(position as usize, index, "K3: rotated_for = index after settling");
        }
    }
}

/// P2, P4, K1, K2, K3, W1, H1, H2 and "whole or not at all" over some actions, refused ones included.
fn replay(actions: &[Action]) {
    let mut replicas = [Replica::new(CAPACITY), Replica::new(CAPACITY)];
    let mut twin = Twin::default();
    let mut conflict = BTreeMap::new();
    for (number, action) in actions.iter().enumerate() {
        let plan = plan_of(&replicas[0].group, action, &mut twin);
        let before = replicas[0].group.digest();
        let mut refused = plan.clone();
        refused.changes.push(Change::EndBranch { session: NOBODY });
        let mut group = replicas[0].group.clone();
        assert!(group.apply(&refused).is_err(), "its last change is of a session that nobody opened");
        assert_eq!(group.digest(), before, "what was done before the refusal is taken back");
        group.check().expect("K1 and K2 hold after changes were taken back");
        match replicas[0].group.clone().apply(&plan) {
            Err(error) => {
                assert_eq!(replicas[0].group.apply(&plan).expect_err("refused before"), error);
                assert_eq!(replicas[0].group.digest(), before, "a refused plan has changed nothing");
                replicas[0].group.check().expect("K1 and K2 hold after a refusal");
                continue;
            }
            Ok(_) => follow(&mut twin, action, &plan),
        }
        match action {
            Action::Edit { session, strategy, .. } => {
                conflict.insert(*session, *strategy == Strategy::Conflict);
            }
            Action::OpenLike { session, .. } | Action::Accept { session, .. } => {
                conflict.insert(*session, false);
            }
            Action::Open(session) | Action::Close(session) => {
                conflict.remove(session);
            }
            _ => {}
        }
        let settled = |session: SessionId| !conflict.get(&session.0).unwrap_or(&false);
        for replica in &mut replicas {
            carry_out(replica, action, &plan, number as u32 * 10, settled).expect("a clone took it");
            replica.recount();
            replica.group.check().expect("K1 and K2 hold after every plan");
        }
        assert_eq!(replicas[0].group.digest(), replicas[1].group.digest(), "P4");
        match action {
            Action::Encode { session, .. } | Action::Sample { session, .. }
                if settled(SessionId(*session)) =>
            {
                assert_settled(&replicas[0], SessionId(*session))
            }
            _ => {}
        }
        if let Action::Heal(session) = action
            && settled(SessionId(*session))
        {
            let table = replicas[0].group.table(SessionId(*session)).expect("it just ran");
            assert_eq!(table.frontier(), table.tokens().len(), "all is exact");
        }
        for (session, document) in &twin.documents {
            let table = replicas[0].group.table(SessionId(*session)).expect("open in the twin");
            assert_eq!(table.tokens(), &document[..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_stay_equal_and_hold_what_their_tables_say(actions in prop::collection::vec(action(), 1..120)) {
        replay(&actions);
    }
}

/// A completion in the middle of what a session shares, and a repair there that is given up, leave what others hold too exact.
#[test]
fn what_others_hold_too_heals() {
    let begin = || {
        let places = vec![(0, 0, 6)];
        let like = Action::OpenLike { session: 3, from: 0, length: 4 };
        vec![
            Action::Open(0),
            Action::Edit { session: 0, places, strategy: Strategy::Pie },
            Action::Encode { session: 0, limit: 8 },
            like,
            Action::Branch { session: 3, at: 2, given: 0 },
            Action::Sample { session: 3, passes: 1 },
        ]
    };
    let given_up = Action::GiveUp { session: 3, rows: vec![(0, 2)], limit: 8 };
    for between in [vec![], vec![given_up], vec![Action::Close(0)]] {
        replay(&[begin(), between, vec![Action::Heal(3)]].concat());
    }
}
