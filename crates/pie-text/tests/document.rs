//! Positions, refusals, revisions, and reopening: each row a case.

mod common;

use common::{PAIRS, PYTHON, spliced};
use pie_text::{Document, TextError};
use pie_words::{
    LspPosition, PositionEncoding, Revision, Splice, Splices, TextEdit, TextRange, TokenId, TokenIndex,
};

fn open(text: &str) -> Document {
    Document::open(PAIRS[0].ours.clone(), text, 1000).expect("opens")
}

fn at(line: u32, column: u32) -> LspPosition {
    LspPosition { line, column, encoding: PositionEncoding::Utf16 }
}

fn lsp(start: (u32, u32), end: (u32, u32), insert: &str) -> TextEdit {
    TextEdit {
        range: TextRange::Lsp { start: at(start.0, start.1), end: at(end.0, end.1) },
        insert: insert.into(),
    }
}

fn bytes(start: usize, end: usize, insert: &str) -> TextEdit {
    TextEdit { range: TextRange::Bytes { start, end }, insert: insert.into() }
}

fn edit(text: &str, edits: &[TextEdit]) -> Result<String, TextError> {
    let mut document = open(text);
    let change = document.prepare(Revision(0), edits)?;
    assert_eq!(document.text().as_deref(), Some(text), "preparing changes nothing");
    document.commit(change)?;
    assert_eq!(document.revision(), Revision(1));
    Ok(document.text().expect("has text"))
}

#[test]
fn lsp_positions_count_lines_and_utf16_units() {
    let table: [(&str, (u32, u32), &str); 24] = [
        ("", (0, 0), "|"),
        ("ab", (0, 2), "ab|"),
        ("ab\n", (0, 2), "ab|\n"),
        ("ab\n", (1, 0), "ab\n|"),
        ("ab\r\ncd", (0, 2), "ab|\r\ncd"),
        ("ab\r\ncd", (1, 1), "ab\r\nc|d"),
        ("ab\rcd", (1, 0), "ab\r|cd"),
        ("a\n\r\nb", (1, 0), "a\n|\r\nb"),
        ("a\r\rb", (2, 0), "a\r\r|b"),
        ("é😀x", (0, 1), "é|😀x"),
        ("é😀x", (0, 3), "é😀|x"),
        ("é😀x\ny", (0, 4), "é😀x|\ny"),
        ("e\u{301}\t你", (0, 3), "e\u{301}\t|你"),
        // Neither of these ends a line in LSP.
        ("a\u{2028}b\u{85}c\u{b}d\u{c}e", (0, 9), "a\u{2028}b\u{85}c\u{b}d\u{c}e|"),
        ("\n\n\n", (3, 0), "\n\n\n|"),
        ("a\r\n", (1, 0), "a\r\n|"),
        // Behind the end of a line is its end, behind the last line the end of the text, as the protocol has it.
        ("ab\r\ncd", (0, 3), "ab|\r\ncd"),
        ("ab\rcd", (0, u32::MAX), "ab|\rcd"),
        ("x😀\ny", (0, 4), "x😀|\ny"),
        ("ab", (0, u32::MAX), "ab|"),
        ("ab\ncd", (2, 0), "ab\ncd|"),
        ("ab\ncd\n", (3, 7), "ab\ncd\n|"),
        ("ab", (u32::MAX, u32::MAX), "ab|"),
        ("", (1, 1), "|"),
    ];
    for (text, place, wanted) in table {
        assert_eq!(edit(text, &[lsp(place, place, "|")]).as_deref(), Ok(wanted), "{text:?} at {place:?}");
    }
    assert_eq!(edit("one\r\ntwo\nthree", &[lsp((0, 1), (2, 2), "|")]).as_deref(), Ok("o|ree"));
    assert_eq!(open("a\r\nb\rc\n\u{2028}").lines(), 4);
    // What "to the end" looks like: to column 0 behind the last line.
    assert_eq!(edit("one\ntwo", &[lsp((0, 3), (9, 0), "!")]).as_deref(), Ok("one!"));
    for (encoding, column) in [
        (PositionEncoding::Utf8, 6),
        (PositionEncoding::Utf16, 3),
        (PositionEncoding::Utf32, 2),
        (PositionEncoding::Utf8, 99),
    ] {
        let place = LspPosition { line: 1, column, encoding };
        let edits = [TextEdit { range: TextRange::Lsp { start: place, end: place }, insert: "|".into() }];
        let wanted = if column > 6 { "\né😀x|" } else { "\né😀|x" };
        assert_eq!(edit("\né😀x", &edits).as_deref(), Ok(wanted), "{place:?}");
    }
}

#[test]
fn bad_edits_are_refused_by_name_and_number() {
    let good = || bytes(0, 0, "x");
    let inside = LspPosition { line: 0, column: 1, encoding: PositionEncoding::Utf8 };
    let inside = TextEdit { range: TextRange::Lsp { start: inside, end: inside }, insert: String::new() };
    let table: [(&str, Vec<TextEdit>, &str, usize); 12] = [
        ("abc", vec![good(), bytes(2, 1, "")], "RANGE_REVERSED", 1),
        ("a\nb", vec![lsp((1, 0), (0, 0), "")], "RANGE_REVERSED", 0),
        ("abc", vec![bytes(0, 4, "")], "RANGE_OUT_OF_BOUNDS", 0),
        ("abc", vec![bytes(usize::MAX, usize::MAX, "")], "RANGE_OUT_OF_BOUNDS", 0),
        ("aé", vec![bytes(2, 3, "")], "INSIDE_CHARACTER", 0),
        ("😀", vec![good(), good(), bytes(0, 3, "")], "INSIDE_CHARACTER", 2),
        ("abcdef", vec![bytes(2, 5, ""), bytes(0, 3, "")], "EDITS_OVERLAP", 1),
        ("abcdef", vec![bytes(1, 4, ""), good(), bytes(2, 2, "x")], "EDITS_OVERLAP", 2),
        ("abcdef", vec![bytes(1, 4, "y"), bytes(1, 2, "x")], "EDITS_OVERLAP", 1),
        ("x😀", vec![lsp((0, 2), (0, 3), "")], "BAD_UTF16_COLUMN", 0),
        ("é", vec![good(), inside], "INSIDE_CHARACTER", 1),
        // Both behind the end of the line, but not of the lines.
        ("ab\ncd", vec![lsp((1, 9), (0, 9), "")], "RANGE_REVERSED", 0),
    ];
    for (text, edits, code, number) in table {
        let error = edit(text, &edits).expect_err(code);
        assert_eq!((error.code(), error.edit()), (code, Some(number)), "{text:?}: {error}");
    }
    let error = edit("abc", &[bytes(0, 0, &"x".repeat(998))]).expect_err("is too long");
    assert_eq!(error, TextError::TooLong { bytes: 1001, limit: 1000 });
    assert_eq!(
        Document::open(PAIRS[0].ours.clone(), "abcd", 3).expect_err("too long").code(),
        "DOCUMENT_TOO_LONG"
    );
}

#[test]
fn edits_of_a_request_share_a_base_and_insertions_keep_their_order() {
    let edits = [
        bytes(3, 3, "1"),
        bytes(5, 6, "<>"),
        bytes(3, 5, "_"),
        bytes(3, 3, "2"),
        bytes(6, 6, "!"),
        bytes(0, 1, ""),
    ];
    assert_eq!(edit("abcdef", &edits).as_deref(), Ok("bc12_<>!"));
}

#[test]
fn sequential_edits_count_in_the_text_that_those_before_left() {
    let mut document = open("let x = 1;\n");
    let edits = [
        lsp((0, 4), (0, 5), "answer"),
        lsp((0, 13), (0, 14), "42"),
        lsp((1, 0), (1, 0), "answer"),
        lsp((1, 6), (1, 6), "()"),
        bytes(4, 6, "the_an"),
        bytes(0, 0, "pub "),
    ];
    let change = document.prepare_sequential(Revision(0), &edits).expect("each is fine in its text");
    document.commit(change).expect("is current");
    let made = (document.text(), document.revision());
    assert_eq!(made, (Some("pub let the_answer = 42;\nanswer()".into()), Revision(1)));
    // R2: the last of them is wrong, so none is made.
    let late = [bytes(0, 4, ""), bytes(0, 33, "")];
    let error = document.prepare_sequential(Revision(1), &late).expect_err("is too long by then");
    assert_eq!((error.code(), error.edit()), ("RANGE_OUT_OF_BOUNDS", Some(1)));
    let stale = document.prepare_sequential(Revision(0), &late).expect_err("is stale");
    assert_eq!(stale.code(), "REVISION_MISMATCH");
    assert_eq!((document.text(), document.revision()), made);
}

#[test]
fn a_change_counts_for_its_revision_and_its_document_only() {
    let mut document = open("one");
    let (first, second) = (
        document.prepare(Revision(0), &[bytes(0, 0, "a")]),
        document.prepare(Revision(0), &[bytes(3, 3, "b")]),
    );
    document.commit(first.expect("is fine")).expect("is current");
    let late = document.commit(second.expect("is fine")).expect_err("is late");
    assert_eq!(late, TextError::RevisionMismatch { base: Revision(0), current: Revision(1) });
    // The stale base is what a client must hear of, even where the range is wrong too.
    let stale = document.prepare(Revision(0), &[bytes(9, 9, "")]).expect_err("is stale");
    assert_eq!((stale.code(), stale.current_revision()), ("REVISION_MISMATCH", Some(Revision(1))));
    let foreign = open("one").prepare(Revision(0), &[]).expect("is fine");
    let mut other = open("one");
    assert_eq!(other.commit(foreign), Err(TextError::ForeignChange));
    assert_eq!((document.text().as_deref(), document.len_bytes()), (Some("aone"), 4));
    assert_eq!((document.slice(1, 3).as_deref(), document.slice(1, 9).is_err()), (Ok("on"), true));
}

#[test]
fn documents_of_tokens_take_splices_and_documents_of_text_take_text() {
    let ids = |range: std::ops::Range<u32>| range.map(TokenId).collect::<Vec<_>>();
    let splice = |at, delete, insert| Splice { at: TokenIndex(at), delete, insert };
    let mut document = Document::open_tokens(PAIRS[0].ours.clone(), ids(0..2000)).expect("opens");
    assert_eq!((document.text(), document.token_count()), (None, 2000));
    let list = vec![splice(0, 1, ids(7..9)), splice(900, 700, ids(0..3)), splice(2000, 0, ids(5..6))];
    let splices = Splices::new(list, 2000).expect("fits");
    let change = document.prepare_tokens(Revision(0), splices.clone()).expect("is fine");
    assert_eq!((change.splices(), change.revision()), (&splices, Revision(1)));
    document.commit(change).expect("is current");
    assert_eq!(document.tokens().collect::<Vec<_>>(), spliced(&ids(0..2000), &splices));

    let far = Splices::new(vec![splice(1999, 1, vec![])], 2000).expect("fits what was");
    let error = document.prepare_tokens(Revision(1), far).expect_err("leaves what is");
    assert_eq!((error.code(), error.edit()), ("RANGE_OUT_OF_BOUNDS", Some(0)));
    assert_eq!(document.prepare(Revision(1), &[]).expect_err("has no text").code(), "TOKENS_ONLY");
    let error = open("x").prepare_tokens(Revision(0), Splices::default()).expect_err("has text");
    assert_eq!(error.code(), "TEXT_ONLY");
}

#[test]
fn a_reopened_document_keeps_what_both_texts_have() {
    let pair = &PAIRS[0];
    let limit = 1 << 20;
    let old = PYTHON.to_owned();
    let new = old
        .replace("yield path", "yield  the_path")
        .replace("import json\n", "")
        .replace("def main", "def mein");
    let mut document = Document::open(pair.ours.clone(), &old, limit).expect("opens");
    let same = document.become_text(&old).expect("works");
    assert!(same.splices().is_empty());
    document.commit(same).expect("is current");
    assert_eq!(document.revision(), Revision(0));

    let before: Vec<TokenId> = document.tokens().collect();
    let change = document.become_text(&new).expect("works");
    assert_eq!(spliced(&before, change.splices()), pair.whole(&new));
    assert_eq!(change.splices().iter().count(), 3);
    assert!(change.splices().inserted() < 10, "{:?}", change.splices());
    // One edit that replaces everything, as clients without increments send it, costs no more.
    let replaced = document.prepare(Revision(0), &[bytes(0, old.len(), &new)]).expect("is fine");
    assert_eq!(replaced.splices(), change.splices());
    document.commit(change).expect("is current");
    assert_eq!((document.text(), document.revision()), (Some(new), Revision(1)));

    // Documents of tokens likewise; but no text becomes tokens, nor tokens a text: they take other kinds of edits.
    let ids: Vec<TokenId> = document.tokens().collect();
    let fewer = [&ids[..5], &ids[9..]].concat();
    let mut tokens = Document::open_tokens(pair.ours.clone(), ids.clone()).expect("opens");
    let change = tokens.become_tokens(&fewer).expect("works");
    assert_eq!((change.splices().deleted(), change.splices().inserted()), (4, 0));
    tokens.commit(change).expect("is current");
    assert_eq!((tokens.tokens().collect::<Vec<_>>(), tokens.revision()), (fewer, Revision(1)));
    assert_eq!(document.become_tokens(&ids).expect_err("has a text").code(), "TEXT_ONLY");
    assert_eq!(tokens.become_text(&old).expect_err("has none").code(), "TOKENS_ONLY");
}
