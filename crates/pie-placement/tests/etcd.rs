//! The placement in etcd keeps the contract, on a real server, and lives through the server's troubles.

#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

mod contract;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{group, rank, ranks_become, router, session, ttl, within, won};
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use pie_placement::{
    Announced, Campaign, Etcd, EtcdConfig, LeaseState, LossReason, Placed, Placement, RankEvent, RankWatch,
    Ttl,
};
use support::{EtcdServer, placement};

async fn subject() -> (contract::Subject, Arc<EtcdServer>) {
    let server = EtcdServer::shared().await;
    let (placement, _) = placement(&server).await;
    (Arc::new(placement), server)
}

contract_tests! {
    subject();
    registration_is_visible_until_it_ends,
    a_rank_has_one_holder,
    a_lease_runs_out_when_its_holder_dies,
    an_election_has_one_winner,
    an_ownership_advances_while_it_lasts,
    an_announcement_lasts_until_it_is_withdrawn,
    a_dead_owner_is_succeeded,
    a_deposed_owner_is_succeeded_at_once,
    a_session_has_one_home,
    a_watch_tells_changes_in_order,
    a_cordoned_group_takes_no_sessions,
    bad_records_are_refused,
}

/// A1: epochs grow, and each is the revision of etcd's own key.
#[tokio::test]
async fn epochs_are_the_revisions_of_the_ownership_key() {
    let server = EtcdServer::shared().await;
    let (placement, prefix) = placement(&server).await;
    contract::epochs_grow_with_every_owner(Arc::new(placement.clone())).await;
    let mut client = server.client().await;
    for number in 0..3 {
        let ownership =
            won(placement.campaign(&group("revision"), &router(number), Ttl::DEFAULT).await.unwrap());
        let found = client.get(format!("{prefix}groups/revision/owner"), None).await.unwrap();
        let key = &found.kvs()[0];
        assert_eq!(ownership.epoch().0, key.mod_revision() as u64);
        assert_eq!(key.mod_revision(), key.create_revision());
        ownership.release().await.unwrap();
    }
}

/// The purpose of A1: a transaction that compares the key's revision with the epoch fences an owner that was succeeded.
#[tokio::test]
async fn a_former_epoch_is_fenced() {
    let server = EtcdServer::shared().await;
    let (placement, prefix) = placement(&server).await;
    let key = format!("{prefix}groups/fence/owner");
    let first = won(placement.campaign(&group("fence"), &router(0), Ttl::DEFAULT).await.unwrap());
    let former = first.epoch();
    first.release().await.unwrap();
    let second = won(placement.campaign(&group("fence"), &router(1), Ttl::DEFAULT).await.unwrap());
    let mut client = server.client().await;
    for (epoch, allowed) in [(former, false), (second.epoch(), true)] {
        let owned = Compare::create_revision(key.as_str(), CompareOp::Equal, i64::try_from(epoch.0).unwrap());
        let txn = Txn::new().when([owned]).and_then([TxnOp::put(format!("{prefix}written"), "", None)]);
        assert_eq!(client.txn(txn).await.unwrap().succeeded(), allowed);
    }
}

#[tokio::test]
async fn a_revoked_lease_is_reported_to_its_holder() {
    let server = EtcdServer::shared().await;
    let (placement, prefix) = placement(&server).await;
    let ownership = won(placement.campaign(&group("revoked"), &router(0), ttl(2)).await.unwrap());
    let mut client = server.client().await;
    let lease = client.get(format!("{prefix}groups/revoked/owner"), None).await.unwrap().kvs()[0].lease();
    client.lease_revoke(lease).await.unwrap();
    assert_eq!(within("lost", ownership.lost()).await, LossReason::Expired);
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_named() {
    let mut config = EtcdConfig::new(vec!["http://127.0.0.1:9".into()]);
    config.call_timeout = Duration::from_millis(500);
    let started = Instant::now();
    let error = Etcd::connect(config.clone()).await.err().unwrap();
    assert_eq!(error.code(), "PLACEMENT_UNAVAILABLE", "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:9"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    for (endpoints, prefix) in
        [(vec![], "/pie/"), (vec!["http://127.0.0.1:9"], "pie"), (vec!["http://[::"], "/pie/")]
    {
        config.endpoints = endpoints.into_iter().map(String::from).collect();
        config.prefix = prefix.into();
        let error = Etcd::connect(config.clone()).await.err().unwrap();
        assert_eq!(error.code(), "PLACEMENT_INVALID_ENDPOINT", "{error}");
    }
}

#[tokio::test]
async fn values_of_another_release_are_refused_by_key() {
    let server = EtcdServer::shared().await;
    let (placement, prefix) = placement(&server).await;
    let key = format!("{prefix}sessions/s");
    server.client().await.put(key.as_str(), r#"{"version":7,"shard":1}"#, None).await.unwrap();
    let error = placement.session_home(&session("s")).await.unwrap_err();
    assert_eq!(error.code(), "PLACEMENT_UNKNOWN_VERSION");
    assert!(error.to_string().contains(&key) && error.to_string().contains('7'), "{error}");
    assert_eq!(placement.place_session(&session("s"), &group("g")).await.unwrap_err(), error);
}

/// A follower that meets a value it cannot read says so, keeps what it knew, and goes on when the value is gone.
#[tokio::test]
async fn a_watch_survives_an_unreadable_value() {
    let server = EtcdServer::shared().await;
    let (placement, prefix) = placement(&server).await;
    let g = group("unreadable");
    let _zero = placement.register_rank(rank(&g, 0), Ttl::DEFAULT).await.unwrap();
    let mut watch = placement.watch_ranks(&g).await.unwrap();
    assert_eq!(within("present", watch.next()).await, Some(RankEvent::Present(vec![rank(&g, 0)])));
    let mut client = server.client().await;
    let key = format!("{prefix}groups/unreadable/ranks/00001");
    client.put(key.as_str(), "garbage", None).await.unwrap();
    match within("stale", watch.next()).await {
        Some(RankEvent::Stale { reason }) => assert!(reason.contains(&key), "{reason}"),
        other => panic!("{other:?}"),
    }
    client.delete(key, None).await.unwrap();
    assert_eq!(within("current", watch.next()).await, Some(RankEvent::Current));
}

/// Skips news of the connection, which come or not depending on timing.
async fn next_change(watch: &mut RankWatch) -> RankEvent {
    loop {
        match within("change", watch.next()).await.unwrap() {
            RankEvent::Stale { .. } | RankEvent::Current => {}
            change => return change,
        }
    }
}

/// Killed and started again on the same data: leases, sessions and watches go on, and nothing is lost or invented.
#[tokio::test]
async fn a_server_that_dies_and_returns_is_survived() {
    let server = EtcdServer::start().await;
    let (placement, _) = placement(&server).await;
    let placement: contract::Subject = Arc::new(placement);
    let g = group("restart");
    let registration = placement.register_rank(rank(&g, 0), ttl(2)).await.unwrap();
    let leaves = placement.register_rank(rank(&g, 1), ttl(600)).await.unwrap();
    let ownership = won(placement.campaign(&g, &router(0), ttl(2)).await.unwrap());
    placement.place_session(&session("s"), &g).await.unwrap();
    let mut watch = placement.watch_ranks(&g).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Present(vec![rank(&g, 0), rank(&g, 1)]));

    server.kill();
    assert!(matches!(within("stale", watch.next()).await, Some(RankEvent::Stale { .. })));
    let error = placement.session_home(&session("s")).await.unwrap_err();
    assert_eq!(error.code(), "PLACEMENT_UNAVAILABLE", "{error}");
    let mut lease = ownership.lease();
    assert_eq!(within("doubt", lease.changed()).await, LeaseState::Doubtful);
    // Released while the server is away: the release fails, and is carried out when the server returns.
    assert_eq!(leaves.release().await.unwrap_err().code(), "PLACEMENT_UNAVAILABLE");

    server.restart().await;
    assert_eq!(within("held again", lease.changed()).await, LeaseState::Held);
    ranks_become(&placement, &g, &[rank(&g, 0)]).await;
    assert_eq!(next_change(&mut watch).await, RankEvent::Left(rank(&g, 1)));
    assert_eq!(placement.session_home(&session("s")).await.unwrap(), Some(g.clone()));
    assert_eq!(placement.owner(&g).await.unwrap().map(|owner| owner.epoch), Some(ownership.epoch()));

    // Everything works again, and what was held stays held beyond its time to live.
    let two = placement.register_rank(rank(&g, 2), Ttl::DEFAULT).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Joined(rank(&g, 2)));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(registration.lease().state(), LeaseState::Held);
    assert_eq!(placement.ranks(&g).await.unwrap(), [rank(&g, 0), rank(&g, 2)]);
    assert!(matches!(placement.campaign(&g, &router(1), Ttl::DEFAULT).await.unwrap(), Campaign::Held(_)));
    ownership.release().await.unwrap();
    let successor = won(placement.campaign(&g, &router(1), Ttl::DEFAULT).await.unwrap());
    drop((two, successor));
}

/// Frozen with its connections open: nothing hangs, followers and holders are told, and all goes on afterwards.
#[tokio::test]
async fn a_server_that_freezes_is_noticed_and_survived() {
    let server = EtcdServer::start().await;
    let mut config = EtcdConfig::new(vec![server.endpoint()]);
    config.call_timeout = Duration::from_millis(700);
    let placement: contract::Subject = Arc::new(Etcd::connect(config).await.unwrap());
    let g = group("freeze");
    let ownership = won(placement.campaign(&g, &router(0), ttl(2)).await.unwrap());
    let mut watch = placement.watch_ranks(&g).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Present(vec![]));
    // The watch itself must be alive before the freeze, not only its snapshot.
    let _three = placement.register_rank(rank(&g, 3), ttl(600)).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Joined(rank(&g, 3)));

    server.signal("STOP");
    let asked = Instant::now();
    let error = placement.place_session(&session("s"), &g).await.unwrap_err();
    assert_eq!(error.code(), "PLACEMENT_UNAVAILABLE", "{error}");
    assert!(asked.elapsed() < Duration::from_secs(2), "a call took {:?}", asked.elapsed());
    assert!(matches!(within("stale", watch.next()).await, Some(RankEvent::Stale { .. })));
    // Two call timeouts; the transport's own pings would take 15 seconds.
    assert!(asked.elapsed() < Duration::from_secs(6), "the watch was silent for {:?}", asked.elapsed());
    let mut lease = ownership.lease();
    assert_eq!(within("doubt", lease.changed()).await, LeaseState::Doubtful);

    server.signal("CONT");
    // The clock went on while the server stood still: it may have let the lease run out, or take the late renewal.
    let state = within("answer", lease.changed()).await;
    let owner = placement.owner(&g).await.unwrap();
    match state {
        LeaseState::Held => assert_eq!(owner.map(|owner| owner.epoch), Some(ownership.epoch())),
        LeaseState::Lost(reason) => assert_eq!((reason, owner), (LossReason::Expired, None)),
        LeaseState::Doubtful => panic!("doubt was told twice"),
    }
    assert_eq!(within("current", watch.next()).await, Some(RankEvent::Current));
    // The call that was given up may have taken effect: calling again tells the same home.
    let placed = placement.place_session(&session("s"), &g).await.unwrap();
    assert!(matches!(&placed, Placed::Claimed(home) | Placed::Existing(home) if *home == g));
    let _zero = placement.register_rank(rank(&g, 0), Ttl::DEFAULT).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Joined(rank(&g, 0)));
}

/// What may become of a store and of what it was told.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Frozen,
    Away,
    Emptied,
    KeysDeleted,
    LeasesRevoked,
}

/// A worker that was registered is registered again, whatever became of its lease; a router may own the group again; and as long as
/// it is not so, both know.
#[tokio::test]
async fn what_was_lost_is_taken_again() {
    use Trouble::*;
    let server = EtcdServer::start().await;
    for trouble in [Frozen, Away, Emptied, KeysDeleted, LeasesRevoked] {
        let mut config = EtcdConfig::new(vec![server.endpoint()]);
        config.call_timeout = Duration::from_millis(900);
        let placement: contract::Subject = Arc::new(Etcd::connect(config).await.unwrap());
        let g = group("again");
        let mut announced = Announced::start(placement.clone(), rank(&g, 0), ttl(2));
        within("announced", announced.first(ttl(15))).await.unwrap();
        let standing = announced.standing();
        let ownership = won(placement.campaign(&g, &router(0), ttl(2)).await.unwrap());
        let mut lease = ownership.lease();
        assert_eq!((standing.now(), lease.state()), (Ok(()), LeaseState::Held), "{trouble:?}");
        let watched = lease.clone();
        let doubt = async {
            while standing.now().is_ok() || watched.state() == LeaseState::Held {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match trouble {
            Frozen => {
                server.signal("STOP");
                within("doubt", doubt).await;
                // Both leases run out before it goes on.
                tokio::time::sleep(Duration::from_millis(1500)).await;
                server.signal("CONT");
            }
            Away => {
                server.kill();
                within("doubt", doubt).await;
                server.restart().await;
            }
            Emptied => {
                server.kill();
                server.restart_empty().await;
            }
            KeysDeleted => {
                let prefix = etcd_client::DeleteOptions::new().with_prefix();
                server.client().await.delete("/pie/", Some(prefix)).await.unwrap();
            }
            LeasesRevoked => {
                let mut client = server.client().await;
                for lease in client.leases().await.unwrap().leases() {
                    client.lease_revoke(lease.id()).await.unwrap();
                }
            }
        }
        // A store that kept its data keeps the leases when it starts again; else they are lost.
        let settled = within("settled", async {
            loop {
                match lease.state() {
                    LeaseState::Doubtful => drop(lease.changed().await),
                    LeaseState::Held if matches!(trouble, Away) => return LeaseState::Held,
                    LeaseState::Held => drop(lease.changed().await),
                    lost @ LeaseState::Lost(_) => return lost,
                }
            }
        });
        let settled = settled.await;
        if settled != LeaseState::Held {
            assert_eq!(settled, LeaseState::Lost(LossReason::Expired), "{trouble:?}");
            let again = within("owned again", async {
                loop {
                    if let Ok(Campaign::Won(ownership)) = placement.campaign(&g, &router(0), ttl(2)).await {
                        return ownership;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            drop(again.await);
        }
        within("registered again", async {
            while standing.now().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        ranks_become(&placement, &g, &[rank(&g, 0)]).await;
        announced.withdraw().await.unwrap();
    }
}

/// Of three servers one may be gone, at whatever place of the list: every start and every call works.
#[tokio::test]
async fn one_dead_server_of_three_fails_nobody() {
    let servers = EtcdServer::cluster(3).await;
    servers[1].kill();
    let endpoints: Vec<_> = servers.iter().map(EtcdServer::endpoint).collect();
    let g = group("dead");
    for first in 0..6 {
        let mut endpoints = endpoints.clone();
        endpoints.rotate_left(first % 3);
        let placement = Etcd::connect(EtcdConfig::new(endpoints)).await.unwrap();
        let _rank = placement.register_rank(rank(&g, 0), Ttl::DEFAULT).await.unwrap();
        for _ in 0..10 {
            assert_eq!(placement.ranks(&g).await.unwrap(), [rank(&g, 0)]);
        }
    }
}

/// A server that stands still while the others go on, though it led them: leases live on at the others, and calls are answered there.
#[tokio::test]
async fn a_frozen_leader_costs_nobody_a_lease() {
    let servers = EtcdServer::cluster(3).await;
    let mut leader = None;
    for server in &servers {
        if server.leads().await {
            leader = Some(server);
        }
    }
    let leader = leader.expect("one leads");
    // Everybody asks it first.
    let mut endpoints: Vec<_> = servers.iter().map(EtcdServer::endpoint).collect();
    endpoints.sort_by_key(|endpoint| *endpoint != leader.endpoint());
    let placement: contract::Subject = Arc::new(Etcd::connect(EtcdConfig::new(endpoints)).await.unwrap());
    let g = group("leader");
    let _rank = placement.register_rank(rank(&g, 0), Ttl::DEFAULT).await.unwrap();
    let ownership = won(placement.campaign(&g, &router(0), Ttl::DEFAULT).await.unwrap());

    leader.signal("STOP");
    let frozen = Instant::now();
    while frozen.elapsed() < 2 * Ttl::DEFAULT.duration() {
        assert!(!matches!(ownership.lease().state(), LeaseState::Lost(_)));
        let owner = within("answer", async {
            loop {
                // While a new leader is elected nobody can answer.
                if let Ok(owner) = placement.owner(&g).await {
                    return owner;
                }
            }
        });
        assert_eq!(owner.await.map(|owner| owner.epoch), Some(ownership.epoch()));
        assert_eq!(placement.ranks(&g).await.unwrap_or_default().len(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ownership.lease().state(), LeaseState::Held, "renewed at another server");
    leader.signal("CONT");
}

/// History that a broken watch missed is compacted away: the follower starts from the present and is told the difference.
#[tokio::test]
async fn a_watch_survives_compaction() {
    let server = EtcdServer::start().await;
    let (placement, _) = placement(&server).await;
    let g = group("compaction");
    let zero = placement.register_rank(rank(&g, 0), Ttl::DEFAULT).await.unwrap();
    let mut watch = placement.watch_ranks(&g).await.unwrap();
    assert_eq!(next_change(&mut watch).await, RankEvent::Present(vec![rank(&g, 0)]));
    server.kill();
    assert!(matches!(within("stale", watch.next()).await, Some(RankEvent::Stale { .. })));
    server.restart().await;
    let one = placement.register_rank(rank(&g, 1), Ttl::DEFAULT).await.unwrap();
    let mut client = server.client().await;
    let revision = client.get("x", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    zero.release().await.unwrap();
    let mut changes = vec![next_change(&mut watch).await, next_change(&mut watch).await];
    changes.sort_by_key(|change| matches!(change, RankEvent::Joined(_)));
    assert_eq!(changes, [RankEvent::Left(rank(&g, 0)), RankEvent::Joined(rank(&g, 1))]);
    drop(one);
}
