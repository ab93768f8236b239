//! Whole runs with a small seeded model: what full recomputation is, what an edit at the end costs, going on, drawing.

mod common;

use common::{EvaluationFolder, TOKENIZER, run};
use pie_eval::engine::{Bed, Machine};
use pie_eval::names::{Method, Task};
use pie_eval::results::{self, Prediction, Record};
use pie_kv::Precision;
use pie_model::Config;
use pie_words::{Strategy, TokenId};
use std::path::Path;

fn completions(lines: &[Record]) -> Vec<&Prediction> {
    lines
        .iter()
        .filter_map(|line| match line {
            Record::Completion(one) => Some(one),
            _ => None,
        })
        .collect()
}

/// The file without what a clock says.
fn timeless(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(results::FILE)).expect("results");
    let without = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if let Some(work) = value.get_mut("work").and_then(serde_json::Value::as_object_mut) {
            work.insert("time_ms".to_owned(), 0.into());
        }
        for (part, name) in [("stream", "time_ms"), ("stream", "idle_ms")] {
            if let Some(part) = value.get_mut(part).and_then(serde_json::Value::as_object_mut) {
                part.insert(name.to_owned(), 0.into());
            }
        }
        if value["kind"] == "rate" {
            value = "a rate".into();
        }
        value.to_string()
    };
    text.lines().map(without).collect()
}

#[test]
fn a_run_that_was_interrupted_goes_on_to_the_same_results_and_reports_draw_them() {
    let place = EvaluationFolder::new();
    let whole = place.options("whole");
    let lines = run(&whole).expect("it runs");
    let all = completions(&lines);
    assert_eq!(all.len(), 3 * 4 * 4, "samples, tasks, methods");

    // Full recomputation: the same prediction after every edit, run or known.
    for one in all.iter().filter(|one| one.method == Method::Full) {
        let is_alike = |other: &&&Prediction| {
            other.case.sample == one.case.sample
                && (other.case.task == Task::Cursor) == (one.case.task == Task::Cursor)
        };
        let first = all.iter().filter(is_alike).find(|other| other.method == Method::Full);
        assert_eq!(Some(&one.prediction), first.map(|first| &first.prediction), "{one:?}");
        let line = if one.case.task == Task::Cursor { "return x +" } else { "x = f1(2)" };
        assert!(one.truth.starts_with(line), "{one:?}");
        assert_eq!(one.work.is_some(), one.case.sample == 0, "only timed samples run: {one:?}");
        if let Some(work) = one.work {
            let behind = one.tokens - one.first_change;
            assert!(behind.abs_diff(work.encoded as usize) <= 1, "{one:?}");
        }
    }
    for one in all.iter().filter(|one| one.method != Method::Full) {
        let work = one.work.expect("it ran");
        let repaired = if one.method == Method::Repair { 24 } else { 0 };
        assert_eq!(one.window, (one.method == Method::Repair).then_some(24));
        let fewest = one.inserted.max(1);
        assert!((fewest..=one.inserted + repaired + 1).contains(&(work.encoded as usize)), "{one:?}");
        assert!(one.method != Method::Conflict || work.rotated == 0, "conflict turns nothing: {one:?}");
    }
    let divergences = lines.iter().filter_map(|line| match line {
        Record::Divergence(one) => Some(one),
        _ => None,
    });
    for one in divergences {
        assert_eq!(one.cosine.len(), 2, "layers");
        let first = one.cosine[0];
        // Keys of the first layer depend on token and position alone, so turning them makes them exact (K3).
        assert!(one.method == Method::Conflict || first > 0.999_99, "{one:?}");
        assert!(one.kl.len() <= 64 && one.kl.iter().all(|kl| kl.is_finite() && *kl >= 0.0), "{one:?}");
    }

    // Cut off within a line, and begun again.
    let text = std::fs::read(whole.out.join(results::FILE)).expect("results");
    for part in [text.len() / 3, text.len() * 2 / 3] {
        let again = place.options(&format!("again{part}"));
        std::fs::create_dir(&again.out).expect("a folder");
        std::fs::write(again.out.join(results::FILE), &text[..part]).expect("it can be written");
        run(&again).expect("it goes on");
        assert_eq!(timeless(&again.out), timeless(&whole.out), "cut at byte {part}");
    }

    // Nothing is left to do, and pages are drawn from what is there.
    run(&whole).expect("nothing to do");
    assert_eq!(std::fs::read(whole.out.join(results::FILE)).expect("results"), text);
    let pages = pie_eval::report::write(&whole.out).expect("pages");
    let tables = std::fs::read_to_string(whole.out.join("tables.md")).expect("tables");
    assert!(tables.contains("| Python | **model** | PIE |"), "{tables}");
    let command = "`pie eval --model …/model --data …/data --samples 3 --seeds 1 --timed-samples 1 --kl-samples 1 \
                   --accumulated-samples 1 --window-samples 1`";
    assert!(tables.contains(command), "{tables}");
    assert!(tables.contains("| Java | DeepSeek-Coder 33B | PIE | 33.72 | 74.69 | 134 ms |"), "{tables}");
    assert!(tables.contains("| Python | **model** | PIE and repair |"), "{tables}");
    let names = [
        "tables.csv",
        "figure1.svg",
        "figure3.svg",
        "figure4.svg",
        "accumulated.md",
        "accumulated.svg",
        "healing.md",
        "healing-divergence.svg",
        "windows.md",
        "windows-cursor.svg",
    ];
    for name in names {
        assert!(pages.contains(&whole.out.join(name)), "{name} of {pages:?}");
    }

    // Results of another model stay what they are.
    let other = Config { vocab_size: 8192, layers: 1, ..Config::preset("test").expect("a preset") };
    std::fs::remove_dir_all(place.model()).expect("it goes");
    pie_model::seeded::write_model(&place.model(), &other, 7, &mut |_, _| {}).expect("it can be written");
    std::fs::write(place.model().join("tokenizer.json"), TOKENIZER).expect("it can be written");
    let refused = run(&whole).expect_err("another model").to_string();
    assert!(refused.contains("another model") && refused.contains("--out"), "{refused}");

    // Nor is a tokenizer taken that has tokens which the model does not know.
    let small = Config { vocab_size: 512, ..other };
    std::fs::write(place.model().join("config.json"), small.to_json()).expect("it can be written");
    let refused = run(&whole).expect_err("a tokenizer of another model").to_string();
    assert!(refused.contains("8191") && refused.contains("below 512"), "{refused}");
}

#[test]
fn an_edit_at_the_end_makes_pie_what_full_is_and_states_come_back() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    let mut bed = Bed::new(&mut machine).expect("a bed");
    bed.report_logprobs(8192);
    let tokens: Vec<TokenId> = (0..300).map(|place| TokenId(place * 7 % 8000)).collect();
    bed.become_exactly(&tokens).expect("it fits");
    let saved = bed.save(0).expect("open");
    let keys = bed.keys(1).expect("a layer");
    let mut results = Vec::new();
    for strategy in [Strategy::Full, Strategy::Pie, Strategy::Conflict] {
        let splices = bed.splice(290, 10, vec![TokenId(5); 4]).expect("within");
        results.push(bed.edit(splices, strategy).expect("it runs").next);
        bed.restore(&saved).expect("the same cache");
        assert_eq!(bed.keys(1).expect("a layer"), keys, "number for number");
    }
    assert_eq!(results[0], results[1], "nothing is behind the edit, so nothing is stale");
    assert_eq!(results[0], results[2], "nor in conflict");

    // Elsewhere the three differ, and full is what a fresh encoding is.
    let splices = bed.splice(100, 10, vec![TokenId(5); 4]).expect("within");
    let edited: Vec<TokenId> = [&tokens[..100], &[TokenId(5); 4], &tokens[110..]].concat();
    let full = bed.edit(splices.clone(), Strategy::Full).expect("it runs").next;
    bed.restore(&saved).expect("the same cache");
    let pie = bed.edit(splices, Strategy::Pie).expect("it runs").next;
    assert_ne!(full.top, pie.top, "kept tokens have not seen the edit");
    bed.become_exactly(&[]).expect("empty");
    bed.become_exactly(&edited).expect("it fits");
    let fresh = bed.decode(1).expect("it runs").remove(0);
    assert_eq!(fresh.token, full.token);
    assert!((fresh.logprob - full.logprob).abs() < 1e-4, "{} and {}", fresh.logprob, full.logprob);
}

#[test]
fn bf16_rows_round_whenever_they_are_turned_and_f32_rows_come_back() {
    let place = EvaluationFolder::new();
    let mut machine = place.machine();
    let tokens: Vec<TokenId> = (0..200).map(|place| TokenId(place * 7 % 8000)).collect();
    let far = |machine: &mut Machine, turns: usize| {
        let mut bed = Bed::new(machine).expect("a bed");
        bed.become_exactly(&tokens).expect("it fits");
        let before = bed.keys(1).expect("a layer");
        for _ in 0..turns {
            let done = bed.turn(bed.splice(1, 0, vec![TokenId(3); 17]).expect("within")).expect("turned");
            assert_eq!((done.encoded, done.rotated), (0, 199));
            bed.turn(bed.splice(1, 17, Vec::new()).expect("within")).expect("turned back");
        }
        let after = bed.keys(1).expect("a layer");
        let scale = before.iter().fold(0.0_f32, |scale, key| scale.max(key.abs()));
        let rounded = before.iter().all(|key| key.to_bits() & 0xffff == 0);
        let far = before.iter().zip(&after).fold(0.0_f32, |far, (a, b)| far.max((a - b).abs())) / scale;
        (rounded, far)
    };
    let (rounded, drift) = far(&mut machine, 20);
    assert!(!rounded && drift < 1e-5, "f32: {drift}");
    machine.set_precision(Precision::Bf16).expect("memory");
    let (rounded, few) = far(&mut machine, 1);
    let (_, many) = far(&mut machine, 20);
    assert!(rounded && few > 1e-4 && many > few && many < 0.1, "bf16: {few}, then {many}");
}
