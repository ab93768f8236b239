//! What a region that is written anew changes: known line by line, as the answer comes.

use crate::diff::diff;
use pie_words::{TextEdit, TextRange};
use std::collections::HashMap;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerEnd {
    /// The model ended it.
    Whole,
    /// Something else did, in the middle: what is not known to be meant changes nothing.
    CutShort,
}

/// The answer to an [`EditableRegion`](crate::EditableRegion)'s prompt. The edits that it gives, all together, make of the region what was written:
/// they count in the document as it was when it was asked, are whole lines, sorted and disjoint, and each is given as soon as a
/// line behind it stands in the region too. Lines end as the region's do. Of lines that the answer does not come to, none is deleted: a model that ends early has
/// nothing more to change.
#[derive(Clone, Debug)]
pub struct RegionAnswer {
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
    ends: LineEnd,
}

/// How lines end. Models write the shorter way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Lf,
    CrLf,
}

impl RegionAnswer {
    /// Nothing is written yet of a region that begins at a byte of its document.
    pub fn new(start: usize, region: &str) -> Self {
        let lines: Vec<String> = region.split_inclusive('\n').map(str::to_owned).collect();
        let mut offsets = vec![start];
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, line) in lines.iter().enumerate() {
            offsets.push(offsets[index] + line.len());
            places.entry(line.clone()).or_default().push(index);
        }
        let once = places.into_iter().filter(|(line, places)| places.len() == 1 && says_something(line));
        let once = once.map(|(line, places)| (line, places[0])).collect();
        let ends = if region.contains("\r\n") { LineEnd::CrLf } else { LineEnd::Lf };
        Self { lines, offsets, once, settled: 0, written: Vec::new(), begun: String::new(), ends }
    }

    /// Takes what is written next, and gives what is settled by it.
    pub fn push(&mut self, text: &str) -> Vec<TextEdit> {
        let mut edits = Vec::new();
        self.begun.push_str(text);
        while let Some(end) = self.begun.find('\n') {
            let rest = self.begun.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.begun, rest);
            if self.ends == LineEnd::CrLf && !line.ends_with("\r\n") {
                line.insert(end, '\r');
            }
            edits.extend(self.line(line));
        }
        edits
    }

    fn line(&mut self, line: String) -> Vec<TextEdit> {
        if self.written.is_empty() && self.lines.get(self.settled) == Some(&line) {
            self.settled += 1;
            return Vec::new();
        }
        let found = self.place(&line);
        self.written.push(line);
        let Some(place) = found else { return Vec::new() };
        let written = std::mem::take(&mut self.written);
        let edits = self.between(place + 1, &written);
        self.settled = place + 1;
        edits
    }

    /// Where a line of the region stands again: one that stands there once, or the second of two that
    /// follow each other there as here. Empty lines and brackets stand anywhere.
    fn place(&self, line: &str) -> Option<usize> {
        if let Some(place) = self.once.get(line).filter(|place| **place >= self.settled) {
            return Some(*place);
        }
        let before = self.written.last()?;
        let pairs = self.lines[self.settled..].windows(2);
        if !says_something(before) && !says_something(line) {
            return None;
        }
        let found = pairs.enumerate().find(|(_, pair)| pair[0] == *before && pair[1] == line);
        found.map(|(index, _)| self.settled + index + 1)
    }

    /// What makes the lines from the settled ones to `end` what was written.
    fn between(&self, end: usize, written: &[String]) -> Vec<TextEdit> {
        let old = &self.lines[self.settled..end];
        let edit = |hunk: similar::DiffOp| {
            let lines = hunk.old_range();
            self.edit(lines.start, lines.end, written[hunk.new_range()].concat())
        };
        diff(old, written).into_iter().map(edit).collect()
    }

    /// Of lines counted from the first that is not settled.
    fn edit(&self, start: usize, end: usize, insert: String) -> TextEdit {
        let byte = |line: usize| self.offsets[self.settled + line];
        TextEdit { range: TextRange::Bytes { start: byte(start), end: byte(end) }, insert }
    }

    /// The answer is over: gives what it still changes.
    pub fn finish(mut self, end: AnswerEnd) -> Vec<TextEdit> {
        if end == AnswerEnd::CutShort {
            return Vec::new();
        }
        let old = &self.lines[self.settled..];
        if !self.begun.is_empty() {
            self.written.push(std::mem::take(&mut self.begun));
        }
        // How many empty lines end an answer says nothing.
        while self.written.last().is_some_and(|line| line.trim().is_empty()) {
            self.written.pop();
        }
        let Some(last) = self.written.last_mut() else { return Vec::new() };
        // The last line of a document may end without a line break; no other does.
        let is_last_of_all = |line: &String| !line.ends_with('\n');
        if !last.ends_with('\n') && !old.last().is_some_and(is_last_of_all) {
            last.push_str(self.ends.text());
        }
        let hunks = diff(old, &self.written);
        let unwritten = hunks
            .last()
            .filter(|hunk| hunk.old_range().end == old.len())
            .map_or(0, |hunk| hunk.old_range().len().saturating_sub(hunk.new_range().len()));
        let mut edits = Vec::new();
        for hunk in hunks {
            let lines = hunk.old_range();
            let end = lines.end.min(old.len() - unwritten).max(lines.start);
            let mut insert = self.written[hunk.new_range()].concat();
            if lines.start >= old.len() - unwritten && insert.is_empty() {
                continue;
            }
            if end < old.len() && !insert.is_empty() && !insert.ends_with('\n') {
                insert.push_str(self.ends.text());
            }
            edits.push(self.edit(lines.start, end, insert));
        }
        edits
    }
}

impl LineEnd {
    fn text(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
        }
    }
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
        assert_eq!(answered("alpha\nbravo", "alpha\nBRAVO\n", AnswerEnd::Whole, 1), "alpha\nBRAVO\n");
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
