//! Byte and LSP positions in arbitrary text, against strings.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pie_fuzz::pairs::PAIRS;
use pie_fuzz::{explained, naive};
use pie_text::Document;
use pie_words::{Cursor, LspPosition, PositionEncoding, Revision, TextEdit, TextRange};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    place: (u32, u32),
    end: (u32, u32),
    units: u8,
    bytes: (u64, u64),
    small: bool,
    text: &'a str,
}

// Tokenizers take a while to load, which is no input's fault.
fuzz_target!(init: {
    std::sync::LazyLock::force(&PAIRS);
}, |input: Input| {
    let small = |number: u32| if input.small { number % 16 } else { number };
    let encodings = [PositionEncoding::Utf8, PositionEncoding::Utf16, PositionEncoding::Utf32];
    let encoding = encodings[usize::from(input.units % 3)];
    let at = |(line, column)| LspPosition { line: small(line), column: small(column), encoding };
    let offset = |offset: u64| {
        if input.small { offset as usize % (input.text.len() + 2) } else { offset as usize }
    };
    let document = Document::open(PAIRS[1].ours.clone(), input.text, 1 << 16);
    let Some(document) = explained(document) else { return };
    let lines = 1 + input.text.replace("\r\n", "\n").chars().filter(|c| matches!(c, '\n' | '\r')).count();
    assert_eq!(document.lines(), lines, "{:?}", input.text);
    let ranges = [
        TextRange::Lsp { start: at(input.place), end: at(input.end) },
        TextRange::Bytes { start: offset(input.bytes.0), end: offset(input.bytes.1) },
    ];
    for range in ranges {
        let wanted = naive::bytes(input.text, range);
        let edit = TextEdit { range, insert: "|".to_owned() };
        let prepared = document.prepare(Revision(0), &[edit]);
        assert_eq!(prepared.is_ok(), wanted.is_some(), "{range:?} in {:?}: {prepared:?}", input.text);
        let cursor = match range {
            TextRange::Bytes { start, .. } => (Cursor::Byte(start), TextRange::Bytes { start, end: start }),
            TextRange::Lsp { start, .. } => (Cursor::Lsp(start), TextRange::Lsp { start, end: start }),
        };
        let cut = document.cut(cursor.0);
        assert_eq!(cut.is_ok(), naive::bytes(input.text, cursor.1).is_some(), "{cursor:?}: {cut:?}");
        let sliced = match range {
            TextRange::Bytes { start, end } => Some(document.slice(start, end)),
            TextRange::Lsp { .. } => None,
        };
        if let Some(sliced) = sliced {
            assert_eq!(sliced.ok().as_deref(), wanted.map(|(start, end)| &input.text[start..end]));
        }
        explained(prepared);
    }
});
