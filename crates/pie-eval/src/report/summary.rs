//! Averages of results.

use crate::metrics::median;
use crate::names::{Arm, Language, Method, Setting, Spot, Storage, Task};
use crate::results::{
    Accumulated, BUILT_IN, CacheId, CaseId, Commits, EditCost, Header, Prediction, Record, RepairRate,
    StreamCost,
};
use std::collections::{BTreeMap, BTreeSet};

/// A mean over seeds, and the standard deviation between them where there are several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    /// Percent.
    pub mean: f64,
    /// Percentage points; none with a single seed.
    pub spread: Option<f64>,
}

/// One method on one setting.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Different samples among the cases.
    pub samples: usize,
    /// Different seeds among the cases.
    pub seeds: usize,
    /// Predictions whose words equal those of the line.
    pub exact_match: Score,
    /// fuzzywuzzy's ratio by difflib.
    pub edit_similarity: Score,
    /// By python-Levenshtein.
    pub levenshtein: Score,
    /// Cases whose work counts below: those that every method ran.
    pub timed: usize,
    /// Milliseconds from the edit to the next token's logits: the median of the timed cases.
    pub median_ms: f64,
    /// The same, the mean.
    pub mean_ms: f64,
    /// Tokens that were encoded: mean of the timed cases.
    pub encoded: f64,
    /// Keys that were turned: mean of the timed cases.
    pub rotated: f64,
    /// Tokens of the edited context: mean of all cases.
    pub tokens: f64,
}

/// Distances from full recomputation, summed by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Distances {
    /// By layer: cosine of the kept keys behind the edit (figure 3).
    pub cosine: Vec<Mean>,
    /// By generated token: KL(full || method), in nats (figure 4).
    pub kl: Vec<Mean>,
}

/// A mean that grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mean {
    /// Of all numbers.
    pub sum: f64,
    /// How many numbers.
    pub count: usize,
}

impl Mean {
    /// Takes one more number in.
    pub fn add(&mut self, number: f64) {
        self.sum += number;
        self.count += 1;
    }

    /// The mean; 0 of no numbers.
    pub fn value(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// Quality at one age of a cache.
#[derive(Clone, Debug, Default)]
pub(super) struct CacheQuality {
    /// Percent of predictions whose words equal those of the line.
    pub exact_match: Mean,
    /// Percent, by difflib.
    pub edit_similarity: Mean,
    /// Percent of predictions that equal the fresh cache's.
    pub agrees: Mean,
    /// KL(fresh || this) of the next token, in nats.
    pub kl: Mean,
    /// By sample, for the median.
    pub kls: Vec<f64>,
    /// Cosine with the fresh cache's keys, over all layers.
    pub cosine: Mean,
    /// The same of the last layer alone, where differences have grown most.
    pub last_layer: Mean,
    /// Percent of the tokens that were not encoded since the full encoding.
    pub kept: Mean,
    /// Turns of a key, mean over all tokens.
    pub turns: Mean,
    /// KL along the tokens that the fresh cache generates, in nats; of no numbers where this was not measured.
    pub followed: Mean,
    /// Percent of these tokens that both find the most likely.
    pub greedy: Mean,
    /// Milliseconds of an edit's own pass, mean over the stream.
    pub edit_ms: Mean,
    /// Rows that an edit's own pass encodes, mean over the stream.
    pub edit_rows: Mean,
    /// Rows that are encoded again between two edits, mean over the stream.
    pub idle_rows: Mean,
}

/// What happened to caches that are averaged together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AgeKey {
    /// What their rows were kept in.
    pub storage: Storage,
    /// Where they predict.
    pub spot: Spot,
    /// What happened.
    pub arm: Arm,
    /// Rows that are encoded again with an edit.
    pub window: u32,
    /// Seconds between edits.
    pub idle: u32,
    /// How many edits, or turns.
    pub edits: u32,
}

/// All that the pages need.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// What was evaluated; none in an empty file.
    pub header: Option<Header>,
    /// The tables, and figure 1.
    pub cells: BTreeMap<(Task, Language, Method, Setting), Cell>,
    /// Language and setting of the figures.
    pub compared: Option<(Language, Setting)>,
    /// Figures 3 and 4.
    pub distances: BTreeMap<(Task, Method), Distances>,
    /// Language and setting of the many edits.
    pub aged: Option<(Language, Setting)>,
    /// By what happened to the cache.
    pub ages: BTreeMap<AgeKey, CacheQuality>,
    /// Files whose commits are edits.
    pub commits: Vec<Commits>,
    /// What the machine repairs.
    pub rate: Option<RepairRate>,
    /// Rows that `repair` encodes again.
    pub window: Option<u32>,
    /// Samples whose windows are compared.
    pub window_samples: usize,
    /// Samples that lost lines in front, of how many.
    pub cut: (usize, usize),
}

impl Summary {
    /// Averages the lines of a results file.
    pub fn of(lines: &[Record]) -> Self {
        let mut summary = Self::default();
        let mut groups: BTreeMap<_, Vec<&Prediction>> = BTreeMap::new();
        for line in lines {
            match line {
                Record::Header(header) => summary.header = Some(header.clone()),
                Record::Set(_) => {}
                Record::Commits(commits) => summary.commits.push(commits.clone()),
                Record::Completion(one) => {
                    summary.window = summary.window.or(one.window);
                    groups
                        .entry((one.case.task, one.case.language, one.method, one.case.setting))
                        .or_default()
                        .push(one);
                }
                Record::Divergence(one) => {
                    summary.compared.get_or_insert((one.case.language, one.case.setting));
                    let distances = summary.distances.entry((one.case.task, one.method)).or_default();
                    add(&mut distances.cosine, &one.cosine);
                    add(&mut distances.kl, &one.kl);
                }
                Record::Accumulated(one) => {
                    let CacheId { language, setting, storage, arm, edits, spot, window, idle, .. } =
                        one.cache;
                    summary.aged.get_or_insert((language, setting));
                    let key = AgeKey { storage, spot, arm, window, idle, edits };
                    summary.ages.entry(key).or_default().add(one);
                }
                Record::Window(one) => {
                    summary.window_samples = summary.window_samples.max(one.id.case.sample + 1);
                }
                Record::Rate(rate) => summary.rate = Some(*rate),
            }
        }
        summary.cut = cut(groups.values().flatten().copied());
        let untimed = untimed(groups.values().flatten().copied());
        summary.cells = groups.into_iter().map(|(key, group)| (key, Cell::of(&group, &untimed))).collect();
        summary
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        self.header.as_ref().map_or("?", |header| header.model.as_str())
    }

    /// Samples of each set, and seeds: the most of any cell.
    pub fn size(&self) -> (usize, usize) {
        let most = |of: fn(&Cell) -> usize| self.cells.values().map(of).max().unwrap_or(0);
        (most(|cell| cell.samples), most(|cell| cell.seeds))
    }
}

impl Summary {
    /// What makes such results. Results know the names of folders, not where they are.
    pub fn command(&self) -> String {
        let elsewhere = |flag: &str, name: &str| format!(" {flag} …/{name}");
        let (model, data) = match &self.header {
            Some(header) => (
                (header.model != SHIPPED).then(|| elsewhere("--model", &header.model)),
                (header.data != BUILT_IN).then(|| elsewhere("--data", &header.data)),
            ),
            None => (None, None),
        };
        let (samples, seeds) = self.size();
        let seeds = seeds.max(1);
        let timed = self.cells.values().map(|cell| cell.timed).max().unwrap_or(0).div_ceil(seeds);
        let of_figures = self.distances.values().filter_map(|distances| distances.kl.first());
        let compared = of_figures.map(|mean| mean.count).max().unwrap_or(0);
        let made_up = self.ages.iter().filter(|(key, _)| key.spot != Spot::Git);
        let accumulated = made_up.map(|(_, age)| age.kls.len()).max().unwrap_or(0);
        let windows = (self.window_samples > 0).then(|| format!(" --window-samples {}", self.window_samples));
        format!(
            "pie eval{}{} --samples {samples} --seeds {seeds} --timed-samples {timed} --kl-samples {compared} \
             --accumulated-samples {accumulated}{}",
            model.unwrap_or_default(),
            data.unwrap_or_default(),
            windows.unwrap_or_default()
        )
    }
}

/// The model that is taken where none is named.
const SHIPPED: &str = "pie-coder";

fn add(means: &mut Vec<Mean>, numbers: &[f32]) {
    means.resize(means.len().max(numbers.len()), Mean::default());
    means.iter_mut().zip(numbers).for_each(|(mean, number)| mean.add(f64::from(*number)));
}

/// Cases that some method did not run: the times of the others would be of other cases than its own.
fn untimed<'a>(completions: impl Iterator<Item = &'a Prediction>) -> BTreeSet<CaseId> {
    completions.filter(|one| one.work.is_none()).map(|one| one.case).collect()
}

fn cut<'a>(completions: impl Iterator<Item = &'a Prediction>) -> (usize, usize) {
    let mut samples = BTreeMap::new();
    for one in completions {
        samples.insert((one.case.language, one.case.setting, one.case.sample), one.cut_lines > 0);
    }
    (samples.values().filter(|cut| **cut).count(), samples.len())
}

impl Cell {
    fn of(group: &[&Prediction], untimed: &BTreeSet<CaseId>) -> Self {
        let timed = group.iter().filter(|one| !untimed.contains(&one.case));
        let work: Vec<EditCost> = timed.filter_map(|one| one.work).collect();
        let mean = |of: fn(&EditCost) -> f64| work.iter().map(of).sum::<f64>() / work.len().max(1) as f64;
        let samples: BTreeSet<usize> = group.iter().map(|one| one.case.sample).collect();
        let seeds: BTreeSet<u64> = group.iter().map(|one| one.case.seed).collect();
        Self {
            samples: samples.len(),
            seeds: seeds.len(),
            exact_match: score(group, |one| 100.0 * f64::from(u8::from(one.exact_match))),
            edit_similarity: score(group, |one| f64::from(one.edit_similarity)),
            levenshtein: score(group, |one| f64::from(one.edit_similarity_levenshtein)),
            timed: work.len(),
            median_ms: median(work.iter().map(|work| work.time_ms).collect()),
            mean_ms: mean(|work| work.time_ms),
            encoded: mean(|work| f64::from(work.encoded)),
            rotated: mean(|work| f64::from(work.rotated)),
            tokens: group.iter().map(|one| one.tokens as f64).sum::<f64>() / group.len().max(1) as f64,
        }
    }
}

fn score(group: &[&Prediction], of: fn(&Prediction) -> f64) -> Score {
    let mut seeds: BTreeMap<u64, Mean> = BTreeMap::new();
    group.iter().for_each(|one| seeds.entry(one.case.seed).or_default().add(of(one)));
    let means: Vec<f64> = seeds.values().map(Mean::value).collect();
    let mean = means.iter().sum::<f64>() / means.len().max(1) as f64;
    let squares: f64 = means.iter().map(|one| (one - mean).powi(2)).sum();
    let spread = (means.len() > 1).then(|| (squares / (means.len() - 1) as f64).sqrt());
    Score { mean, spread }
}

impl CacheQuality {
    fn add(&mut self, one: &Accumulated) {
        self.exact_match.add(100.0 * f64::from(u8::from(one.exact_match)));
        self.edit_similarity.add(f64::from(one.edit_similarity));
        self.agrees.add(100.0 * f64::from(u8::from(one.agrees)));
        self.kl.add(f64::from(one.kl));
        self.kls.push(f64::from(one.kl));
        one.cosine.iter().for_each(|cosine| self.cosine.add(f64::from(*cosine)));
        one.cosine.last().into_iter().for_each(|cosine| self.last_layer.add(f64::from(*cosine)));
        self.kept.add(100.0 * f64::from(one.kept));
        self.turns.add(f64::from(one.turns));
        if let Some(followed) = &one.followed {
            self.followed.add(f64::from(followed.kl));
            self.greedy.add(100.0 * f64::from(followed.greedy));
        }
        if let Some(StreamCost { time_ms, encoded, idle_rows, .. }) = &one.stream {
            let edits = f64::from(one.cache.edits.max(1));
            self.edit_ms.add(time_ms / edits);
            self.edit_rows.add(*encoded as f64 / edits);
            // Nothing is repaired behind the last edit.
            self.idle_rows.add(*idle_rows as f64 / (edits - 1.0).max(1.0));
        }
    }
}
