//! What was evaluated: a model, samples, files of a repository.

use super::FORMAT;
use crate::names::{Language, Setting};
use serde::{Deserialize, Serialize};

/// What was evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Of this file.
    pub format: u32,
    /// Name of the model's folder.
    pub model: String,
    /// Of its configuration and weights.
    pub model_fingerprint: String,
    /// Its numbers.
    pub parameters: u64,
    /// Longest context, in tokens.
    pub context: usize,
    /// Name of the data's folder or file; [`super::BUILT_IN`] for what ships.
    pub data: String,
}

impl Header {
    /// A header of this program's format.
    pub fn new(
        model: String,
        model_fingerprint: String,
        parameters: u64,
        context: usize,
        data: String,
    ) -> Self {
        Self { format: FORMAT, model, model_fingerprint, parameters, context, data }
    }
}

/// Samples of one language and setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLine {
    /// Of what language.
    pub language: Language,
    /// Of which setting.
    pub setting: Setting,
    /// Of all its prompts and lines.
    pub fingerprint: String,
    /// How many there are.
    pub samples: usize,
}

/// A file of a repository, whose commits are the edits of one sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commits {
    /// The sample, from 0.
    pub sample: usize,
    /// The name of the repository's folder.
    pub repository: String,
    /// The file's path in it.
    pub path: String,
    /// The commit that the edits lead to.
    pub commit: String,
}

impl std::fmt::Display for Commits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.commit.get(..10).unwrap_or(&self.commit);
        write!(f, "{} at {short} in {}", self.path, self.repository)
    }
}
