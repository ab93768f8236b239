//! The owner's core on simulated ranks: what is adopted, shared, dropped and limited.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, SUFFIX_FIRST, TEXT, drain, facts};
use pie_group::core::Settings;
use pie_group::tenants::{Tenant, TenantLimits};
use pie_proto::request::{Complete, Mode, OnEdit};
use pie_proto::{Reason, v1};
use pie_text::Document;
use pie_words::{AskedFollowing, TokenId};

#[test]
fn accepted_and_typed_through_suggestions_are_adopted() {
    // What is done with the suggestion, in pieces, and how many pieces of tokens are adopted at least.
    let cases: &[(&str, &[usize], u32)] =
        &[("accepted whole", &[12], 10), ("accepted in part", &[5], 4), ("word by word", &[4, 8, 12], 10)];
    for (name, pieces, adopted) in cases {
        let mut pool = Pool::new(1000);
        let start = pool.open("a", TEXT).expect("there is room").tokens as usize;
        let suggestion = "pub fn ask(question: &str) -> u32 {\n    question.len() as u32\n}\n";
        let written = pool.tokenizer.encode(&format!("{TEXT}{suggestion}")).expect("a text");
        pool.ranks.writes = Some((start, written[start..].to_vec()));
        let mut stream = pool.complete("a", 12, &[]).expect("it is open");
        pool.run();
        let tokens: Vec<_> = std::iter::from_fn(|| stream.try_recv().ok())
            .flat_map(|message| message.expect("fine").tokens.into_iter().map(|token| TokenId(token.id)))
            .collect();
        let whole = pool.tokenizer.decode(&tokens);
        let mut typed = 0;
        for (revision, piece) in pieces.iter().enumerate() {
            let text = pool.tokenizer.decode(&tokens[..*piece]);
            pool.edit("a", revision as u64, (TEXT.len() + typed) as u64, &text[typed..])
                .expect("it is right");
            typed = text.len();
        }
        assert!(whole.starts_with(&pool.get("a").text.expect("a text")[TEXT.len()..]), "{name}");
        let mut stream = pool.complete("a", 1, &[]).expect("it is open");
        pool.run();
        let timings = drain(&mut stream).3.expect("with the first token");
        assert!(timings.tokens_adopted >= *adopted, "{name}: {timings:?}");
        assert!(timings.tokens_encoded <= 3, "{name}: {timings:?}");
        assert_eq!(timings.tokens_encoded + timings.tokens_reused, pool.core_tokens("a"), "N1: {name}");
    }
}

#[test]
fn a_completion_at_a_cursor_costs_its_last_token_and_disturbs_nothing() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    pool.answer("a", 1);
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    drain(&mut stream);
    let table = |pool: &Pool| pool.ranks.group.sessions().next().expect("open").1.slots().to_vec();
    let (slots, encoded) = (table(&pool), pool.ranks.encoded);
    let at = TEXT.find("42").expect("in there") as u64;
    let mut stream = pool.complete_at("a", 3, at, Mode::Continue).expect("it is open");
    pool.run();
    let (_, tokens, finish, timings) = drain(&mut stream);
    assert_eq!((tokens, finish), (3, v1::FinishReason::Length));
    let timings = timings.expect("with the first token");
    assert!(timings.tokens_encoded <= 2 && pool.ranks.encoded - encoded <= 4, "{timings:?}");
    assert!(timings.tokens_encoded + timings.tokens_reused < pool.core_tokens("a"), "it sees less than all");
    assert_eq!(table(&pool), slots, "the document's slots stay");
    assert_eq!(pool.complete_at("a", 1, 10_000, Mode::Continue).map(drop), Err(Reason::RangeOutOfBounds));
}

/// The markers move, the keys between them turn, and only what is new is encoded.
#[test]
fn moving_the_cursor_costs_its_markers() {
    let mut pool = Pool::new(1000);
    let text = TEXT.repeat(4);
    pool.open("a", &text).expect("there is room");
    let mut first = pool.complete_at("a", 1, 20, Mode::FillInTheMiddle).expect("the model has markers");
    pool.run();
    assert_eq!(drain(&mut first).1, 1);
    let tokens = pool.core_tokens("a");
    for at in [20, 40, 41, 120, 3, 0, text.len() as u64] {
        let mut stream = pool.complete_at("a", 1, at, Mode::FillInTheMiddle).expect("it is open");
        pool.run();
        let timings = drain(&mut stream).3.expect("with the first token");
        let seen = timings.tokens_encoded + timings.tokens_reused;
        assert!((tokens + 3..tokens + 8).contains(&seen), "both sides and three markers: {timings:?}");
        assert!(timings.tokens_encoded <= 12, "at {at}: {timings:?}");
        let (_, table) = pool.ranks.group.sessions().next().expect("open");
        assert_eq!(table.tokens().len() as u32, seen);
    }
    // An edit, and a plain completion: the markers go, and the document is as it should be.
    pool.edit("a", 0, 5, "x").expect("the revision is right");
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    assert_eq!(drain(&mut stream).1, 1);
    let held = pool.get("a").tokens.expect("asked for").ids;
    let (_, table) = pool.ranks.group.sessions().next().expect("open");
    assert_eq!(table.tokens().iter().map(|token| token.0).collect::<Vec<_>>(), held);
}

/// A model that reads the text behind the cursor first: the table stays turned around, an edit is made where its tokens stand
/// in it, and a cursor costs the tokens that it passes. Whatever was done, it holds what the model is to read.
#[test]
fn a_table_that_is_turned_around_follows_edits_and_cursors() {
    for (fim, has_close) in SUFFIX_FIRST.into_iter().zip([true, false]) {
        let mut pool = Pool::filling(2000, SETTINGS, facts(), fim);
        let mut text = TEXT.repeat(8);
        let mut revision = pool.open("a", &text).expect("there is room").revision;
        let marker = |pool: &Pool, name: &str| pool.tokenizer.token_id(name).expect("is there");
        let fill = |pool: &mut Pool, text: &str, at: usize| {
            let mut stream = pool.complete_at("a", 1, at as u64, Mode::FillInTheMiddle).expect("it is open");
            pool.run();
            let timings = drain(&mut stream).3.expect("with the first token");
            let side = |text: &str| pool.tokenizer.encode(text).expect("encodes")[1..].to_vec();
            let (front, back) = (side(&text[..at]), side(&text[at..]));
            let [open, between, close] =
                ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"].map(|name| marker(pool, name));
            let lead = pool.tokenizer.prefix();
            let close = if has_close { vec![close] } else { vec![] };
            let expected = [lead, &[open], &back[..], &[between], &front, &close];
            let (_, table) = pool.ranks.group.sessions().next().expect("open");
            assert_eq!(table.tokens(), expected.concat(), "{fim} at {at}");
            timings.tokens_encoded + timings.tokens_encoded_ahead
        };
        let middle = text.len() / 2;
        fill(&mut pool, &text, middle);
        // Typing at the cursor, which moves along.
        let mut at = middle;
        for typed in ["let", " x", " = ", "1", ";"] {
            revision = pool.edit("a", revision, at as u64, typed).expect("is right").revision;
            text.insert_str(at, typed);
            at += typed.len();
            let encoded = fill(&mut pool, &text, at);
            assert!(encoded <= 8, "{fim}: typing {typed:?} encodes {encoded}");
        }
        // Edits far before and behind, at once and one by one; replacing what the cursor stands in.
        for (start, end, insert) in
            [(3, 7, "start"), (text.len() - 30, text.len() - 28, "\n\n"), (at - 9, at + 9, "y")]
        {
            revision = pool.replace("a", revision, start..end, insert).expect("is right").revision;
            text.replace_range(start..end, insert);
        }
        assert!(fill(&mut pool, &text, middle) <= 40, "{fim}: three edits");
        for at in [middle + 4, middle, 0, text.len(), 2, middle + 1] {
            fill(&mut pool, &text, at);
        }
        assert!(fill(&mut pool, &text, middle + 5) <= 12, "{fim}: a cursor that moves by four characters");
        // A plain completion sees the document.
        pool.answer("a", 1);
        let ids = pool.get("a").tokens.expect("asked for").ids;
        let (_, table) = pool.ranks.group.sessions().next().expect("open");
        assert!(table.tokens().iter().map(|token| token.0).eq(ids), "{fim}");
    }
}

/// Without a marker between the text before the cursor and what the model writes, this is where its own tokens belong.
#[test]
fn what_was_filled_in_is_adopted_where_no_marker_stands_before_it() {
    let mut pool = Pool::filling(1000, SETTINGS, facts(), SUFFIX_FIRST[1]);
    let revision = pool.open("a", TEXT).expect("there is room").revision;
    let at = TEXT.find("    println").expect("is there");
    let written = pool.tokenizer.encode("    let x = 1;\n").expect("encodes")[1..].to_vec();
    pool.ranks.writes = Some((pool.core_tokens("a") as usize + 2, written.clone()));
    let mut stream =
        pool.complete_at("a", written.len() as u32, at as u64, Mode::FillInTheMiddle).expect("is open");
    pool.run();
    let text = drain(&mut stream).0;
    pool.edit("a", revision, at as u64, &text).expect("is right");
    let mut stream =
        pool.complete_at("a", 1, (at + text.len()) as u64, Mode::FillInTheMiddle).expect("is open");
    pool.run();
    let timings = drain(&mut stream).3.expect("with the first token");
    assert!(
        timings.tokens_adopted as usize + 1 >= written.len() && timings.tokens_encoded <= 3,
        "{text:?}: {timings:?}"
    );
}

#[test]
fn the_longest_idle_make_room_and_come_back() {
    let mut pool = Pool::new(400);
    let text = |name: &str| format!("// {name}\n{}", TEXT.repeat(3));
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        pool.open(name, &text(name)).expect("others make room");
        pool.answer(name, 1);
    }
    let resident = |pool: &mut Pool, name: &str| pool.get(name).session.expect("described").resident;
    assert!(!resident(&mut pool, "a") && resident(&mut pool, "h"), "the longest idle went");
    pool.edit("a", 0, 0, "// while its rows are gone\n").expect("documents live on");
    let mut stream = pool.complete("a", 2, &[]).expect("it is open");
    pool.run();
    let (_, tokens, _, timings) = drain(&mut stream);
    let timings = timings.expect("with the first token");
    assert_eq!((tokens, timings.tokens_encoded + timings.tokens_encoded_ahead), (2, pool.core_tokens("a")));
    let (_, table) = pool.ranks.group.sessions().find(|(_, table)| !table.branch().is_empty()).expect("a's");
    let held: Vec<_> = table.tokens().iter().map(|token| token.0).collect();
    assert_eq!(held, pool.get("a").tokens.expect("asked for").ids);
    assert!(!resident(&mut pool, "b"));
}

#[test]
fn the_same_file_opened_twice_is_encoded_once() {
    let mut pool = Pool::new(1000);
    let text = TEXT.repeat(4);
    pool.open("a", &text).expect("there is room");
    pool.answer("a", 1);
    let encoded = pool.ranks.encoded;
    pool.open("b", &text).expect("there is room");
    let mut stream = pool.complete("b", 1, &[]).expect("it is open");
    pool.run();
    let timings = drain(&mut stream).3.expect("with the first token");
    assert_eq!((timings.tokens_encoded, pool.ranks.encoded - encoded), (1, 1), "{timings:?}");
    let shared = pool.get("b").session.expect("described").tokens_shared;
    assert!(shared + 2 >= pool.core_tokens("b"), "{shared}");
    // One edits; the other's rows stay where they are.
    pool.edit("a", 0, 0, "use std::fmt;\n").expect("the revision is right");
    pool.answer("a", 1);
    assert!(pool.get("b").session.expect("described").tokens_shared < 3);
    for name in ["a", "b"] {
        pool.close(name).expect("it is open");
    }
    pool.open("c", "x").expect("there is room");
    pool.answer("c", 1);
    assert!(pool.ranks.group.free_slots() > 990, "no slot leaks");
}

#[test]
fn completions_that_ask_to_outlive_edits_do() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let go_on = |request: &mut Complete| request.on_edit = OnEdit::GoOn;
    let mut stream = pool.ask_completion("a", 10, &[], go_on).expect("it is open");
    pool.step();
    pool.edit("a", 0, 0, "// new\n").expect("the revision is right");
    pool.run();
    let (_, tokens, finish, _) = drain(&mut stream);
    assert_eq!((tokens, finish), (10, v1::FinishReason::Length));
}

/// Every keystroke asks, and the answer before is not wanted any more: nothing of it stays.
#[test]
fn a_storm_of_cancellations_leaves_nothing() {
    let mut pool = Pool::new(400);
    pool.open("a", TEXT).expect("there is room");
    for revision in 0..200 {
        pool.edit("a", revision, 10, if revision % 9 == 8 { "\n" } else { "x" }).expect("it is right");
        let stream = pool.complete("a", 50, &[]).expect("the one before is gone");
        for _ in 0..revision % 3 {
            pool.step();
        }
        drop(stream);
    }
    pool.run();
    pool.close("a").expect("it is open");
    pool.open("b", "x").expect("there is room");
    pool.answer("b", 1);
    let tokens = pool.core_tokens("b") as usize;
    assert!(pool.ranks.group.free_slots() + tokens + 1 >= 400, "{}", pool.ranks.group.free_slots());
}

#[test]
fn each_tenant_has_its_share() {
    let tenant = TenantLimits { sessions: 2, tokens: 100, requests: 1 };
    let mut pool = Pool::with(1000, Settings { tenant, completions: 1, ..SETTINGS });
    pool.open("a", TEXT).expect("the first");
    pool.open("b", "x").expect("the second");
    assert_eq!(pool.open("c", "x").map(drop), Err(Reason::TenantLimit), "sessions");
    assert_eq!(pool.edit("b", 0, 0, &TEXT.repeat(4)).map(drop), Err(Reason::TenantLimit), "tokens");
    let running = pool.complete("a", 5, &[]).expect("the first");
    assert_eq!(pool.complete("b", 5, &[]).map(drop), Err(Reason::Overloaded), "of the whole group");
    drop(running);
    pool.run();
    pool.complete("b", 5, &[]).map(drop).expect("the first is over");
    let mut pool = Pool::with(1000, Settings { tenant, ..SETTINGS });
    pool.open("a", TEXT).expect("the first");
    let _running = pool.complete("a", 5, &[]).expect("the first");
    assert_eq!(pool.complete("a", 5, &[]).map(drop), Err(Reason::TenantLimit), "requests");
}

#[test]
fn a_group_has_no_more_sessions_than_it_may() {
    let mut pool = Pool::with(1000, Settings { sessions: 1, ..SETTINGS });
    pool.open("a", TEXT).expect("the first");
    assert_eq!(pool.open("b", "x").map(drop), Err(Reason::Overloaded));
    pool.open("a", "again").expect("it is open already");
}

/// Documents that are opened without end, and completed in all at a time, push out each other, and not the one that another tenant
/// types into now and then.
#[test]
fn a_tenant_that_holds_much_drops_its_own() {
    for all_are_busy in [false, true] {
        let mut pool = Pool::new(400);
        let mut revision = pool.open("typed into", &TEXT.repeat(2)).expect("room").revision;
        pool.answer("typed into", 1);
        let mallory = || Tenant::new("mallory").expect("a right name");
        let mut streams = Vec::new();
        for round in 0..12 {
            // Between two edits of the one, the other opens more than fits.
            for number in 0..8 {
                let text = format!("// {round} {number}\n{}", TEXT.repeat(3));
                let document = Document::open(pool.tokenizer.clone(), &text, 1 << 20).expect("short");
                let session = format!("{number}");
                pool.open_document(mallory(), &session, document, AskedFollowing::default())
                    .expect("others make room");
                if all_are_busy {
                    let begun = pool.ask_completion_of(mallory(), &session, 200, &[], |_| {});
                    streams.push(begun.expect("it is taken"));
                }
            }
            for _ in 0..5 {
                pool.step();
            }
            revision = pool.edit("typed into", revision, 0, "x").expect("it is right").revision;
            let mut stream = pool.complete("typed into", 1, &[]).expect("it is open");
            for _ in 0..100 {
                pool.step();
            }
            let timings = drain(&mut stream).3.expect("it is answered while the others are busy");
            assert!(timings.tokens_reused > timings.tokens_encoded, "round {round}: {timings:?}");
        }
    }
}
