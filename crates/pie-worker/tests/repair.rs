//! Stale rows on real ranks: what is repaired from left to right is, number for number, what encoding it anew gives (H1).

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Out, Script, compute, distance, drive, folder_of, model_folder};
use pie_comm::{Collective, ThreadGroup, ThreadMember};
use pie_plan::{Change, Run};
use pie_words::{Epoch, Seq, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_worker::RankExecutor;
use pie_worker::rank::Observer;
use std::sync::atomic::{AtomicUsize, Ordering};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const FRESH: SessionId = SessionId(3);
const LAYERS: usize = 4;

/// The session's rows and those of the same document encoded anew, in each layer.
struct Compared {
    rows: Vec<usize>,
    fresh: Vec<usize>,
    frontier: usize,
}

impl Compared {
    fn new(script: &mut Script, session: SessionId) -> Self {
        let read =
            |script: &mut Script, session| (0..LAYERS).map(|layer| script.read(session, layer)).collect();
        let frontier = script.table(session).frontier();
        let rows = read(script, session);
        let document = script.document(session);
        script.open(FRESH, document);
        let fresh = read(script, FRESH);
        script.plan(vec![Change::Close { session: FRESH }], vec![], 1);
        Self { rows, fresh, frontier }
    }

    /// The largest difference of keys and values in all layers: of the rows before the frontier, and of those from it on.
    fn distances(&self, out: &[Out]) -> (f32, f32) {
        let mut far = (0.0_f32, 0.0_f32);
        for (rows, fresh) in self.rows.iter().zip(&self.fresh) {
            let ((keys, values), (fresh_keys, fresh_values)) = (out[*rows].rows(), out[*fresh].rows());
            for (ours, theirs) in [(keys, fresh_keys), (values, fresh_values)] {
                let (exact, stale) = ours.split_at(self.frontier);
                far.0 = far.0.max(distance(exact, &theirs[..self.frontier]));
                far.1 = far.1.max(distance(stale, &theirs[self.frontier..]));
            }
        }
        far
    }
}

/// Repairs the first `rows` rows from the frontier on; with the next token of a completion, or by themselves.
fn repair(script: &mut Script, session: SessionId, rows: usize, run: Run) {
    let table = script.table(session);
    let mut budget = rows;
    let mut encoded = Vec::new();
    for rows in table.encoded(table.frontier()..table.share()) {
        let end = rows.end.min(rows.start + budget);
        budget -= end - rows.start;
        encoded.extend((rows.start < end).then_some(rows.start as u32..end as u32));
    }
    script.plan(vec![Change::Repair { session, rows: encoded }], vec![run], 1);
}

/// H1 after each of many edits and repairs, with branches, adopted and shared rows and a marker that moves, on every architecture
/// and at two world sizes; in the end all is exact.
#[test]
fn rows_before_the_frontier_are_a_fresh_encoding() {
    for (architecture, world_size) in [
        (&pie_model::architecture::LLAMA, 4),
        (&pie_model::architecture::QWEN2, 1),
        (&pie_model::architecture::QWEN3, 2),
    ] {
        let (_guard, folder) = folder_of(architecture);
        let mut script = Script::new(23);
        let tokens = script.tokens(120);
        script.open(A, tokens.clone());
        // B begins with A's rows.
        let length = 90;
        let share = vec![Change::Open { session: B }, Change::Share { session: B, from: A, length }];
        script.plan(share, vec![], 1);
        let (mut compared, mut marker) = (Vec::new(), 0);
        for turn in 0..24_usize {
            let session = if turn % 3 == 2 { B } else { A };
            let splices = script.random_splices(session);
            script.edit(session, splices, Strategy::Repair);
            let encode = Run::Encode { session, limit: 999 };
            match turn % 4 {
                0 => repair(&mut script, session, 30, encode),
                1 => {
                    repair(&mut script, session, 25, Run::Sample { session });
                    script.plan(vec![Change::EndBranch { session }], vec![], 1);
                }
                // A completion generates while rows in front of it are repaired; what it wrote becomes the document's.
                2 => {
                    let written = script.tokens(6);
                    script.generate(session, &written);
                    repair(&mut script, session, 40, encode);
                    let at = script.document(session).len();
                    let accept = Splices::append(at, written[..4].to_vec()).expect("at the end");
                    let accept = Change::Splice { session, splices: accept, strategy: Strategy::Repair };
                    script.plan(vec![accept, Change::EndBranch { session }], vec![encode], 1);
                }
                // A marker moves through the document.
                _ => {
                    let length = script.document(session).len();
                    let place = script.random(length);
                    marker += 1;
                    let insert = vec![TokenId(400 + marker)];
                    let splice = Splice { at: TokenIndex(place as u32), delete: 0, insert };
                    script.edit(session, vec![splice], Strategy::Pie);
                    repair(&mut script, session, 12, encode);
                }
            }
            if turn % 5 == 4 {
                compared.push(Compared::new(&mut script, session));
            }
        }
        for session in [A, B] {
            while script.table(session).frontier() < script.document(session).len() {
                repair(&mut script, session, 50, Run::Encode { session, limit: 999 });
            }
            compared.push(Compared::new(&mut script, session));
        }
        for out in drive(&folder, world_size, &script.instructions) {
            let distances: Vec<_> = compared.iter().map(|compared| compared.distances(&out)).collect();
            assert!(distances.iter().all(|(exact, _)| *exact < 1e-4), "H1: {distances:?}");
            assert!(
                distances.iter().any(|(_, stale)| *stale > 1e-2),
                "there was something to repair: {distances:?}"
            );
        }
    }
}

/// Gives up after it was asked so often.
struct Impatient {
    asked: AtomicUsize,
    patience: usize,
}

impl Observer for Impatient {
    fn sampled(&mut self, _tokens: &[pie_worker::SampledToken]) {}

    fn interrupted(&self, _seq: Seq) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= self.patience
    }
}

/// A repair that is given up, on all ranks in the same layer, has made nothing exact, and what is repaired afterwards is.
#[test]
fn a_repair_may_be_given_up_in_the_middle() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(31);
    let tokens = script.tokens(100);
    script.open(A, tokens);
    let splices = vec![Splice { at: TokenIndex(10), delete: 3, insert: script.tokens(9) }];
    script.edit(A, splices, Strategy::Pie);
    let given_up = script.instructions.len();
    let rows = script.table(A).frontier() as u32..script.document(A).len() as u32;
    let encode = Run::Encode { session: A, limit: 999 };
    script.give_up(vec![Change::Repair { session: A, rows: vec![rows.clone()] }], vec![encode]);
    assert_eq!(script.table(A).frontier(), rows.start as usize);
    let before = Compared::new(&mut script, A);
    repair(&mut script, A, 999, encode);
    let after = Compared::new(&mut script, A);
    let members = ThreadGroup::new(4).expect("a world size");
    std::thread::scope(|scope| {
        let rank = |(index, comm): (usize, ThreadMember)| {
            let (folder, script, before, after) = (&folder, &script, &before, &after);
            scope.spawn(move || {
                let member = comm.member();
                let mut compute = compute(folder, member, common::SLOTS);
                let mut rank = RankExecutor::new(compute.as_mut(), Box::new(comm), Epoch(1), common::SLOTS);
                let mut out = Vec::new();
                for (number, instruction) in script.instructions.iter().enumerate() {
                    // One rank hears of it in the third layer; a plan that does not only repair is never asked for.
                    let patience = if index == 2 && number == given_up { 5 } else { usize::MAX };
                    let mut observer = Impatient { asked: AtomicUsize::new(0), patience };
                    out.push(common::one_observed(&mut rank, instruction, &mut observer));
                    if let Out::Report(report) = &out[number] {
                        assert_eq!(report.is_given_up, number == given_up, "plan {number}");
                    }
                }
                assert!(before.distances(&out).0 < 1e-4, "H1");
                assert!(before.distances(&out).1 > 1e-3, "rows of a pass that was given up are not exact");
                assert!(after.distances(&out).0 < 1e-4, "H1");
                assert_eq!(after.frontier, script.document(A).len());
            })
        };
        let ranks: Vec<_> = members.into_iter().enumerate().map(rank).collect();
        ranks.into_iter().for_each(|rank| rank.join().expect("no rank panics"));
    });
}
