//! What every implementation of `Placement` must do: the same functions run against all of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pie_placement::{
    Admission, Announced, Campaign, Forgotten, GroupId, LeaseState, LossReason, Moved, Ownership, Placed,
    Placement, RankEvent, RankRecord, RouterId, RouterRecord, SessionKey, Ttl,
};
use pie_words::Epoch;

pub type Subject = Arc<dyn Placement>;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub fn group(name: &str) -> GroupId {
    GroupId::new(name).unwrap()
}

pub fn session(name: &str) -> SessionKey {
    SessionKey::new(name).unwrap()
}

pub fn ttl(seconds: u64) -> Ttl {
    Ttl::new(Duration::from_secs(seconds)).unwrap()
}

pub fn rank(group: &GroupId, rank: u32) -> RankRecord {
    RankRecord {
        group: group.clone(),
        rank,
        world_size: 4,
        control: format!("http://worker-{rank}.local:7000"),
        model_fingerprint: "llama-7".into(),
    }
}

pub fn router(number: usize) -> RouterRecord {
    RouterRecord {
        id: RouterId::new(format!("router-{number}")).unwrap(),
        address: format!("http://router-{number}.local:8000"),
    }
}

pub fn won(campaign: Campaign) -> Ownership {
    match campaign {
        Campaign::Won(ownership) => ownership,
        Campaign::Held(owner) => panic!("expected to win, but {owner:?} owns the group"),
    }
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Polls until the ranks of a group are these.
pub async fn ranks_become(placement: &Subject, group: &GroupId, expected: &[RankRecord]) {
    within("ranks", async {
        while placement.ranks(group).await.unwrap() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A rank is visible while its registration lives; release waits for the removal, drop starts it.
pub async fn registration_is_visible_until_it_ends(placement: Subject) {
    let group = group("visible");
    let one = placement.register_rank(rank(&group, 1), Ttl::DEFAULT).await.unwrap();
    let zero = placement.register_rank(rank(&group, 0), Ttl::DEFAULT).await.unwrap();
    assert_eq!(placement.ranks(&group).await.unwrap(), [rank(&group, 0), rank(&group, 1)], "sorted by rank");

    zero.release().await.unwrap();
    assert_eq!(placement.ranks(&group).await.unwrap(), [rank(&group, 1)], "a release is confirmed");

    let lease = one.lease();
    let dropped = Instant::now();
    drop(one);
    ranks_become(&placement, &group, &[]).await;
    assert!(dropped.elapsed() < Duration::from_secs(3), "a drop does not wait for the lease to run out");
    assert_eq!(within("lost", lease.clone().lost()).await, LossReason::Released);
}

/// A rank has one holder; a worker that starts again at the same address replaces its former self, visibly.
pub async fn a_rank_has_one_holder(placement: Subject) {
    let group = group("taken");
    let first = placement.register_rank(rank(&group, 2), Ttl::DEFAULT).await.unwrap();
    let mut watch = placement.watch_ranks(&group).await.unwrap();
    assert_eq!(within("present", watch.next()).await, Some(RankEvent::Present(vec![rank(&group, 2)])));

    let mut elsewhere = rank(&group, 2);
    elsewhere.control = "http://impostor.local:7000".into();
    let refused = placement.register_rank(elsewhere, Ttl::DEFAULT).await.unwrap_err();
    assert_eq!(refused.code(), "PLACEMENT_RANK_TAKEN", "{refused}");
    assert!(refused.to_string().contains("worker-2.local"), "names the holder: {refused}");
    assert_eq!(first.lease().state(), LeaseState::Held);

    let second = placement.register_rank(rank(&group, 2), Ttl::DEFAULT).await.unwrap();
    assert_eq!(within("left", watch.next()).await, Some(RankEvent::Left(rank(&group, 2))));
    assert_eq!(within("joined", watch.next()).await, Some(RankEvent::Joined(rank(&group, 2))));
    assert_eq!(within("lost", first.lost()).await, LossReason::Expired);
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        placement.ranks(&group).await.unwrap(),
        [rank(&group, 2)],
        "the old handle must not end the new one"
    );
    drop(second);
}

/// A holder that stops renewing is gone after its time to live, not before, and ranks that renew stay.
pub async fn a_lease_runs_out_when_its_holder_dies(placement: Subject) {
    let group = group("expiry");
    let alive = placement.register_rank(rank(&group, 0), ttl(2)).await.unwrap();
    let dies = placement.register_rank(rank(&group, 1), ttl(2)).await.unwrap();
    let started = Instant::now();
    dies.abandon();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(placement.ranks(&group).await.unwrap().len(), 2, "not before the lease runs out");
    ranks_become(&placement, &group, &[rank(&group, 0)]).await;
    assert!(started.elapsed() >= Duration::from_secs(1), "gone after {:?}", started.elapsed());
    assert_eq!(alive.lease().state(), LeaseState::Held, "renewed past its time to live");
}

/// Of eight routers that campaign at once one wins, and the others learn who it is.
pub async fn an_election_has_one_winner(placement: Subject) {
    let group = group("election");
    let campaigns = (0..8).map(|number| {
        let (placement, group) = (placement.clone(), group.clone());
        tokio::spawn(async move { placement.campaign(&group, &router(number), Ttl::DEFAULT).await.unwrap() })
    });
    let mut winners = Vec::new();
    let mut told = Vec::new();
    for (number, campaign) in campaigns.collect::<Vec<_>>().into_iter().enumerate() {
        match campaign.await.unwrap() {
            Campaign::Won(ownership) => winners.push((number, ownership)),
            Campaign::Held(owner) => told.push(owner),
        }
    }
    assert_eq!((winners.len(), told.len()), (1, 7));
    let (number, ownership) = winners.pop().unwrap();
    for owner in told {
        assert_eq!((owner.router, owner.epoch), (router(number), ownership.epoch()));
    }
    assert_eq!(ownership.lease().state(), LeaseState::Held);
}

/// A1: the epoch grows with every owner; the present owner is told as it changes. Returns the epochs.
pub async fn epochs_grow_with_every_owner(placement: Subject) -> Vec<Epoch> {
    let group = group("epochs");
    let mut watch = placement.watch_owner(&group).await.unwrap();
    assert_eq!(within("nobody", watch.next()).await, Some(None));
    let mut epochs = Vec::new();
    for number in 0..5 {
        let ownership = won(placement.campaign(&group, &router(number), Ttl::DEFAULT).await.unwrap());
        let owner = placement.owner(&group).await.unwrap().unwrap();
        assert_eq!((&owner.router, owner.epoch), (&router(number), ownership.epoch()));
        assert_eq!(within("owner", watch.next()).await, Some(Some(owner)));
        epochs.push(ownership.epoch());
        ownership.release().await.unwrap();
        assert_eq!(placement.owner(&group).await.unwrap(), None);
        assert_eq!(within("free", watch.next()).await, Some(None));
    }
    assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    epochs
}

/// A1: a group that is formed again by the same owner gets a later epoch, which everybody sees; whoever owns it no longer gets none.
pub async fn an_ownership_advances_while_it_lasts(placement: Subject) {
    let group = group("advance");
    let mut ownership = won(placement.campaign(&group, &router(0), ttl(2)).await.unwrap());
    let mut epochs = vec![ownership.epoch()];
    for _ in 0..3 {
        placement.advance(&mut ownership).await.unwrap();
        let owner = placement.owner(&group).await.unwrap().unwrap();
        assert_eq!((owner.router, owner.epoch), (router(0), ownership.epoch()));
        epochs.push(ownership.epoch());
    }
    assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    // What was written last lives as long as the lease, and goes with it.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(ownership.lease().state(), LeaseState::Held);
    ownership.release().await.unwrap();
    assert_eq!(placement.owner(&group).await.unwrap(), None);
    let second = won(placement.campaign(&group, &router(1), Ttl::DEFAULT).await.unwrap());
    assert!(epochs.iter().all(|epoch| *epoch < second.epoch()), "{epochs:?} {second:?}");
}

/// A rank stays announced: whoever takes its lease away finds it there again, and it goes when it is withdrawn.
pub async fn an_announcement_lasts_until_it_is_withdrawn(placement: Subject) {
    let group = group("announced");
    let taken = placement
        .register_rank(RankRecord { control: "http://former.local:1".into(), ..rank(&group, 0) }, ttl(2));
    let taken = taken.await.unwrap();
    let mut announced = Announced::start(placement.clone(), rank(&group, 0), ttl(2));
    let standing = announced.standing();
    within("refused", async {
        while !standing.now().is_err_and(|why| why.contains("former.local")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // The former holder dies, and its lease runs out.
    taken.abandon();
    within("announced", announced.first(ttl(15))).await.unwrap();
    assert_eq!((standing.now(), placement.ranks(&group).await.unwrap()), (Ok(()), vec![rank(&group, 0)]));

    // Somebody takes its lease, as a new run of the worker does, and dies.
    let thief = placement.register_rank(rank(&group, 0), ttl(2)).await.unwrap();
    within("taken back", thief.lost()).await;
    ranks_become(&placement, &group, &[rank(&group, 0)]).await;
    announced.withdraw().await.unwrap();
    assert_eq!(placement.ranks(&group).await.unwrap(), []);
    let dropped = Announced::start(placement.clone(), rank(&group, 1), ttl(2));
    ranks_become(&placement, &group, &[rank(&group, 1)]).await;
    drop(dropped);
    ranks_become(&placement, &group, &[]).await;
}

/// A dead owner is followed by another one, and is told that it lost.
pub async fn a_dead_owner_is_succeeded(placement: Subject) {
    let group = group("succession");
    let first = won(placement.campaign(&group, &router(0), ttl(2)).await.unwrap());
    let (epoch, mut lease) = (first.epoch(), first.lease());
    let mut watch = placement.watch_owner(&group).await.unwrap();
    assert!(within("owned", watch.next()).await.flatten().is_some());
    first.abandon();
    assert_eq!(within("free", watch.next()).await, Some(None));
    let second = won(placement.campaign(&group, &router(1), Ttl::DEFAULT).await.unwrap());
    assert!(second.epoch() > epoch);
    within("the dead owner's lease is reported lost", lease.lost()).await;
}

/// An owner that is known to be dead is not waited for, and nobody else is deposed in its place.
pub async fn a_deposed_owner_is_succeeded_at_once(placement: Subject) {
    let group = group("deposition");
    placement.depose(&group, &router(0).id).await.unwrap();
    let mut first = won(placement.campaign(&group, &router(0), Ttl::DEFAULT).await.unwrap());
    placement.advance(&mut first).await.unwrap();
    placement.depose(&group, &router(1).id).await.unwrap();
    assert_eq!(placement.owner(&group).await.unwrap().map(|owner| owner.router), Some(router(0)));
    placement.depose(&group, &router(0).id).await.unwrap();
    let second = won(placement.campaign(&group, &router(1), Ttl::DEFAULT).await.unwrap());
    assert!(second.epoch() > first.epoch());
    within("the deposed owner's lease is reported lost", first.lease().lost()).await;
    placement.depose(&group, &router(0).id).await.unwrap();
    assert_eq!(placement.owner(&group).await.unwrap().map(|owner| owner.router), Some(router(1)));
}

/// A2: of sixteen routers that place one session at once one claims it, and all agree on its home.
pub async fn a_session_has_one_home(placement: Subject) {
    let key = session("file:///src/main.rs #1");
    assert_eq!(placement.session_home(&key).await.unwrap(), None);
    let placers = (0..16).map(|number| {
        let (placement, key) = (placement.clone(), key.clone());
        let group = group(&format!("home-{number}"));
        tokio::spawn(async move { (group.clone(), placement.place_session(&key, &group).await.unwrap()) })
    });
    let mut outcomes = Vec::new();
    for placer in placers.collect::<Vec<_>>() {
        outcomes.push(placer.await.unwrap());
    }
    let home = placement.session_home(&key).await.unwrap().unwrap();
    let mut claims = 0;
    for (asked, placed) in &outcomes {
        assert_eq!(placed.group(), &home);
        assert_eq!(matches!(placed, Placed::Claimed(_)), asked == &home, "{asked} was told {placed:?}");
        claims += usize::from(matches!(placed, Placed::Claimed(_)));
    }
    assert_eq!(claims, 1);

    let (a, b) = (group("a"), group("b"));
    assert_eq!(
        placement.move_session(&key, &a, &b).await.unwrap(),
        Moved::Conflict { home: Some(home.clone()) }
    );
    assert_eq!(placement.forget_session(&key, &a).await.unwrap(), Forgotten::Conflict { home: home.clone() });
    assert_eq!(placement.move_session(&key, &home, &a).await.unwrap(), Moved::Done);
    assert_eq!(
        placement.move_session(&key, &home, &a).await.unwrap(),
        Moved::Conflict { home: Some(a.clone()) }
    );
    assert_eq!(placement.session_home(&key).await.unwrap(), Some(a.clone()));
    assert_eq!(placement.forget_session(&key, &a).await.unwrap(), Forgotten::Done);
    assert_eq!(placement.forget_session(&key, &a).await.unwrap(), Forgotten::Done, "may be repeated");
    assert_eq!(placement.session_home(&key).await.unwrap(), None);
    assert_eq!(placement.move_session(&key, &a, &b).await.unwrap(), Moved::Conflict { home: None });
}

/// A watcher hears of the ranks that are there, then of joins and leaves in the order in which they happened.
pub async fn a_watch_tells_changes_in_order(placement: Subject) {
    let group = group("watch");
    let other = placement.register_rank(rank(&self::group("watch-2"), 0), Ttl::DEFAULT).await.unwrap();
    let one = placement.register_rank(rank(&group, 1), Ttl::DEFAULT).await.unwrap();
    let mut watch = placement.watch_ranks(&group).await.unwrap();
    // Changes between the call and the first look belong to what is told, whichever event tells them.
    assert_eq!(within("present", watch.next()).await, Some(RankEvent::Present(vec![rank(&group, 1)])));
    let zero = placement.register_rank(rank(&group, 0), Ttl::DEFAULT).await.unwrap();
    assert_eq!(within("join", watch.next()).await, Some(RankEvent::Joined(rank(&group, 0))));
    drop(one);
    assert_eq!(within("leave", watch.next()).await, Some(RankEvent::Left(rank(&group, 1))));
    let three = placement.register_rank(rank(&group, 3), Ttl::DEFAULT).await.unwrap();
    assert_eq!(within("join", watch.next()).await, Some(RankEvent::Joined(rank(&group, 3))));

    // A watcher that looks late finds the same history, less what came and went.
    let two = placement.register_rank(rank(&group, 2), Ttl::DEFAULT).await.unwrap();
    let one = placement.register_rank(rank(&group, 1), Ttl::DEFAULT).await.unwrap();
    zero.release().await.unwrap();
    let mut left = Vec::new();
    let mut joined = Vec::new();
    while left.is_empty() || joined.len() < 2 {
        match within("late", watch.next()).await {
            Some(RankEvent::Left(record)) => left.push(record),
            Some(RankEvent::Joined(record)) => joined.push(record),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((left, joined), (vec![rank(&group, 0)], vec![rank(&group, 2), rank(&group, 1)]));
    drop((one, two, three, other));
}

/// Groups are listed with what is known of them; a cordoned one keeps its sessions and takes no new ones.
pub async fn a_cordoned_group_takes_no_sessions(placement: Subject) {
    let (left, right) = (group("cordon-l"), group("cordon-r"));
    let registration = placement.register_rank(rank(&left, 0), Ttl::DEFAULT).await.unwrap();
    let ownership = won(placement.campaign(&left, &router(3), Ttl::DEFAULT).await.unwrap());
    let (old, new) = (session("cordon-old"), session("cordon-new"));
    assert_eq!(placement.place_session(&old, &left).await.unwrap(), Placed::Claimed(left.clone()));
    placement.set_admission(&left, Admission::Cordoned).await.unwrap();

    assert_eq!(placement.place_session(&old, &left).await.unwrap(), Placed::Existing(left.clone()));
    let refused = placement.place_session(&new, &left).await.unwrap_err();
    assert_eq!(refused.code(), "PLACEMENT_GROUP_CORDONED", "{refused}");
    assert_eq!(placement.session_home(&new).await.unwrap(), None);
    assert_eq!(placement.place_session(&new, &right).await.unwrap(), Placed::Claimed(right.clone()));
    let refused = placement.move_session(&new, &right, &left).await.unwrap_err();
    assert_eq!(refused.code(), "PLACEMENT_GROUP_CORDONED", "{refused}");
    assert_eq!(placement.move_session(&old, &left, &right).await.unwrap(), Moved::Done);

    let listed = |groups: Vec<pie_placement::GroupRecord>| {
        groups.into_iter().filter(|record| record.group.as_str().starts_with("cordon")).collect::<Vec<_>>()
    };
    let groups = listed(placement.groups().await.unwrap());
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert_eq!(groups[0].group, left);
    assert_eq!(groups[0].admission, Admission::Cordoned);
    assert_eq!(groups[0].ranks, [rank(&left, 0)]);
    assert_eq!(groups[0].owner.as_ref().map(|owner| owner.epoch), Some(ownership.epoch()));

    assert!(!groups[0].is_formed_again(), "that cordon lasts");

    // One for a restart is over with the next epoch.
    placement.set_admission(&left, Admission::CordonedUntilFormed).await.unwrap();
    assert!(placement.place_session(&session("cordon-late"), &left).await.is_err());
    let groups = listed(placement.groups().await.unwrap());
    assert_eq!(groups[0].admission, Admission::CordonedUntilFormed);
    assert!(!groups[0].is_formed_again(), "the owner is still the same: {groups:?}");
    ownership.release().await.unwrap();
    assert!(!listed(placement.groups().await.unwrap())[0].is_formed_again(), "nobody owns it");
    let ownership = won(placement.campaign(&left, &router(4), Ttl::DEFAULT).await.unwrap());
    let groups = listed(placement.groups().await.unwrap());
    assert!(groups[0].is_formed_again(), "{groups:?}");

    registration.release().await.unwrap();
    ownership.release().await.unwrap();
    assert_eq!(listed(placement.groups().await.unwrap()).len(), 1, "a cordon outlives ranks and owners");
    placement.set_admission(&left, Admission::Open).await.unwrap();
    assert_eq!(listed(placement.groups().await.unwrap()), []);
    assert_eq!(
        placement.place_session(&session("cordon-newer"), &left).await.unwrap(),
        Placed::Claimed(left)
    );
}

/// Records that contradict themselves are refused before anything is written.
pub async fn bad_records_are_refused(placement: Subject) {
    let group = group("bad");
    let mut beyond = rank(&group, 0);
    beyond.rank = 4;
    let mut homeless = rank(&group, 0);
    homeless.control = "worker-0:7000".into();
    for record in [beyond, homeless] {
        let refused = placement.register_rank(record, Ttl::DEFAULT).await.unwrap_err();
        assert_eq!(refused.code(), "PLACEMENT_INVALID_RECORD", "{refused}");
    }
    let mut unreachable = router(0);
    unreachable.address = "http://router-0".into();
    let refused = placement.campaign(&group, &unreachable, Ttl::DEFAULT).await.unwrap_err();
    assert_eq!(refused.code(), "PLACEMENT_INVALID_RECORD", "{refused}");
    assert_eq!(placement.ranks(&group).await.unwrap(), []);
    assert_eq!(placement.owner(&group).await.unwrap(), None);
}

/// Declares one test for each function of the contract; `$subject` makes a placement that nobody else uses. The guard
/// that comes with it lives as long as the test.
#[macro_export]
macro_rules! contract_tests {
    ($subject:expr; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (placement, _guard) = $subject.await;
                contract::$name(placement).await;
            }
        )*
    };
}
