//! Looks at the pool, by one task alone: whoever wants to know more asks for a look and waits for it with all others who do. So
//! many refused calls cost one look, looks never overtake each other, and what an older one saw never replaces what a newer one did.

use super::describe;
use super::groups::{GroupLoad, Groups, Seen};
use pie_placement::{Admission, GroupId, GroupRecord, RouterId, RouterRecord};
use pie_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A look that is not older is new enough, and looks follow each other no faster.
const LATELY: Duration = Duration::from_millis(50);
/// Whoever waits for a look goes on after this time with what is known.
const PATIENCE: Duration = Duration::from_secs(3);
/// A placement that lives answers in this time.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// The latest look: which it was, and when it began.
#[derive(Clone, Copy, Debug)]
struct LatestLook {
    number: u64,
    began: Option<Instant>,
}

/// What those who wait for looks share with the one who looks.
#[derive(Debug)]
pub(super) struct Looks {
    wanted: Notify,
    /// The number of the look that began last.
    begun: watch::Sender<u64>,
    ended: watch::Sender<LatestLook>,
}

impl Default for Looks {
    fn default() -> Self {
        let ended = watch::Sender::new(LatestLook { number: 0, began: None });
        Self { wanted: Notify::new(), begun: watch::Sender::new(0), ended }
    }
}

impl Looks {
    /// A look that begins from now on.
    async fn next(&self) {
        let number = self.begun() + 1;
        self.wanted.notify_one();
        let mut ended = self.ended.subscribe();
        // Late, or nobody looks any more: what is known must do.
        let _ = tokio::time::timeout(PATIENCE, ended.wait_for(|latest| latest.number >= number)).await;
    }

    /// How many looks have begun.
    pub fn begun(&self) -> u64 {
        *self.begun.borrow()
    }

    /// The number of the latest look that is over.
    #[cfg(test)]
    pub fn ended(&self) -> u64 {
        self.ended.borrow().number
    }

    fn is_late(&self) -> bool {
        self.ended.borrow().began.is_none_or(|began| began.elapsed() >= LATELY)
    }
}

impl Groups {
    /// Looks again and again, as long as somebody else has the groups.
    pub async fn follow(self: Arc<Self>) {
        let (weak, looks) = (Arc::downgrade(&self), self.looks.clone());
        drop(self);
        while let Some(groups) = weak.upgrade() {
            let began = Instant::now();
            let number = looks.begun() + 1;
            looks.begun.send_replace(number);
            groups.look_now().await;
            looks.ended.send_replace(LatestLook { number, began: Some(began) });
            drop(groups);
            tokio::time::sleep(LATELY).await;
            // Early, if somebody asks.
            let _ = tokio::time::timeout(LOOK.saturating_sub(LATELY), looks.wanted.notified()).await;
        }
    }

    /// What is known afterwards is not older than the call.
    pub async fn look(&self) {
        self.looks.next().await;
    }

    /// Looks, unless that was just done: calls to a group that is away must not all ask the placement.
    pub(super) async fn look_again(&self) {
        if self.looks.is_late() {
            self.look().await;
        }
    }

    /// Looks at the placement, and asks the other routers how full their groups are.
    async fn look_now(&self) {
        let records = match tokio::time::timeout(LIST_TIMEOUT, self.placement.groups()).await {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                return tracing::debug!(%error, "the placement does not answer: what is known stays");
            }
            Err(_) => return tracing::debug!("the placement is silent: what is known stays"),
        };
        self.note_what_is_forgotten(&records);
        let owners = records.iter().filter_map(|record| Some(record.owner.as_ref()?.router.clone()));
        let described = self.describe_all(owners.filter(|router| router.id != self.me)).await;
        let seen = records.into_iter().map(|record| {
            let formed_again = record.is_formed_again();
            let epoch = record.owner.as_ref().map_or(0, |owner| owner.epoch.0);
            let owner = record.owner.map(|owner| owner.router);
            let groups = owner.as_ref().and_then(|owner| described.get(&owner.id));
            let load = groups.map_or_else(GroupLoad::default, |groups| load_of(&record.group, groups));
            let (admission, ranks) = (record.admission, record.ranks.len());
            (record.group, Seen { owner, epoch, admission, formed_again, ranks, load })
        });
        self.seen.store(Arc::new(seen.collect()));
        self.reopen().await;
    }

    /// Epochs only grow, and owners do not go often: a group that had an owner and has none, or one of an earlier epoch, may be that of a
    /// placement that lost its data.
    pub(super) fn note_what_is_forgotten(&self, records: &[GroupRecord]) {
        let epoch = |group: &GroupId| {
            let record = records.iter().find(|record| record.group == *group);
            record.and_then(|record| record.owner.as_ref()).map_or(0, |owner| owner.epoch.0)
        };
        if self.seen.load().iter().any(|(group, seen)| epoch(group) < seen.epoch) {
            self.forgot.store(Arc::new(Some(std::time::Instant::now())));
        }
    }

    /// All at once, each a single time: those that are silent hold this up once only.
    async fn describe_all(
        &self,
        routers: impl Iterator<Item = RouterRecord>,
    ) -> BTreeMap<RouterId, Vec<v1::Group>> {
        let routers: BTreeMap<_, _> = routers.map(|router| (router.id.clone(), router)).collect();
        let mut asked = JoinSet::new();
        for (id, router) in routers {
            let peers = self.peers.clone();
            asked.spawn(async move { (id, describe(&peers, &router).await) });
        }
        let mut described = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok((id, Ok(pool))) = answer {
                described.insert(id, pool.groups);
            }
        }
        described
    }

    /// A group that was closed for the restart of its workers is open again as soon as it has been formed.
    async fn reopen(&self) {
        let seen = self.seen.load();
        let closed = seen.iter().filter(|(group, seen)| seen.formed_again && self.is_served_here(group));
        for (group, _) in closed {
            match self.placement.set_admission(group, Admission::Open).await {
                Ok(()) => tracing::info!(%group, "the group has been formed again, and is open"),
                Err(error) => tracing::warn!(%error, %group, "the group stays closed for now"),
            }
        }
    }
}

/// How full a group is, as its owner describes it.
fn load_of(group: &GroupId, described: &[v1::Group]) -> GroupLoad {
    let group = described.iter().find(|other| other.group == group.as_str());
    group.map_or_else(GroupLoad::default, |group| GroupLoad {
        slots: group.slots_total.into(),
        tokens: group.tokens,
    })
}
