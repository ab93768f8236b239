//! What differs between two sequences: a new text beside the one that is held.

use similar::{Algorithm, DiffOp, DiffTag, capture_diff_slices_deadline};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Texts that have little in common are not compared for longer; what is not compared by then counts as replaced.
const LONGEST: Duration = Duration::from_millis(200);

/// The ranges that are replaced, in order; what lies between them is equal.
pub(crate) fn diff<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<DiffOp> {
    let deadline = Some(Instant::now() + LONGEST);
    let mut all = capture_diff_slices_deadline(Algorithm::Myers, old, new, deadline);
    all.retain(|part| part.tag() != DiffTag::Equal);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The length of the longest common subsequence, by the textbook's table.
    fn common(old: &[u8], new: &[u8]) -> usize {
        let mut row = vec![0; new.len() + 1];
        for a in old {
            let mut diagonal = 0;
            for (index, b) in new.iter().enumerate() {
                let above = row[index + 1];
                row[index + 1] = if a == b { diagonal + 1 } else { above.max(row[index]) };
                diagonal = above;
            }
        }
        row[new.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn hunks_turn_one_into_the_other_and_are_fewest(
            old in prop::collection::vec(0..4_u8, 0..40), new in prop::collection::vec(0..4_u8, 0..40)
        ) {
            let hunks = diff(&old, &new);
            let mut made = old.clone();
            for hunk in hunks.iter().rev() {
                made.splice(hunk.old_range(), new[hunk.new_range()].iter().copied());
            }
            prop_assert_eq!(&made, &new);
            let kept = old.len() - hunks.iter().map(|hunk| hunk.old_range().len()).sum::<usize>();
            prop_assert_eq!(kept, common(&old, &new));
        }
    }

    #[test]
    fn far_apart_sequences_are_one_hunk() {
        let (old, new): (Vec<u32>, Vec<u32>) = ((0..5000).collect(), (10_000..15_000).collect());
        let whole = DiffOp::Replace { old_index: 0, old_len: 5000, new_index: 0, new_len: 5000 };
        assert_eq!(diff(&old, &new), [whole]);
    }
}
