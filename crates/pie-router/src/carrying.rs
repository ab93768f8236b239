//! Sessions in and out of this router: packed as a message, unpacked as a tokenized document.

use crate::call::Taken;
use crate::life::Life;
use crate::service::document;
use crate::tenants::Tenant;
use crate::tokenizing::{Waits, beside};
use pie_proto::carried::Carried;
use pie_proto::request::Content;
use pie_proto::{Fault, peer_v1};
use pie_text::Tokenizer;
use std::sync::Arc;

/// A session that another router, or another group, sends.
pub(crate) async fn unpack(
    wire: peer_v1::Carried,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<Taken, Fault> {
    open(Carried::try_from(wire)?, tokenizer, limit).await
}

/// The same where the message is checked.
pub(crate) async fn open(carried: Carried, tokenizer: Arc<Tokenizer>, limit: usize) -> Result<Taken, Fault> {
    let tenant = tenant(&carried)?;
    let Carried { name, identity, revision, strategy, content, spellings, .. } = carried;
    let bytes = match &content {
        Content::Text(text) => text.len(),
        Content::Tokens(_) => 0,
    };
    let document =
        beside(bytes, Waits::Always, move || document(&content, &tokenizer.reading(spellings), limit))
            .await?;
    let document = Box::new(document.at_revision(revision));
    let identity = identity.map_or_else(|| Life::new().map(|life| life.identity), Ok)?;
    Ok(Taken { tenant, name, identity, strategy, document })
}

/// Whose it is.
pub(crate) fn tenant(carried: &Carried) -> Result<Tenant, Fault> {
    if carried.tenant.is_empty() { Ok(Tenant::default()) } else { Tenant::new(&carried.tenant) }
}
