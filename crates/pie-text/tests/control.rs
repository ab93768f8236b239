//! The text of a document is text: what spells a control token gets the tokens of its characters.

mod common;

use common::{GPT2, PAIRS, Pair, TINY, changed, spliced};
use pie_text::{Document, Tokenizer};
use pie_words::{Cursor, Spellings, TextEdit, TextRange, TokenId};
use serde_json::{Value, json};
use std::sync::Arc;

/// Every control token's spelling, in code, next to each other, and cut in two.
fn text(pair: &Pair) -> String {
    let mut text = String::from("fn marker() {\n");
    for token in pair.ours.control_tokens() {
        let content = pair.theirs.id_to_token(token.0).expect("is there");
        let (front, back) = content.split_at(content.char_indices().nth(3).expect("is longer").0);
        text += &format!("    let x = \"{content}\"; {content}{content}\n{content} {front} {back}{content}");
    }
    text
}

fn has_control(pair: &Pair, tokens: &[TokenId]) -> bool {
    tokens[pair.ours.prefix().len()..].iter().any(|token| pair.ours.control_tokens().contains(token))
}

#[test]
fn a_document_that_spells_control_tokens_holds_none() {
    for pair in PAIRS.iter() {
        let text = text(pair);
        let tokens = pair.ours.encode(&text).expect("encodes");
        assert!(!has_control(pair, &tokens), "{}", pair.name);
        assert_eq!((&tokens, pair.ours.decode(&tokens)), (&pair.whole(&text), text.clone()), "{}", pair.name);

        // An edit that closes a spelling around it, one that opens another, and a cursor inside.
        let mut document = Document::open(pair.ours.clone(), &text, 1 << 20).expect("opens");
        let mut new = text.clone();
        for (at, insert) in [(text.len() / 3, "<|endoftext|>"), (20, "｜>"), (17, "<｜fim▁hole")] {
            let at = (at..).find(|at| new.is_char_boundary(*at)).expect("the end is one");
            let edit = TextEdit { range: TextRange::Bytes { start: at, end: at }, insert: insert.into() };
            let change = document.prepare(document.revision(), &[edit]).expect("is fine");
            let before: Vec<TokenId> = document.tokens().collect();
            new.insert_str(at, insert);
            assert_eq!(spliced(&before, change.splices()), pair.whole(&new), "{}", pair.name);
            document.commit(change).expect("is current");
            let cut = document.cut(Cursor::Byte(at + insert.len())).expect("is a place");
            let sides = [&pair.ours.prefix()[..0], &cut.prefix_end, &cut.suffix_start].concat();
            assert!(!sides.iter().any(|token| pair.ours.control_tokens().contains(token)), "{}", pair.name);
        }
        // Another text becomes like this one by its difference.
        document.commit(document.become_text(&text).expect("works")).expect("is current");
        assert_eq!(document.tokens().collect::<Vec<_>>(), tokens);
    }
    // A client that sends tokens means the tokens.
    let ids: Vec<TokenId> = PAIRS[0].ours.control_tokens().to_vec();
    let document = Document::open_tokens(PAIRS[0].ours.clone(), ids.clone()).expect("opens");
    assert_eq!(document.tokens().collect::<Vec<_>>(), ids);
}

fn with_token(bytes: &[u8], token: &Value) -> Vec<u8> {
    changed(bytes, |file| {
        let mut token = token.clone();
        for flag in ["single_word", "lstrip", "rstrip", "normalized"] {
            if token[flag].is_null() {
                token[flag] = json!(false);
            }
        }
        file["added_tokens"].as_array_mut().expect("added tokens").push(token);
    })
}

#[test]
fn which_added_tokens_are_control_tokens() {
    let token = |content: &str, special: bool| json!({"id": 2048, "content": content, "special": special});
    let table = [
        (token("[END]", true), true),
        (token("[END]", false), false),
        (token("<|fim_middle|>", false), true),
        (token("<｜User｜>", false), true),
        (token("<fim_prefix>", false), true),
        (token("<pad>", false), true),
        (token("<tool_call>", false), false),
        (token("<||>", false), false),
        (token("  ", false), false),
        (token("õ", false), false),
        // What the model makes of text by itself: a byte, the result of a merge.
        (token("!", true), false),
        (token("return", true), false),
    ];
    for (token, is_control) in table {
        let tokenizer = Arc::new(Tokenizer::from_bytes(&with_token(GPT2, &token)).expect("loads"));
        let content = token["content"].as_str().expect("is text");
        let id = tokenizer.token_id(content).expect("is there");
        assert_eq!(tokenizer.control_tokens().contains(&id), is_control, "{token}");
        assert_eq!(tokenizer.ends().contains(&id), is_control, "{token}");
        // An added token of text is found in a text; a control token is not, and ends no text by being spelled.
        let tokens = tokenizer.encode(&format!("a{content}b")).expect("encodes");
        assert_eq!(tokens.contains(&id), !is_control, "{token}");
        assert_eq!(tokenizer.decode(&tokens), format!("a{content}b"), "{token}");
        assert_eq!(tokenizer.decode(&[id]), if is_control { "" } else { content }, "{token}");
    }
}

#[test]
fn a_control_token_that_is_a_whole_piece_is_still_text() {
    // Llama 3 takes a piece that stands in the vocabulary without merging it.
    let file = with_token(GPT2, &json!({"id": 2048, "content": "<@@>", "special": true}));
    let file = changed(&file, |file| {
        file["model"]["ignore_merges"] = json!(true);
        file["model"]["vocab"]["<@@>"] = json!(2048);
    });
    let tokenizer = Tokenizer::from_bytes(&file).expect("loads");
    let tokens = tokenizer.encode("a<@@>b <@@>").expect("encodes");
    assert!(!tokens.contains(&TokenId(2048)), "{tokens:?}");
    assert_eq!(tokenizer.decode(&tokens), "a<@@>b <@@>");
}

#[test]
fn added_tokens_outside_of_the_alphabet_of_bytes_are_themselves() {
    let tokenizer = Tokenizer::from_bytes(&common::with_added(TINY, 8192)).expect("loads");
    let text = |content: &str| tokenizer.decode(&[tokenizer.token_id(content).expect("is there")]);
    for content in ["õ", "    ", "ab\nc"] {
        assert_eq!(text(content), content);
    }
    assert_eq!(["<｜fim▁hole｜>", "<|eot|>"].map(text), ["", ""], "control tokens are no text");
}

/// Who asks for it has control tokens read in a text, and in what is edited into it.
#[test]
fn a_document_may_be_read_with_its_control_tokens() {
    for pair in PAIRS.iter().filter(|pair| !pair.ours.control_tokens().is_empty()) {
        let reading = pair.ours.reading(Spellings::ControlTokens);
        let token = pair.ours.control_tokens()[0];
        let content = pair.theirs.id_to_token(token.0).expect("is there");
        let text = format!("fn a() {{}} {content} let x = 1;");
        let mut document = Document::open(reading.clone(), &text, 1 << 20).expect("opens");
        let count = |document: &Document| document.tokens().filter(|other| *other == token).count();
        let begins = usize::from(pair.ours.prefix().contains(&token));
        assert_eq!(
            (count(&document), document.spellings()),
            (begins + 1, Spellings::ControlTokens),
            "{}",
            pair.name
        );

        // A spelling that an edit breaks is text again; one that it closes is a token.
        let (start, middle) =
            (text.find(&content).expect("is there"), content.chars().next().map_or(0, char::len_utf8));
        for (at, end, insert, expected) in
            [(start + middle, start + middle, " ", 0), (start + middle, start + middle + 1, "", 1)]
        {
            let edit = TextEdit { range: TextRange::Bytes { start: at, end }, insert: insert.into() };
            let change = document.prepare(document.revision(), &[edit]).expect("is fine");
            document.commit(change).expect("is current");
            assert_eq!(count(&document), begins + expected, "{}", pair.name);
            let whole = reading.encode(&document.text().expect("has one")).expect("encodes");
            assert_eq!(document.tokens().collect::<Vec<_>>(), whole, "{}", pair.name);
        }
        // Opened again as text, it is text, with the difference alone.
        let other = Document::open(pair.ours.clone(), &text, 1 << 20).expect("opens");
        let change = document.become_read_as(&other).expect("works");
        assert!(change.splices().deleted() < 4 && !change.splices().is_empty(), "{}: {change:?}", pair.name);
        document.commit(change).expect("is current");
        assert_eq!((count(&document), document.spellings()), (begins, Spellings::Text), "{}", pair.name);
        assert!(document.tokens().eq(other.tokens()));
    }
}
