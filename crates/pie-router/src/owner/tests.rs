//! What an owner does with what comes too late, or all at once.

use super::{Concern, Event, Owner, State, spawn_owner};
use crate::call::{Call, ModelFacts, Taken};
use crate::ranks::Formed;
use crate::tenants::Tenant;
use crate::testing::{group, options, router, tokenizer};
use pie_placement::{Campaign, Embedded, Placement, Ttl};
use pie_plan::Strategy;
use pie_proto::request::{Identity, SessionName};
use pie_text::Document;
use std::sync::Arc;
use tokio::sync::oneshot;

fn name() -> SessionName {
    SessionName::new("a".to_owned()).expect("a right name")
}

fn open(owner: &Owner) {
    let document = Document::open(tokenizer(), "fn main() {}", 1 << 24).expect("a short text");
    let (reply, _) = oneshot::channel();
    let (tenant, document, identity) = (Tenant::default(), Box::new(document), Identity::of_bits(1));
    let opened = Call::Open { tenant, name: name(), identity, document, strategy: None, reply };
    owner.call(opened).expect("there is a place");
}

/// Whoever hands a group over reads how many documents wait for the next owner: all that came before, not those of a moment ago.
#[tokio::test]
async fn a_group_that_is_given_up_tells_its_documents_at_once() {
    let tokenizer = tokenizer();
    let owner = spawn_owner(options("g"), Arc::new(Embedded::new()), tokenizer.clone());
    open(&owner);
    let (done, retired) = oneshot::channel();
    owner.events.try_send(Event::Retire { done }).expect("there is a place");
    // In the same batch comes something that takes its time.
    let more = (0..3000).map(|number| {
        let name = SessionName::new(format!("s{number}")).expect("a right name");
        let document = Box::new(Document::open(tokenizer.clone(), "x", 1 << 24).expect("a short text"));
        let (tenant, identity) = (Tenant::default(), Identity::of_bits(number));
        Taken { tenant, name, identity, strategy: Strategy::Pie, document }
    });
    owner.events.try_send(Event::Inherited(more.collect())).expect("there is a place");
    let stats = owner.stats().clone();
    let looks = std::thread::spawn(move || {
        retired.blocking_recv().expect("it is given up");
        stats.sessions.get()
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
    open(&owner);
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
    let (reply, answer) = oneshot::channel();
    owner.call(Call::GiveAll { reply }).expect("there is a place");
    let given = answer.await.expect("it runs").expect("the group is not served");
    assert_eq!(given.len(), 1, "its documents wait for the next owner");
    assert_eq!((owner.now(), owned.count()), (State::Retired, 0));
    assert_eq!(placement.owner(&group("g")).await, Ok(None), "anybody may have it");
}
