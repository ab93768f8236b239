//! The rows of one forward pass, of any number of sequences, each row at any position.

use crate::error::ModelError;
use pie_kv::{Attention, View};
use pie_words::{Slot, TokenId, TokenIndex};
use std::ops::Range;

/// What one forward pass encodes. Prefill, tokens spliced in at several places, the last token encoded again, and
/// decoding are all the same thing: rows.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    /// [rows] ids.
    pub tokens: Vec<TokenId>,
    /// [rows] positions that keys and queries are rotated for.
    pub positions: Vec<TokenIndex>,
    /// [rows] where K and V go; each slot once.
    pub slots: Vec<Slot>,
    /// In the order of their rows, which they share out completely.
    pub sequences: Vec<Sequence<'a>>,
    /// Rows whose logits are wanted, in any order.
    pub logits_of: Vec<usize>,
    /// Who may give the pass up in the middle.
    pub interrupt: Option<Interrupt<'a>>,
}

/// Says whether a pass is to be given up; asked on every rank in each layer. One rank that says so ends it for all.
#[derive(Clone, Copy)]
pub struct Interrupt<'a>(pub &'a (dyn Fn() -> bool + Sync));

impl std::fmt::Debug for Interrupt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interrupt")
    }
}

/// The rows of one sequence, and what they see.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// Its rows.
    pub rows: Range<usize>,
    /// The slots of its context, those of its rows included.
    pub view: View<'a>,
    /// [rows] how many leading slots of the view each row sees, itself included (M1); ascending.
    pub visible: Vec<u32>,
}

impl Sequence<'_> {
    pub(crate) fn attention(&self) -> Attention<'_> {
        Attention { rows: self.rows.clone(), view: self.view, visible: &self.visible }
    }
}

/// What a batch must fit.
pub(crate) struct BatchLimits {
    /// Tokens are below it.
    pub vocabulary: usize,
    /// Positions are below it.
    pub positions: usize,
    /// Slots are below it.
    pub slots: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn check(&self, limits: &BatchLimits) -> Result<(), ModelError> {
        let wrong = |what: String| Err(ModelError::BatchInvalid(what));
        let rows = self.tokens.len();
        if self.positions.len() != rows || self.slots.len() != rows {
            let (positions, slots) = (self.positions.len(), self.slots.len());
            return wrong(format!(
                "{rows} tokens, {positions} positions and {slots} slots; they must be as many"
            ));
        }
        if let Some(token) = self.tokens.iter().find(|token| token.0 as usize >= limits.vocabulary) {
            return wrong(format!("token {token} is beyond the vocabulary of {}", limits.vocabulary));
        }
        if let Some(position) = self.positions.iter().find(|position| position.usize() >= limits.positions) {
            return wrong(format!(
                "position {position} is beyond the model's context of {}",
                limits.positions
            ));
        }
        let own = self.slots.iter().map(|slot| slot.usize());
        let seen = self.sequences.iter().filter_map(|sequence| sequence.view.bound().checked_sub(1));
        if let Some(slot) = own.chain(seen).find(|slot| *slot >= limits.slots) {
            return wrong(format!("slot {slot} is beyond the cache's {}", limits.slots));
        }
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        if let Some(pair) = slots.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!("two rows write slot {}", pair[0]));
        }
        if let Some(row) = self.logits_of.iter().find(|row| **row >= rows) {
            return wrong(format!("logits of row {row} of {rows}"));
        }
        let mut next = 0;
        for sequence in &self.sequences {
            self.check_sequence(sequence, next)?;
            next = sequence.rows.end;
        }
        if next != rows { wrong(format!("sequences have {next} of the {rows} rows")) } else { Ok(()) }
    }

    fn check_sequence(&self, sequence: &Sequence<'_>, start: usize) -> Result<(), ModelError> {
        let Sequence { rows, view, visible } = sequence;
        let wrong = |what: String| Err(ModelError::BatchInvalid(what));
        if rows.start != start || rows.end < start || rows.end > self.tokens.len() {
            return wrong(format!(
                "a sequence has rows {rows:?}; the next row without a sequence is {start}"
            ));
        }
        if visible.len() != rows.len() || !visible.is_sorted() {
            return wrong(format!(
                "rows {rows:?} need as many visibilities, ascending; got {}",
                visible.len()
            ));
        }
        for (row, visible) in rows.clone().zip(visible) {
            let own = self.positions[row].usize() + 1;
            // M1: a row sees indices up to its own.
            if *visible == 0 || *visible as usize > own.min(view.len()) {
                let length = view.len();
                return wrong(format!(
                    "M1: row {row} at position {} sees {visible} of {length} slots",
                    own - 1
                ));
            }
        }
        Ok(())
    }

    /// The rows whose logits are wanted, once each and ascending, as a smaller set of queries.
    pub(crate) fn wanted(&self) -> LogitRows<'a> {
        let mut rows = self.logits_of.clone();
        rows.sort_unstable();
        rows.dedup();
        let mut sequences = Vec::new();
        for sequence in &self.sequences {
            let within = |row: usize| rows.partition_point(|wanted| *wanted < row);
            let part = within(sequence.rows.start)..within(sequence.rows.end);
            if !part.is_empty() {
                let visible =
                    rows[part.clone()].iter().map(|row| sequence.visible[row - sequence.rows.start]);
                let visible = visible.collect();
                sequences.push(Sequence { rows: part, view: sequence.view, visible });
            }
        }
        let place = |row: &usize| rows.partition_point(|wanted| wanted < row) as u32;
        let order = self.logits_of.iter().map(place).collect();
        LogitRows { rows: rows.iter().map(|row| *row as u32).collect(), sequences, order }
    }
}

/// Rows that go on after the last layer's keys and values are written.
pub(crate) struct LogitRows<'a> {
    /// Ascending, each once.
    pub rows: Vec<u32>,
    /// Their sequences, with ranges over `rows`.
    pub sequences: Vec<Sequence<'a>>,
    /// For each of `logits_of`, where its row is in `rows`.
    pub order: Vec<u32>,
}
