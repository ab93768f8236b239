//! Beyond the paper: its figure 1 with a curve in place of a dot. A window of kept rows behind each edited place is encoded again
//! in the edit's own pass: how much of full recomputation's quality it brings back, and what it takes. Beside it as many rows
//! elsewhere.

use super::compare::HeadSizes;
use super::completion::predict;
use super::divergence::{Followed, agreement, fresh_tokens};
use super::place::{AtCursor, Fitted, TokenCase, cursor_case, fit, token_case};
use super::{EvaluationRun, FOLLOWED, Progress};
use crate::dataset::Set;
use crate::engine::{Bed, RepairSelection};
use crate::error::EvalError;
use crate::metrics::{edit_similarity, exact_match};
use crate::names::{Choice, Language, Task};
use crate::results::{CaseId, EditCost, Record, RecordKey, Results, WindowId, WindowTrial};
use pie_text::Tokenizer;
use pie_words::{Strategy, TokenId};

impl EvaluationRun<'_> {
    /// The cases of seed 0 of the first samples of a set.
    pub(super) fn windows(&mut self, set: &Set) -> Result<(), EvalError> {
        for sample in 0..self.options.window_samples.min(set.samples.len()) {
            for task in &self.options.tasks {
                let (language, setting) = (set.language, set.setting);
                let case = CaseId { language, setting, sample, task: *task, seed: 0 };
                let mut missing = trials(&self.options.windows);
                missing.retain(|repairs| !self.results.has(RecordKey::Window(id(case, *repairs))));
                if !missing.is_empty() {
                    self.window_case(set, case, &missing)?;
                }
                self.done += 1;
                (self.progress)(Progress::Running(self.done, self.cases));
            }
        }
        Ok(())
    }

    fn window_case(&mut self, set: &Set, id: CaseId, missing: &[RepairSelection]) -> Result<(), EvalError> {
        let sample = &set.samples[id.sample];
        let fitted = fit(&self.tokenizer, &sample.prompt, self.context)?;
        let (prompt, truth, case) = if id.task == Task::Cursor {
            match cursor_case(&self.tokenizer, id, &fitted)? {
                Some(AtCursor { prompt, line, case }) => (prompt, line, case),
                None => return Ok(()),
            }
        } else {
            let case = token_case(&self.tokenizer, set, id.sample, &fitted, id.task, id.seed, self.context)?;
            (fitted, sample.next_line.clone(), case)
        };
        let (ends, sizes) = (self.ends(), HeadSizes::of(self.machine.model()));
        let mut bed = Bed::new(&mut self.machine)?;
        let reader = LineGenerator { tokenizer: &self.tokenizer, ends: &ends, language: set.language, sizes };
        trial(&mut bed, &reader, (id, &prompt, &case, &truth), missing, &mut self.results)
    }
}

/// All choices of rows: full recomputation, and each window with its controls; no window is the same everywhere.
fn trials(windows: &[u32]) -> Vec<RepairSelection> {
    let mut trials = vec![RepairSelection { choice: Choice::All, rows: 0 }];
    for rows in windows {
        trials.push(RepairSelection { choice: Choice::Behind, rows: *rows });
        if *rows > 0 {
            trials.push(RepairSelection { choice: Choice::Before, rows: *rows });
            trials.push(RepairSelection { choice: Choice::Scattered, rows: *rows });
        }
    }
    trials
}

fn id(case: CaseId, repairs: RepairSelection) -> WindowId {
    WindowId { case, choice: repairs.choice, window: repairs.rows }
}

/// What reads a line from a cache.
struct LineGenerator<'a> {
    tokenizer: &'a Tokenizer,
    ends: &'a [TokenId],
    language: Language,
    sizes: HeadSizes,
}

impl LineGenerator<'_> {
    fn line(&self, bed: &mut Bed<'_>, first: TokenId) -> Result<String, EvalError> {
        predict(bed, self.tokenizer, self.ends, self.language, first)
    }

    /// What full recomputation leads to.
    fn fresh(&self, bed: &mut Bed<'_>) -> Result<(Followed, String), EvalError> {
        let first = bed.decode(1)?.first().ok_or(EvalError::NothingSampled)?.token;
        let line = self.line(bed, first)?;
        bed.end_branch()?;
        let followed = fresh_tokens(bed, self.ends, self.sizes, FOLLOWED)?;
        bed.end_branch()?;
        Ok((followed, line))
    }
}

fn trial(
    bed: &mut Bed<'_>,
    reader: &LineGenerator<'_>,
    (case, prompt, tokens, truth): (CaseId, &Fitted, &TokenCase, &str),
    missing: &[RepairSelection],
    results: &mut Results,
) -> Result<(), EvalError> {
    bed.become_exactly(&prompt.tokens)?;
    let (full, full_line) = reader.fresh(bed)?;
    bed.become_exactly(&tokens.original)?;
    // Controls repair rows in front of the change too, so the whole of it is saved.
    let original = bed.save(0)?;
    for repairs in missing {
        bed.restore(&original)?;
        let splices = tokens.splices.clone();
        let edited = match repairs.choice {
            Choice::All => bed.edit(splices, Strategy::Full)?,
            Choice::Behind | Choice::Before | Choice::Scattered => bed.edit_repairing(splices, *repairs)?,
        };
        let prediction = reader.line(bed, edited.next.token)?;
        let followed = agreement(bed, &full, reader.sizes)?;
        results.push(Record::Window(WindowTrial {
            id: id(case, *repairs),
            exact_match: exact_match(&prediction, truth),
            edit_similarity: edit_similarity(&prediction, truth),
            agrees: prediction == full_line,
            prediction,
            followed,
            work: EditCost::of(&edited),
            tokens: prompt.tokens.len(),
        }))?;
    }
    Ok(())
}
