//! Beyond the paper: quality against the edits since the last full encoding, and what of its loss is rounding.
//!
//! *Edited*: a text that differs from the prompt by k edits is encoded, then the k edits are made one by one by `pie`, each
//! settled and encoded before the next. *Turned*: the prompt is encoded, and its keys are turned there and back, k turns in
//! all, with nothing encoded; so only rounding can differ. Both are compared with the prompt encoded fresh, in the same
//! storage: the first loses by stale semantics and by rounding, the second by rounding alone.

use super::compare::{HeadSizes, LayerKeys, cosine, distribution, keys, kl};
use super::completion::predict;
use super::place::{Fitted, fit};
use super::{EvaluationRun, Progress};
use crate::dataset::Set;
use crate::engine::Bed;
use crate::error::EvalError;
use crate::metrics::{edit_similarity, exact_match};
use crate::results::{Accumulated, Arm, CacheId, Key, Record, Results, Storage};
use crate::task::{self, edit, line_end, line_starts, sampled_lines};
use pie_kv::Precision;
use pie_text::{Document, Tokenizer};
use pie_words::{Splices, TextEdit, TokenId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

const STORAGES: [(Storage, Precision); 2] =
    [(Storage::F32, Precision::F32), (Storage::Bf16, Precision::Bf16)];
/// Lines of an edit, at most.
const LINES: usize = 5;
/// Tokens by which keys are turned, at most: as much as an edit moves them.
const DISTANCE: usize = 64;

impl EvaluationRun<'_> {
    pub(super) fn accumulated(&mut self, set: &Set) -> Result<(), EvalError> {
        let mut counts = self.options.edits.clone();
        counts.sort_unstable();
        counts.dedup();
        for (storage, precision) in STORAGES {
            self.machine.set_precision(precision)?;
            for (index, sample) in set.samples.iter().enumerate().take(self.options.accumulated_samples) {
                let arms = |count: &u32| [(Arm::Turned, *count), (Arm::Edited, *count)];
                let mut wanted = std::iter::once((Arm::Fresh, 0)).chain(counts.iter().flat_map(arms));
                let Set { language, setting, .. } = *set;
                let lacks = |(arm, edits): (Arm, u32)| {
                    let cache = CacheId { language, setting, sample: index, storage, arm, edits };
                    !self.results.has(Key::Accumulated(cache))
                };
                if wanted.any(lacks) {
                    let prompt = fit(&self.tokenizer, &sample.prompt, self.context)?;
                    let sizes = HeadSizes::of(self.machine.model());
                    let ends = self.ends();
                    let mut trial = Trial {
                        set,
                        index,
                        storage,
                        prompt: &prompt,
                        tokenizer: &self.tokenizer,
                        ends: &ends,
                        sizes,
                        results: &mut self.results,
                        bed: Bed::new(&mut self.machine)?,
                    };
                    trial.run(&counts)?;
                }
                self.done += counts.len() as u64;
                (self.progress)(Progress::Running(self.done, self.cases));
            }
        }
        Ok(())
    }
}

/// One sample in one storage.
struct Trial<'a> {
    set: &'a Set,
    index: usize,
    storage: Storage,
    prompt: &'a Fitted,
    tokenizer: &'a Arc<Tokenizer>,
    ends: &'a [TokenId],
    sizes: HeadSizes,
    results: &'a mut Results,
    bed: Bed<'a>,
}

/// What others are compared with.
struct FreshCache {
    keys: LayerKeys,
    distribution: Vec<f32>,
    prediction: String,
}

/// How far the cache is from its last full encoding.
#[derive(Clone, Copy)]
struct Staleness {
    arm: Arm,
    edits: u32,
    kept: f32,
    turns: f32,
}

impl Trial<'_> {
    fn run(&mut self, counts: &[u32]) -> Result<(), EvalError> {
        self.bed.report_logprobs(u32::try_from(self.sizes.vocabulary).unwrap_or(u32::MAX));
        self.bed.become_exactly(&self.prompt.tokens)?;
        let age = Staleness { arm: Arm::Fresh, edits: 0, kept: 1.0, turns: 0.0 };
        let saved = self.bed.save(0)?;
        let fresh = self.measured(age, None)?;
        self.bed.restore(&saved)?;
        self.turned(counts, &fresh)?;
        self.edited(counts, &fresh)
    }

    fn turned(&mut self, counts: &[u32], fresh: &FreshCache) -> Result<(), EvalError> {
        let mut random = self.random("turned");
        let first = self.tokenizer.prefix().len();
        let mut turns = 0;
        for count in counts {
            // There and back are two turns.
            while turns < *count {
                let distance = random.random_range(1..=DISTANCE);
                // These tokens are never encoded: they only take the place.
                let splices = self.bed.splice(first, 0, vec![self.prompt.tokens[first]; distance])?;
                self.bed.turn(splices)?;
                self.bed.turn(self.bed.splice(first, distance as u32, Vec::new())?)?;
                turns += 2;
            }
            let age = Staleness { arm: Arm::Turned, edits: *count, kept: 1.0, turns: turns as f32 };
            let saved = self.bed.save(0)?;
            self.measured(age, Some(fresh))?;
            self.bed.restore(&saved)?;
        }
        Ok(())
    }

    fn edited(&mut self, counts: &[u32], fresh: &FreshCache) -> Result<(), EvalError> {
        let most = counts.last().copied().unwrap_or(0) as usize;
        let mut random = self.random("edited");
        let history = History::before(&self.prompt.text, most, self.set, &mut random);
        for count in counts {
            let mut document = Document::open(self.tokenizer.clone(), history.text(*count), usize::MAX)?;
            let tokens: Vec<TokenId> = document.tokens().collect();
            self.bed.become_exactly(&tokens)?;
            let mut ages = vec![Some(0_u32); tokens.len()];
            for step in history.steps(*count) {
                let change = document.prepare(document.revision(), std::slice::from_ref(step))?;
                age(&mut ages, change.splices());
                self.bed.encode(change.splices().clone(), pie_words::Strategy::Pie)?;
                document.commit(change)?;
            }
            if self.bed.tokens() != self.prompt.tokens {
                return Err(EvalError::Retokenized { sample: format!("accumulated {}", self.index) });
            }
            let kept = ages.iter().flatten().count() as f32 / ages.len() as f32;
            let turns = ages.iter().flatten().sum::<u32>() as f32 / ages.len() as f32;
            self.measured(Staleness { arm: Arm::Edited, edits: *count, kept, turns }, Some(fresh))?;
        }
        Ok(())
    }

    /// Compares the bed's state, which is the prompt's text, and writes the result.
    fn measured(&mut self, age: Staleness, fresh: Option<&FreshCache>) -> Result<FreshCache, EvalError> {
        let all: Vec<usize> = (0..self.prompt.tokens.len()).collect();
        let keys = keys(&self.bed, self.sizes, &all)?;
        let sampled = self.bed.decode(1)?.into_iter().next().ok_or(EvalError::NothingSampled)?;
        let distribution = distribution(&sampled, self.sizes.vocabulary);
        let language = self.set.language;
        let prediction = predict(&mut self.bed, self.tokenizer, self.ends, language, sampled.token)?;
        let this = FreshCache { keys, distribution, prediction };
        let fresh = fresh.unwrap_or(&this);
        let truth = &self.set.samples[self.index].next_line;
        let Staleness { arm, edits, kept, turns } = age;
        let (setting, sample, storage) = (self.set.setting, self.index, self.storage);
        let cache = CacheId { language, setting, sample, storage, arm, edits };
        if !self.results.has(Key::Accumulated(cache)) {
            self.results.push(Record::Accumulated(Accumulated {
                cache,
                exact_match: exact_match(&this.prediction, truth),
                edit_similarity: edit_similarity(&this.prediction, truth),
                agrees: this.prediction == fresh.prediction,
                prediction: this.prediction.clone(),
                kl: kl(&fresh.distribution, &this.distribution),
                cosine: cosine(&this.keys, &fresh.keys),
                kept,
                turns,
            }))?;
        }
        Ok(this)
    }

    fn random(&self, what: &str) -> ChaCha8Rng {
        task::random(0, self.set.language, self.set.setting, self.index, what, 0)
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

/// Texts that lead to a prompt, each by one edit.
struct History {
    /// `texts[k]` is k edits before the prompt.
    texts: Vec<String>,
    /// `steps[k]` makes `texts[k]` of `texts[k + 1]`.
    steps: Vec<TextEdit>,
}

impl History {
    /// Goes `count` edits back from a text: each inserts, deletes or replaces one to five lines somewhere.
    fn before(text: &str, count: usize, set: &Set, random: &mut ChaCha8Rng) -> Self {
        let mut history = Self { texts: vec![text.to_owned()], steps: Vec::with_capacity(count) };
        for _ in 0..count {
            let after = &history.texts[history.texts.len() - 1];
            let starts = line_starts(after);
            let lines = starts.len() - 1;
            // What is inserted, going back, is what the edit deletes. A text that grew shrinks again.
            let kind = if after.len() > text.len() { 1 } else { random.random_range(0..3) };
            let removed = if kind == 0 { 0 } else { random.random_range(1..=LINES).min(lines) };
            let first = random.random_range(0..=(lines - removed).min(lines.saturating_sub(1)));
            let (start, end) = (starts[first], starts[first + removed]);
            let added = if kind == 1 { 0 } else { random.random_range(1..=LINES) };
            let added = sampled_lines(added, line_end(text), &set.samples, random);
            let before = format!("{}{added}{}", &after[..start], &after[end..]);
            history.steps.push(edit(start, start + added.len(), &after[start..end]));
            history.texts.push(before);
        }
        history
    }

    fn text(&self, count: u32) -> &str {
        &self.texts[count as usize]
    }

    /// The edits from `count` before the prompt to it, in order.
    fn steps(&self, count: u32) -> impl Iterator<Item = &TextEdit> {
        self.steps[..count as usize].iter().rev()
    }
}
