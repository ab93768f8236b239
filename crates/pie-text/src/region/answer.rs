//! What a region that is written anew changes: known line by line, as the answer comes.

use crate::diff::diff;
use pie_words::{TextEdit, TextRange};
use std::collections::HashMap;
use std::ops::Range;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// The model ended it.
    Whole,
    /// Something else did, in the middle: what is not known to be meant changes nothing.
    CutShort,
}

/// The answer to an [`EditableRegion`](crate::EditableRegion)'s prompt. The edits that it gives, all together, make of the region what was written:
/// they count in the document as it was when it was asked, are whole lines, sorted and disjoint, and each is given as soon as lines
/// behind it stand in the region too. Lines are compared without their ends, and end as the region's do. Of lines that the answer does
/// not come to, none is deleted: a model that ends early has nothing more to change.
#[derive(Clone, Debug)]
pub struct RegionAnswer {
    /// Without their ends.
    lines: Vec<String>,
    /// Where each begins in the document, and where the last one ends.
    offsets: Vec<usize>,
    /// Lines that stand once in the region, and where.
    once: HashMap<String, usize>,
    /// Lines that are settled.
    settled: usize,
    /// Lines that were written behind those, and have no place yet.
    written: Vec<String>,
    /// The begin of a line.
    begun: String,
    /// How lines end that are new.
    end: &'static str,
    /// How the last line ends: not at all, where it is the document's.
    last_end: String,
}

impl RegionAnswer {
    /// Nothing is written yet of a region that begins at a byte of its document.
    pub fn new(start: usize, region: &str) -> Self {
        let (mut lines, mut offsets) = (Vec::new(), vec![start]);
        let mut last_end = String::new();
        for line in region.split_inclusive('\n') {
            let content = line.trim_end_matches(['\r', '\n']);
            offsets.push(offsets[lines.len()] + line.len());
            lines.push(content.to_owned());
            line[content.len()..].clone_into(&mut last_end);
        }
        let mut places: HashMap<&String, Vec<usize>> = HashMap::new();
        lines.iter().enumerate().for_each(|(index, line)| places.entry(line).or_default().push(index));
        let once = places.into_iter().filter(|(line, places)| places.len() == 1 && says_something(line));
        let once = once.map(|(line, places)| (line.clone(), places[0])).collect();
        // Models write the shorter way.
        let end = if region.contains("\r\n") { "\r\n" } else { "\n" };
        Self { lines, offsets, once, settled: 0, written: Vec::new(), begun: String::new(), end, last_end }
    }

    /// Takes what is written next, and gives what is settled by it.
    pub fn push(&mut self, text: &str) -> Vec<TextEdit> {
        let mut edits = Vec::new();
        self.begun.push_str(text);
        while let Some(end) = self.begun.find('\n') {
            let rest = self.begun.split_off(end + 1);
            let line = std::mem::replace(&mut self.begun, rest);
            edits.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        edits
    }

    fn line(&mut self, line: &str) -> Vec<TextEdit> {
        if self.written.is_empty() && self.lines.get(self.settled).is_some_and(|next| next == line) {
            self.settled += 1;
            return Vec::new();
        }
        let found = self.place(line);
        self.written.push(line.to_owned());
        let Some(place) = found else { return Vec::new() };
        let written = std::mem::take(&mut self.written);
        let edits = self.between(place + 1, &written);
        self.settled = place + 1;
        edits
    }

    /// Where a line of the region stands again: one that stands there once, if no more lines were passed over than were written instead
    /// (those may come yet), or the second of two that follow each other there as here. Empty lines and brackets stand anywhere.
    fn place(&self, line: &str) -> Option<usize> {
        let is_ahead = |place: &&usize| (self.settled..=self.settled + self.written.len()).contains(*place);
        if let Some(place) = self.once.get(line).filter(is_ahead) {
            return Some(*place);
        }
        let before = self.written.last()?;
        if !says_something(before) && !says_something(line) {
            return None;
        }
        let pairs = self.lines[self.settled..].windows(2);
        let found = pairs.enumerate().find(|(_, pair)| pair[0] == *before && pair[1] == line);
        found.map(|(index, _)| self.settled + index + 1)
    }

    /// What makes the lines from the settled ones to `end` what was written.
    fn between(&self, end: usize, written: &[String]) -> Vec<TextEdit> {
        let hunks = diff(&self.lines[self.settled..end], written);
        hunks.into_iter().map(|hunk| self.edit(hunk.old_range(), &written[hunk.new_range()])).collect()
    }

    /// Other lines in place of some, counted from the first that is not settled.
    fn edit(&self, old: Range<usize>, new: &[String]) -> TextEdit {
        let (start, end) = (self.settled + old.start, self.settled + old.end);
        let mut insert: String = new.iter().flat_map(|line| [line.as_str(), self.end]).collect();
        if end == self.lines.len() && !new.is_empty() {
            // The region ends as it did, and what comes behind a last line without an end begins with one.
            insert.truncate(insert.len() - self.end.len());
            let is_behind = old.is_empty() && self.last_end.is_empty() && !self.lines.is_empty();
            insert = if is_behind { format!("{}{insert}", self.end) } else { insert + &self.last_end };
        }
        TextEdit { range: TextRange::Bytes { start: self.offsets[start], end: self.offsets[end] }, insert }
    }

    /// The answer is over: gives what it still changes.
    pub fn finish(mut self, end: AnswerEnd) -> Vec<TextEdit> {
        if end == AnswerEnd::CutShort {
            return Vec::new();
        }
        let begun = std::mem::take(&mut self.begun);
        self.written.push(begun.trim_end_matches('\r').to_owned());
        // How many empty lines end an answer says nothing.
        while self.written.last().is_some_and(|line| line.trim().is_empty()) {
            self.written.pop();
        }
        let written = std::mem::take(&mut self.written);
        let reached = reached(&self.lines[self.settled..], &written);
        self.between(self.settled + reached, &written)
    }
}

/// Pairs of lines that are compared at the end of an answer, at most.
const PAIRS: usize = 1 << 20;

/// How many of the lines an answer's last lines stand for: as few as have most in common with them, and, for what is written behind the
/// last that they have in common, as many more.
fn reached(lines: &[String], written: &[String]) -> usize {
    if lines.len().saturating_mul(written.len()) > PAIRS {
        return written.len().min(lines.len());
    }
    // common[k]: of the longest common subsequence of the first k lines and what was written so far; last[k]: how much had been
    // written when it was reached first.
    let (mut common, mut last) = (vec![0_usize; lines.len() + 1], vec![0_usize; lines.len() + 1]);
    for (index, new) in written.iter().enumerate() {
        let mut diagonal = 0;
        for (k, old) in lines.iter().enumerate() {
            let above = common[k + 1];
            let with = if old == new { diagonal + 1 } else { 0 };
            let best = above.max(common[k]).max(with);
            if best > above {
                last[k + 1] = if best == with { index + 1 } else { last[k] };
            }
            (common[k + 1], diagonal) = (best, above);
        }
    }
    let most = common[lines.len()];
    let k = common.partition_point(|common| *common < most);
    (k + written.len() - last[k]).min(lines.len())
}

/// Whether a line tells where it stands: a bracket alone does not.
fn says_something(line: &str) -> bool {
    line.chars().filter(|character| character.is_alphanumeric()).count() >= 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: usize = 100;

    fn applied(region: &str, edits: &[TextEdit]) -> String {
        let mut text = region.to_owned();
        let ranges = edits.iter().map(|edit| match edit.range {
            TextRange::Bytes { start, end } => (start - START..end - START, &edit.insert),
            TextRange::Lsp { .. } => panic!("bytes are given"),
        });
        let ranges: Vec<_> = ranges.collect();
        assert!(ranges.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start), "{ranges:?}");
        ranges.iter().rev().for_each(|(range, insert)| text.replace_range(range.clone(), insert));
        text
    }

    fn answered(region: &str, answer: &str, end: AnswerEnd, cut: usize) -> String {
        let mut all = RegionAnswer::new(START, region);
        let mut edits = Vec::new();
        let parts: Vec<char> = answer.chars().collect();
        for part in parts.chunks(cut) {
            edits.extend(all.push(&part.iter().collect::<String>()));
        }
        edits.extend(all.finish(end));
        applied(region, &edits)
    }

    #[test]
    fn edits_come_as_soon_as_they_are_settled() {
        let region = "fn one() {\n    first();\n}\n\nfn two() {\n    second();\n}\n";
        let mut answer = RegionAnswer::new(START, region);
        assert_eq!(answer.push("fn one() {\n    fir"), []);
        assert_eq!(answer.push("stly();\n}"), []);
        // Brackets and empty lines may stand anywhere.
        assert_eq!(answer.push("\n\n"), []);
        assert_eq!(answer.push("fn two() {\n    secondly();\n").len(), 1);
        let last = answer.finish(AnswerEnd::Whole);
        let place = START + region.find("    second").expect("there");
        let range = TextRange::Bytes { start: place, end: place + "    second();\n".len() };
        assert_eq!(last, [TextEdit { range, insert: "    secondly();\n".to_owned() }]);
    }

    #[test]
    fn an_answer_that_ends_early_deletes_nothing() {
        let region = "alpha\nbravo\ncharlie\ndelta\n";
        let cases = [
            ("", region),
            ("alpha\n", region),
            ("alpha\nBRAVO\n", "alpha\nBRAVO\ncharlie\ndelta\n"),
            ("alpha\nBRAVO", "alpha\nBRAVO\ncharlie\ndelta\n"),
            ("alpha\ncharlie\ndelta\n", "alpha\ncharlie\ndelta\n"),
            ("alpha\nbravo\ncharlie\ndelta\n\n\n", region),
            ("alpha\nbravo\ncharlie\ndelta\necho", "alpha\nbravo\ncharlie\ndelta\necho\n"),
        ];
        for (answer, expected) in cases {
            assert_eq!(answered(region, answer, AnswerEnd::Whole, 3), expected, "{answer:?}");
        }
        assert_eq!(answered(region, "ALPHA\nBRAVO\nCHAR", AnswerEnd::CutShort, 3), region);
        assert_eq!(
            answered(region, "ALPHA\nbravo\nCHAR", AnswerEnd::CutShort, 3),
            "ALPHA\nbravo\ncharlie\ndelta\n"
        );
        let (windows, changed) = (region.replace('\n', "\r\n"), "alpha\r\nBRAVO\r\ncharlie\r\ndelta\r\n");
        assert_eq!(answered(&windows, "alpha\nBRAVO\ncharlie\ndelta\n", AnswerEnd::Whole, 3), changed);
        assert_eq!(answered(&windows, "alpha\r\nBRAVO", AnswerEnd::Whole, 3), changed);
        // A document's last line may have no line break, and keeps none.
        assert_eq!(answered("alpha\nbravo", "alpha\nBRAVO", AnswerEnd::Whole, 1), "alpha\nBRAVO");
        assert_eq!(answered("alpha\nbravo", "alpha\nBRAVO\n", AnswerEnd::Whole, 1), "alpha\nBRAVO");
        assert_eq!(answered("alpha\nbravo", "alpha\nbravo\n", AnswerEnd::Whole, 1), "alpha\nbravo");
        assert_eq!(
            answered("alpha\nbravo", "alpha\nbravo\ncharlie\n", AnswerEnd::Whole, 1),
            "alpha\nbravo\ncharlie"
        );
        assert_eq!(answered("", "alpha\n", AnswerEnd::Whole, 1), "alpha");
        // Nothing but lines is changed, however they end.
        let mixed = "alpha\r\nbravo\ncharlie\rdelta\r";
        assert_eq!(answered(mixed, "alpha\nbravo\ncharlie\rdelta\n", AnswerEnd::Whole, 2), mixed);
        assert_eq!(answered(mixed, "alpha\nbravo\nx\n", AnswerEnd::Whole, 2), "alpha\r\nbravo\nx\r");
    }

    #[test]
    fn an_answer_that_ends_on_a_line_that_stands_often_stands_for_the_first_of_them() {
        let rust = "fn one() {\n    first();\n}\n\nfn two() {\n    second();\n}\n";
        let python = "def one(x):\n    x = 1\n    return x\n\ndef two(x):\n    x = 2\n    return x\n";
        let cases = [
            (rust, "fn one() {\n    firstly();\n}\n", rust.replace("first", "firstly")),
            (python, "def one(x):\n    x = 7\n    return x\n", python.replace("x = 1", "x = 7")),
            (
                "call(\n  a,\n)\ncall(\n  b,\n)\n",
                "call(\n  A,\n)",
                "call(\n  A,\n)\ncall(\n  b,\n)\n".to_owned(),
            ),
        ];
        for (region, answer, expected) in cases {
            assert_eq!(answered(region, answer, AnswerEnd::Whole, 4), expected, "{answer:?}");
        }
    }

    #[test]
    fn lines_that_move_up_delete_nothing_before_the_rest_is_there() {
        let region = "import os\nimport sys\nimport json\n\nx = load()\n";
        let sorted = "import json\nimport os\nimport sys\n\nx = load()\n";
        assert_eq!(answered(region, sorted, AnswerEnd::Whole, 3), sorted);
        assert_eq!(answered(region, &sorted[..20], AnswerEnd::CutShort, 3), region);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000, rng_seed: proptest::test_runner::RngSeed::Fixed(21), failure_persistence: None, ..ProptestConfig::default()
        })]

        /// Whatever is written, the edits make it of the region: as long as the answer comes to the region's last line.
        #[test]
        fn edits_make_of_the_region_what_was_written(
            old in prop::collection::vec(0..6_u8, 0..24), new in prop::collection::vec(0..8_u8, 0..24), cut in 1..9_usize
        ) {
            const WORDS: [&str; 8] = ["}", "", "return", "alpha()", "bravo()", "charlie()", "delta()", "{"];
            let text = |lines: &[u8]| -> String {
                lines.iter().map(|line| format!("{}\n", WORDS[usize::from(*line)])).collect()
            };
            let last = "the last line\n";
            let (region, answer) = (text(&old) + last, text(&new) + last);
            prop_assert_eq!(answered(&region, &answer, AnswerEnd::Whole, cut), answer);
        }
    }
}
