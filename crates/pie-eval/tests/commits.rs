//! Edits that people made: a repository's commits, on a small seeded model.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{EvaluationFolder, run};
use pie_eval::names::{Arm, Spot};
use pie_eval::results::{self, Accumulated, Record};
use pie_eval::{EvalError, EvaluationOptions, GitSource};
use std::path::Path;
use std::process::Command;

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A file's version: functions come, change and go, far from the last one's body and near it, and the text is at times longer than the context.
fn version(number: usize) -> String {
    let function = |index: usize| {
        let wide = if (index + number).is_multiple_of(3) {
            format!("    # größe 🙂 {number}\n")
        } else {
            String::new()
        };
        format!("def function_{index}(value):\n{wide}    return value + {}\n\n\n", index * number)
    };
    let functions: String =
        (0..60).filter(|index| !(index * 7 + number).is_multiple_of(11)).map(function).collect();
    let last = if number == 7 { "    total = sum(values) + offset\n" } else { "" };
    format!("import os\r\n{functions}def last(values, offset):\n{last}    return offset\n")
}

fn commit(folder: &Path, versions: std::ops::RangeInclusive<usize>) {
    for number in versions {
        std::fs::write(folder.join("functions.py"), version(number)).expect("written");
        std::fs::write(folder.join("notes.txt"), format!("{number}\n")).expect("written");
        git(folder, &["add", "-A"]);
        git(folder, &["commit", "-q", "-m", "a change"]);
    }
}

fn accumulated(lines: &[Record]) -> Vec<Accumulated> {
    let of = |line: &'_ Record| match line {
        Record::Accumulated(one) => Some(one.clone()),
        _ => None,
    };
    lines.iter().filter_map(of).collect()
}

/// That the edits lead to the prompt, token for token, is what the run itself checks.
#[test]
fn the_commits_of_a_file_are_edits_that_lead_to_its_latest_added_line() {
    let (place, repository) = (EvaluationFolder::new(), tempfile::tempdir().expect("a folder"));
    let folder = repository.path();
    git(folder, &["init", "-q", "-b", "main"]);
    commit(folder, 0..=7);
    let source = |under: Option<&str>| {
        Some(GitSource { repository: folder.to_owned(), under: under.map(str::to_owned) })
    };
    let options = EvaluationOptions {
        git: source(None),
        spots: vec![Spot::Git],
        edits: vec![1, 9],
        samples: Some(0),
        window_samples: 0,
        accumulated_samples: 3,
        context: Some(1024),
        ..place.options("out")
    };
    let lines = run(&options).expect("it runs");
    let all = accumulated(&lines);
    let of = |arm| all.iter().filter(|one| one.cache.arm == arm).collect::<Vec<_>>();
    assert!(
        all.iter().all(|one| one.cache.spot == Spot::Git && one.cache.sample == 0),
        "one file has Python"
    );
    let told =
        lines.iter().find_map(|line| if let Record::Commits(commits) = line { Some(commits) } else { None });
    let commits = told.expect("what was taken");
    assert_eq!((commits.path.as_str(), commits.commit.len()), ("functions.py", 40));
    assert_eq!(of(Arm::Edited).iter().map(|one| one.cache.edits).collect::<Vec<_>>(), [1, 9]);
    for edited in of(Arm::Edited) {
        assert!(
            edited.turns > 0.0 && edited.kept < 1.0 && edited.stream.is_some_and(|cost| cost.encoded > 0),
            "{edited:?}"
        );
    }
    assert!(
        of(Arm::Healed).iter().all(|one| one.kl < 1e-3),
        "all but the last edit is repaired, and that is one character"
    );
    let page = pie_eval::report::write(&options.out).expect("pages");
    let healing = page.iter().find(|path| path.ends_with("healing.md")).expect("a page");
    let healing = std::fs::read_to_string(healing).expect("it is there");
    assert!(
        healing.contains("| at the cursor of commits | 9 |") && healing.contains("functions.py at "),
        "{healing}"
    );

    // It goes on where it was, and not with another history.
    assert_eq!(results::read(&options.out).expect("results"), lines);
    assert_eq!(run(&options).expect("it goes on"), lines);
    let none = EvaluationOptions { git: source(Some("notes.txt")), ..place.options("none") };
    assert!(matches!(run(&none), Err(EvalError::NoHistory { .. })));
    commit(folder, 8..=8);
    assert!(matches!(run(&options), Err(EvalError::OtherRun { what: "history", .. })));
}
