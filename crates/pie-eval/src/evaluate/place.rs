//! Making prompts and cases fit into the model's context.

use super::{GENERATED, SPARE};
use crate::dataset::Set;
use crate::error::EvalError;
use crate::metrics::comments;
use crate::names::Task;
use crate::results::CaseId;
use crate::task::{self, CursorCase, line_starts};
use pie_text::{Document, FimOrder, Tokenizer};
use pie_words::{Revision, Splice, Splices, TokenId, TokenIndex};
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

/// A case at a cursor, in tokens.
pub(super) struct AtCursor {
    /// The prompt, with markers, after the edit.
    pub prompt: Fitted,
    /// What stands at the cursor.
    pub line: String,
    /// From the prompt before the edit.
    pub case: TokenCase,
}

/// The case of a sample at a cursor. None where no line will do, or the model has no markers.
pub(super) fn cursor_case(
    tokenizer: &Arc<Tokenizer>,
    case: CaseId,
    prompt: &Fitted,
) -> Result<Option<AtCursor>, EvalError> {
    let CaseId { language, setting, sample, task, seed } = case;
    let mut random = task::random(seed, language, setting, sample, task.name(), 0);
    if tokenizer.fim().is_none() {
        return Ok(None);
    }
    let Some(case) = task::at_cursor(&prompt.text, comments(language), &mut random) else { return Ok(None) };
    let CursorCase { sides, line, edited, case } = case;
    let mut document = Document::open(tokenizer.clone(), &case.original, usize::MAX)?;
    let leading = tokenizer.prefix().len();
    let before: Vec<TokenId> = document.tokens().skip(leading).collect();
    let change = document.prepare(Revision(0), &case.edits)?;
    let splices = change.splices().clone();
    document.commit(change)?;
    let behind: Vec<TokenId> = document.tokens().skip(leading).collect();
    let other: Vec<TokenId> = tokenizer.encode(&sides[1 - edited])?.split_off(leading);
    let with = |side: &[TokenId]| {
        let sides = if edited == 0 { [side, &other[..]] } else { [&other[..], side] };
        with_markers(tokenizer, sides).unwrap_or_default()
    };
    // Of the edited side nothing is asked: where it stands, only the other one can stand before it.
    let lengths = [other.len(); 2];
    let original = with(&before);
    let splices = moved(&splices, skipped(tokenizer, edited, lengths), original.len())?;
    let fitted = Fitted { text: prompt.text.clone(), tokens: with(&behind), cut_lines: prompt.cut_lines };
    if splices.apply(&original) != fitted.tokens {
        return Err(EvalError::Retokenized {
            sample: format!("{language} {setting} {sample} at the cursor"),
        });
    }
    Ok(Some(AtCursor { prompt: fitted, line, case: TokenCase { original, splices } }))
}

/// The two sides of a cursor with the model's markers, in its order; none where it has no markers.
pub(super) fn with_markers(tokenizer: &Tokenizer, sides: [&[TokenId]; 2]) -> Option<Vec<TokenId>> {
    let fim = tokenizer.fim()?;
    let [first, second] = match fim.order {
        FimOrder::PrefixFirst => sides,
        FimOrder::SuffixFirst => [sides[1], sides[0]],
    };
    Some([tokenizer.prefix(), &fim.open, first, &fim.between, second, &fim.close].concat())
}

/// By how much the tokens of a side stand further back there than in a document of their own. A document's own tokens stand
/// behind those that stand before every text, and so they do there. `lengths` are those of the sides without these.
pub(super) fn skipped(tokenizer: &Tokenizer, side: usize, lengths: [usize; 2]) -> usize {
    let Some(fim) = tokenizer.fim() else { return 0 };
    let first = match fim.order {
        FimOrder::PrefixFirst => 0,
        FimOrder::SuffixFirst => 1,
    };
    fim.open.len() + if side == first { 0 } else { lengths[first] + fim.between.len() }
}

/// Splices of a document that stands so much further back in a context of `length` tokens.
pub(super) fn moved(splices: &Splices, by: usize, length: usize) -> Result<Splices, EvalError> {
    let moved = |splice: &Splice| {
        let at = TokenIndex(u32::try_from(splice.at.usize() + by).unwrap_or(u32::MAX));
        Splice { at, ..splice.clone() }
    };
    Ok(Splices::new(splices.iter().map(moved).collect(), length)?)
}
