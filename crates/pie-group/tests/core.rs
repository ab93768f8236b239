//! The owner's core on simulated ranks: edits, completions, failures.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, TEXT, drain, facts};
use pie_plan::Group;
use pie_proto::{Reason, v1};
use pie_words::Epoch;
use std::time::Instant;

#[test]
fn ten_edits_and_a_completion_cost_one_pass_and_what_they_insert() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 3, &[]).expect("it is open");
    pool.run();
    let (_, tokens, finish, timings) = drain(&mut stream);
    assert_eq!((tokens, finish), (3, v1::FinishReason::Length));
    let timings = timings.expect("with the first token");
    let length = pool.core_tokens("a");
    assert_eq!(timings.tokens_encoded + timings.tokens_reused, length, "N1");

    let (encoded, passes) = (pool.ranks.encoded, pool.ranks.passes);
    for revision in 0..10 {
        pool.edit("a", revision, 12, "x").expect("the revision is right");
    }
    assert!(!pool.step(), "small edits wait for the completion that follows");
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    let timings = drain(&mut stream).3.expect("with the first token");
    assert_eq!(pool.ranks.passes - passes, 1, "edits and next token cost one pass");
    assert_eq!(pool.ranks.encoded - encoded, timings.tokens_encoded as usize);
    assert!(timings.tokens_encoded < 15 && timings.tokens_rotated > 5, "{timings:?}");
    assert_eq!(timings.tokens_encoded + timings.tokens_reused, pool.core_tokens("a"), "N1");
}

/// R1, R2, D1: a stale edit changes nothing; a newer one ends the running completion, whose text names its revision.
#[test]
fn a_newer_edit_ends_a_completion_and_a_stale_one_changes_nothing() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 100, &[]).expect("it is open");
    pool.step();
    pool.step();
    let before = pool.get("a");
    assert_eq!(pool.edit("a", 7, 0, "x").map(drop), Err(Reason::RevisionMismatch));
    assert_eq!(pool.edit("a", 0, 999, "x").map(drop), Err(Reason::RangeOutOfBounds));
    assert_eq!(pool.get("a"), before, "R2: a refused edit has changed nothing");
    assert_eq!(drain(&mut stream).2, v1::FinishReason::Unspecified, "the completion runs on");

    // The next step is on its way when the edit comes in.
    let step = pool.desk.next_step(Instant::now()).expect("right").expect("it decodes");
    pool.edit("a", 0, 0, "// new\n").expect("the revision is right");
    let report = pool.ranks.step(&step);
    pool.desk
        .act(|core| core.report(report, Instant::now()))
        .expect("it fits though nobody wants its tokens");
    let (_, tokens, finish, _) = drain(&mut stream);
    assert_eq!((tokens, finish), (0, v1::FinishReason::Edited));
    let mut next = pool.complete("a", 2, &[]).expect("it is open");
    pool.run();
    let revisions: Vec<_> =
        std::iter::from_fn(|| next.try_recv().ok()).map(|message| message.expect("fine").revision).collect();
    assert_eq!(revisions, [1, 1], "D1");
}

/// A stop string cannot see a control token, which has no text: the token itself ends the completion.
#[test]
fn a_control_token_that_the_model_writes_ends_its_text() {
    for control in ["<｜fim▁hole｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"] {
        let mut pool = Pool::new(1000);
        let start = pool.open("a", TEXT).expect("there is room").tokens as usize;
        let token = pool.tokenizer.token_id(control).expect("it has one");
        let whole = pool.tokenizer.encode(&format!("{TEXT}let x = 1;\nlet y")).expect("a text");
        let mut writes = whole[start..].to_vec();
        writes.insert(4, token);
        pool.ranks.writes = Some((start, writes));
        let mut stream = pool.complete("a", 64, &[control]).expect("it is open");
        pool.run();
        let (text, tokens, finish, _) = drain(&mut stream);
        assert_eq!((text.as_str(), tokens, finish), ("let x = 1", 5, v1::FinishReason::Stop), "{control}");
        // What it wrote before is adopted as ever; the document that spells the token does not get it.
        pool.edit("a", 0, TEXT.len() as u64, &text).expect("is right");
        assert_eq!(pool.answer("a", 1).tokens_adopted, 4, "{control}");
        pool.edit("a", 1, 0, control).expect("is right");
        let ids = pool.get("a").tokens.expect("has some").ids;
        assert!(!ids[1..].contains(&token.0), "{control}: {ids:?}");
    }
}

#[test]
fn a_client_that_goes_away_frees_its_work_and_slots() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let tokens = pool.core_tokens("a") as usize;
    let stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.step();
    pool.step();
    drop(stream);
    pool.run();
    let mut other = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    assert_eq!(drain(&mut other).1, 1);
    pool.open("b", "x").expect("there is room");
    pool.complete("b", 1, &[]).expect("it is open");
    pool.run();
    let held: usize = pool.ranks.group.sessions().map(|(_, table)| table.branch().len()).sum();
    assert!(held <= 2, "only what the latest completion of each session left: {held}");
    assert!(pool.ranks.group.free_slots() + tokens + 8 >= 1000);
}

#[test]
fn slots_run_out_for_one_session_only_and_the_length_is_limited() {
    let mut pool = Pool::new(60);
    pool.open("a", TEXT).expect("there is room");
    assert_eq!(pool.open("b", &TEXT.repeat(3)).map(drop), Err(Reason::KvExhausted));
    assert_eq!(pool.edit("a", 0, 0, &TEXT.repeat(3)).map(drop), Err(Reason::KvExhausted));
    let mut stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.run();
    let (_, tokens, finish, _) = drain(&mut stream);
    assert_eq!(finish, v1::FinishReason::Length, "the cache ends it, as the model's context would");
    let held = pool.core_tokens("a") as usize + tokens;
    assert!(held.abs_diff(60) <= 1, "{held} of 60 slots");
    let mut stream = pool.complete("a", 2, &[]).expect("the session lives");
    pool.run();
    assert_eq!(drain(&mut stream).1, 2);

    let mut pool = Pool::new(9000);
    assert_eq!(pool.open("a", &"word ".repeat(2100)).map(drop), Err(Reason::DocumentTooLong));
    assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(Reason::SessionUnknown));
    let opened = pool.open("a", &"word ".repeat(1900)).expect("there is room");
    let mut stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.run();
    let (_, tokens, finish, _) = drain(&mut stream);
    let room = (facts().context_limit - opened.tokens) as usize;
    assert!(room < 150, "{room}");
    assert_eq!((tokens, finish), (room, v1::FinishReason::Length), "the context ends it");
}

#[test]
fn a_lost_group_fails_completions_keeps_documents_and_encodes_them_again() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 100, &[]).expect("it is open");
    pool.step();
    pool.desk.act(|core| core.lost("rank 3 is lost: killed"));
    let last = std::iter::from_fn(|| stream.try_recv().ok()).last().expect("a last message");
    let status = last.expect_err("the completion fails");
    assert_eq!(pie_proto::reason::reason_of(&status), Some(Reason::GroupLost));
    assert!(status.message().contains("rank 3"), "{status}");
    assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(Reason::GroupLost));
    pool.edit("a", 0, 0, "// while it was away\n").expect("documents live on");

    pool.desk.act(|core| core.serve(Group::new(Epoch(2), 1000), facts()));
    pool.ranks.group = Group::new(Epoch(2), 1000);
    let mut stream = pool.complete("a", 2, &[]).expect("it serves again");
    pool.run();
    assert_eq!(drain(&mut stream).1, 2);
    let held: Vec<_> = pool.ranks.group.sessions().map(|(_, table)| table.tokens().len()).collect();
    assert_eq!(held, [pool.core_tokens("a") as usize]);
}

#[test]
fn reopening_costs_the_difference_and_stop_strings_cut() {
    let mut pool = Pool::new(1000);
    let opened = pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 12, &[]).expect("it is open");
    pool.run();
    let whole = drain(&mut stream).0;
    let changed = TEXT.replace("42", "43");
    let again = pool.open("a", &changed).expect("it is open");
    assert!(again.reused + 3 >= opened.tokens && again.revision == 1, "{again:?}");
    assert_eq!(pool.get("a").text.as_deref(), Some(changed.as_str()));

    let middle = whole.char_indices().nth(4).expect("a text").0;
    let stop = &whole[middle..middle + whole[middle..].chars().take(2).map(char::len_utf8).sum::<usize>()];
    let mut stream = pool.complete("a", 12, &[stop]).expect("it is open");
    pool.run();
    let (text, _, finish, _) = drain(&mut stream);
    assert_eq!(finish, v1::FinishReason::Stop);
    assert_eq!(text, whole[..whole.find(stop).expect("it is in there")]);
}
