//! How many tokens are worth looking up ahead in a pass of a completion: as many as are likely to be drawn for what their rows cost. And where, beside
//! what its ranks hold: in what edits took out of the document, since what is removed often comes again, elsewhere or a little otherwise.

use pie_proto::plan::Speculated;
use pie_text::Document;
use pie_words::{Splice, Splices, TokenId};

/// Of a completion that has looked up nothing yet. It must have three tokens in common with what it looks up.
const AT_FIRST: f64 = 0.6;
/// What the older tokens' weight is when one more is known.
const MEMORY: f64 = 0.9;
/// By how much a draft must be likelier than its cost asks for: how likely it is, is not known well.
const MARGIN: f64 = 1.25;
/// How fast a completion for which nothing is worth looking up comes to try it again: after some thirty plans.
const FORGETTING: f64 = 0.02;

/// Tokens that are remembered of what edits removed, the latest.
const REMOVED: usize = 512;
/// What is shorter is typed over, not removed.
const LEAST_REMOVED: usize = 4;

/// What the latest edits removed from a document, the latest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed(Vec<TokenId>);

impl Removed {
    /// A document is about to be edited.
    pub fn follow(&mut self, document: &Document, splices: &Splices) {
        for Splice { at, delete, .. } in splices {
            let deleted = *delete as usize;
            if deleted >= LEAST_REMOVED {
                let end = at.usize() + deleted;
                self.0.extend(document.tokens_in(end - deleted.min(REMOVED)..end));
            }
        }
        self.0.drain(..self.0.len().saturating_sub(REMOVED));
    }

    /// With what a client expects, which is looked up first.
    pub fn before(&self, mut expected: Vec<TokenId>) -> Vec<TokenId> {
        expected.splice(0..0, self.0.iter().copied());
        expected
    }
}

/// What a completion looks up, and how often that was drawn.
pub(super) struct Lookahead {
    /// How likely a token is drawn that was looked up.
    likelihood: f64,
    /// What edits removed, and what its client expects it to write.
    expected: Vec<TokenId>,
}

impl Lookahead {
    /// Of a completion that begins.
    pub fn new(expected: Vec<TokenId>) -> Self {
        Self { likelihood: AT_FIRST, expected }
    }

    /// What it may write, beside what its session holds.
    pub fn expected(&self) -> &[TokenId] {
        &self.expected
    }

    /// What became of a plan's drafts.
    pub fn learn(&mut self, speculated: Speculated) {
        let (accepted, missed) = (f64::from(speculated.accepted), f64::from(speculated.missed));
        if accepted + missed > 0.0 {
            let weight = 1.0 - MEMORY.powf(accepted + missed);
            self.likelihood += weight * (accepted / (accepted + missed) - self.likelihood);
        }
    }

    /// So many that the last of them is as likely to be drawn as its row adds to a pass, `cost` of it.
    pub fn drafts(&mut self, cost: f64, most: u32) -> u32 {
        let worth = ((MARGIN * cost).ln() / self.likelihood.min(0.99).ln()).max(0.0);
        let worth = if worth.is_finite() { worth as u32 } else { 0 };
        if worth == 0 {
            self.likelihood += FORGETTING * (AT_FIRST - self.likelihood);
        }
        most.min(worth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_text::Tokenizer;
    use pie_words::{SessionId, TokenIndex};
    use std::sync::Arc;

    #[test]
    fn the_latest_that_was_removed_is_remembered() {
        let tokenizer =
            Tokenizer::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code").as_ref());
        let tokens: Vec<TokenId> = (0..2000).map(|token| TokenId(40 + token)).collect();
        let document =
            Document::open_tokens(Arc::new(tokenizer.expect("it ships")), tokens).expect("it is short");
        let all: Vec<TokenId> = document.tokens().collect();
        let splice = |at: usize, delete: u32| Splice { at: TokenIndex(at as u32), delete, insert: vec![] };
        let of = |edits: &[&[Splice]]| {
            let mut removed = Removed::default();
            for edit in edits {
                removed.follow(&document, &Splices::new(edit.to_vec(), all.len()).expect("they fit"));
            }
            removed.before(vec![TokenId(7)])
        };
        let with = |tokens: &[&[TokenId]]| [&tokens.concat()[..], &[TokenId(7)]].concat();
        assert_eq!(of(&[&[splice(5, 3)]]), [TokenId(7)], "typed over");
        assert_eq!(
            of(&[&[splice(5, 4), splice(20, 6)], &[splice(0, 9)]]),
            with(&[&all[5..9], &all[20..26], &all[..9]])
        );
        let latest = all.len() - REMOVED;
        assert_eq!(of(&[&[splice(0, 1000)], &[splice(0, all.len() as u32)]]), with(&[&all[latest..]]));
        assert_eq!(
            of(&[&[splice(0, 600)], &[splice(700, 100)]]),
            with(&[&all[600 - (REMOVED - 100)..600], &all[700..800]])
        );
    }

    #[test]
    fn what_is_seldom_drawn_is_not_looked_up_and_tried_again() {
        let plan = |accepted, missed| Speculated { session: SessionId(1), drafted: 9, accepted, missed };
        let mut lookahead = Lookahead::new(Vec::new());
        let first = lookahead.drafts(0.1, 16);
        assert!((2..=5).contains(&first), "{first}");
        // One plan whose drafts were all drawn says much, one that had a single one little.
        let mut two = [0, 1].map(|_| Lookahead::new(Vec::new()));
        two[0].learn(plan(30, 0));
        two[1].learn(plan(1, 0));
        let [much, little] = two.map(|mut own| own.drafts(0.1, 16));
        assert!(much == 16 && little <= first + 1, "{much} {little}");
        // A row that costs as much as a pass is never worth it, nor one of a cost that is not known.
        assert_eq!([1.0, f64::NAN, f64::INFINITY].map(|cost| lookahead.drafts(cost, 16)), [0; 3]);
        (0..20).for_each(|_| lookahead.learn(plan(9, 0)));
        assert_eq!(lookahead.drafts(0.1, 16), 16);
        (0..20).for_each(|_| lookahead.learn(plan(0, 3)));
        assert_eq!(lookahead.drafts(0.1, 16), 0);
        let waits = (0..1000).take_while(|_| lookahead.drafts(0.1, 16) == 0).count();
        assert!((3..100).contains(&waits), "{waits} plans until it is tried again");
    }
}
