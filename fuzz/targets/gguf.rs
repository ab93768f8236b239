//! GGUF files: bytes as they are, and a whole small model's file that was changed. What loads is a configuration, a tokenizer and weights.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pie_comm::Member;
use pie_fuzz::explained;
use pie_gguf::Gguf;
use pie_model::{Config, Model};
use pie_text::Tokenizer;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Memory, not a disk: each run writes it anew.
static FILE: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let place = PathBuf::from("/dev/shm");
    let place = if place.is_dir() { place } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(place).expect("a temporary folder");
    let file = folder.path().join("model.gguf");
    (folder, file)
});

/// A file of one layer, whose matrices are 32 x 32 in Q8_0, with a tokenizer of bytes.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let alphabet: Vec<String> = ('!'..='~')
        .chain('¡'..='¬')
        .chain('®'..='ń')
        .map(String::from)
        .chain(["ab".into(), "<s>".into()])
        .collect();
    let layer = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let matrices = layer.iter().map(|part| (format!("blk.0.{part}.weight"), vec![32_u64, 32], 8_u32));
    let norms = ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"];
    let norms = norms.iter().map(|part| (format!("{part}.weight"), vec![32], 0));
    let embedding = ("token_embd.weight".to_owned(), vec![32, alphabet.len() as u64], 8);
    let tensors: Vec<_> = matrices.chain(norms).chain([embedding]).collect();
    let number = |key: &str, value: u32| (key.to_owned(), 4_u32, value.to_le_bytes().to_vec());
    let mut settings = vec![
        ("general.architecture".to_owned(), 8, text("llama")),
        number("llama.context_length", 64),
        number("llama.embedding_length", 32),
        number("llama.block_count", 1),
        number("llama.feed_forward_length", 32),
        number("llama.attention.head_count", 2),
        number("llama.attention.head_count_kv", 2),
        ("llama.attention.layer_norm_rms_epsilon".to_owned(), 6, 1e-6_f32.to_le_bytes().to_vec()),
        ("llama.rope.scaling.type".to_owned(), 8, text("yarn")),
        ("llama.rope.scaling.factor".to_owned(), 6, 4_f32.to_le_bytes().to_vec()),
        ("tokenizer.ggml.model".to_owned(), 8, text("gpt2")),
        ("tokenizer.ggml.pre".to_owned(), 8, text("qwen2")),
        number("tokenizer.ggml.bos_token_id", alphabet.len() as u32 - 1),
        number("tokenizer.ggml.eos_token_id", alphabet.len() as u32 - 1),
        ("tokenizer.ggml.add_bos_token".to_owned(), 7, vec![1]),
    ];
    let kinds: Vec<Vec<u8>> = alphabet
        .iter()
        .map(|token| (if token == "<s>" { 3_i32 } else { 1 }).to_le_bytes().to_vec())
        .collect();
    let spelled: Vec<Vec<u8>> = alphabet.iter().map(|token| text(token)).collect();
    settings.push(("tokenizer.ggml.token_type".to_owned(), 9, list(5, &kinds)));
    settings.push(("tokenizer.ggml.merges".to_owned(), 9, list(8, &[text("a b")])));
    settings.push(("tokenizer.ggml.tokens".to_owned(), 9, list(8, &spelled)));
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((settings.len() as u64).to_le_bytes());
    for (key, kind, value) in &settings {
        file.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
    }
    let mut at = 0_u64;
    for (name, shape, kind) in &tensors {
        file.extend(text(name));
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| file.extend(size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(at.to_le_bytes());
        let numbers: u64 = shape.iter().product();
        at += if *kind == 8 { numbers / 32 * 34 } else { 4 * numbers };
        at = at.next_multiple_of(32);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.resize(file.len() + at as usize, 0x2c);
    file
});

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [kind.to_le_bytes().to_vec(), (items.len() as u64).to_le_bytes().to_vec(), items.concat()].concat()
}

#[derive(Arbitrary, Debug)]
struct Input {
    changes: Vec<(u16, Vec<u8>)>,
    cut: u8,
    ranks: u8,
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Gguf::parse(bytes, bytes.len() as u64);
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(bytes)) else { return };
    let mut file = WHOLE.clone();
    for (at, bytes) in &input.changes {
        let at = usize::from(*at) % file.len();
        let end = file.len().min(at + bytes.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
    }
    file.truncate(file.len() - usize::from(input.cut));
    let path = &FILE.1;
    std::fs::write(path, &file).expect("the file is written");
    if let Some(tokenizer) = explained(Tokenizer::open(path)) {
        let encoded = tokenizer.encode("ab <s> ü").map(|tokens| tokenizer.decode(&tokens));
        let _ = explained(encoded);
    }
    let whole = input.changes.is_empty() && input.cut == 0;
    let config = Config::read(path);
    assert!(config.is_ok() || !whole, "nothing was changed: {config:?}");
    explained(config);
    let world = 1 + u32::from(input.ranks % 2);
    for rank in 0..world {
        let Ok(member) = Member::new(rank, world) else { return };
        let model = Model::load(path, member, &mut |done, total| assert!(done <= total));
        let error = model.as_ref().err();
        assert!(error.is_none() || !whole, "nothing was changed: {error:?}");
        explained(model);
    }
});
