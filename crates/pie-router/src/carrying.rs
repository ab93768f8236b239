//! Sessions in and out of this router: packed as a message, unpacked as a tokenized document.

use crate::call::Taken;
use crate::faults;
use crate::life::Life;
use crate::tenants::Tenant;
use pie_proto::carried::Carried;
use pie_proto::request::Content;
use pie_proto::{Fault, Reason, peer_v1};
use pie_text::{Document, Revision, Tokenizer};
use std::sync::Arc;

/// A document of a client's or of another router's. Tokenizing a whole one takes milliseconds to seconds: not on a thread that
/// serves others.
pub(crate) async fn document(
    content: Content,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<Document, Fault> {
    let open = move || match content {
        Content::Text(text) => Document::open(tokenizer, &text, limit),
        Content::Tokens(tokens) => Document::open_tokens(tokenizer, tokens),
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened
        .map_err(|error| Fault::new(Reason::TokenizerFailed, error.to_string()))?
        .map_err(|error| faults::text(&error))
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
    let tenant = if carried.tenant.is_empty() { Tenant::default() } else { Tenant::new(&carried.tenant)? };
    let document = document(carried.content, tokenizer, limit).await?;
    let document = Box::new(document.at_revision(Revision(carried.revision)));
    let identity = carried.identity.map_or_else(|| Life::new().map(|life| life.identity), Ok)?;
    Ok(Taken { tenant, name: carried.name, identity, strategy: carried.strategy, document })
}
