//! Where documents were edited lately: the kept tokens right behind these places are the first to be encoded again.

use pie_plan::Table;
use pie_words::{Splice, Splices, Strategy};
use std::ops::Range;

/// Places that are remembered of each document.
const PLACES: usize = 8;

/// A place where a document was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EditLocation {
    /// The first kept token behind it.
    at: usize,
    window: Window,
}

/// The kept tokens right behind a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// The next token of a completion waits for them.
    Due,
    /// They are repaired when there is time for it.
    Spare,
    /// They were, since the edit. What is older on their left comes first from then on.
    Repaired,
}

/// Where a document was edited lately, the latest last: repairs begin there.
#[derive(Debug, Default)]
pub(super) struct EditLocations(Vec<EditLocation>);

impl EditLocations {
    /// The table was edited, for whatever reason: places move along.
    pub fn follow(&mut self, splices: &Splices) {
        for place in &mut self.0 {
            let (old, mut at) = (place.at, place.at);
            for splice in splices.iter().take_while(|splice| splice.at.usize() < old) {
                // Of a deletion that reaches over the place the part in front of it counts.
                at = at + splice.insert.len()
                    - splice.end().usize().min(old).saturating_sub(splice.at.usize());
            }
            place.at = at;
        }
    }

    /// The document was edited here; the older places have followed.
    pub fn add(&mut self, splices: &Splices, strategy: Strategy) {
        let window = if strategy == Strategy::Repair { Window::Due } else { Window::Spare };
        let mut grown = 0;
        let behind = |splice: &Splice| {
            let at = splice.at.usize() + splice.insert.len() + grown;
            grown = (grown + splice.insert.len()).wrapping_sub(splice.delete as usize);
            EditLocation { at, window }
        };
        let places: Vec<EditLocation> = splices.iter().map(behind).collect();
        self.0.retain(|place| !places.iter().any(|new| new.at == place.at));
        self.0.extend(places);
        self.0.drain(..self.0.len().saturating_sub(PLACES));
    }

    /// Stale rows right behind the places whose windows are asked for, `rows` in all, before row `end`.
    pub fn windows(
        &self,
        table: &Table,
        end: usize,
        rows: usize,
        asks: impl Fn(Window) -> bool,
    ) -> Vec<Range<usize>> {
        let places: Vec<usize> =
            self.0.iter().filter(|place| asks(place.window)).map(|place| place.at).collect();
        let each = rows / places.len().max(1);
        let mut windows: Vec<_> =
            places.iter().flat_map(|at| table.stale(*at..at.saturating_add(each).min(end))).collect();
        windows.sort_by_key(|rows| rows.start);
        let mut disjoint: Vec<Range<usize>> = Vec::new();
        for rows in windows {
            match disjoint.last_mut().filter(|last| last.end >= rows.start) {
                Some(last) => last.end = last.end.max(rows.end),
                None => disjoint.push(rows),
            }
        }
        disjoint
    }

    /// The rows that are repaired next, so many of those before row `end`: right behind the latest edits, then from the frontier on.
    pub fn next(&self, table: &Table, end: usize, rows: usize) -> Option<Vec<Range<usize>>> {
        let latest = self.windows(table, end, rows, |window| window != Window::Repaired);
        let next = if latest.is_empty() { behind_frontier(table, end, rows) } else { latest };
        (!next.is_empty()).then_some(next)
    }

    /// The kept tokens behind all places are encoded again.
    pub fn repaired(&mut self) {
        self.0.iter_mut().for_each(|place| place.window = Window::Repaired);
    }
}

/// The first `rows` rows from the frontier on that are encoded, before row `end`: they become exact.
fn behind_frontier(table: &Table, end: usize, mut rows: usize) -> Vec<Range<usize>> {
    let encoded = table.encoded(table.frontier()..end);
    let taken = encoded.map(|range| {
        let range = range.start..range.end.min(range.start + rows);
        rows -= range.len();
        range
    });
    taken.take_while(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_words::{TokenId, TokenIndex};

    fn splices(list: &[(u32, u32, usize)]) -> Splices {
        let splice = |(at, delete, insert): &(u32, u32, usize)| Splice {
            at: TokenIndex(*at),
            delete: *delete,
            insert: vec![TokenId(0); *insert],
        };
        Splices::new(list.iter().map(splice).collect(), 1000).expect("they fit")
    }

    #[test]
    fn places_stay_behind_what_was_edited() {
        let mut places = EditLocations::default();
        places.add(&splices(&[(10, 0, 5), (40, 3, 1)]), Strategy::Repair);
        let at = |places: &EditLocations| places.0.iter().map(|place| place.at).collect::<Vec<_>>();
        assert_eq!(at(&places), [15, 46]);
        let cases = [
            (vec![(0, 0, 3)], [18, 49]),
            (vec![(15, 0, 3)], [15, 49]),
            (vec![(10, 10, 0)], [10, 36]),
            (vec![(5, 2, 0), (20, 0, 7)], [13, 51]),
            (vec![(46, 4, 0)], [15, 46]),
        ];
        for (edit, expected) in cases {
            let mut moved = EditLocations(places.0.clone());
            moved.follow(&splices(&edit));
            assert_eq!(at(&moved), expected, "{edit:?}");
        }
        for place in 0..20 {
            places.add(&splices(&[(place * 7, 0, 1)]), Strategy::Pie);
        }
        assert_eq!(places.0.len(), PLACES);
        assert!(places.0.iter().all(|place| place.window == Window::Spare), "the older ones are forgotten");
    }
}
