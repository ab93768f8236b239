//! Why an evaluation cannot start or go on.

use std::path::PathBuf;

/// Why an evaluation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// No file under a path is a data set.
    #[error(
        "no data under {path}: expected .jsonl or .jsonl.gz files whose path names the language (python, java) and the \
         setting (cross_file_first, cross_file_random or in_file; also cff, cfr, if), for example \
         python_cross_file_first.jsonl"
    )]
    NoData {
        /// The file or folder that was given.
        path: PathBuf,
    },
    /// A Parquet file, and a build without Parquet.
    #[error(
        "{path}: this build does not read Parquet: build with `--features pie/parquet`, or convert the file to JSON lines \
         (in Python: pandas.read_parquet(FILE).to_json(FILE2, orient=\"records\", lines=True))"
    )]
    ParquetLeftOut {
        /// The file.
        path: PathBuf,
    },
    /// A data file with something else in it.
    #[error("{path}, sample {sample}: {reason}")]
    BadSample {
        /// The file.
        path: PathBuf,
        /// Which sample, from 1.
        sample: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for is not in the data.
    #[error("the data has no samples for languages {languages} and settings {settings}; it has: {there}")]
    NothingSelected {
        /// The languages that were asked for.
        languages: String,
        /// The settings that were asked for.
        settings: String,
        /// The languages and settings that the data has.
        there: String,
    },
    /// A tokenizer of another model.
    #[error(
        "{folder}: tokenizer.json has tokens up to {last}, and the model knows those below {known} (vocab_size of config.json): \
         take the tokenizer.json of this model"
    )]
    ForeignTokenizer {
        /// The model's folder.
        folder: PathBuf,
        /// The largest token of the tokenizer.
        last: usize,
        /// As many does the model know.
        known: usize,
    },
    /// Results of another run.
    #[error(
        "{path} holds results of another {what} (there: {there}; now: {now}): give another --out, or move that folder away"
    )]
    OtherRun {
        /// The results' file.
        path: PathBuf,
        /// Which part of what was evaluated differs.
        what: &'static str,
        /// As it stands there.
        there: String,
        /// As it is now.
        now: String,
    },
    /// A results file that this program did not write.
    #[error("{path}, line {line}: {reason}; only the last line may be cut off")]
    BadResults {
        /// The results' file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A context that leaves no room.
    #[error("--context {context} leaves no room for prompts: {least} is the least")]
    ContextTooShort {
        /// What was asked for.
        context: usize,
        /// Tokens that a context must have.
        least: usize,
    },
    /// Lines that were sampled for a deletion never fit into the context.
    #[error(
        "no five lines of the data fit behind a prompt of {tokens} tokens in a context of {context}: raise --context"
    )]
    NoLinesFit {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the model's context.
        context: usize,
    },
    /// T1: retokenizing around an edit gave other tokens than tokenizing the whole.
    #[error(
        "T1: the tokens after the edits of {sample} differ from those of the whole text: a bug of pie-text"
    )]
    Retokenized {
        /// Its language, setting and place in the set.
        sample: String,
    },
    /// Logits that are NaN or infinite.
    #[error("the model's logits are no numbers: what it computes overflows; run it in a wider type")]
    NoNumbers,
    /// A plan that sampled nothing.
    #[error("the engine sampled no token where one was due: a bug")]
    NothingSampled,
    /// A Parquet file that cannot be read.
    #[cfg(feature = "parquet")]
    #[error("{path}: {source}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What its reader says.
        source: parquet::errors::ParquetError,
    },
    /// Git does not answer.
    #[error(transparent)]
    Git(#[from] pie_history::GitError),
    /// A repository without a file that was edited so often.
    #[error(
        "{path} has no .{extension} file{under} whose latest {edits} changes are around one place and fit into a context of {context} \
         tokens: give smaller --edits, or another repository"
    )]
    NoHistory {
        /// The repository.
        path: PathBuf,
        /// What files of the language end with.
        extension: &'static str,
        /// Where files were looked for, with a word in front.
        under: String,
        /// As many changes were asked for.
        edits: usize,
        /// Tokens of the model's context.
        context: usize,
    },
    /// A figure that cannot be drawn.
    #[error(transparent)]
    Draw(#[from] pie_chart::ChartError),
    /// A record that cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The rank refuses a step, or fails in it.
    #[error(transparent)]
    Worker(#[from] pie_worker::WorkerError),
    /// Splices that do not fit the document.
    #[error(transparent)]
    Splice(#[from] pie_words::SpliceError),
    /// The cache has no room, or cannot be made.
    #[error(transparent)]
    Kv(#[from] pie_kv::KvError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] pie_model::ModelError),
    /// A text that cannot be a document.
    #[error(transparent)]
    Text(#[from] pie_text::TextError),
    /// The tokenizer cannot be loaded.
    #[error(transparent)]
    Tokenizer(#[from] pie_text::TokenizerError),
}

impl EvalError {
    /// What `map_err` needs for a file.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
