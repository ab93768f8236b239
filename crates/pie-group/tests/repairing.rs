//! The owner's core on simulated ranks: what edits leave stale is encoded again, when, and what is told of it.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{HEALING, Pool, SETTINGS, TEXT, drain};
use pie_group::core::{Healing, RepairPolicy, Settings};
use pie_group::tenants::Tenant;
use pie_plan::schedule::Limits;
use pie_proto::request::{Exactness, Mode};
use pie_proto::v1;
use pie_text::Document;
use pie_words::{AskedFollowing, Strategy};
use std::time::Instant;

/// What edits left stale is encoded again when nobody wants anything: no answer waits for it, and what is left alone becomes exact.
#[test]
fn stale_rows_are_repaired_while_idle() {
    let healing = Healing { repairs: RepairPolicy::WhenIdle, ..HEALING };
    let mut pool = Pool::with(2000, Settings { healing, ..SETTINGS });
    // So long that it is encoded when it is opened.
    let text = TEXT.repeat(20);
    let opened = pool.open("a", &text).expect("there is room");
    pool.run();
    let seen = |pool: &mut Pool| {
        let session = pool.get("a").session.expect("described");
        (session.tokens_stale, session.tokens_exact, session.tokens)
    };
    let (mut revision, mut given_up) = (opened.revision, 0);
    for turn in 0..6 {
        revision = pool.edit("a", revision, 30, "x").expect("the revision is right").revision;
        let mut stream = pool.complete("a", 1, &[]).expect("it is open");
        assert!(pool.step());
        let timings = drain(&mut stream).3.expect("the first step is the completion's");
        assert!(timings.tokens_encoded <= 6 && timings.tokens_repaired == 0, "{timings:?}");
        assert!(timings.tokens_stale > 100, "{timings:?}");
        // The step after it repairs, until somebody comes.
        let before = seen(&mut pool);
        let step =
            pool.desk.next_step(Instant::now()).expect("a right plan").expect("there is something to repair");
        assert!(step.plan.only_repairs());
        assert_eq!(pool.desk.plan_to_interrupt(), None);
        // Until the ranks have done it, nothing more is exact than before.
        let now = seen(&mut pool);
        assert!(now.1 == before.1 && now.0 >= before.0, "{now:?} {before:?}");
        if turn % 2 == 0 {
            revision = pool.edit("a", revision, 0, "y").expect("the revision is right").revision;
            assert_eq!(pool.desk.plan_to_interrupt(), Some(step.plan.seq), "in its pass");
            (pool.ranks.gives_up, given_up) = (1, given_up + 1);
        }
        let report = pool.ranks.step(&step);
        pool.desk.act(|core| core.report(report, Instant::now())).expect("the report fits");
        pool.ranks.gives_up = 0;
    }
    assert!(seen(&mut pool).0 > 100, "little is repaired between two edits");
    pool.run();
    let (stale, exact, tokens) = seen(&mut pool);
    assert_eq!((stale, exact), (0, tokens), "what is left alone becomes exact");
    let counters = pool.desk.describe().groups[0].counters.expect("counted");
    assert_eq!((counters.repairs_given_up, counters.tokens_repaired > u64::from(tokens)), (given_up, true));
}

/// Windows go with the edits that ask for them, free rows are filled, and whoever asks for it sees exact rows alone.
#[test]
fn repairs_ride_in_passes_that_are_made_anyway() {
    let text = TEXT.repeat(20);
    let cases = [
        // Strategy, free rows, repaired with the first token, and with each further one.
        (Strategy::Pie, 0, 0..=0, 0..=0),
        (Strategy::Repair, 0, 16..=16, 0..=0),
        (Strategy::Pie, 12, 8..=12, 10..=12),
        (Strategy::Repair, 12, 16..=16, 10..=12),
        (Strategy::Conflict, 12, 0..=0, 0..=0),
    ];
    for (strategy, free, first, next) in cases {
        let healing = Healing { repairs: RepairPolicy::Always, window: 16, free_rows: Some(free) };
        let limits = Limits { decode_passes: 1, ..SETTINGS.limits };
        let mut pool = Pool::with(2000, Settings { healing, limits, ..SETTINGS });
        let document = Document::open(pool.tokenizer.clone(), &text, 1 << 20).expect("a short text");
        let opened = pool
            .open_document(
                Tenant::default(),
                "a",
                document,
                AskedFollowing { strategy: Some(strategy), window: None },
            )
            .expect("there is room");
        pool.run();
        pool.edit("a", opened.revision, 30, "x").expect("the revision is right");
        let mut stream = pool.complete("a", 3, &[]).expect("it is open");
        assert!(pool.step());
        let timings = drain(&mut stream).3.expect("the first token is there");
        assert!(first.contains(&timings.tokens_repaired), "{strategy:?}, {free} free: {timings:?}");
        let before = pool.desk.describe().groups[0].tokens_stale;
        assert!(pool.step());
        let repaired = before - pool.desk.describe().groups[0].tokens_stale;
        // The free rows of a decode step are one less: it has a row of its own.
        assert!(
            next.contains(&(repaired + u64::from(repaired > 0))),
            "{strategy:?}, {free} free: {repaired}"
        );
        let exact = pool.ask_completion("a", 1, &[], |request| request.exactness = Exactness::Exact);
        let mut exact = exact.expect("it is open");
        while drain(&mut stream).2 == v1::FinishReason::Unspecified && pool.step() {}
        let mut timings = None;
        while timings.is_none() && pool.step() {
            timings = drain(&mut exact).3;
        }
        assert_eq!(timings.expect("answered").tokens_stale, 0, "{strategy:?}, {free} free");
    }
}

/// An edit may say how large its window is, and then no other has that one.
#[test]
fn an_edit_says_what_is_repaired_with_it() {
    let healing = Healing { repairs: RepairPolicy::WithEdits, window: 16, free_rows: Some(0) };
    let limits = Limits { rows: 256, prefill_rows: 128, ..SETTINGS.limits };
    let mut pool = Pool::with(2000, Settings { healing, limits, ..SETTINGS });
    let mut revision = pool.open("a", &TEXT.repeat(20)).expect("there is room").revision;
    pool.answer("a", 1);
    let cases = [
        (Some(Strategy::Repair), None, 16),
        (Some(Strategy::Repair), Some(5), 5),
        (Some(Strategy::Repair), Some(100), 100),
        (Some(Strategy::Repair), Some(0), 0),
        // As far as the pass has room, and a prefill would have.
        (Some(Strategy::Repair), Some(u32::MAX), u32::MAX),
        (Some(Strategy::Repair), None, 16),
        // A window is of the strategy that has one.
        (None, Some(50), 0),
    ];
    let of_the_session = |strategy, window| AskedFollowing { strategy: Some(strategy), window };
    let sessions = [of_the_session(Strategy::Pie, None), of_the_session(Strategy::Repair, Some(9))];
    // What an edit says counts, then what its session says, then what the pool is set to.
    let of_two = [(None, None, 9), (Some(Strategy::Repair), Some(4), 4), (Some(Strategy::Pie), None, 0)];
    let all = cases.map(|case| (0, case)).into_iter().chain(of_two.map(|case| (1, case)));
    let mut opened = 0;
    for (session, (strategy, window, repaired)) in all {
        if session != opened {
            let text = pool.get("a").text.expect("a text");
            let document = Document::open(pool.tokenizer.clone(), &text, 1 << 20).expect("short");
            let again = pool.open_document(Tenant::default(), "a", document, sessions[session]);
            (revision, opened) = (again.expect("it is open").revision, session);
        }
        let edited = pool.replace_with("a", revision, 30..30, "x", |request| {
            request.following = AskedFollowing { strategy, window };
        });
        revision = edited.expect("the revision is right").revision;
        let timings = pool.answer("a", 1);
        let is_as_asked = match repaired {
            u32::MAX => (60..=128).contains(&timings.tokens_repaired),
            _ => timings.tokens_repaired == repaired,
        };
        assert!(is_as_asked, "{strategy:?} {window:?}: {timings:?}");
    }
}

/// People fill in at a cursor and type there: markers at both ends of the document stay, so that what stands before the cursor is
/// exact, and stays so.
#[test]
fn typing_at_a_cursor_leaves_what_stands_before_it_exact() {
    let healing = Healing { repairs: RepairPolicy::WhenIdle, ..HEALING };
    let mut pool = Pool::with(2000, Settings { healing, ..SETTINGS });
    let text = TEXT.repeat(12);
    let mut revision = pool.open("a", &text).expect("there is room").revision;
    let at = text.len() as u64 * 3 / 4;
    let fill = |pool: &mut Pool, at| {
        let mut stream = pool.complete_at("a", 1, at, Mode::FillInTheMiddle).expect("it is open");
        while drain(&mut stream).1 == 0 && pool.step() {}
    };
    fill(&mut pool, at);
    pool.run();
    for typed in 0..5 {
        revision = pool.edit("a", revision, at + typed, "z").expect("the revision is right").revision;
        fill(&mut pool, at + typed + 1);
        let session = pool.get("a").session.expect("described");
        assert!(session.tokens_exact * 10 > session.tokens * 7, "{session:?}");
    }
    pool.run();
    let session = pool.get("a").session.expect("described");
    assert_eq!((session.tokens_stale, session.tokens_exact), (0, session.tokens));
    // The markers go when it is read otherwise, and the document's edges can be edited, too.
    for (place, typed) in [
        (
            0, "//
",
        ),
        (text.len() as u64 + 8, "end"),
        (1, "!"),
    ] {
        revision = pool.edit("a", revision, place, typed).expect("the revision is right").revision;
        fill(&mut pool, at);
        let ids = pool.get("a").tokens.expect("asked for").ids;
        let markers = pool.ranks.group.sessions().next().expect("open").1.tokens().len() - ids.len();
        assert_eq!(markers, 3);
    }
    pool.answer("a", 1);
    let ids = pool.get("a").tokens.expect("asked for").ids;
    let (_, table) = pool.ranks.group.sessions().next().expect("open");
    assert!(table.tokens().iter().map(|token| token.0).eq(ids));
}
