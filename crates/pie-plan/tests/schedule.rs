//! The policy, case by case.

use pie_plan::schedule::{Demand, Limits, Schedule, Ticket, Want, schedule};
use pie_plan::{Run, SessionId};
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { rows: 100, decode_passes: 8 };

fn demand(session: u64, pending: u32, want: Want, ticket: u64) -> Demand {
    Demand { session: SessionId(session), pending, want, ticket: Ticket(ticket) }
}

fn sample(session: u64) -> Run {
    Run::Sample { session: SessionId(session) }
}

fn encode(session: u64, limit: u32) -> Run {
    Run::Encode { session: SessionId(session), limit }
}

#[test]
fn who_runs() {
    use Want::{Encoding, FirstToken, NextToken};
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
            "an edit beside a decode",
            vec![demand(1, 64, FirstToken, 2), demand(2, 1, NextToken, 1)],
            Some((vec![sample(2), sample(1)], 1)),
        ),
        ("a prefill alone takes all", vec![demand(1, 500, Encoding, 1)], Some((vec![encode(1, 100)], 1))),
        (
            "a token before a prefill that waits longer",
            vec![demand(1, 500, Encoding, 1), demand(2, 64, FirstToken, 2)],
            Some((vec![sample(2), encode(1, 36)], 1)),
        ),
        (
            "a prefill keeps a quarter",
            vec![demand(1, 500, Encoding, 9), demand(2, 70, FirstToken, 1), demand(3, 10, FirstToken, 2)],
            Some((vec![sample(2), encode(1, 30)], 1)),
        ),
        (
            "an edit too large for a step comes in chunks",
            vec![demand(1, 80, FirstToken, 1)],
            Some((vec![encode(1, 80)], 1)),
        ),
        (
            "edits that do not fit wait",
            vec![demand(1, 60, FirstToken, 1), demand(2, 60, FirstToken, 2)],
            Some((vec![sample(1)], 1)),
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

/// L1 and L2 on a crowd: decodes that never end, edits that keep coming, prefills; all are served within bounded steps.
#[test]
fn nobody_starves_and_the_budget_holds() {
    let mut sessions: BTreeMap<u64, Demand> = BTreeMap::new();
    for id in 0..40 {
        let (pending, want) = match id % 4 {
            0 => (1, Want::NextToken),
            1 => (60, Want::FirstToken),
            2 => (300, Want::Encoding),
            _ => (90, Want::FirstToken),
        };
        sessions.insert(id, demand(id, pending, want, id));
    }
    let mut next_ticket = 100;
    let mut served_at: BTreeMap<u64, u32> = sessions.keys().map(|id| (*id, 0)).collect();
    for step in 1..400 {
        let demands: Vec<_> = sessions.values().copied().collect();
        let chosen = schedule(&demands, LIMITS).expect("there is always work");
        let mut rows = 0;
        for run in chosen.runs {
            let id = run.session().0;
            next_ticket += 1;
            served_at.insert(id, step);
            let session = sessions.get_mut(&id).expect("it demanded");
            session.ticket = Ticket(next_ticket);
            match run {
                Run::Sample { .. } => {
                    rows += session.pending.max(1);
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
        }
        assert!(rows <= LIMITS.rows, "L1: {rows} rows in step {step}");
        let starved = served_at.iter().find(|(_, last)| step - **last > 80);
        assert_eq!(starved, None, "L2 in step {step}");
    }
}
