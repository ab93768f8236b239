//! Calls that wait for the owner. Each tenant is served in turn, and each of a tenant's sessions in its turn, so that whoever
//! sends many calls waits for his own. So many wait, and no more: the rest is refused, and told when to come again.

use crate::call::{ArrivedDocuments, Call};
use crate::faults;
use crate::tenants::Tenant;
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::Span;

/// Calls that may wait in one session: edits come one after the other, each against the revision before.
pub(super) const SESSION_QUEUE: usize = 64;
/// Calls of one tenant that may wait.
pub(super) const TENANT_QUEUE: usize = 512;
/// Calls of all tenants that may wait.
pub(super) const QUEUE: usize = 4096;
/// Calls of routers that may wait, beside those.
const ROUTER_QUEUE: usize = 1024;

/// Before it is looked again whether there is a place.
const PLACE_PAUSE: Duration = Duration::from_millis(10);

/// A call, in its span.
pub(super) struct Waiting {
    /// What is wanted.
    pub call: Call,
    /// Of the call's trace and log line.
    pub span: Span,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum InboxLane {
    /// Those who ask of the group or move its sessions.
    Router,
    /// A tenant.
    Tenant(Tenant),
}

impl InboxLane {
    fn limit(&self) -> usize {
        match self {
            Self::Router => ROUTER_QUEUE,
            Self::Tenant(_) => TENANT_QUEUE,
        }
    }
}

/// Handles share it.
#[derive(Clone)]
pub(super) struct Inbox(Arc<SharedQueues>);

struct SharedQueues {
    queues: Mutex<Queues>,
    there: Notify,
}

/// Takes turns among queues of their own.
struct RoundRobin<K, T> {
    queues: BTreeMap<K, T>,
    /// Those that are not empty, the next first.
    turns: VecDeque<K>,
}

impl<K, T> Default for RoundRobin<K, T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), turns: VecDeque::new() }
    }
}

impl<K: Clone + Ord, T: Default> RoundRobin<K, T> {
    /// The queue of `key`, which is about to be filled.
    fn filled(&mut self, key: &K) -> &mut T {
        if !self.queues.contains_key(key) {
            self.turns.push_back(key.clone());
        }
        self.queues.entry(key.clone()).or_default()
    }

    /// Takes one from whoever is next, who then is last, or has gone.
    fn next<V>(&mut self, take: impl FnOnce(&mut T) -> (V, Left)) -> Option<V> {
        let key = self.turns.pop_front()?;
        let (taken, left) = take(self.queues.get_mut(&key)?);
        match left {
            Left::Some => self.turns.push_back(key),
            Left::None => drop(self.queues.remove(&key)),
        }
        Some(taken)
    }
}

/// Whether a queue has more.
enum Left {
    Some,
    None,
}

impl Left {
    fn of(count: usize) -> Self {
        if count > 0 { Self::Some } else { Self::None }
    }
}

#[derive(Default)]
struct OfLane {
    sessions: RoundRobin<Option<SessionName>, VecDeque<Waiting>>,
    count: usize,
}

#[derive(Default)]
struct Queues {
    lanes: RoundRobin<InboxLane, OfLane>,
    /// Of tenants.
    count: usize,
    closed: bool,
}

impl Queues {
    /// Whether one more may wait.
    fn check(&self, lane: &InboxLane, session: &Option<SessionName>) -> Result<(), Fault> {
        if self.closed {
            return Err(faults::stopping());
        }
        let is_routers = *lane == InboxLane::Router;
        if !is_routers && self.count >= QUEUE {
            return Err(faults::too_many_calls(QUEUE, "of the group"));
        }
        let of_lane = self.lanes.queues.get(lane);
        if of_lane.is_some_and(|of_lane| of_lane.count >= lane.limit()) {
            let whose = if is_routers { "of routers" } else { "of the tenant" };
            return Err(faults::too_many_calls(lane.limit(), whose));
        }
        let queue = of_lane.and_then(|of_lane| of_lane.sessions.queues.get(session));
        if !is_routers && queue.is_some_and(|queue| queue.len() >= SESSION_QUEUE) {
            return Err(faults::too_many_calls(SESSION_QUEUE, "of the session"));
        }
        Ok(())
    }

    fn put(&mut self, lane: InboxLane, session: Option<SessionName>, waiting: Waiting) {
        self.count += usize::from(lane != InboxLane::Router);
        let of_lane = self.lanes.filled(&lane);
        of_lane.count += 1;
        of_lane.sessions.filled(&session).push_back(waiting);
    }

    fn take(&mut self) -> Option<Waiting> {
        let taken = self.lanes.next(|lane| {
            lane.count -= 1;
            let taken = lane.sessions.next(|queue| (queue.pop_front(), Left::of(queue.len())));
            (taken.flatten(), Left::of(lane.count))
        });
        let taken = taken.flatten()?;
        if let (InboxLane::Tenant(_), _) = place(&taken.call) {
            self.count -= 1;
        }
        Some(taken)
    }
}

impl Inbox {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self(Arc::new(SharedQueues { queues: Mutex::default(), there: Notify::new() }))
    }

    /// Lets a call wait for its turn.
    ///
    /// # Errors
    /// [`pie_proto::Reason::Overloaded`] when too many wait, [`pie_proto::Reason::ShuttingDown`] when the owner has gone.
    pub fn put(&self, call: Call) -> Result<(), Fault> {
        let (lane, session) = place(&call);
        let waiting = Waiting { call, span: Span::current() };
        self.with(|queues| {
            queues.check(&lane, &session)?;
            queues.put(lane, session, waiting);
            Ok(())
        })?;
        self.0.there.notify_one();
        Ok(())
    }

    /// Lets a call wait for its turn that must not be lost: where too many wait, it waits for a place first.
    ///
    /// # Errors
    /// Those of [`Inbox::put`], the first when no place becomes free in time.
    pub async fn put_within(&self, patience: Duration, call: Call) -> Result<(), Fault> {
        let (end, (lane, session)) = (Instant::now() + patience, place(&call));
        while Instant::now() < end
            && self
                .with(|queues| queues.check(&lane, &session))
                .is_err_and(|fault| fault.reason == Reason::Overloaded)
        {
            tokio::time::sleep(PLACE_PAUSE).await;
        }
        self.put(call)
    }

    /// The next in turn, if anybody waits.
    pub fn take(&self) -> Option<Waiting> {
        self.with(Queues::take)
    }

    /// The next in turn. Cancel safe.
    pub async fn next(&self) -> Waiting {
        loop {
            // However many wait, the thread is not kept from others for long.
            tokio::task::consume_budget().await;
            if let Some(waiting) = self.take() {
                return waiting;
            }
            self.0.there.notified().await;
        }
    }

    /// Nobody serves any more: who waits, and who comes, is told.
    pub fn close(&self) {
        let left = self.with(|queues| {
            queues.closed = true;
            std::mem::take(&mut queues.lanes)
        });
        // Outside of the lock: whoever waits for an answer is woken.
        drop(left);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.with(|queues| queues.lanes.queues.values().map(|lane| lane.count).sum())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Queues) -> T) -> T {
        what(&mut self.0.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a call waits.
fn place(call: &Call) -> (InboxLane, Option<SessionName>) {
    let of = |tenant: &Tenant, name: Option<&SessionName>| (InboxLane::Tenant(tenant.clone()), name.cloned());
    match call {
        Call::Open { tenant, name, .. } => of(tenant, Some(name)),
        Call::Edit { tenant, request, .. } => of(tenant, Some(&request.session)),
        Call::Complete { tenant, request, .. } => of(tenant, Some(&request.session)),
        Call::Get { tenant, session, .. }
        | Call::Look { tenant, session, .. }
        | Call::Room { tenant, session, .. } => of(tenant, Some(session)),
        Call::Vacate { tenant, session, .. } => of(tenant, Some(session)),
        Call::List { tenant, .. } => of(tenant, None),
        // Of a session that moves or goes, in its order.
        Call::Give { session, .. } => (InboxLane::Router, Some(session.clone())),
        Call::Keep { resident } | Call::Depart { resident, .. } => {
            (InboxLane::Router, Some(resident.name.clone()))
        }
        Call::Arrived { what: ArrivedDocuments::One(_, session) } => {
            (InboxLane::Router, Some(session.clone()))
        }
        Call::Arrived { what: ArrivedDocuments::All } => (InboxLane::Router, None),
        Call::Take { .. }
        | Call::Held { .. }
        | Call::Idle { .. }
        | Call::Stuck { .. }
        | Call::Residents { .. }
        | Call::Settled { .. }
        | Call::GiveAll { .. }
        | Call::Describe { .. } => (InboxLane::Router, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Resident;
    use pie_proto::request::Identity;
    use tokio::sync::oneshot;

    fn get(tenant: &str, session: &str) -> Call {
        let session = SessionName::new(session.to_owned()).expect("a right name");
        let tenant = Tenant::new(tenant).expect("a right name");
        // Nobody waits for the answer here.
        Call::Get { tenant, session, identity: None, content: false, reply: oneshot::channel().0 }
    }

    fn names(inbox: &Inbox, most: usize) -> Vec<String> {
        let taken = std::iter::from_fn(|| inbox.take()).take(most);
        let name = |waiting: Waiting| match waiting.call {
            Call::Get { tenant, session, .. } => format!("{}/{session}", tenant.as_str()),
            _ => "another".to_owned(),
        };
        taken.map(name).collect()
    }

    #[test]
    fn whoever_sends_many_waits_for_his_own() {
        let inbox = Inbox::new();
        for _ in 0..SESSION_QUEUE {
            inbox.put(get("flood", "one")).expect("there is room");
        }
        inbox.put(get("flood", "two")).expect("there is room");
        inbox.put(get("ada", "file")).expect("there is room");
        inbox.put(get("ada", "file")).expect("there is room");
        let first = names(&inbox, 6);
        assert_eq!(first, ["flood/one", "ada/file", "flood/two", "ada/file", "flood/one", "flood/one"]);
        assert_eq!(inbox.len(), SESSION_QUEUE - 3);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let inbox = Inbox::new();
        let put_all = |tenant: &str, session: &str| {
            let refused = (0..=QUEUE).find_map(|count| Some((count, inbox.put(get(tenant, session)).err()?)));
            refused.map(|(count, fault)| (count, fault.reason, fault.retry_after.is_some()))
        };
        assert_eq!(put_all("a", "one"), Some((SESSION_QUEUE, Reason::Overloaded, true)));
        let mut of_a = SESSION_QUEUE;
        for session in 0..20 {
            of_a += put_all("a", &format!("more-{session}")).expect("a limit").0;
        }
        assert_eq!(of_a, TENANT_QUEUE);
        for tenant in 0..20 {
            for session in 0..8 {
                put_all(&format!("b{tenant}"), &format!("{session}"));
            }
        }
        assert_eq!(inbox.len(), QUEUE);
        // The ways of routers are not for tenants to close.
        inbox.put(Call::Residents { reply: oneshot::channel().0 }).expect("there is room");
        let all = names(&inbox, usize::MAX).len();
        assert_eq!((all, inbox.len()), (QUEUE + 1, 0));
        assert_eq!(put_all("c", "one").map(|refused| refused.0), Some(SESSION_QUEUE));
    }

    #[test]
    fn who_waits_is_told_of_the_end() {
        let inbox = Inbox::new();
        let (reply, mut answer) = oneshot::channel();
        inbox.put(Call::Residents { reply }).expect("there is room");
        inbox.close();
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(inbox.put(get("a", "one")).expect_err("nobody serves").reason, Reason::ShuttingDown);
    }

    /// A session whose mover could not say that it stays was on its way for ever.
    #[tokio::test]
    async fn what_an_owner_must_be_told_waits_for_a_place() {
        let inbox = Inbox::new();
        let keep = || {
            let name = SessionName::new("a".to_owned()).expect("a right name");
            let resident = Resident { tenant: Tenant::default(), name, identity: Identity::of_bits(1) };
            Call::Keep { resident }
        };
        for _ in 0..ROUTER_QUEUE {
            inbox.put(keep()).expect("there is a place");
        }
        let refused = inbox.put(keep()).expect_err("the queue is full");
        assert_eq!(refused.reason, Reason::Overloaded, "clients can ask again");
        let late = inbox.put_within(PLACE_PAUSE, keep()).await.expect_err("nobody takes any");
        assert_eq!(late.reason, Reason::Overloaded);
        let (full, patience) = (inbox.clone(), Duration::from_secs(60));
        let told = tokio::spawn(async move { full.put_within(patience, keep()).await });
        tokio::task::yield_now().await;
        assert!(inbox.take().is_some());
        assert_eq!(told.await.expect("no panic"), Ok(()));
        assert_eq!(inbox.len(), ROUTER_QUEUE);
    }
}
