//! What stands in front of a document is what its parts say, whatever stood there before, and the document is as if nothing did.

mod common;

use common::TINY;
use pie_text::{Document, Tokenizer, led_by};
use pie_words::{Part, Parts, Revision, TextEdit, TextRange, TokenId};
use proptest::prelude::*;
use std::sync::Arc;

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_bytes(TINY).expect("it loads"))
}

fn parts(list: &[(&str, &str)]) -> Parts {
    let part = |(name, text): &(&str, &str)| Part { name: (*name).to_owned(), text: (*text).to_owned() };
    Parts { list: list.iter().map(part).collect(), document: "main.rs".to_owned() }
}

/// Said once more, plainly.
fn expected(tokenizer: &Arc<Tokenizer>, parts: &Parts, text: &str) -> Vec<TokenId> {
    let alone =
        |text: &str| tokenizer.encode(text).expect("it is taken")[tokenizer.prefix().len()..].to_vec();
    let mut tokens = tokenizer.prefix().to_vec();
    let markers = tokenizer.file_markers();
    if let Some(markers) = markers.filter(|_| !parts.list.is_empty()) {
        tokens.push(markers.repository);
        tokens.extend(alone("repository\n"));
    }
    for part in &parts.list {
        tokens.extend(markers.map(|markers| markers.file));
        tokens.extend(alone(&led_by(markers, &part.name, &part.text)));
    }
    if let Some(markers) = markers.filter(|_| !parts.list.is_empty()) {
        tokens.push(markers.file);
        tokens.extend(alone(&format!("{}\n", parts.document)));
    }
    tokens.extend(alone(text));
    tokens
}

fn texts() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..4_usize, 0..6_usize), 0..5)
}

const BODIES: [&str; 6] =
    ["", "let x = 1;\n", "fn f() {\n    g()\n}\n", "é💧\n", "no line", "let x = 1;\nlet y = 2;\n"];

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(4), failure_persistence: None, cases: 64, ..ProptestConfig::default()
    })]

    #[test]
    fn parts_come_move_change_and_go(steps in prop::collection::vec((texts(), 0..8_usize), 1..6)) {
        let tokenizer = tokenizer();
        let mut document = Document::open(tokenizer.clone(), "fn main() {}\n", 1 << 20).expect("it opens");
        let mut table: Vec<TokenId> = document.tokens().collect();
        for (list, at) in steps {
            let list: Vec<_> = list.iter().map(|(name, body)| (["a.rs", "b.rs", "", "c/d.rs"][*name], BODIES[*body])).collect();
            let front = parts(&list);
            let change = document.prepare_parts(document.revision(), &front).expect("they are taken");
            table = change.splices().apply(&table);
            let before = document.revision();
            let is_same = document.parts() == &front;
            document.commit(change).expect("it was prepared here");
            prop_assert_eq!(document.revision() == before, is_same);
            prop_assert_eq!(document.parts(), &front);
            let text = document.text().expect("it has one");
            prop_assert_eq!(&table, &expected(&tokenizer, &front, &text));
            // Edits of the text count from its own begin.
            let edit = TextEdit { range: TextRange::Bytes { start: at, end: at + 1 }, insert: "ab\n".to_owned() };
            let change = document.prepare(document.revision(), &[edit]).expect("it is in the text");
            table = change.splices().apply(&table);
            document.commit(change).expect("it was prepared here");
            let text = document.text().expect("it has one");
            prop_assert_eq!(&table, &expected(&tokenizer, &front, &text));
            prop_assert_eq!(document.tokens().collect::<Vec<_>>(), table.clone());
            prop_assert_eq!(document.leading() + document.entries().count(), table.len());
            let again = Document::open(tokenizer.clone(), &text, 1 << 20).expect("it opens").with_parts(&front);
            prop_assert_eq!(again.expect("they are taken").tokens().collect::<Vec<_>>(), table.clone());
        }
    }
}

#[test]
fn parts_are_of_texts_and_of_a_revision() {
    let tokenizer = tokenizer();
    let document = Document::open(tokenizer.clone(), "text", 100).expect("it opens");
    let front = parts(&[("a.rs", "let x = 1;\n")]);
    let stale = document.prepare_parts(Revision(7), &front).expect_err("another revision");
    assert_eq!(stale.code(), "REVISION_MISMATCH");
    let tokens = Document::open_tokens(tokenizer, vec![TokenId(1)]).expect("it opens");
    assert_eq!(tokens.prepare_parts(tokens.revision(), &front).expect_err("no text").code(), "TOKENS_ONLY");
}
