//! A run: every case of every sample, by every method.

mod accumulated;
mod compare;
mod completion;
mod divergence;
mod place;

use crate::dataset::{self, Selection, Set};
use crate::engine::Machine;
use crate::error::EvalError;
use crate::names::{Language, Method, Setting, Task};
use crate::results::{BUILT_IN, Header, Results, SetLine};
use pie_model::Config;
use pie_text::Tokenizer;
use pie_words::TokenId;
use std::path::PathBuf;
use std::sync::Arc;

/// Tokens that are generated at most (paper, section 4.1).
pub(crate) const GENERATED: usize = 64;
/// Tokens that are left free for the lines that a deletion deletes.
const SPARE: usize = 256;
/// Longest context without `--context`, if the model has more: RepoBench-C-8k fits.
const LONGEST: usize = 8192;

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct EvaluationOptions {
    /// The model's folder.
    pub model: PathBuf,
    /// The data's folder or file; what ships if none.
    pub data: Option<PathBuf>,
    /// Where the results go.
    pub out: PathBuf,
    /// Longest context, in tokens.
    pub context: Option<usize>,
    /// Samples of each language and setting; all if none.
    pub samples: Option<usize>,
    /// Languages of the data that are evaluated.
    pub languages: Vec<Language>,
    /// Settings of the data that are evaluated.
    pub settings: Vec<Setting>,
    /// What the developer does in the cases.
    pub tasks: Vec<Task>,
    /// Seeds 0 to this, exclusive.
    pub seeds: u64,
    /// How the cache follows; each case is run by all of these.
    pub methods: Vec<Method>,
    /// Samples of each set for which `full` runs in each case, to be timed; of the others only its result is taken, which
    /// is that of the prompt encoded once.
    pub timed_samples: usize,
    /// Samples of the first set whose distributions and keys are compared (figures 3 and 4).
    pub compared_samples: usize,
    /// Samples of the first set that are edited many times.
    pub accumulated_samples: usize,
    /// After how many edits, or turns, the cache is compared with a fresh one.
    pub edits: Vec<u32>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The model loads: bytes, of all.
    Loading(u64, u64),
    /// Cases that are done, and all cases.
    Running(u64, u64),
}

/// Evaluates what is not in the results yet.
///
/// # Errors
/// Whatever the data, the model or the output folder refuses; results so far stay.
pub fn run(options: &EvaluationOptions, progress: &mut dyn FnMut(Progress)) -> Result<(), EvalError> {
    let selection = Selection { languages: options.languages.clone(), settings: options.settings.clone() };
    let sets = dataset::load(options.data.as_deref(), &selection)?;
    let config = Config::read(&options.model)?;
    let context = options.context.unwrap_or(LONGEST).min(config.max_position_embeddings);
    let least = GENERATED + SPARE + GENERATED;
    if context < least {
        return Err(EvalError::ContextTooShort { context, least });
    }
    let tokenizer = Arc::new(Tokenizer::open(&options.model)?);
    let (tokens, known) = (tokenizer.vocab_size() as usize, config.vocab_size);
    if tokens > known {
        return Err(EvalError::ForeignTokenizer { folder: options.model.clone(), last: tokens - 1, known });
    }
    let slots = u32::try_from(context).unwrap_or(u32::MAX);
    let machine =
        Machine::load(&options.model, slots, &mut |done, total| progress(Progress::Loading(done, total)))?;
    let results = Results::open(&options.out, &header(options, &machine, context))?;
    // A model without markers has no cursor in the middle.
    let mut options = options.clone();
    options.tasks.retain(|task| *task != Task::Cursor || tokenizer.fim().is_some());
    let options = &options;
    let cases = count(&sets, options);
    let mut run = EvaluationRun { options, tokenizer, context, machine, results, progress, done: 0, cases };
    for (index, set) in sets.iter().enumerate() {
        run.use_set(set)?;
        let compared = if index == 0 { options.compared_samples } else { 0 };
        run.completions(set, compared)?;
    }
    match sets.first() {
        Some(set) if options.accumulated_samples > 0 => run.accumulated(set),
        _ => Ok(()),
    }
}

fn header(options: &EvaluationOptions, machine: &Machine, context: usize) -> Header {
    let name = |path: &PathBuf| {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let data = options.data.as_ref().map_or_else(|| BUILT_IN.to_owned(), name);
    let model = machine.model();
    let (fingerprint, parameters) = (model.fingerprint().to_owned(), model.config().parameters());
    Header::new(name(&options.model), fingerprint, parameters, context, data)
}

fn count(sets: &[Set], options: &EvaluationOptions) -> u64 {
    let samples = |set: &Set| set.samples.len().min(options.samples.unwrap_or(usize::MAX));
    let cases: usize = sets.iter().map(samples).sum::<usize>() * options.tasks.len();
    let accumulated = sets.first().map_or(0, |set| set.samples.len().min(options.accumulated_samples));
    cases as u64 * options.seeds + 2 * (accumulated * options.edits.len()) as u64
}

/// A run on its way.
struct EvaluationRun<'a> {
    options: &'a EvaluationOptions,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    machine: Machine,
    results: Results,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    cases: u64,
}

impl EvaluationRun<'_> {
    fn use_set(&mut self, set: &Set) -> Result<(), EvalError> {
        self.results.use_set(SetLine {
            language: set.language,
            setting: set.setting,
            fingerprint: set.fingerprint(),
            samples: set.samples.len(),
        })
    }

    /// Tokens at which a prediction ends, as in a pool.
    fn ends(&self) -> Vec<TokenId> {
        self.machine.model().config().end_of_text.iter().chain(self.tokenizer.ends()).copied().collect()
    }

    fn advance(&mut self, cases: u64) {
        self.done += cases;
        (self.progress)(Progress::Running(self.done, self.cases));
    }
}
