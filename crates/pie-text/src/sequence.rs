//! Edits that follow each other, each in the text that those before it left, as an editor's didChange has them.

use crate::edit::bytes;
use crate::error::TextError;
use pie_words::{TextEdit, TextRange};
use ropey::Rope;

/// A changed part of the text. Regions are sorted, and text that stays lies between them.
struct Region {
    /// Bytes that stay between the region before and this one.
    kept: usize,
    /// Bytes of the base text that go.
    old: usize,
    /// Bytes that stand there now.
    new: usize,
}

/// The edits of the base text that do the same. Each edit looks at all regions: callers bound their number.
pub(crate) fn composed(base: &Rope, edits: &[TextEdit]) -> Result<Vec<TextEdit>, TextError> {
    let mut text = base.clone();
    let mut regions: Vec<Region> = Vec::new();
    for (index, edit) in edits.iter().enumerate() {
        let (start, end) = bytes(&text, index, edit.range)?;
        if start == end && edit.insert.is_empty() {
            continue;
        }
        let first = text.byte_to_char(start);
        text.remove(first..text.byte_to_char(end));
        text.insert(first, &edit.insert);
        change(&mut regions, start, end, edit.insert.len());
    }
    let (mut old, mut new) = (0, 0);
    let made = |region: Region| {
        (old, new) = (old + region.kept, new + region.kept);
        let insert = text.byte_slice(new..new + region.new).to_string();
        let range = TextRange::Bytes { start: old, end: old + region.old };
        (old, new) = (old + region.old, new + region.new);
        TextEdit { range, insert }
    };
    Ok(regions.into_iter().map(made).collect())
}

/// Bytes `start..end` of the present text become `inserted` others: one region with all those that they touch.
fn change(regions: &mut Vec<Region>, start: usize, end: usize, inserted: usize) {
    // The regions that are touched, and the first byte of each in the present text.
    let (mut first, mut at) = (0, 0);
    while let Some(region) = regions.get(first).filter(|region| at + region.kept + region.new < start) {
        at += region.kept + region.new;
        first += 1;
    }
    let (behind, mut last) = (at, first);
    let (mut from, mut to) = (start, end);
    // What the touched regions have, and what it stands for.
    let (mut theirs, mut replaced) = (0, 0);
    while let Some(region) = regions.get(last).filter(|region| at + region.kept <= end) {
        from = from.min(at + region.kept);
        at += region.kept + region.new;
        to = to.max(at);
        (theirs, replaced) = (theirs + region.new, replaced + region.old);
        last += 1;
    }
    if let Some(next) = regions.get_mut(last) {
        next.kept = at + next.kept - to;
    }
    let region = Region {
        kept: from - behind,
        old: to - from - theirs + replaced,
        new: to - from - (end - start) + inserted,
    };
    regions.splice(first..last, [region]);
}
