//! An owner whose ranks are away: its documents can be opened, edited and read; and what it does with what comes too late, or all at once.

use super::{Concern, Event, GroupState, OwnerHandle, spawn_owner};
use crate::call::{Call, ModelFacts, Prepared};
use crate::ranks::Formed;
use crate::stats::GroupEvent;
use crate::tenants::Tenant;
use crate::testing::{ask, edit, group, name, options, owner, router, taken, text, tokenizer};
use pie_placement::{Campaign, Embedded, Placement, Ttl};
use pie_proto::Fault;
use pie_proto::request::{Identity, SessionName};
use pie_text::Document;
use pie_words::AskedFollowing;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Opens a session that is new.
pub(crate) async fn open(owner: &OwnerHandle, text: &str) {
    let document = Box::new(Document::open(tokenizer(), text, 1 << 20).expect("short"));
    let prepared = Prepared::New { identity: Identity::of_bits(1), document };
    let (tenant, name) = (Tenant::default(), name());
    let opened = ask(owner, |reply| Call::Open {
        tenant,
        name,
        prepared,
        following: AskedFollowing::default(),
        reply,
    })
    .await;
    assert_eq!(opened.expect("room").revision, 0);
}

#[tokio::test]
async fn an_owner_that_panics_counts_it_keeps_its_documents_and_goes_on() {
    let owner = owner().await;
    open(&owner, "fn main() {}").await;
    edit(&owner, 0).await.expect("the revision fits");
    let mut state = owner.state();
    for panics in 1..=2 {
        owner.events.send(Event::Panic).await.expect("it is there");
        while owner.stats().events(GroupEvent::OwnerPanicked) < panics {
            state.changed().await.expect("it is there still");
        }
        assert_ne!(owner.now(), GroupState::Serving);
    }
    assert_eq!(text(&owner).await.as_deref(), Some("xfn main() {}"));
    assert_eq!(edit(&owner, 1).await.expect("the revision fits").revision, 2);
    owner.stop().await;
    assert!(owner.call(Call::Residents { reply: oneshot::channel().0 }).is_err(), "it has ended");
}

/// One client sends edits without end; what the ranks say, and what others ask, is heard all the same.
#[tokio::test]
async fn a_flood_of_calls_does_not_hold_events_back() {
    let owner = owner().await;
    open(&owner, "fn main() {}").await;
    // All at once, before the owner's task runs: what waits is taken in turns.
    let mut flood = Vec::new();
    for call in 0..480 {
        let (reply, answer) = oneshot::channel();
        let session = SessionName::new(format!("{}", call % 8)).expect("a right name");
        let (tenant, content) = (Tenant::default(), true);
        owner.call(Call::Get { tenant, session, identity: None, content, reply }).expect("there is room");
        flood.push(answer);
    }
    let (reply, mut described) = oneshot::channel();
    owner.call(Call::Describe { reply }).expect("there is room");
    let (done, mut retired) = oneshot::channel();
    owner.events.send(Event::Retire { done }).await.expect("it is there");
    (&mut retired).await.expect("it is heard");
    (&mut described).await.expect("it is answered");
    let unanswered = flood.iter_mut().map(oneshot::Receiver::try_recv).filter(Result::is_err).count();
    assert!(unanswered > 0, "both were heard before the flood was over");
}

/// What only looks may panic without harm to anybody else.
#[test]
fn a_panic_while_looking_fails_that_call_alone() {
    let fault = crate::faults::contained(|| -> Result<(), Fault> { panic!("a test") });
    assert_eq!(fault.expect_err("it panicked").reason, pie_proto::Reason::Internal);
    assert_eq!(crate::faults::contained(|| Ok(1)), Ok(1));
}

/// Whoever hands a group over reads how many documents wait for the next owner: all that came before, not those of a moment ago.
#[tokio::test]
async fn a_group_that_is_given_up_tells_its_documents_at_once() {
    let tokenizer = tokenizer();
    let owner = spawn_owner(options("g"), Arc::new(Embedded::new()), tokenizer.clone());
    owner.events.try_send(Event::Inherited(vec![taken(&tokenizer, 0)])).expect("there is a place");
    let (done, retired) = oneshot::channel();
    owner.events.try_send(Event::Retire { done }).expect("there is a place");
    // In the same batch comes something that takes its time.
    let more = (1..3000).map(|number| taken(&tokenizer, number));
    owner.events.try_send(Event::Inherited(more.collect())).expect("there is a place");
    let whose = owner.clone();
    let looks = std::thread::spawn(move || {
        retired.blocking_recv().expect("it is given up");
        whose.holdings().sessions
    });
    while !looks.is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(looks.join().expect("no panic") > 0, "a document waits to be fetched");
}

/// An attempt to form the group was under way: what comes of it must not make this router its owner again.
#[tokio::test]
async fn a_group_that_is_given_up_stays_so_whatever_was_on_its_way() {
    let placement = Arc::new(Embedded::new());
    let options = options("g");
    let owned = options.owned.clone();
    let owner = spawn_owner(options, placement.clone(), tokenizer());
    let inherited = Event::Inherited(vec![taken(&tokenizer(), 0)]);
    owner.events.try_send(inherited).expect("there is a place");
    owner.retire().await;
    let campaign = placement.campaign(&group("g"), &router("me"), Ttl::DEFAULT).await;
    let Ok(Campaign::Won(ownership)) = campaign else { panic!("nobody owns it") };
    for event in [
        Event::NotFormed { why: "a rank is away".to_owned(), concern: Concern::Operators },
        Event::Formed(Box::new(Formed::alone(ownership, ModelFacts::default()))),
    ] {
        owner.events.send(event).await.expect("it runs");
    }
    // Answered behind both.
    let given = ask(&owner, |reply| Call::GiveAll { reply }).await.expect("the group is not served");
    assert_eq!(given.len(), 1, "its documents wait for the next owner");
    assert_eq!((owner.now(), owned.count()), (GroupState::Retired, 0));
    assert_eq!(placement.owner(&group("g")).await, Ok(None), "anybody may have it");
}
