//! Making prompts and cases fit into the model's context.

use super::{GENERATED, SPARE};
use crate::dataset::Set;
use crate::error::EvalError;
use crate::names::Task;
use crate::task::{self, line_starts};
use pie_text::{Document, Tokenizer};
use pie_words::{Revision, Splices, TokenId};
use std::sync::Arc;

/// A prompt that fits.
pub(super) struct Fitted {
    /// The prompt without the lines that were cut off.
    pub text: String,
    /// The text's tokens, with what the model wants before a text.
    pub tokens: Vec<TokenId>,
    /// Lines cut off in front.
    pub cut_lines: usize,
}

/// Cuts whole lines from the front of a prompt until it leaves room for a completion and for lines to delete.
pub(super) fn fit(tokenizer: &Tokenizer, prompt: &str, context: usize) -> Result<Fitted, EvalError> {
    let room = context - GENERATED - SPARE;
    let tokens = tokenizer.encode(prompt)?;
    if tokens.len() <= room {
        return Ok(Fitted { text: prompt.to_owned(), tokens, cut_lines: 0 });
    }
    let starts = line_starts(prompt);
    // The fewest lines whose loss suffices, by bisection: fewer lines are fewer tokens.
    let (mut short, mut enough) = (0, starts.len() - 1);
    while enough - short > 1 {
        let middle = usize::midpoint(short, enough);
        if tokenizer.encode(&prompt[starts[middle]..])?.len() <= room {
            enough = middle
        } else {
            short = middle
        }
    }
    let text = &prompt[starts[enough]..];
    if text.is_empty() {
        let tokens = tokens.len();
        return Err(EvalError::NoLinesFit { tokens, context });
    }
    Ok(Fitted { text: text.to_owned(), tokens: tokenizer.encode(text)?, cut_lines: enough })
}

/// A case by its tokens.
pub(super) struct TokenCase {
    /// The document before the edit.
    pub original: Vec<TokenId>,
    /// From `original` to the prompt.
    pub splices: Splices,
}

impl TokenCase {
    /// The first token that changes.
    pub fn first_change(&self) -> usize {
        self.splices.iter().next().map_or(self.original.len(), |splice| splice.at.usize())
    }

    /// In places of the prompt: the tokens behind the first change that the edit keeps, without the last token, which is
    /// encoded again in any case.
    pub fn kept_behind(&self) -> Vec<usize> {
        let (mut kept, mut old, mut new) = (Vec::new(), self.first_change(), self.first_change());
        for splice in &self.splices {
            let same = splice.at.usize() - old;
            kept.extend(new..new + same);
            old = splice.end().usize();
            new += same + splice.insert.len();
        }
        let end = new + self.original.len() - old;
        kept.extend(new..end.saturating_sub(1).max(new));
        kept
    }
}

/// The case of a sample, in tokens; sampled lines that do not fit are drawn again.
pub(super) fn token_case(
    tokenizer: &Arc<Tokenizer>,
    set: &Set,
    sample: usize,
    prompt: &Fitted,
    task: Task,
    seed: u64,
    context: usize,
) -> Result<TokenCase, EvalError> {
    for attempt in 0..100 {
        let mut random = task::random(seed, set.language, set.setting, sample, task.name(), attempt);
        let case = task::build(task, &prompt.text, &set.samples, &mut random);
        let mut document = Document::open(tokenizer.clone(), &case.original, usize::MAX)?;
        let original: Vec<TokenId> = document.tokens().collect();
        if original.len() > context {
            continue;
        }
        let change = document.prepare(Revision(0), &case.edits)?;
        let splices = change.splices().clone();
        document.commit(change)?;
        if !document.tokens().eq(prompt.tokens.iter().copied()) {
            let sample = format!("{} {} {sample}", set.language, set.setting);
            return Err(EvalError::Retokenized { sample });
        }
        return Ok(TokenCase { original, splices });
    }
    Err(EvalError::NoLinesFit { tokens: prompt.tokens.len(), context })
}
