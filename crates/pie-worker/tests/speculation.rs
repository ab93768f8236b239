//! S2: whatever is looked up ahead, tokens, tables and rows are those of plain passes.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Out, Script, distance, drive, greedy, model_folder};
use pie_plan::{Change, Run};
use pie_proto::plan::{SampledToken, Sampling, Speculated};
use pie_words::{SamplingParameters, SessionId, Splices, Strategy, TokenId};
use std::collections::BTreeMap;

const SESSIONS: [SessionId; 3] = [SessionId(1), SessionId(2), SessionId(3)];
const PASSES: u32 = 14;
/// The seeded model's.
const LAYERS: usize = 2;

fn prompt(session: SessionId) -> Vec<TokenId> {
    (0..20 + 3 * session.0 as u32).map(|index| TokenId((index * 37 + session.0 as u32 * 11) % 250)).collect()
}

/// Greedy, sampled, and one that a token ends.
fn sampling(stop: &[TokenId]) -> Samplings {
    let sampled = SamplingParameters {
        temperature: 0.8,
        top_p: 0.95,
        top_k: 40,
        seed: 7,
        ..SamplingParameters::greedy(0)
    };
    let of = |session: SessionId| match session.0 {
        1 => greedy(9),
        2 => Sampling { parameters: sampled.clone(), ..greedy(PASSES) },
        _ => Sampling { stop_tokens: stop.to_vec(), ..greedy(PASSES) },
    };
    SESSIONS.iter().map(|session| (*session, of(*session))).collect()
}

type Samplings = BTreeMap<SessionId, Sampling>;

/// Opens all sessions and completes some of them in one plan.
fn complete(who: &[SessionId], sampling: &Samplings) -> Script {
    let mut script = Script::new(1);
    let mut changes = Vec::new();
    for session in SESSIONS {
        let splices = Splices::append(0, prompt(session)).expect("an append");
        changes.push(Change::Open { session });
        changes.push(Change::Splice { session, splices, strategy: Strategy::Pie });
    }
    let runs = who.iter().map(|session| Run::Sample { session: *session }).collect();
    let own = |session: &SessionId| (*session, sampling[session].clone());
    script.plan_with(changes, runs, PASSES, who.iter().map(own).collect());
    script
}

/// The same; then their documents take over what they write, as it was reported, so that its rows can be read.
fn take_over(who: &[SessionId], sampling: &Samplings, written: &PlanOutput) -> Script {
    let mut script = complete(who, sampling);
    script.joined(written.passes.iter().cloned());
    let splice = |session: &SessionId| {
        let tokens = &written.tokens[session];
        let splices = Splices::append(prompt(*session).len(), tokens[..tokens.len() - 1].to_vec());
        Change::Splice { session: *session, splices: splices.expect("an append"), strategy: Strategy::Pie }
    };
    let runs = who.iter().map(|session| Run::Encode { session: *session, limit: 1 }).collect();
    script.plan(who.iter().map(splice).collect(), runs, 1);
    for layer in 0..LAYERS {
        for session in who {
            script.read(*session, layer);
        }
    }
    script
}

/// What a plan wrote.
struct PlanOutput {
    tokens: BTreeMap<SessionId, Vec<TokenId>>,
    passes: Vec<Vec<(SessionId, TokenId)>>,
}

fn written(out: &Out) -> PlanOutput {
    let pass = |pass: &Vec<SampledToken>| {
        pass.iter().map(|sampled| (sampled.session, sampled.token)).collect::<Vec<_>>()
    };
    let passes: Vec<Vec<_>> = out.report().passes.iter().map(pass).collect();
    let mut tokens: BTreeMap<SessionId, Vec<TokenId>> = BTreeMap::new();
    for (session, token) in passes.iter().flatten() {
        tokens.entry(*session).or_default().push(*token);
    }
    PlanOutput { tokens, passes }
}

#[test]
fn s2_looking_ahead_changes_neither_tokens_nor_tables_nor_rows() {
    let (_folder, model) = model_folder();
    let all = written(&drive(&model, 1, &complete(&SESSIONS, &sampling(&[])).instructions)[0][0]);
    let sampling = sampling(&all.tokens[&SESSIONS[2]][5..6]);
    let (mut accepted, mut missed, mut spared) = (0, 0, 0);
    for who in [&SESSIONS[..], &SESSIONS[..1], &SESSIONS[1..2], &SESSIONS[2..], &SESSIONS[1..]] {
        let plain = written(&drive(&model, 1, &complete(who, &sampling).instructions)[0][0]);
        let rows_of_plain =
            drive(&model, 1, &take_over(who, &sampling, &plain).instructions)[0][2..].to_vec();
        for (world_size, drafts, every) in [(1, 3, 100), (1, 8, 4), (1, 1, 100), (2, 5, 6), (4, 16, 3)] {
            let case = format!("{who:?}, {world_size} ranks, {drafts} drafts, each {every}th wrong");
            let looking = looking_ahead(&sampling, &all, drafts, every);
            let ranks = drive(&model, world_size, &complete(who, &looking).instructions);
            let got = written(&ranks[0][0]);
            assert_eq!(got.tokens, plain.tokens, "{case}");
            for report in ranks.iter().map(|rank| rank[0].report()) {
                assert_eq!(report.sampled_digest, ranks[0][0].report().sampled_digest, "{case}: P3");
                assert_eq!(report.digest, ranks[0][0].report().digest, "{case}: P4");
            }
            let report = ranks[0][0].report();
            let sum = |of: fn(&Speculated) -> u32| report.speculated.iter().map(of).sum::<u32>();
            (accepted, missed) = (accepted + sum(|own| own.accepted), missed + sum(|own| own.missed));
            spared += report.passes.len() as u32 - report.forwards;
            let script = take_over(who, &looking, &got);
            let ranks = drive(&model, world_size, &script.instructions);
            let report = ranks[0][1].report();
            assert_eq!(
                report.digest,
                Some(script.digest()),
                "{case}: the owner's tables are those of the ranks"
            );
            assert_eq!(report.encoded, 0, "{case}: all that was written is adopted");
            if world_size == 1 {
                for (got, expected) in ranks[0][2..].iter().zip(&rows_of_plain) {
                    let ((keys, values), (right_keys, right_values)) = (got.rows(), expected.rows());
                    let off = distance(keys, right_keys).max(distance(values, right_values));
                    assert!(off < 1e-5, "{case}: rows are off by {off}");
                }
            }
        }
    }
    assert!(
        accepted > 100 && missed > 20 && spared > 50,
        "{accepted} accepted, {missed} missed, {spared} spared"
    );
}

/// With what each session will write as what is expected of it, but for some tokens.
fn looking_ahead(sampling: &Samplings, all: &PlanOutput, drafts: u32, every: usize) -> Samplings {
    let of = |(session, own): (&SessionId, &Sampling)| {
        let mut expected = [prompt(*session), all.tokens[session].clone()].concat();
        expected.iter_mut().skip(24).step_by(every).for_each(|token| token.0 = (token.0 + 1) % 250);
        (*session, Sampling { drafts, expected, ..own.clone() })
    };
    sampling.iter().map(of).collect()
}
