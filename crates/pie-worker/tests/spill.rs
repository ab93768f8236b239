//! Rows that went to disk come back number for number, on all ranks or on none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Do, Out, SLOTS, Script, compute, greedy, model_folder, one_observed};
use pie_comm::ThreadGroup;
use pie_plan::blocks::{BLOCK, Block, PlanBlocks, Realm};
use pie_plan::{Change, Run};
use pie_words::{Epoch, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use pie_worker::RankExecutor;
use pie_worker::rank::Unobserved;
use pie_worker::spill::{Spill, SpillOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const FIRST: SessionId = SessionId(1);
const AGAIN: SessionId = SessionId(2);
const OURS: Realm = Realm(7);

fn options(folder: &Path, rank: u32) -> SpillOptions {
    SpillOptions { folder: folder.to_owned(), identity: format!("rank {rank}"), limit: 1 << 30 }
}

/// Does the same on every rank, each with its blocks in a folder that they share; waits at the end until all is written.
fn drive(model: &Path, world_size: u32, disk: &Path, script: &[Do], written: u64) -> Vec<Vec<Out>> {
    let members = ThreadGroup::new(world_size).expect("a world size");
    std::thread::scope(|scope| {
        let run = |comm| {
            let member = pie_comm::Collective::member(&comm);
            let mut compute = compute(model, member, SLOTS);
            let spill = Spill::open(&options(disk, member.rank().0), compute.kv_shape()).expect("a folder");
            let rank = RankExecutor::new(compute.as_mut(), Box::new(comm), Epoch(1), SLOTS);
            let mut rank = rank.with_spill(Some(&spill));
            let outs = script.iter().map(|what| one_observed(&mut rank, what, &mut Unobserved)).collect();
            let end = Instant::now() + Duration::from_secs(10);
            while spill.counts().written.load(Ordering::Relaxed) < written {
                assert!(Instant::now() < end, "the blocks are written");
                std::thread::sleep(Duration::from_millis(1));
            }
            outs
        };
        let ranks: Vec<_> = members.into_iter().map(|comm| scope.spawn(move || run(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    })
}

fn block(session: SessionId, end: usize, realm: Realm) -> Block {
    Block { session, end: TokenIndex(end as u32), realm }
}

fn read(session: SessionId, end: usize, realm: Realm) -> PlanBlocks {
    PlanBlocks { reloaded: vec![block(session, end, realm)], ..PlanBlocks::default() }
}

fn hold(script: &mut Script, session: SessionId, tokens: Vec<TokenId>) {
    let splices = Splices::append(0, tokens).expect("one splice");
    let splice = Change::Splice { session, splices, strategy: Strategy::Pie };
    script.plan(vec![Change::Open { session }, splice], vec![], 1);
}

/// A document is encoded and written; the tokens that it is completed with.
fn write(model: &Path, world_size: u32, disk: &Path) -> (Vec<TokenId>, Vec<Vec<Out>>) {
    let mut script = Script::new(5);
    let tokens = script.tokens(2 * BLOCK + 40);
    script.open(FIRST, tokens.clone());
    let spilled = vec![block(FIRST, BLOCK, OURS), block(FIRST, 2 * BLOCK, OURS)];
    script.blocks(PlanBlocks { spilled, ..PlanBlocks::default() }, false);
    let sampled = script.sample(FIRST, 4);
    script.read(FIRST, 1);
    let outs = drive(model, world_size, disk, &script.instructions, 2);
    assert_eq!(outs[0][sampled].report().passes.len(), 4);
    (tokens, outs)
}

fn drawn(out: &Out) -> Vec<TokenId> {
    out.report().passes.iter().flatten().map(|token| token.token).collect()
}

fn files(disk: &Path) -> Vec<PathBuf> {
    let below =
        |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = below(disk.join("pie-rows")).flat_map(below).flat_map(below).collect();
    files.sort();
    files
}

#[test]
fn rows_come_back_from_disk_number_for_number() {
    let (_folder, model) = model_folder();
    for world_size in [1, 2] {
        let disk = tempfile::tempdir().expect("a temporary folder");
        let (tokens, before) = write(&model, world_size, disk.path());
        assert_eq!(files(disk.path()).len(), 2 * world_size as usize);

        // Another process, with nothing but the files.
        let mut script = Script::new(6);
        hold(&mut script, AGAIN, tokens);
        let first = script.blocks(read(AGAIN, BLOCK, OURS), true);
        let second = script.blocks(read(AGAIN, 2 * BLOCK, OURS), true);
        let rest = script.instructions.len();
        script.plan(vec![], vec![Run::Encode { session: AGAIN, limit: u32::MAX }], 1);
        let sampled = script.sample(AGAIN, 4);
        script.read(AGAIN, 1);
        let after = drive(&model, world_size, disk.path(), &script.instructions, 0);
        for (before, after) in before.iter().zip(&after) {
            for index in [first, second] {
                assert_eq!(after[index].report().reloaded, [AGAIN]);
                assert_eq!(after[index].report().encoded, 0, "nothing of it is encoded");
            }
            assert_eq!(after[rest].report().encoded, 40, "but what no block has");
            assert_eq!(after[sampled + 1].report().digest, Some(script.digest()));
            assert_eq!(drawn(&before[2]), drawn(&after[sampled]));
            let last = |outs: &[Out]| outs.last().expect("rows").rows().0[..2 * BLOCK].to_vec();
            assert_eq!(last(before), last(after), "number for number");
            let values = |outs: &[Out]| outs.last().expect("rows").rows().1[..2 * BLOCK].to_vec();
            assert_eq!(values(before), values(after));
        }
    }
}

#[test]
fn what_one_rank_lacks_no_rank_reads() {
    let (_folder, model) = model_folder();
    type Spoils = fn(&Path);
    let cases: [(&str, Realm, Spoils); 5] = [
        ("one bit is another", OURS, |file| {
            let mut bytes = std::fs::read(file).unwrap();
            bytes[5000] ^= 4;
            std::fs::write(file, bytes).unwrap();
        }),
        ("the disk was full", OURS, |file| {
            std::fs::File::options().write(true).open(file).unwrap().set_len(77).unwrap()
        }),
        ("it is gone", OURS, |file| std::fs::remove_file(file).unwrap()),
        ("a folder stands there", OURS, |file| {
            std::fs::remove_file(file).unwrap();
            std::fs::create_dir(file).unwrap();
        }),
        ("another tenant's text", Realm(8), |_| {}),
    ];
    for (what, realm, spoil) in cases {
        let disk = tempfile::tempdir().expect("a temporary folder");
        let (tokens, before) = write(&model, 2, disk.path());
        // The last is of the one rank or of the other, and both blocks of the rank whose folder comes last are spoilt.
        files(disk.path())[2..].iter().for_each(|file| spoil(file));
        let mut script = Script::new(6);
        hold(&mut script, AGAIN, tokens);
        let index = script.blocks(read(AGAIN, BLOCK, realm), false);
        let sampled = script.sample(AGAIN, 4);
        let after = drive(&model, 2, disk.path(), &script.instructions, 0);
        for (before, after) in before.iter().zip(&after) {
            assert!(after[index].report().reloaded.is_empty(), "{what}");
            assert_eq!(drawn(&after[sampled]), drawn(&before[2]), "{what}: it is encoded");
            assert_eq!(after[sampled + 1].report().digest, Some(script.digest()), "{what}");
        }
    }
}

/// A session that shares rows with another one reads the rest of its first block; a branch stands where it stood.
#[test]
fn a_block_is_read_behind_rows_that_are_there() {
    let (_folder, model) = model_folder();
    let disk = tempfile::tempdir().expect("a temporary folder");
    let (tokens, before) = write(&model, 1, disk.path());
    let mut script = Script::new(6);
    script.open(FIRST, tokens[..100].to_vec());
    let splices = Splices::append(100, tokens[100..].to_vec()).expect("one splice");
    let changes = vec![
        Change::Open { session: AGAIN },
        Change::Share { session: AGAIN, from: FIRST, length: 100 },
        Change::Splice { session: AGAIN, splices, strategy: Strategy::Pie },
    ];
    script.plan(changes, vec![], 1);
    script.blocks(read(AGAIN, BLOCK, OURS), true);
    script.blocks(read(AGAIN, 2 * BLOCK, OURS), true);
    let sampling = BTreeMap::from([(AGAIN, greedy(4))]);
    let index = script.instructions.len();
    script.plan_with(vec![], vec![Run::Sample { session: AGAIN }], 4, sampling);
    let after = drive(&model, 1, disk.path(), &script.instructions, 0);
    let reports: Vec<_> = after[0].iter().map(Out::report).collect();
    assert_eq!(reports[2].reloaded, [AGAIN]);
    assert_eq!(drawn(&after[0][index]), drawn(&before[0][2]));
    assert_eq!(reports[index].encoded, 40 + 3, "what no block has, and the tokens that were drawn");
}

/// In one plan a session's rows get slots of their own, the session that it shared them with goes, and another one reads a block into those.
#[test]
fn rows_are_copied_before_others_are_read_into_their_slots() {
    let (_folder, model) = model_folder();
    let disk = tempfile::tempdir().expect("a temporary folder");
    let (tokens, _) = write(&model, 1, disk.path());
    let (other, splice) = (SessionId(3), Splice { at: TokenIndex(10), delete: 0, insert: vec![TokenId(7)] });
    let mut rows = Vec::new();
    for together in [true, false] {
        let mut script = Script::new(6);
        let shared = script.tokens(BLOCK + 30);
        script.open(FIRST, shared.clone());
        let open = Change::Open { session: other };
        script.plan(
            vec![open, Change::Share { session: other, from: FIRST, length: BLOCK as u32 + 30 }],
            vec![],
            1,
        );
        let splices = Splices::new(vec![splice.clone()], shared.len()).expect("it fits");
        let edit = vec![Change::Splice { session: other, splices, strategy: Strategy::Pie }];
        let text = Splices::append(0, tokens[..BLOCK + 30].to_vec()).expect("one splice");
        let again = vec![
            Change::Close { session: FIRST },
            Change::Open { session: AGAIN },
            Change::Splice { session: AGAIN, splices: text, strategy: Strategy::Pie },
        ];
        if together {
            script.blocks_after([edit, again].concat(), read(AGAIN, BLOCK, OURS), true);
        } else {
            script.plan(edit, vec![], 1);
            script.blocks_after(again, read(AGAIN, BLOCK, OURS), true);
        }
        script.plan(vec![], vec![Run::Encode { session: other, limit: u32::MAX }], 1);
        let index = script.read(other, 1);
        let outs = drive(&model, 1, disk.path(), &script.instructions, 0);
        rows.push(outs[0][index].rows().0.to_vec());
    }
    assert!(rows[0] == rows[1], "the same rows, number for number");
}
