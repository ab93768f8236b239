//! What documents and completions may grow to, on simulated ranks that refuse what a true model cannot see; and what one
//! tenant learns of another.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, TEXT, drain, facts, name};
use pie_group::call::{Call, ModelFacts, WorkedOut};
use pie_group::core::Settings;
use pie_group::tenants::{Sharing, Tenant, TenantLimits};
use pie_proto::request::{Mode, OnEdit};
use pie_proto::{Reason, v1};
use pie_text::Document;
use pie_words::{AskedFollowing, Cursor, LspPosition, PositionEncoding, Strategy};
use std::time::Instant;
use v1::FinishReason::{Length, Unspecified};

/// A text of so many tokens with the tokenizer's prefix.
fn text_of(pool: &Pool, tokens: usize) -> String {
    let (mut text, step) = (String::new(), "word ");
    while pool.tokenizer.encode(&text).expect("a text").len() < tokens {
        text.push_str(step);
    }
    assert_eq!(pool.tokenizer.encode(&text).expect("a text").len(), tokens, "a token a word");
    text
}

fn small(context_limit: u32) -> ModelFacts {
    ModelFacts { context_limit, ..facts() }
}

/// Both sides grow: what runs, and the text before it. Whoever meets the model's limit is over, and nobody else hears of it.
#[test]
fn edits_before_a_completion_that_goes_on_end_it_at_the_models_limit() {
    // Tokens of the document, tokens asked for, steps until the edit, tokens inserted.
    let cases =
        [(13, 90, 3, 85), (5, 95, 1, 4), (5, 90, 2, 93), (50, 49, 4, 1), (98, 1, 0, 1), (13, 90, 3, 50)];
    for (tokens, max_tokens, steps, inserted) in cases {
        let mut pool = Pool::of(1000, SETTINGS, small(100));
        let text = text_of(&pool, tokens);
        pool.open("a", &text).expect("it fits");
        pool.open("b", TEXT).expect("it fits");
        let mut stream = pool
            .ask_completion("a", max_tokens, &[], |request| request.on_edit = OnEdit::GoOn)
            .expect("it is open");
        for _ in 0..steps {
            pool.step();
        }
        let edited = pool.edit("a", 0, 0, &"word ".repeat(inserted)).expect("the document itself fits");
        pool.run();
        let (_, produced, finish, _) = drain(&mut stream);
        let case = format!("{tokens} tokens, {max_tokens} asked for, {inserted} inserted");
        assert_eq!(finish, Length, "{case}");
        assert!(produced <= max_tokens as usize, "{case}");
        assert!(produced >= (100 - edited.tokens as usize).min(max_tokens as usize), "{case}: {produced}");
        let of_b = pool.answer("b", 2);
        assert_eq!(of_b.tokens_encoded + of_b.tokens_reused, pool.core_tokens("b"), "{case}");
    }
}

#[test]
fn markers_that_do_not_fit_refuse_that_call_alone() {
    for tokens in 90..100 {
        let mut pool = Pool::of(1000, SETTINGS, small(100));
        let text = text_of(&pool, tokens);
        pool.open("a", &text).expect("it fits");
        let mut before = pool.complete("a", 1, &[]).expect("it is open");
        let filled = pool.complete_at("a", 50, 9, Mode::FillInTheMiddle);
        let mut behind = pool.complete("a", 1, &[]).expect("it is open");
        match filled {
            Ok(mut stream) => {
                pool.run();
                let (_, produced, finish, _) = drain(&mut stream);
                assert!(tokens + 3 < 100 && produced > 0 && finish == Length, "{tokens}: {produced}");
            }
            Err(reason) => {
                assert_eq!(reason, Reason::DocumentTooLong);
                assert!(tokens + 3 >= 100, "{tokens}");
            }
        }
        pool.run();
        for stream in [&mut before, &mut behind] {
            assert_eq!(drain(stream).1, 1, "{tokens}");
        }
    }
}

/// A group may be formed again by workers with a smaller model: what it cannot see stays readable, and may shrink.
#[test]
fn documents_that_another_model_cannot_see_are_read_and_not_completed() {
    let mut pool = Pool::of(1000, SETTINGS, small(200));
    let (long, short) = (text_of(&pool, 150), text_of(&pool, 20));
    pool.open("long", &long).expect("it fits");
    pool.open("short", &short).expect("it fits");
    pool.run();
    pool.form_again(2, small(100));
    pool.run();
    assert_eq!(pool.complete("long", 1, &[]).map(drop), Err(Reason::DocumentTooLong));
    assert_eq!(pool.edit("long", 0, 0, "word ").map(drop), Err(Reason::DocumentTooLong));
    assert_eq!(pool.get("long").text.as_deref(), Some(long.as_str()));
    pool.answer("short", 3);
    pool.replace("long", 0, 0..20, "").expect("it becomes shorter, and is still too long");
    assert_eq!(pool.complete("long", 1, &[]).map(drop), Err(Reason::DocumentTooLong));
    pool.replace("long", 1, 0..400, "").expect("it becomes shorter");
    pool.answer("long", 3);

    pool.form_again(3, ModelFacts { vocabulary: 10, ..small(100) });
    pool.run();
    assert_eq!(pool.complete("long", 1, &[]).map(drop), Err(Reason::TokenUnknown));
    assert!(pool.get("short").text.is_some());
}

#[test]
fn a_cursor_has_the_room_behind_the_text_before_it() {
    let mut pool = Pool::of(1000, SETTINGS, small(100));
    let text = text_of(&pool, 99);
    pool.open("a", &text).expect("it fits");
    for (at, expected) in [(text.len() as u64, 1), (50, 60)] {
        let mut stream = pool.complete_at("a", 60, at, Mode::Continue).expect("it is open");
        pool.run();
        let (_, produced, finish, _) = drain(&mut stream);
        assert_eq!((produced, finish), (expected, Length), "at {at}");
    }
}

#[test]
fn a_bad_cursor_is_told_as_the_cursor() {
    let mut pool = Pool::new(1000);
    pool.open("a", "größe\n🙂").expect("it fits");
    let lsp = |line, column, encoding| Cursor::Lsp(LspPosition { line, column, encoding });
    let cases: &[(Cursor, Reason, &str)] = &[
        (
            Cursor::Byte(100),
            Reason::RangeOutOfBounds,
            "the completion's cursor is at byte 100; the text has 12",
        ),
        (Cursor::Byte(3), Reason::InsideCharacter, "the completion's cursor is at byte 3, inside"),
        (
            lsp(0, 3, PositionEncoding::Utf8),
            Reason::InsideCharacter,
            "the completion's cursor is at byte 3, inside",
        ),
        (
            lsp(1, 1, PositionEncoding::Utf16),
            Reason::BadUtf16Column,
            "the completion's cursor is at column 1 of line 1, inside",
        ),
    ];
    for (at, reason, message) in cases {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let mut asked = None;
        drop(pool.ask_completion("a", 1, &[], |request| {
            request.at = Some(*at);
            asked = Some(request.clone());
        }));
        let request = asked.expect("changed");
        let arrived = Instant::now();
        pool.desk.call(Call::Complete {
            tenant: Tenant::default(),
            request,
            worked_out: WorkedOut::default(),
            arrived,
            reply,
        });
        let fault = answer.try_recv().expect("answered").expect_err("no such place");
        assert_eq!(fault.reason, *reason);
        assert!(fault.message.starts_with(message), "{fault}");
        assert!(fault.metadata.is_empty(), "no edit is to blame: {fault:?}");
    }
}

#[test]
fn edits_that_change_nothing_make_no_revision_and_end_nothing() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("it fits");
    let mut stream = pool.complete("a", 20, &[]).expect("it is open");
    pool.step();
    for (range, text) in [(0..0, ""), (0..2, "fn"), (0..TEXT.len(), TEXT)] {
        assert_eq!(pool.replace("a", 0, range, text).expect("the revision fits").revision, 0);
    }
    assert_eq!(drain(&mut stream).2, Unspecified, "it runs on");
    assert_eq!(pool.edit("a", 7, 0, "").map(drop), Err(Reason::RevisionMismatch), "R1 holds all the same");
    assert_eq!(pool.edit("a", 0, 0, "x").expect("the revision fits").revision, 1);
}

#[test]
fn how_a_cache_follows_is_as_the_session_says_and_stays_so_when_it_is_opened_again() {
    let mut pool = Pool::new(1000);
    let mut open = |strategy: Option<Strategy>, window: Option<u32>| {
        let document = Document::open(pool.tokenizer.clone(), TEXT, 1 << 20).expect("short");
        let following = AskedFollowing { strategy, window };
        pool.open_document(Tenant::default(), "a", document, following).expect("it fits");
        let session = pool.get("a").session.expect("described");
        (session.strategy(), session.repair_window)
    };
    let cases = [
        ((None, None), (v1::Strategy::Pie, None)),
        ((Some(Strategy::Full), None), (v1::Strategy::Full, None)),
        ((None, None), (v1::Strategy::Full, None)),
        ((Some(Strategy::Repair), Some(7)), (v1::Strategy::Repair, Some(7))),
        ((None, Some(0)), (v1::Strategy::Repair, Some(0))),
        ((Some(Strategy::Pie), None), (v1::Strategy::Pie, Some(0))),
    ];
    for ((strategy, window), expected) in cases {
        assert_eq!(open(strategy, window), expected, "{strategy:?} {window:?}");
    }
}

/// Opening a text must not tell whether another tenant has the same.
#[test]
fn what_another_tenant_holds_is_shared_only_where_that_is_asked_for() {
    for (sharing, shares) in [(Sharing::WithinTenant, false), (Sharing::AcrossTenants, true)] {
        let mut pool = Pool::with(2000, Settings { sharing, ..SETTINGS });
        let text = TEXT.repeat(12);
        let mut open = |tenant: &str, session: &str| {
            let document = Document::open(pool.tokenizer.clone(), &text, 1 << 20).expect("short");
            let tenant = Tenant::new(tenant).expect("a right name");
            let opened = pool
                .open_document(tenant.clone(), session, document, AskedFollowing::default())
                .expect("room");
            let encoded = pool.ranks.encoded;
            pool.run();
            let session = name(session);
            let get = |reply| Call::Get { tenant, session, identity: None, content: false, reply };
            let got = pool.ask(get).expect("open");
            let shared = got.session.expect("described").tokens_shared;
            (opened.reused, shared > 0, pool.ranks.encoded - encoded > 0)
        };
        // Large enough to be encoded without being asked.
        assert_eq!(open("ada", "a"), (0, false, true), "{sharing:?}");
        assert_eq!(open("grace", "a"), (0, shares, !shares), "{sharing:?}");
        assert_eq!(open("ada", "b"), (0, true, false), "{sharing:?}: within a tenant");
    }
}

/// A group that forms again encodes what is used, and the rest when nobody wants anything: a completion waits for its own
/// document alone.
#[test]
fn a_group_that_forms_again_encodes_first_what_is_asked_for() {
    let mut pool = Pool::new(40_000);
    let names: Vec<String> = (0..60).map(|index| format!("file-{index}")).collect();
    for name in &names {
        pool.open(name, &format!("// {name}\n{}", TEXT.repeat(20))).expect("there is room");
    }
    pool.run();
    pool.form_again(2, facts());
    let own = pool.core_tokens("file-7") as usize;
    let encoded = pool.ranks.encoded;
    let mut stream = pool.complete("file-7", 1, &[]).expect("it is open");
    while drain(&mut stream).1 == 0 {
        assert!(pool.step(), "it is served");
    }
    assert_eq!(pool.ranks.encoded - encoded, own, "its own rows, and no others");
    // Somebody asks while the rest is encoded: first the chunk in hand, then his.
    pool.step();
    let encoded = pool.ranks.encoded;
    let own = pool.core_tokens("file-3") as usize;
    let mut stream = pool.complete("file-3", 1, &[]).expect("it is open");
    while drain(&mut stream).1 == 0 {
        assert!(pool.step(), "it is served");
    }
    assert_eq!(pool.ranks.encoded - encoded, own, "nobody else's while he waits");
    pool.run();
    for name in &names {
        let session = pool.get(name).session.expect("described");
        assert_eq!((session.resident, session.tokens_pending), (true, 0), "{name}");
    }
}

/// A completion that is over counts until it is read: what waits for readers is bounded by their number.
#[test]
fn completions_that_nobody_reads_count() {
    for (completions, requests, reason) in
        [(3, usize::MAX, Reason::Overloaded), (100, 3, Reason::TenantLimit)]
    {
        let tenant = TenantLimits { requests, ..TenantLimits::NONE };
        let mut pool = Pool::with(2000, Settings { completions, tenant, ..SETTINGS });
        pool.open("a", TEXT).expect("it fits");
        let mut unread = Vec::new();
        for _ in 0..3 {
            unread.push(pool.complete("a", 30, &[]).expect("there is room"));
            pool.run();
        }
        assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(reason));
        drop(unread.pop());
        let mut read = pool.complete("a", 30, &[]).expect("whoever leaves counts no more");
        pool.run();
        assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(reason));
        assert_eq!(drain(&mut read).1, 30);
        pool.complete("a", 1, &[]).expect("nor does one that is read");
    }
}

/// Should ranks refuse rows all the same, their session fails, and nobody else.
#[test]
fn what_ranks_refuse_fails_one_session() {
    let mut pool = Pool::new(1000);
    for name in ["a", "b"] {
        pool.open(name, TEXT).expect("it fits");
    }
    let mut streams = ["a", "b"].map(|name| pool.complete(name, 3, &[]).expect("it is open"));
    let step = pool.desk.next_step(Instant::now()).expect("a right plan").expect("both want a token");
    pool.ranks.refuses.push(step.plan.runs[0].session());
    let report = pool.ranks.step(&step);
    pool.desk.act(|core| core.report(report, Instant::now())).expect("it fits");
    pool.ranks.refuses.clear();
    pool.run();
    let failed = streams[0].try_recv().expect("it is told").expect_err("its rows are refused");
    assert_eq!(pie_proto::reason::reason_of(&failed), Some(Reason::Internal));
    assert_eq!(drain(&mut streams[1]).1, 3, "the other goes on");
    assert!(pool.get("a").text.is_some(), "its document is there");
    pool.answer("a", 2);
}

/// The logits of one session were no numbers: it fails, and is told why; the other goes on.
#[test]
fn logits_that_are_no_numbers_fail_one_session() {
    let mut pool = Pool::new(1000);
    for name in ["a", "b"] {
        pool.open(name, TEXT).expect("it fits");
    }
    let asked = [("a", 1), ("b", 3)];
    let mut streams = asked.map(|(name, tokens)| pool.complete(name, tokens, &[]).expect("it is open"));
    let step = pool.desk.next_step(Instant::now()).expect("a right plan").expect("both want a token");
    let undrawn = step.plan.runs[0].session();
    let mut report = pool.ranks.step(&step);
    for sampled in report.passes.iter_mut().flatten() {
        if sampled.session == undrawn {
            sampled.logprob = f32::NAN;
        }
    }
    report.refused.push(undrawn);
    pool.desk.act(|core| core.report(report, Instant::now())).expect("it fits");
    pool.run();
    let failed = streams[0].try_recv().expect("it is told").expect_err("no token was drawn");
    assert!(failed.message().contains("no numbers"), "{failed}");
    assert_eq!(drain(&mut streams[1]).1, 3, "the other goes on");
    pool.answer("a", 2);
}

/// Who waited for a step in which another tenant's document was encoded gets his token from the next one, which encodes none of it; the
/// step after that goes on with it.
#[test]
fn who_has_waited_for_anothers_document_once_does_not_wait_again() {
    let mut pool = Pool::new(40_000);
    pool.open("typed into", TEXT).expect("there is room");
    pool.answer("typed into", 1);
    let document = Document::open(pool.tokenizer.clone(), &TEXT.repeat(60), 1 << 20).expect("a short text");
    let mallory = Tenant::new("mallory").expect("a right name");
    pool.open_document(mallory, "large", document, AskedFollowing::default()).expect("there is room");
    let step = |pool: &mut Pool| {
        let before = pool.ranks.encoded;
        assert!(pool.step(), "somebody wants something");
        pool.ranks.encoded - before
    };
    assert!(step(&mut pool) > 1, "nobody else is there");
    let mut stream = pool.complete("typed into", 3, &[]).expect("it is open");
    assert_eq!((step(&mut pool), drain(&mut stream).1), (1, 1), "the first token, alone");
    assert!(step(&mut pool) > 1, "the second, and a part of the document");
    assert_eq!(drain(&mut stream).1, 1);
}
