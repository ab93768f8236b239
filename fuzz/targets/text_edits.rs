//! Lists of edits of documents: what is refused and what comes of the others, against strings; the tokens against the whole text
//! tokenized by the tokenizers crate (T1); the splices against the tokens before and after.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pie_fuzz::pairs::{FALLBACKS, PAIRS, Pair};
use pie_fuzz::texts::Text;
use pie_fuzz::{explained, naive};
use pie_text::Document;
use pie_words::{Cursor, LspPosition, PositionEncoding, Revision, TextEdit, TextRange, TokenId};

#[derive(Arbitrary, Debug)]
enum Place {
    /// At or near a place that exists.
    Bytes(u16, u8),
    Lsp(u8, u8, u8, u8),
    /// Whatever a client may send.
    Any(u64, u64),
    AnyLsp(u32, u32, u32, u32),
}

#[derive(Arbitrary, Debug)]
struct Edit {
    place: Place,
    insert: Text,
}

#[derive(Arbitrary, Debug)]
struct Input {
    tokenizer: u8,
    text: Text,
    requests: Vec<(bool, Vec<Edit>)>,
    reopened: Text,
    cursor: u16,
}

fn edit(edit: Edit, length: usize) -> TextEdit {
    let encodings = [PositionEncoding::Utf8, PositionEncoding::Utf16, PositionEncoding::Utf32];
    let encoding = encodings[length % 3];
    let at = |line, column| LspPosition { line, column, encoding };
    let range = match edit.place {
        Place::Bytes(start, width) => {
            let start = usize::from(start) % (length + 1);
            TextRange::Bytes { start, end: length.min(start + usize::from(width % 16)) }
        }
        Place::Lsp(line, column, lines, columns) => {
            let (line, column) = (u32::from(line % 4), u32::from(column % 8));
            let end = at(line + u32::from(lines % 2), column + u32::from(columns % 4));
            TextRange::Lsp { start: at(line, column), end }
        }
        Place::Any(start, end) => TextRange::Bytes { start: start as usize, end: end as usize },
        Place::AnyLsp(line, column, end, end_column) => {
            TextRange::Lsp { start: at(line, column), end: at(end, end_column) }
        }
    };
    TextEdit { range, insert: edit.insert.0 }
}

fn check(document: &Document, pair: &Pair, text: &str) -> Vec<TokenId> {
    let tokens: Vec<TokenId> = document.tokens().collect();
    assert_eq!(document.text().as_deref(), Some(text));
    assert_eq!(tokens, pair.whole(text), "T1, {}: {text:?}", pair.name);
    tokens
}

fn cut(document: &Document, pair: &Pair, text: &str, tokens: &[TokenId], cursor: u16) {
    let at = usize::from(cursor) % (text.len() + 1);
    let Some(cut) = explained(document.cut(Cursor::Byte(at))) else {
        assert!(!text.is_char_boundary(at), "every place between two characters can be cut");
        return;
    };
    let front = [&tokens[..cut.shared_prefix], &cut.prefix_end].concat();
    assert_eq!(front, pair.whole(&text[..at]), "before the cursor");
    let prefix = document.token_count() - (tokens.len() - pair.ours.prefix().len());
    let back = [&cut.suffix_start, &tokens[cut.shared_suffix..]].concat();
    assert_eq!(back, pair.whole(&text[at..])[prefix..], "behind the cursor");
}

// Tokenizers take a while to load, which is no input's fault.
fuzz_target!(init: {
    std::sync::LazyLock::force(&PAIRS);
    std::sync::LazyLock::force(&FALLBACKS);
}, |input: Input| {
    let choice = usize::from(input.tokenizer) % (PAIRS.len() + FALLBACKS.len());
    let pair = PAIRS.get(choice).unwrap_or_else(|| &FALLBACKS[choice - PAIRS.len()].0);
    let mut text = input.text.0;
    let Some(mut document) = explained(Document::open(pair.ours.clone(), &text, 1 << 16)) else { return };
    let mut tokens = check(&document, pair, &text);
    for (index, (in_turn, request)) in input.requests.into_iter().take(8).enumerate() {
        let edits: Vec<TextEdit> = request.into_iter().take(8).map(|each| edit(each, text.len())).collect();
        let base = document.revision();
        let (prepared, wanted) = if in_turn {
            (document.prepare_sequential(base, &edits), naive::edited_in_turn(&text, &edits))
        } else {
            (document.prepare(base, &edits), naive::edited(&text, &edits))
        };
        assert_eq!(
            prepared.is_ok(),
            wanted.is_some(),
            "request {index} on {text:?}: {edits:?}: {prepared:?}"
        );
        let (Some(change), Some(wanted)) = (explained(prepared), wanted) else { continue };
        let spliced = change.splices().apply(&tokens);
        document.commit(change).expect("what was just prepared can be committed");
        // What changes nothing makes no revision; edits that undo each other may make one.
        let (new, changed) = (document.revision(), wanted != text);
        assert!(new == Revision(base.0 + 1) || (new == base && !changed), "{base:?}, {new:?}, {changed}");
        text = wanted;
        tokens = check(&document, pair, &text);
        assert_eq!(spliced, tokens, "the splices make the tokens");
        cut(&document, pair, &text, &tokens, input.cursor);
    }
    let change = document.become_text(&input.reopened.0).expect("every text can be opened again");
    let spliced = change.splices().apply(&tokens);
    document.commit(change).expect("what was just prepared can be committed");
    assert_eq!(spliced, check(&document, pair, &input.reopened.0));
});
