//! The policy, case by case.

use pie_plan::Run;
use pie_plan::schedule::{
    Demand, Lane, Limits, Micros, Schedule, Ticket, Want, schedule, schedule_first_tokens,
};
use pie_words::SessionId;
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { rows: 100, prefill_rows: 30, decode_passes: 8, ..Limits::NONE };

fn demand(session: u64, pending: u32, want: Want, ticket: u64) -> Demand {
    let rows = if want <= Want::NextToken { pending.max(1) } else { pending };
    let (lane, row_time, token_time) = (Lane(0), Micros(0), Micros(0));
    Demand {
        session: SessionId(session),
        lane,
        rows,
        pending,
        want,
        ticket: Ticket(ticket),
        row_time,
        token_time,
    }
}

/// The same in a lane of its own, of rows that take a millisecond each.
fn timed(lane: u32, demand: Demand) -> Demand {
    Demand { lane: Lane(lane), row_time: Micros(1000), ..demand }
}

fn sample(session: u64) -> Run {
    Run::Sample { session: SessionId(session) }
}

fn encode(session: u64, limit: u32) -> Run {
    Run::Encode { session: SessionId(session), limit }
}

#[test]
fn who_runs() {
    use Want::{Encoding, FirstToken, NextToken, Refresh};
    type Chosen = Option<(Vec<Run>, u32)>;
    let cases: &[(&str, Vec<Demand>, Chosen)] = &[
        ("nobody", vec![], None),
        ("nothing pending", vec![demand(1, 0, Encoding, 1)], None),
        ("a decode alone gets several passes", vec![demand(1, 0, NextToken, 1)], Some((vec![sample(1)], 8))),
        ("a first token waits for no second", vec![demand(1, 0, FirstToken, 1)], Some((vec![sample(1)], 1))),
        (
            "two decodes, oldest first",
            vec![demand(1, 1, NextToken, 2), demand(2, 1, NextToken, 1)],
            Some((vec![sample(2), sample(1)], 8)),
        ),
        ("an edit takes one pass", vec![demand(1, 64, FirstToken, 1)], Some((vec![sample(1)], 1))),
        (
            "an edit before a decode that waits longer",
            vec![demand(1, 64, FirstToken, 2), demand(2, 1, NextToken, 1)],
            Some((vec![sample(1), sample(2)], 1)),
        ),
        (
            "edits leave decodes their rows",
            vec![demand(1, 50, FirstToken, 1), demand(2, 50, FirstToken, 2), demand(3, 1, NextToken, 3)],
            Some((vec![sample(1), sample(3)], 1)),
        ),
        (
            "the largest edit that is served whole, beside all others",
            [
                vec![demand(1, 75, FirstToken, 1)],
                vec![demand(90, 99, Encoding, 0)],
                (2..40).map(|id| demand(id, 1, NextToken, id)).collect(),
            ]
            .concat(),
            Some(([vec![sample(1)], (2..14).map(sample).collect(), vec![encode(90, 13)]].concat(), 1)),
        ),
        (
            "a completion at a cursor that does not wait for the text behind it",
            vec![Demand { rows: 5, ..demand(1, 5000, FirstToken, 1) }],
            Some((vec![sample(1)], 1)),
        ),
        (
            "a refresh when nobody wants anything",
            vec![demand(1, 500, Refresh, 1)],
            Some((vec![encode(1, 30)], 1)),
        ),
        (
            "a refresh never beside others, and they do not mind it",
            vec![demand(1, 500, Refresh, 1), demand(2, 1, NextToken, 2)],
            Some((vec![sample(2)], 8)),
        ),
        ("a prefill alone takes all", vec![demand(1, 500, Encoding, 1)], Some((vec![encode(1, 100)], 1))),
        (
            "a token before a prefill that waits longer",
            vec![demand(1, 500, Encoding, 1), demand(2, 64, FirstToken, 2)],
            Some((vec![sample(2), encode(1, 30)], 1)),
        ),
        (
            "a prefill keeps a quarter",
            vec![demand(1, 500, Encoding, 9), demand(2, 70, FirstToken, 1), demand(3, 10, FirstToken, 2)],
            Some((vec![sample(2), encode(1, 30)], 1)),
        ),
        (
            "an edit too large for a step comes in chunks",
            vec![demand(1, 80, FirstToken, 1)],
            Some((vec![encode(1, 79)], 1)),
        ),
        (
            "edits that do not fit wait",
            vec![demand(1, 60, FirstToken, 1), demand(2, 60, FirstToken, 2)],
            Some((vec![sample(1)], 1)),
        ),
        (
            "an edit too large for a step goes before prefills that wait longer, and leaves them a quarter",
            vec![demand(1, 500, FirstToken, 9), demand(2, 500, Encoding, 1), demand(3, 500, Encoding, 2)],
            Some((vec![encode(1, 75), encode(2, 25)], 1)),
        ),
        (
            "what it does not need is theirs",
            vec![demand(1, 81, FirstToken, 9), demand(2, 500, Encoding, 1), demand(3, 9, Encoding, 0)],
            Some((vec![encode(1, 75), encode(3, 9), encode(2, 16)], 1)),
        ),
        (
            "edits too large for a step, in turn",
            vec![demand(1, 90, FirstToken, 2), demand(2, 90, NextToken, 1)],
            Some((vec![encode(2, 89), encode(1, 11)], 1)),
        ),
        (
            "prefills in turn",
            vec![demand(1, 60, Encoding, 2), demand(2, 60, Encoding, 1)],
            Some((vec![encode(2, 60), encode(1, 40)], 1)),
        ),
    ];
    for (name, demands, expected) in cases {
        let expected = expected.clone().map(|(runs, passes)| Schedule { runs, passes });
        assert_eq!(schedule(demands, LIMITS), expected, "{name}");
    }
}

/// Two lanes, rows of a millisecond, and ten milliseconds for all.
#[test]
fn lanes_take_turns_and_a_step_has_a_time() {
    use Want::{Encoding, FirstToken, NextToken, Refresh};
    let many = |want| (1..=20).map(move |id| timed(1, demand(id, 1, want, id))).collect::<Vec<_>>();
    let cases: &[(&str, Vec<Demand>, Vec<Run>)] = &[
        (
            "one edit of a lane that has no other comes second, not behind twenty",
            [many(FirstToken), vec![timed(2, demand(30, 5, FirstToken, 30))]].concat(),
            [vec![sample(1), sample(30)], (2..=5).map(sample).collect()].concat(),
        ),
        (
            "decodes too, and what does not fit in the time waits",
            [many(NextToken), vec![timed(2, demand(30, 1, NextToken, 30))]].concat(),
            [vec![sample(1), sample(30)], (2..=9).map(sample).collect()].concat(),
        ),
        (
            "edits leave decodes and prefills some of the time",
            [
                many(FirstToken),
                vec![timed(2, demand(30, 1, NextToken, 30)), timed(2, demand(31, 500, Encoding, 31))],
            ]
            .concat(),
            [(1..=8).map(sample).collect(), vec![sample(30), encode(31, 1)]].concat(),
        ),
        (
            "an edit that takes longer than a step may comes in chunks",
            vec![timed(1, demand(1, 60, FirstToken, 1))],
            vec![encode(1, 10)],
        ),
        (
            "an edit whose rows take longer than a step may comes eight at a time, and is served",
            vec![Demand { row_time: Micros(50_000), ..demand(1, 60, FirstToken, 1) }],
            vec![encode(1, 8)],
        ),
        (
            "a prefill whose rows take longer comes one at a time",
            vec![Demand { row_time: Micros(50_000), ..demand(1, 60, Encoding, 1) }],
            vec![encode(1, 1)],
        ),
        (
            "a prefill takes the time of a step, and no more",
            vec![timed(1, demand(1, 500, Encoding, 1)), timed(2, demand(2, 500, Encoding, 2))],
            vec![encode(1, 10)],
        ),
        (
            "what nobody waits for takes less",
            vec![timed(1, demand(1, 500, Refresh, 1)), timed(2, demand(2, 500, Refresh, 2))],
            vec![encode(1, 4)],
        ),
    ];
    for (name, demands, expected) in cases {
        let limits = Limits { time: Micros(10_000), idle_time: Micros(4000), ..LIMITS };
        assert_eq!(schedule(demands, limits).map(|chosen| chosen.runs).as_ref(), Some(expected), "{name}");
    }
}

/// Rows of a millisecond, and four for what nobody waits for.
#[test]
fn a_short_step_is_for_first_tokens() {
    use Want::{Encoding, FirstToken, NextToken};
    let slow = |lane, demand: Demand| Demand { token_time: Micros(2000), ..timed(lane, demand) };
    type Case = (&'static str, Vec<Demand>, Option<Vec<Run>>);
    let cases: &[Case] = &[
        (
            "nobody waits for one",
            vec![timed(1, demand(1, 1, NextToken, 1)), timed(2, demand(2, 9, Encoding, 2))],
            None,
        ),
        ("too large a one has its own steps", vec![timed(1, demand(1, 60, FirstToken, 1))], None),
        (
            "one of each lane, no prefill, and decodes in what little time is left",
            [
                (1..=9).map(|id| timed(1, demand(id, 1, FirstToken, id))).collect::<Vec<_>>(),
                vec![timed(2, demand(20, 3, FirstToken, 20)), timed(2, demand(21, 500, Encoding, 0))],
                (30..=39).map(|id| timed(3, demand(id, 1, NextToken, id))).collect(),
            ]
            .concat(),
            Some([vec![sample(1), sample(20)], (30..=33).map(sample).collect()].concat()),
        ),
        (
            "what draws cost counts",
            [
                vec![slow(1, demand(1, 1, FirstToken, 1))],
                (30..=39).map(|id| slow(2, demand(id, 1, NextToken, id))).collect(),
            ]
            .concat(),
            Some(vec![sample(1), sample(30)]),
        ),
    ];
    for (name, demands, expected) in cases {
        let limits = Limits { time: Micros(10_000), idle_time: Micros(4000), ..LIMITS };
        let chosen = schedule_first_tokens(demands, limits);
        assert!(chosen.iter().all(|chosen| chosen.passes == 1), "{name}");
        assert_eq!(&chosen.map(|chosen| chosen.runs), expected, "{name}");
    }
}

/// L1 and L2 on a crowd: decodes that never end, edits that keep coming, prefills; all are served within bounded steps, in
/// one lane and in several, with and without a time for each step.
#[test]
fn nobody_starves_and_the_budget_holds() {
    nobody_starves(1, Micros(0), LIMITS, 80);
    nobody_starves(3, Micros(0), LIMITS, 80);
    nobody_starves(1, Micros(300), Limits { time: Micros(30_000), ..LIMITS }, 80);
    nobody_starves(3, Micros(300), Limits { time: Micros(30_000), ..LIMITS }, 80);
    nobody_starves(3, Micros(3000), Limits { time: Micros(30_000), ..LIMITS }, 400);
}

fn nobody_starves(lanes: u32, row_time: Micros, limits: Limits, patience: u32) {
    let mut sessions: BTreeMap<u64, Demand> = BTreeMap::new();
    for id in 0..40 {
        let (pending, want) = match id % 4 {
            0 => (1, Want::NextToken),
            1 => (60, Want::FirstToken),
            2 => (300, Want::Encoding),
            _ => (90, Want::FirstToken),
        };
        // Lanes of very different sizes.
        let lane = Lane((id as u32 % 13).min(lanes - 1));
        sessions.insert(id, Demand { lane, row_time, ..demand(id, pending, want, id) });
    }
    let mut next_ticket = 100;
    let mut served_at: BTreeMap<u64, u32> = sessions.keys().map(|id| (*id, 0)).collect();
    for step in 1..1000 {
        let demands: Vec<_> = sessions.values().copied().collect();
        // As the owner does where there are several tenants: every other step is short.
        let short = if lanes > 1 && step % 2 == 0 { schedule_first_tokens(&demands, limits) } else { None };
        let chosen = short.or_else(|| schedule(&demands, limits)).expect("there is always work");
        let mut rows = 0;
        for run in chosen.runs {
            let id = run.session().0;
            next_ticket += 1;
            served_at.insert(id, step);
            let session = sessions.get_mut(&id).expect("it demanded");
            session.ticket = Ticket(next_ticket);
            match run {
                Run::Sample { .. } => {
                    rows += session.rows;
                    session.pending = if id % 4 == 0 { 1 } else { 60 };
                }
                Run::Encode { limit, .. } => {
                    rows += limit;
                    session.pending -= limit;
                    if session.pending == 0 {
                        session.pending = if session.want == Want::FirstToken { 90 } else { 300 };
                    }
                }
            }
            session.rows = session.pending;
        }
        assert!(rows <= limits.rows, "L1: {rows} rows in step {step}");
        if row_time > Micros(0) && limits.time < Micros::MAX {
            // One of each kind may pass the limit: a first token, a decode, a chunk.
            let most = 2 * limits.time.0.div_ceil(row_time.0) + 16;
            assert!(rows <= most, "{rows} rows in step {step}: more than {most} take too long");
        }
        let starved = served_at.iter().find(|(_, last)| step - **last > patience);
        assert_eq!(starved, None, "L2 in step {step} of {lanes} lanes");
    }
}

/// What a group of a virtual clock does with a step: a pass costs a base and so much for each row.
fn cost_us(rows: u32) -> u64 {
    2000 + 300 * u64::from(rows)
}

struct Typist {
    demand: Demand,
    /// When the next edit comes, and when the running one came.
    next_edit: u64,
    asked: Option<u64>,
    tokens_left: u32,
}

/// Sixteen people type and complete while two documents are opened, on a virtual clock: an edit's first token waits for the
/// step in flight, for those before it and for its own; and prefills go on.
#[test]
fn typing_waits_for_steps_not_for_prefills() {
    let mut clock = 0_u64;
    let mut people: Vec<Typist> = (0..16)
        .map(|id| Typist {
            demand: demand(id, 0, Want::FirstToken, id),
            next_edit: id * 37_000,
            asked: None,
            tokens_left: 0,
        })
        .collect();
    let mut prefills = [demand(90, 4000, Want::Encoding, 100), demand(91, 4000, Want::Encoding, 101)];
    let (mut ticket, mut waits) = (200, Vec::new());
    while clock < 20_000_000 {
        for typist in people.iter_mut().filter(|typist| typist.next_edit <= clock) {
            // A newer edit ends the completion that runs.
            (typist.asked, typist.tokens_left) = (Some(typist.next_edit), 8);
            typist.next_edit += 600_000;
            (typist.demand.want, typist.demand.pending, typist.demand.rows) = (Want::FirstToken, 6, 6);
        }
        let mut demands: Vec<_> =
            people.iter().filter(|typist| typist.tokens_left > 0).map(|typist| typist.demand).collect();
        demands.extend(prefills.iter().filter(|prefill| prefill.pending > 0));
        let Some(chosen) = schedule(&demands, LIMITS) else {
            clock = people.iter().map(|typist| typist.next_edit).min().expect("somebody types");
            continue;
        };
        let rows = |run: &Run| match run {
            Run::Sample { session } => people[session.0 as usize].demand.rows,
            Run::Encode { limit, .. } => *limit,
        };
        // The owner cuts a step of several passes short when somebody edits: one pass at a time here.
        clock += cost_us(chosen.runs.iter().map(rows).sum());
        for run in chosen.runs {
            ticket += 1;
            match run {
                Run::Sample { session } => {
                    let typist = &mut people[session.0 as usize];
                    waits.extend(typist.asked.take().map(|asked| clock - asked));
                    typist.tokens_left -= 1;
                    typist.demand = demand(session.0, 1, Want::NextToken, ticket);
                }
                Run::Encode { session, limit } => {
                    let prefill = &mut prefills[session.0 as usize - 90];
                    *prefill = demand(session.0, prefill.pending - limit, Want::Encoding, ticket);
                }
            }
        }
    }
    waits.sort_unstable();
    let worst = waits[waits.len() - 1];
    assert!(waits.len() > 300, "{}", waits.len());
    assert!(prefills.iter().all(|prefill| prefill.pending == 0), "L2: {prefills:?}");
    assert!(worst <= 2 * cost_us(LIMITS.rows), "{worst} us: an edit waits for one full step and its own");
}

/// Sixty files are opened, and somebody asks for a token behind more than fits in a step: it takes the steps that its own
/// rows take, not those of the files, of which each is encoded in the end although such completions never end.
#[test]
fn a_large_first_token_waits_for_its_own_rows_and_not_for_every_file() {
    const OWN: u32 = 170;
    let mut files: Vec<_> = (0..60).map(|id| demand(id, 3000, Want::Encoding, id)).collect();
    let (mut ticket, mut clock) = (1000_u64, 0);
    let ask = |ticket: u64| demand(99, OWN, Want::FirstToken, ticket);
    let (mut asked, mut asked_at, mut worst) = (ask(ticket), 0, 0);
    for step in 0.. {
        let demands: Vec<_> = files.iter().filter(|file| file.pending > 0).chain([&asked]).copied().collect();
        if demands.len() == 1 {
            assert!(step < 8000, "L2: the files are done at last");
            break;
        }
        let chosen = schedule(&demands, LIMITS).expect("there is work");
        let rows = |run: &Run| match run {
            Run::Encode { limit, .. } => *limit,
            Run::Sample { .. } => asked.rows,
        };
        clock += cost_us(chosen.runs.iter().map(rows).sum());
        for run in chosen.runs {
            ticket += 1;
            match run {
                Run::Sample { .. } => {
                    worst = worst.max(clock - asked_at);
                    (asked, asked_at) = (ask(ticket), clock);
                }
                Run::Encode { session: SessionId(99), limit } => {
                    asked = demand(99, asked.pending - limit, Want::FirstToken, ticket);
                }
                Run::Encode { session, limit } => {
                    let file = &mut files[session.0 as usize];
                    *file = demand(session.0, file.pending - limit, Want::Encoding, ticket);
                }
            }
        }
    }
    assert!(worst <= 4 * cost_us(LIMITS.rows), "{worst} us for {OWN} rows");
}
