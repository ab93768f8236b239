//! Which lines differ between two texts, as places with what stands there afterwards.

use similar::{Algorithm, DiffTag, capture_diff_slices};

/// A part of a text that another one has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it begins, in bytes of the first text.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
    /// What the other text has there.
    pub text: String,
}

/// Changes from one text to another, sorted and apart, in bytes of the first; their ends that agree are cut off.
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let [old, new] = [old, new].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let (mut at, mut changes) = (0, Vec::new());
    for part in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let (gone, come) = (old[part.old_range()].concat(), new[part.new_range()].concat());
        if part.tag() != DiffTag::Equal {
            changes.push(trimmed(at, &gone, &come));
        }
        at += gone.len();
    }
    changes
}

/// What is equal at both ends of a change is no part of it.
fn trimmed(at: usize, gone: &str, come: &str) -> Change {
    let head: usize =
        gone.chars().zip(come.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let (gone, come) = (&gone[head..], &come[head..]);
    let ends = gone.chars().rev().zip(come.chars().rev());
    let tail: usize = ends.take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let start = at + head;
    Change { start, end: start + gone.len() - tail, text: come[..come.len() - tail].to_owned() }
}
