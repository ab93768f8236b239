//! How models fill in the middle: by the table, by their names, by a setting; and what of it ends a text.

mod common;

use common::{GPT2, changed};
use pie_text::{FimOrder, Tokenizer, TokenizerError, TokenizerSettings};
use pie_words::TokenId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// GPT-2's tokens, and these, none of which the file calls special.
fn with_tokens(contents: &[&str]) -> Vec<u8> {
    changed(GPT2, |file| {
        for (id, content) in (2048..).zip(contents) {
            let token = json!({"id": id, "content": content, "special": false, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false});
            file["added_tokens"].as_array_mut().expect("added tokens").push(token);
        }
    })
}

fn folder(name: &str, tokenizer: &[u8], config: &Value) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fim").join(name);
    std::fs::create_dir_all(&folder).expect("creates");
    std::fs::write(folder.join("tokenizer.json"), tokenizer).expect("writes");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("writes");
    folder
}

fn one(id: Option<TokenId>) -> Vec<TokenId> {
    vec![id.expect("is there")]
}

const STARCODER: [&str; 6] =
    ["<fim_suffix>", "<fim_prefix>", "<fim_middle>", "<fim_pad>", "<file_sep>", "<repo_name>"];

#[test]
fn each_family_has_its_order_and_its_ends() {
    use FimOrder::{PrefixFirst, SuffixFirst};
    // The family, its markers in the order of the prompt, and other tokens that end a filling.
    let table: &[(&str, FimOrder, &[&str], &[&str])] = &[
        (
            "deepseek-coder",
            PrefixFirst,
            &["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
            &["<|EOT|>"],
        ),
        (
            "qwen",
            PrefixFirst,
            &["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            &["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_end|>"],
        ),
        (
            "starcoder",
            PrefixFirst,
            &["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
            &["<|endoftext|>", "<fim_pad>", "<file_sep>", "<repo_name>", "<filename>", "<gh_stars>"],
        ),
        ("santacoder", PrefixFirst, &["<fim-prefix>", "<fim-suffix>", "<fim-middle>"], &["<fim-pad>"]),
        (
            "seed-coder",
            SuffixFirst,
            &["<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
            &["<[end▁of▁sentence]>", "<filename>"],
        ),
        ("codestral", SuffixFirst, &["[SUFFIX]", "[PREFIX]"], &["[MIDDLE]"]),
        ("code-llama", PrefixFirst, &["▁<PRE>", "▁<SUF>", "▁<MID>"], &["▁<EOT>"]),
        ("glm", PrefixFirst, &["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"], &[]),
    ];
    for (family, order, markers, ends) in table {
        let tokens: Vec<&str> = [*markers, *ends].concat();
        let added: Vec<&str> = tokens.iter().copied().filter(|token| *token != "<|endoftext|>").collect();
        let whole = with_tokens(&added);
        // Some conversions have them in the vocabulary alone.
        let bare = changed(&with_tokens(&[]), |file| {
            for (id, content) in (2048..).zip(&added) {
                file["model"]["vocab"][*content] = json!(id);
            }
        });
        for (file, is_added) in [(whole, true), (bare, false)] {
            let tokenizer = Tokenizer::from_bytes(&file).expect(family);
            let fim = tokenizer.fim().expect(family);
            let id = |marker: Option<&&str>| marker.map_or(vec![], |marker| one(tokenizer.token_id(marker)));
            let expected = (id(markers.first()), id(markers.get(1)), id(markers.get(2)));
            assert_eq!(
                (&fim.open, &fim.between, &fim.close),
                (&expected.0, &expected.1, &expected.2),
                "{family}"
            );
            assert_eq!((fim.family, fim.order), (*family, *order));
            for content in
                tokens.iter().filter(|token| is_added || !token.starts_with("<|") || markers.contains(token))
            {
                let token = tokenizer.token_id(content).expect(content);
                let is_end = tokenizer.ends().contains(&token) && tokenizer.control_tokens().contains(&token);
                assert!(is_end && tokenizer.decode(&[token]).is_empty(), "{family}: {content} is shown");
                let text = tokenizer.encode(&format!("a {content} b")).expect("encodes");
                assert!(!text.contains(&token), "{family}: {content} is found in a text");
                assert_eq!(tokenizer.decode(&text), format!("a {content} b"));
            }
        }
    }
    assert_eq!(Tokenizer::from_bytes(GPT2).expect("loads").fim(), None);
    // What ends a filling of one family is text in another model.
    let other = Tokenizer::from_bytes(&with_tokens(&["<filename>"])).expect("loads");
    assert!(other.encode("<filename>").expect("encodes").contains(&TokenId(2048)));
}

/// Mellum has StarCoder's tokens in the other order: only its name tells.
#[test]
fn mellum_is_told_from_starcoder_by_its_name() {
    let file = with_tokens(&STARCODER);
    let hub = "hub/models--JetBrains--Mellum-4b-base/snapshots/4179e39f";
    let table = [
        ("starcoder2-3b", json!({}), "starcoder"),
        ("Mellum-4b-sft-python", json!({}), "mellum"),
        ("merged", json!({"_name_or_path": "JetBrains/Mellum-4b-base"}), "mellum"),
        (hub, json!({}), "mellum"),
    ];
    for (name, config, family) in table {
        let folder = folder(name, &file, &config);
        let tokenizer = Tokenizer::open(&folder).expect(name);
        let fim = tokenizer.fim().expect(name);
        assert_eq!(fim.family, family, "{name}");
        let first = if family == "mellum" { "<fim_suffix>" } else { "<fim_prefix>" };
        assert_eq!(fim.open, one(tokenizer.token_id(first)));
        let named = opened(&folder, "mellum");
        assert_eq!(named.expect("has its tokens").fim().map(|fim| fim.order), Some(FimOrder::SuffixFirst));
    }
}

#[test]
fn a_setting_says_what_the_table_lacks() {
    let folder = folder("setting", &with_tokens(&["<PRE>", "<SUF>", "<MID>", "    "]), &json!({}));
    let load = |setting: &str| opened(&folder, setting);
    assert!(load("<PRE>{prefix}<SUF>{suffix}<MID>").is_ok());
    let plain = Tokenizer::open(&folder).expect("loads");
    let prefix = plain.token_id("<PRE>").expect("is there");
    assert!(plain.fim().is_none() && plain.encode("<PRE>").expect("encodes").contains(&prefix));

    let tokenizer = load("<PRE>{suffix}    <SUF>\n{prefix}<MIDDLE>").expect("loads");
    let fim = tokenizer.fim().expect("is set");
    let text = |text: &str| tokenizer.encode(text).expect("encodes");
    let suffix = tokenizer.token_id("<SUF>").expect("is there");
    assert_eq!((fim.order, &fim.open), (FimOrder::SuffixFirst, &vec![prefix]));
    assert_eq!(fim.between, [text("    "), vec![suffix], text("\n")].concat(), "some of it is text");
    assert_eq!(fim.close, text("<MIDDLE>"), "no token: a run of tokens of text");
    // What the setting names is a control token now; what it does not, is not.
    assert!(!text("a<PRE>b").contains(&prefix) && tokenizer.ends().contains(&prefix));
    assert!(!tokenizer.control_tokens().contains(&tokenizer.token_id("<MID>").expect("is there")));
    let spaces = tokenizer.token_id("    ").expect("is there");
    assert!(text("    ").contains(&spaces), "white space is text");

    let error = load("starcoder").expect_err("it has not its tokens");
    assert_eq!(error.code(), "FIM_TEMPLATE_INVALID");
    assert!(error.to_string().contains("no token <fim_prefix>"), "{error}");
}

/// A tokenizer that fills in the middle as a setting says.
fn opened(folder: &Path, fim: &str) -> Result<Tokenizer, TokenizerError> {
    let fim = fim.parse().expect("is one");
    Tokenizer::open_with(folder, TokenizerSettings { fim: Some(&fim), form: None })
}
