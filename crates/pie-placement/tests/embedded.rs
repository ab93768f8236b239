//! The embedded placement keeps the contract.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

mod contract;

use std::sync::Arc;

use contract::{group, rank, within, won};
use pie_placement::{Embedded, GroupId, Placement, RankEvent, SessionKey, Ttl};

async fn subject() -> (contract::Subject, ()) {
    (Arc::new(Embedded::new()), ())
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

/// A1 also from one run of the process to the next: ranks may outlive the router that embeds the placement.
#[tokio::test]
async fn epochs_grow_across_runs() {
    let first = contract::epochs_grow_with_every_owner(Arc::new(Embedded::new())).await;
    let second = contract::epochs_grow_with_every_owner(Arc::new(Embedded::new())).await;
    assert!(first.last() < second.first(), "{first:?} {second:?}");
}

#[tokio::test]
async fn watches_end_and_handles_survive_when_the_placement_is_dropped() {
    let placement = Embedded::new();
    let registration = placement.register_rank(rank(&group("g"), 0), Ttl::DEFAULT).await.unwrap();
    let ownership = won(placement.campaign(&group("g"), &contract::router(0), Ttl::DEFAULT).await.unwrap());
    let mut watch = placement.watch_ranks(&group("g")).await.unwrap();
    drop(placement);
    assert_eq!(within("present", watch.next()).await, Some(RankEvent::Present(vec![rank(&group("g"), 0)])));
    assert_eq!(within("end", watch.next()).await, None);
    within("lost", registration.lost()).await;
    ownership.release().await.unwrap();
}

#[test]
fn names_and_times_are_checked() {
    for (name, good) in [("pool-1.a_B", true), ("", false), ("a/b", false), ("é", false), ("a b", false)] {
        assert_eq!(GroupId::new(name).is_ok(), good, "{name:?}");
    }
    assert!(GroupId::new("x".repeat(129)).is_err());
    for (name, good) in [("src/ä b.rs", true), ("", false), ("a\nb", false)] {
        assert_eq!(SessionKey::new(name).is_ok(), good, "{name:?}");
    }
    let long = GroupId::new("/".repeat(10_000)).unwrap_err();
    assert!(long.to_string().len() < 300, "{long}");
    for (millis, good) in [(999, false), (1000, true), (3_600_000, true), (3_600_001, false)] {
        assert_eq!(Ttl::new(std::time::Duration::from_millis(millis)).is_ok(), good, "{millis}");
    }
}
