//! Branches and shared rows on real ranks: what the tables promise, in keys, values and tokens.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Do, Out, Script, compute, distance, drive, model_folder};
use pie_comm::ThreadGroup;
use pie_plan::{Change, Run};
use pie_words::{Epoch, Seq, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_worker::rank::Observer;
use pie_worker::{RankExecutor, SampledToken};

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const FRESH: SessionId = SessionId(3);
const LAYERS: usize = 4;

fn tokens_of(out: &Out) -> Vec<TokenId> {
    out.report().passes.iter().flatten().map(|sampled| sampled.token).collect()
}

fn insert(session: SessionId, at: usize, insert: Vec<TokenId>) -> Change {
    let splice = Splice { at: TokenIndex(at as u32), delete: 0, insert };
    let splices = Splices::new(vec![splice], at).expect("at the end, or before it");
    Change::Splice { session, splices, strategy: Strategy::Pie }
}

fn read_all(script: &mut Script, session: SessionId) -> Vec<usize> {
    (0..LAYERS).map(|layer| script.read(session, layer)).collect()
}

/// What a completion wrote is taken over, not encoded, and what follows is what encoding it gives.
#[test]
fn adopted_tokens_give_the_same_next_tokens_as_encoding_them() {
    let (_guard, folder) = model_folder();
    for (world_size, accepted) in [(1, 12), (1, 5), (4, 9)] {
        let mut first = Script::new(11);
        let tokens = first.tokens(120);
        first.open(A, tokens.clone());
        let index = first.sample(A, 12);
        let written = tokens_of(&drive(&folder, 1, &first.instructions)[0][index]);

        let mut script = Script::new(11);
        script.open(A, tokens.clone());
        script.generate(A, &written);
        let accept = insert(A, 120, written[..accepted].to_vec());
        let work = script.plan(vec![accept, Change::EndBranch { session: A }], vec![], 1);
        assert_eq!(work.adopted, accepted.min(11), "all that has a row");
        let adopted = script.sample(A, 8);
        script.open(FRESH, [&tokens[..], &written[..accepted]].concat());
        let encoded = script.sample(FRESH, 8);
        let (ours, theirs) = (read_all(&mut script, A), read_all(&mut script, FRESH));
        for out in drive(&folder, world_size, &script.instructions) {
            assert_eq!(tokens_of(&out[adopted]), tokens_of(&out[encoded]), "{accepted} accepted");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let (ours, theirs) = (out[*ours].rows(), out[*theirs].rows());
                assert!(distance(ours.0, theirs.0) < 1e-4 && distance(ours.1, theirs.1) < 1e-4);
            }
        }
    }
}

/// It sees what stands before the cursor, and the document's rows are bit for bit what they were.
#[test]
fn a_completion_at_a_cursor_is_that_of_the_text_before_it() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(12);
    let tokens = script.tokens(100);
    script.open(A, tokens.clone());
    let before = read_all(&mut script, A);
    let branch = Change::Branch { session: A, at: TokenIndex(39), tokens: vec![tokens[39]] };
    let at_cursor = script.instructions.len();
    script.plan(vec![branch], vec![Run::Sample { session: A }], 8);
    script.plan(vec![Change::EndBranch { session: A }], vec![], 1);
    let after = read_all(&mut script, A);
    script.open(FRESH, tokens[..40].to_vec());
    let alone = script.sample(FRESH, 8);
    let out = &drive(&folder, 1, &script.instructions)[0];
    assert_eq!(tokens_of(&out[at_cursor]), tokens_of(&out[alone]));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(out[*before].rows(), out[*after].rows(), "the document is not disturbed");
    }
}

/// Two sessions of one text hold it once; when one edits, the other's rows stay bit for bit.
#[test]
fn an_edit_leaves_those_who_share_alone() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(13);
    let (tokens, own) = (script.tokens(100), script.tokens(10));
    script.open(A, tokens.clone());
    let share = vec![
        Change::Open { session: B },
        Change::Share { session: B, from: A, length: 100 },
        insert(B, 100, own.clone()),
    ];
    let work = script.plan(share, vec![Run::Encode { session: B, limit: 99 }], 1);
    assert_eq!(work.rows.len(), 10, "only its own text is encoded");
    let before = read_all(&mut script, B);
    let inserted = script.tokens(7);
    script.edit(A, vec![Splice { at: TokenIndex(30), delete: 4, insert: inserted }], Strategy::Pie);
    let after = read_all(&mut script, B);
    let edited = script.read(A, 0);
    let document = script.document(A);
    script.open(SessionId(4), document);
    let layer_0 = script.read(SessionId(4), 0);
    let next = script.sample(B, 6);
    script.open(FRESH, [tokens, own].concat());
    let fresh = script.sample(FRESH, 6);
    for out in drive(&folder, 2, &script.instructions) {
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(out[*before].rows(), out[*after].rows());
        }
        assert!(distance(out[edited].rows().0, out[layer_0].rows().0) < 1e-4, "A's own rows did turn");
        assert_eq!(tokens_of(&out[next]), tokens_of(&out[fresh]));
    }
}

/// Ends its plan after some passes.
struct Impatient {
    passes: usize,
    patience: usize,
}

impl Observer for Impatient {
    fn sampled(&mut self, _tokens: &[SampledToken]) {
        self.passes += 1;
    }

    fn interrupted(&self, _seq: Seq) -> bool {
        self.passes >= self.patience
    }
}

/// Whoever hears of it first: all ranks end after the same pass.
#[test]
fn one_rank_that_is_interrupted_ends_the_plan_for_all() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(15);
    let tokens = script.tokens(50);
    script.open(A, tokens);
    script.plan(vec![], vec![Run::Sample { session: A }], 40);
    let members = ThreadGroup::new(4).expect("a world size");
    let passes: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let rank = |(index, comm): (usize, pie_comm::ThreadMember)| {
            let (folder, script) = (&folder, &script);
            scope.spawn(move || {
                let member = pie_comm::Collective::member(&comm);
                let mut compute = compute(folder, member, 200);
                let mut rank = RankExecutor::new(compute.as_mut(), Box::new(comm), Epoch(1), 200);
                let mut passes = 0;
                for instruction in &script.instructions {
                    let Do::Step(step) = instruction else { continue };
                    let patience = if index == 2 { 5 } else { usize::MAX };
                    let mut observer = Impatient { passes: 0, patience };
                    passes = rank.step_observed(step, &mut observer).expect("it runs").passes.len();
                }
                (passes, rank.group().digest())
            })
        };
        let ranks: Vec<_> = members.into_iter().enumerate().map(rank).collect();
        ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    });
    assert!(passes.iter().all(|(count, digest)| (*count, *digest) == (5, passes[0].1)), "{passes:?}");
}
