//! Edits that follow each other, as one set of edits that all count in the text before the first of them.

use pie_client::Edit;
use std::ops::Range;

/// What a text has become since some moment.
///
/// Invariant: sorted and disjoint, with at least one kept byte between two; ranges are of the text as it was at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<Edit>);

impl Changes {
    /// Adds an edit of the text as it is now.
    pub fn add(&mut self, edit: &Edit) {
        let Edit { range: Range { start, end }, text } = edit;
        // Where the edits that it touches begin and end in this list, and by how much each moves what stands behind it.
        let (mut before, mut shift) = (0, 0_isize);
        while let Some(earlier) = self.0.get(before).filter(|earlier| moved(end_of(earlier), shift) < *start)
        {
            shift += growth(earlier);
            before += 1;
        }
        let (mut behind, mut merged) = (before, edit.clone());
        merged.range.start = moved(*start, -shift);
        while let Some(earlier) =
            self.0.get(behind).filter(|earlier| moved(earlier.range.start, shift) <= *end)
        {
            let now = moved(earlier.range.start, shift)..moved(end_of(earlier), shift);
            if behind == before && now.start <= *start {
                merged.range.start = earlier.range.start;
                merged.text = earlier.text[..start - now.start].to_owned() + text;
            }
            shift += growth(earlier);
            if *end < now.end {
                merged.text.push_str(&earlier.text[earlier.text.len() - (now.end - end)..]);
            }
            merged.range.end = moved((*end).max(now.end), -shift);
            behind += 1;
        }
        if behind == before {
            merged.range.end = moved(*end, -shift);
        }
        self.0.splice(before..behind, [merged]);
    }

    /// The edits, if all of them are inside of a range of the text before them or beside it: those inside, in bytes of the range, and
    /// where it is now.
    pub fn within(&self, range: Range<usize>) -> Option<Within> {
        let (mut edits, mut start, mut end) = (Vec::new(), range.start, range.end);
        for edit in &self.0 {
            let by = growth(edit);
            if edit.range.start >= range.start && edit.range.end <= range.end {
                end = moved(end, by);
                let Range { start: from, end: to } = edit.range;
                edits.push(Edit { range: from - range.start..to - range.start, text: edit.text.clone() });
            } else if edit.range.end <= range.start {
                (start, end) = (moved(start, by), moved(end, by));
            } else if edit.range.start < range.end {
                return None;
            }
        }
        Some(Within { edits, range: start..end })
    }
}

/// A range of a text, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// Edits of the range, in its bytes.
    pub edits: Vec<Edit>,
    /// Where it is in the text as it is now.
    pub range: Range<usize>,
}

/// Where an edit's text ends, if nothing before it moved it.
fn end_of(edit: &Edit) -> usize {
    edit.range.start + edit.text.len()
}

/// Lengths of texts in memory fit into this type.
fn growth(edit: &Edit) -> isize {
    edit.text.len().cast_signed() - edit.range.len().cast_signed()
}

fn moved(at: usize, by: isize) -> usize {
    at.saturating_add_signed(by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(text: &str, edits: &[Edit]) -> String {
        let mut text = text.to_owned();
        for edit in edits.iter().rev() {
            text.replace_range(edit.range.clone(), &edit.text);
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(8), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn one_set_does_what_the_edits_did_one_after_the_other(
            base in "[a-z]{0,40}",
            edits in prop::collection::vec((0_usize..60, 0_usize..8, "[A-Z]{0,6}"), 0..20),
            window in (0_usize..40, 0_usize..40),
        ) {
            let (mut text, mut changes) = (base.clone(), Changes::default());
            for (at, length, insert) in edits {
                let start = at.min(text.len());
                let end = (start + length).min(text.len());
                changes.add(&Edit { range: start..end, text: insert.clone() });
                text.replace_range(start..end, &insert);
            }
            prop_assert_eq!(applied(&base, &changes.0), text.clone());
            for pair in changes.0.windows(2) {
                prop_assert!(pair[0].range.end < pair[1].range.start, "{:?}", pair);
            }
            let start = window.0.min(base.len());
            let end = (start + window.1).min(base.len());
            if let Some(within) = changes.within(start..end) {
                prop_assert_eq!(applied(&base[start..end], &within.edits), &text[within.range.clone()]);
            }
            let whole = changes.within(0..base.len()).expect("nothing is outside of the whole");
            prop_assert_eq!(whole.range, 0..text.len());
        }
    }
}
