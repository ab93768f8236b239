//! Safetensors headers, data and the index of shards, in a folder as it was downloaded.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pie_comm::Member;
use pie_fuzz::explained;
use pie_model::{Config, Model};
use std::path::Path;
use std::sync::LazyLock;

struct FuzzedModelFolder {
    folder: tempfile::TempDir,
    config: Config,
}

/// Memory, not a disk: each run writes it anew.
static FOLDER: LazyLock<FuzzedModelFolder> = LazyLock::new(|| {
    let place = Path::new("/dev/shm");
    let place = if place.is_dir() { place.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(place).expect("a temporary folder");
    let sizes = Config::preset("null").expect("a known preset");
    let config = Config {
        hidden_size: 4,
        head_dim: 2,
        intermediate_size: 4,
        vocab_size: 8,
        end_of_text: vec![],
        ..sizes
    };
    std::fs::write(folder.path().join("config.json"), config.to_json())
        .expect("the configuration is written");
    FuzzedModelFolder { folder, config }
});

const DTYPES: [&str; 8] = ["F32", "BF16", "F16", "F64", "U8", "BOOL", "F8_E4M3", "F4"];

#[derive(Arbitrary, Debug)]
struct TensorMutation {
    tensor: u8,
    dtype: Option<u8>,
    shape: Option<Vec<u64>>,
    start: Option<u64>,
    end: Option<u64>,
    near: bool,
}

#[derive(Arbitrary, Debug)]
struct Input {
    changes: Vec<TensorMutation>,
    /// Bytes that the file lacks at its end, or has too many.
    cut: i8,
    header: Option<u64>,
    ranks: u8,
}

/// A whole file of this model, changed.
fn file(config: &Config, input: &Input) -> Vec<u8> {
    let Config { hidden_size: hidden, intermediate_size: mlp, vocab_size: vocab, .. } = *config;
    let (heads, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocab, hidden]),
    ];
    for (part, shape) in [
        ("input_layernorm", vec![hidden]),
        ("post_attention_layernorm", vec![hidden]),
        ("self_attn.q_proj", vec![heads, hidden]),
        ("self_attn.k_proj", vec![kv, hidden]),
        ("self_attn.v_proj", vec![kv, hidden]),
        ("self_attn.o_proj", vec![hidden, heads]),
        ("mlp.gate_proj", vec![mlp, hidden]),
        ("mlp.up_proj", vec![mlp, hidden]),
        ("mlp.down_proj", vec![hidden, mlp]),
    ] {
        tensors.push((layer(part), shape));
    }
    let (mut header, mut at) = (serde_json::Map::new(), 0_u64);
    for (index, (name, shape)) in tensors.iter().enumerate() {
        let mut dtype = "F32";
        let mut shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let (mut start, mut end) = (at, at + 4 * shape.iter().product::<u64>());
        at = end;
        for change in
            input.changes.iter().filter(|change| usize::from(change.tensor) % tensors.len() == index)
        {
            let near = |old: u64, new: u64| {
                if change.near { old.wrapping_add(new % 17).wrapping_sub(8) } else { new }
            };
            dtype = change.dtype.map_or(dtype, |dtype| DTYPES[usize::from(dtype) % DTYPES.len()]);
            shape = change.shape.clone().unwrap_or(shape);
            start = change.start.map_or(start, |new| near(start, new));
            end = change.end.map_or(end, |new| near(end, new));
        }
        let tensor = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), tensor);
    }
    let header = serde_json::to_vec(&header).expect("JSON can be written");
    let length = input.header.unwrap_or(header.len() as u64);
    let mut bytes = [&length.to_le_bytes()[..], &header].concat();
    let data = (at as i64 + i64::from(input.cut)).max(0) as usize;
    bytes.resize(bytes.len() + data, 0x3c);
    bytes
}

fn load(ranks: u8) {
    let folder = FOLDER.folder.path();
    let world = [1_u32, 2, 3][usize::from(ranks % 3)];
    for rank in 0..world {
        let Ok(member) = Member::new(rank, world) else { return };
        explained(Model::load(folder, member, &mut |done, total| assert!(done <= total)));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let folder = FOLDER.folder.path();
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    let _ = std::fs::remove_file(&index);
    match choice % 4 {
        0 => std::fs::write(&single, rest).expect("the weights are written"),
        1 => {
            let _ = std::fs::remove_file(&single);
            let whole = Input { changes: vec![], cut: 0, header: None, ranks: 0 };
            std::fs::write(folder.join("a.safetensors"), file(&FOLDER.config, &whole))
                .expect("a shard is written");
            std::fs::write(&index, rest).expect("the index is written");
            load(0);
            return;
        }
        _ => {
            let Ok(input) = Input::arbitrary(&mut Unstructured::new(rest)) else { return };
            std::fs::write(&single, file(&FOLDER.config, &input)).expect("the weights are written");
            load(input.ranks);
            return;
        }
    }
    load(0);
});
