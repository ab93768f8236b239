//! Against a twin that knows nothing but characters, one after the other.

use super::*;
use lsp_types::Range;
use proptest::prelude::*;

const ENCODINGS: [ColumnEncoding; 3] = [ColumnEncoding::Utf8, ColumnEncoding::Utf16, ColumnEncoding::Utf32];

/// The byte at a position, found by walking there.
fn walked(text: &str, at: Position, encoding: ColumnEncoding) -> usize {
    let (mut line, mut column, mut found) = (0, 0, 0);
    let mut letters = text.char_indices().peekable();
    while let Some((byte, letter)) = letters.next() {
        let ends = letter == '\n' || letter == '\r';
        let width = match encoding {
            ColumnEncoding::Utf8 => letter.len_utf8(),
            ColumnEncoding::Utf16 => letter.len_utf16(),
            ColumnEncoding::Utf32 => 1,
        };
        // The cursor cannot be behind the line's end, nor inside of a character.
        if line == at.line && (ends || column + width > at.character as usize) {
            return byte;
        }
        column += width;
        found = byte + letter.len_utf8();
        if letter == '\r' && letters.peek().is_some_and(|(_, next)| *next == '\n') {
            letters.next();
            found += 1;
        }
        if ends {
            (line, column) = (line + 1, 0);
        }
    }
    found
}

fn change(range: Option<Range>, text: &str) -> TextDocumentContentChangeEvent {
    TextDocumentContentChangeEvent { range, range_length: None, text: text.to_owned() }
}

#[test]
fn emoji_count_as_the_encoding_says_and_places_beyond_are_clamped() {
    let text = Rope::from_str("a😀b\r\nä\rz");
    let at = |line, column, encoding| offset(&text, Position::new(line, column), encoding);
    for (encoding, behind) in ENCODINGS.into_iter().zip([5, 3, 2]) {
        assert_eq!(at(0, behind, encoding), 5, "{encoding:?}");
        assert_eq!(at(0, 99, encoding), 6, "before the line's end");
        assert_eq!((at(1, 9, encoding), at(2, 0, encoding), at(2, 7, encoding)), (10, 11, 12));
        assert_eq!(at(9, 0, encoding), 12, "the document's end");
        assert_eq!(position(&text, 5, encoding), Position::new(0, behind));
    }
    assert_eq!(
        (at(0, 2, ColumnEncoding::Utf16), at(0, 3, ColumnEncoding::Utf8)),
        (1, 1),
        "inside of a character"
    );
}

#[test]
fn the_first_encoding_that_is_offered_counts() {
    let kinds =
        |names: &[&'static str]| names.iter().map(|name| PositionEncodingKind::new(name)).collect::<Vec<_>>();
    assert_eq!(ColumnEncoding::agreed(None), ColumnEncoding::Utf16);
    assert_eq!(ColumnEncoding::agreed(Some(&kinds(&["utf-7", "utf-32", "utf-8"]))), ColumnEncoding::Utf32);
    assert_eq!(ColumnEncoding::agreed(Some(&[])), ColumnEncoding::Utf16);
}

#[test]
fn what_a_change_leaves_as_it_is_is_no_edit() {
    let mut text = Rope::from_str("let foo = 1;\nlet bar = 2;\n");
    let edit = apply(&mut text, change(None, "let foo = 1;\nlet bazar = 2;\n"), ColumnEncoding::Utf16);
    assert_eq!(edit, Some(Edit { range: 19..19, text: "za".to_owned() }));
    let same = Range::new(Position::new(0, 4), Position::new(0, 7));
    assert_eq!(apply(&mut text, change(Some(same), "foo"), ColumnEncoding::Utf16), None);
    assert_eq!(word_before(&text, 7), "foo");
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(8), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn changes_one_after_the_other_do_what_the_twin_does(
        base in "[aä😀\n\r]{0,30}",
        changes in prop::collection::vec(((0..5_u32, 0..9_u32), (0..5_u32, 0..9_u32), "[bö😀\n\r]{0,5}", 0..9_u8), 0..12),
        encoding in prop::sample::select(ENCODINGS.to_vec()),
    ) {
        let (mut rope, mut twin, mut told) = (Rope::from_str(&base), base.clone(), base);
        for (from, to, text, kind) in changes {
            let places = [from, to].map(|(line, column)| Position::new(line, column));
            let range = (kind > 0).then(|| Range::new(places[0], places[1]));
            let bytes = match kind {
                0 => [0, twin.len()],
                _ => places.map(|place| walked(&twin, place, encoding)),
            };
            twin.replace_range(bytes[0].min(bytes[1])..bytes[0].max(bytes[1]), &text);
            if let Some(edit) = apply(&mut rope, change(range, &text), encoding) {
                told.replace_range(edit.range, &edit.text);
            }
            prop_assert_eq!(&rope.to_string(), &twin);
            prop_assert_eq!(&told, &twin);
            let end = position(&rope, twin.len(), encoding);
            prop_assert_eq!(offset(&rope, end, encoding), twin.len());
        }
    }
}
