//! People who are made up: they type lines of a given text into documents of its lines, by a seed.

use super::Habits;
use super::typist::Typist;
use crate::error::LoadError;
use crate::script::{ScriptLine, TextChange};
use rand::Rng;
use std::time::Duration;

/// Lines with text that a corpus must have.
const LEAST_LINES: usize = 20;
/// Text that is not ASCII, which sources have now and then.
const FOREIGN: [&str; 4] =
    ["// naïve café, Größe ≤ 3 µs\n", "# 漢字かな交じり文\n", "// → done 🙂 👩‍💻\n", "/* Ελληνικά, עברית */\n"];

/// The text that people type from.
#[derive(Clone, Debug)]
pub struct Corpus {
    lines: Vec<String>,
}

impl Default for Corpus {
    /// Source files of this crate.
    fn default() -> Self {
        let text = concat!(
            include_str!("typist.rs"),
            include_str!("../page.rs"),
            include_str!("../script/compile.rs")
        );
        Self { lines: split(text) }
    }
}

fn split(text: &str) -> Vec<String> {
    text.lines().map(|line| format!("{line}\n")).collect()
}

impl Corpus {
    /// The lines of a text.
    ///
    /// # Errors
    /// [`LoadError::TooLittleText`].
    pub fn new(text: &str) -> Result<Self, LoadError> {
        let lines = split(text);
        let full = lines.iter().filter(|line| !line.trim().is_empty()).count();
        if full < LEAST_LINES {
            return Err(LoadError::TooLittleText { lines: full, least: LEAST_LINES });
        }
        Ok(Self { lines })
    }

    /// Lines from a random one on, until there are so many bytes; cut at a line, or at a character if a line is longer.
    fn some(&self, rng: &mut impl Rng, bytes: usize) -> String {
        let mut text = String::new();
        let from = rng.random_range(0..self.lines.len());
        for line in self.lines.iter().cycle().skip(from) {
            if text.len() + line.len() > bytes {
                break;
            }
            text.push_str(line);
        }
        text
    }
}

/// A document's script of about this length. Equal arguments give equal lines.
pub fn lines(corpus: &Corpus, habits: Habits, seed: u64, doc: &str, length: Duration) -> Vec<ScriptLine> {
    let mut rng = Typist::rng(seed, doc);
    let text = corpus.some(&mut rng, habits.document_bytes);
    let mut typist = Typist::new(doc, text, habits, rng);
    let end = length.as_millis() as u64;
    while typist.clock() < end {
        act(&mut typist, corpus, habits);
    }
    typist.finish()
}

/// One thing that people do between two thoughts.
fn act(typist: &mut Typist, corpus: &Corpus, habits: Habits) {
    let size = typist.draft.text().len();
    let (least, most) = (habits.document_bytes * 3 / 4, habits.document_bytes * 5 / 4);
    let choice = typist.rng.random_range(0..100);
    if size > most {
        delete_lines(typist, 5..15);
    } else if size < least && choice < 50 {
        jump(typist);
        let text = corpus.some(&mut typist.rng, (habits.document_bytes / 4).max(200));
        typist.paste(text);
    } else {
        match choice {
            0..62 => burst(typist, corpus),
            62..70 => {
                jump(typist);
                let bytes = typist.rng.random_range(80..900);
                let text = corpus.some(&mut typist.rng, bytes);
                typist.paste(text);
            }
            70..80 => delete_lines(typist, 1..5),
            80..86 => rename(typist),
            86..94 => {
                let steps = typist.rng.random_range(1..6);
                typist.undo(steps);
            }
            _ => jump(typist),
        }
    }
    typist.ask_and_wait(500..3000);
}

/// One to three lines, most of them where the cursor is.
fn burst(typist: &mut Typist, corpus: &Corpus) {
    if typist.rng.random_bool(0.35) {
        jump(typist);
    }
    let lines = typist.rng.random_range(1..4);
    for _ in 0..lines {
        if typist.rng.random_bool(0.04) {
            let foreign = FOREIGN[typist.rng.random_range(0..FOREIGN.len())];
            typist.type_text(foreign);
        } else {
            let line = &corpus.lines[typist.rng.random_range(0..corpus.lines.len())];
            // Editors indent by themselves.
            typist.type_text(line.trim_start_matches(' '));
        }
    }
}

/// To the start of a line somewhere.
fn jump(typist: &mut Typist) {
    let start = line_start(typist);
    typist.move_to(start);
}

fn line_start(typist: &mut Typist) -> usize {
    let text = typist.draft.text();
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    starts[typist.rng.random_range(0..starts.len())]
}

fn delete_lines(typist: &mut Typist, count: std::ops::Range<usize>) {
    let start = line_start(typist);
    let count = typist.rng.random_range(count);
    let rest = &typist.draft.text()[start..];
    let bytes: usize = rest.split_inclusive('\n').take(count).map(str::len).sum();
    if bytes > 0 {
        typist.delete(start, start + bytes);
    }
}

/// A word changes wherever it stands, as with several cursors.
fn rename(typist: &mut Typist) {
    let start = line_start(typist);
    let text = typist.draft.text();
    let word: String = text[start..]
        .trim_start()
        .chars()
        .take_while(|character| character.is_ascii_alphanumeric() || *character == '_')
        .collect();
    if word.len() < 3 {
        return;
    }
    let places = text.match_indices(&word).take(8).map(|(at, word)| (at, at + word.len()));
    let mut edits: Vec<TextChange> = Vec::new();
    for (start, end) in places {
        // Two that touch would be one place.
        if edits.last().is_none_or(|last| last.end < start) {
            edits.push(TextChange { start, end, text: format!("{word}_{}", end % 7) });
        }
    }
    typist.several(edits);
}
