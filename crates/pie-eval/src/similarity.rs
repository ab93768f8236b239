//! How much of two lines is the same, as fuzzywuzzy's two matchers count it.

use std::collections::HashMap;

/// From this length of the second text on, difflib finds no block by its popular characters.
const LONG: usize = 200;

/// Characters in the blocks that Python's `difflib.SequenceMatcher(None, a, b)` finds: the longest common block, then the
/// same to its left and to its right.
pub(crate) fn in_blocks(a: &[char], b: &[char]) -> usize {
    let mut places: HashMap<char, Vec<usize>> = HashMap::new();
    for (place, c) in b.iter().enumerate() {
        places.entry(*c).or_default().push(place);
    }
    if b.len() >= LONG {
        let most = b.len() / 100 + 1;
        places.retain(|_, places| places.len() <= most);
    }
    let mut open = vec![(0, a.len(), 0, b.len())];
    let mut sum = 0;
    while let Some((a_start, a_end, b_start, b_end)) = open.pop() {
        let (i, j, size) = longest_block(a, b, &places, (a_start, a_end), (b_start, b_end));
        if size > 0 {
            sum += size;
            open.push((a_start, i, b_start, j));
            open.push((i + size, a_end, j + size, b_end));
        }
    }
    sum
}

/// Where the longest common block starts in both, and its length; of several the first in `a`, then in `b`.
fn longest_block(
    a: &[char],
    b: &[char],
    places: &HashMap<char, Vec<usize>>,
    (a_start, a_end): (usize, usize),
    (b_start, b_end): (usize, usize),
) -> (usize, usize, usize) {
    let (mut i, mut j, mut size) = (a_start, b_start, 0);
    // Lengths of the blocks that end at a place of `b` and the character of `a` before.
    let mut before: HashMap<usize, usize> = HashMap::new();
    for (at, c) in a.iter().enumerate().take(a_end).skip(a_start) {
        let mut now = HashMap::new();
        let within = places.get(c).into_iter().flatten().filter(|place| (b_start..b_end).contains(place));
        for place in within {
            let length = place.checked_sub(1).and_then(|last| before.get(&last)).copied().unwrap_or(0) + 1;
            now.insert(*place, length);
            if length > size {
                (i, j, size) = (at + 1 - length, place + 1 - length, length);
            }
        }
        before = now;
    }
    // Popular characters found no block, but blocks grow over them.
    while i > a_start && j > b_start && a[i - 1] == b[j - 1] {
        (i, j, size) = (i - 1, j - 1, size + 1);
    }
    while i + size < a_end && j + size < b_end && a[i + size] == b[j + size] {
        size += 1;
    }
    (i, j, size)
}

/// Characters of the longest common subsequence: what insertions and deletions alone keep.
pub(crate) fn in_subsequence(a: &[char], b: &[char]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
