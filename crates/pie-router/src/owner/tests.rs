//! An owner whose ranks are away: its documents can be opened, edited and read; and what it does with what comes too late, or all at once.

use super::{Concern, Event, GroupState, OwnerHandle, spawn_owner};
use crate::call::{Call, EditReply, ImportedSession, ModelFacts, Prepared, Reply};
use crate::ranks::Formed;
use crate::stats::GroupEvent;
use crate::tenants::Tenant;
use crate::testing::{group, options, router, tokenizer};
use pie_placement::{Campaign, Embedded, Ownership, Placement, Ttl};
use pie_proto::request::{ApplyEdits, Edits, Identity, SessionName};
use pie_proto::{Fault, v1};
use pie_text::Document;
use pie_words::{Revision, Strategy, TextEdit, TextRange};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// It serves the group with a model of so many positions, and no ranks: nothing is ever computed.
pub(crate) async fn serving(context_limit: u32) -> OwnerHandle {
    let (owner, ownership) = won().await;
    let model = ModelFacts { context_limit, ..ModelFacts::default() };
    let formed = Event::Formed(Box::new(Formed::alone(ownership, model)));
    owner.events.send(formed).await.expect("it runs");
    owner.holdings.clone().wait_for(|holdings| holdings.context_limit > 0).await.expect("it runs");
    owner
}

/// It has won the group, whose ranks are away.
pub(crate) async fn owner() -> OwnerHandle {
    let (owner, ownership) = won().await;
    // It lives as long as the placement: nobody is to take it for released.
    std::mem::forget(ownership);
    owner
}

/// With a document more.
pub(crate) async fn inherit(owner: &OwnerHandle) {
    let sessions = owner.holdings().sessions;
    let inherited = Event::Inherited(vec![taken(&tokenizer(), 0)]);
    owner.events.send(inherited).await.expect("it runs");
    owner.holdings.clone().wait_for(|holdings| holdings.sessions > sessions).await.expect("it runs");
}

async fn won() -> (OwnerHandle, Ownership) {
    let placement: Arc<dyn Placement> = Arc::new(Embedded::new());
    let options = options("g0");
    let (group, router) = (options.group.clone(), options.router.clone());
    let owner = spawn_owner(options, placement.clone(), tokenizer());
    let Ok(Campaign::Won(ownership)) = placement.campaign(&group, &router, Ttl::DEFAULT).await else {
        panic!("nobody else wants it");
    };
    owner.tenure.begins(ownership.lease());
    (owner, ownership)
}

pub(crate) fn name() -> SessionName {
    SessionName::new("a".to_owned()).expect("a right name")
}

pub(crate) async fn ask<T>(owner: &OwnerHandle, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Fault> {
    owner.ask(call).await.expect("there is room")
}

pub(crate) async fn text(owner: &OwnerHandle) -> Option<String> {
    let got = ask(owner, |reply| Call::Get {
        tenant: Tenant::default(),
        session: name(),
        identity: None,
        content: true,
        reply,
    });
    got.await.expect("it is open").text
}

pub(crate) async fn edit(owner: &OwnerHandle, base_revision: u64) -> Result<v1::ApplyEditsResponse, Fault> {
    let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, insert: "x".to_owned() };
    let request = ApplyEdits {
        session: name(),
        identity: None,
        base_revision: Revision(base_revision),
        edits: Edits::Text(vec![edit]),
        strategy: None,
        repair_window: None,
    };
    let (tenant, arrived) = (Tenant::default(), Instant::now());
    match ask(owner, |reply| Call::Edit { tenant, request, prepared: None, arrived, reply }).await? {
        EditReply::Done(answer) => Ok(answer),
        EditReply::Beside { .. } => panic!("a letter is tokenized at once"),
    }
}

/// Opens a session that is new.
pub(crate) async fn open(owner: &OwnerHandle, text: &str) {
    let document = Box::new(Document::open(tokenizer(), text, 1 << 20).expect("short"));
    let prepared = Prepared::New { identity: Identity::of_bits(1), document };
    let (tenant, name) = (Tenant::default(), name());
    let opened = ask(owner, |reply| Call::Open { tenant, name, prepared, strategy: None, reply }).await;
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

fn taken(tokenizer: &Arc<pie_text::Tokenizer>, number: u128) -> ImportedSession {
    let name = SessionName::new(format!("s{number}")).expect("a right name");
    let document = Box::new(Document::open(tokenizer.clone(), "x", 1 << 24).expect("a short text"));
    let (tenant, identity) = (Tenant::default(), Identity::of_bits(number));
    ImportedSession { tenant, name, identity, strategy: Strategy::Pie, document }
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
