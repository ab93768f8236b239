//! Model folders as they are found: each gives the logits of Transformers, or is refused by name. `scripts/goldens/loading.py`
//! made the cases.

mod common;

use common::{Logits, TestSession, difference, on_ranks};
use half::{bf16, f16};
use pie_comm::{Collective, Member, Solo};
use pie_model::{Model, ModelError};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Of the largest logit.
const TOLERANCE: f32 = 1e-4;
const LAST: &str = "model.layers.1.mlp.down_proj.weight";

/// What the cases share.
struct Cases {
    bytes: Vec<u8>,
    expected: Vec<u8>,
    all: Value,
}

/// Numbers of a tensor by the name that it is stored under.
type Tensors = BTreeMap<String, Stored>;

struct Stored {
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

impl Cases {
    fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loading");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("it is committed");
        let all = serde_json::from_slice(&read("cases.json")).expect("JSON");
        Self { bytes: read("tensors.safetensors"), expected: read("expected.safetensors"), all }
    }

    fn floats(bytes: &[u8], name: &str) -> Stored {
        let file = SafeTensors::deserialize(bytes).expect("safetensors");
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
        let numbers = tensor.data().as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        Stored { shape: tensor.shape().to_vec(), numbers }
    }

    fn prompt(&self) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.expected).expect("safetensors");
        let prompt = file.tensor("prompt").expect("a prompt");
        prompt.data().as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()
    }

    fn config(&self, case: &Value) -> Value {
        let mut config = self.all["base"].clone();
        for (key, value) in case["config"].as_object().expect("changes") {
            config[key] = value.clone();
        }
        config
    }

    fn tensors(&self, case: &Value) -> Tensors {
        let names = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        let without = names(&case["without"]);
        let mut sources: BTreeMap<String, String> =
            names(&self.all["whole"]).into_iter().map(|name| (name.clone(), name)).collect();
        sources.retain(|name, _| !without.contains(name));
        for (name, source) in case["others"].as_object().into_iter().flatten() {
            sources.insert(name.clone(), source.as_str().expect("a name").to_owned());
        }
        let stored = |name: String| match name.strip_prefix("model.") {
            Some(rest) if case["bare"] == true => rest.to_owned(),
            _ => name,
        };
        sources.into_iter().map(|(name, source)| (stored(name), Self::floats(&self.bytes, &source))).collect()
    }
}

/// A folder of a configuration and tensors, all of one type.
fn write(folder: &Path, config: &Value, tensors: &Tensors, dtype: Dtype) -> PathBuf {
    std::fs::create_dir_all(folder).expect("room");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("room");
    let encode = |number: &f32| match dtype {
        Dtype::F16 => f16::from_f32(*number).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(*number).to_le_bytes().to_vec(),
        _ => number.to_le_bytes().to_vec(),
    };
    let bytes: Vec<(&String, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| (name, &tensor.shape[..], tensor.numbers.iter().flat_map(encode).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (*name, TensorView::new(dtype, shape.to_vec(), bytes).expect("a whole tensor"))
    });
    let file = safetensors::serialize(views, None).expect("a file");
    std::fs::write(folder.join("model.safetensors"), file).expect("room");
    folder.to_owned()
}

fn load(folder: &Path, member: Member) -> Result<Model, ModelError> {
    Model::load(folder, member, &mut |_, _| {})
}

#[test]
fn a_folder_gives_the_logits_of_transformers_or_is_refused_by_name() {
    let (cases, place) = (Cases::read(), tempfile::tempdir().expect("room"));
    let document = TestSession::new(&cases.prompt(), 0);
    let all = cases.all["cases"].as_array().expect("cases");
    assert!(all.len() > 50);
    for (index, case) in all.iter().enumerate() {
        let name = case["name"].as_str().expect("a name");
        let folder = place.path().join(index.to_string());
        write(&folder, &cases.config(case), &cases.tensors(case), Dtype::F32);
        if let Some(refused) = case["refused"].as_array() {
            let error = load(&folder, Solo::new().member()).map(drop).expect_err(name);
            let (code, words) = (refused[0].as_str().expect("a code"), refused[1].as_str().expect("words"));
            assert!(error.code() == code && error.to_string().contains(words), "{name}: {error}");
            continue;
        }
        let expected = Cases::floats(&cases.expected, name);
        for world_size in [1, 2] {
            let logits = on_ranks(&folder, world_size, document.tokens.len(), |rank| {
                let batch = document.batch(0..document.tokens.len(), Logits::All);
                rank.forward(&batch).expect("a pass")
            });
            let got: Vec<f32> = logits[0][document.tokens.len() - expected.shape[0]..].concat();
            let off = difference(&got, &expected.numbers);
            assert!(off < TOLERANCE, "{name}, {world_size} ranks: logits are off by {off}");
        }
    }
}

/// One number in a folder that is none is found wherever it stands, by some rank of every group, and told by its place.
#[test]
fn weights_that_are_no_numbers_are_refused_by_tensor_and_place() {
    let (cases, place) = (Cases::read(), tempfile::tempdir().expect("room"));
    let whole = json!({"config": {}});
    let table: [(&str, usize, &str, bool); 9] = [
        ("model.embed_tokens.weight", 39 * 32 + 31, "[39, 31]", false),
        ("model.embed_tokens.weight", 3 * 32, "[3, 0]", true),
        ("lm_head.weight", 20 * 32 + 1, "[20, 1]", false),
        ("model.norm.weight", 31, "[31]", false),
        ("model.layers.0.input_layernorm.weight", 0, "[0]", false),
        ("model.layers.1.self_attn.q_proj.weight", 31 * 32 + 5, "[31, 5]", false),
        ("model.layers.0.self_attn.v_proj.weight", 0, "[0, 0]", true),
        ("model.layers.0.mlp.up_proj.weight", 47 * 32, "[47, 0]", false),
        (LAST, 31 * 48 + 47, "[31, 47]", false),
    ];
    for (index, (name, at, shown, tied)) in table.into_iter().enumerate() {
        let kinds = [(f32::NAN, Dtype::BF16), (f32::INFINITY, Dtype::F32), (f32::NEG_INFINITY, Dtype::F16)];
        let (value, dtype) = kinds[index % 3];
        let mut config = cases.config(&whole);
        let mut tensors = cases.tensors(&whole);
        if tied {
            config["tie_word_embeddings"] = json!(true);
            tensors.remove("lm_head.weight");
        }
        tensors.get_mut(name).expect("a tensor").numbers[at] = value;
        let folder = write(&place.path().join(index.to_string()), &config, &tensors, dtype);
        for world_size in [1, 2] {
            let ranks = (0..world_size).map(|rank| Member::new(rank, world_size).expect("a member"));
            let errors: Vec<_> = ranks.filter_map(|member| load(&folder, member).map(drop).err()).collect();
            assert!(!errors.is_empty(), "{name} of {world_size} ranks was served");
            for error in errors {
                let text = error.to_string();
                assert_eq!(error.code(), "MODEL_TENSOR_NOT_FINITE", "{text}");
                assert!(text.contains(&format!("{name}{shown} is {value},")), "{text}");
            }
        }
    }
}

/// A tensor that two files of an index have is not one of them by chance.
#[test]
fn a_tensor_that_stands_in_two_files_is_refused() {
    let (cases, place) = (Cases::read(), tempfile::tempdir().expect("room"));
    let whole = json!({"config": {}});
    let folder = write(place.path(), &cases.config(&whole), &cases.tensors(&whole), Dtype::F32);
    std::fs::copy(folder.join("model.safetensors"), folder.join("a.safetensors")).expect("room");
    std::fs::rename(folder.join("model.safetensors"), folder.join("b.safetensors")).expect("it is there");
    let index = json!({"weight_map": {"lm_head.weight": "a.safetensors", LAST: "b.safetensors"}});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).expect("room");
    let error = load(&folder, Solo::new().member()).map(drop).expect_err("two files");
    let text = error.to_string();
    assert!(text.contains("a.safetensors") && text.contains("b.safetensors"), "{text}");
}
