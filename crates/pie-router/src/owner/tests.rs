//! An owner whose ranks are away: its documents can be opened, edited and read.

use super::{Event, Owned, Owner, OwnerOptions, State, spawn_owner};
use crate::call::{Call, Reply};
use crate::core::Settings;
use crate::peers::Peers;
use crate::stats::GroupEvent;
use crate::tenants::{Quotas, Sharing, Tenant, TenantLimits};
use pie_placement::{Embedded, GroupId, RouterId, RouterRecord, Ttl};
use pie_plan::schedule::Limits;
use pie_proto::request::{ApplyEdits, Edits, SessionName, TextEdit, TextRange};
use pie_proto::{Fault, v1};
use pie_text::{Document, Tokenizer};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const SETTINGS: Settings = Settings {
    limits: Limits { rows: 64, prefill_rows: 32, decode_passes: 4 },
    prefill: Duration::from_millis(30),
    tenant: TenantLimits::NONE,
    sharing: Sharing::WithinTenant,
    sessions: 100,
    completions: 100,
    rotations: 30,
};

pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code");
    Arc::new(Tokenizer::from_folder(Path::new(folder)).expect("it ships"))
}

pub(crate) fn owner() -> Owner {
    let router = RouterRecord {
        id: RouterId::new("me").expect("a right name"),
        address: "http://127.0.0.1:9".to_owned(),
    };
    let options = OwnerOptions {
        group: GroupId::new("g0").expect("a right name"),
        router,
        world_size: 2,
        deadline: Duration::from_secs(1),
        settings: SETTINGS,
        lease: Ttl::DEFAULT,
        quotas: Quotas::default(),
        ranks: Default::default(),
        document_limit: 1 << 20,
        peers: Peers::default(),
        owned: Owned::default(),
    };
    spawn_owner(options, Arc::new(Embedded::new()), tokenizer())
}

pub(crate) fn name() -> SessionName {
    SessionName::new("a".to_owned()).expect("a right name")
}

pub(crate) async fn ask<T>(owner: &Owner, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Fault> {
    let (reply, answer) = oneshot::channel();
    owner.call(call(reply)).expect("there is room");
    answer.await.expect("an answer")
}

pub(crate) async fn text(owner: &Owner) -> Option<String> {
    let got =
        ask(owner, |reply| Call::Get { tenant: Tenant::default(), session: name(), content: true, reply });
    got.await.expect("it is open").text
}

pub(crate) async fn edit(owner: &Owner, base_revision: u64) -> Result<v1::ApplyEditsResponse, Fault> {
    let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, text: "x".to_owned() };
    let request =
        ApplyEdits { session: name(), base_revision, edits: Edits::Text(vec![edit]), strategy: None };
    let (tenant, arrived) = (Tenant::default(), Instant::now());
    ask(owner, |reply| Call::Edit { tenant, request, arrived, reply }).await
}

#[tokio::test]
async fn an_owner_that_panics_counts_it_keeps_its_documents_and_goes_on() {
    let owner = owner();
    let document = Box::new(Document::open(tokenizer(), "fn main() {}", 1 << 20).expect("short"));
    let (tenant, strategy) = (Tenant::default(), None);
    ask(&owner, |reply| Call::Open { tenant, name: name(), document, change: None, strategy, reply })
        .await
        .expect("room");
    edit(&owner, 0).await.expect("the revision fits");
    let mut state = owner.state();
    for panics in 1..=2 {
        owner.events.send(Event::Panic).await.expect("it is there");
        while owner.stats().events(GroupEvent::OwnerPanicked) < panics {
            state.changed().await.expect("it is there still");
        }
        assert_ne!(owner.now(), State::Serving);
    }
    assert_eq!(text(&owner).await.as_deref(), Some("xfn main() {}"));
    assert_eq!(edit(&owner, 1).await.expect("the revision fits").revision, 2);
    owner.stop().await;
    assert!(owner.call(Call::Residents { reply: oneshot::channel().0 }).is_err(), "it has ended");
}

/// One client sends edits without end; what the ranks say, and what others ask, is heard all the same.
#[tokio::test]
async fn a_flood_of_calls_does_not_hold_events_back() {
    let owner = owner();
    let document = Box::new(Document::open(tokenizer(), "fn main() {}", 1 << 20).expect("short"));
    let (tenant, strategy) = (Tenant::default(), None);
    ask(&owner, |reply| Call::Open { tenant, name: name(), document, change: None, strategy, reply })
        .await
        .expect("room");
    // All at once, before the owner's task runs: what waits is taken in turns.
    let mut flood = Vec::new();
    for call in 0..480 {
        let (reply, answer) = oneshot::channel();
        let session = SessionName::new(format!("{}", call % 8)).expect("a right name");
        let (tenant, content) = (Tenant::default(), true);
        owner.call(Call::Get { tenant, session, content, reply }).expect("there is room");
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
