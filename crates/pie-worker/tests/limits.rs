//! Rows that a model cannot see, which an owner should never send: the session is refused, and the group goes on.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Script, drive, model_folder};
use pie_model::Config;
use pie_plan::{Change, Run};
use pie_words::{SessionId, Splices, Strategy, TokenId};
use std::path::Path;

const GOOD: SessionId = SessionId(1);
const BAD: SessionId = SessionId(2);

/// All ranks leave out the same session; what the others get is what they get without it.
#[test]
fn a_session_beyond_the_model_is_refused_alone_and_by_all_ranks() {
    let (_guard, folder) = model_folder();
    let config = Config::preset("test").expect("a preset for tests");
    let tokens = config.vocab_size;
    let beyond_the_vocabulary = vec![TokenId(1), TokenId(tokens as u32)];
    let alone = {
        let mut script = Script::new(5);
        let document = script.tokens(40);
        script.open(GOOD, document);
        let sampled = script.sample(GOOD, 3);
        drive(&folder, 1, &script.instructions)[0][sampled].report().passes.clone()
    };
    let mut script = Script::new(5);
    let document = script.tokens(40);
    script.open(GOOD, document);
    let (splices, strategy) = (Splices::append(0, beyond_the_vocabulary).expect("one splice"), Strategy::Pie);
    let changes = vec![Change::Open { session: BAD }, Change::Splice { session: BAD, splices, strategy }];
    let both = script.instructions.len();
    script.plan(changes, vec![Run::Sample { session: BAD }, Run::Sample { session: GOOD }], 1);
    for out in drive(&folder, 2, &script.instructions) {
        let report = out[both].report();
        assert_eq!(report.refused, [BAD]);
        let sampled: Vec<_> = report.passes.iter().flatten().map(|sampled| sampled.session).collect();
        assert_eq!(sampled, [GOOD]);
        assert_eq!(report.passes[0][0].token, alone[0][0].token);
    }
}

/// What is computed overflows: no token can be drawn, every rank says so of the same sessions, and the group goes on.
#[test]
fn logits_that_are_no_numbers_end_no_epoch() {
    let (_guard, folder) = model_folder();
    overflow(&folder);
    let mut script = Script::new(5);
    for session in [GOOD, BAD] {
        let document = script.tokens(20);
        script.open(session, document);
    }
    let sampled = script.instructions.len();
    script.plan(vec![], vec![Run::Sample { session: BAD }, Run::Sample { session: GOOD }], 4);
    let again = script.sample(GOOD, 2);
    for out in drive(&folder, 2, &script.instructions) {
        let report = out[sampled].report();
        assert_eq!((report.refused.as_slice(), report.passes.len()), ([BAD, GOOD].as_slice(), 1));
        assert!(report.passes[0].iter().all(|sampled| !sampled.is_drawn()));
        assert_eq!(out[again].report().refused, [GOOD]);
    }
}

/// Gives the last norm of a model the greatest finite weights.
fn overflow(folder: &Path) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the model's weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let text = String::from_utf8(bytes[8..8 + header].to_vec()).expect("a header");
    let tensor = text.split("\"model.norm.weight\":").nth(1).expect("it is there");
    let tensor = &tensor[..tensor.find('}').expect("an end")];
    let greatest = if tensor.contains("BF16") { vec![0x7f, 0x7f] } else { f32::MAX.to_le_bytes().to_vec() };
    let offsets = tensor.split("\"data_offsets\":[").nth(1).expect("offsets");
    let offsets = offsets.split(']').next().expect("an end");
    let offsets: Vec<usize> =
        offsets.split(',').map(|number| number.trim().parse().expect("a number")).collect();
    let data = &mut bytes[8 + header..][offsets[0]..offsets[1]];
    data.chunks_exact_mut(greatest.len()).for_each(|number| number.copy_from_slice(&greatest));
    std::fs::write(&path, bytes).expect("it can be written");
}
