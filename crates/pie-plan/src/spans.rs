//! A column of a table whose neighbours are mostly alike: it costs what differs, not what there is.

use pie_words::Splices;
use std::ops::Range;

/// Neighbouring rows of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span<T> {
    /// The first row behind them. They begin where the span before ends.
    end: usize,
    value: T,
}

/// A value for each row. No span is empty, and two that touch differ, so equal columns are equal lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spans<T>(Vec<Span<T>>);

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Spans<T> {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |span| span.end)
    }

    /// The value at an index; none behind the end.
    pub fn get(&self, index: usize) -> Option<T> {
        self.within(index..index + 1).next().map(|(_, value)| value)
    }

    /// Whether the list is the only one for its column.
    pub fn is_shortest(&self) -> bool {
        let starts = std::iter::once(0).chain(self.0.iter().map(|span| span.end));
        self.0.iter().zip(starts).all(|(span, start)| start < span.end)
            && self.0.windows(2).all(|pair| pair[0].value != pair[1].value)
    }

    /// All spans, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, T)> + '_ {
        self.within(0..self.len())
    }

    /// What lies in a range of rows, in order.
    pub fn within(&self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, T)> + '_ {
        within(&self.0, rows)
    }

    /// More rows at the end.
    pub fn extend(&mut self, rows: usize, value: T) {
        let end = self.len() + rows;
        match self.0.last_mut() {
            Some(last) if last.value == value => last.end = end,
            _ if rows > 0 => self.0.push(Span { end, value }),
            _ => {}
        }
    }

    /// Other values for some ranges of rows, which come in order. What is in front of them is not looked at.
    pub fn map(&mut self, ranges: &[Range<usize>], change: impl Fn(T) -> T) {
        let Some(first) = ranges.first() else { return };
        let (length, mut at) = (self.len(), first.start);
        let behind = self.split_off(at);
        for rows in ranges {
            within(&behind, at..rows.start).for_each(|(part, value)| self.extend(part.len(), value));
            within(&behind, rows.clone()).for_each(|(part, value)| self.extend(part.len(), change(value)));
            at = rows.end;
        }
        within(&behind, at..length).for_each(|(part, value)| self.extend(part.len(), value));
    }

    /// Follows an edit: inserted rows have the one value, and those that stay what `moved` makes of theirs and of the number of
    /// rows by which they move.
    pub fn splice(&mut self, splices: &Splices, inserted: T, moved: impl Fn(T, i32) -> T) {
        let Some(first) = splices.iter().next() else { return };
        let (length, mut at, mut by) = (self.len(), first.at.usize(), 0_i32);
        let behind = self.split_off(at);
        let keep = |column: &mut Self, rows: Range<usize>, by: i32| {
            within(&behind, rows).for_each(|(part, value)| column.extend(part.len(), moved(value, by)));
        };
        for splice in splices {
            keep(self, at..splice.at.usize(), by);
            self.extend(splice.insert.len(), inserted);
            at = splice.end().usize();
            by = by.wrapping_add((splice.insert.len() as u32).wrapping_sub(splice.delete).cast_signed());
        }
        keep(self, at..length, by);
    }

    /// The first `rows` rows.
    pub fn prefix(&self, rows: usize) -> Self {
        let mut prefix = Self::default();
        self.within(0..rows).for_each(|(part, value)| prefix.extend(part.len(), value));
        prefix
    }

    /// Drops the first `rows` rows.
    pub fn drop_front(&mut self, rows: usize) {
        let length = self.len();
        let behind = self.split_off(rows);
        self.0.clear();
        within(&behind, rows..length).for_each(|(part, value)| self.extend(part.len(), value));
    }

    /// Ends the column at a row. Returns the spans that reach behind it, with their ends as they were.
    fn split_off(&mut self, row: usize) -> Vec<Span<T>> {
        let first = self.0.partition_point(|span| span.end <= row);
        let behind = self.0.split_off(first);
        if let Some(cut) = behind.first() {
            self.extend(row - self.len(), cut.value);
        }
        behind
    }
}

fn within<T: Copy>(spans: &[Span<T>], rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, T)> + '_ {
    let first = spans.partition_point(|span| span.end <= rows.start);
    let mut start = rows.start;
    spans[first..].iter().map_while(move |span| {
        let part = start..span.end.min(rows.end);
        start = part.end;
        (!part.is_empty()).then_some((part, span.value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_words::{Splice, TokenId, TokenIndex};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Action {
        Extend { rows: usize, value: u8 },
        Map { places: Vec<(usize, usize)>, value: u8 },
        Splice { places: Vec<(u32, u32, usize)>, value: u8 },
        DropFront(usize),
        Prefix(usize),
    }

    fn action() -> impl Strategy<Value = Action> {
        let value = 0..3_u8;
        let places = prop::collection::vec((0..30_u32, 0..4_u32, 0..4_usize), 1..4);
        prop_oneof![
            (0..5_usize, value.clone()).prop_map(|(rows, value)| Action::Extend { rows, value }),
            (prop::collection::vec((0..9_usize, 0..9_usize), 0..4), value.clone())
                .prop_map(|(places, value)| Action::Map { places, value }),
            (places, value).prop_map(|(places, value)| Action::Splice { places, value }),
            (0..4_usize).prop_map(Action::DropFront),
            (0..60_usize).prop_map(Action::Prefix),
        ]
    }

    proptest! {
        /// A column of spans is the column of its values, whatever is done to both.
        #[test]
        fn spans_are_the_column_written_out(actions in prop::collection::vec(action(), 1..60)) {
            let (mut spans, mut column) = (Spans::default(), Vec::<u8>::new());
            for action in actions {
                match action {
                    Action::Extend { rows, value } => {
                        spans.extend(rows, value);
                        column.extend(std::iter::repeat_n(value, rows));
                    }
                    Action::Map { places, value } => {
                        let mut end = 0;
                        let ranges: Vec<Range<usize>> = places.into_iter().map(|(gap, rows)| {
                            let start = (end + gap).min(column.len());
                            end = (start + rows).min(column.len());
                            start..end
                        }).collect();
                        spans.map(&ranges, |old| old ^ value);
                        for rows in ranges {
                            column[rows].iter_mut().for_each(|old| *old ^= value);
                        }
                    }
                    Action::Splice { places, value } => {
                        let list = places.into_iter().map(|(at, delete, insert)| Splice {
                            at: TokenIndex(at), delete, insert: vec![TokenId(0); insert],
                        });
                        let Ok(splices) = Splices::new(list.collect(), column.len()) else { continue };
                        // Those that stay move by as many rows as their places in a list of numbers do.
                        let numbers: Vec<_> = (0..column.len() as i32).collect();
                        let mut moved = numbers.clone();
                        splices.apply_to(&mut moved, |_| -1);
                        let old = std::mem::take(&mut column);
                        column = moved.iter().enumerate().map(|(index, number)| match usize::try_from(*number) {
                            Ok(from) => old[from].wrapping_add((index as i32 - number) as u8),
                            Err(_) => value,
                        }).collect();
                        spans.splice(&splices, value, |old, by| old.wrapping_add(by as u8));
                    }
                    Action::DropFront(rows) => {
                        let rows = rows.min(column.len());
                        spans.drop_front(rows);
                        column.drain(..rows);
                    }
                    Action::Prefix(rows) => {
                        let rows = rows.min(column.len());
                        prop_assert_eq!(written_out(&spans.prefix(rows)), &column[..rows]);
                    }
                }
                prop_assert!(spans.is_shortest(), "{:?}", spans);
                prop_assert_eq!(written_out(&spans), &column[..]);
                prop_assert_eq!(spans.len(), column.len());
                for (index, value) in column.iter().enumerate() {
                    prop_assert_eq!(spans.get(index), Some(*value));
                }
                prop_assert_eq!(spans.get(column.len()), None);
            }
        }
    }

    fn written_out(spans: &Spans<u8>) -> Vec<u8> {
        spans.iter().flat_map(|(rows, value)| std::iter::repeat_n(value, rows.len())).collect()
    }
}
