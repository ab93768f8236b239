//! Why an evaluation cannot start or go on.

use std::path::PathBuf;

/// Why an evaluation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No file under a path is a data set.
    #[error(
        "no data under {path}: expected .jsonl or .jsonl.gz files whose path names the language (python, java) and the \
         setting (cross_file_first, cross_file_random or in_file; also cff, cfr, if), for example \
         python_cross_file_first.jsonl"
    )]
    NoData {
        /// Where.
        path: PathBuf,
    },
    /// A Parquet file, and a build without Parquet.
    #[error(
        "{path}: this build does not read Parquet: build with `--features pie/parquet`, or convert the file to JSON lines \
         (in Python: pandas.read_parquet(FILE).to_json(FILE2, orient=\"records\", lines=True))"
    )]
    ParquetLeftOut {
        /// Which.
        path: PathBuf,
    },
    /// A data file with something else in it.
    #[error("{path}, sample {sample}: {reason}")]
    BadSample {
        /// Which file.
        path: PathBuf,
        /// Which sample, from 1.
        sample: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// What was asked for is not in the data.
    #[error("the data has no samples for languages {languages} and settings {settings}; it has: {there}")]
    NothingSelected {
        /// Asked.
        languages: String,
        /// Asked.
        settings: String,
        /// What is there.
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
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As it stands there.
        there: String,
        /// As it is now.
        now: String,
    },
    /// A results file that this program did not write.
    #[error("{path}, line {line}: {reason}; only the last line may be cut off")]
    BadResults {
        /// Which file.
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
        /// The least.
        least: usize,
    },
    /// Lines that were sampled for a deletion never fit into the context.
    #[error(
        "no five lines of the data fit behind a prompt of {tokens} tokens in a context of {context}: raise --context"
    )]
    NoLinesFit {
        /// The prompt.
        tokens: usize,
        /// The context.
        context: usize,
    },
    /// T1: retokenizing around an edit gave other tokens than tokenizing the whole.
    #[error(
        "T1: the tokens after the edits of {sample} differ from those of the whole text: a bug of pie-text"
    )]
    Retokenized {
        /// Which sample.
        sample: String,
    },
    /// Logits that are NaN or infinite.
    #[error("the model's logits are no numbers: what it computes overflows; run it in a wider type")]
    NoNumbers,
    /// A plan that sampled nothing.
    #[error("the engine sampled no token where one was due: a bug")]
    NothingSampled,
    /// The Parquet reader.
    #[cfg(feature = "parquet")]
    #[error("{path}: {source}")]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A figure that cannot be drawn.
    #[error(transparent)]
    Draw(#[from] pie_chart::ChartError),
    /// A record that cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The engine.
    #[error(transparent)]
    Worker(#[from] pie_worker::WorkerError),
    /// Splices.
    #[error(transparent)]
    Splice(#[from] pie_words::SpliceError),
    /// The cache.
    #[error(transparent)]
    Kv(#[from] pie_kv::KvError),
    /// The model.
    #[error(transparent)]
    Model(#[from] pie_model::ModelError),
    /// A text.
    #[error(transparent)]
    Text(#[from] pie_text::TextError),
    /// The tokenizer.
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
