//! What a pass and an edit cost the tables, by how long the document is: `cargo bench -p pie-plan`.
//!
//! On the owner: what it asks a table when it makes a plan, the plan's own start, and the token that comes back. On a rank:
//! the further pass of a plan, with the view that attention reads through. An edit is a token more and the same token less, each
//! settled by a completion's step.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pie_plan::blocks::PlanBlocks;
use pie_plan::{Change, DigestWanted, Group, Plan, Run, Then, Work};
use pie_words::{Epoch, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use std::hint::black_box;

const SESSION: SessionId = SessionId(1);
const SAMPLE: Run = Run::Sample { session: SESSION };

/// A session of so many encoded tokens, and a completion that has begun.
fn opened(tokens: u32) -> Group {
    let mut group = Group::new(Epoch(1), tokens + 10_000);
    let splices = Splices::append(0, (0..tokens).map(TokenId).collect()).expect("an append");
    let open = Change::Open { session: SESSION };
    let splice = Change::Splice { session: SESSION, splices, strategy: Strategy::Pie };
    let (epoch, seq, digest) = (group.epoch(), group.next_seq(), DigestWanted::Skip);
    let plan = Plan {
        epoch,
        seq,
        changes: vec![open, splice],
        runs: vec![SAMPLE],
        passes: 1,
        digest,
        blocks: PlanBlocks::default(),
    };
    group.apply(&plan).expect("there are slots");
    group.append(&[(SESSION, TokenId(7))]).expect("there are slots");
    group
}

/// What the owner does for one token of one session.
fn step(group: &mut Group) -> Work {
    let table = group.table(SESSION).expect("it is open");
    black_box((table.pending(), table.context_pending(), group.reach(SAMPLE)));
    group.check_runs(&[SAMPLE], 1).expect("there are slots");
    let work = group.start(&[SAMPLE], 1).expect("there are slots");
    black_box(group.table(SESSION).expect("it is open").frontier());
    work
}

/// The next token. The branch begins anew now and then: it is the document whose length counts here.
fn go_on(group: &mut Group) {
    group.append(&[(SESSION, TokenId(7))]).expect("there are slots");
    if group.table(SESSION).is_some_and(|table| table.branch().len() > 256) {
        group.stage(&[Change::EndBranch { session: SESSION }]).expect("it is open");
        group.start(&[SAMPLE], 1).expect("there are slots");
        group.append(&[(SESSION, TokenId(7))]).expect("there are slots");
    }
}

fn edit(group: &mut Group, at: u32, delete: u32, insert: &[TokenId]) -> Work {
    let length = group.table(SESSION).expect("it is open").tokens().len();
    let splice = Splice { at: TokenIndex(at), delete, insert: insert.to_vec() };
    let splices = Splices::new(vec![splice], length).expect("it fits");
    group.stage(&[Change::Splice { session: SESSION, splices, strategy: Strategy::Pie }]).expect("it fits");
    step(group)
}

fn passes(criterion: &mut Criterion) {
    let mut measure = |name: &str, change: &dyn Fn(&mut Group, u32) -> Vec<Work>| {
        let mut measured = criterion.benchmark_group(name);
        for tokens in [1 << 10, 4 << 10, 16 << 10, 64 << 10] {
            let mut group = opened(tokens);
            measured.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
                bencher.iter(|| change(&mut group, tokens));
            });
        }
    };
    measure("decode step, owner", &|group, _| {
        let work = step(group);
        go_on(group);
        vec![work]
    });
    measure("further pass, rank", &|group, _| {
        let work = group.decode(&[SESSION]).expect("it samples");
        black_box(group.table(SESSION).expect("it is open").view(Then::Sample));
        go_on(group);
        vec![work]
    });
    measure("two edits near the end, owner", &|group, tokens| {
        vec![edit(group, tokens - 16, 0, &[TokenId(9)]), edit(group, tokens - 16, 1, &[])]
    });
    measure("two edits in the middle, owner", &|group, tokens| {
        vec![edit(group, tokens / 2, 0, &[TokenId(9)]), edit(group, tokens / 2, 1, &[])]
    });
}

criterion_group!(benches, passes);
criterion_main!(benches);
