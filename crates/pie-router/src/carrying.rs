//! Sessions in and out of this router: packed as a message, unpacked as a tokenized document.

use crate::call::Taken;
use crate::faults;
use crate::life::Life;
use crate::tenants::Tenant;
use crate::tokenizing::{Waits, beside};
use pie_proto::carried::Carried;
use pie_proto::request::Content;
use pie_proto::{Fault, peer_v1};
use pie_text::{Document, Tokenizer};
use std::sync::Arc;

/// A document of another router's. Tokenizing a whole one takes milliseconds to seconds: not on a thread that serves others.
async fn document(content: Content, tokenizer: Arc<Tokenizer>, limit: usize) -> Result<Document, Fault> {
    let bytes = match &content {
        Content::Text(text) => text.len(),
        Content::Tokens(_) => 0,
    };
    let open = move || match content {
        Content::Text(text) => Document::open(tokenizer, &text, limit),
        Content::Tokens(tokens) => Document::open_tokens(tokenizer, tokens),
    };
    beside(bytes, Waits::Always, move || open().map_err(|error| faults::text(&error))).await
}

/// A session that another router sends.
pub(crate) async fn unpack(
    wire: peer_v1::Carried,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<Taken, Fault> {
    open(Carried::try_from(wire)?, tokenizer, limit).await
}

/// A session that another group sends.
pub(crate) async fn open(carried: Carried, tokenizer: Arc<Tokenizer>, limit: usize) -> Result<Taken, Fault> {
    let tenant = tenant(&carried)?;
    let document = document(carried.content, tokenizer, limit).await?;
    let document = Box::new(document.at_revision(carried.revision));
    let identity = carried.identity.map_or_else(|| Life::new().map(|life| life.identity), Ok)?;
    Ok(Taken { tenant, name: carried.name, identity, strategy: carried.strategy, document })
}

/// Whose it is.
pub(crate) fn tenant(carried: &Carried) -> Result<Tenant, Fault> {
    if carried.tenant.is_empty() { Ok(Tenant::default()) } else { Tenant::new(&carried.tenant) }
}
