//! How a session's document stands in its table: as it is, or with the markers for filling in the middle, or with what a model
//! is told of it behind it. Moving the cursor
//! is an edit of the table like any other: the markers move, the keys between them turn, and nothing else is encoded. For models
//! that read the text behind the cursor first, the table is [`Turned`] around.

use super::turned::Turned;
use pie_text::{Cut, Fim, FimOrder};
use pie_words::{Splice, Splices, TokenId, TokenIndex};

/// What the table holds besides the document's own tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing.
    #[default]
    Plain,
    /// Tokens between the document's own: markers, or what stands behind it.
    Patched(Patch),
    /// Markers, and the text behind the cursor before the text before it.
    Turned(Turned),
}

/// The difference of a table with markers from its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// In indices of the document's tokens.
    places: Vec<Splice>,
    /// The document's tokens that each place leaves out.
    removed: Vec<Vec<TokenId>>,
    /// The marker in front of all, where it stands by itself.
    open: Option<Splice>,
    /// The one behind all, likewise.
    close: Option<Splice>,
}

impl Patch {
    /// A marker, the text before the cursor, another one, the text behind it, the last. `prefix` tokens, such as the begin of
    /// sentence, stay in front.
    pub fn new(cut: &Cut, fim: &Fim, tokens: &[TokenId], prefix: usize) -> Self {
        // Around the hole stands what each side has of its own, in place of the document's tokens between them. Tokens that
        // belong to both sides stay in the prefix; the suffix repeats them.
        let repeated = &tokens[cut.shared_suffix.min(cut.shared_prefix)..cut.shared_prefix];
        let middle = [&cut.prefix_end[..], &fim.between, &cut.suffix_start, repeated].concat();
        let hole = place(cut.shared_prefix, cut.shared_suffix.max(cut.shared_prefix), middle);
        Self::around(hole, fim, tokens, prefix)
    }

    /// The markers at both ends, and a hole.
    fn around(hole: Splice, fim: &Fim, tokens: &[TokenId], prefix: usize) -> Self {
        let open = place(prefix, prefix, fim.open.clone());
        let close = place(tokens.len(), tokens.len(), fim.close.clone());
        let places = vec![open.clone(), hole, close.clone()];
        // Places that touch are one: the checks of splices merge them.
        let merged = Splices::new(places, tokens.len()).unwrap_or_default();
        let places: Vec<Splice> = merged.iter().cloned().collect();
        let removed =
            places.iter().map(|place| tokens[place.at.usize()..place.end().usize()].to_vec()).collect();
        let alone = |end: Splice| places.contains(&end).then_some(end);
        Self { open: alone(open), close: alone(close), places, removed }
    }

    /// Tokens behind a document of `length` tokens: what a model is told of it.
    pub fn behind(tokens: Vec<TokenId>, length: usize) -> Self {
        Self {
            places: vec![place(length, length, tokens)],
            removed: vec![Vec::new()],
            open: None,
            close: None,
        }
    }

    /// The markers at both ends alone.
    fn of_ends(open: Option<Splice>, close: Option<Splice>) -> Self {
        let places: Vec<Splice> = open.iter().chain(&close).cloned().collect();
        Self { removed: vec![Vec::new(); places.len()], places, open, close }
    }
}

impl Layout {
    /// How a table stands that the ranks have held on to, and the document in it, which may have been edited since. Markers at both
    /// ends stay where they are, and so does a hole where the document is as it was; else what stands in it counts as text that differs
    /// from the document's own.
    pub fn recognized(
        held: &[TokenId],
        document: &[TokenId],
        fim: Option<&Fim>,
        lead: usize,
    ) -> (Self, Vec<TokenId>) {
        let plain = || (Self::Plain, held.to_vec());
        let Some(fim @ Fim { open, close, .. }) = fim.filter(|fim| fim.order == FimOrder::PrefixFirst) else {
            return plain();
        };
        let ends = lead + open.len() + close.len();
        let has_ends = held.len() >= ends && held[lead..].starts_with(open) && held.ends_with(close);
        if held == document || !has_ends || open.len() + close.len() == 0 {
            return plain();
        }
        let within = lead + open.len()..held.len() - close.len();
        let inner = [&held[..lead], &held[within]].concat();
        if let Some(hole) = hole(&inner, document, &fim.between) {
            let layout = Self::Patched(Patch::around(hole, fim, document, lead));
            let (_, come) = Self::Plain.change(&layout, document.len(), document);
            if come.apply(document) == held {
                return (layout, document.to_vec());
            }
        }
        (Self::between_markers(fim, lead, inner.len()), inner)
    }

    /// A document of so many tokens between the markers at both ends, if there are any; its first `lead` stay in front.
    pub fn between_markers(fim: &Fim, lead: usize, tokens: usize) -> Self {
        let marker =
            |at: usize, marker: &Vec<TokenId>| (!marker.is_empty()).then(|| place(at, at, marker.clone()));
        let (open, close) = (marker(lead, &fim.open), marker(tokens, &fim.close));
        if open.is_none() && close.is_none() {
            Self::Plain
        } else {
            Self::Patched(Patch::of_ends(open, close))
        }
    }

    /// The same without a hole: what an edit of the document leaves in its place.
    pub fn without_hole(&self) -> Self {
        match self {
            Self::Patched(Patch { open, close, .. }) if open.is_some() || close.is_some() => {
                Self::Patched(Patch::of_ends(open.clone(), close.clone()))
            }
            _ => Self::Plain,
        }
    }

    /// What an edit of the document is in a table without a hole, and how that is laid out then. `None`: it edits what stands in
    /// front of the first marker.
    pub fn edited(&self, splices: &Splices) -> Option<(Splices, Self)> {
        let Self::Patched(Patch { open, close, .. }) = self else {
            return Some((splices.clone(), self.clone()));
        };
        let first = open.as_ref().map_or(0, |open| open.at.usize());
        let shift = open.as_ref().map_or(0, |open| open.insert.len());
        let moved = |splice: &Splice| {
            let at = splice.at.usize();
            (at >= first).then(|| Splice { at: TokenIndex(count(at + shift)), ..splice.clone() })
        };
        let list = splices.iter().map(moved).collect::<Option<Vec<_>>>()?;
        let grown: i64 = splices.iter().map(growth).sum();
        let close = close.as_ref().map(|close| Splice { at: moved_by(close.at, grown), ..close.clone() });
        let splices = Splices::new(list, usize::MAX).ok()?;
        Some((splices, Self::Patched(Patch::of_ends(open.clone(), close))))
    }

    /// The two edits of a table that lead to another layout of the same document: what is to go, and, in the table that is
    /// left then, what is to come. Markers that stand in both stay. `length` is the table's, `tokens` are the document's.
    pub fn change(&self, to: &Self, length: usize, tokens: &[TokenId]) -> (Splices, Splices) {
        match (self, to) {
            (Self::Turned(here), Self::Turned(there)) => (here.moved(there, tokens), Splices::default()),
            (Self::Turned(here), _) => {
                let (_, come) = Self::Plain.change(to, tokens.len(), tokens);
                (here.turning_back(tokens), come)
            }
            (_, Self::Turned(there)) => {
                let (go, _) = self.change(&Self::Plain, length, tokens);
                (go, there.turning(tokens))
            }
            _ => self.change_markers(to, length),
        }
    }

    fn change_markers(&self, to: &Self, length: usize) -> (Splices, Splices) {
        let (old, new) = (self.places(), to.places());
        let removed = if let Self::Patched(patch) = self { &patch.removed[..] } else { &[] };
        let (mut go, mut shift) = (Vec::new(), 0_i64);
        for (place, removed) in old.iter().zip(removed) {
            if !new.contains(place) {
                go.push(Splice {
                    at: moved_by(place.at, shift),
                    delete: count(place.insert.len()),
                    insert: removed.clone(),
                });
            }
            shift += growth(place);
        }
        let (mut come, mut shift) = (Vec::new(), 0_i64);
        for place in new {
            if old.contains(place) {
                shift += growth(place);
            } else {
                come.push(Splice { at: moved_by(place.at, shift), ..place.clone() });
            }
        }
        let go = Splices::new(go, length).unwrap_or_default();
        let left = length + go.inserted() - go.deleted();
        (go, Splices::new(come, left).unwrap_or_default())
    }

    /// Tokens of the table of a document that has `tokens`.
    pub fn length(&self, tokens: usize) -> usize {
        if let Self::Turned(turned) = self {
            return turned.length(tokens);
        }
        let longer: i64 = self.places().iter().map(growth).sum();
        usize::try_from(tokens as i64 + longer).unwrap_or(0)
    }

    fn places(&self) -> &[Splice] {
        match self {
            Self::Plain | Self::Turned(_) => &[],
            Self::Patched(patch) => &patch.places,
        }
    }
}

/// The most tokens that a cursor in the middle of a token makes others, beside the marker.
const BESIDE_HOLE: usize = 16;

/// The hole of a table without the markers at its ends: what differs from the document, if the marker of a hole is in it.
fn hole(inner: &[TokenId], document: &[TokenId], between: &[TokenId]) -> Option<Splice> {
    let same = |(ours, theirs): &(&TokenId, &TokenId)| ours == theirs;
    let before = inner.iter().zip(document).take_while(same).count();
    let behind = inner[before..].iter().rev().zip(document[before..].iter().rev()).take_while(same).count();
    let insert = inner[before..inner.len() - behind].to_vec();
    let removed = document.len() - behind - before;
    // What is longer has an edit beside the hole, or far from it.
    let is_short = insert.len() <= between.len() + BESIDE_HOLE && removed <= BESIDE_HOLE;
    let has_marker = !between.is_empty() && insert.windows(between.len()).any(|tokens| tokens == between);
    (is_short && has_marker).then(|| place(before, document.len() - behind, insert))
}

/// How much longer a place makes the table.
fn growth(place: &Splice) -> i64 {
    place.insert.len() as i64 - i64::from(place.delete)
}

fn moved_by(at: TokenIndex, shift: i64) -> TokenIndex {
    TokenIndex(u32::try_from(i64::from(at.0) + shift).unwrap_or(0))
}

/// A splice of a table or a document.
pub(super) fn place(at: usize, end: usize, insert: Vec<TokenId>) -> Splice {
    Splice { at: TokenIndex(count(at)), delete: count(end.saturating_sub(at)), insert }
}

pub(super) fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_text::FimOrder;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn markers_stand_around_both_sides_and_go_again() {
        let (open, between, close) = (ids(&[90]), ids(&[91]), ids(&[92]));
        let fim = &Fim { family: "a test", order: FimOrder::PrefixFirst, open, between, close };
        let document = ids(&[0, 1, 2, 3, 4, 5]);
        let cases: &[(&str, Cut, &[u32])] = &[
            ("between tokens", cut(3, &[], &[], 3), &[0, 90, 1, 2, 91, 3, 4, 5, 92]),
            ("inside of a token", cut(3, &[70], &[71, 72], 4), &[0, 90, 1, 2, 70, 91, 71, 72, 4, 5, 92]),
            ("at the start", cut(1, &[], &[], 1), &[0, 90, 91, 1, 2, 3, 4, 5, 92]),
            ("at the end", cut(6, &[], &[], 6), &[0, 90, 1, 2, 3, 4, 5, 91, 92]),
            ("sides that share a token", cut(4, &[], &[], 3), &[0, 90, 1, 2, 3, 91, 3, 4, 5, 92]),
        ];
        for (name, cut, expected) in cases {
            let layout = Layout::Patched(Patch::new(cut, fim, &document, 1));
            let table = apply(&Layout::Plain, &layout, &document);
            assert_eq!(layout.length(document.len()), table.len(), "{name}");
            assert_eq!(table, ids(expected), "{name}");
            assert_eq!(apply(&layout, &Layout::Plain, &table), document, "{name}, undone");
            // From each to each, the markers that stay are not touched.
            for (other, cut, expected) in cases {
                let to = Layout::Patched(Patch::new(cut, fim, &document, 1));
                assert_eq!(apply(&layout, &to, &table), ids(expected), "{name}, then {other}");
                let (go, come) = layout.change(&to, table.len(), &document);
                let whole = [&go, &come].map(|splices| splices.inserted() + splices.deleted());
                assert!(whole.iter().sum::<usize>() <= 16, "{name}, then {other}: {go:?} {come:?}");
            }
        }
        let near = Layout::Patched(Patch::new(&cut(3, &[], &[], 3), fim, &document, 1));
        let far = Layout::Patched(Patch::new(&cut(5, &[], &[], 5), fim, &document, 1));
        let (go, come) = near.change(&far, 9, &document);
        assert_eq!((go.deleted(), come.inserted()), (1, 1), "the hole moves, begin and end stay");
    }

    /// A new owner finds the layout that was there, so that the next completion there changes nothing.
    #[test]
    fn a_table_is_recognized_with_its_hole() {
        let (open, between, close) = (ids(&[90]), ids(&[91]), ids(&[92]));
        let fim = &Fim { family: "a test", order: FimOrder::PrefixFirst, open, between, close };
        let document = ids(&[0, 1, 1, 3, 1, 5]);
        let cuts = [
            cut(3, &[], &[], 3),
            cut(3, &[70], &[71, 72], 4),
            cut(1, &[], &[], 1),
            cut(6, &[], &[], 6),
            cut(4, &[], &[], 3),
        ];
        for cut in cuts {
            let layout = Layout::Patched(Patch::new(&cut, fim, &document, 1));
            let table = apply(&Layout::Plain, &layout, &document);
            let (recognized, old) = Layout::recognized(&table, &document, Some(fim), 1);
            assert_eq!(old, document, "{cut:?}");
            assert_eq!(recognized, layout, "{cut:?}");
        }
        let closed = Layout::Patched(Patch::new(&cut(3, &[], &[], 3), fim, &document, 1)).without_hole();
        let table = apply(&Layout::Plain, &closed, &document);
        assert_eq!(Layout::recognized(&table, &document, Some(fim), 1), (closed, document.clone()));
    }

    fn apply(from: &Layout, to: &Layout, tokens: &[TokenId]) -> Vec<TokenId> {
        let (go, come) = from.change(to, tokens.len(), &[]);
        come.apply(&go.apply(tokens))
    }

    fn cut(shared_prefix: usize, prefix_end: &[u32], suffix_start: &[u32], shared_suffix: usize) -> Cut {
        Cut { shared_prefix, prefix_end: ids(prefix_end), suffix_start: ids(suffix_start), shared_suffix }
    }
}
