//! Why a load cannot be made, run or reported.

use std::path::{Path, PathBuf};

/// Why a load cannot be made, run or reported.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A script that cannot be played.
    #[error("line {line} of the script: {reason} (docs/load.md has the format)")]
    BadScript {
        /// The line, counted from 1; the header is the first.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A script without a document.
    #[error("the script opens no document")]
    EmptyScript,
    /// Git does not answer.
    #[error(transparent)]
    Git(#[from] pie_history::GitError),
    /// A repository in which nothing can be replayed.
    #[error("{path} has no text file with at least two versions of 1 to {limit} bytes{under}")]
    NothingToReplay {
        /// The repository.
        path: PathBuf,
        /// Bytes of the largest version that is replayed.
        limit: usize,
        /// What else was asked.
        under: String,
    },
    /// A document for the generator that has too little to type.
    #[error("the document to type from has {lines} lines with text: {least} are the least")]
    TooLittleText {
        /// Lines with text that it has.
        lines: usize,
        /// Lines with text that it must have.
        least: usize,
    },
    /// An address of an OpenAI-style server.
    #[error("`{url}` is no address of a server: write for example http://127.0.0.1:8080 (TLS is not spoken)")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// No document could be opened.
    #[error("no session could be opened: {0}")]
    NothingOpened(String),
    /// The run was cut short.
    #[error("the run was cut short before anything was measured; its sessions are closed")]
    Interrupted,
    /// A rate that a stream cannot reach.
    #[error("the stream has no edits, so no --rate can be reached: give --speed")]
    NoEdits,
    /// A report of something else.
    #[error("{path} is no report of `pie load`: {reason}")]
    BadReport {
        /// The file.
        path: PathBuf,
        /// What is missing, or not as expected.
        reason: String,
    },
    /// A chart that cannot be drawn.
    #[error(transparent)]
    Draw(#[from] pie_chart::ChartError),
    /// Numbers that do not become JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Bounds that a histogram cannot have: a bug.
    #[error("a histogram cannot be made: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The pool refuses, or does not answer.
    #[error(transparent)]
    Client(#[from] pie_client::ClientError),
}

impl LoadError {
    /// What `map_err` needs for a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
