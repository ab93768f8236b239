//! Plans of `pie.worker.v1` as a rank takes them: from bytes, and made of parts that fit more often. Two replicas must agree on
//! every one of them (P2), also on refusals, which change nothing.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use pie_plan::Group;
use pie_proto::plan::Step;
use pie_proto::worker_v1 as wire;
use pie_words::Epoch;
use prost::Message;

const CAPACITY: u32 = 700;

#[derive(Arbitrary, Debug)]
enum ArbitraryChange {
    Open,
    Close,
    Clear,
    EndBranch,
    Edit { splices: Vec<(u8, u8, Vec<u8>)>, strategy: u8 },
    /// So much that there are whole blocks.
    Fill(u16),
    Share { from: u8, length: u8 },
    Repair { rows: Vec<(u8, u8)> },
    Branch { at: u8, tokens: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
struct ArbitraryPlan {
    changes: Vec<(u8, ArbitraryChange)>,
    runs: Vec<(u8, Option<u8>)>,
    passes: u8,
    spilled: Vec<(u8, u8)>,
    reloaded: Vec<(u8, u8)>,
}

fn change((session, change): &(u8, ArbitraryChange)) -> wire::Change {
    use wire::change::{Branch, Clear, Close, EditTokens, EndBranch, Kind, Open, Repair, Rows, Share};
    let ids = |list: &[u8]| list.iter().map(|id| u32::from(*id)).collect();
    let kind = match change {
        ArbitraryChange::Open => Kind::Open(Open {}),
        ArbitraryChange::Close => Kind::Close(Close {}),
        ArbitraryChange::Clear => Kind::Clear(Clear {}),
        ArbitraryChange::EndBranch => Kind::EndBranch(EndBranch {}),
        ArbitraryChange::Edit { splices, strategy } => {
            let splice = |(at, delete, insert): &(u8, u8, Vec<u8>)| wire::Splice {
                at: u32::from(*at),
                delete: u32::from(*delete),
                insert: ids(insert),
            };
            Kind::Edit(EditTokens {
                splices: splices.iter().map(splice).collect(),
                strategy: i32::from(strategy % 6),
            })
        }
        ArbitraryChange::Fill(tokens) => {
            let insert = (0..u32::from(tokens % 600)).collect();
            let splices = vec![wire::Splice { at: 0, delete: 0, insert }];
            Kind::Edit(EditTokens { splices, strategy: 1 })
        }
        ArbitraryChange::Share { from, length } => {
            Kind::Share(Share { from: u64::from(from % 4), length: u32::from(*length) })
        }
        ArbitraryChange::Repair { rows } => {
            let rows = rows.iter().map(|(start, end)| Rows { start: u32::from(*start), end: u32::from(*end) });
            Kind::Repair(Repair { rows: rows.collect() })
        }
        ArbitraryChange::Branch { at, tokens } => Kind::Branch(Branch { at: u32::from(*at), tokens: ids(tokens) }),
    };
    wire::Change { session: u64::from(session % 4), kind: Some(kind) }
}

fn plan(plan: &ArbitraryPlan, seq: u64) -> wire::Plan {
    let run = |(session, limit): &(u8, Option<u8>)| {
        let sampling = wire::Sampling { max_tokens: 1, top_p: 1.0, ..Default::default() };
        let kind = match limit {
            Some(limit) => wire::run::Kind::Encode(u32::from(*limit)),
            None => wire::run::Kind::Sample(sampling),
        };
        wire::Run { session: u64::from(session % 4), kind: Some(kind) }
    };
    let block = |(session, blocks): &(u8, u8)| wire::Block {
        session: u64::from(session % 4),
        end: 256 * u32::from(blocks % 4),
        realm: 0,
    };
    wire::Plan {
        trace: None,
        epoch: 1,
        seq,
        changes: plan.changes.iter().map(change).collect(),
        runs: plan.runs.iter().map(run).collect(),
        passes: u32::from(plan.passes % 4),
        report_digest: false,
        spilled: plan.spilled.iter().map(block).collect(),
        reloaded: plan.reloaded.iter().map(block).collect(),
    }
}

fn apply(groups: &mut [Group; 2], step: &Step) {
    let before = groups[0].clone();
    let [one, two] = groups;
    let (first, second) = (one.apply(&step.plan), two.apply(&step.plan));
    assert_eq!(first, second, "P2");
    assert_eq!(one.digest(), two.digest(), "P2, P4");
    if first.is_ok() && step.plan.seq.0.is_multiple_of(3) {
        for group in [&mut *one, &mut *two] {
            group.reloaded(&step.plan.blocks.reloaded).expect("it was applied");
            group.check().expect("K1 and K2");
        }
        assert_eq!(one.digest(), two.digest(), "P4");
    }
    if let Ok(work) = first.as_ref()
        && step.plan.only_repairs()
        && step.plan.seq.0.is_multiple_of(2)
    {
        groups_give_up([one, two], &step.plan, work);
    }
    if let Err(error) = first {
        assert!(!error.to_string().is_empty());
        assert_eq!(one.digest(), before.digest(), "R2: a refused plan has changed nothing");
        assert_eq!(one.next_seq(), before.next_seq());
    }
}

/// What only repairs may be given up in the middle, by all.
fn groups_give_up(groups: [&mut Group; 2], plan: &pie_plan::Plan, work: &pie_plan::Work) {
    let digests = groups.map(|group| {
        group.give_up(plan, work).expect("it was applied");
        group.check().expect("K1 and K2");
        group.digest()
    });
    assert_eq!(digests[0], digests[1], "P4");
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let mut groups = [(); 2].map(|()| Group::new(Epoch(1), CAPACITY));
    if choice % 4 == 0 {
        if let Ok(plan) = wire::Plan::decode(bytes)
            && let Ok(step) = Step::try_from(plan)
        {
            let again = Step::try_from(wire::Plan::from(&step)).expect("what was read can be written");
            // Not equal where a number is none.
            assert_eq!(format!("{again:?}"), format!("{step:?}"));
            apply(&mut groups, &step);
        }
        return;
    }
    let Ok(plans) = Vec::<ArbitraryPlan>::arbitrary(&mut Unstructured::new(bytes)) else { return };
    for each in &plans {
        let wire = plan(each, groups[0].next_seq().0);
        if let Ok(step) = Step::try_from(wire) {
            apply(&mut groups, &step);
        }
    }
});
