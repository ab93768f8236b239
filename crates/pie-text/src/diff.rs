//! What differs between two sequences: the greedy algorithm of Myers, "An O(ND) Difference Algorithm and Its Variations"
//! (1986), figure 2, with a bound on D.

/// Items `old.0..old.1` of the old sequence become `new.0..new.1` of the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub old: (usize, usize),
    pub new: (usize, usize),
}

/// Beyond this many items that go or come, all between the first and the last difference is one hunk: a search costs
/// time and memory in the square of it.
const MOST_DIFFERENCES: usize = 1000;

/// The hunks in order; what lies between them is equal.
pub(crate) fn diff<T: Eq>(old: &[T], new: &[T]) -> Vec<Hunk> {
    let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[front..], &new[front..]);
    let back = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - back], &new[..new.len() - back]);
    if old.is_empty() && new.is_empty() {
        return Vec::new();
    }
    let whole = || vec![Hunk { old: (0, old.len()), new: (0, new.len()) }];
    let mut hunks = rounds(old, new).map_or_else(whole, |rounds| trace(old.len(), new.len(), &rounds));
    for hunk in &mut hunks {
        hunk.old = (hunk.old.0 + front, hunk.old.1 + front);
        hunk.new = (hunk.new.0 + front, hunk.new.1 + front);
    }
    hunks
}

/// For each number of differences d, how far into `old` one gets on each diagonal `k = x - y`: entry `(k + d) / 2`.
fn rounds<T: Eq>(old: &[T], new: &[T]) -> Option<Vec<Vec<usize>>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for d in 0..=MOST_DIFFERENCES.min(old.len() + new.len()) {
        let mut reached = Vec::with_capacity(d + 1);
        for step in 0..=d {
            let mut x = rounds.last().map_or(0, |before| entry(before, step).0);
            // y = x - k and k = 2 * step - d; a path has at least k deletions behind it, so x >= k.
            let mut y = x + d - 2 * step;
            while x < old.len() && y < new.len() && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
            }
            reached.push(x);
            if x == old.len() && y == new.len() {
                rounds.push(reached);
                return Some(rounds);
            }
        }
        rounds.push(reached);
    }
    None
}

/// Where a round begins on its diagonal number `step`, and whether it came by deleting (from the diagonal below).
fn entry(before: &[usize], step: usize) -> (usize, bool) {
    let inserted = before.get(step).copied();
    let deleted = step.checked_sub(1).and_then(|below| before.get(below)).map(|x| x + 1);
    match (inserted, deleted) {
        (Some(inserted), Some(deleted)) if deleted > inserted => (deleted, true),
        (Some(inserted), _) => (inserted, false),
        (None, deleted) => (deleted.unwrap_or(0), true),
    }
}

/// The hunks of the path that the last round ended.
fn trace(old: usize, new: usize, rounds: &[Vec<usize>]) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    let last = rounds.len() - 1;
    let mut step = rounds[last].len() - 1;
    debug_assert_eq!(2 * step + new, last + old, "the path ends in the corner");
    for d in (1..=last).rev() {
        let (x, deleted) = entry(&rounds[d - 1], step);
        let y = x + d - 2 * step;
        let (from_x, from_y) = if deleted { (x - 1, y) } else { (x, y - 1) };
        match hunks.last_mut() {
            Some(hunk) if hunk.old.0 == x && hunk.new.0 == y => (hunk.old.0, hunk.new.0) = (from_x, from_y),
            _ => hunks.push(Hunk { old: (from_x, x), new: (from_y, y) }),
        }
        step -= usize::from(deleted);
    }
    hunks.reverse();
    hunks
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
                made.splice(hunk.old.0..hunk.old.1, new[hunk.new.0..hunk.new.1].iter().copied());
            }
            prop_assert_eq!(&made, &new);
            let kept = old.len() - hunks.iter().map(|hunk| hunk.old.1 - hunk.old.0).sum::<usize>();
            prop_assert_eq!(kept, common(&old, &new));
        }
    }

    #[test]
    fn far_apart_sequences_are_one_hunk() {
        let (old, new): (Vec<u32>, Vec<u32>) = ((0..5000).collect(), (10_000..15_000).collect());
        assert_eq!(diff(&old, &new), [Hunk { old: (0, 5000), new: (0, 5000) }]);
    }
}
