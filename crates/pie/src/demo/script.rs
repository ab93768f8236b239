//! The stream of edits: JSON lines, each a step that people make between two completions.

use pie_client::Edit;
use serde::Deserialize;

/// A parsed script.
#[derive(Debug)]
pub struct Script {
    /// What is done to the document, in order.
    pub steps: Vec<StepOfScript>,
}

/// One step: `type` sends its text in small pieces as keystrokes do, `edits` sends all places in one request, `undo`
/// goes back to the text before the step before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepOfScript {
    /// What people would call it.
    pub name: String,
    #[serde(flatten)]
    action: DemoAction,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DemoAction {
    Type { at: Anchor, text: String },
    Edits(Vec<PlacedEdit>),
    Undo(UndoScope),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UndoScope {
    LastStep,
}

/// Deletes whole lines from a place on, and inserts text there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacedEdit {
    at: Anchor,
    #[serde(default)]
    delete_lines: usize,
    #[serde(default)]
    insert: String,
}

/// A place in a text, whatever text it is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Anchor {
    /// The start of a line, counted from 1.
    Line(usize),
    /// The start of the line at this share of all lines.
    Percent(f64),
    /// The end of the text.
    End,
}

/// What is wrong with a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A line that is no step.
    #[error("line {line} of the script is no step: {source}")]
    Parse {
        /// The line of the script, from 1.
        line: usize,
        /// What JSON's reader says.
        source: serde_json::Error,
    },
    /// An undo without anything to undo.
    #[error("step `{0}` undoes, and nothing was done before it")]
    NothingToUndo(String),
}

/// Characters of a keystroke's edit: people type faster than they ask.
const KEYSTROKE: usize = 4;

impl Script {
    /// Parses JSON lines; empty ones are skipped.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let step = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|source| ScriptError::Parse { line: index + 1, source })
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        Ok(Self { steps: lines.map(step).collect::<Result<_, _>>()? })
    }
}

impl StepOfScript {
    /// The requests of this step on `text`; `history` holds the texts before each earlier step.
    pub fn requests(&self, text: &str, history: &[String]) -> Result<Vec<Vec<Edit>>, ScriptError> {
        Ok(match &self.action {
            DemoAction::Type { at, text: typed } => keystrokes(at.offset(text), typed),
            DemoAction::Edits(edits) => vec![edits.iter().map(|edit| edit.on(text)).collect()],
            DemoAction::Undo(UndoScope::LastStep) => {
                let before = history.last().ok_or_else(|| ScriptError::NothingToUndo(self.name.clone()))?;
                vec![vec![difference(text, before)]]
            }
        })
    }
}

fn keystrokes(at: usize, typed: &str) -> Vec<Vec<Edit>> {
    let characters: Vec<char> = typed.chars().collect();
    let mut at = at;
    let keystroke = |piece: &[char]| {
        let text: String = piece.iter().collect();
        let edit = Edit { range: at..at, text };
        at += edit.text.len();
        vec![edit]
    };
    characters.chunks(KEYSTROKE).map(keystroke).collect()
}

impl PlacedEdit {
    fn on(&self, text: &str) -> Edit {
        let start = self.at.offset(text);
        let gone: usize = text[start..].split_inclusive('\n').take(self.delete_lines).map(str::len).sum();
        Edit { range: start..start + gone, text: self.insert.clone() }
    }
}

impl Anchor {
    fn offset(self, text: &str) -> usize {
        let lines = text.split_inclusive('\n').count();
        let line = match self {
            Self::Line(line) => line.saturating_sub(1),
            Self::Percent(percent) => (lines as f64 * percent / 100.0) as usize,
            Self::End => return text.len(),
        };
        text.split_inclusive('\n').take(line).map(str::len).sum()
    }
}

/// The one edit that makes `after` of `before`.
fn difference(before: &str, after: &str) -> Edit {
    let same = |(a, b): &(char, char)| a == b;
    let prefix: usize = before.chars().zip(after.chars()).take_while(same).map(|(a, _)| a.len_utf8()).sum();
    let (rest_before, rest_after) = (&before[prefix..], &after[prefix..]);
    let suffix: usize = rest_before
        .chars()
        .rev()
        .zip(rest_after.chars().rev())
        .take_while(same)
        .map(|(a, _)| a.len_utf8())
        .sum();
    let range = prefix..before.len() - suffix;
    Edit { range, text: after[prefix..after.len() - suffix].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, requests: &[Vec<Edit>]) -> String {
        let mut text = text.to_owned();
        for edits in requests {
            let mut edits = edits.clone();
            edits.sort_by_key(|edit| std::cmp::Reverse(edit.range.start));
            edits.into_iter().for_each(|edit| text.replace_range(edit.range, &edit.text));
        }
        text
    }

    #[test]
    fn each_kind_of_step() {
        let text = "one\ntwo\nthree\nfour\n";
        let cases = [
            (r#"{"name":"n","type":{"at":"end","text":"fünf sechs"}}"#, "one\ntwo\nthree\nfour\nfünf sechs"),
            (
                r#"{"name":"n","edits":[{"at":{"line":1},"insert":"zero\n"}]}"#,
                "zero\none\ntwo\nthree\nfour\n",
            ),
            (r#"{"name":"n","edits":[{"at":{"percent":50},"delete_lines":1}]}"#, "one\ntwo\nfour\n"),
            (
                r#"{"name":"n","edits":[{"at":{"line":2},"delete_lines":9,"insert":"x"},{"at":{"line":1},"insert":"y"}]}"#,
                "yone\nx",
            ),
        ];
        for (line, after) in cases {
            let script = Script::parse(line).expect(line);
            let requests = script.steps[0].requests(text, &[]).expect("nothing to undo");
            assert_eq!(apply(text, &requests), after, "{line}");
            let undo = &Script::parse(r#"{"name":"u","undo":"last_step"}"#).expect("a step").steps[0];
            let back = undo.requests(after, &[text.to_owned()]).expect("something to undo");
            assert_eq!(apply(after, &back), text, "undo of {line}");
        }
    }

    #[test]
    fn the_script_that_ships_is_right() {
        let script = Script::parse(super::super::SCRIPT).expect("it ships");
        assert!(script.steps.len() >= 8);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = Script::parse("\n{\"name\":\"n\",\"edit\":[]}\n").expect_err("`edit` is no action");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
