//! PIE against its definition, on real ranks: full recomputation is the oracle.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Do, Out, Script, distance, drive, folder_of, model_folder};
use pie_model::architecture::{LLAMA, QWEN2, QWEN3};
use pie_words::{SessionId, Splice, Strategy, TokenIndex};

const EDITED: SessionId = SessionId(1);
const FRESH: SessionId = SessionId(2);
const LAST_LAYER: usize = 3;

fn insertion(at: usize, tokens: Vec<pie_words::TokenId>) -> Vec<Splice> {
    vec![Splice { at: TokenIndex(at as u32), delete: 0, insert: tokens }]
}

/// Layer 0 keys depend on token and position alone: after any edits they must equal those of a fresh session, on every
/// rank, whatever the model was trained on. Deeper layers must not: else the test would prove nothing.
#[test]
fn layer_0_equals_full_recomputation_after_50_edits() {
    // Biases and norms of heads act before keys are rotated, so turning stays exact.
    for (architecture, seed, world_size) in
        [(&LLAMA, 1, 1), (&LLAMA, 3, 4), (&QWEN2, 2, 1), (&QWEN2, 4, 4), (&QWEN3, 5, 1)]
    {
        let (_guard, folder) = folder_of(architecture);
        let mut script = Script::new(seed);
        let tokens = script.tokens(200);
        script.open(EDITED, tokens);
        for _ in 0..50 {
            let splices = script.random_splices(EDITED);
            script.edit(EDITED, splices, Strategy::Pie);
        }
        let document = script.document(EDITED);
        script.open(FRESH, document);
        let reads: Vec<_> = [(EDITED, 0), (FRESH, 0), (EDITED, LAST_LAYER), (FRESH, LAST_LAYER)]
            .map(|(session, layer)| script.read(session, layer))
            .into();
        for out in drive(&folder, world_size, &script.instructions) {
            let keys: Vec<_> = reads.iter().map(|index| out[*index].rows().0).collect();
            let values: Vec<_> = reads.iter().map(|index| out[*index].rows().1).collect();
            assert!(distance(keys[0], keys[1]) < 1e-4, "layer 0 keys: {}", distance(keys[0], keys[1]));
            assert!(distance(values[0], values[1]) < 1e-4, "layer 0 values");
            assert!(distance(keys[2], keys[3]) > 1e-3, "the last layer knows what was there before");
        }
    }
}

/// K4: turning never touches V; and a turn there and back restores K.
#[test]
fn values_of_kept_tokens_are_bit_identical_and_deleting_an_insertion_restores_keys() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(4);
    let tokens = script.tokens(120);
    script.open(EDITED, tokens);
    let before: Vec<_> = (0..=LAST_LAYER).map(|layer| script.read(EDITED, layer)).collect();
    let inserted = script.tokens(9);
    script.edit(EDITED, insertion(40, inserted), Strategy::Pie);
    let moved: Vec<_> = (0..=LAST_LAYER).map(|layer| script.read(EDITED, layer)).collect();
    script.edit(EDITED, vec![Splice { at: TokenIndex(40), delete: 9, insert: vec![] }], Strategy::Pie);
    let after: Vec<_> = (0..=LAST_LAYER).map(|layer| script.read(EDITED, layer)).collect();
    let out = &drive(&folder, 1, &script.instructions)[0];
    for layer in 0..=LAST_LAYER {
        let ((keys, values), (turned, kept), (restored, last)) =
            (out[before[layer]].rows(), out[moved[layer]].rows(), out[after[layer]].rows());
        assert_eq!(values[..40], kept[..40], "V in front of the insertion, layer {layer}");
        assert_eq!(values[40..], kept[49..], "V behind the insertion, layer {layer}");
        assert_eq!(values, last, "V, layer {layer}");
        assert!(distance(&keys[40..], &turned[49..]) > 1e-2, "the keys did turn");
        assert!(distance(keys, restored) < 1e-5, "layer {layer}: {}", distance(keys, restored));
    }
}

fn first_logprobs(out: &[Out], index: usize) -> Vec<(u32, f32)> {
    let sampled = &out[index].report().passes[0][0];
    sampled.top.iter().map(|(token, logprob)| (token.0, *logprob)).collect()
}

fn assert_close(a: &[(u32, f32)], b: &[(u32, f32)], what: &str) {
    assert_eq!(a.len(), b.len());
    for ((token, logprob), (other, reference)) in a.iter().zip(b) {
        assert_eq!(token, other, "{what}: {a:?} {b:?}");
        assert!((logprob - reference).abs() < 1e-4 * reference.abs().max(1.0), "{what}: {a:?} {b:?}");
    }
}

/// `full` equals a fresh session, in every layer; `pie` does when the edit is at the end; `conflict` never does.
#[test]
fn full_equals_a_fresh_session_and_pie_does_at_the_end() {
    let (_guard, folder) = model_folder();
    let cases = [
        ("full, in the middle", Strategy::Full, 60, true),
        ("pie, at the end", Strategy::Pie, 120, true),
        ("pie, in the middle", Strategy::Pie, 60, false),
        ("conflict, in the middle", Strategy::Conflict, 60, false),
    ];
    for (name, strategy, at, equal) in cases {
        let mut script = Script::new(5);
        let (tokens, inserted) = (script.tokens(120), script.tokens(10));
        script.open(EDITED, tokens);
        script.edit(EDITED, insertion(at, inserted), strategy);
        let document = script.document(EDITED);
        script.open(FRESH, document);
        let first = [EDITED, FRESH].map(|session| script.read(session, 0));
        let keys = [EDITED, FRESH].map(|session| script.read(session, LAST_LAYER));
        let samples = [EDITED, FRESH].map(|session| script.sample(session, 1));
        let out = &drive(&folder, 1, &script.instructions)[0];
        let far = distance(out[keys[0]].rows().0, out[keys[1]].rows().0);
        assert_eq!(far < 1e-4, equal, "{name}: keys differ by {far}");
        if equal {
            assert_close(&first_logprobs(out, samples[0]), &first_logprobs(out, samples[1]), name);
        }
        // What sets `conflict` apart: its positions are wrong already in layer 0.
        let far = distance(out[first[0]].rows().0, out[first[1]].rows().0);
        assert_eq!(far < 1e-4, strategy != Strategy::Conflict, "{name}: layer 0 keys differ by {far}");
    }
}

/// C3: the same stream of edits at world sizes 1, 2, 4 and 8 gives the same tokens and logprobs; and on all ranks of
/// one group the very same bits (P3), with equal digests (P4).
#[test]
fn the_world_size_does_not_matter() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(6);
    let tokens = script.tokens(150);
    script.open(EDITED, tokens);
    let mut samples = Vec::new();
    for round in 0..6 {
        let splices = script.random_splices(EDITED);
        script.edit(EDITED, splices, [Strategy::Pie, Strategy::Full, Strategy::Conflict][round % 3]);
        samples.push(script.sample(EDITED, 8));
    }
    let alone = &drive(&folder, 1, &script.instructions)[0];
    for world_size in [2, 4, 8] {
        let ranks = drive(&folder, world_size, &script.instructions);
        for (index, instruction) in script.instructions.iter().enumerate() {
            if let Do::Step(_) = instruction {
                for rank in &ranks {
                    let (report, first) = (rank[index].report(), ranks[0][index].report());
                    assert_eq!((&report.passes, report.digest), (&first.passes, first.digest), "P3 and P4");
                }
            }
        }
        for index in &samples {
            let (one, many) = (alone[*index].report(), ranks[0][*index].report());
            assert_eq!(one.passes.len(), 8);
            for (a, b) in one.passes.iter().flatten().zip(many.passes.iter().flatten()) {
                assert_eq!(a.token, b.token, "world size {world_size}");
                assert!((a.logprob - b.logprob).abs() < 1e-4, "{} {}", a.logprob, b.logprob);
            }
        }
    }
}

/// W1 in a model's words: after a deletion right before the last token, its key and its logits are those of a fresh
/// session as far as they can be. Chunked prefill and several sessions in one step change nothing.
#[test]
fn chunks_and_neighbours_change_nothing() {
    let (_guard, folder) = model_folder();
    let mut script = Script::new(8);
    let (tokens, other) = (script.tokens(90), script.tokens(70));
    script.open(FRESH, tokens.clone());
    script.open(SessionId(3), other);
    let whole = script.sample(FRESH, 6);
    let open = pie_plan::Change::Open { session: EDITED };
    let splices = pie_words::Splices::append(0, tokens).expect("one splice");
    let splice = pie_plan::Change::Splice { session: EDITED, splices, strategy: Strategy::Pie };
    script.plan(vec![open, splice], vec![], 1);
    for limit in [7, 31, 1, 40] {
        script.plan(vec![], vec![pie_plan::Run::Encode { session: EDITED, limit }], 1);
    }
    let together = script.instructions.len();
    let all = [EDITED, SessionId(3)].map(|session| pie_plan::Run::Sample { session });
    script.plan(vec![], all.to_vec(), 6);
    let out = &drive(&folder, 1, &script.instructions)[0];
    let alone: Vec<_> = out[whole].report().passes.iter().flatten().map(|sampled| sampled.token).collect();
    let beside = out[together].report().passes.iter().flatten().filter(|sampled| sampled.session == EDITED);
    assert_eq!(alone, beside.map(|sampled| sampled.token).collect::<Vec<_>>());
}
