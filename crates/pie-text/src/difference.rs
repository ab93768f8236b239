//! What turns tokens into others that were made of a text like theirs, or of several.
//!
//! Whole lines are compared, not tokens: brackets and indents stand in every file, and a token that stays because another text happens to
//! have it too keeps what it said there. Within lines that differ, what they begin and end with in common stays.

use crate::tokenizer::Tokenizer;
use pie_words::{Splice, Splices, TokenId, TokenIndex};
use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Tokens that have little in common are not compared for longer; what is not compared by then counts as replaced.
const LONGEST: Duration = Duration::from_millis(50);

/// Fewer tokens between two places that both take new text are not worth keeping: encoding them costs next to nothing.
const WORTH_KEEPING: usize = 8;

/// Which tokens end a line, of a model.
#[derive(Debug)]
pub(crate) struct LineEnds(Vec<bool>);

impl LineEnds {
    /// Those whose text has a line break; markers stand alone too.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let ids = (0..tokenizer.vocab_size()).map(TokenId);
        let mut ends: Vec<bool> = ids.map(|id| tokenizer.decode(&[id]).contains('\n')).collect();
        for control in tokenizer.control_tokens() {
            if let Some(end) = ends.get_mut(control.0 as usize) {
                *end = true;
            }
        }
        Self(ends)
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.0.get(token.0 as usize).copied().unwrap_or(true)
    }

    /// The tokens line by line.
    fn lines<'a>(&self, tokens: &'a [TokenId]) -> Vec<&'a [TokenId]> {
        tokens.split_inclusive(|token| self.is_end(*token)).collect()
    }
}

/// Tokens that are replaced, and by which.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hunk {
    old: Range<usize>,
    new: Range<usize>,
}

impl Tokenizer {
    /// The splices that turn tokens into others, line by line: for tokens of several texts, which come, go and change.
    pub fn difference(&self, old: &[TokenId], new: &[TokenId]) -> Splices {
        difference(old, new, self.line_ends.get_or_init(|| LineEnds::of(self)))
    }
}

/// The splices that turn `old` into `new`.
fn difference(old: &[TokenId], new: &[TokenId], ends: &LineEnds) -> Splices {
    let front = whole_lines(&old[..common(old.iter(), new.iter())], ends);
    let back = common(old[front..].iter().rev(), new[front..].iter().rev());
    // What it begins with is the rest of a line that is compared.
    let rest = old[old.len() - back..].iter().position(|token| ends.is_end(*token));
    let back = rest.map_or(0, |rest| back - rest - 1);
    let (inner_old, inner_new) = (&old[front..old.len() - back], &new[front..new.len() - back]);
    let hunks = merged(hunks(inner_old, inner_new, ends));
    let splice = |hunk: Hunk| {
        let (gone, come) = (&inner_old[hunk.old.clone()], &inner_new[hunk.new.clone()]);
        let same = common(gone.iter(), come.iter());
        let tail = common(gone[same..].iter().rev(), come[same..].iter().rev());
        Splice {
            at: TokenIndex(count(front + hunk.old.start + same)),
            delete: count(gone.len() - same - tail),
            insert: come[same..come.len() - tail].to_vec(),
        }
    };
    let list = hunks.into_iter().map(splice).collect();
    Splices::new(list, old.len()).unwrap_or_else(|_| all(old, new))
}

/// Tokens up to the last that ends a line.
fn whole_lines(tokens: &[TokenId], ends: &LineEnds) -> usize {
    tokens.iter().rposition(|token| ends.is_end(*token)).map_or(0, |last| last + 1)
}

/// Everything goes and comes. Hunks are sorted and disjoint, so that nobody needs it.
fn all(old: &[TokenId], new: &[TokenId]) -> Splices {
    let whole = Splice { at: TokenIndex(0), delete: count(old.len()), insert: new.to_vec() };
    Splices::new(vec![whole], old.len()).unwrap_or_default()
}

fn hunks(old: &[TokenId], new: &[TokenId], ends: &LineEnds) -> Vec<Hunk> {
    let (old_lines, new_lines) = (ends.lines(old), ends.lines(new));
    let deadline = Some(Instant::now() + LONGEST);
    let operations = capture_diff_slices_deadline(Algorithm::Myers, &old_lines, &new_lines, deadline);
    let (old_starts, new_starts) = (starts(&old_lines), starts(&new_lines));
    let tokens = |starts: &[usize], lines: Range<usize>| starts[lines.start]..starts[lines.end];
    let hunk = |operation: DiffOp| Hunk {
        old: tokens(&old_starts, operation.old_range()),
        new: tokens(&new_starts, operation.new_range()),
    };
    operations.into_iter().filter(|operation| operation.tag() != DiffTag::Equal).map(hunk).collect()
}

/// Where each line begins, and where the last one ends.
fn starts(lines: &[&[TokenId]]) -> Vec<usize> {
    let mut at = 0;
    let ends = lines.iter().map(|line| {
        at += line.len();
        at
    });
    std::iter::once(0).chain(ends).collect()
}

/// Hunks that take new text with too little between them are one.
fn merged(hunks: Vec<Hunk>) -> Vec<Hunk> {
    let mut merged: Vec<Hunk> = Vec::new();
    for hunk in hunks {
        match merged.last_mut() {
            Some(last)
                if !last.new.is_empty()
                    && !hunk.new.is_empty()
                    && hunk.old.start - last.old.end < WORTH_KEEPING =>
            {
                (last.old.end, last.new.end) = (hunk.old.end, hunk.new.end);
            }
            _ => merged.push(hunk),
        }
    }
    merged
}

/// How many pairs are equal before the first that is not.
fn common<'a>(a: impl Iterator<Item = &'a TokenId>, b: impl Iterator<Item = &'a TokenId>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Token 0 ends a line.
    fn ends() -> LineEnds {
        LineEnds(vec![true, false, false, false])
    }

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn it_turns_the_one_into_the_other(
            old in prop::collection::vec(0..4_u32, 0..60), new in prop::collection::vec(0..4_u32, 0..60)
        ) {
            let (old, new) = (ids(&old), ids(&new));
            prop_assert_eq!(difference(&old, &new, &ends()).apply(&old), new);
        }
    }

    #[test]
    fn what_stays_is_whole_lines_and_what_changed_lines_share() {
        type Case = (&'static str, &'static [u32], &'static [u32], &'static [(u32, u32, usize)]);
        let cases: &[Case] = &[
            (
                "a token typed in the middle of a line",
                &[1, 2, 3, 0, 1, 0],
                &[1, 2, 2, 3, 0, 1, 0],
                &[(2, 0, 1)],
            ),
            (
                "a line goes, another one comes far away",
                &[1, 1, 0, 2, 2, 2, 2, 2, 2, 2, 2, 0, 3, 0],
                &[2, 2, 2, 2, 2, 2, 2, 2, 0, 3, 0, 1, 1, 0],
                &[(0, 3, 0), (14, 0, 3)],
            ),
            (
                "a line that both happen to have does not stay between two that differ",
                &[1, 1, 0, 0, 1, 1, 0],
                &[2, 2, 0, 0, 3, 3, 0],
                &[(0, 6, 6)],
            ),
        ];
        for (name, old, new, expected) in cases {
            let splices = difference(&ids(old), &ids(new), &ends());
            let told: Vec<_> =
                splices.iter().map(|splice| (splice.at.0, splice.delete, splice.insert.len())).collect();
            assert_eq!(told, *expected, "{name}");
        }
    }
}
