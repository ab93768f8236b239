//! Histories of edits that end in a given text, or in a given text around a cursor: made up, or from commits.

use super::commits::CommittedEdits;
use super::place::{self, Fitted};
use crate::dataset::Set;
use crate::error::EvalError;
use crate::metrics::comments;
use crate::names::Spot;
use crate::task::{self, CursorCase, edit, line_end, line_starts, sampled_lines};
use pie_text::{Document, Tokenizer};
use pie_words::{Splices, TextEdit, TokenId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Lines of an edit, at most.
const LINES: usize = 5;

/// Texts that lead to a prompt, each by one edit. At the end of a document there is one text, at a cursor its two sides.
pub(super) struct History<'a> {
    tokenizer: &'a Arc<Tokenizer>,
    /// `texts[k]` is k edits before the prompt.
    texts: Vec<Vec<String>>,
    /// `steps[k]` makes `texts[k]` of `texts[k + 1]`: an edit of one of the texts.
    steps: Vec<(usize, TextEdit)>,
    /// What is to be predicted in the end.
    pub truth: String,
}

/// The last edits of a history, by tokens.
pub(super) struct EditSequence {
    /// The context before them.
    pub original: Vec<TokenId>,
    /// The edits, each in places that the ones before it leave.
    pub steps: Vec<Splices>,
}

impl<'a> History<'a> {
    /// Edits that lead to a sample's prompt. None where its text has no line for a cursor, and for a place that is not made up.
    pub fn made_up(
        tokenizer: &'a Arc<Tokenizer>,
        set: &Set,
        sample: usize,
        prompt: &Fitted,
        spot: Spot,
        count: usize,
    ) -> Option<Self> {
        let named = |what| task::random(0, set.language, set.setting, sample, what, 0);
        match spot {
            Spot::End => {
                let truth = set.samples[sample].next_line.clone();
                let texts = vec![vec![prompt.text.clone()]];
                let mut history = Self { tokenizer, texts, steps: Vec::new(), truth };
                history.go_back(count, set, &mut named("edited"));
                Some(history)
            }
            Spot::Cursor => {
                let mut random = named("edited at the cursor");
                let CursorCase { sides, line, edited, case } =
                    task::at_cursor(&prompt.text, comments(set.language), &mut random)?;
                let mut before = sides.to_vec();
                before[edited] = case.original;
                let texts = vec![sides.to_vec(), before];
                // The last edit is the one near the cursor, and it is one.
                let steps = case.edits.into_iter().take(1).map(|step| (edited, step)).collect();
                let mut history = Self { tokenizer, texts, steps, truth: line };
                history.go_back(count, set, &mut random);
                Some(history)
            }
            Spot::Git => None,
        }
    }

    /// Edits that people made.
    pub fn committed(tokenizer: &'a Arc<Tokenizer>, edits: &CommittedEdits) -> Self {
        let CommittedEdits { texts, steps, line, .. } = edits.clone();
        let texts = texts.into_iter().map(Vec::from).collect();
        Self { tokenizer, texts, steps, truth: line }
    }

    /// Goes back until there are `count` edits: each inserts, deletes or replaces one to five lines somewhere.
    fn go_back(&mut self, count: usize, set: &Set, random: &mut ChaCha8Rng) {
        while self.steps.len() < count {
            let after = &self.texts[self.texts.len() - 1];
            let side = drawn_side(after, random);
            let (text, end_text) = (&after[side], &self.texts[0][side]);
            let starts = line_starts(text);
            let lines = starts.len() - 1;
            // What is inserted, going back, is what the edit deletes. A text that grew shrinks again.
            let kind = if text.len() > end_text.len() { 1 } else { random.random_range(0..3) };
            let removed = if kind == 0 { 0 } else { random.random_range(1..=LINES).min(lines) };
            let first = random.random_range(0..=(lines - removed).min(lines.saturating_sub(1)));
            let (start, end) = (starts[first], starts[first + removed]);
            let added = if kind == 1 { 0 } else { random.random_range(1..=LINES) };
            let added = sampled_lines(added, line_end(end_text), &set.samples, random);
            let step = edit(start, start + added.len(), &text[start..end]);
            let mut before = after.clone();
            before[side] = format!("{}{added}{}", &text[..start], &text[end..]);
            self.steps.push((side, step));
            self.texts.push(before);
        }
    }

    /// The prompt.
    pub fn prompt(&self) -> Result<Vec<TokenId>, EvalError> {
        self.around(&self.opened(0)?)
    }

    /// The last `count` edits.
    pub fn stream(&self, count: u32) -> Result<EditSequence, EvalError> {
        let mut documents = self.opened(count as usize)?;
        let original = self.around(&documents)?;
        let mut steps = Vec::with_capacity(count as usize);
        for (side, step) in self.steps[..count as usize].iter().rev() {
            let skipped = self.skipped(&documents, *side);
            let length = self.around(&documents)?.len();
            let document = &mut documents[*side];
            let change = document.prepare(document.revision(), std::slice::from_ref(step))?;
            steps.push(place::moved(change.splices(), skipped, length)?);
            document.commit(change)?;
        }
        Ok(EditSequence { original, steps })
    }

    fn opened(&self, before: usize) -> Result<Vec<Document>, EvalError> {
        let open = |text: &String| Ok(Document::open(self.tokenizer.clone(), text, usize::MAX)?);
        self.texts[before].iter().map(open).collect()
    }

    fn leading(&self) -> usize {
        self.tokenizer.prefix().len()
    }

    /// The context that the model sees: the document, or its sides with markers.
    fn around(&self, documents: &[Document]) -> Result<Vec<TokenId>, EvalError> {
        match documents {
            [front, back] => {
                let side = |document: &Document| document.tokens().skip(self.leading()).collect::<Vec<_>>();
                Ok(place::with_markers(self.tokenizer, [&side(front), &side(back)]).unwrap_or_default())
            }
            _ => Ok(documents.iter().flat_map(Document::tokens).collect()),
        }
    }

    /// By how much the tokens of a side stand further back in the context than in its own document.
    fn skipped(&self, documents: &[Document], side: usize) -> usize {
        match documents {
            [front, back] => {
                let lengths = [front, back].map(|side| side.tokens().count() - self.leading());
                place::skipped(self.tokenizer, side, lengths)
            }
            _ => 0,
        }
    }
}

/// The side that is edited: one as often as it is long. A single one is not drawn.
fn drawn_side(sides: &[String], random: &mut ChaCha8Rng) -> usize {
    match sides {
        [front, back] => {
            let place = random.random_range(0..(front.len() + back.len()).max(1));
            usize::from(place >= front.len())
        }
        _ => 0,
    }
}
