//! The paper's tables: each case by each method, from one state.

use super::compare::{HeadSizes, cosine, keys};
use super::divergence::{self, Followed};
use super::place::{AtCursor, Fitted, TokenCase, cursor_case, fit, token_case};
use super::{EvaluationRun, GENERATED, edited};
use crate::dataset::{Sample, Set};
use crate::engine::{Bed, TimedEdit};
use crate::error::EvalError;
use crate::metrics::{
    edit_similarity, edit_similarity_levenshtein, exact_match, first_line, first_line_is_complete,
};
use crate::names::{Language, Method, Task};
use crate::results::{CaseId, Divergence, EditCost, Prediction, Record, RecordKey, Results};
use pie_text::Tokenizer;
use pie_words::TokenId;
use pie_worker::Saved;

impl EvaluationRun<'_> {
    /// All cases of a set; those of the first `compared` samples and of seed 0 with their divergence.
    pub(super) fn completions(&mut self, set: &Set, compared: usize) -> Result<(), EvalError> {
        let samples = self.options.samples.unwrap_or(usize::MAX);
        for (index, sample) in set.samples.iter().enumerate().take(samples) {
            let cases = self.missing(set, index, compared);
            let all = self.options.tasks.len() as u64 * self.options.seeds;
            self.advance(all - cases.len() as u64);
            if !cases.is_empty() {
                self.sample(set, index, sample, &cases)?;
            }
        }
        Ok(())
    }

    fn missing(&self, set: &Set, sample: usize, compared: usize) -> Vec<Missing> {
        let (language, setting) = (set.language, set.setting);
        let mut cases = Vec::new();
        for seed in 0..self.options.seeds {
            for task in self.options.tasks.iter().copied() {
                let case = CaseId { language, setting, sample, task, seed };
                let lacking = |key: fn(CaseId, Method) -> RecordKey| {
                    let methods = self.options.methods.iter().copied();
                    methods.filter(|method| !self.results.has(key(case, *method))).collect::<Vec<_>>()
                };
                let completions = lacking(RecordKey::Completion);
                let mut divergences = lacking(RecordKey::Divergence);
                divergences.retain(|method| seed == 0 && sample < compared && *method != Method::Full);
                if !(completions.is_empty() && divergences.is_empty()) {
                    cases.push(Missing { case, completions, divergences });
                }
            }
        }
        cases
    }

    fn sample(
        &mut self,
        set: &Set,
        index: usize,
        sample: &Sample,
        cases: &[Missing],
    ) -> Result<(), EvalError> {
        let prompt = fit(&self.tokenizer, &sample.prompt, self.context)?;
        let mut at_end = Vec::new();
        for missing in cases {
            let CaseId { task, seed, .. } = missing.case;
            if task != Task::Cursor {
                let case = token_case(&self.tokenizer, set, index, &prompt, task, seed, self.context)?;
                at_end.push((missing, case));
                continue;
            }
            match cursor_case(&self.tokenizer, missing.case, &prompt)? {
                Some(AtCursor { prompt, line, case }) => {
                    self.on_prompt(set, index, &prompt, &line, vec![(missing, case)])?;
                }
                None => self.advance(1),
            }
        }
        self.on_prompt(set, index, &prompt, &sample.next_line, at_end)
    }

    /// Cases that lead to one prompt.
    fn on_prompt(
        &mut self,
        set: &Set,
        index: usize,
        prompt: &Fitted,
        truth: &str,
        cases: Vec<(&Missing, TokenCase)>,
    ) -> Result<(), EvalError> {
        if cases.is_empty() {
            return Ok(());
        }
        let sizes = HeadSizes::of(self.machine.model());
        let ends = self.ends();
        let mut bed = Bed::new(&mut self.machine)?;
        bed.become_exactly(&prompt.tokens)?;
        // Each case starts from the prompt as if it had just been opened, whatever ran before.
        let fresh = bed.save(0)?;
        let fresh = Fresh { state: fresh, prediction: None, followed: None };
        let timed = index < self.options.timed_samples;
        let mut of_prompt = OfPrompt {
            set,
            truth,
            prompt,
            tokenizer: &self.tokenizer,
            ends: &ends,
            sizes,
            timed,
            window: self.options.window,
            bed,
            fresh,
            results: &mut self.results,
        };
        for (missing, case) in &cases {
            of_prompt.case(missing, case)?;
            self.done += 1;
            (self.progress)(super::Progress::Running(self.done, self.cases));
        }
        Ok(())
    }
}

/// What a case lacks in the results.
struct Missing {
    case: CaseId,
    completions: Vec<Method>,
    divergences: Vec<Method>,
}

/// The prompt, just opened: what full recomputation gives after every edit that leads to it.
struct Fresh {
    state: Saved,
    prediction: Option<String>,
    followed: Option<Followed>,
}

/// One prompt, on a bed.
struct OfPrompt<'a> {
    set: &'a Set,
    /// What is to be predicted.
    truth: &'a str,
    prompt: &'a Fitted,
    tokenizer: &'a Tokenizer,
    ends: &'a [TokenId],
    sizes: HeadSizes,
    /// Whether full recomputation runs. If not, its prediction is the fresh prompt's, which is the same, and its time is
    /// not known.
    timed: bool,
    /// Rows that `repair` encodes again.
    window: u32,
    bed: Bed<'a>,
    fresh: Fresh,
    results: &'a mut Results,
}

impl OfPrompt<'_> {
    fn case(&mut self, missing: &Missing, case: &TokenCase) -> Result<(), EvalError> {
        self.bed.restore(&self.fresh.state)?;
        self.bed.become_exactly(&case.original)?;
        // Nothing before the change is touched but the last token, which is always encoded again.
        let original = self.bed.save(case.first_change().saturating_sub(1))?;
        let (run, known): (Vec<_>, Vec<_>) =
            missing.completions.iter().copied().partition(|method| self.timed || *method != Method::Full);
        for method in run {
            self.bed.restore(&original)?;
            self.complete(missing, case, method)?;
        }
        for method in &missing.divergences {
            self.diverge(missing, case, &original, *method)?;
        }
        // Last, since the state of the prompt overwrites that of the original context.
        for method in known {
            let prediction = self.fresh_prediction()?;
            self.push(missing, case, method, prediction, None)?;
        }
        Ok(())
    }

    fn complete(&mut self, missing: &Missing, case: &TokenCase, method: Method) -> Result<(), EvalError> {
        let edited = edited(&mut self.bed, case.splices.clone(), method, self.window)?;
        let prediction =
            predict(&mut self.bed, self.tokenizer, self.ends, self.set.language, edited.next.token)?;
        self.push(missing, case, method, prediction, Some(&edited))
    }

    fn fresh_prediction(&mut self) -> Result<String, EvalError> {
        if let Some(prediction) = &self.fresh.prediction {
            return Ok(prediction.clone());
        }
        self.bed.restore(&self.fresh.state)?;
        let first = self.bed.decode(1)?.first().ok_or(EvalError::NothingSampled)?.token;
        let prediction = predict(&mut self.bed, self.tokenizer, self.ends, self.set.language, first)?;
        Ok(self.fresh.prediction.insert(prediction).clone())
    }

    fn push(
        &mut self,
        missing: &Missing,
        case: &TokenCase,
        method: Method,
        prediction: String,
        edited: Option<&TimedEdit>,
    ) -> Result<(), EvalError> {
        let truth = self.truth;
        self.results.push(Record::Completion(Prediction {
            case: missing.case,
            method,
            window: self.window_of(method),
            exact_match: exact_match(&prediction, truth),
            edit_similarity: edit_similarity(&prediction, truth),
            edit_similarity_levenshtein: edit_similarity_levenshtein(&prediction, truth),
            prediction,
            truth: truth.to_owned(),
            work: edited.map(EditCost::of),
            tokens: self.prompt.tokens.len(),
            deleted: case.splices.deleted(),
            inserted: case.splices.inserted(),
            first_change: case.first_change(),
            cut_lines: self.prompt.cut_lines,
        }))
    }

    fn window_of(&self, method: Method) -> Option<u32> {
        (method == Method::Repair).then_some(self.window)
    }

    fn diverge(
        &mut self,
        missing: &Missing,
        case: &TokenCase,
        original: &Saved,
        method: Method,
    ) -> Result<(), EvalError> {
        let kept = case.kept_behind();
        self.bed.restore(&self.fresh.state)?;
        let fresh_keys = keys(&self.bed, self.sizes, &kept)?;
        let full = match self.fresh.followed.take() {
            Some(full) => full,
            None => divergence::fresh(&mut self.bed, self.ends, self.sizes)?,
        };
        self.bed.restore(original)?;
        let splices = case.splices.clone();
        let (keys, kl) =
            divergence::of(&mut self.bed, splices, &kept, (method, self.window), &full, self.sizes)?;
        self.fresh.followed = Some(full);
        self.results.push(Record::Divergence(Divergence {
            case: missing.case,
            method,
            window: self.window_of(method),
            cosine: cosine(&keys, &fresh_keys),
            kl,
        }))
    }
}

/// The prediction that begins with a token: generation ends with the first line that is no comment, since what follows
/// does not change it.
pub(super) fn predict(
    bed: &mut Bed<'_>,
    tokenizer: &Tokenizer,
    ends: &[TokenId],
    language: Language,
    first: TokenId,
) -> Result<String, EvalError> {
    let mut decoder = tokenizer.decoder();
    let mut text = String::new();
    let mut token = first;
    for count in 1..=GENERATED {
        if ends.contains(&token) {
            break;
        }
        text.push_str(&decoder.push(token));
        if count == GENERATED || first_line_is_complete(&text, language) {
            break;
        }
        token = bed.decode(1)?.first().ok_or(EvalError::NothingSampled)?.token;
    }
    text.push_str(&decoder.finish());
    Ok(first_line(&text, language).to_owned())
}
