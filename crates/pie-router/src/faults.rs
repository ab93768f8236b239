//! What the router tells callers itself; what a group refuses is said in [`pie_group::faults`].

pub(crate) use pie_group::faults::{
    at_cursor, moving, no_session, other_revision, prepare, stopping, text, too_long, unsure,
};
#[cfg(test)]
pub(crate) use pie_group::faults::{
    bad_generated, group_lost, no_slots, others_need_slots, replaced, too_many_completions,
};
use pie_proto::{Fault, Reason};
use std::time::Duration;

/// When a placement that is silent should answer again.
const RETRY: Duration = Duration::from_millis(500);
/// When another router should have taken over.
const TAKEOVER: Duration = Duration::from_secs(1);
/// When a session on its way should have arrived.
const ARRIVAL: Duration = Duration::from_millis(100);

/// Nothing is known of homes at the moment.
pub(crate) fn placement_silent() -> Fault {
    Fault::new(Reason::NoGroup, "the placement does not answer: retry in a moment").retry_after(RETRY)
}

/// The router ends what runs, and takes nothing new.
pub(crate) fn draining() -> Fault {
    let message = "this router is being drained: it ends what runs and takes no new sessions and completions; retry, so \
                   that another router answers";
    Fault::new(Reason::ServerDraining, message).retry_after(TAKEOVER)
}

/// A session could not be brought to another group in time.
pub(crate) fn too_slow(name: &str) -> Fault {
    let message =
        format!("session `{name}` could not be moved in time: other groups or routers do not answer");
    Fault::new(Reason::SessionMoving, message).retry_after(ARRIVAL)
}

/// A router forwarded a call to this one, which does not own the group any more.
pub(crate) fn not_the_owner(group: &str) -> Fault {
    let message = format!("this router does not own group {group} any more: retry in a moment");
    Fault::new(Reason::SessionElsewhere, message).with("group", group).retry_after(ARRIVAL)
}

/// Another router does not take a session.
pub(crate) fn undelivered(router: &str, status: &tonic::Status) -> Fault {
    Fault::new(Reason::SessionMoving, format!("router {router} does not take it: {}", status.message()))
        .retry_after(ARRIVAL)
}
