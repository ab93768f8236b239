//! Scripts, people and git: what is written can be played, and plays to the text that it should.

use pie_load::LoadError;
use pie_load::page::EditorBuffer;
use pie_load::people::{Corpus, Habits, Replay, lines, replay};
use pie_load::script::{
    AcceptanceUnit, Action, Caret, ScriptLine, ScriptStep, TextChange, compile, parse, write,
};
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const HEADER: &str = "{\"pie_load_script\":1}\n";

fn compiled(body: &str) -> Result<Vec<pie_load::script::EditStream>, LoadError> {
    compile(&parse(&format!("{HEADER}{body}"))?)
}

#[test]
fn a_script_by_hand_becomes_keystrokes_at_their_times() {
    let body = r#"{"open":{"text":"ab\n"}}
{"pause":{"ms":500}}
{"type":{"at":1,"text":"xé","key_ms":100}}
{"complete":{}}
{"accept":{"typed":{"chars":2,"key_ms":80}}}
{"at_ms":2000,"multi_cursor":{"edits":[{"start":0,"end":1},{"start":4,"end":5,"text":"B"}]}}
{"undo":{"steps":2}}
{"complete":{"at":"end","mode":"fim","max_tokens":5}}
"#;
    let streams = compiled(body).expect("a script");
    let times: Vec<u128> = streams[0].events.iter().map(|event| event.at.as_millis()).collect();
    assert_eq!(times, [500, 600, 700, 700, 780, 2000, 2000, 2000, 2000]);
    let mut page = EditorBuffer::new(streams[0].text.clone());
    let mut asks = Vec::new();
    for event in &streams[0].events {
        match &event.step {
            ScriptStep::Edit { changes, .. } => drop(page.edit(changes)),
            ScriptStep::Complete(ask) => asks.push((ask.offset, ask.place, ask.max_tokens)),
            ScriptStep::Accept(part) => assert_eq!(*part, AcceptanceUnit::Character),
            ScriptStep::Discard | ScriptStep::Note(_) => {}
        }
    }
    // Undone: the two places, and the é.
    assert_eq!(page.text(), "axb\n");
    assert_eq!(asks, [(4, Caret::Cursor, None), (4, Caret::End, Some(5))]);
}

#[test]
fn the_script_in_the_documentation_can_be_played() {
    let page = include_str!("../../../docs/load.md");
    let (_, rest) = page.split_once("```json\n").expect("a script");
    let (script, _) = rest.split_once("```").expect("its end");
    let streams = compile(&parse(script).expect("lines")).expect("it fits its document");
    assert_eq!(played(&streams[0], "").text(), "fn main() {\n    let größe = 1;}\n");
}

#[test]
fn scripts_that_cannot_be_played_are_refused_with_their_line() {
    let cases = [
        ("{\"open\":{\"text\":\"é\"}}\n{\"move\":{\"to\":1}}", 3, "1 is no place"),
        ("{\"open\":{\"text\":\"a\"}}\n{\"delete\":{\"start\":0,\"end\":2}}", 3, "0..2 is no range"),
        ("{\"open\":{\"text\":\"a\"}}\n{\"undo\":{}}", 3, "only 0 were made"),
        ("{\"type\":{\"text\":\"a\"}}", 2, "is not open"),
        ("{\"open\":{\"text\":\"\"}}\n{\"open\":{\"text\":\"\"}}", 3, "open already"),
        ("{\"open\":{\"text\":\"\"}}\n{\"typo\":{\"text\":\"a\"}}", 3, "typo"),
        ("{\"open\":{\"text\":\"\"}}\n{\"type\":{\"text\":\"a\",\"speed\":3}}", 3, "speed"),
        ("{\"open\":{\"text\":\"\"},\"when\":3}", 2, "when"),
        (
            "{\"open\":{\"text\":\"\"}}\n{\"type\":{\"text\":\"abc\",\"key_ms\":50}}\n{\"at_ms\":20,\"complete\":{}}",
            4,
            "lasts until 100",
        ),
        (
            "{\"open\":{\"text\":\"abcd\"}}\n{\"multi_cursor\":{\"edits\":[{\"start\":0,\"end\":2},{\"start\":2,\"end\":3}]}}",
            3,
            "touches the one before",
        ),
        // Found while the fuzz targets were written: times that overflow, and a line that stands for more steps than fit in memory.
        (
            "{\"open\":{\"text\":\"\"}}\n{\"type\":{\"text\":\"abc\",\"key_ms\":18446744073709551615}}",
            3,
            "more than a year",
        ),
        ("{\"open\":{\"text\":\"\"}}\n{\"pause\":{\"ms\":31536000001}}", 3, "more than a year"),
        (
            "{\"open\":{\"text\":\"\"}}\n{\"accept\":{\"typed\":{\"chars\":100001,\"key_ms\":0}}}",
            3,
            "at most 100000",
        ),
    ];
    for (body, at, words) in cases {
        match compiled(body) {
            Err(LoadError::BadScript { line, reason }) => {
                assert!(line == at && reason.contains(words), "{body}: line {line}: {reason}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    for (text, words) in
        [("", "no document"), ("{\"pie_load_script\":9}", "version 9"), ("{}", "missing field")]
    {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    assert!(matches!(compiled(""), Err(LoadError::EmptyScript)));
}

/// The plainest model of a text with undo: snapshots of text and cursor.
fn plain(lines: &[ScriptLine]) -> String {
    let (mut versions, mut text, mut cursor) = (Vec::new(), String::new(), 0);
    for line in lines {
        let before = (text.clone(), cursor);
        match &line.action {
            Action::Open { text: opened } => (text, cursor) = (opened.clone(), opened.len()),
            Action::Move { to } => cursor = *to,
            Action::Undo { steps } => {
                (text, cursor) = versions.split_off(versions.len() - steps).swap_remove(0);
            }
            Action::Type { at, text: new, .. } | Action::Paste { at, text: new } => {
                let at = at.unwrap_or(cursor);
                text.insert_str(at, new);
                cursor = at + new.len();
                versions.push(before);
            }
            Action::Delete { start, end } => {
                text.replace_range(*start..*end, "");
                cursor = *start;
                versions.push(before);
            }
            Action::MultiCursor { edits } => {
                let mut shift = 0;
                for TextChange { start, end, text: new } in edits {
                    let (start, end) = ((*start as isize + shift) as usize, (*end as isize + shift) as usize);
                    text.replace_range(start..end, new);
                    shift += new.len() as isize - (end - start) as isize;
                    cursor = start + new.len();
                }
                versions.push(before);
            }
            _ => {}
        }
    }
    text
}

/// The text that the streams' own steps lead to, with or without answers that are taken over on the way.
fn played(stream: &pie_load::script::EditStream, answer: &str) -> EditorBuffer {
    let mut page = EditorBuffer::new(stream.text.clone());
    // An answer is stale after the next edit that is none of its own.
    let mut place = None;
    for event in &stream.events {
        match (&event.step, place) {
            (ScriptStep::Edit { changes, .. }, _) => {
                let mut text = page.text().to_owned();
                for edit in page.edit(changes).iter().rev() {
                    text.replace_range(edit.range.clone(), &edit.text);
                }
                assert_eq!(text, page.text(), "the edits are what the page did");
                place = None;
            }
            (ScriptStep::Complete(ask), _) => place = Some(ask.offset),
            (ScriptStep::Accept(_), Some(place)) if !answer.is_empty() => drop(page.accept(place, answer)),
            (ScriptStep::Discard, _) => drop(page.discard()),
            (ScriptStep::Accept(_) | ScriptStep::Note(_), _) => {}
        }
    }
    page
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn generated_streams_fit_and_repeat(seed: u64, size in 0_usize..6000, minutes in 1_u64..4) {
        let habits = Habits { document_bytes: size, accepted: 0.5, ..Habits::default() };
        let length = Duration::from_secs(60 * minutes);
        let script = lines(&Corpus::default(), habits, seed, "a", length);
        prop_assert_eq!(&script, &lines(&Corpus::default(), habits, seed, "a", length));
        prop_assert_ne!(&script, &lines(&Corpus::default(), habits, seed, "b", length));
        let again = parse(&write(&script).expect("JSON")).expect("what was written is read");
        prop_assert_eq!(&again, &script);
        // Every line fits its document, or this fails.
        let stream = compile(&script).expect("a script").remove(0);
        prop_assert!(stream.length >= length && stream.edits() > 5);
        let page = played(&stream, "");
        prop_assert_eq!(page.text(), plain(&script));
        // Accepted text changes nothing of the script's, and goes again.
        let mut with = played(&stream, "«accepted»");
        prop_assert_eq!(with.text().matches("«accepted»").count() * "«accepted»".len(), with.accepted());
        with.discard();
        prop_assert_eq!(with.text(), page.text());
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[test]
fn a_replayed_history_passes_through_every_commit() {
    let folder = tempfile::tempdir().expect("a folder");
    git(folder.path(), &["init", "-q", "-b", "main"]);
    let first = "fn main() {\n    let größe = 1;\n    print(größe);\n}\n";
    let versions = [
        first.to_owned(),
        first.replace("größe", "size"),
        format!("// top\n{}", first.replace("größe", "size").replace("= 1", "= 12")),
        "something else entirely\nwithout a line in common".to_owned(),
        (0..600).map(|line| format!("line {line}\n")).collect(),
        (0..600).filter(|line| line % 7 != 0).map(|line| format!("line {line}\n")).rev().collect(),
        "x".to_owned(),
    ];
    let mut commits = Vec::new();
    for version in &versions {
        std::fs::write(folder.path().join("naïve file.rs"), version).expect("written");
        std::fs::write(folder.path().join("binary"), [0, 159, 146, commits.len() as u8]).expect("written");
        git(folder.path(), &["add", "-A"]);
        git(folder.path(), &["commit", "-q", "-m", "a change"]);
        commits.push(git(folder.path(), &["rev-parse", "HEAD"]));
    }
    let habits = Habits { document_bytes: 1 << 16, ..Habits::default() };
    let what = Replay {
        repository: folder.path().to_owned(),
        under: None,
        files: 5,
        versions: 100,
        seed: 1,
        habits,
    };
    let streams = compile(&replay(&what).expect("a script")).expect("it can be played");
    assert_eq!(streams.iter().map(|stream| stream.doc.as_str()).collect::<Vec<_>>(), ["naïve file.rs"]);
    let (mut page, mut seen) = (EditorBuffer::new(streams[0].text.clone()), Vec::new());
    for event in &streams[0].events {
        match &event.step {
            ScriptStep::Edit { changes, .. } => drop(page.edit(changes)),
            ScriptStep::Note(note) => seen.push((note.clone(), page.text().to_owned())),
            _ => {}
        }
    }
    let wanted = commits.iter().map(|commit| format!("commit {commit}")).zip(versions);
    assert!(
        seen.iter().eq(wanted.collect::<Vec<_>>().iter()),
        "the texts at the notes are those of the commits"
    );
    let nothing = Replay { under: Some("binary".to_owned()), ..what };
    assert!(matches!(replay(&nothing), Err(LoadError::NothingToReplay { .. })), "no text there");
}
