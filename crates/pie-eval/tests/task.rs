//! The paper's tasks: undoing the edit gives back the sample, whatever its lines are like.

use pie_eval::dataset::Sample;
use pie_eval::names::{Language, Setting, Task};
use pie_eval::task::{self, Case, CursorCase, LINES};
use pie_words::TextRange;
use proptest::prelude::*;

fn pool() -> Vec<Sample> {
    let sample = |prompt: &str| Sample {
        repo: String::new(),
        file: String::new(),
        prompt: prompt.to_owned(),
        next_line: String::new(),
    };
    vec![sample("one\ntwo\n\n    three\n"), sample("four"), sample("fünf\r\nsechs\r\n")]
}

/// The original after its edits.
fn edited(case: &Case) -> String {
    let mut text = case.original.clone();
    for edit in case.edits.iter().rev() {
        let TextRange::Bytes { start, end } = edit.range else { panic!("bytes") };
        text.replace_range(start..end, &edit.insert);
    }
    text
}

fn build(task: Task, text: &str, seed: u64) -> Case {
    let mut random = task::random(seed, Language::Python, Setting::InFile, 0, task.name(), 0);
    task::build(task, text, &pool(), &mut random)
}

fn count(text: &str) -> usize {
    text.split_inclusive('\n').count()
}

proptest! {
    #[test]
    fn the_edit_restores_the_sample(
        lines in prop::collection::vec("[a-zé \t]{0,9}", 0..14),
        end in prop::sample::select(vec!["\n", "\r\n"]),
        last_has_end in any::<bool>(),
        seed in 0_u64..1000,
    ) {
        let mut text = lines.join(end);
        if last_has_end && !text.is_empty() {
            text.push_str(end);
        }
        for task in &[Task::Insertion, Task::Deletion, Task::Edition] {
            let case = build(*task, &text, seed);
            prop_assert_eq!(edited(&case), text.as_str(), "{} of {:?}", task, case);
            let (lines, before) = (count(&text), count(&case.original));
            let removed = lines.min(LINES);
            if lines > 0 {
                let expected = match task {
                    Task::Insertion => lines - removed,
                    Task::Deletion => lines + LINES,
                    Task::Edition => lines - removed + LINES,
                    Task::Cursor => unreachable!("is not of the paper"),
                };
                prop_assert_eq!(before, expected, "{}", task);
            }
            prop_assert_eq!(build(*task, &text, seed), case, "the same seed gives the same case");
        }
    }
}

#[test]
fn an_edition_is_at_two_places() {
    let text: String = (0..40).map(|line| format!("line {line}\n")).collect();
    for seed in 0..200 {
        let case = build(Task::Edition, &text, seed);
        let [first, second] = case.edits.as_slice() else { panic!("two edits: {case:?}") };
        let (TextRange::Bytes { end, .. }, TextRange::Bytes { start, .. }) = (first.range, second.range)
        else {
            panic!("bytes")
        };
        assert!(start > end, "apart from each other: {case:?}");
    }
}

#[test]
fn seeds_choose_places() {
    let text: String = (0..40).map(|line| format!("line {line}\n")).collect();
    let cases: std::collections::BTreeSet<String> =
        (0..20).map(|seed| build(Task::Insertion, &text, seed).original).collect();
    assert!(cases.len() > 10, "20 seeds give {} places", cases.len());
}

#[test]
fn a_line_at_the_cursor_is_taken_out_and_the_edit_is_near_it() {
    let line = |number: usize| match number % 4 {
        0 => "    # a comment of some length\n".to_owned(),
        1 => "\n".to_owned(),
        _ => format!("    value_{number} = compute({number})\n"),
    };
    let text: String = (0..60).map(line).collect();
    let mut places = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut random = task::random(seed, Language::Python, Setting::InFile, 0, "cursor", 0);
        let CursorCase { sides, line, edited: side, case } =
            task::at_cursor(&text, &["#"], &mut random).expect("has lines");
        assert_eq!(format!("{}{line}{}", sides[0], sides[1]), text);
        assert!(line.starts_with("value_") && sides[0].ends_with("    ") && sides[1].starts_with('\n'));
        assert_eq!(edited(&case), sides[side]);
        let TextRange::Bytes { start, .. } = case.edits[0].range else { panic!("bytes") };
        let between = match side {
            0 => count(&case.original[start..]),
            _ => count(&case.original[..start]),
        };
        assert!(between <= 14, "{between} lines between the two");
        places.insert((side, between));
    }
    assert!(places.len() > 15, "{places:?}");
    let mut random = task::random(0, Language::Python, Setting::InFile, 0, "cursor", 0);
    for text in ["", "a = 1\n", &"# all of it\n".repeat(80)] {
        assert_eq!(task::at_cursor(text, &["#"], &mut random), None, "{text:?}");
    }
}
