//! Blocks against ggml's reference, and beginnings of files that lie.

use pie_gguf::{GROUP, Gguf, GgufError, GgufValue, Storage};
use proptest::prelude::*;
use serde_json::Value as Json;

fn bytes_of(hexadecimal: &Json) -> Vec<u8> {
    let text = hexadecimal.as_str().expect("a text").as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
    text.as_chunks::<2>().0.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

/// Made by scripts/goldens/blocks.py.
#[test]
fn every_storage_widens_to_the_numbers_of_the_reference() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("blocks.json")).expect("JSON");
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (name, row) = (case["name"].as_str().expect("a name"), bytes_of(&case["row"]));
        let storage = Storage::of(case["kind"].as_u64().expect("a number") as u32).expect("is read");
        assert_eq!(format!("{storage:?}"), name);
        let expected: Vec<f32> = bytes_of(&case["numbers"])
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        assert_eq!(row.len(), expected.len() / storage.numbers() * storage.bytes());
        // From the beginning, and from columns that no block begins with.
        for first in [0, 1, 31, 32, 100, 255, 300] {
            let mut got = vec![0.0; expected.len() - first];
            storage.widen(&row, first, &mut got);
            assert_eq!(got, expected[first..], "{name} from column {first}");
        }
        let bits = storage.level_bits().expect("has levels");
        for index in 0..expected.len() / GROUP {
            let group = storage.group(&row, index).expect("has groups");
            assert!(group.levels.iter().all(|level| u32::from(*level) < 1 << bits), "{name}");
        }
    }
    let mut got = [0.0; 2];
    Storage::BF16.widen(&[0, 0, 0x80, 0x3f, 0, 0xc0], 1, &mut got);
    assert_eq!(got, [1.0, -2.0]);
}

/// A small file: three settings and two tensors.
fn small() -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(2_u64.to_le_bytes());
    file.extend(3_u64.to_le_bytes());
    text(&mut file, "general.architecture");
    file.extend(8_u32.to_le_bytes());
    text(&mut file, "qwen2");
    text(&mut file, "qwen2.block_count");
    file.extend(4_u32.to_le_bytes());
    file.extend(24_u32.to_le_bytes());
    text(&mut file, "tokens");
    file.extend(9_u32.to_le_bytes());
    file.extend(8_u32.to_le_bytes());
    file.extend(2_u64.to_le_bytes());
    text(&mut file, "a");
    text(&mut file, "ü");
    for (name, shape, kind, start) in [("one", &[64_u64, 3][..], 2_u32, 0_u64), ("two", &[5], 0, 128)] {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| file.extend(size.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(start.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32) + 128 + 20, 7);
    file
}

fn parse(file: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::parse(file, file.len() as u64)
}

#[test]
fn settings_and_tensors_are_found() {
    let file = small();
    let read = parse(&file).expect("is whole");
    assert_eq!(read.text("general.architecture"), Some("qwen2"));
    assert_eq!(read.unsigned("qwen2.block_count"), Some(24));
    assert_eq!(read.float("qwen2.block_count"), Some(24.0));
    assert_eq!(read.list("tokens").map(<[_]>::len), Some(2));
    assert_eq!(read.list("tokens").expect("is there")[1], GgufValue::Text("ü".into()));
    assert_eq!((read.flag("tokens"), read.text("nothing")), (None, None));
    let [one, two] = &read.tensors[..] else { panic!("{:?}", read.tensors) };
    assert_eq!((one.name.as_str(), &one.shape[..], one.storage), ("one", &[3, 64][..], Some(Storage::Q4_0)));
    assert_eq!((one.bytes(), two.bytes()), (Some(3 * 2 * 18), Some(20)));
    assert_eq!((one.start as usize % 32, two.start - one.start), (0, 128));
    assert_eq!(two.start as usize + 20, file.len());
}

#[test]
fn what_cannot_be_is_told() {
    let whole = small();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file).expect_err("is wrong").to_string()
    };
    assert!(with(0, b"GGML").contains("no GGUF file"), "another file");
    assert!(with(4, &[1]).contains("version 1"), "an old version");
    assert!(with(8, &u64::MAX.to_le_bytes()).contains("a count of"), "tensors without end");
    assert!(with(24, &(1_u64 << 40).to_le_bytes()).contains("a count of"), "a name without end");
    assert!(parse(&whole[..whole.len() - 1]).expect_err("is cut").to_string().contains("two lies beyond"));
    assert!(parse(&whole[..60]).expect_err("is cut").to_string().contains("cut off"));
}

proptest! {
    /// Whatever stands in a file: an error, or a file whose tensors lie in it.
    #[test]
    fn damaged_files_are_errors(changes in prop::collection::vec((0..220_usize, any::<u8>()), 1..8)) {
        let mut file = small();
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(read) = parse(&file) {
            for tensor in read.tensors {
                let bytes = tensor.bytes().unwrap_or(0);
                prop_assert!(tensor.start + bytes <= file.len() as u64);
            }
        }
    }
}
