//! People who left their history in git: each commit of a file becomes edits of it, at human times.

use super::Habits;
use super::typist::Typist;
use crate::error::LoadError;
use crate::script::{ScriptLine, TextChange};
use pie_history::{Change, FileVersions, Repository, Version, changes};
use std::path::PathBuf;

/// Longer insertions are pasted.
const TYPED: usize = 400;

/// What to replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The repository.
    pub repository: PathBuf,
    /// Only files under this path of it.
    pub under: Option<String>,
    /// The most files: those with the most versions.
    pub files: usize,
    /// The most versions of a file, the latest.
    pub versions: usize,
    /// Decides times, pauses and questions: equal seeds give equal scripts.
    pub seed: u64,
    /// How the people work. Sizes come from the history.
    pub habits: Habits,
}

/// The script: a document for each file. Behind each commit's edits stands a note `commit HASH`, and the text is then that
/// commit's, byte for byte.
///
/// # Errors
/// Git fails, or there is nothing to replay.
pub fn replay(what: &Replay) -> Result<Vec<ScriptLine>, LoadError> {
    let mut repository = Repository::open(&what.repository)?;
    let (mut lines, mut found) = (Vec::new(), 0);
    for FileVersions { path, versions } in repository.files(what.under.as_deref())? {
        if found == what.files || versions.len() < 2 {
            break;
        }
        let texts = texts(&mut repository, &versions, what)?;
        if texts.len() >= 2 {
            lines.extend(document(&path, &texts, what));
            found += 1;
        }
    }
    if found == 0 {
        let under = what.under.as_ref().map(|under| format!(" under {under}")).unwrap_or_default();
        let (path, limit) = (what.repository.clone(), what.habits.document_bytes);
        return Err(LoadError::NothingToReplay { path, limit, under });
    }
    Ok(lines)
}

/// (commit, text) of the latest versions; from the last on that cannot be a document, if there is one.
fn texts(
    repository: &mut Repository,
    versions: &[Version],
    what: &Replay,
) -> Result<Vec<(String, String)>, LoadError> {
    let mut texts = Vec::new();
    for version in &versions[versions.len().saturating_sub(what.versions)..] {
        match repository
            .text(version)?
            .filter(|text| !text.is_empty() && text.len() <= what.habits.document_bytes)
        {
            Some(text) => texts.push((version.commit.clone(), text)),
            None => texts.clear(),
        }
    }
    Ok(texts)
}

fn document(path: &str, texts: &[(String, String)], what: &Replay) -> Vec<ScriptLine> {
    let rng = Typist::rng(what.seed, path);
    let mut typist = Typist::new(path, texts[0].1.clone(), what.habits, rng);
    typist.note(format!("commit {}", texts[0].0));
    for (commit, text) in &texts[1..] {
        let change = |Change { start, end, text }| TextChange { start, end, text };
        let changes: Vec<TextChange> = changes(typist.draft.text(), text).into_iter().map(change).collect();
        if one_idea(&changes) {
            typist.several(changes);
        } else {
            one_by_one(&mut typist, &changes);
        }
        typist.note(format!("commit {commit}"));
        typist.ask_and_wait(1500..5000);
    }
    typist.finish()
}

/// The same small change at several places: people do it with several cursors.
fn one_idea(changes: &[TextChange]) -> bool {
    let same = |pair: &[TextChange]| {
        pair[0].text == pair[1].text && pair[0].end - pair[0].start == pair[1].end - pair[1].start
    };
    changes.len() >= 2 && changes[0].text.len() <= 80 && changes.windows(2).all(same)
}

/// From the top to the bottom.
fn one_by_one(typist: &mut Typist, changes: &[TextChange]) {
    let mut shift = 0_isize;
    for TextChange { start, end, text } in changes {
        let start = start.saturating_add_signed(shift);
        let gone = end - start.saturating_add_signed(-shift);
        typist.move_to(start);
        if gone > 0 {
            typist.delete(start, start + gone);
        }
        if text.len() > TYPED {
            typist.paste(text.clone());
        } else {
            typist.type_text(text);
        }
        typist.ask_and_wait(400..1500);
        shift += text.len() as isize - gone as isize;
    }
}
