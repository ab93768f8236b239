//! A session on its way from one group or router to another: checked like what a client sends.

use crate::peer_v1::{Carried as Wire, carried::Content as WireContent};
use crate::reason::Fault;
use crate::request::{
    Content, Identity, SessionName, missing, parts, parts_to_wire, spellings, strategy, strategy_to_wire,
    token_ids,
};
use crate::v1;
use pie_words::{Following, Parts, Revision, Spellings};

/// A session without its cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// Whose; empty for those who do not say.
    pub tenant: String,
    /// Its name among those of the tenant.
    pub name: SessionName,
    /// Which life of the name it is; `None` from routers that do not say.
    pub identity: Option<Identity>,
    /// The client's next edit names it.
    pub revision: Revision,
    /// How its cache follows its edits.
    pub following: Following,
    /// The document.
    pub content: Content,
    /// How its text is read.
    pub spellings: Spellings,
    /// What stands in front of it.
    pub parts: Parts,
}

impl TryFrom<Wire> for Carried {
    type Error = Fault;

    fn try_from(wire: Wire) -> Result<Self, Fault> {
        let content = match wire.content {
            Some(WireContent::Text(text)) => Content::Text(text),
            Some(WireContent::Tokens(tokens)) => Content::Tokens(token_ids(tokens.ids)),
            None => return Err(missing("content", "the document as `text` (may be empty) or `tokens`")),
        };
        Ok(Self {
            tenant: wire.tenant,
            name: SessionName::new(wire.session)?,
            identity: Identity::given(wire.identity),
            revision: Revision(wire.revision),
            following: Following {
                strategy: strategy(wire.strategy)?.unwrap_or_default(),
                window: wire.repair_window,
            },
            content,
            spellings: spellings(wire.control_tokens),
            parts: wire.parts.map(parts).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Carried> for Wire {
    fn from(carried: Carried) -> Self {
        let content = match carried.content {
            Content::Text(text) => WireContent::Text(text),
            Content::Tokens(tokens) => {
                WireContent::Tokens(v1::Tokens { ids: tokens.into_iter().map(|token| token.0).collect() })
            }
        };
        Self {
            tenant: carried.tenant,
            session: carried.name.as_str().to_owned(),
            identity: Identity::to_wire(carried.identity.as_ref()),
            revision: carried.revision.0,
            strategy: strategy_to_wire(carried.following.strategy).into(),
            repair_window: carried.following.window,
            content: Some(content),
            control_tokens: carried.spellings == Spellings::ControlTokens,
            parts: parts_to_wire(&carried.parts),
        }
    }
}
