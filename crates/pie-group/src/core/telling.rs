//! What is told of an owner to those who only look on: other groups' choices, metrics, counters. Nothing here changes it.

use super::Core;
use super::completion::{Finish, News, StreamKind, Took};
use super::planner::Planner;
use crate::owner::Holdings;
use crate::stats::{Outcome, Stats};

/// What others decide by.
pub(crate) fn holdings(core: &Core) -> Holdings {
    Holdings {
        sessions: core.sessions.count(),
        tokens: core.sessions.tokens(),
        slots: core.planner.as_deref().map_or(0, Planner::slots),
        context_limit: core.model.facts.context_limit as usize,
        recalled: core.recalled,
    }
}

/// Shows in the owner's metrics what is so now.
pub(crate) fn publish(core: &Core) {
    let published = &core.stats.published;
    published.sessions.set(core.sessions.count() as u64);
    published.tokens.set(core.sessions.tokens() as u64);
    let serving = core.planner.as_ref().ok();
    let of = |number: fn(&Planner) -> usize| serving.map_or(0, |planner| number(planner) as u64);
    let (slots, free) = (of(Planner::slots), of(|planner| planner.allotment.tables.group().free_slots()));
    let (all, running) =
        (of(|planner| planner.allotment.completions.count()), of(|planner| planner.running().count()));
    published.running.set(running);
    published.waiting.set(all - running);
    published.changes_waiting.set(of(|planner| planner.changes.len()));
    published.slots.set(slots);
    published.slots_used.set(slots - free);
    published.stale.set(of(Planner::stale));
    published.free_rows.set(of(|planner| planner.free_rows() as usize));
    published.epoch.set(serving.map_or(0, |planner| planner.epoch().0));
}

/// Counts what happened to a completion.
pub(super) fn count_news(stats: &Stats, news: &News) {
    match news {
        News::Began | News::Planned(_) => {}
        News::Message(message) => {
            match message.token.as_ref().map(|token| token.took) {
                Some(Took::First(first)) => {
                    stats.tokens.reused.add(u64::from(first.reused));
                    // Whoever reads what goes on had his first token long ago.
                    if first.of == StreamKind::New {
                        stats.completions.first_token.observe(first.since_call);
                        let since_edit = first.since_edit.into_iter();
                        since_edit.for_each(|edit| stats.completions.edit_to_first_token.observe(edit));
                    }
                }
                Some(Took::Next(time)) => stats.completions.inter_token.observe(time),
                None => {}
            }
            match message.finish {
                Some(Finish::Edited) => stats.ended(Outcome::Edited),
                Some(_) => stats.ended(Outcome::Finished),
                None => {}
            }
        }
        News::Failed { fault, .. } => {
            stats.fault(fault);
            stats.ended(Outcome::Failed);
        }
        News::Abandoned => stats.ended(Outcome::Abandoned),
    }
}
