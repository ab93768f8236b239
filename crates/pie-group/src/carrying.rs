//! Sessions in and out of this router: packed as a message, unpacked as a tokenized document.

use crate::call::ImportedSession;
use crate::faults;
use crate::life::SessionStart;
use crate::tenants::Tenant;
use crate::tokenizing::{AdmissionWait, beside};
use pie_proto::carried::Carried;
use pie_proto::memo::SessionMemo;
use pie_proto::request::Content;
use pie_proto::{Fault, peer_v1};
use pie_text::{Document, Tokenizer};
use pie_words::Parts;
use std::sync::Arc;

/// A session that another router, or another group, sends.
pub async fn unpack(
    wire: peer_v1::Carried,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<ImportedSession, Fault> {
    open(Carried::try_from(wire)?, tokenizer, limit).await
}

/// The same where the message is checked.
pub async fn open(
    mut carried: Carried,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<ImportedSession, Fault> {
    let Carried { spellings, content, parts, .. } = &mut carried;
    let content = std::mem::replace(content, Content::Tokens(Vec::new()));
    let parts = std::mem::take(parts);
    let bytes = match &content {
        Content::Text(text) => text.len() + parts_bytes(&parts),
        Content::Tokens(_) => 0,
    };
    let reading = tokenizer.reading(*spellings);
    let document =
        beside(bytes, AdmissionWait::Always, move || led(document(&content, &reading, limit)?, &parts));
    taken(carried, document.await?)
}

/// A session that the ranks kept: its text is tokenized again where another tokenizer did it, or one cannot tell.
pub async fn recall(
    kept: SessionMemo,
    tokenizer: Arc<Tokenizer>,
    limit: usize,
) -> Result<ImportedSession, Fault> {
    let SessionMemo { session, tokens, fingerprint } = kept;
    let reading = tokenizer.reading(session.spellings);
    let Content::Text(text) = &session.content else { return open(session, tokenizer, limit).await };
    if fingerprint != reading.fingerprint().0 {
        return open(session, tokenizer, limit).await;
    }
    let document = Document::restore(reading, text, tokens, limit).map_err(|error| faults::text(&error))?;
    let parts = session.parts.clone();
    let document = beside(parts_bytes(&parts), AdmissionWait::Always, move || led(document, &parts)).await?;
    taken(session, document)
}

/// The document of a text, or of tokens. Takes milliseconds to seconds.
pub fn document(content: &Content, tokenizer: &Arc<Tokenizer>, limit: usize) -> Result<Document, Fault> {
    let document = match content {
        Content::Text(text) => Document::open(tokenizer.clone(), text, limit),
        Content::Tokens(tokens) => Document::open_tokens(tokenizer.clone(), tokens.clone()),
    };
    document.map_err(|error| faults::text(&error))
}

/// A document behind its parts, which are tokenized.
fn led(document: Document, parts: &Parts) -> Result<Document, Fault> {
    document.with_parts(parts).map_err(|error| faults::text(&error))
}

/// Bytes of texts in front of a document.
pub fn parts_bytes(parts: &Parts) -> usize {
    parts.list.iter().map(|part| part.text.len()).sum()
}

/// A session whose document is made of its content.
fn taken(carried: Carried, document: Document) -> Result<ImportedSession, Fault> {
    let tenant = tenant(&carried)?;
    let Carried { name, identity, revision, following, .. } = carried;
    let document = Box::new(document.at_revision(revision));
    let identity = identity.map_or_else(|| SessionStart::new().map(|life| life.identity), Ok)?;
    Ok(ImportedSession { tenant, name, identity, following, document })
}

/// Whose it is.
pub fn tenant(carried: &Carried) -> Result<Tenant, Fault> {
    if carried.tenant.is_empty() { Ok(Tenant::default()) } else { Tenant::new(&carried.tenant) }
}
