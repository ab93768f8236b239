//! How a session's document stands in its table: as it is, or with the markers for filling in the middle. Moving the cursor
//! is an edit of the table like any other: the markers move, the keys between them turn, and nothing else is encoded.

use pie_plan::{Splice, Splices, TokenId, TokenIndex};
use pie_text::{Cut, FimMarkers};

/// What the table holds besides the document's own tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Nothing.
    #[default]
    Plain,
    /// Markers.
    Fim(Patch),
}

/// The difference of a table with markers from its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// In indices of the document's tokens.
    places: Vec<Splice>,
    /// The document's tokens that each place leaves out.
    removed: Vec<Vec<TokenId>>,
}

impl Patch {
    /// Begin, the text before the cursor, hole, the text behind it, end. `prefix` tokens, such as the begin of sentence,
    /// stay in front.
    pub fn new(cut: &Cut, markers: FimMarkers, tokens: &[TokenId], prefix: usize) -> Self {
        let place = |at: usize, end: usize, insert: Vec<TokenId>| Splice {
            at: TokenIndex(count(at)),
            delete: count(end.saturating_sub(at)),
            insert,
        };
        // What both sides have of their own stands in place of the document's tokens between them; where the sides share
        // tokens (a piece that reads the same cut or whole), the later side repeats them.
        let repeated = &tokens[cut.resumes.min(cut.kept)..cut.kept];
        let middle =
            [&cut.front[..], &[markers.hole], &cut.back, if cut.resumes < cut.kept { repeated } else { &[] }]
                .concat();
        let places = vec![
            place(prefix, prefix, vec![markers.begin]),
            place(cut.kept, cut.resumes.max(cut.kept), middle),
            place(tokens.len(), tokens.len(), vec![markers.end]),
        ];
        // Places that touch are one: the checks of splices merge them.
        let merged = Splices::new(places, tokens.len()).unwrap_or_default();
        let places: Vec<Splice> = merged.iter().cloned().collect();
        let removed = places.iter().map(|place| tokens[place.at.usize()..place.end().usize()].to_vec()).collect();
        Self { places, removed }
    }

    /// From the document's tokens to the table's; `length` is the document's.
    pub fn apply(&self, length: usize) -> Splices {
        Splices::new(self.places.clone(), length).unwrap_or_default()
    }

    /// From the table's tokens to the document's; `length` is the table's.
    pub fn undo(&self, length: usize) -> Splices {
        let mut shift = 0_i64;
        let back = |(place, removed): (&Splice, &Vec<TokenId>)| {
            let at = i64::from(place.at.0) + shift;
            shift += place.insert.len() as i64 - i64::from(place.delete);
            let delete = count(place.insert.len());
            Splice { at: TokenIndex(u32::try_from(at).unwrap_or(0)), delete, insert: removed.clone() }
        };
        Splices::new(self.places.iter().zip(&self.removed).map(back).collect(), length).unwrap_or_default()
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn markers_stand_around_both_sides_and_go_again() {
        let markers = FimMarkers { begin: TokenId(90), hole: TokenId(91), end: TokenId(92) };
        let document = ids(&[0, 1, 2, 3, 4, 5]);
        let cases: &[(&str, Cut, &[u32])] = &[
            ("between tokens", cut(3, &[], &[], 3), &[0, 90, 1, 2, 91, 3, 4, 5, 92]),
            ("inside of a token", cut(3, &[70], &[71, 72], 4), &[0, 90, 1, 2, 70, 91, 71, 72, 4, 5, 92]),
            ("at the start", cut(1, &[], &[], 1), &[0, 90, 91, 1, 2, 3, 4, 5, 92]),
            ("at the end", cut(6, &[], &[], 6), &[0, 90, 1, 2, 3, 4, 5, 91, 92]),
            ("sides that share a token", cut(4, &[], &[], 3), &[0, 90, 1, 2, 3, 91, 3, 4, 5, 92]),
        ];
        for (name, cut, expected) in cases {
            let patch = Patch::new(cut, markers, &document, 1);
            let table = patch.apply(document.len()).apply(&document);
            assert_eq!(table, ids(expected), "{name}");
            assert_eq!(patch.undo(table.len()).apply(&table), document, "{name}, undone");
        }
    }

    fn cut(kept: usize, front: &[u32], back: &[u32], resumes: usize) -> Cut {
        Cut { kept, front: ids(front), back: ids(back), resumes }
    }
}
