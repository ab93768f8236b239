//! The lines of a script file.

use crate::error::LoadError;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptHeader {
    pie_load_script: u32,
}

/// One line: who does what, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptLine {
    /// Milliseconds since the document was opened; when absent, as soon as what stands before is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// The document's name in this script; empty where there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
}

/// What people do. Offsets are bytes of the text as the script's own lines made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The document appears, with the cursor at its end. Its time is 0.
    Open {
        /// The text that it begins with.
        text: String,
    },
    /// Text is typed.
    Type {
        /// Where; at the cursor when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
        /// The characters.
        text: String,
        /// Milliseconds from key to key: each character is an edit. Without it the text is one edit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_ms: Option<u64>,
    },
    /// Text is pasted.
    Paste {
        /// Where; at the cursor when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
        /// All of it, as one edit.
        text: String,
    },
    /// A range is deleted.
    Delete {
        /// The first byte that goes.
        start: usize,
        /// The byte behind the last that goes.
        end: usize,
    },
    /// The cursor moves.
    Move {
        /// The byte before which it stands then.
        to: usize,
    },
    /// Several places change in one edit.
    MultiCursor {
        /// Sorted, disjoint; all in the text before them.
        edits: Vec<TextChange>,
    },
    /// The latest edits of the script are taken back, as one edit each.
    Undo {
        /// Edits to take back.
        #[serde(default = "one")]
        steps: usize,
    },
    /// A completion is asked for.
    Complete {
        /// At the cursor, or at the text's end.
        #[serde(default)]
        at: Caret,
        /// The text before, or on both sides.
        #[serde(default)]
        mode: CompletionMode,
        /// The most tokens; the run's own number when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<u32>,
    },
    /// The latest completion's text, or a part of it, becomes text of the document. Offsets of the script do not see it.
    Accept(Accept),
    /// All accepted text that is still there is deleted, in one edit.
    Discard {},
    /// Time passes.
    Pause {
        /// Milliseconds.
        ms: u64,
    },
    /// A remark; nothing is sent.
    Note {
        /// For whoever reads the script.
        text: String,
    },
}

fn one() -> usize {
    1
}

/// A range and what stands there afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextChange {
    /// The first byte that goes.
    pub start: usize,
    /// The byte behind the last that goes.
    pub end: usize,
    /// The text that comes in its place.
    #[serde(default)]
    pub text: String,
}

/// Where a completion is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caret {
    /// At the cursor.
    #[default]
    Cursor,
    /// At the document's end.
    End,
}

/// What a completion sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletionMode {
    /// The text before its place.
    #[default]
    Continue,
    /// The text on both sides.
    Fim,
}

/// How a completion is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Accept {
    /// All that has come.
    Whole,
    /// To the end of its first line.
    Line,
    /// Its first word.
    Word,
    /// By typing its first characters.
    Typed {
        /// Characters of it.
        chars: usize,
        /// Milliseconds from key to key.
        key_ms: u64,
    },
}

/// What a line can do, as it is spelled.
const ACTIONS: [&str; 12] = [
    "open",
    "type",
    "paste",
    "delete",
    "move",
    "multi_cursor",
    "undo",
    "complete",
    "accept",
    "discard",
    "pause",
    "note",
];

/// The lines of a script file, without its header.
///
/// # Errors
/// [`LoadError::BadScript`], with the line.
pub fn parse(text: &str) -> Result<Vec<ScriptLine>, LoadError> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let (line, header) = lines.next().ok_or(LoadError::EmptyScript)?;
    let bad = |line: usize, reason: String| LoadError::BadScript { line, reason };
    let header: ScriptHeader = serde_json::from_str(header).map_err(|error| bad(line, error.to_string()))?;
    if header.pie_load_script != VERSION {
        let version = header.pie_load_script;
        return Err(bad(line, format!("version {version} of scripts; this program plays version {VERSION}")));
    }
    lines
        .map(|(line, text)| serde_json::from_str(text).map_err(|error| bad(line, reason(text, &error))))
        .collect()
}

/// What serde says of flattened data names no key; this does.
fn reason(text: &str, error: &serde_json::Error) -> String {
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let known = |key: &str| ACTIONS.contains(&key) || key == "at_ms" || key == "doc";
    match line.keys().find(|key| !known(key)) {
        Some(key) => format!(
            "`{key}` is nothing that a line can hold: beside at_ms and doc one of {}",
            ACTIONS.join(", ")
        ),
        None => error.to_string(),
    }
}

/// A script file of these lines.
///
/// # Errors
/// None that is known: all are texts and numbers.
pub fn write(lines: &[ScriptLine]) -> Result<String, LoadError> {
    let mut text = serde_json::to_string(&ScriptHeader { pie_load_script: VERSION })? + "\n";
    for line in lines {
        text += &serde_json::to_string(line)?;
        text.push('\n');
    }
    Ok(text)
}
