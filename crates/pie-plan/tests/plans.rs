//! What a plan makes of several edits, and why one is refused, case by case.

use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Group, Plan, PlanError, Run};
use pie_words::{Epoch, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};

fn group_with(tokens: u32) -> (Group, SessionId) {
    let (mut group, session) = (Group::new(Epoch(1), 16), SessionId(1));
    let splices = Splices::append(0, (0..tokens).map(TokenId).collect()).expect("fits");
    let changes =
        vec![Change::Open { session }, Change::Splice { session, splices, strategy: Strategy::Pie }];
    group.apply(&plan(&group, changes, vec![Run::Encode { session, limit: 99 }], 1)).expect("fits");
    (group, session)
}

fn plan(group: &Group, changes: Vec<Change>, runs: Vec<Run>, passes: u32) -> Plan {
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

fn splice(session: SessionId, at: u32, delete: u32, insert: &[u32]) -> Change {
    let splices =
        vec![Splice { at: TokenIndex(at), delete, insert: insert.iter().copied().map(TokenId).collect() }];
    Change::Splice { session, splices: Splices::new(splices, 16).expect("fits"), strategy: Strategy::Pie }
}

#[test]
fn edits_between_two_completions_coalesce_to_their_net_turn() {
    let (mut group, session) = group_with(8);
    let changes =
        vec![splice(session, 2, 0, &[90, 91, 92]), splice(session, 2, 2, &[]), splice(session, 2, 1, &[])];
    let work = group.apply(&plan(&group, changes, vec![Run::Sample { session }], 1)).expect("fits");
    assert!(work.turns.slots.is_empty(), "inserted and deleted again: nothing moved, nothing turns");
    assert_eq!(work.rows.len(), 1, "only the last token is encoded again");

    let changes = vec![splice(session, 1, 0, &[80]), splice(session, 4, 1, &[])];
    let work = group.apply(&plan(&group, changes, vec![Run::Sample { session }], 1)).expect("fits");
    assert_eq!(
        work.turns.deltas,
        [1, 1],
        "tokens between the places turn by one, those behind both not at all"
    );
}

/// P1: a gap or another epoch is refused, as is whatever does not fit.
#[test]
fn refusals_name_what_is_wrong_and_change_nothing() {
    let (group, session) = group_with(8);
    let sample = vec![Run::Sample { session }];
    let nobody = SessionId(9);
    let mut late = plan(&group, vec![], vec![], 1);
    late.seq = late.seq.next();
    let mut foreign = plan(&group, vec![], vec![], 1);
    foreign.epoch = Epoch(2);
    let long: Vec<u32> = (0..9).collect();
    let repair = |rows: &[(u32, u32)]| {
        let rows = rows.iter().map(|(start, end)| *start..*end).collect();
        Change::Repair { session, rows }
    };
    let cases = [
        (late, "PLAN_OUT_OF_ORDER"),
        (foreign, "PLAN_WRONG_EPOCH"),
        (plan(&group, vec![Change::Open { session }], vec![], 1), "SESSION_EXISTS"),
        (plan(&group, vec![Change::Close { session: nobody }], vec![], 1), "SESSION_UNKNOWN"),
        (plan(&group, vec![Change::Close { session }], sample.clone(), 1), "SESSION_UNKNOWN"),
        (plan(&group, vec![splice(session, 7, 2, &[])], vec![], 1), "SPLICE_OUT_OF_BOUNDS"),
        (plan(&group, vec![splice(session, 0, 0, &long)], vec![], 1), "KV_EXHAUSTED"),
        (plan(&group, vec![], sample.clone(), 9), "KV_EXHAUSTED"),
        (plan(&group, vec![splice(session, 0, 8, &[])], sample.clone(), 1), "CONTEXT_EMPTY"),
        (plan(&group, vec![], [sample.clone(), sample].concat(), 1), "PLAN_RUNS_TWICE"),
        (plan(&group, vec![repair(&[(7, 9)])], vec![], 1), "PLAN_NO_SUCH_ROWS"),
        (plan(&group, vec![repair(&[(4, 6), (5, 7)])], vec![], 1), "PLAN_NO_SUCH_ROWS"),
        (plan(&group, vec![], vec![], 2), "PLAN_BAD_PASSES"),
        (plan(&group, vec![], vec![], 0), "PLAN_BAD_PASSES"),
    ];
    for (plan, code) in cases {
        let mut after = group.clone();
        let error = after.apply(&plan).expect_err(code);
        assert_eq!((error.code(), after.digest()), (code, group.digest()), "{error}");
    }
}

/// What a full cache is told with: the slots of the whole change, and those that were free before it took any.
#[test]
fn a_change_that_finds_too_few_slots_says_how_many() {
    let (mut group, session) = group_with(8);
    let other = SessionId(2);
    let share =
        vec![Change::Open { session: other }, Change::Share { session: other, from: session, length: 6 }];
    group.stage(&share).expect("shared rows take no slots");
    let long: Vec<u32> = (0..9).collect();
    let tokens = |count| (0..count).map(TokenId).collect();
    let cases = [
        (splice(session, 8, 0, &long), 9, 8),
        // What goes comes back first.
        (splice(session, 6, 2, &[&long[..], &[1, 2]].concat()), 11, 10),
        // Five rows behind the place are the other's too, and are copied; of those that go it keeps its own.
        (splice(session, 1, 0, &long[..4]), 9, 8),
        (splice(other, 0, 3, &long[..6]), 9, 8),
        (Change::Branch { session, at: TokenIndex(3), tokens: tokens(11) }, 11, 8),
    ];
    for (change, needed, free) in cases {
        let mut after = group.clone();
        let error = after.stage(std::slice::from_ref(&change)).expect_err("there are too few");
        assert_eq!(error, PlanError::OutOfSlots { needed, free }, "{change:?}");
        assert_eq!(after.digest(), group.digest());
    }
}

/// A repair turns keys before their rows are encoded again. When the session goes in the same plan, its slots may be another's, copied into before
/// any key turns: they turn no more.
#[test]
fn slots_that_are_let_go_turn_no_more() {
    let goes: [fn(SessionId) -> Change; 2] =
        [|session| Change::Clear { session }, |session| Change::Close { session }];
    for goes in goes {
        let (mut group, session) = group_with(8);
        group.apply(&plan(&group, vec![splice(session, 2, 0, &[90])], vec![], 1)).expect("fits");
        let rows: Vec<_> = std::iter::once(5..8).collect();
        let repair = || Change::Repair { session, rows: rows.clone() };
        let stays = group.clone().apply(&plan(&group, vec![repair()], vec![], 1)).expect("fits");
        assert_eq!(stays.turns.slots.len(), 3, "what is repaired turns");
        let work = group.apply(&plan(&group, vec![repair(), goes(session)], vec![], 1)).expect("fits");
        assert!(work.turns.slots.is_empty() && work.turns.deltas.is_empty(), "{:?}", work.turns);
    }
}
