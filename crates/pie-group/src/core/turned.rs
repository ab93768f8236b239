//! How a document stands in its table for a model that reads the text behind the cursor first: turned around.
//!
//! ```text
//! document   lead | front …  gap  … back
//! table      lead | open … back | between | front … | close
//! ```
//!
//! The table stays so between completions, since turning it costs encoding one side again: an edit of the document becomes one
//! of the table where the same tokens stand in it, and a cursor that moves takes the tokens that it passes from one side to the
//! other, which are encoded again. So both cost what they are, and what typing does, at the end of the front, is behind nearly all.

use super::layout::{count, place};
use pie_text::{Cut, Fim};
use pie_words::{Splice, Splices, TokenId};

/// What the table has besides the document's own tokens, and where it parts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turned {
    /// Tokens before every text, such as the begin of sentence.
    lead: usize,
    /// The front ends at this token of the document.
    cut: usize,
    /// The document's tokens that stand on neither side: the one that the cursor splits.
    gap: usize,
    /// Before the back: the marker, and what the back begins with of its own.
    open: Vec<TokenId>,
    between: Vec<TokenId>,
    /// Behind the front: what it ends with of its own, and the marker.
    close: Vec<TokenId>,
}

impl Turned {
    /// At a cursor in a document of these tokens.
    pub fn new(cut: &Cut, fim: &Fim, tokens: &[TokenId], lead: usize) -> Self {
        // A front that shares less than the lead has it all the same.
        let front = cut.shared_prefix.max(lead);
        // Tokens that belong to both sides stay in the front; the back repeats them.
        let repeated = &tokens[cut.shared_suffix.min(front)..front];
        Self {
            lead,
            cut: front,
            gap: cut.shared_suffix.saturating_sub(front),
            open: [&fim.open[..], &cut.suffix_start, repeated].concat(),
            between: fim.between.clone(),
            close: [&cut.prefix_end[..], &fim.close].concat(),
        }
    }

    /// Tokens of the table of a document that has `tokens`.
    pub fn length(&self, tokens: usize) -> usize {
        (tokens + self.open.len() + self.between.len() + self.close.len()).saturating_sub(self.gap)
    }

    /// Tokens of the document whose table has `length`.
    fn tokens(&self, length: usize) -> usize {
        (length + self.gap).saturating_sub(self.open.len() + self.between.len() + self.close.len())
    }

    /// The first token of the back, in the document.
    fn back(&self) -> usize {
        self.cut + self.gap
    }

    /// Where the table has the front's first token, if the document has so many.
    fn front_in_table(&self, tokens: usize) -> usize {
        self.lead + self.open.len() + tokens.saturating_sub(self.back()) + self.between.len()
    }

    /// An edit of the document, in the table, and how the document stands there then: on the side where it is. What is inserted
    /// at the cursor is of the front. `None` where it reaches into the lead.
    pub fn edited(&self, splices: &Splices, length: usize) -> Option<(Splices, Self)> {
        let front_in_table = self.front_in_table(self.tokens(length));
        let (cut, back) = (self.cut, self.back());
        let (mut of_front, mut of_back, mut next) = (Vec::new(), Vec::new(), self.clone());
        for splice in splices.iter() {
            let (at, end) = (splice.at.usize(), splice.end().usize());
            if at < self.lead {
                return None;
            }
            let goes_from = |start: usize, stop: usize| end.min(stop).saturating_sub(at.max(start));
            let (from_front, from_gap, from_back) =
                (goes_from(0, cut), goes_from(cut, back), goes_from(back, usize::MAX));
            let comes = splice.insert.len();
            let (to_front, to_back) = (at <= cut, at > cut && at >= back);
            next.cut = next.cut + if to_front { comes } else { 0 } - from_front;
            next.gap = next.gap + if to_front || to_back { 0 } else { comes } - from_gap;
            let insert = |is_here: bool| if is_here { splice.insert.clone() } else { Vec::new() };
            let in_front = front_in_table + at.min(cut) - self.lead;
            of_front.push(place(in_front, in_front + from_front, insert(to_front)));
            let in_back = self.lead + self.open.len() + at.max(back) - back;
            of_back.push(place(in_back, in_back + from_back, insert(to_back)));
        }
        // The table has the back first.
        let does = |splice: &Splice| splice.delete > 0 || !splice.insert.is_empty();
        let list = of_back.into_iter().chain(of_front).filter(does).collect();
        Splices::new(list, length).ok().map(|splices| (splices, next))
    }

    /// The edit of the table that leads to another cursor in the same document.
    pub fn moved(&self, to: &Self, tokens: &[TokenId]) -> Splices {
        let (length, front_in_table) = (self.length(tokens.len()), self.front_in_table(tokens.len()));
        let furthest = self.back().max(to.back()).min(tokens.len());
        let begins = |side: &Self| [&side.open, &tokens[side.back().min(furthest)..furthest]].concat();
        let nearest = self.cut.min(to.cut);
        let ends = |side: &Self| [&tokens[nearest..side.cut.max(nearest)], &side.close].concat();
        let between = front_in_table - self.between.len();
        let list = vec![
            rewritten(self.lead, &begins(self), begins(to)),
            rewritten(between, &self.between, to.between.clone()),
            rewritten(front_in_table + nearest - self.lead, &ends(self), ends(to)),
        ];
        Splices::new(list, length).unwrap_or_default()
    }

    /// The edit that turns a document around: the shorter side is encoded again.
    pub fn turning(&self, tokens: &[TokenId]) -> Splices {
        let (lead, cut, back, end) = (self.lead, self.cut, self.back(), tokens.len());
        let list = if self.keeps_back(end) {
            let behind = [&self.between, &tokens[lead..cut], &self.close].concat();
            vec![place(lead, back, self.open.clone()), place(end, end, behind)]
        } else {
            let before = [&self.open, &tokens[back..], &self.between].concat();
            vec![place(lead, lead, before), place(cut, end, self.close.clone())]
        };
        Splices::new(list, end).unwrap_or_default()
    }

    /// The edit that turns it back.
    pub fn turning_back(&self, tokens: &[TokenId]) -> Splices {
        let (lead, length) = (self.lead, self.length(tokens.len()));
        let front_in_table = self.front_in_table(tokens.len());
        let list = if self.keeps_back(tokens.len()) {
            let open = place(lead, lead + self.open.len(), tokens[lead..self.back()].to_vec());
            vec![open, place(front_in_table - self.between.len(), length, Vec::new())]
        } else {
            let front_ends = front_in_table + self.cut - lead;
            vec![
                place(lead, front_in_table, Vec::new()),
                place(front_ends, length, tokens[self.cut..].to_vec()),
            ]
        };
        Splices::new(list, length).unwrap_or_default()
    }

    fn keeps_back(&self, tokens: usize) -> bool {
        tokens.saturating_sub(self.back()) >= self.cut - self.lead
    }
}

/// The splice at `at` that makes `old` to `new`: what both begin or end with stays.
fn rewritten(at: usize, old: &[TokenId], mut new: Vec<TokenId>) -> Splice {
    let front = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let both = old[front..].iter().rev().zip(new[front..].iter().rev());
    let back = both.take_while(|(old, new)| old == new).count();
    new.truncate(new.len() - back);
    let start = at + front;
    Splice { delete: count(old.len() - front - back), ..place(start, start, new.split_off(front)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::layout::Layout;
    use pie_text::FimOrder;

    fn ids(range: impl IntoIterator<Item = u32>) -> Vec<TokenId> {
        range.into_iter().map(TokenId).collect()
    }

    fn fim(close: &[u32]) -> Fim {
        let family = "a test";
        let (open, between, close) = (ids([90]), ids([91]), ids(close.iter().copied()));
        Fim { family, order: FimOrder::SuffixFirst, open, between, close }
    }

    /// The slow and obvious way.
    fn laid_out(turned: &Turned, tokens: &[TokenId]) -> Vec<TokenId> {
        let (lead, cut) = (turned.lead, turned.cut);
        let back = &tokens[turned.back()..];
        [&tokens[..lead], &turned.open, back, &turned.between, &tokens[lead..cut], &turned.close].concat()
    }

    /// All ways to cut a document of `n` tokens behind a lead of one: between tokens, through one, with one on both sides.
    fn cuts(n: usize) -> Vec<Cut> {
        let cut = |front: usize, back: usize, own: &[u32]| Cut {
            shared_prefix: front,
            prefix_end: ids(own.iter().copied()),
            suffix_start: ids(own.iter().map(|id| id + 1)),
            shared_suffix: back,
        };
        let clean = (1..=n).map(|at| cut(at, at, &[]));
        let split = (1..n).map(|at| cut(at, at + 1, &[70]));
        let shared = (2..=n).map(|at| cut(at, at - 1, &[]));
        clean.chain(split).chain(shared).collect()
    }

    #[test]
    fn every_cursor_leads_to_every_other_and_back_to_the_document() {
        for (close, n) in [(&[92][..], 6), (&[], 5), (&[92, 93], 1)] {
            let document = ids(0..n);
            let turned = |cut: &Cut| Turned::new(cut, &fim(close), &document, 1);
            for from in cuts(document.len()).iter().map(turned) {
                let table = laid_out(&from, &document);
                assert_eq!(from.length(document.len()), table.len(), "{from:?}");
                assert_eq!(from.turning(&document).apply(&document), table, "{from:?}");
                assert_eq!(from.turning_back(&document).apply(&table), document, "{from:?}");
                for to in cuts(document.len()).iter().map(turned) {
                    let expected = laid_out(&to, &document);
                    assert_eq!(from.moved(&to, &document).apply(&table), expected, "{from:?}, then {to:?}");
                    let (go, come) =
                        Layout::Turned(from.clone()).change(&Layout::Turned(to), table.len(), &document);
                    assert_eq!(come.apply(&go.apply(&table)), expected);
                }
            }
        }
    }

    /// Every edit of one or two places, at every cursor: the table is the new document's, parted somewhere.
    #[test]
    fn edits_are_made_on_the_side_where_they_are() {
        let document = ids(0..6);
        let mut ranges = Vec::new();
        for start in 1..=6 {
            ranges.extend((start..=6).map(|end| (start, end)));
        }
        for turned in cuts(6).iter().map(|cut| Turned::new(cut, &fim(&[92]), &document, 1)) {
            let table = laid_out(&turned, &document);
            for (first, second) in
                ranges.iter().flat_map(|first| ranges.iter().map(move |second| (first, second)))
            {
                let one = place(first.0, first.1, ids([40, 41]));
                let two =
                    if second.0 > first.1 { vec![place(second.0, second.1, ids([50]))] } else { vec![] };
                let edit = Splices::new([vec![one], two].concat(), 6).expect("sorted and disjoint");
                let (splices, next) = turned.edited(&edit, table.len()).expect("behind the lead");
                let (edited, new) = (splices.apply(&table), edit.apply(&document));
                assert_eq!(edited, laid_out(&next, &new), "{turned:?}, {edit:?}");
                // What is encoded anew is no more than what came.
                assert!(splices.inserted() <= edit.inserted(), "{turned:?}, {edit:?}");
            }
        }
        let lead = Splices::new(vec![place(0, 1, Vec::new())], 6).expect("is inside");
        let turned = Turned::new(&cuts(6)[2], &fim(&[92]), &document, 1);
        assert_eq!(turned.edited(&lead, turned.length(6)), None);
    }

    /// Typing at the cursor appends to the table, but for the marker that ends it; a cursor costs the tokens that it passes.
    #[test]
    fn what_is_near_the_cursor_costs_little() {
        let document = ids(0..60);
        let at = |at: usize| Cut {
            shared_prefix: at,
            prefix_end: vec![],
            suffix_start: vec![],
            shared_suffix: at,
        };
        let [here, there] = [30, 34].map(|place| Turned::new(&at(place), &fim(&[92]), &document, 1));
        let typed = Splices::new(vec![place(30, 30, ids([77]))], 60).expect("is inside");
        let length = here.length(60);
        let (splices, next) = here.edited(&typed, length).expect("behind the lead");
        let list: Vec<Splice> = splices.iter().cloned().collect();
        assert_eq!(list, [place(length - 1, length - 1, ids([77]))]);
        assert_eq!(next.cut, 31);
        let moved = here.moved(&there, &document);
        assert_eq!((moved.deleted(), moved.inserted()), (4, 4));
    }
}
