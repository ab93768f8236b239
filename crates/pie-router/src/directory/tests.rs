//! What a router knows, while groups and other routers are away.

use super::groups::{GroupLoad, Seen};
use super::{ClaimOutcome, Directory, Groups, Home, OwnerLocation, PriorHome, Refused, Site};
use pie_group::owner::spawn_owner;
use pie_group::peers::Peers;
use pie_group::tenants::Tenant;
use pie_group::testing::inherit;
use pie_group::testing::{group, options, router, tokenizer};
use pie_placement::{Admission, Embedded, Placement, RankRecord, Ttl};
use pie_proto::Reason;
use pie_proto::request::SessionName;
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Whoever hangs is found out after this time; nobody else waits for it.
const HANGS: Duration = Duration::from_secs(30);

/// A router that wants `g0`, a group whose only rank is away.
async fn directory() -> Arc<Directory> {
    let placement: Arc<dyn Placement> = Arc::new(Embedded::new());
    let rank = RankRecord {
        group: group("g0"),
        rank: 0,
        world_size: 2,
        control: "http://127.0.0.1:9".to_owned(),
        model_fingerprint: "any".to_owned(),
    };
    // The registration lives as long as the placement: nobody is to take it for released.
    std::mem::forget(placement.register_rank(rank, Ttl::DEFAULT).await.expect("it is free"));
    let owner = spawn_owner(options("g0"), placement.clone(), tokenizer());
    let locals = [(group("g0"), owner)].into_iter().collect();
    let groups = Groups::new(placement.clone(), router("me").id, locals, Peers::default());
    tokio::spawn(groups.clone().follow());
    groups.look().await;
    Arc::new(Directory::new(placement, groups))
}

/// As if a look had found a group so.
fn see(directory: &Directory, name: &str, found: Seen) {
    directory.groups.seen.rcu(|seen| {
        let mut seen = BTreeMap::clone(seen);
        seen.insert(group(name), found.clone());
        seen
    });
}

/// Asks in a thread of its own: a lock that is taken twice is to fail the test, not to hang it.
fn asked<T: Send + 'static>(
    directory: &Arc<Directory>,
    ask: impl FnOnce(&Directory) -> T + Send + 'static,
) -> T {
    let (answer, answered) = mpsc::channel();
    let directory = directory.clone();
    std::thread::spawn(move || answer.send(ask(&directory)));
    answered.recv_timeout(HANGS).expect("an answer: no lock is taken twice")
}

/// Its documents are there, so that `local` asks who else may own the group: with the look's lock held, that was for ever.
#[tokio::test]
async fn a_lost_group_with_documents_takes_no_new_ones_and_stops_nobody() {
    let directory = directory().await;
    for (_, owner) in directory.groups.locals() {
        inherit(owner).await;
    }
    let best = |directory: &Arc<Directory>| {
        asked(directory, |directory| directory.groups.roomiest_seen(None).map(|home| home.group))
    };
    assert_eq!(best(&directory), None, "no group is served");
    assert!(asked(&directory, |directory| directory.groups.serves().is_err()));
    let name = SessionName::new("two".to_owned()).expect("a right name");
    let refused = directory.site(&Tenant::default(), &name, 10).await.map(|site| site.home.group);
    assert_eq!(refused.map_err(|fault| fault.reason), Err(Reason::NoGroup));

    // Another router serves another group: that is taken.
    let other = Seen {
        owner: Some(router("other")),
        epoch: 1,
        admission: Admission::Open,
        formed_again: false,
        ranks: 2,
        load: GroupLoad { slots: 100, tokens: 200 },
    };
    see(&directory, "g1", other);
    assert_eq!(best(&directory), Some(group("g1")), "however full it is");
    assert!(asked(&directory, |directory| directory.groups.serves().is_ok()));
}

#[tokio::test]
async fn refused_calls_share_a_look() {
    const CALLS: u64 = 300;
    let directory = directory().await;
    let before = directory.groups.looks.begun();
    let calls: Vec<_> = (0..CALLS)
        .map(|call| {
            let directory = directory.clone();
            tokio::spawn(async move {
                let name = SessionName::new(format!("s{call}")).expect("a right name");
                let asked = Home { group: group("g0"), target: OwnerLocation::Remote(router("other")) };
                directory.moved(&Tenant::default(), &name, &asked, Refused::Missing).await.is_none()
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.expect("no panic"), "a session that is open nowhere has no other home");
    }
    let looks = directory.groups.looks.begun() - before;
    assert!(looks * 10 < CALLS, "{looks} looks for {CALLS} refused calls");

    // Whoever asks for a look gets one that began later.
    let before = directory.groups.looks.begun();
    directory.groups.look().await;
    assert!(directory.groups.looks.ended() > before);
}

/// A placement that was wiped knows no homes until the owners have told them again: nobody is to open a second life elsewhere meanwhile.
#[tokio::test]
async fn a_session_without_a_home_is_not_unknown_while_the_placement_may_have_forgotten() {
    let directory = directory().await;
    let name = SessionName::new("held".to_owned()).expect("a right name");
    let told = async || directory.home(&Tenant::default(), &name).await.map(|home| home.group);
    assert_eq!(told().await.map_err(|fault| fault.reason), Err(Reason::SessionUnknown));
    // Another router owned a group, and the placement does not know that any more.
    let owned = Seen {
        owner: Some(router("other")),
        epoch: 7,
        admission: Admission::Open,
        formed_again: false,
        ranks: 2,
        load: GroupLoad::default(),
    };
    see(&directory, "g1", owned);
    directory.groups.look().await;
    let refused = told().await.map_err(|fault| (fault.reason, fault.retry_after.is_some()));
    assert_eq!(refused, Err((Reason::NoGroup, true)));
}

/// A home is only made for a session that is there, and only forgotten with the session that has it.
#[tokio::test]
async fn homes_are_claimed_by_the_first_and_left_by_their_own() {
    let directory = directory().await;
    let (tenant, name) = (Tenant::default(), SessionName::new("a".to_owned()).expect("a right name"));
    let seen = |load| Seen {
        owner: Some(router("other")),
        epoch: 7,
        admission: Admission::Open,
        formed_again: false,
        ranks: 2,
        load,
    };
    let (roomy, full) = (GroupLoad { slots: 100, tokens: 0 }, GroupLoad { slots: 100, tokens: 90 });
    let (one, other) = (seen(roomy), seen(full));
    see(&directory, "g1", one);
    see(&directory, "g2", other);
    let first = directory.site(&tenant, &name, 270).await.expect("there is room");
    let second = directory.site(&tenant, &name, 270).await.expect("there is room");
    let groups = [&first, &second].map(|site| site.home.group.clone());
    assert_eq!(groups, [group("g1"), group("g1")], "it lives nowhere yet");
    let third = directory.site(&tenant, &name, 10).await.expect("there is room").home.group;
    assert_eq!(third, group("g2"), "what is on its way counts");
    assert_eq!(directory.home_now(&tenant, &name).await, Ok(None), "nothing is claimed before it is opened");
    let elsewhere =
        Site { home: Home { group: third.clone(), ..first.home.clone() }, was: PriorHome::Nowhere };
    let claims = [&first, &elsewhere, &second].map(|site| directory.claim(&tenant, &name, site));
    let mut claimed = Vec::new();
    for claim in claims {
        claimed.push(claim.await.expect("the placement answers"));
    }
    assert_eq!(claimed, [ClaimOutcome::Home, ClaimOutcome::Elsewhere, ClaimOutcome::Home]);
    directory.forget(&tenant, &name, &third).await.expect("the placement answers");
    assert_eq!(directory.home_now(&tenant, &name).await, Ok(Some(group("g1"))), "it has another home");
    directory.forget(&tenant, &name, &group("g1")).await.expect("the placement answers");
    // Whoever found the home before has opened the session again meanwhile: it has a home again.
    assert_eq!(directory.claim(&tenant, &name, &second).await, Ok(ClaimOutcome::Home));
    assert_eq!(directory.home_now(&tenant, &name).await, Ok(Some(group("g1"))));
}
