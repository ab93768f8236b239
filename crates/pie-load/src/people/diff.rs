//! Which lines differ between two texts (Myers 1986), as places with what stands there afterwards.

use crate::script::TextChange;

/// Beyond so many differing lines the whole middle is one place: nobody edits so by hand, and the search is quadratic.
const MOST: usize = 400;

/// Changes from one text to another, sorted and apart, in bytes of the first; their ends that agree are cut off.
pub(super) fn changes(old: &str, new: &str) -> Vec<TextChange> {
    let (a, b): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (inner_a, inner_b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let kept = kept(inner_a, inner_b).unwrap_or_default();
    let mut found = Vec::new();
    let mut at = a[..head].iter().map(|line| line.len()).sum();
    let (mut x, mut y) = (0, 0);
    for (kept_x, kept_y) in kept.into_iter().chain([(inner_a.len(), inner_b.len())]) {
        let (gone, come) = (inner_a[x..kept_x].concat(), inner_b[y..kept_y].concat());
        if !gone.is_empty() || !come.is_empty() {
            found.push(trimmed(at, &gone, &come));
        }
        at += gone.len() + inner_a.get(kept_x).map_or(0, |line| line.len());
        (x, y) = (kept_x + 1, kept_y + 1);
    }
    found
}

/// What is equal at both ends of a change is no part of it.
fn trimmed(at: usize, gone: &str, come: &str) -> TextChange {
    let head: usize =
        gone.chars().zip(come.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let (gone, come) = (&gone[head..], &come[head..]);
    let ends = gone.chars().rev().zip(come.chars().rev());
    let tail: usize = ends.take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let start = at + head;
    TextChange { start, end: start + gone.len() - tail, text: come[..come.len() - tail].to_owned() }
}

/// Pairs of lines that stay, in order; none found when too much differs.
fn kept(a: &[&str], b: &[&str]) -> Option<Vec<(usize, usize)>> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let middle = (MOST + 1) as isize;
    let mut furthest = vec![0_isize; 2 * MOST + 3];
    let mut trace = Vec::new();
    for d in 0..=MOST as isize {
        trace.push(furthest.clone());
        for k in (-d..=d).step_by(2) {
            let place = (middle + k) as usize;
            let down = k == -d || (k != d && furthest[place - 1] < furthest[place + 1]);
            let mut x = if down { furthest[place + 1] } else { furthest[place - 1] + 1 };
            while x < n && x - k < m && x - k >= 0 && a[x as usize] == b[(x - k) as usize] {
                x += 1;
            }
            furthest[place] = x;
            if x >= n && x - k >= m {
                return Some(back(&trace, n, m));
            }
        }
    }
    None
}

/// Walks the trace from the end; the diagonals are what stays.
fn back(trace: &[Vec<isize>], n: isize, m: isize) -> Vec<(usize, usize)> {
    let middle = (MOST + 1) as isize;
    let (mut x, mut y, mut kept) = (n, m, Vec::new());
    for (d, furthest) in trace.iter().enumerate().rev() {
        let (d, k) = (d as isize, x - y);
        let of = |k: isize| furthest[(middle + k) as usize];
        let from = if k == -d || (k != d && of(k - 1) < of(k + 1)) { k + 1 } else { k - 1 };
        let (from_x, from_y) = if d == 0 { (0, 0) } else { (of(from), of(from) - from) };
        while x > from_x && y > from_y {
            (x, y) = (x - 1, y - 1);
            kept.push((x as usize, y as usize));
        }
        (x, y) = (from_x, from_y);
    }
    kept.reverse();
    kept
}
