//! T1: after any edits the tokens are those of the whole text. T2: the work is that of the edit.

mod common;

use common::{HARD, PAIRS, PYTHON, Pair, RUST, spliced};
use pie_plan::TokenId;
use pie_text::{Document, Range, RestartKind, TextEdit};
use proptest::prelude::*;

const LIMIT: usize = 1 << 24;

/// A piece of text: hard ones, or some of a real file.
fn fragment() -> impl Strategy<Value = String> {
    let code = |file: &'static str| {
        (0..file.len(), 1..60_usize).prop_map(|(at, length)| {
            file.chars().skip(at % file.chars().count()).take(length).collect::<String>()
        })
    };
    let long = prop::sample::select(vec!["x", " ", "1", "'", "你", "\n", "= ", "ab"])
        .prop_map(|unit| unit.repeat(90));
    prop_oneof![
        8 => prop::sample::select(HARD.to_vec()).prop_map(str::to_owned),
        3 => code(PYTHON),
        3 => code(RUST),
        1 => long,
        2 => any::<char>().prop_map(String::from),
    ]
}

fn text(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..most).prop_map(|parts| parts.concat())
}

/// Requests of several edits; places are shares of the text, made whole later.
fn requests() -> impl Strategy<Value = Vec<Vec<(f64, f64, String)>>> {
    let edit = (0.0..=1.0, prop_oneof![Just(0.0), 0.0..0.05, 0.0..1.0], text(3));
    prop::collection::vec(prop::collection::vec(edit, 1..4), 1..8)
}

/// Edits at character boundaries that do not overlap, in a shuffled order.
fn edits(text: &str, request: &[(f64, f64, String)]) -> Vec<TextEdit> {
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut list: Vec<TextEdit> = Vec::new();
    for (place, share, insert) in request {
        let first = (place * (starts.len() - 1) as f64) as usize;
        let last = first + (share * (starts.len() - 1 - first) as f64) as usize;
        let (start, end) = (starts[first], starts[last]);
        let apart = |other: &TextEdit| match other.range {
            Range::Bytes { start: other_start, end: other_end } => end <= other_start || other_end <= start,
            Range::Lsp { .. } => false,
        };
        if list.iter().all(apart) {
            list.push(TextEdit { range: Range::Bytes { start, end }, insert: insert.clone() });
        }
    }
    list
}

/// The text after edits, the slow and obvious way.
fn edited(text: &str, edits: &[TextEdit]) -> String {
    let mut sorted: Vec<(usize, usize, &str)> = edits
        .iter()
        .map(|edit| match edit.range {
            Range::Bytes { start, end } => (start, end, edit.insert.as_str()),
            Range::Lsp { .. } => unreachable!("these tests count bytes"),
        })
        .collect();
    sorted.sort_by_key(|(start, end, _)| (*start, *end));
    let mut new = text.to_owned();
    for (start, end, insert) in sorted.into_iter().rev() {
        new.replace_range(start..end, insert);
    }
    new
}

fn check_edits(pair: &Pair, start: &str, requests: &[Vec<(f64, f64, String)>]) -> Result<(), TestCaseError> {
    let mut document = Document::open(pair.ours.clone(), start, LIMIT).expect("opens");
    let mut text = start.to_owned();
    let mut tokens: Vec<TokenId> = document.tokens().collect();
    prop_assert_eq!(&tokens, &pair.whole(&text), "{} opened with {:?}", pair.name, text);
    for request in requests {
        let edits = edits(&text, request);
        let change = document.prepare(document.revision(), &edits).expect("edits are fine");
        let new = edited(&text, &edits);
        let whole = pair.whole(&new);
        prop_assert_eq!(&spliced(&tokens, change.splices()), &whole, "{} {:?} to {:?}", pair.name, text, new);
        for splice in change.splices() {
            let old = &tokens[splice.at.usize()..splice.end().usize()];
            let grows_at_an_end = old.is_empty() || splice.insert.is_empty();
            let ends = |a: Option<&TokenId>, b: Option<&TokenId>| a != b;
            prop_assert!(
                grows_at_an_end
                    || ends(old.first(), splice.insert.first()) && ends(old.last(), splice.insert.last()),
                "a splice is not minimal: {:?} for {:?}",
                splice,
                old
            );
        }
        document.commit(change).expect("the revision is current");
        (text, tokens) = (new, document.tokens().collect());
        prop_assert_eq!(&tokens, &whole);
        prop_assert_eq!(document.text(), Some(text.clone()));
        prop_assert_eq!(document.token_count(), tokens.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn edited_documents_have_the_tokens_of_their_text(
        which in 0..PAIRS.len(), start in text(30), requests in requests()
    ) {
        check_edits(&PAIRS[which], &start, &requests)?;
    }
}

#[test]
fn every_known_form_restarts_at_pieces() {
    for pair in PAIRS.iter() {
        assert!(matches!(pair.ours.restart_kind(), RestartKind::Piece(_)), "{}", pair.name);
    }
}
