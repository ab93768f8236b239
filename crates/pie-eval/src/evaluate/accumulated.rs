//! Beyond the paper: quality against the edits since the last full encoding, what of its loss is rounding, and what of it
//! repairing takes back.
//!
//! *Edited*: a text that differs from the prompt by k edits is encoded, then the k edits are made one by one by `pie`, each
//! settled and encoded before the next. *Repaired*: the same, and each edit's own pass encodes a window of the kept rows right
//! behind it again. *Healed*: the same, and between two edits rows are encoded again from the frontier on, as many as this
//! machine does in the seconds that a person takes; behind the last edit nothing is, since its completion is asked for at once.
//! *Turned*: the prompt is encoded, and its keys are turned there and back, k turns in all, with nothing encoded; so only
//! rounding can differ. *Before* and *scattered* are *repaired* with as many rows elsewhere. All are compared with the prompt encoded fresh, in the same storage.

use super::commits::CommittedEdits;
use super::compare::{HeadSizes, LayerKeys, cosine, distribution, keys, kl};
use super::completion::predict;
use super::divergence::{Followed, agreement, fresh_tokens};
use super::history::History;
use super::place::fit;
use super::{EvaluationOptions, EvaluationRun, FOLLOWED, GENERATED, Progress};
use crate::dataset::Set;
use crate::engine::{Bed, RATE_ROWS, RepairSelection};
use crate::error::EvalError;
use crate::metrics::{edit_similarity, exact_match};
use crate::names::{Arm, Choice, Spot, Storage};
use crate::results::{Accumulated, Agreement, CacheId, Record, RecordKey, RepairRate, Results, StreamCost};
use crate::task;
use pie_kv::Precision;
use pie_text::Tokenizer;
use pie_words::{Splices, Strategy, TokenId};
use rand::Rng;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Tokens by which keys are turned, at most: as much as an edit moves them.
const DISTANCE: usize = 64;

/// What is done to a cache.
#[derive(Clone, Copy)]
struct Treatment {
    arm: Arm,
    window: u32,
    idle: u32,
}

impl Treatment {
    const fn plain(arm: Arm) -> Self {
        Self { arm, window: 0, idle: 0 }
    }

    /// What is encoded again with each edit.
    fn repairs(self) -> Option<RepairSelection> {
        let choice = match self.arm {
            Arm::Repaired | Arm::Healed => Choice::Behind,
            Arm::Before => Choice::Before,
            Arm::Scattered => Choice::Scattered,
            Arm::Fresh | Arm::Edited | Arm::Turned => return None,
        };
        Some(RepairSelection { choice, rows: self.window })
    }

    /// Those of one place and storage, but for the fresh cache, which is always there.
    fn of(options: &EvaluationOptions, storage: Storage, spot: Spot) -> Vec<Self> {
        let (window, is_f32) = (options.window, storage == Storage::F32);
        let mut list = Vec::new();
        for arm in &options.arms {
            match arm {
                Arm::Fresh => {}
                Arm::Edited => list.push(Self::plain(Arm::Edited)),
                Arm::Turned if spot == Spot::End => list.push(Self::plain(Arm::Turned)),
                Arm::Repaired if is_f32 && options.idle.contains(&0) => {
                    list.push(Self { arm: Arm::Repaired, window, idle: 0 });
                }
                Arm::Before | Arm::Scattered if is_f32 => list.push(Self { arm: *arm, window, idle: 0 }),
                Arm::Healed if is_f32 => {
                    let idle = options.idle.iter().filter(|seconds| **seconds > 0);
                    list.extend(idle.map(|seconds| Self { arm: Arm::Healed, window, idle: *seconds }));
                }
                Arm::Turned | Arm::Repaired | Arm::Healed | Arm::Before | Arm::Scattered => {}
            }
        }
        list
    }
}

/// Storages and places that are looked at.
fn grounds(options: &EvaluationOptions) -> Vec<(Storage, Spot)> {
    let mut grounds = Vec::new();
    for storage in &options.storages {
        let spots = options.spots.iter().filter(|spot| **spot == Spot::End || *storage == Storage::F32);
        grounds.extend(spots.map(|spot| (*storage, *spot)));
    }
    grounds
}

/// All trials, of so many samples and of so many files with histories.
pub(super) fn trials(options: &EvaluationOptions, samples: usize, files: usize) -> usize {
    let of = |spot| if spot == Spot::Git { files } else { samples };
    grounds(options).into_iter().map(|(_, spot)| of(spot)).sum()
}

impl EvaluationRun<'_> {
    pub(super) fn accumulated(&mut self, set: &Set) -> Result<(), EvalError> {
        let options = self.options;
        let mut counts = options.edits.clone();
        counts.sort_unstable();
        counts.dedup();
        let most = options.accumulated_samples.min(set.samples.len());
        let rate = if most > 0 && options.arms.contains(&Arm::Healed) { Some(self.rate(set)?) } else { None };
        for (storage, spot) in grounds(options) {
            let precision = match storage {
                Storage::F32 => Precision::F32,
                Storage::Bf16 => Precision::Bf16,
            };
            self.machine.set_precision(precision)?;
            let treatments = Treatment::of(options, storage, spot);
            let committed = if spot == Spot::Git { self.committed.clone() } else { Arc::default() };
            let samples = if spot == Spot::Git { committed.len() } else { most };
            for index in 0..samples {
                let ground = Ground { set, index, storage, spot };
                let is_missing = |cache| !self.results.has(RecordKey::Accumulated(cache));
                let caches = counts.iter().flat_map(|count| {
                    treatments.iter().map(move |treatment| ground.cache(*treatment, *count))
                });
                if is_missing(ground.cache(Treatment::plain(Arm::Fresh), 0))
                    || caches.into_iter().any(is_missing)
                {
                    self.trial(ground, committed.get(index), &treatments, &counts, rate)?;
                }
                self.done += 1;
                (self.progress)(Progress::Running(self.done, self.cases));
            }
        }
        Ok(())
    }

    fn trial(
        &mut self,
        ground: Ground<'_>,
        committed: Option<&CommittedEdits>,
        treatments: &[Treatment],
        counts: &[u32],
        rate: Option<RepairRate>,
    ) -> Result<(), EvalError> {
        let Ground { set, index, spot, .. } = ground;
        let history = if let Some(edits) = committed {
            Some(History::committed(&self.tokenizer, edits))
        } else {
            let prompt = fit(&self.tokenizer, &set.samples[index].prompt, self.context)?;
            let most = counts.last().copied().unwrap_or(0) as usize;
            History::made_up(&self.tokenizer, set, index, &prompt, spot, most)
        };
        // A text without a line to fill in has nothing to say here.
        let Some(history) = history else { return Ok(()) };
        let (sizes, ends) = (HeadSizes::of(self.machine.model()), self.ends());
        let mut trial = Trial {
            ground,
            prompt: history.prompt()?,
            history,
            tokenizer: &self.tokenizer,
            ends: &ends,
            sizes,
            rows_per_second: rate.map_or(0.0, |rate| rate.rows_per_second),
            results: &mut self.results,
            bed: Bed::new(&mut self.machine)?,
        };
        trial.run(treatments, counts)
    }

    /// What this machine repairs in a second, as it was when it was first asked.
    fn rate(&mut self, set: &Set) -> Result<RepairRate, EvalError> {
        if let Some(rate) = self.results.rate() {
            return Ok(rate);
        }
        let prompt = fit(&self.tokenizer, &set.samples[0].prompt, self.context)?;
        let tokens = self.context - GENERATED;
        let document: Vec<TokenId> = prompt.tokens.iter().copied().cycle().take(tokens).collect();
        let mut bed = Bed::new(&mut self.machine)?;
        bed.become_exactly(&document)?;
        let pass = bed.time_repair()?.as_secs_f64();
        let rows_per_second = f64::from(RATE_ROWS) / pass.max(1e-9);
        let rate = RepairRate { tokens, rows: RATE_ROWS, pass_ms: 1e3 * pass, rows_per_second };
        self.results.push(Record::Rate(rate))?;
        Ok(rate)
    }
}

/// One sample, in one storage and place.
#[derive(Clone, Copy)]
struct Ground<'a> {
    set: &'a Set,
    index: usize,
    storage: Storage,
    spot: Spot,
}

impl Ground<'_> {
    fn cache(&self, treatment: Treatment, edits: u32) -> CacheId {
        let Treatment { arm, window, idle } = treatment;
        let (language, setting, sample) = (self.set.language, self.set.setting, self.index);
        CacheId {
            language,
            setting,
            sample,
            storage: self.storage,
            arm,
            edits,
            spot: self.spot,
            window,
            idle,
        }
    }
}

/// One sample in one storage and place, on a bed.
struct Trial<'a> {
    ground: Ground<'a>,
    prompt: Vec<TokenId>,
    history: History<'a>,
    tokenizer: &'a Arc<Tokenizer>,
    ends: &'a [TokenId],
    sizes: HeadSizes,
    rows_per_second: f64,
    results: &'a mut Results,
    bed: Bed<'a>,
}

/// What others are compared with.
struct FreshCache {
    keys: LayerKeys,
    distribution: Vec<f32>,
    prediction: String,
    followed: Followed,
}

/// How far the cache is from its last full encoding.
#[derive(Clone, Copy)]
struct Staleness {
    cache: CacheId,
    kept: f32,
    turns: f32,
    stream: Option<StreamCost>,
}

impl Trial<'_> {
    fn run(&mut self, treatments: &[Treatment], counts: &[u32]) -> Result<(), EvalError> {
        self.bed.become_exactly(&self.prompt)?;
        let saved = self.bed.save(0)?;
        let fresh = self.fresh()?;
        for treatment in treatments {
            if treatment.arm == Arm::Turned {
                self.bed.restore(&saved)?;
                self.turned(*treatment, counts, &fresh)?;
                continue;
            }
            for count in counts {
                if !self.results.has(RecordKey::Accumulated(self.ground.cache(*treatment, *count))) {
                    self.edited(*treatment, *count, &fresh)?;
                }
            }
        }
        Ok(())
    }

    fn fresh(&mut self) -> Result<FreshCache, EvalError> {
        let cache = self.ground.cache(Treatment::plain(Arm::Fresh), 0);
        let (keys, distribution, prediction) = self.observed()?;
        self.bed.end_branch()?;
        let followed = fresh_tokens(&mut self.bed, self.ends, self.sizes, FOLLOWED)?;
        self.bed.end_branch()?;
        let fresh = FreshCache { keys, distribution, prediction, followed };
        let age = Staleness { cache, kept: 1.0, turns: 0.0, stream: None };
        let seen = (&fresh.keys, &fresh.distribution[..], &fresh.prediction[..]);
        self.push(age, seen, &fresh, fresh.followed.agreeing())?;
        Ok(fresh)
    }

    fn turned(&mut self, treatment: Treatment, counts: &[u32], fresh: &FreshCache) -> Result<(), EvalError> {
        let Ground { set, index, .. } = self.ground;
        let mut random = task::random(0, set.language, set.setting, index, "turned", 0);
        let first = self.tokenizer.prefix().len();
        let mut turns = 0;
        for count in counts {
            // There and back are two turns.
            while turns < *count {
                let distance = random.random_range(1..=DISTANCE);
                // These tokens are never encoded: they only take the place.
                let splices = self.bed.splice(first, 0, vec![self.prompt[first]; distance])?;
                self.bed.turn(splices)?;
                self.bed.turn(self.bed.splice(first, distance as u32, Vec::new())?)?;
                turns += 2;
            }
            let cache = self.ground.cache(treatment, *count);
            if !self.results.has(RecordKey::Accumulated(cache)) {
                let saved = self.bed.save(0)?;
                self.measure(Staleness { cache, kept: 1.0, turns: turns as f32, stream: None }, fresh)?;
                self.bed.restore(&saved)?;
            }
        }
        Ok(())
    }

    fn edited(&mut self, treatment: Treatment, count: u32, fresh: &FreshCache) -> Result<(), EvalError> {
        let stream = self.history.stream(count)?;
        self.bed.become_exactly(&stream.original)?;
        let mut ages = vec![Some(0_u32); stream.original.len()];
        let mut cost = StreamCost { time_ms: 0.0, encoded: 0, idle_ms: 0.0, idle_rows: 0 };
        let last = stream.steps.len();
        let budget = f64::from(treatment.idle) * self.rows_per_second;
        for (number, splices) in stream.steps.into_iter().enumerate() {
            age(&mut ages, &splices);
            let start = Instant::now();
            let (done, rows) = match treatment.repairs() {
                Some(repairs) => self.bed.encode_repairing(splices, repairs)?,
                None => (self.bed.encode(splices, Strategy::Pie)?, Vec::new()),
            };
            cost.time_ms += milliseconds(start);
            cost.encoded += u64::from(done.encoded);
            renew(&mut ages, &rows);
            if number + 1 < last {
                let start = Instant::now();
                let rows = self.bed.heal(budget as u64)?;
                cost.idle_ms += milliseconds(start);
                cost.idle_rows += rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
                renew(&mut ages, &rows);
            }
        }
        if self.bed.tokens() != self.prompt {
            return Err(EvalError::Retokenized { sample: format!("accumulated {}", self.ground.index) });
        }
        let kept = ages.iter().flatten().count() as f32 / ages.len() as f32;
        let turns = ages.iter().flatten().sum::<u32>() as f32 / ages.len() as f32;
        let cache = self.ground.cache(treatment, count);
        self.measure(Staleness { cache, kept, turns, stream: Some(cost) }, fresh)
    }

    /// Compares the bed's state, which is the prompt's text, and writes the result. Tokens join the document.
    fn measure(&mut self, age: Staleness, fresh: &FreshCache) -> Result<(), EvalError> {
        let (keys, distribution, prediction) = self.observed()?;
        let followed = agreement(&mut self.bed, &fresh.followed, self.sizes)?;
        self.push(age, (&keys, &distribution, &prediction), fresh, followed)
    }

    /// The keys, the distribution of the next token, and the prediction.
    fn observed(&mut self) -> Result<(LayerKeys, Vec<f32>, String), EvalError> {
        let all: Vec<usize> = (0..self.prompt.len()).collect();
        let keys = keys(&self.bed, self.sizes, &all)?;
        self.bed.report_logprobs(self.sizes.all());
        let sampled = self.bed.decode(1)?.into_iter().next().ok_or(EvalError::NothingSampled)?;
        self.bed.report_logprobs(0);
        let distribution = distribution(&sampled, self.sizes.vocabulary);
        let language = self.ground.set.language;
        let prediction = predict(&mut self.bed, self.tokenizer, self.ends, language, sampled.token)?;
        Ok((keys, distribution, prediction))
    }

    fn push(
        &mut self,
        age: Staleness,
        (keys, distribution, prediction): (&LayerKeys, &[f32], &str),
        fresh: &FreshCache,
        followed: Agreement,
    ) -> Result<(), EvalError> {
        let Staleness { cache, kept, turns, stream } = age;
        if self.results.has(RecordKey::Accumulated(cache)) {
            return Ok(());
        }
        let truth = &self.history.truth;
        self.results.push(Record::Accumulated(Accumulated {
            cache,
            exact_match: exact_match(prediction, truth),
            edit_similarity: edit_similarity(prediction, truth),
            agrees: prediction == fresh.prediction,
            prediction: prediction.to_owned(),
            kl: kl(&fresh.distribution, distribution),
            cosine: cosine(keys, &fresh.keys),
            kept,
            turns,
            followed: Some(followed),
            stream,
        }))
    }
}

fn milliseconds(start: Instant) -> f64 {
    1e3 * start.elapsed().as_secs_f64()
}

/// Rows that were encoded again.
fn renew(ages: &mut [Option<u32>], rows: &[Range<u32>]) {
    for row in rows.iter().cloned().flatten() {
        ages[row as usize] = None;
    }
}

/// Follows, for each token, its turns since the full encoding; `None` for tokens that were encoded since.
fn age(ages: &mut Vec<Option<u32>>, splices: &Splices) {
    let mut next = Vec::with_capacity(ages.len() + splices.inserted());
    let (mut at, mut moved) = (0, 0_i64);
    let keep = |from: usize, to: usize, moved: i64, next: &mut Vec<Option<u32>>| {
        next.extend(ages[from..to].iter().map(|age| age.map(|turns| turns + u32::from(moved != 0))));
    };
    for splice in splices {
        keep(at, splice.at.usize(), moved, &mut next);
        next.extend(splice.insert.iter().map(|_| None));
        moved += splice.insert.len() as i64 - i64::from(splice.delete);
        at = splice.end().usize();
    }
    let end = ages.len();
    keep(at, end, moved, &mut next);
    *ages = next;
}
