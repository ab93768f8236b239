//! Who is to blame when an exchange stops, said the same way on every rank.
//!
//! A rank that ends the group says why on its control connections, then closes everything: so the failure reaches all
//! at once, and a connection that ends *without* a word is that of a dead process. A rank that only waits for another
//! which itself waits is told so: the accused answer.

use super::links::{Exchange, ExchangeFailure, Interruption, Links, PeerStanding};
use super::wire::Notice;
use crate::member::RankSet;
use crate::{CollectiveCall, CommError, Loss, Rank};
use std::time::{Duration, Instant};

/// The longest time for others to say why a group ends, before this rank judges by what it sees itself.
const HEARING: Duration = Duration::from_millis(100);

/// One call under way.
#[derive(Clone, Copy)]
pub(super) struct PendingCall {
    /// The collective that it is, for what others are told.
    pub call: CollectiveCall,
    deadline: Duration,
    until: Instant,
}

impl PendingCall {
    /// Begins now; hearing the others at the end is part of the deadline.
    pub fn begin(call: CollectiveCall, deadline: Duration) -> Self {
        // Hearing the others is part of the deadline.
        Self { call, deadline, until: Instant::now() + (deadline - hearing(deadline)) }
    }
}

fn hearing(deadline: Duration) -> Duration {
    HEARING.min(deadline / 4)
}

/// Completes an exchange, or ends the group on all ranks.
pub(super) fn exchange(
    links: &mut Links,
    step: PendingCall,
    mut exchange: Exchange<'_>,
) -> Result<(), CommError> {
    links.begin(&exchange);
    loop {
        let verdict = match links.drive(&mut exchange, step.until) {
            Ok(()) => return Ok(()),
            Err(broken) => judge(links, step, broken),
        };
        if let Err(error) = verdict {
            end(links, &error);
            return Err(error);
        }
    }
}

/// What the control connections say without waiting: a peer that died, left, or ended the group.
pub(super) fn watch(links: &mut Links, call: CollectiveCall, deadline: Duration) -> Result<(), CommError> {
    links.read_controls();
    if let Some(error) = known(links, call) {
        return Err(error);
    }
    match accused(links) {
        nobody if nobody.is_empty() => Ok(()),
        silent => Err(CommError::Deadline { call, deadline, waiting_for: silent.ranks() }),
    }
}

/// Tells the peers why the group ends, and closes all connections.
pub(super) fn end(links: &mut Links, error: &CommError) {
    if let Some(notice) = Notice::of(error) {
        links.tell_all(notice);
    }
    links.list.iter().for_each(|link| link.shut());
}

/// `Ok` if the exchange can go on.
fn judge(links: &mut Links, step: PendingCall, broken: ExchangeFailure) -> Result<(), CommError> {
    match broken {
        ExchangeFailure::OutOfStep(peer, peer_call) => {
            Err(CommError::OutOfStep { rank: links.own, call: step.call, peer, peer_call })
        }
        ExchangeFailure::Closed(peer) => Err(closed(links, step, peer)),
        ExchangeFailure::Interrupted(Interruption::Time) => Err(overdue(links, step)),
        ExchangeFailure::Interrupted(Interruption::News) => {
            links.read_controls();
            match known(links, step.call) {
                Some(error) => Err(error),
                None if accused(links).is_empty() => Ok(()),
                None => Err(overdue(links, step)),
            }
        }
        ExchangeFailure::System(error) => Err(system(&error)),
    }
}

fn system(error: &std::io::Error) -> CommError {
    CommError::System { action: "cannot wait for connections".to_owned(), problem: error.to_string() }
}

/// A data connection ended: its control connection says why, or that of the one who ended it.
fn closed(links: &mut Links, step: PendingCall, peer: Rank) -> CommError {
    let until = Instant::now() + hearing(step.deadline);
    loop {
        links.read_controls();
        if let Some(error) = known(links, step.call) {
            return error;
        }
        if !accused(links).is_empty() {
            return overdue(links, step);
        }
        match links.hear(until) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return system(&error),
        }
    }
    let left =
        links.list.iter().any(|link| link.rank == peer && matches!(link.standing, PeerStanding::Ended(_)));
    CommError::PeerLost { rank: peer, call: step.call, how: if left { Loss::Left } else { Loss::Died } }
}

/// What the control connections say for certain.
fn known(links: &Links, call: CollectiveCall) -> Option<CommError> {
    let find = |judge: &dyn Fn(Rank, PeerStanding) -> Option<CommError>| {
        links.list.iter().find_map(|link| judge(link.rank, link.standing))
    };
    let lost = |rank, how| Some(CommError::PeerLost { rank, call, how });
    find(&|rank, standing| if standing == PeerStanding::Died { lost(rank, Loss::Died) } else { None })
        .or_else(|| {
            find(&|_, standing| match standing {
                PeerStanding::Ended(Notice::Lost { rank, call, how }) => {
                    Some(CommError::PeerLost { rank, call, how })
                }
                PeerStanding::Ended(Notice::OutOfStep { rank, call, peer, peer_call }) => {
                    Some(CommError::OutOfStep { rank, call, peer, peer_call })
                }
                _ => None,
            })
        })
        .or_else(|| {
            // Who left after this call had its part in it: what it sent is still on its way.
            find(&|rank, standing| match standing {
                PeerStanding::Ended(Notice::Left { calls }) if calls <= call.sequence => {
                    lost(rank, Loss::Left)
                }
                _ => None,
            })
        })
}

/// Whom others wait for too long, and which ranks say so.
fn accusations(links: &Links) -> impl Iterator<Item = (Rank, RankSet)> {
    links.list.iter().filter_map(|link| match link.standing {
        PeerStanding::Ended(Notice::Overdue { waiting_for, .. }) => Some((link.rank, waiting_for)),
        _ => None,
    })
}

fn accused(links: &Links) -> RankSet {
    RankSet(accusations(links).fold(0, |all, (_, waiting_for)| all | waiting_for.0))
}

/// Time is up here or on another rank. Those who are waited for and do not answer are the silent ones.
fn overdue(links: &mut Links, step: PendingCall) -> CommError {
    let own = links.waiting_for();
    links.tell_all(Notice::Overdue { call: step.call, waiting_for: own });
    let until = Instant::now() + hearing(step.deadline);
    let deadline = |waiting_for: RankSet| CommError::Deadline {
        call: step.call,
        deadline: step.deadline,
        waiting_for: waiting_for.ranks(),
    };
    loop {
        links.read_controls();
        if let Some(error) = known(links, step.call) {
            return error;
        }
        let by_others = accused(links);
        let mut answered: RankSet = accusations(links).map(|(rank, _)| rank).collect();
        answered.insert(links.own);
        let silent = RankSet((own.0 | by_others.0) & !answered.0);
        if silent.is_empty() {
            // Everybody is here, too late: the one that others had waited for, or all that this one waited for.
            return deadline(if by_others.contains(links.own) {
                [links.own].into_iter().collect()
            } else {
                own
            });
        }
        match links.hear(until) {
            Ok(true) => {}
            Ok(false) => return deadline(silent),
            Err(error) => return system(&error),
        }
    }
}
