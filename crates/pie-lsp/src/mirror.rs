//! What of a document the pool holds, and what it must be told next: the whole text, or, of one that is too long for the model, a window
//! of whole lines around the cursor.

use crate::changes::Changes;
use pie_client::Edit;
use ropey::Rope;
use std::ops::Range;

/// Smaller windows are none: a pool that refuses this refuses the document.
const SMALLEST: usize = 256;

/// A document, and what of it has been sent.
pub struct Mirror {
    text: Rope,
    /// What the text has become since it was sent last.
    unsent: Changes,
    /// Of the text as it was sent last: the bytes that the pool holds. `None` if it holds nothing that is known.
    held: Option<Range<usize>>,
    /// The most bytes that the pool takes.
    limit: usize,
}

/// What the pool must be told so that it has what a completion needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorUpdate {
    /// Nothing.
    Rest,
    /// These edits, all in bytes of what it holds.
    Edits(Vec<Edit>),
    /// This text, whatever it holds.
    Whole(String),
}

impl Mirror {
    /// A document of which the pool has nothing.
    pub fn new(text: Rope) -> Self {
        Self { text, unsent: Changes::default(), held: None, limit: usize::MAX }
    }

    /// The document as it is now.
    pub fn text(&self) -> &Rope {
        &self.text
    }

    /// The text became this by these edits, one after the other.
    pub fn edited(&mut self, text: Rope, edits: &[Edit]) {
        self.text = text;
        edits.iter().for_each(|edit| self.unsent.add(edit));
    }

    /// The text became this, nobody knows how.
    pub fn replaced(&mut self, text: Rope) {
        self.text = text;
        self.lost();
    }

    /// What the pool holds is not known any more.
    pub fn lost(&mut self) {
        self.held = None;
        self.unsent = Changes::default();
    }

    /// The pool takes so many bytes at the most.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes.max(SMALLEST);
    }

    /// The pool refused what it was sent, since it is too long. False if it cannot be any shorter.
    pub fn shrink(&mut self) -> bool {
        let sent = self.held.as_ref().map_or(self.text.len_bytes(), Range::len);
        self.lost();
        let smaller = self.limit.min(sent) / 2;
        self.limit = smaller.max(SMALLEST);
        smaller >= SMALLEST
    }

    /// What the pool holds, in bytes of the text: known when there is nothing to tell.
    pub fn held(&self) -> Range<usize> {
        self.held.clone().unwrap_or_default()
    }

    /// What to tell the pool, so that it has what stands around the cursor. It counts as told from now on; whoever fails to tell
    /// it says [`Mirror::lost`].
    pub fn next(&mut self, cursor: usize) -> MirrorUpdate {
        let within = self.held.clone().and_then(|held| self.unsent.within(held));
        let unsent = std::mem::take(&mut self.unsent);
        match within {
            // Where lines are long the best window is not a good one: what is held then may as well stay.
            Some(within) if self.is_good(&within.range, cursor) || within.range == self.window(cursor) => {
                self.held = Some(within.range);
                if within.edits.is_empty() { MirrorUpdate::Rest } else { MirrorUpdate::Edits(within.edits) }
            }
            _ => {
                drop(unsent);
                let window = self.window(cursor);
                self.held = Some(window.clone());
                MirrorUpdate::Whole(self.text.byte_slice(window).to_string())
            }
        }
    }

    /// Whether a window will do: it is not too large, and the cursor not so near to an end of it that much is missing there.
    fn is_good(&self, window: &Range<usize>, cursor: usize) -> bool {
        let length = self.text.len_bytes();
        if length <= self.limit {
            return *window == (0..length);
        }
        let before = window.start == 0 || cursor >= window.start + self.margin();
        let behind = window.end == length || cursor + self.margin() <= window.end;
        window.len() <= self.limit && before && behind
    }

    /// The whole text, or whole lines around the cursor: twice as much before it as behind it, and less than the limit in all, so that
    /// it can grow before it must move.
    fn window(&self, cursor: usize) -> Range<usize> {
        let length = self.text.len_bytes();
        if length <= self.limit {
            return 0..length;
        }
        let size = self.limit / 4 * 3;
        let start = cursor.saturating_sub(size / 3 * 2).min(length - size);
        let (start, end) = (self.character(start), self.character(start + size));
        let (first, last) = (self.text.byte_to_line(start), self.text.byte_to_line(end));
        let next_line = if start == 0 { 0 } else { self.text.line_to_byte(first + 1) };
        let last_line = if end == length { length } else { self.text.line_to_byte(last) };
        // A line that is so long that too little would be left without it is cut.
        Range {
            start: if next_line + self.margin() <= cursor { next_line } else { start },
            end: if last_line >= cursor + self.margin() { last_line } else { end },
        }
    }

    /// Bytes that there must be on both sides of the cursor, if the text has them.
    fn margin(&self) -> usize {
        self.limit / 8
    }

    /// The start of the character that a byte is in.
    fn character(&self, byte: usize) -> usize {
        self.text.char_to_byte(self.text.byte_to_char(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tell(mirror: &mut Mirror, cursor: usize, pool: &mut String) -> &'static str {
        match mirror.next(cursor) {
            MirrorUpdate::Rest => "rest",
            MirrorUpdate::Edits(edits) => {
                for edit in edits.iter().rev() {
                    pool.replace_range(edit.range.clone(), &edit.text);
                }
                "edits"
            }
            MirrorUpdate::Whole(text) => {
                *pool = text;
                "whole"
            }
        }
    }

    #[test]
    fn a_window_moves_when_the_cursor_comes_near_its_end_and_not_at_each_key() {
        let text: String = (0..400).map(|line| format!("line number {line:>6}\n")).collect();
        let mut mirror = Mirror::new(Rope::from_str(&text));
        mirror.limit(1600);
        let mut pool = String::new();
        let told: Vec<_> = (0..100).map(|line| tell(&mut mirror, line * 19, &mut pool)).collect();
        let moves = told.iter().filter(|told| **told == "whole").count();
        assert!((2..8).contains(&moves), "{moves} moves");
        assert!(pool.starts_with("line") && pool.ends_with('\n'), "whole lines: {pool}");

        let at = 99 * 19;
        mirror.text.insert(at, "x");
        let edit = Edit { range: at..at, text: "x".to_owned() };
        mirror.edited(mirror.text.clone(), &[edit]);
        assert_eq!(tell(&mut mirror, at, &mut pool), "edits", "an edit inside of it moves nothing");
    }

    #[test]
    fn what_is_refused_gets_shorter_and_an_end_of_it_is_seen() {
        let mut mirror = Mirror::new(Rope::from_str(&"word ".repeat(2000)));
        let mut lengths = Vec::new();
        loop {
            let MirrorUpdate::Whole(text) = mirror.next(5000) else { panic!("nothing was taken") };
            lengths.push(text.len());
            if !mirror.shrink() {
                break;
            }
        }
        assert!(lengths.windows(2).all(|pair| pair[1] < pair[0]), "{lengths:?}");
        assert!(lengths.last().is_some_and(|last| *last < 2 * SMALLEST), "{lengths:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(8), failure_persistence: None, cases: 1000, ..ProptestConfig::default()
        })]

        #[test]
        fn the_pool_holds_what_stands_around_the_cursor(
            base in "[a-zä𝄞\n]{0,900}",
            steps in prop::collection::vec((0.0..1.0_f64, 0_usize..40, "[A-Z\n]{0,40}", 0.0..1.0_f64, 0..8_u8), 1..30),
        ) {
            let mut text = Rope::from_str(&base);
            let mut mirror = Mirror::new(text.clone());
            mirror.limit(300);
            let mut pool = String::new();
            for (at, length, insert, cursor, luck) in steps {
                let share = |text: &Rope, share: f64| text.char_to_byte((share * text.len_chars() as f64) as usize);
                let from = text.byte_to_char(share(&text, at));
                let to = (from + length).min(text.len_chars());
                let edit = Edit { range: text.char_to_byte(from)..text.char_to_byte(to), text: insert.clone() };
                text.remove(from..to);
                text.insert(from, &insert);
                if luck == 0 { mirror.lost(); }
                mirror.edited(text.clone(), &[edit]);
                // Edits gather while the pool is busy.
                if luck < 3 { continue; }
                let cursor = share(&text, cursor);
                tell(&mut mirror, cursor, &mut pool);
                let held = mirror.held();
                prop_assert_eq!(&pool, &text.byte_slice(held.clone()).to_string());
                prop_assert!(held.start <= cursor && cursor <= held.end && held.len() <= 300);
                if text.len_bytes() <= 300 { prop_assert_eq!(held, 0..text.len_bytes()); }
                prop_assert_eq!(mirror.next(cursor), MirrorUpdate::Rest);
            }
        }
    }
}
