//! What a model is told to write lines anew: the latest edits, and the lines, in its own form.

mod common;

use common::{GPT2, changed};
use pie_text::{Document, PromptForm, Tokenizer, TokenizerSettings};
use pie_words::{Cursor, RegionLines, TextEdit, TextRange};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TEXT: &str = "import os\n\n\ndef one(path):\n    print(path)\n\n\ndef two(path):\n    print(path)\n\n\ndef three():\n    pass\n";
const LINES: RegionLines = RegionLines { before: 5, behind: 5 };

/// A model's folder with a tokenizer that has the markers of files.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("region").join(name);
    std::fs::create_dir_all(&folder).expect("is made");
    let bytes = changed(GPT2, |file| {
        let first = file["model"]["vocab"].as_object().expect("a vocabulary").len();
        let list = file["added_tokens"].as_array_mut().expect("added tokens");
        for (index, content) in ["<|repo_name|>", "<|file_sep|>"].into_iter().enumerate() {
            list.push(
                json!({"id": first + 10 + index, "content": content, "single_word": false, "lstrip": false,
                             "rstrip": false, "normalized": false, "special": true}),
            );
        }
    });
    std::fs::write(folder.join("tokenizer.json"), bytes).expect("is written");
    folder
}

fn edited(tokenizer: Arc<Tokenizer>, text: &str, edits: &[(&str, &str)]) -> Document {
    let mut document = Document::open(tokenizer, text, 1 << 20).expect("it opens");
    for (old, new) in edits {
        let start = document.text().expect("text").find(old).expect("it stands there");
        let range = TextRange::Bytes { start, end: start + old.len() };
        let edit = TextEdit { range, insert: (*new).to_owned() };
        let change = document.prepare(document.revision(), &[edit]).expect("it fits");
        document.commit(change).expect("nothing came between");
    }
    document
}

fn at(text: &str, what: &str) -> Option<Cursor> {
    text.find(what).map(Cursor::Byte)
}

/// A prompt with its markers spelled.
fn spelled(tokenizer: &Tokenizer, prompt: &[pie_words::TokenId]) -> String {
    let marker = tokenizer.file_markers().expect("it has them").file;
    let parts: Vec<String> =
        prompt.split(|token| *token == marker).map(|text| tokenizer.decode(text)).collect();
    parts.join("<FILE>")
}

#[test]
fn a_model_is_told_the_latest_edits_and_the_lines() {
    let edits = [("print(path)", "log(path)"), ("def two", "def second")];
    let open = |form: &str| {
        let form = Some(form.parse::<PromptForm>().expect("is one"));
        let settings = TokenizerSettings { form, ..TokenizerSettings::default() };
        Arc::new(Tokenizer::open_with(&folder("plain"), settings).expect("it loads"))
    };
    let now =
        "def one(path):\n    log(path)\n\n\ndef second(path):\n    print(path)\n\n\ndef three():\n    pass\n";
    let sweep = format!(
        "<FILE>file.diff\noriginal:\ndef one(path):\n    print(path)\n\nupdated:\ndef one(path):\n    log(path)\n\n\
         <FILE>file.diff\noriginal:\n\ndef two(path):\n    print(path)\nupdated:\n\ndef second(path):\n    print(path)\n\
         <FILE>original/file:4:13\n{}<FILE>current/file:4:13\n{now}<FILE>updated/file:4:13\n",
        now.replace("second", "two"),
    );
    for (form, expected, stop) in [
        ("sweep", sweep, None),
        ("plain", format!("The lines 4 to 13 of file, as they are:\n```\n{now}```\n"), Some("\n```")),
        (
            "zeta",
            format!(
                "<|editable_region_start|>\n{}<|editable_region_end|>",
                now.replace("second(", "<|user_cursor_is_here|>second(")
            ),
            Some("\n<|editable_region_end|>"),
        ),
    ] {
        let tokenizer = open(form);
        let document = edited(tokenizer.clone(), TEXT, &edits);
        let text = document.text().expect("text");
        let region = document.region(at(&text, "second"), LINES).expect("it is there");
        // Empty lines at its ends are none of it.
        assert_eq!((&text[region.bytes.clone()], region.text.as_str()), (now, now), "{form}");
        assert_eq!(tokenizer.decode(&region.expected), now, "{form}");
        let prompt = spelled(&tokenizer, &region.prompt);
        assert!(prompt.contains(&expected), "{form}: {prompt}");
        assert_eq!(region.stop.first().map(String::as_str), stop, "{form}");
    }
}

#[test]
fn what_is_quoted_is_text_and_lines_end_as_models_know_them() {
    let tokenizer = Arc::new(Tokenizer::open(&folder("sweep-next-edit")).expect("it loads"));
    assert_eq!(tokenizer.prompt_form(), PromptForm::Sweep, "by its name");
    let document = edited(tokenizer.clone(), "a <|file_sep|> b\r\nc\r\n", &[("c", "d")]);
    let region = document.region(None, LINES).expect("it is there");
    assert_eq!(region.text, "a <|file_sep|> b\r\nd\r\n");
    // One edit, and the lines three times.
    let marker = tokenizer.file_markers().expect("it has them").file;
    assert_eq!(region.prompt.iter().filter(|token| **token == marker).count(), 4);
    assert!(!spelled(&tokenizer, &region.prompt).contains('\r'));
}

#[test]
fn a_document_that_nobody_edited_has_a_region_too_and_a_large_one_is_refused() {
    let tokenizer = Arc::new(Tokenizer::open(&folder("untouched")).expect("it loads"));
    for text in ["", "\n\n", "x", TEXT] {
        let document = Document::open(tokenizer.clone(), text, 1 << 20).expect("it opens");
        let region =
            document.region(None, RegionLines { before: u32::MAX, behind: u32::MAX }).expect("it is there");
        assert_eq!(region.text, text, "{text:?}");
        assert!(!spelled(&tokenizer, &region.prompt).contains("latest edits of"), "{text:?}");
    }
    let long = Document::open(tokenizer.clone(), &"y".repeat(20_000), 1 << 20).expect("it opens");
    let refused = long.region(None, LINES).expect_err("it is one line, and too long");
    assert_eq!(refused.code(), "REGION_TOO_LONG");
    let tokens = Document::open_tokens(tokenizer.clone(), vec![]).expect("it opens");
    assert_eq!(tokens.region(None, LINES).expect_err("it has no lines").code(), "TOKENS_ONLY");
}
