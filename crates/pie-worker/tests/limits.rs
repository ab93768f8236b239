//! Rows that a model cannot see, which an owner should never send: the session is refused, and the group goes on.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Script, drive, model_folder};
use pie_model::Config;
use pie_plan::{Change, Run, SessionId, Splices, Strategy, TokenId};

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
