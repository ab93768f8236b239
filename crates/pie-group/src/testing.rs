//! For tests of this crate and of what calls groups: owners whose ranks are away.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on should stop there")]

use crate::call::{Call, EditReply, ImportedSession, ModelFacts, Reply};
use crate::core::{Ack, Healing, Idle, RepairPolicy, Settings};
use crate::owner::{Event, Owned, OwnerHandle, OwnerOptions, spawn_owner};
use crate::peers::Peers;
use crate::ranks::Formed;
use crate::tenants::{Quotas, Sharing, Tenant, TenantLimits};
use pie_placement::{Campaign, Embedded, GroupId, Ownership, Placement, RouterId, RouterRecord, Ttl};
use pie_plan::schedule::Limits;
use pie_proto::request::{ApplyEdits, Edits, Identity, SessionName};
use pie_proto::{Fault, v1};
use pie_text::{Document, Tokenizer};
use pie_words::{AskedFollowing, Following, Revision, TextEdit, TextRange};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SETTINGS: Settings = Settings {
    limits: Limits { rows: 64, prefill_rows: 32, decode_passes: 4, ..Limits::NONE },
    prefill: Duration::from_millis(30),
    tenant: TenantLimits::NONE,
    sharing: Sharing::WithinTenant,
    sessions: 100,
    completions: 100,
    healing: Healing { repairs: RepairPolicy::WhenIdle, window: 16, free_rows: Some(0) },
    draft_tokens: 0,
    idle: Idle { closed_after: None, makes_room_after: None },
    ack: Ack::Owner,
};

/// A group's name.
pub fn group(name: &str) -> GroupId {
    GroupId::new(name).expect("a right name")
}

/// A router where nobody listens.
pub fn router(name: &str) -> RouterRecord {
    // Nobody listens at port 9.
    RouterRecord { id: RouterId::new(name).expect("a right name"), address: "http://127.0.0.1:9".to_owned() }
}

/// Of a model that ships.
pub fn tokenizer() -> Arc<Tokenizer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code");
    Arc::new(Tokenizer::open(Path::new(folder)).expect("it ships"))
}

/// An owner's, of a group of two ranks.
pub fn options(name: &str) -> OwnerOptions {
    OwnerOptions {
        group: group(name),
        router: router("me"),
        world_size: 2,
        deadline: Duration::from_secs(1),
        settings: SETTINGS,
        lease: Ttl::DEFAULT,
        quotas: Quotas::default(),
        ranks: Default::default(),
        document_limit: 1 << 24,
        peers: Peers::default(),
        owned: Owned::default(),
    }
}

/// It serves the group with a model of so many positions, and no ranks: nothing is ever computed.
pub async fn serving(context_limit: u32) -> OwnerHandle {
    let (owner, ownership) = won().await;
    let model = ModelFacts { context_limit, ..ModelFacts::default() };
    let formed = Event::Formed(Box::new(Formed::alone(ownership, model)));
    owner.events.send(formed).await.expect("it runs");
    owner.holdings.clone().wait_for(|holdings| holdings.context_limit > 0).await.expect("it runs");
    owner
}

/// It has won the group, whose ranks are away.
pub async fn owner() -> OwnerHandle {
    let (owner, ownership) = won().await;
    // It lives as long as the placement: nobody is to take it for released.
    std::mem::forget(ownership);
    owner
}

/// With a document more.
pub async fn inherit(owner: &OwnerHandle) {
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

/// The session's.
pub fn name() -> SessionName {
    SessionName::new("a".to_owned()).expect("a right name")
}

/// What the owner answers.
pub async fn ask<T>(owner: &OwnerHandle, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Fault> {
    owner.ask(call).await.expect("there is room")
}

/// The session's text.
pub async fn text(owner: &OwnerHandle) -> Option<String> {
    let got = ask(owner, |reply| Call::Get {
        tenant: Tenant::default(),
        session: name(),
        identity: None,
        content: true,
        reply,
    });
    got.await.expect("it is open").text
}

/// Puts a letter before the session's text.
pub async fn edit(owner: &OwnerHandle, base_revision: u64) -> Result<v1::ApplyEditsResponse, Fault> {
    let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, insert: "x".to_owned() };
    let request = ApplyEdits {
        session: name(),
        identity: None,
        base_revision: Revision(base_revision),
        edits: Edits::Text(vec![edit]),
        following: AskedFollowing::default(),
    };
    let (tenant, arrived) = (Tenant::default(), Instant::now());
    match ask(owner, |reply| Call::Edit { tenant, request, prepared: None, arrived, reply }).await? {
        EditReply::Done(answer) => Ok(answer),
        EditReply::Beside { .. } => panic!("a letter is tokenized at once"),
    }
}

/// A session that arrives, with a letter in it.
pub fn taken(tokenizer: &Arc<pie_text::Tokenizer>, number: u128) -> ImportedSession {
    let name = SessionName::new(format!("s{number}")).expect("a right name");
    let document = Box::new(Document::open(tokenizer.clone(), "x", 1 << 24).expect("a short text"));
    let (tenant, identity) = (Tenant::default(), Identity::of_bits(number));
    ImportedSession { tenant, name, identity, following: Following::default(), document }
}
