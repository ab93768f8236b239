//! Positions and edits in every unit and order, against a twin that has nothing but strings.

mod common;
#[path = "../../../fuzz/src/naive.rs"]
mod naive;

use common::{PAIRS, spliced};
use pie_text::Document;
use pie_words::{Cursor, LspPosition, PositionEncoding, TextEdit, TextRange, TokenId};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "bc", " ", "\n", "\r\n", "\r", "é", "日", "😀", "e\u{301}", "\u{2028}", "x = 1;", "<|eot|>",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn position(encoding: PositionEncoding) -> impl Strategy<Value = LspPosition> {
    let number = || prop_oneof![20 => 0..8_u32, 1 => Just(u32::MAX)];
    (number(), number()).prop_map(move |(line, column)| LspPosition { line, column, encoding })
}

/// Edits of a client: in one unit, near each other, more often right than wrong.
fn edits() -> impl Strategy<Value = Vec<TextEdit>> {
    prop::sample::select(vec![PositionEncoding::Utf8, PositionEncoding::Utf16, PositionEncoding::Utf32])
        .prop_flat_map(|encoding| {
            let lsp = (position(encoding), position(encoding))
                .prop_map(|(a, b)| TextRange::Lsp { start: a.min(b), end: a.max(b) });
            let bytes = (0..12_usize, 0..4_usize)
                .prop_map(|(start, width)| TextRange::Bytes { start, end: start + width });
            let edit =
                (prop_oneof![lsp, bytes], text()).prop_map(|(range, insert)| TextEdit { range, insert });
            prop::collection::vec(edit, 0..6)
        })
}

proptest! {
    #![proptest_config(common::cases(1500))]

    #[test]
    fn edits_do_what_they_do_to_strings(
        which in 0..3_usize, text in text(), edits in edits(), in_turn in any::<bool>(), cursor in position(PositionEncoding::Utf16)
    ) {
        let pair = &PAIRS[which + 2];
        let mut document = Document::open(pair.ours.clone(), &text, 1 << 20).expect("opens");
        let base = document.revision();
        let (prepared, wanted) = if in_turn {
            (document.prepare_sequential(base, &edits), naive::edited_in_turn(&text, &edits))
        } else {
            (document.prepare(base, &edits), naive::edited(&text, &edits))
        };
        prop_assert_eq!(prepared.is_ok(), wanted.is_some(), "{:?}: {:?}", text, prepared);
        prop_assert_eq!(document.cut(Cursor::Lsp(cursor)).is_ok(), naive::offset(&text, cursor).is_some());
        if let (Ok(change), Some(wanted)) = (prepared, wanted) {
            let before: Vec<TokenId> = document.tokens().collect();
            prop_assert_eq!(spliced(&before, change.splices()), pair.whole(&wanted));
            document.commit(change).expect("is current");
            prop_assert_eq!(document.text(), Some(wanted.clone()));
            prop_assert!(document.tokens().eq(pair.whole(&wanted)));
        } else {
            prop_assert_eq!(document.text(), Some(text));
        }
    }
}
