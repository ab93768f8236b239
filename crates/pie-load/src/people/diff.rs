//! Which lines differ between two texts, as places with what stands there afterwards.

use crate::script::TextChange;
use similar::{Algorithm, DiffTag, capture_diff_slices};

/// Changes from one text to another, sorted and apart, in bytes of the first; their ends that agree are cut off.
pub(super) fn changes(old: &str, new: &str) -> Vec<TextChange> {
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
fn trimmed(at: usize, gone: &str, come: &str) -> TextChange {
    let head: usize =
        gone.chars().zip(come.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let (gone, come) = (&gone[head..], &come[head..]);
    let ends = gone.chars().rev().zip(come.chars().rev());
    let tail: usize = ends.take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let start = at + head;
    TextChange { start, end: start + gone.len() - tail, text: come[..come.len() - tail].to_owned() }
}
