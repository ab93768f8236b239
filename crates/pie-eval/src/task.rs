//! The paper's three tasks (appendix A): from a context to the one that it was before the edit, and the edit. And a fourth, at a
//! cursor in the middle.

use crate::dataset::Sample;
use crate::names::{Language, Setting, Task};
use pie_words::{TextEdit, TextRange};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::hash::Hasher;
use xxhash_rust::xxh3::Xxh3;

/// Lines that come or go in one edit.
pub const LINES: usize = 5;
/// Longer lines, which are data more often than code, are not sampled.
const LONGEST_LINE: usize = 160;

/// A context before its edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The text before the edit.
    pub original: String,
    /// What makes the sample's text of it; in places of `original`, in order.
    pub edits: Vec<TextEdit>,
}

/// Randomness of one case: the same for the same names, whatever else is evaluated.
pub fn random(
    seed: u64,
    language: Language,
    setting: Setting,
    sample: usize,
    what: &str,
    attempt: u64,
) -> ChaCha8Rng {
    let mut hasher = Xxh3::new();
    for part in [language.name(), setting.name(), what] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0);
    }
    for number in [seed, sample as u64, attempt] {
        hasher.write(&number.to_le_bytes());
    }
    ChaCha8Rng::seed_from_u64(hasher.finish())
}

/// Makes the original context of `text`, for the paper's tasks. Sampled lines come from the contexts of `pool`.
pub fn build(task: Task, text: &str, pool: &[Sample], random: &mut ChaCha8Rng) -> Case {
    let starts = line_starts(text);
    let lines = starts.len() - 1;
    let removed = match task {
        Task::Insertion | Task::Edition if lines > 0 => {
            let count = LINES.min(lines);
            let first = random.random_range(0..=lines - count);
            Some((first, first + count))
        }
        _ => None,
    };
    let added = match task {
        Task::Deletion | Task::Edition if lines > 0 => {
            let line = other_line(lines, removed, random);
            Some((line, sampled_lines(LINES, line_end(text), pool, random)))
        }
        _ => None,
    };
    assemble(text, &starts, removed, added)
}

/// A line that is to be filled in, just behind an edit near it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorCase {
    /// The two sides of the cursor; the first ends with the line's indentation.
    pub sides: [String; 2],
    /// What stood between them, to the end of the line.
    pub line: String,
    /// The side that is edited.
    pub edited: usize,
    /// This side before its edit, and the edit.
    pub case: Case,
}

/// Shortest and longest lines that are filled in, without white space around them: neither brackets nor data.
const FILLED: std::ops::RangeInclusive<usize> = 12..=80;
/// Lines between the cursor and the edit, at most.
const NEAR: usize = 12;

/// Whether a line says enough to be predicted, and not too much.
pub fn can_be_filled_in(content: &str, comments: &[&str]) -> bool {
    FILLED.contains(&content.len()) && !comments.iter().any(|comment| content.starts_with(comment))
}

/// Takes a line out of the middle half of a text, and [`LINES`] lines, which are what the edit inserts, out of those near it. None if
/// no line will do.
pub fn at_cursor(text: &str, comments: &[&str], random: &mut ChaCha8Rng) -> Option<CursorCase> {
    let starts = line_starts(text);
    let lines = starts.len() - 1;
    let of = |line: usize| &text[starts[line]..starts[line + 1]];
    let will_do = |line: &usize| can_be_filled_in(of(*line).trim(), comments);
    let candidates: Vec<usize> = (lines / 4..3 * lines / 4)
        .filter(|line| *line >= LINES && line + 1 + LINES <= lines)
        .filter(will_do)
        .collect();
    let line = *candidates.get(random.random_range(0..candidates.len().max(1)))?;
    let content = of(line).trim();
    let at = starts[line] + of(line).find(content)?;
    let sides = [text[..at].to_owned(), text[at + content.len()..].to_owned()];
    // Lines of each side; the rest of the cursor's own line is none.
    let (before, behind) = (line, lines - line - 1);
    let edited = random.random_range(0..2);
    let (first, count) = match edited {
        0 => (before - LINES - random.random_range(0..=NEAR.min(before - LINES)), LINES),
        _ => (line + 1 + random.random_range(0..=NEAR.min(behind - LINES)), LINES),
    };
    // In bytes of the side.
    let offset = if edited == 0 { 0 } else { at + content.len() };
    let (start, end) = (starts[first] - offset, starts[first + count] - offset);
    let side = &sides[edited];
    let original = format!("{}{}", &side[..start], &side[end..]);
    let edits = vec![edit(start, start, &side[start..end])];
    let line = content.to_owned();
    Some(CursorCase { edited, case: Case { original, edits }, line, sides })
}

/// A line to insert before, apart from the removed ones where the text has such a line.
fn other_line(lines: usize, removed: Option<(usize, usize)>, random: &mut ChaCha8Rng) -> usize {
    let Some((first, end)) = removed else { return random.random_range(0..lines) };
    let behind = end + 1;
    let free = first + lines.saturating_sub(behind);
    if free == 0 {
        return first;
    }
    let choice = random.random_range(0..free);
    if choice < first { choice } else { behind + choice - first }
}

fn assemble(
    text: &str,
    starts: &[usize],
    removed: Option<(usize, usize)>,
    added: Option<(usize, String)>,
) -> Case {
    let mut case = Case { original: String::with_capacity(text.len() + 256), edits: Vec::new() };
    let mut remove = removed.map(|(first, end)| (starts[first], starts[end]));
    let mut add = added.map(|(line, lines)| (starts[line], lines));
    let mut copied = 0;
    // In order of place; where both are at one place the added lines come first, as `other_line` has it.
    for _ in 0..2 {
        let add_is_next = match (&add, &remove) {
            (Some((at, _)), Some((start, _))) => at <= start,
            (Some(_), None) => true,
            _ => false,
        };
        if add_is_next && let Some((at, lines)) = add.take() {
            case.original.push_str(&text[copied..at]);
            let start = case.original.len();
            case.original.push_str(&lines);
            case.edits.push(edit(start, case.original.len(), ""));
            copied = at;
        } else if let Some((start, end)) = remove.take() {
            case.original.push_str(&text[copied..start]);
            let at = case.original.len();
            case.edits.push(edit(at, at, &text[start..end]));
            copied = end;
        }
    }
    case.original.push_str(&text[copied..]);
    case
}

pub(crate) fn edit(start: usize, end: usize, insert: &str) -> TextEdit {
    TextEdit { range: TextRange::Bytes { start, end }, insert: insert.to_owned() }
}

/// Where each line starts, and the end of the text. A line ends behind its `\n`; an empty text has none.
pub(crate) fn line_starts(text: &str) -> Vec<usize> {
    let mut at = 0;
    let ends = text.split_inclusive('\n').map(|line| {
        at += line.len();
        at
    });
    std::iter::once(0).chain(ends).collect()
}

/// How the text ends its lines.
pub(crate) fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Lines drawn one by one from the contexts of a data set, each with `end`.
pub(crate) fn sampled_lines(count: usize, end: &str, pool: &[Sample], random: &mut ChaCha8Rng) -> String {
    let mut lines = String::new();
    for _ in 0..count {
        // A set of long lines alone gives empty ones.
        let line = (0..64).find_map(|_| {
            let sample = &pool[random.random_range(0..pool.len())];
            let starts = line_starts(&sample.prompt);
            let line = random.random_range(0..starts.len().saturating_sub(1).max(1));
            let text = sample.prompt.get(starts[line]..*starts.get(line + 1).unwrap_or(&starts[line]))?;
            let text = text.trim_end_matches(['\n', '\r']);
            (text.len() <= LONGEST_LINE).then_some(text)
        });
        lines.push_str(line.unwrap_or_default());
        lines.push_str(end);
    }
    lines
}
