//! Real tokenizers, real files, every kind of Unicode: edits tokenized around, beside the whole text tokenized by us and by the
//! tokenizers crate. `scripts/models/splits.py` fetches the tokenizers and runs it:
//!
//! ```sh
//! goldens FOLDER [--edits N] [--refused NAME]…    # FOLDER/NAME/tokenizer.json; those named must be refused
//! ```

use pie_text::form::PreTokenizerKind;
use pie_text::{Document, RestartKind, Tokenizer, Tokenizing};
use pie_words::{TextEdit, TextRange, TokenId};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are edited.
const FILES: [&str; 4] = [
    include_str!("../src/retokenize.rs"),
    include_str!("../../../scripts/train/tokenizer.py"),
    include_str!("../../../README.md"),
    include_str!("../src/document.rs"),
];

/// What is hard to cut, by kind: white space, line breaks, case, digits, marks, scripts, emoji, what has no token in some
/// vocabularies, what is no character yet, long runs.
const HARD: [&str; 40] = [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    " \n ",
    "\u{a0}",
    "\u{2003}",
    "\u{3000}",
    "\u{85}",
    "\u{200b}",
    "'s",
    "'LL",
    "'ſ",
    "ABCdef",
    "你ABC",
    "ǅ",
    "ªº",
    "12345",
    "٣٤٥",
    "Ⅻ½",
    "e\u{301}",
    "\u{301}\u{327}",
    "\u{1100}\u{1161}",
    "한국어",
    "か\u{3099}",
    "नमस्ते",
    "עברית ",
    "العربية",
    "ไทย",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "\u{4}\u{6}\u{13}",
    "\u{f0000}",
    "\u{e000}\u{fdd0}",
    "//\n/",
    "x=1;//\n\n",
    "::<>()[]{}",
    "\u{feff}",
];

/// The same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn text(&mut self, spellings: &[String]) -> String {
        match self.below(20) {
            0..=9 => HARD[self.below(HARD.len())].to_owned(),
            10..=13 => {
                let file = FILES[self.below(FILES.len())];
                file.chars().skip(self.below(file.chars().count())).take(1 + self.below(60)).collect()
            }
            14..=15 => char::from_u32(self.below(0x11_0000) as u32).map(String::from).unwrap_or_default(),
            16 => HARD[self.below(HARD.len())].repeat(1 + self.below(150)),
            17 if !spellings.is_empty() => spellings[self.below(spellings.len())].clone(),
            _ => char::from(b' ' + self.below(95) as u8).to_string(),
        }
    }

    fn place(&mut self, text: &str) -> usize {
        let at = self.below(text.len() + 1);
        (at..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
    }
}

#[derive(Default)]
struct Tally {
    edits: usize,
    compared: usize,
    retokenized: usize,
    whole: usize,
    /// Tokens of the documents, summed over the edits that were not tokenized whole, as those cut again are.
    tokens: usize,
}

fn check(
    ours: &Arc<Tokenizer>,
    theirs: &tokenizers::Tokenizer,
    edits: usize,
) -> Result<Tally, Box<dyn Error>> {
    let mut numbers = Numbers(20);
    let mut tally = Tally::default();
    let added = theirs.get_added_tokens_decoder();
    let content = |id: &TokenId| added.get(&id.0).map(|token| token.content.clone());
    let spellings: Vec<String> = ours.control_tokens().iter().filter_map(content).collect();
    for (round, file) in FILES.iter().cycle().take(2 * FILES.len()).enumerate() {
        // In the second half texts also spell control tokens, which the tokenizers crate does not take for text.
        let spelled = if round < FILES.len() { &[][..] } else { &spellings };
        let mut document = Document::open(ours.clone(), file, 1 << 24)?;
        let mut text = (*file).to_owned();
        let mut undo = None;
        for _ in 0..edits.div_ceil(2 * FILES.len()) {
            let start = numbers.place(&text);
            let reach = if numbers.below(3) > 0 { 0 } else { numbers.below(200) };
            let end = (start + reach).min(text.len());
            let end = (end..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            let insert =
                if reach > 0 && numbers.below(2) == 0 { String::new() } else { numbers.text(spelled) };
            // Of every other file what makes it be tokenized whole is taken back at once: it comes and goes many times.
            let (start, end, insert) = undo.take().unwrap_or((start, end, insert));
            let was_around = document.tokenizing() == Some(Tokenizing::AroundEdits);
            let before = text[start..end].to_owned();
            let edit = TextEdit { range: TextRange::Bytes { start, end }, insert: insert.clone() };
            let change = document.prepare(document.revision(), &[edit])?;
            let stats = change.stats();
            let spliced = change.splices().apply(&document.tokens().collect::<Vec<_>>());
            document.commit(change)?;
            text.replace_range(start..end, &insert);
            if round % 2 == 1 && was_around && document.tokenizing() != Some(Tokenizing::AroundEdits) {
                undo = Some((start, start + insert.len(), before));
            }
            let tokens: Vec<TokenId> = document.tokens().collect();
            let what = || format!("{:?} at {start}..{end} for {:?}", insert, &text[..text.len().min(80)]);
            if document.text().as_ref() != Some(&text) {
                return Err(format!("the text is another: {}", what()).into());
            }
            if tokens != ours.encode(&text)? || tokens != spliced {
                return Err(format!("T1: incremental is not whole: {}", what()).into());
            }
            tally.edits += 1;
            if stats.bytes_retokenized >= text.len() {
                tally.whole += 1;
            } else {
                tally.tokens += tokens.len();
                tally.retokenized += stats.tokens_retokenized;
            }
            if !spellings.iter().any(|spelling| text.contains(spelling.as_str())) {
                let whole = theirs.encode_fast(text.as_str(), false).map_err(|error| error.to_string())?;
                let whole = whole.get_ids().iter().map(|id| TokenId(*id));
                if !tokens[ours.prefix().len()..].iter().copied().eq(whole) {
                    return Err(format!("the tokenizers crate cuts otherwise: {}", what()).into());
                }
                tally.compared += 1;
            }
        }
    }
    Ok(tally)
}

fn form(tokenizer: &Tokenizer) -> String {
    let name = |form: &PreTokenizerKind| format!("{form:?}");
    match tokenizer.restart_kind() {
        RestartKind::Piece(form) => name(form),
        RestartKind::PieceOfPlainText(form) => name(form) + ", NFC",
        RestartKind::WholeText { .. } => "tokenized whole".to_owned(),
    }
}

fn row(folder: &Path, edits: usize, is_refused: bool) -> Result<String, Box<dyn Error>> {
    let ours = match (Tokenizer::open(folder), is_refused) {
        (Err(error), true) => return Ok(format!("refused: {error} | | | | |")),
        (Ok(_), true) => return Err("it is to be refused, and loads".into()),
        (loaded, false) => Arc::new(loaded?),
    };
    let theirs =
        tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).map_err(|error| error.to_string())?;
    let tally = check(&ours, &theirs, edits)?;
    let around = tally.edits - tally.whole;
    let each = |sum: usize| sum as f64 / around.max(1) as f64;
    let (form, fim) = (form(&ours), ours.fim().map_or("-", |fim| fim.family));
    Ok(format!(
        "{form} | {fim} | {} | {} | {:.1} of {:.0} | {:.1} %",
        tally.edits,
        tally.compared,
        each(tally.retokenized),
        each(tally.tokens),
        100.0 * tally.whole as f64 / tally.edits.max(1) as f64
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("goldens FOLDER [--edits N] [--refused NAME]…")?);
    let (mut edits, mut refused) = (2000, Vec::new());
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or("a flag without its value")?;
        match flag.as_str() {
            "--edits" => edits = value.parse()?,
            "--refused" => refused.push(value),
            _ => return Err(format!("{flag} is no flag").into()),
        }
    }
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.path().join("tokenizer.json").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    println!(
        "| tokenizer | form | fills in as | edits | of those as the tokenizers crate | tokens cut again around an edit | edits that cut all |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for name in names {
        let row = row(&folder.join(&name), edits, refused.contains(&name));
        println!("| {name} | {} |", row.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(())
}
