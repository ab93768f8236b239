//! Token edits: what a text edit becomes after tokenizing, and what a rank applies to its tables.

use crate::ids::{TokenId, TokenIndex};
use std::ops::Range;

/// At token index `at`, delete `delete` tokens, then insert `insert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Where, in the sequence before any splice of the same list.
    pub at: TokenIndex,
    /// How many tokens go.
    pub delete: u32,
    /// The tokens that come.
    pub insert: Vec<TokenId>,
}

impl Splice {
    /// The first index behind the deleted tokens, in the old sequence.
    pub fn end(&self) -> TokenIndex {
        TokenIndex(self.at.0.saturating_add(self.delete))
    }

    /// The indices that go, in the old sequence.
    pub fn deleted(&self) -> Range<usize> {
        self.at.usize()..self.end().usize()
    }

    fn is_nothing(&self) -> bool {
        self.delete == 0 && self.insert.is_empty()
    }
}

/// Why a list of splices is refused. A refused list has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Two splices touch the same token or stand in the wrong order.
    #[error(
        "splice {index} starts at token {at}, before the end {previous_end} of the one before it: \
         send splices sorted by `at`, all in indices of the sequence before the edit, and merge those that touch"
    )]
    Overlap {
        /// Which splice, counted from 0.
        index: usize,
        /// Where it starts.
        at: u32,
        /// Where the one before it ends.
        previous_end: u32,
    },
    /// A splice reaches behind the last token.
    #[error(
        "splice {index} covers tokens {at}..{end}, but the sequence has {length}: rebase it on the current tokens"
    )]
    OutOfBounds {
        /// Which splice, counted from 0.
        index: usize,
        /// Where it starts.
        at: u32,
        /// Where it ends.
        end: u64,
        /// Tokens in the sequence.
        length: u32,
    },
}

impl SpliceError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Overlap { .. } => "SPLICE_OVERLAP",
            Self::OutOfBounds { .. } => "SPLICE_OUT_OF_BOUNDS",
        }
    }

    /// Which splice of the list is wrong, counted from 0.
    pub fn index(&self) -> usize {
        match self {
            Self::Overlap { index, .. } | Self::OutOfBounds { index, .. } => *index,
        }
    }
}

/// Splices of one edit. S1: sorted by `at` and disjoint, all in indices of the sequence before the edit;
/// none is empty, and two never touch (they would be one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splices(Vec<Splice>);

impl Splices {
    /// Checks a list against a sequence of `length` tokens and drops splices that do nothing. Splices that touch
    /// (one ends where the next starts) are merged into one.
    ///
    /// # Errors
    /// [`SpliceError`] names the first splice that overlaps or leaves the sequence.
    pub fn new(list: Vec<Splice>, length: usize) -> Result<Self, SpliceError> {
        let mut checked: Vec<Splice> = Vec::with_capacity(list.len());
        let mut previous_end = 0;
        for (index, splice) in list.into_iter().enumerate() {
            let (at, end) = (splice.at.0, u64::from(splice.at.0) + u64::from(splice.delete));
            if index > 0 && at < previous_end {
                return Err(SpliceError::Overlap { index, at, previous_end });
            }
            if end > length as u64 {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                return Err(SpliceError::OutOfBounds { index, at, end, length });
            }
            previous_end = splice.end().0;
            match checked.last_mut() {
                Some(last) if last.end() == splice.at => {
                    last.delete += splice.delete;
                    last.insert.extend(splice.insert);
                }
                _ => checked.push(splice),
            }
        }
        checked.retain(|splice| !splice.is_nothing());
        Ok(Self(checked))
    }

    /// The one splice that appends `tokens` behind `length` tokens.
    pub fn append(length: usize, tokens: Vec<TokenId>) -> Result<Self, SpliceError> {
        let at = TokenIndex(u32::try_from(length).unwrap_or(u32::MAX));
        Self::new(vec![Splice { at, delete: 0, insert: tokens }], length)
    }

    /// The splices in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Splice> {
        self.0.iter()
    }

    /// True when nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tokens all splices insert.
    pub fn inserted(&self) -> usize {
        self.0.iter().map(|splice| splice.insert.len()).sum()
    }

    /// How many tokens all splices delete.
    pub fn deleted(&self) -> usize {
        self.0.iter().map(|splice| splice.delete as usize).sum()
    }

    /// A sequence with these splices applied, which must fit it.
    pub fn apply(&self, tokens: &[TokenId]) -> Vec<TokenId> {
        let mut tokens = tokens.to_vec();
        self.apply_to(&mut tokens, |token| token);
        tokens
    }

    /// Replaces each spliced range of `items`, which stand for tokens; what stays behind the first is moved once. `make` turns an
    /// inserted token into an item.
    pub fn apply_to<T: Copy>(&self, items: &mut Vec<T>, mut make: impl FnMut(TokenId) -> T) {
        let Some(first) = self.0.first() else { return };
        let behind = items.split_off(first.at.usize());
        items.reserve(behind.len() + self.inserted());
        let (mut old, mut at) = (behind.as_slice(), first.at);
        for splice in self {
            let (stay, rest) = old.split_at((splice.at.0 - at.0) as usize);
            items.extend_from_slice(stay);
            items.extend(splice.insert.iter().map(|token| make(*token)));
            (old, at) = (&rest[splice.delete as usize..], splice.end());
        }
        items.extend_from_slice(old);
    }

    /// The splices that take these back, once `tokens` have become what [`Splices::apply`] makes of them.
    #[must_use]
    pub fn inverse(&self, tokens: &[TokenId]) -> Self {
        let mut by = 0_u32;
        let undo = |splice: &Splice| {
            let (at, delete) = (TokenIndex(splice.at.0.wrapping_add(by)), splice.insert.len() as u32);
            by = by.wrapping_add(delete).wrapping_sub(splice.delete);
            Splice { at, delete, insert: tokens[splice.deleted()].to_vec() }
        };
        Self(self.0.iter().map(undo).collect())
    }

    /// Checks the list against a sequence of another length than it was made for.
    ///
    /// # Errors
    /// [`SpliceError::OutOfBounds`] for the first splice that leaves the sequence.
    pub fn fits(&self, length: usize) -> Result<(), SpliceError> {
        let out = |(index, splice): (usize, &Splice)| SpliceError::OutOfBounds {
            index,
            at: splice.at.0,
            end: u64::from(splice.end().0),
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        self.0
            .iter()
            .enumerate()
            .find(|(_, splice)| splice.end().usize() > length)
            .map(out)
            .map_or(Ok(()), Err)
    }
}

impl<'a> IntoIterator for &'a Splices {
    type Item = &'a Splice;
    type IntoIter = std::slice::Iter<'a, Splice>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
