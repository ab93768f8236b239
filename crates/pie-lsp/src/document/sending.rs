//! What a document's task does to its session, so that the pool has the text. The session travels with the call and comes back with
//! its end, whatever that is.

use crate::link::{Connected, Link, LinkError};
use crate::mirror::Step;
use pie_client::Session;
use pie_proto::v1;
use std::time::Duration;
use tokio::time::timeout;

/// A text is tokenized in this time; a router's successor is there by then.
const TAKEN: Duration = Duration::from_secs(10);

/// The end of a call.
pub struct Sent {
    /// The session, if it is still known.
    pub session: Option<Session>,
    /// What the pool said.
    pub told: Result<Told, LinkError>,
}

/// What the pool said.
pub enum Told {
    /// It is there.
    Connected(Connected),
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
pub async fn connect(link: Link, session: Option<Session>) -> Sent {
    let told = link.connect().await.map(Told::Connected);
    // A session belongs to the connection that it was opened by.
    Sent { session: session.filter(|_| told.is_err()), told }
}

/// Sends what is next.
pub async fn send(connected: Connected, name: String, session: Option<Session>, step: Step) -> Sent {
    match timeout(TAKEN, sent(connected, name, session, step)).await {
        Ok(sent) => sent,
        // Whether the pool heard it is not known: the session is opened by its name again.
        Err(_) => Sent { session: None, told: Err(LinkError::Silent("taking the text")) },
    }
}

/// Puts texts of other documents in front of this one.
pub async fn put(mut session: Session, parts: v1::Parts) -> Sent {
    match timeout(TAKEN, session.put_in_front(parts.clone())).await {
        Ok(done) => {
            let tokens = usize::try_from(session.tokens()).unwrap_or(usize::MAX);
            let told = done.map(|()| Told::Front { tokens, parts }).map_err(LinkError::from);
            Sent { session: Some(session), told }
        }
        Err(_) => Sent { session: None, told: Err(LinkError::Silent("taking other documents' text")) },
    }
}

async fn sent(connected: Connected, name: String, session: Option<Session>, step: Step) -> Sent {
    let (session, done) = match (session, step) {
        (Some(mut session), Step::Edits(edits)) => {
            let done = session.edit(&edits).await.map(drop);
            (Some(session), done)
        }
        (Some(mut session), Step::Whole(text)) => {
            let done = session.replace(text).await.map(drop);
            (Some(session), done)
        }
        (None, Step::Whole(text)) => {
            match connected.pool.open(&name, text, v1::Strategy::Unspecified).await {
                Ok(session) => (Some(session), Ok(())),
                Err(error) => (None, Err(error)),
            }
        }
        (session, Step::Rest) | (session @ None, Step::Edits(_)) => (session, Ok(())),
    };
    let tokens =
        session.as_ref().map_or(0, |session| usize::try_from(session.tokens()).unwrap_or(usize::MAX));
    Sent { session, told: done.map(|()| Told::Document { tokens }).map_err(LinkError::from) }
}
