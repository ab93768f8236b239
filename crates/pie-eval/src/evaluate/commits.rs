//! Histories that people left in git: what the commits of a file changed around one place, hunk by hunk.
//!
//! The place is where the last of them added a line that can be predicted. That line is taken out, and the cursor is there; before and behind
//! it stand as many lines of the file as fit. Going back, the place and the ends of what is seen move with the text around them.

use super::{GENERATED, GitSource, SPARE};
use crate::error::EvalError;
use crate::metrics::comments;
use crate::names::Language;
use crate::task::{self, can_be_filled_in, line_starts};
use pie_history::{Change, FileVersions, Repository, changes};
use pie_text::Tokenizer;
use pie_words::TextEdit;
use std::ops::Range;

/// Of what is seen, the part that stands before the cursor.
const FRONT: f64 = 0.75;
/// Of a file so many of the latest commits are tried as the last one.
const PLACES: usize = 32;
/// Of a file so many versions are looked at, the latest, and of these none that is longer.
const VERSIONS: usize = 1000;
const BYTES: usize = 256 << 10;
/// A place at which so many versions changed nothing has no more history that is worth the way.
const QUIET: usize = 200;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct WantedEdits {
    /// Files of this one.
    pub language: Language,
    /// Tokens that a text and its completion may have.
    pub context: usize,
    /// Edits of a file, at least.
    pub edits: usize,
    /// Files, at most.
    pub files: usize,
}

/// A place of a file, and the edits around it that led to what stands there now.
#[derive(Clone)]
pub(super) struct CommittedEdits {
    /// The file.
    pub path: String,
    /// The last commit.
    pub commit: String,
    /// What stands before and behind the cursor: `texts[k]` is k edits ago.
    pub texts: Vec<[String; 2]>,
    /// `steps[k]` makes `texts[k]` of `texts[k + 1]`: an edit of one of the sides.
    pub steps: Vec<(usize, TextEdit)>,
    /// What the commit has at the cursor.
    pub line: String,
}

/// Those of the files that were changed most often.
///
/// # Errors
/// No repository; or no file with so many edits around a place.
pub(super) fn committed(
    git: &GitSource,
    tokenizer: &Tokenizer,
    wanted: WantedEdits,
) -> Result<Vec<CommittedEdits>, EvalError> {
    let extension = match wanted.language {
        Language::Python => "py",
        Language::Java => "java",
    };
    let mut repository = Repository::open(&git.repository)?;
    let mut found = Vec::new();
    for file in repository.files(git.under.as_deref())? {
        if found.len() == wanted.files {
            break;
        }
        if file.path.rsplit_once('.').is_some_and(|(_, end)| end == extension) {
            found.extend(of_file(&mut repository, &file, tokenizer, wanted)?);
        }
    }
    if found.is_empty() && wanted.files > 0 {
        let under = git.under.as_ref().map(|under| format!(" under {under}")).unwrap_or_default();
        let (path, edits, context) = (git.repository.clone(), wanted.edits, wanted.context);
        return Err(EvalError::NoHistory { path, extension, under, edits, context });
    }
    Ok(found)
}

/// At the latest place that has enough of them. None if there is none.
fn of_file(
    repository: &mut Repository,
    file: &FileVersions,
    tokenizer: &Tokenizer,
    wanted: WantedEdits,
) -> Result<Option<CommittedEdits>, EvalError> {
    // A file that has gone, or moved, had a history too.
    let mut texts = Vec::new();
    let there = file.versions.iter().rev().skip_while(|version| version.blob.is_none());
    for version in there.take(VERSIONS) {
        let text = repository.text(version)?.filter(|text| text.len() <= BYTES);
        let Some(text) = text else { break };
        texts.push(VersionText { commit: &version.commit, text });
    }
    for latest in 0..texts.len().min(PLACES) {
        if let Some(edits) = at_latest(&texts[latest..], tokenizer, wanted)? {
            return Ok(Some(CommittedEdits { path: file.path.clone(), ..edits }));
        }
    }
    Ok(None)
}

/// A version and what it is called by.
struct VersionText<'a> {
    commit: &'a str,
    text: String,
}

/// Around the line that the first version added, latest first.
fn at_latest(
    versions: &[VersionText<'_>],
    tokenizer: &Tokenizer,
    wanted: WantedEdits,
) -> Result<Option<CommittedEdits>, EvalError> {
    let [latest, older @ ..] = versions else { return Ok(None) };
    let added = older.first().and_then(|before| added_line(&before.text, &latest.text, wanted.language));
    let Some(place) = added else { return Ok(None) };
    let (mut text, line) = (latest.text.clone(), latest.text[place.clone()].to_owned());
    text.replace_range(place.clone(), "");
    let window = Window::around(&text, place.start, tokenizer, wanted.context)?;
    let sides = window.sides(&text);
    let mut walk = Walk { tokenizer, wanted, window, text: &text, texts: vec![sides], steps: Vec::new() };
    let mut quiet = 0;
    for version in older {
        let before = walk.steps.len();
        if !walk.back_to(&version.text)? {
            break;
        }
        quiet = if walk.steps.len() > before { 0 } else { quiet + 1 };
        if quiet == QUIET {
            break;
        }
    }
    let Walk { texts, steps, .. } = walk;
    let is_enough = steps.len() >= wanted.edits;
    let (path, commit) = (String::new(), latest.commit.to_owned());
    Ok(is_enough.then_some(CommittedEdits { path, commit, texts, steps, line }))
}

/// The last line that one text has and an older one had not, of those that can be predicted; without white space around it.
fn added_line(older: &str, newer: &str, language: Language) -> Option<Range<usize>> {
    let starts = line_starts(newer);
    let (mut found, mut moved) = (None, 0_isize);
    for Change { start, end, text } in changes(older, newer) {
        let begins = start.saturating_add_signed(moved);
        let ends = begins + text.len();
        moved += text.len() as isize - (end - start) as isize;
        for line in starts.windows(2).filter(|line| line[0] < ends && begins < line[1]) {
            let content = newer[line[0]..line[1]].trim();
            if can_be_filled_in(content, comments(language)) {
                let start = line[0] + newer[line[0]..line[1]].find(content)?;
                found = Some(start..start + content.len());
            }
        }
    }
    found
}

/// What is seen of a text: bytes, with the cursor between them.
#[derive(Clone, Copy)]
struct Window {
    start: usize,
    cursor: usize,
    end: usize,
}

impl Window {
    /// Whole lines around a cursor, as many as fit.
    fn around(text: &str, cursor: usize, tokenizer: &Tokenizer, context: usize) -> Result<Self, EvalError> {
        let room = context - GENERATED - SPARE;
        let tokens = |part: &str| Ok::<_, EvalError>(tokenizer.encode(part)?.len());
        let (mut start, mut end) = (cursor, cursor);
        for line in line_starts(&text[..cursor]).into_iter().rev().filter(|line| *line < cursor) {
            if tokens(&text[line..cursor])? > (FRONT * room as f64) as usize {
                break;
            }
            start = line;
        }
        let left = room - tokens(&text[start..cursor])?;
        for line in line_starts(&text[cursor..]).into_iter().skip(1) {
            if tokens(&text[cursor..cursor + line])? > left {
                break;
            }
            end = cursor + line;
        }
        Ok(Self { start, cursor, end })
    }

    fn sides(self, text: &str) -> [String; 2] {
        [text[self.start..self.cursor].to_owned(), text[self.cursor..self.end].to_owned()]
    }

    /// Where it was before changes.
    fn before(self, changes: &[Change]) -> Self {
        let [start, cursor, end] = [self.start, self.cursor, self.end].map(|at| before(changes, at));
        Self { start, cursor, end }
    }
}

/// Where a place of a text was before changes led to it. A place inside new text was at the end of the text that it replaced.
fn before(changes: &[Change], at: usize) -> usize {
    let mut moved = 0_isize;
    for Change { start, end, text } in changes {
        let begins = start.saturating_add_signed(moved);
        if at <= begins {
            break;
        }
        if at < begins + text.len() {
            return *end;
        }
        moved += text.len() as isize - (end - start) as isize;
    }
    at.saturating_add_signed(-moved)
}

/// On the way back through a file's versions.
struct Walk<'a> {
    tokenizer: &'a Tokenizer,
    wanted: WantedEdits,
    window: Window,
    text: &'a str,
    texts: Vec<[String; 2]>,
    steps: Vec<(usize, TextEdit)>,
}

impl<'a> Walk<'a> {
    /// Goes on to an older version. Whether it is worth to go further: there are not enough edits, and texts fit.
    fn back_to(&mut self, older: &'a str) -> Result<bool, EvalError> {
        let window = self.window.before(&changes(older, self.text));
        let sides = window.sides(older);
        for (side, older) in sides.iter().enumerate().rev() {
            // From the top to the bottom is how they were made.
            let (mut forward, mut hunks) = (vec![older.clone()], Vec::new());
            let mut moved = 0_isize;
            for Change { start, end, text } in changes(older, &self.sides()[side]) {
                let range = start.saturating_add_signed(moved)..end.saturating_add_signed(moved);
                moved += text.len() as isize - range.len() as isize;
                let mut next = forward[forward.len() - 1].clone();
                next.replace_range(range.clone(), &text);
                hunks.push(task::edit(range.start, range.end, &text));
                forward.push(next);
            }
            for (text, step) in forward.into_iter().zip(hunks).rev() {
                let mut texts = self.sides().clone();
                texts[side] = text;
                if self.steps.len() == self.wanted.edits || !self.fits(&texts)? {
                    return Ok(false);
                }
                self.texts.push(texts);
                self.steps.push((side, step));
            }
        }
        (self.window, self.text) = (window, older);
        Ok(true)
    }

    fn sides(&self) -> &[String; 2] {
        &self.texts[self.texts.len() - 1]
    }

    fn fits(&self, texts: &[String; 2]) -> Result<bool, EvalError> {
        let mut tokens = 0;
        for text in texts {
            tokens += self.tokenizer.encode(text)?.len();
        }
        // Markers take a few.
        Ok(tokens + SPARE / 8 + GENERATED <= self.wanted.context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default()
        })]

        /// What is seen, cut out before and after, differs by changes of the two sides alone: nothing comes in over its ends but as an edit.
        #[test]
        fn places_go_back_in_order(old in "[ab\n]{0,40}", new in "[ab\n]{0,40}", places in [0_usize..41, 0..41, 0..41]) {
            let mut places = places.map(|at| at.min(new.len()));
            places.sort_unstable();
            let back = places.map(|at| before(&changes(&old, &new), at));
            prop_assert!(back.is_sorted() && back[2] <= old.len(), "{places:?} {back:?}");
            prop_assert_eq!(before(&changes(&old, &old), places[0].min(old.len())), places[0].min(old.len()));
        }
    }

    #[test]
    fn the_last_line_that_came_and_says_something_is_the_place() {
        let older = "import os\n\n\ndef f():\n    return None\n";
        let newer =
            "import os\n\n\ndef f():\n    value = os.getcwd()\n    # why this is so\n    return value\n";
        let of = |older: &str, newer: &str| {
            added_line(older, newer, Language::Python).map(|line| newer[line].to_owned())
        };
        assert_eq!(of(older, newer).as_deref(), Some("return value"));
        assert_eq!(of(newer, older).as_deref(), None, "too short to say anything");
        assert_eq!(of(older, older), None);
    }
}
