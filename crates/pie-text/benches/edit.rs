//! What an edit costs in tokenizing: prepare and commit, beside tokenizing the whole document again.
//!
//! `cargo bench -p pie-text`

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pie_text::{Document, Tokenizer};
use pie_words::{TextEdit, TextRange};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const RUST: &str = include_str!("../src/retokenize.rs");
const PYTHON: &str = include_str!("../../../scripts/train/tokenizer.py");

fn load(path: &str) -> Arc<Tokenizer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Arc::new(Tokenizer::from_bytes(&std::fs::read(path).expect("ships with the crate")).expect("is one"))
}

/// Code of about `tokens` tokens.
fn document(tokenizer: &Arc<Tokenizer>, tokens: usize) -> Document {
    let unit = format!("{RUST}\n{PYTHON}\n");
    let each = tokenizer.encode(&unit).expect("encodes").len();
    let whole = unit.repeat(tokens.div_ceil(each));
    let cut = whole.len() * tokens / (each * tokens.div_ceil(each));
    let end = (cut..).find(|end| whole.is_char_boundary(*end)).expect("the end is a boundary");
    Document::open(tokenizer.clone(), &whole[..end], usize::MAX).expect("opens")
}

fn insert(document: &Document, share: f64, text: &str) -> TextEdit {
    let content = document.text().expect("has text");
    let near = (content.len() as f64 * share) as usize;
    let at = (near..).find(|at| content.is_char_boundary(*at)).expect("the end is a boundary");
    TextEdit { range: TextRange::Bytes { start: at, end: at }, insert: text.into() }
}

fn edits(c: &mut Criterion) {
    let tokenizers =
        [("deepseek", "../../models/tiny-code/tokenizer.json"), ("gpt2", "tests/data/gpt2-2k.json")];
    for (form, path) in tokenizers {
        let tokenizer = load(path);
        let paste =
            "        let shifted = self.tokens.get(index + 1).map_or(0, |token| token.id.0 * 2);\n".repeat(3);
        for tokens in [4_000, 64_000] {
            let mut open = document(&tokenizer, tokens);
            let cases = [
                ("type one character", vec![insert(&open, 0.5, "x")]),
                ("paste 64 tokens", vec![insert(&open, 0.5, &paste)]),
                (
                    "edit 3 places",
                    vec![insert(&open, 0.2, "x"), insert(&open, 0.5, "y"), insert(&open, 0.8, "z")],
                ),
            ];
            let mut group = c.benchmark_group(form);
            for (name, request) in cases {
                group.bench_function(BenchmarkId::new(name, tokens), |bencher| {
                    bencher.iter(|| open.prepare(open.revision(), black_box(&request)).expect("is fine"));
                });
            }
            // A character comes, and goes again: the document stays as it is.
            let come = insert(&open, 0.5, "x");
            let TextRange::Bytes { start, .. } = come.range else { unreachable!("made above") };
            let go = TextEdit { range: TextRange::Bytes { start, end: start + 1 }, insert: String::new() };
            group.bench_function(BenchmarkId::new("type, commit, delete, commit", tokens), |bencher| {
                bencher.iter(|| {
                    for edit in [&come, &go] {
                        let change =
                            open.prepare(open.revision(), std::slice::from_ref(edit)).expect("is fine");
                        open.commit(change).expect("is current");
                    }
                });
            });
            let text = open.text().expect("has text");
            group.sample_size(10).bench_function(BenchmarkId::new("tokenize whole", tokens), |bencher| {
                bencher.iter_batched(|| text.clone(), |text| tokenizer.encode(&text), BatchSize::LargeInput);
            });
            group.finish();
        }
    }
}

fn stream(c: &mut Criterion) {
    let tokenizer = load("../../models/tiny-code/tokenizer.json");
    let tokens = tokenizer.encode(RUST).expect("encodes");
    c.bench_function("decode one token at a time, per token", |bencher| {
        let mut decoder = tokenizer.decoder();
        let mut next = tokens.iter().cycle();
        bencher.iter(|| next.next().map(|token| decoder.push(*token)));
    });
    let mut word: String = String::new();
    for index in 0..100_000_u32 {
        word.push(char::from(b'a' + (index.wrapping_mul(2_654_435_761) >> 27) as u8 % 26));
    }
    let mut group = c.benchmark_group("one word");
    group
        .sample_size(10)
        .bench_function("100,000 letters", |bencher| bencher.iter(|| tokenizer.encode(&word)));
    group.finish();
}

criterion_group!(benches, edits, stream);
criterion_main!(benches);
