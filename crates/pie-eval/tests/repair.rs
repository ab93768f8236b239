//! Rows that are encoded again: none of them is PIE, enough of them is full recomputation; and results from before there were any.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{EvaluationFolder, run};
use pie_eval::engine::{Bed, RepairSelection};
use pie_eval::names::{Arm, Choice, Method, Spot, Storage};
use pie_eval::results::{self, CacheId, Record};
use pie_words::{Splices, Strategy, TokenId};
use pie_worker::SampledToken;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

const VOCABULARY: u32 = 8192;

fn document(length: u32) -> Vec<TokenId> {
    (0..length).map(|place| TokenId(place * 7 % 8000)).collect()
}

fn random_edit(bed: &Bed<'_>, random: &mut ChaCha8Rng) -> Splices {
    let length = bed.tokens().len();
    let delete = random.random_range(0..20_usize);
    let at = random.random_range(0..length - delete);
    let insert = (0..random.random_range(1..20_u32)).map(|_| TokenId(random.random_range(0..8000)));
    bed.splice(at, delete as u32, insert.collect()).expect("within")
}

fn next(bed: &mut Bed<'_>) -> SampledToken {
    bed.report_logprobs(VOCABULARY);
    let next = bed.decode(1).expect("it runs").remove(0);
    bed.end_branch().expect("it ends");
    next
}

fn kl(p: &SampledToken, q: &SampledToken) -> f64 {
    let mut of_q = vec![f64::NAN; VOCABULARY as usize];
    q.top.iter().for_each(|(token, logprob)| of_q[token.0 as usize] = f64::from(*logprob));
    let term = |(token, logprob): &(TokenId, f32)| {
        f64::from(*logprob).exp() * (f64::from(*logprob) - of_q[token.0 as usize])
    };
    p.top.iter().map(term).sum()
}

/// H1 of the whole document: after any edits, each with a window or none, and enough idle rows, the cache is a fresh one.
#[test]
fn a_cache_with_enough_idle_rows_is_a_fresh_one() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    for seed in 0..6 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bed = Bed::new(&mut machine).expect("a bed");
        bed.become_exactly(&document(250)).expect("it fits");
        for _ in 0..8 {
            let splices = random_edit(&bed, &mut random);
            let rows = random.random_range(0..30);
            bed.encode_repairing(splices, RepairSelection::behind(rows)).expect("it runs");
            bed.heal(random.random_range(0..40)).expect("it runs");
        }
        let stale = next(&mut bed);
        assert!(bed.stale_rows() > 0, "seed {seed}");
        let healed = bed.heal(u64::MAX).expect("it runs");
        assert!(!healed.is_empty() && bed.stale_rows() == 0);
        assert_eq!(bed.heal(u64::MAX).expect("it runs"), [], "nothing is left to do");
        let (keys, ours, tokens) = (bed.keys(1).expect("a layer"), next(&mut bed), bed.tokens().to_vec());
        let mut bed = Bed::new(&mut machine).expect("a bed");
        bed.become_exactly(&tokens).expect("it fits");
        let fresh = next(&mut bed);
        let far = keys
            .iter()
            .zip(bed.keys(1).expect("a layer"))
            .fold(0.0_f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(far < 1e-4 && kl(&fresh, &ours) < 1e-6, "seed {seed}: {far}, {}", kl(&fresh, &ours));
        assert!(kl(&fresh, &stale) > 1e-6, "seed {seed}: there was something to heal");
    }
}

#[test]
fn no_window_is_pie_and_a_window_over_all_is_full_recomputation() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    let mut bed = Bed::new(&mut machine).expect("a bed");
    bed.report_logprobs(VOCABULARY);
    bed.become_exactly(&document(300)).expect("it fits");
    let saved = bed.save(0).expect("open");
    let splices = bed.splice(100, 10, vec![TokenId(5); 4]).expect("within");
    let mut by = |repairs: Option<RepairSelection>, strategy| {
        let edited = match repairs {
            Some(repairs) => bed.edit_repairing(splices.clone(), repairs),
            None => bed.edit(splices.clone(), strategy),
        };
        let edited = edited.expect("it runs");
        let keys = bed.keys(1).expect("a layer");
        bed.restore(&saved).expect("the same cache");
        (edited.next, keys, edited.done)
    };
    let pie = by(None, Strategy::Pie);
    let full = by(None, Strategy::Full).0;
    for choice in [Choice::Behind, Choice::Before, Choice::Scattered] {
        assert_eq!(by(Some(RepairSelection { choice, rows: 0 }), Strategy::Pie), pie, "{choice}");
        // Four come, and the last token is encoded in any case.
        let done = by(Some(RepairSelection { choice, rows: 40 }), Strategy::Pie).2;
        assert!((44..=45).contains(&done.encoded), "{choice}: {done:?}");
    }
    assert!(kl(&full, &pie.0) > 1e-6, "kept tokens have not seen the edit");
    let all = by(Some(RepairSelection::behind(999)), Strategy::Pie).0;
    assert!(kl(&full, &all) < 1e-6, "{}", kl(&full, &all));
    // Before a single edit nothing is stale, so nothing is won there; and scattered rows are the same ones each time.
    let before = by(Some(RepairSelection { choice: Choice::Before, rows: 40 }), Strategy::Pie).0;
    assert!(kl(&pie.0, &before) < 1e-6);
    let scattered = RepairSelection { choice: Choice::Scattered, rows: 40 };
    assert_eq!(by(Some(scattered), Strategy::Pie).0, by(Some(scattered), Strategy::Pie).0);
}

/// What an edit left stale is no part of a document that is to be as if it had been opened.
#[test]
fn a_document_as_opened_has_no_stale_rows() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    let mut bed = Bed::new(&mut machine).expect("a bed");
    bed.become_exactly(&document(200)).expect("it fits");
    let fresh = next(&mut bed);
    for (delete, insert) in [(0, vec![TokenId(5); 9]), (9, Vec::new())] {
        let splices = bed.splice(50, delete, insert).expect("within");
        bed.encode(splices, Strategy::Pie).expect("it runs");
    }
    assert!(bed.stale_rows() > 0 && bed.tokens() == document(200));
    let kept = bed.become_exactly(&document(200)).expect("it fits");
    assert!(kept < 200 && bed.stale_rows() == 0, "{kept}");
    assert!(kl(&fresh, &next(&mut bed)) < 1e-6);
}

/// A window is shared out among the places of an edit.
#[test]
fn each_edited_place_has_its_part_of_the_window() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    let mut bed = Bed::new(&mut machine).expect("a bed");
    bed.become_exactly(&document(300)).expect("it fits");
    let splice = |at, delete, insert: usize| pie_words::Splice {
        at: pie_words::TokenIndex(at),
        delete,
        insert: vec![TokenId(9); insert],
    };
    let list = vec![splice(50, 0, 3), splice(60, 2, 0), splice(200, 5, 1)];
    let splices = Splices::new(list, 300).expect("in order");
    let (done, rows) = bed.encode_repairing(splices, RepairSelection::behind(32)).expect("it runs");
    // The first window reaches over the second place, whose window goes on behind it.
    assert_eq!(rows, [53..75, 202..212]);
    assert_eq!(done.encoded, 4 + 32);
}

#[test]
fn a_run_is_continued_with_the_method_that_is_missing_and_refuses_another_window() {
    let place = EvaluationFolder::new();
    let mut options = place.options("out");
    options.methods.retain(|method| *method != Method::Repair);
    (options.window_samples, options.accumulated_samples, options.compared_samples) = (0, 0, 1);
    let before = run(&options).expect("it runs");
    options.methods = Method::ALL.to_vec();
    let after = run(&options).expect("it goes on");
    assert_eq!(after[..before.len()], before);
    for line in &after[before.len()..] {
        let (method, window) = match line {
            Record::Completion(one) => (one.method, one.window),
            Record::Divergence(one) => (one.method, one.window),
            other => panic!("{other:?}"),
        };
        assert_eq!((method, window), (Method::Repair, Some(24)));
    }
    assert_eq!(
        after.len() - before.len(),
        3 * 4 + 4,
        "a completion of each case, and divergences of the first sample's"
    );
    options.window = 25;
    let refused = run(&options).expect_err("another window").to_string();
    assert!(refused.contains("--window"), "{refused}");
    options.methods.retain(|method| *method != Method::Repair);
    run(&options).expect("it asks for no window");
}

#[test]
fn repaired_streams_are_measured_at_both_places() {
    let place = EvaluationFolder::new();
    let mut options = place.options("out");
    options.samples = Some(0);
    options.window_samples = 1;
    // All that is stale is repaired with each edit.
    options.window = 4096;
    let lines = run(&options).expect("it runs");
    let (mut repaired, mut edited) = (0, Vec::new());
    for line in &lines {
        let Record::Accumulated(one) = line else { continue };
        let followed = one.followed.expect("it is measured");
        match one.cache.arm {
            Arm::Repaired | Arm::Healed => {
                assert!(one.kl < 1e-6 && followed.kl < 1e-6 && one.agrees, "{one:?}");
                let stream = one.stream.expect("edits were made");
                assert_eq!(stream.idle_rows, 0, "the frontier is the end: {one:?}");
                repaired += 1;
            }
            Arm::Edited => edited.push((one.cache.spot, one.cache.edits)),
            Arm::Fresh | Arm::Turned | Arm::Before | Arm::Scattered => {}
        }
    }
    assert_eq!(repaired, 2 * 2 * 2, "places, numbers of edits, without and with idle time");
    // Without a repository there are no commits.
    for spot in [Spot::End, Spot::Cursor] {
        assert!(edited.contains(&(spot, 4)), "{edited:?}");
    }
    let windows = lines.iter().filter(|line| matches!(line, Record::Window(_))).count();
    assert_eq!(windows, 4 * (1 + 1 + 3), "tasks; everything, no window, and a window with its controls");
}

/// With time for every row between two edits the last edit alone is left to tell a cache from a fresh one, however many there were.
#[test]
fn a_healed_cache_is_as_far_from_a_fresh_one_after_many_edits_as_after_one() {
    let place = EvaluationFolder::new();
    let mut options = place.options("out");
    (options.samples, options.window_samples) = (Some(0), 0);
    options.arms = vec![Arm::Edited, Arm::Repaired, Arm::Healed];
    options.edits = vec![1, 9];
    let lines = run(&options).expect("it runs");
    let of = |wanted: (Spot, Arm, u32)| {
        let one = lines.iter().find_map(|line| match line {
            Record::Accumulated(one)
                if one.cache.storage == Storage::F32
                    && (one.cache.spot, one.cache.arm, one.cache.edits) == wanted =>
            {
                Some(one)
            }
            _ => None,
        });
        let one = one.expect("it was measured");
        (one.followed.expect("it was measured").kl, one.stream.expect("edits were made"))
    };
    for spot in [Spot::End, Spot::Cursor] {
        let (one, _) = of((spot, Arm::Repaired, 1));
        let (many, stream) = of((spot, Arm::Healed, 9));
        assert!((one - many).abs() < 1e-6 && stream.idle_rows > 0, "{spot}: {one} and {many}, {stream:?}");
        let (edited, _) = of((spot, Arm::Edited, 9));
        assert!(edited > 2.0 * many, "{spot}: {edited} and {many}");
    }
}

/// What was written before there was anything to repair is read as it was meant.
#[test]
fn committed_results_stay_readable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/evaluation");
    for part in ["", "qwen2.5-coder-0.5b"] {
        assert!(results::read(&folder.join(part)).expect("results").len() > 200, "{part}");
    }
    let old = r#"{"kind":"accumulated","language":"python","setting":"in_file","sample":0,"storage":"bf16","arm":"turned","edits":3,
        "prediction":"a","exact_match":false,"edit_similarity":4,"agrees":true,"kl":0.5,"cosine":[1.0],"kept":1.0,"turns":4.0}"#;
    let Record::Accumulated(one) = serde_json::from_str(old).expect("it was written so") else {
        panic!("{old}")
    };
    let CacheId { storage, arm, spot, window, idle, .. } = one.cache;
    assert_eq!((storage, arm, spot, window, idle), (Storage::Bf16, Arm::Turned, Spot::End, 0, 0));
    assert_eq!((one.followed, one.stream), (None, None));
    let again: serde_json::Value = serde_json::to_value(Record::Accumulated(one)).expect("JSON");
    assert!(again.get("spot").is_none() && again.get("window").is_none(), "{again}");
}
