//! The latest edits of a text, as a person makes them: keystrokes at one place are one burst.

use pie_words::Rewrite;
use ropey::Rope;
use std::collections::VecDeque;
use std::ops::Range;

/// Bursts that are remembered, the latest.
const BURSTS: usize = 6;
/// Lines between two edits of one burst, at most.
const NEAR: usize = 1;

/// Edits at one place, one after the other.
#[derive(Clone, Debug)]
struct Burst {
    /// The text before the first of them; it shares its memory with the present one.
    before: Rope,
    /// Lines of the present text that they changed.
    lines: Range<usize>,
}

/// The latest bursts of edits, the latest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bursts(VecDeque<Burst>);

impl Bursts {
    /// The text was edited: what it was, what it is, and the places in bytes of what it was, in order.
    pub fn follow(&mut self, old: &Rope, new: &Rope, rewrites: &[Rewrite]) {
        let (Some(first), Some(last)) = (rewrites.first(), rewrites.last()) else { return };
        let edited = old.byte_to_line(first.start)..old.byte_to_line(last.end) + 1;
        let grown = new.len_lines() as i64 - old.len_lines() as i64;
        let end = |line: usize| usize::try_from(line as i64 + grown).unwrap_or(0).max(edited.start + 1);
        if let Some(latest) = self.0.back_mut().filter(|latest| is_near(&latest.lines, &edited)) {
            latest.lines = latest.lines.start.min(edited.start)..end(latest.lines.end.max(edited.end));
            return;
        }
        self.0.push_back(Burst { before: old.clone(), lines: edited.start..end(edited.end) });
        self.0.drain(..self.0.len().saturating_sub(BURSTS));
    }

    /// The text before all of them; `None` without any.
    pub fn before_all(&self) -> Option<&Rope> {
        self.0.front().map(|burst| &burst.before)
    }

    /// The text before the latest.
    pub fn before_latest(&self) -> Option<&Rope> {
        self.0.back().map(|burst| &burst.before)
    }
}

fn is_near(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start <= other.end + NEAR && other.start <= one.end + NEAR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(bursts: &mut Bursts, text: &mut Rope, line: usize, insert: &str) {
        let old = text.clone();
        let at = text.line_to_char(line);
        text.insert(at, insert);
        let byte = old.line_to_byte(line);
        bursts.follow(&old, text, &[Rewrite { start: byte, end: byte, text: insert.to_owned() }]);
    }

    #[test]
    fn keystrokes_at_one_place_are_one_burst() {
        let lines: String = (0..40).map(|line| format!("{line}\n")).collect();
        let (mut bursts, first) = (Bursts::default(), Rope::from_str(&lines));
        let mut text = first.clone();
        ["a", "b", "c\n"].into_iter().for_each(|typed| edit(&mut bursts, &mut text, 20, typed));
        // The line break moved what was there down: it is near still.
        edit(&mut bursts, &mut text, 22, "d");
        assert_eq!(bursts.0.len(), 1);
        assert_eq!(bursts.before_latest(), Some(&first));
        let second = text.clone();
        edit(&mut bursts, &mut text, 5, "e");
        assert_eq!((bursts.before_all(), bursts.before_latest()), (Some(&first), Some(&second)));
        (0..20).for_each(|number| edit(&mut bursts, &mut text, number * 7 % 40, "f"));
        assert_eq!(bursts.0.len(), BURSTS);
    }
}
