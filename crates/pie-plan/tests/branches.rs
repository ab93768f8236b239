//! What completions leave behind, what sessions share, and what moves when one of them edits, case by case.

use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Group, Plan, Run, Then, Work};
use pie_words::{Epoch, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);

fn step(group: &mut Group, changes: Vec<Change>, runs: Vec<Run>, passes: u32) -> Work {
    let (epoch, seq, digest) = (group.epoch(), group.next_seq(), DigestWanted::Skip);
    let work = group
        .apply(&Plan { epoch, seq, changes, runs, passes, digest, blocks: PlanBlocks::default() })
        .expect("the plan is right");
    group.check().expect("K1 and K2");
    work
}

fn splice(session: SessionId, at: u32, delete: u32, insert: &[u32]) -> Change {
    let insert = insert.iter().copied().map(TokenId).collect();
    let splices = Splices::new(vec![Splice { at: TokenIndex(at), delete, insert }], 1000).expect("it fits");
    Change::Splice { session, splices, strategy: Strategy::Pie }
}

/// A session of eight encoded tokens, 0 to 7, in a group of 40 slots.
fn opened() -> Group {
    let mut group = Group::new(Epoch(1), 40);
    let changes = vec![Change::Open { session: A }, splice(A, 0, 0, &[0, 1, 2, 3, 4, 5, 6, 7])];
    step(&mut group, changes, vec![Run::Encode { session: A, limit: 99 }], 1);
    group
}

/// Lets a session generate tokens; the last is sampled, and not encoded yet.
fn generate(group: &mut Group, session: SessionId, tokens: &[u32]) {
    for token in tokens {
        step(group, vec![], vec![Run::Sample { session }], 1);
        group.append(&[(session, TokenId(*token))]).expect("reserved");
    }
}

#[test]
fn what_a_completion_generated_is_adopted_where_it_is_inserted() {
    // Generated behind token 7: 50 51 52 53, the last without a row yet.
    let cases: &[(&str, &[Change], usize, usize)] = &[
        ("nothing", &[], 0, 1),
        ("all of it", &[splice(A, 8, 0, &[50, 51, 52, 53])], 3, 1),
        ("a leading part", &[splice(A, 8, 0, &[50, 51])], 2, 1),
        ("and more text", &[splice(A, 8, 0, &[50, 51, 90, 91])], 2, 2),
        ("token by token", &[splice(A, 8, 0, &[50]), splice(A, 9, 0, &[51]), splice(A, 10, 0, &[52])], 3, 1),
        ("as another tokenization at first", &[splice(A, 8, 0, &[90]), splice(A, 8, 1, &[50])], 1, 1),
        ("other text", &[splice(A, 8, 0, &[90, 51, 52])], 0, 3),
        ("another place", &[splice(A, 7, 0, &[50, 51, 52])], 0, 4),
        (
            "its place, with other text in front of it",
            &[splice(A, 0, 1, &[]), splice(A, 7, 0, &[50, 51])],
            0,
            2,
        ),
        (
            "twice: the second is encoded",
            &[splice(A, 8, 0, &[50]), splice(A, 8, 1, &[]), splice(A, 8, 0, &[50])],
            1,
            1,
        ),
    ];
    for (name, changes, adopted, rows) in cases {
        let mut group = opened();
        generate(&mut group, A, &[50, 51, 52, 53]);
        let mut changes = changes.to_vec();
        let work = step(&mut group, changes.clone(), vec![], 1);
        assert_eq!(work.adopted, *adopted, "{name}");
        changes.clear();
        changes.push(Change::EndBranch { session: A });
        let work = step(&mut group, changes, vec![Run::Sample { session: A }], 1);
        assert_eq!(work.rows.len(), *rows, "{name}");
        let used = group.capacity() - group.free_slots();
        assert_eq!(used, group.table(A).expect("it is open").tokens().len(), "{name}: no slot leaks");
    }
}

#[test]
fn a_completion_at_a_cursor_leaves_the_document_alone() {
    let mut group = opened();
    let before = group.table(A).expect("it is open").slots().to_vec();
    // Behind token 3, which is taken again as the branch's first token.
    let branch = Change::Branch { session: A, at: TokenIndex(3), tokens: vec![TokenId(3)] };
    let work = step(&mut group, vec![branch], vec![Run::Sample { session: A }], 2);
    assert_eq!(work.rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), [3]);
    assert!(!before.contains(&work.rows[0].slot), "the document's rows are not written");
    let view = group.table(A).expect("it is open").view(Then::Sample).concat();
    assert_eq!((&view[..3], view.len()), (&before[..3], 4), "it sees the document's slots before the cursor");
    group.append(&[(A, TokenId(60))]).expect("reserved");
    let work = group.decode(&[A]).expect("it sampled");
    assert_eq!(work.rows[0].position.0, 4);
    group.append(&[(A, TokenId(61))]).expect("reserved");
    // Accepted at the cursor: the row is there, and what stands behind turns.
    let accepted = vec![splice(A, 4, 0, &[60]), Change::EndBranch { session: A }];
    let work = step(&mut group, accepted, vec![Run::Sample { session: A }], 1);
    assert_eq!(
        (work.adopted, work.turns.slots.len(), work.rows.len()),
        (1, 3, 1),
        "the last is encoded again"
    );
    assert_eq!(group.table(A).expect("it is open").slots()[..4], before[..4]);
}

#[test]
fn a_branch_that_goes_on_follows_edits_in_front_of_it() {
    let mut group = opened();
    generate(&mut group, A, &[50, 51]);
    let work = step(&mut group, vec![splice(A, 2, 1, &[90, 91, 92])], vec![Run::Sample { session: A }], 1);
    let positions: Vec<_> = work.rows.iter().map(|row| row.position.0).collect();
    assert_eq!(positions, [2, 3, 4, 11], "what was inserted, and the branch's last");
    assert_eq!(work.turns.deltas, [2; 6], "five tokens of the document and one of the branch");
}

#[test]
fn a_shared_text_is_held_once_until_one_edits() {
    let mut group = opened();
    let share = vec![
        Change::Open { session: B },
        Change::Share { session: B, from: A, length: 7 },
        splice(B, 7, 0, &[70, 71]),
    ];
    let work = step(&mut group, share, vec![Run::Sample { session: B }], 1);
    assert_eq!(work.rows.len(), 2, "only its own text is encoded");
    assert_eq!((group.free_slots(), group.shared_slots(A), group.shared_slots(B)), (40 - 8 - 2, 7, 7));

    let theirs = group.table(B).expect("it is open").slots().to_vec();
    let work = step(&mut group, vec![splice(A, 4, 0, &[90])], vec![Run::Sample { session: A }], 1);
    assert_eq!(work.copies.from, theirs[4..7], "what moves is copied first");
    assert_eq!(work.turns.deltas, [1, 1, 1], "and only rows of A turn; its last is encoded again");
    assert!(theirs.iter().all(|slot| !work.turns.slots.contains(slot)), "B's rows stay as they are");
    assert_eq!((group.shared_slots(A), group.table(B).expect("it is open").slots()), (4, &theirs[..]));

    step(&mut group, vec![Change::Close { session: A }], vec![], 1);
    assert_eq!((group.free_slots(), group.shared_slots(B)), (40 - 9, 0));
    step(&mut group, vec![Change::Clear { session: B }], vec![], 1);
    assert_eq!(group.free_slots(), 40);
}

/// W1 writes the last row again; another session that holds it keeps the old one.
#[test]
fn the_last_row_is_not_written_under_another_session() {
    let mut group = opened();
    let share = vec![Change::Open { session: B }, Change::Share { session: B, from: A, length: 8 }];
    let work = step(&mut group, share, vec![Run::Sample { session: B }], 1);
    let last = group.table(A).expect("it is open").slots()[7];
    assert_ne!(work.rows[0].slot, last);
    assert_eq!(group.shared_slots(A), 7);
}

/// What is stale, what is exact, and what each repair makes of it, case by case.
#[test]
fn repairs_go_from_left_to_right() {
    let mut group = opened();
    let sample = || vec![Run::Sample { session: A }];
    let repair = |start: u32, end: u32| {
        let rows = std::iter::once(start..end).collect();
        vec![Change::Repair { session: A, rows }]
    };
    let runs = |runs: &[(usize, usize)]| runs.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
    let state = |group: &Group| {
        let table = group.table(A).expect("it is open");
        (table.frontier(), table.stale(0..99).collect::<Vec<_>>())
    };
    assert_eq!(state(&group), (8, vec![]), "what was encoded in one go is exact");
    // Two edits: each is encoded behind what is there; the last row is encoded again with each token (W1).
    step(&mut group, vec![splice(A, 5, 0, &[90])], sample(), 1);
    assert_eq!(state(&group), (6, runs(&[(6, 8)])), "the last is fresh, and not exact");
    step(&mut group, vec![splice(A, 2, 1, &[91])], sample(), 1);
    assert_eq!(state(&group), (3, runs(&[(3, 8)])));
    // A window behind the first edit: exact. One behind the second: newer, and not exact.
    let work = step(&mut group, repair(3, 5), sample(), 1);
    assert_eq!(work.rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), [3, 4, 8]);
    assert_eq!(state(&group), (5, runs(&[(5, 8)])));
    step(&mut group, repair(6, 7), sample(), 1);
    assert_eq!(state(&group), (5, runs(&[(5, 6), (7, 8)])));
    // What stands behind the frontier when it moves was encoded before: it is stale again.
    step(&mut group, repair(5, 6), vec![Run::Encode { session: A, limit: 9 }], 1);
    assert_eq!(state(&group), (6, runs(&[(6, 9)])));
    step(&mut group, repair(6, 9), vec![Run::Encode { session: A, limit: 9 }], 1);
    assert_eq!(state(&group), (9, vec![]));
    assert_eq!(group.free_slots(), 40 - 9, "a repair takes no slots");
}

#[test]
fn a_closed_session_leaves_every_slot_free() {
    let mut group = opened();
    step(&mut group, vec![], vec![Run::Sample { session: A }], 3);
    group.append(&[(A, TokenId(5))]).expect("reserved");
    assert_eq!(group.free_slots(), 31);
    step(&mut group, vec![Change::Close { session: A }], vec![], 1);
    assert_eq!(group.free_slots(), group.capacity());
    assert!(group.sessions().all(|(_, table)| table.slots().is_empty()));
}
