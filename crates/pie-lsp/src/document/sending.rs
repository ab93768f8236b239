//! What a document's task does to its session, so that the pool has the text. The session travels with the call and comes back with
//! its end, whatever that is.

use crate::link::{LinkError, PoolConnection, PoolLink};
use crate::mirror::MirrorUpdate;
use pie_client::SessionHandle;
use pie_proto::v1;
use std::time::Duration;
use tokio::time::timeout;

/// A text is tokenized in this time; a router's successor is there by then.
const TAKEN: Duration = Duration::from_secs(10);

/// The end of a call.
pub struct CallOutcome {
    /// The session, if it is still known.
    pub session: Option<SessionHandle>,
    /// What the pool said.
    pub told: Result<PoolReply, LinkError>,
}

/// What the pool said.
pub enum PoolReply {
    /// It is there.
    Connected(PoolConnection),
    /// It has the document, which has so many tokens.
    Document {
        /// Of what was sent.
        tokens: usize,
    },
    /// It has these in front of the document.
    Front {
        /// Of both.
        tokens: usize,
        /// What stands there.
        parts: v1::Parts,
    },
}

/// Connects.
pub async fn connect(link: PoolLink, session: Option<SessionHandle>) -> CallOutcome {
    let told = link.connect().await.map(PoolReply::Connected);
    // A session belongs to the connection that it was opened by.
    CallOutcome { session: session.filter(|_| told.is_err()), told }
}

/// Sends what is next.
pub async fn send(
    connected: PoolConnection,
    name: String,
    session: Option<SessionHandle>,
    step: MirrorUpdate,
) -> CallOutcome {
    match timeout(TAKEN, sent(connected, name, session, step)).await {
        Ok(sent) => sent,
        // Whether the pool heard it is not known: the session is opened by its name again.
        Err(_) => CallOutcome { session: None, told: Err(LinkError::Silent("taking the text")) },
    }
}

/// Puts texts of other documents in front of this one.
pub async fn put(mut session: SessionHandle, parts: v1::Parts) -> CallOutcome {
    match timeout(TAKEN, session.put_in_front(parts.clone())).await {
        Ok(done) => {
            let tokens = usize::try_from(session.tokens()).unwrap_or(usize::MAX);
            let told = done.map(|()| PoolReply::Front { tokens, parts }).map_err(LinkError::from);
            CallOutcome { session: Some(session), told }
        }
        Err(_) => CallOutcome { session: None, told: Err(LinkError::Silent("taking other documents' text")) },
    }
}

async fn sent(
    connected: PoolConnection,
    name: String,
    session: Option<SessionHandle>,
    step: MirrorUpdate,
) -> CallOutcome {
    let (session, done) = match (session, step) {
        (Some(mut session), MirrorUpdate::Edits(edits)) => {
            let done = session.edit(&edits).await.map(drop);
            (Some(session), done)
        }
        (Some(mut session), MirrorUpdate::Whole(text)) => {
            let done = session.replace(text).await.map(drop);
            (Some(session), done)
        }
        (None, MirrorUpdate::Whole(text)) => {
            match connected.pool.open(&name, text, v1::Strategy::Unspecified).await {
                Ok(session) => (Some(session), Ok(())),
                Err(error) => (None, Err(error)),
            }
        }
        (session, MirrorUpdate::Rest) | (session @ None, MirrorUpdate::Edits(_)) => (session, Ok(())),
    };
    let tokens =
        session.as_ref().map_or(0, |session| usize::try_from(session.tokens()).unwrap_or(usize::MAX));
    CallOutcome { session, told: done.map(|()| PoolReply::Document { tokens }).map_err(LinkError::from) }
}
