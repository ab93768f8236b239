//! What the core has and did, as the API tells it.

use crate::core::session::{Session, count};
use crate::core::{Core, EditSummary, Opened, Planner};
use crate::faults;
use pie_proto::request::{parts_to_wire, strategy_to_wire};
use pie_proto::{Fault, v1};
use pie_text::Tokenizing;
use pie_words::{SessionId, Spellings};

fn session_of(core: &Core, id: SessionId) -> Result<&Session, Fault> {
    core.sessions.get(id).ok_or_else(|| faults::no_session("of the call"))
}

pub(super) fn opened(core: &Core, opened: &Opened) -> Result<v1::OpenSessionResponse, Fault> {
    let session = session_of(core, opened.session)?;
    Ok(v1::OpenSessionResponse {
        session: session.name.as_str().to_owned(),
        identity: session.identity.as_str().to_owned(),
        revision: session.revision().0,
        tokens: count(session.tokens()),
        reused: count(opened.reused),
    })
}

pub(super) fn edited(core: &Core, edited: &EditSummary) -> Result<v1::ApplyEditsResponse, Fault> {
    let session = session_of(core, edited.session)?;
    Ok(v1::ApplyEditsResponse {
        revision: session.revision().0,
        tokens: count(session.tokens()),
        tokens_inserted: count(edited.inserted),
        tokens_deleted: count(edited.deleted),
        tokens_retokenized: count(edited.retokenized),
    })
}

/// A session, with its text and tokens if they are asked for.
pub(super) fn got(
    core: &Core,
    group: &str,
    id: SessionId,
    content: bool,
) -> Result<v1::GetSessionResponse, Fault> {
    let got = session_of(core, id)?;
    let ids = || v1::Tokens { ids: got.document.tokens().map(|token| token.0).collect() };
    Ok(v1::GetSessionResponse {
        session: Some(session(core, group, got)),
        text: if content { got.document.text() } else { None },
        tokens: content.then(ids),
        parts: if content { parts_to_wire(got.document.parts()) } else { None },
    })
}

pub(super) fn session(core: &Core, group: &str, session: &Session) -> v1::Session {
    let on_ranks = core.planner.as_ref().map(|planner| planner.residence(session)).unwrap_or_default();
    let (tokenizing, tokenized_whole_because) = match session.document.tokenizing() {
        None => (v1::Tokenizing::Unspecified, String::new()),
        Some(Tokenizing::AroundEdits) => (v1::Tokenizing::AroundEdits, String::new()),
        Some(Tokenizing::Whole { why }) => (v1::Tokenizing::Whole, why),
    };
    v1::Session {
        session: session.name.as_str().to_owned(),
        revision: session.revision().0,
        tokens: count(session.tokens()),
        tokens_pending: count(session.tokens().saturating_sub(on_ranks.encoded)),
        bytes: session.document.len_bytes() as u64,
        strategy: strategy_to_wire(session.following.strategy).into(),
        repair_window: session.following.window,
        group: group.to_owned(),
        tokens_shared: count(on_ranks.shared),
        identity: session.identity.as_str().to_owned(),
        resident: on_ranks.is_resident,
        tokenizing: tokenizing.into(),
        tokenized_whole_because,
        tokens_stale: count(on_ranks.stale),
        tokens_exact: count(on_ranks.exact),
        tokens_repaired: on_ranks.repaired,
        control_tokens: session.document.spellings() == Spellings::ControlTokens,
    }
}

/// The same for who runs the pool.
pub(super) fn held(core: &Core, group: &str, held: &Session) -> v1::TenantSession {
    v1::TenantSession {
        tenant: held.tenant.as_str().to_owned(),
        session: Some(session(core, group, held)),
        idle_ms: u64::try_from(core.sessions.since(held.used).as_millis()).unwrap_or(u64::MAX),
        completions: count(core.planner.as_ref().map_or(0, |planner| planner.completions(held.id))),
    }
}

pub(super) fn described(core: &Core, group: &str) -> v1::DescribePoolResponse {
    let serving = core.planner.as_deref();
    let of = |number: fn(&Planner) -> usize| count(serving.map_or(0, number));
    let group = v1::Group {
        group: group.to_owned(),
        epoch: serving.map_or(0, |planner| planner.epoch().0),
        slots_total: of(Planner::slots),
        slots_free: of(Planner::free_slots),
        sessions: count(core.sessions.count()),
        state: serving.err().map_or("serving", String::as_str).to_owned(),
        counters: Some(core.stats.counters()),
        tokens: core.sessions.tokens() as u64,
        tokens_stale: serving.map_or(0, |planner| planner.stale() as u64),
        free_rows: serving.map_or(0, |planner| planner.free_rows()),
        ..Default::default()
    };
    let model = &core.model.facts;
    v1::DescribePoolResponse {
        model: model.name.clone(),
        parameters: model.parameters,
        context_limit: model.context_limit,
        vocabulary: model.vocabulary,
        groups: vec![group],
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
