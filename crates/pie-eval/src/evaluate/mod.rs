//! A run: every case of every sample, by every method.

mod accumulated;
mod commits;
mod compare;
mod completion;
mod divergence;
mod history;
mod place;
mod windows;

use self::commits::{CommittedEdits, WantedEdits, committed};
use crate::dataset::{self, Selection, Set};
use crate::engine::{Bed, Machine, RepairSelection, TimedEdit};
use crate::error::EvalError;
use crate::names::{Arm, Language, Method, Setting, Spot, Storage, Task};
use crate::results::{BUILT_IN, Commits, Header, Results, SetLine};
use pie_model::Config;
use pie_text::Tokenizer;
use pie_words::{Splices, TokenId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens that are generated at most (paper, section 4.1).
pub(crate) const GENERATED: usize = 64;
/// Tokens that are left free for the lines that a deletion deletes.
const SPARE: usize = 256;
/// Longest context without `--context`, if the model has more: RepoBench-C-8k fits.
const LONGEST: usize = 8192;
/// Tokens of the fresh cache along which windows and many edits are compared.
const FOLLOWED: usize = 24;

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
    /// What happens to these caches.
    pub arms: Vec<Arm>,
    /// What their rows are kept in. Whatever repairs, and the cursor, are looked at in f32 alone.
    pub storages: Vec<Storage>,
    /// Where they predict.
    pub spots: Vec<Spot>,
    /// Whose commits are the edits, where [`Spot::Git`] is one of the places.
    pub git: Option<GitSource>,
    /// Seconds of a person between two edits, in which a cache heals; 0 is a window with each edit and nothing else.
    pub idle: Vec<u32>,
    /// Rows that repairing encodes again with an edit.
    pub window: u32,
    /// Samples of the first set for which windows of several sizes, and other rows of the same number, are compared.
    pub window_samples: usize,
    /// Of these sizes.
    pub windows: Vec<u32>,
}

/// A repository whose files' histories are edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSource {
    /// Its folder.
    pub repository: PathBuf,
    /// Only files under this path of it.
    pub under: Option<String>,
}

impl EvaluationOptions {
    /// Rows that repairing encodes again with an edit, where nothing else is asked for.
    pub const WINDOW: u32 = 64;
    /// Sizes of windows that are compared.
    pub const WINDOWS: [u32; 7] = [0, 8, 16, 32, 64, 128, 256];
    /// Seconds between two edits.
    pub const IDLE: [u32; 3] = [0, 1, 5];
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
    let mut results = Results::open(&options.out, &header(options, &machine, context))?;
    if options.methods.contains(&Method::Repair) {
        results.use_window(options.window)?;
    }
    // A model without markers has no cursor in the middle.
    let mut options = options.clone();
    if tokenizer.fim().is_none() {
        options.tasks.retain(|task| *task != Task::Cursor);
        options.spots.retain(|spot| *spot == Spot::End);
    }
    if options.git.is_none() {
        options.spots.retain(|spot| *spot != Spot::Git);
    }
    let options = &options;
    let committed = commits(options, &sets, &tokenizer, context, &mut results)?;
    let cases = count(&sets, options, committed.len());
    let mut run =
        EvaluationRun { options, tokenizer, context, machine, results, progress, committed, done: 0, cases };
    for (index, set) in sets.iter().enumerate() {
        run.use_set(set)?;
        let compared = if index == 0 { options.compared_samples } else { 0 };
        run.completions(set, compared)?;
    }
    if let Some(set) = sets.first() {
        run.windows(set)?;
        run.accumulated(set)?;
    }
    Ok(())
}

fn header(options: &EvaluationOptions, machine: &Machine, context: usize) -> Header {
    let data = options.data.as_ref().map_or_else(|| BUILT_IN.to_owned(), |data| name(data));
    let model = machine.model();
    let (fingerprint, parameters) = (model.fingerprint().to_owned(), model.config().parameters());
    Header::new(name(&options.model), fingerprint, parameters, context, data)
}

/// Histories of the repository that was given, one for each sample: a mistake in them is told before anything is computed.
fn commits(
    options: &EvaluationOptions,
    sets: &[Set],
    tokenizer: &Tokenizer,
    context: usize,
    results: &mut Results,
) -> Result<Arc<[CommittedEdits]>, EvalError> {
    let (Some(git), Some(set)) = (&options.git, sets.first()) else { return Ok(Arc::default()) };
    if !options.spots.contains(&Spot::Git) {
        return Ok(Arc::default());
    }
    let edits = options.edits.iter().copied().max().unwrap_or(0) as usize;
    let wanted = WantedEdits { language: set.language, context, edits, files: options.accumulated_samples };
    let committed = committed(git, tokenizer, wanted)?;
    for (sample, edits) in committed.iter().enumerate() {
        let (repository, path) = (name(&git.repository), edits.path.clone());
        results.use_commits(Commits { sample, repository, path, commit: edits.commit.clone() })?;
    }
    Ok(committed.into())
}

/// A folder's own name.
fn name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn count(sets: &[Set], options: &EvaluationOptions, files: usize) -> u64 {
    let samples = |set: &Set| set.samples.len().min(options.samples.unwrap_or(usize::MAX));
    let cases: usize = sets.iter().map(samples).sum::<usize>() * options.tasks.len();
    let of_first = |most: usize| sets.first().map_or(0, |set| set.samples.len().min(most)) as u64;
    let samples = of_first(options.accumulated_samples) as usize;
    let accumulated = accumulated::trials(options, samples, files) as u64;
    let windows = of_first(options.window_samples) * options.tasks.len() as u64;
    cases as u64 * options.seeds + windows + accumulated
}

/// Edits by a method.
fn edited(bed: &mut Bed<'_>, splices: Splices, method: Method, window: u32) -> Result<TimedEdit, EvalError> {
    match method {
        Method::Repair => bed.edit_repairing(splices, RepairSelection::behind(window)),
        Method::Full | Method::Conflict | Method::Pie => bed.edit(splices, method.strategy()),
    }
}

/// A run on its way.
struct EvaluationRun<'a> {
    options: &'a EvaluationOptions,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    machine: Machine,
    results: Results,
    progress: &'a mut dyn FnMut(Progress),
    committed: Arc<[CommittedEdits]>,
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
