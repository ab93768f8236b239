//! The results of a run: JSON lines, appended as they come, so that a run that was interrupted goes on.

mod sources;

use crate::engine::TimedEdit;
use crate::error::EvalError;
pub use crate::names::{Arm, Storage};
use crate::names::{Choice, Language, Method, Setting, Spot, Task};
use serde::{Deserialize, Serialize};
pub use sources::{Commits, Header, SetLine};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file's name in the output folder.
pub const FILE: &str = "results.jsonl";
const FORMAT: u32 = 1;
/// The name of the data that ships.
pub const BUILT_IN: &str = "built-in";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The first: what was evaluated.
    Header(Header),
    /// Samples that are used from here on.
    Set(SetLine),
    /// A file whose history is used from here on.
    Commits(Commits),
    /// One prediction (tables 2 to 4, figure 1).
    Completion(Prediction),
    /// Distance of representations and distributions from full recomputation (figures 3 and 4).
    Divergence(Divergence),
    /// Quality after many edits.
    Accumulated(Accumulated),
    /// Quality and time by the rows that are encoded again with an edit.
    Window(WindowTrial),
    /// How many rows a machine repairs in a second.
    Rate(RepairRate),
}

/// A line to predict, and what the developer does before it: each method runs it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CaseId {
    /// The language of the sample.
    pub language: Language,
    /// Which line of a file the sample asks for.
    pub setting: Setting,
    /// The sample's place in its set, from 0.
    pub sample: usize,
    /// What the developer does.
    pub task: Task,
    /// Decides which lines come and go.
    pub seed: u64,
}

/// A cache of one sample's prompt, and what happened to it since it was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheId {
    /// The language of the sample.
    pub language: Language,
    /// Which line of a file the sample asks for.
    pub setting: Setting,
    /// The sample's place in its set, from 0.
    pub sample: usize,
    /// What its rows are kept in.
    pub storage: Storage,
    /// What happened to it.
    pub arm: Arm,
    /// How many edits, or turns.
    pub edits: u32,
    /// Where the line is that is predicted.
    #[serde(default = "at_end", skip_serializing_if = "is_at_end")]
    pub spot: Spot,
    /// Rows that were encoded again with each edit, at most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub window: u32,
    /// Seconds between two edits in which rows were repaired.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle: u32,
}

fn at_end() -> Spot {
    Spot::End
}

fn is_at_end(spot: &Spot) -> bool {
    *spot == Spot::End
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A choice of rows that are encoded again with the edit of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowId {
    /// The case.
    #[serde(flatten)]
    pub case: CaseId,
    /// Which rows.
    pub choice: Choice,
    /// How many at most.
    pub window: u32,
}

/// One prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The case.
    #[serde(flatten)]
    pub case: CaseId,
    /// How the cache followed.
    pub method: Method,
    /// Rows that `repair` encodes again, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// The first line that is no comment.
    pub prediction: String,
    /// The line of the data.
    pub truth: String,
    /// Whether the words are equal.
    pub exact_match: bool,
    /// 0 to 100, by difflib.
    pub edit_similarity: u32,
    /// The same by python-Levenshtein.
    pub edit_similarity_levenshtein: u32,
    /// What it cost; none where it was not run, since its result is known (`full` beyond the timed samples).
    pub work: Option<EditCost>,
    /// Tokens of the edited context.
    pub tokens: usize,
    /// Tokens that the edit deleted.
    pub deleted: usize,
    /// Tokens that it inserted.
    pub inserted: usize,
    /// The first token that it changed.
    pub first_change: usize,
    /// Lines that were cut off in front, for the model's context.
    pub cut_lines: usize,
}

/// What an edit cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EditCost {
    /// From the edit to the logits of the first token.
    pub time_ms: f64,
    /// Tokens encoded.
    pub encoded: u32,
    /// Keys turned.
    pub rotated: u32,
}

impl EditCost {
    /// Of an edit that was timed.
    pub(crate) fn of(edited: &TimedEdit) -> Self {
        Self {
            time_ms: (edited.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            encoded: edited.done.encoded,
            rotated: edited.done.rotated,
        }
    }
}

/// How far a method is from full recomputation, on one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The case.
    #[serde(flatten)]
    pub case: CaseId,
    /// Which method.
    pub method: Method,
    /// Rows that `repair` encodes again, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// For each layer: cosine of the keys of kept tokens behind the edit, mean over tokens and heads.
    pub cosine: Vec<f32>,
    /// For each generated token, each given full recomputation's tokens before it: KL(full || method), in nats.
    pub kl: Vec<f32>,
}

/// Quality after many edits since the last full encoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accumulated {
    /// The cache.
    #[serde(flatten)]
    pub cache: CacheId,
    /// The first line that is no comment.
    pub prediction: String,
    /// Whether the words equal those of the data.
    pub exact_match: bool,
    /// To the line of the data, 0 to 100.
    pub edit_similarity: u32,
    /// Whether it is the fresh cache's prediction.
    pub agrees: bool,
    /// KL(fresh || this) of the next token, in nats; both in this storage.
    pub kl: f32,
    /// For each layer: cosine with the fresh cache's keys, mean over all tokens and heads.
    pub cosine: Vec<f32>,
    /// Share of the tokens that were not encoded since the full encoding.
    pub kept: f32,
    /// Turns of a key, mean over all tokens.
    pub turns: f32,
    /// Along the tokens that the fresh cache generates; none in results from before this was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<Agreement>,
    /// What the edits took; none where there were none, and in results from before this was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamCost>,
}

/// How far a cache is from the fresh one along the tokens that the fresh one generates, each given those before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Tokens.
    pub tokens: usize,
    /// KL(fresh || this), mean over the tokens, in nats.
    pub kl: f32,
    /// Share of the tokens that both find the most likely.
    pub greedy: f32,
}

/// What a stream of edits took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamCost {
    /// All edits' own passes, what is repaired in them included.
    pub time_ms: f64,
    /// Rows that these passes encoded.
    pub encoded: u64,
    /// Passes between edits.
    pub idle_ms: f64,
    /// Rows that these encoded again.
    pub idle_rows: u64,
}

/// Quality and time of one choice of rows, on one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowTrial {
    /// The case and the choice.
    #[serde(flatten)]
    pub id: WindowId,
    /// The first line that is no comment.
    pub prediction: String,
    /// Whether the words equal those of the data.
    pub exact_match: bool,
    /// To the line of the data, 0 to 100.
    pub edit_similarity: u32,
    /// Whether it is full recomputation's prediction.
    pub agrees: bool,
    /// Along the tokens that full recomputation generates.
    pub followed: Agreement,
    /// What it cost.
    pub work: EditCost,
    /// Tokens of the edited context.
    pub tokens: usize,
}

/// How many rows a machine repairs in a second, from the time of a small pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairRate {
    /// Tokens of the document.
    pub tokens: usize,
    /// Rows of the pass.
    pub rows: u32,
    /// The pass, a median.
    pub pass_ms: f64,
    /// Rows in a second.
    pub rows_per_second: f64,
}

/// What no two lines of a file share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// Of the first line.
    Header,
    /// Of the samples of one language and setting.
    Set(Language, Setting),
    /// Of a file of a repository.
    Commits(usize),
    /// Of a prediction.
    Completion(CaseId, Method),
    /// Of a divergence.
    Divergence(CaseId, Method),
    /// Of a measurement after many edits.
    Accumulated(CacheId),
    /// Of one choice of rows.
    Window(WindowId),
    /// Of the machine's rate.
    Rate,
}

impl Record {
    fn key(&self) -> RecordKey {
        match self {
            Self::Header(_) => RecordKey::Header,
            Self::Set(set) => RecordKey::Set(set.language, set.setting),
            Self::Commits(commits) => RecordKey::Commits(commits.sample),
            Self::Completion(one) => RecordKey::Completion(one.case, one.method),
            Self::Divergence(one) => RecordKey::Divergence(one.case, one.method),
            Self::Accumulated(one) => RecordKey::Accumulated(one.cache),
            Self::Window(one) => RecordKey::Window(one.id),
            Self::Rate(_) => RecordKey::Rate,
        }
    }
}

/// Results that grow.
pub struct Results {
    file: File,
    path: PathBuf,
    lines: Vec<Record>,
    done: BTreeSet<RecordKey>,
}

impl Results {
    /// Opens the results of a folder, to go on, or begins them. A last line that was cut off is dropped.
    ///
    /// # Errors
    /// Results of another run, or no results at all.
    pub fn open(folder: &Path, header: &Header) -> Result<Self, EvalError> {
        std::fs::create_dir_all(folder).map_err(EvalError::file(folder))?;
        let path = folder.join(FILE);
        let (lines, length) = if path.exists() { parse(&path)? } else { (Vec::new(), 0) };
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&path).map_err(EvalError::file(&path))?;
        file.set_len(length).map_err(EvalError::file(&path))?;
        let done = lines.iter().map(Record::key).collect();
        let mut results = Self { file, path, lines, done };
        match results.lines.first() {
            None => results.push(Record::Header(header.clone()))?,
            Some(Record::Header(there)) => results.check_header(there, header)?,
            Some(_) => return Err(results.bad(1, "it does not begin with a header".to_owned())),
        }
        Ok(results)
    }

    /// Uses samples from here on.
    ///
    /// # Errors
    /// Results of other samples.
    pub fn use_set(&mut self, set: SetLine) -> Result<(), EvalError> {
        let same = |line: &&Record| matches!(line, Record::Set(other) if (other.language, other.setting) == (set.language, set.setting));
        match self.lines.iter().find(same) {
            None => self.push(Record::Set(set)),
            Some(Record::Set(there)) if there.fingerprint != set.fingerprint => {
                let (there, now) = (there.fingerprint.clone(), set.fingerprint);
                Err(EvalError::OtherRun { path: self.path.clone(), what: "data set", there, now })
            }
            Some(_) => Ok(()),
        }
    }

    /// Uses a file's history from here on.
    ///
    /// # Errors
    /// Results of another file, or of another commit of it.
    pub fn use_commits(&mut self, commits: Commits) -> Result<(), EvalError> {
        let same = |line: &&Record| line.key() == RecordKey::Commits(commits.sample);
        match self.lines.iter().find(same) {
            None => self.push(Record::Commits(commits)),
            Some(Record::Commits(there)) if *there != commits => {
                let (there, now) = (there.to_string(), commits.to_string());
                Err(EvalError::OtherRun { path: self.path.clone(), what: "history", there, now })
            }
            Some(_) => Ok(()),
        }
    }

    /// `repair` encodes windows of so many rows from here on.
    ///
    /// # Errors
    /// Results of another window.
    pub fn use_window(&self, window: u32) -> Result<(), EvalError> {
        let of = |line: &Record| match line {
            Record::Completion(Prediction { window, .. }) | Record::Divergence(Divergence { window, .. }) => {
                *window
            }
            _ => None,
        };
        match self.lines.iter().filter_map(of).find(|there| *there != window) {
            Some(there) => {
                let (there, now) = (there.to_string(), window.to_string());
                Err(EvalError::OtherRun { path: self.path.clone(), what: "--window", there, now })
            }
            None => Ok(()),
        }
    }

    /// The machine's rate, if it was measured.
    pub fn rate(&self) -> Option<RepairRate> {
        let of = |line: &Record| match line {
            Record::Rate(rate) => Some(*rate),
            _ => None,
        };
        self.lines.iter().find_map(of)
    }

    /// Whether a line with this key is there.
    pub fn has(&self, key: RecordKey) -> bool {
        self.done.contains(&key)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn push(&mut self, line: Record) -> Result<(), EvalError> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(EvalError::file(&self.path))?;
        self.done.insert(line.key());
        self.lines.push(line);
        Ok(())
    }

    fn check_header(&self, there: &Header, now: &Header) -> Result<(), EvalError> {
        let differs = |what, there: &dyn ToString, now: &dyn ToString| {
            let (there, now) = (there.to_string(), now.to_string());
            Err(EvalError::OtherRun { path: self.path.clone(), what, there, now })
        };
        if there.format != now.format {
            differs("version of pie eval", &there.format, &now.format)
        } else if there.model_fingerprint != now.model_fingerprint {
            differs(
                "model",
                &format!("{} {}", there.model, there.model_fingerprint),
                &format!("{} {}", now.model, now.model_fingerprint),
            )
        } else if there.context != now.context {
            differs("--context", &there.context, &now.context)
        } else {
            Ok(())
        }
    }

    fn bad(&self, line: usize, reason: String) -> EvalError {
        EvalError::BadResults { path: self.path.clone(), line, reason }
    }
}

/// The results in a folder.
///
/// # Errors
/// None there, or a file that `pie eval` did not write.
pub fn read(folder: &Path) -> Result<Vec<Record>, EvalError> {
    Ok(parse(&folder.join(FILE))?.0)
}

/// All whole lines, and how many bytes they have.
fn parse(path: &Path) -> Result<(Vec<Record>, u64), EvalError> {
    let bytes = std::fs::read(path).map_err(EvalError::file(path))?;
    // What is behind the last line end was cut off.
    let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut lines = Vec::new();
    for (index, line) in bytes[..length].split_inclusive(|byte| *byte == b'\n').enumerate() {
        let bad = |error: serde_json::Error| EvalError::BadResults {
            path: path.to_owned(),
            line: index + 1,
            reason: error.to_string(),
        };
        lines.push(serde_json::from_slice(line).map_err(bad)?);
    }
    Ok((lines, length as u64))
}
