//! For this crate's own tests: owners of groups whose ranks are away.

use crate::core::{Ack, Healing, Idle, RepairPolicy, Settings};
use crate::owner::{Owned, OwnerOptions};
use crate::peers::Peers;
use crate::tenants::{Quotas, Sharing, TenantLimits};
use pie_placement::{GroupId, RouterId, RouterRecord, Ttl};
use pie_plan::schedule::Limits;
use pie_text::Tokenizer;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

pub fn group(name: &str) -> GroupId {
    GroupId::new(name).expect("a right name")
}

pub fn router(name: &str) -> RouterRecord {
    // Nobody listens at port 9.
    RouterRecord { id: RouterId::new(name).expect("a right name"), address: "http://127.0.0.1:9".to_owned() }
}

pub fn tokenizer() -> Arc<Tokenizer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code");
    Arc::new(Tokenizer::open(Path::new(folder)).expect("it ships"))
}

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
