//! The placement knows where each session lives, until it loses its data: then the owner, which has the documents, tells it again.

use super::Event;
use super::background::Common;
use crate::call::{Call, Departure};
use crate::ranks::OwnerGone;
use crate::tenants::Tenant;
use pie_placement::SessionKey;
use pie_proto::request::SessionName;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::Span;

/// Before the placement is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// A session on its way is at its new home before the placement says so: for less than this.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// What the placement says of a session of this group.
enum SessionHome {
    Here,
    Elsewhere,
    /// It does not say, and will not: the group takes no new sessions, or is not this router's any more.
    Unsaid,
}

impl Common {
    /// Claims the homes of all sessions. One that its client has opened in another group meanwhile lives there, with the client's text.
    pub async fn claim_homes(self: Arc<Self>, residents: Vec<(Tenant, SessionName)>) {
        let mut strayed = Vec::new();
        for (tenant, name) in residents {
            let Ok(key) = tenant.session_key(&name) else { continue };
            match self.home(&key).await {
                SessionHome::Here => {}
                SessionHome::Elsewhere => strayed.push((tenant, name, key)),
                SessionHome::Unsaid => return,
            }
        }
        if strayed.is_empty() {
            return;
        }
        tokio::time::sleep(ON_ITS_WAY).await;
        for (tenant, session, key) in strayed {
            if let SessionHome::Elsewhere = self.home(&key).await {
                tracing::warn!(group = %self.options.group, session = session.as_str(), "a document is left: its session lives in another group");
                if let Err(OwnerGone) = self.leave(tenant, session).await {
                    return;
                }
            }
        }
    }

    /// First it is out of reach, then it is gone, like all that leave.
    async fn leave(&self, tenant: Tenant, session: SessionName) -> Result<(), OwnerGone> {
        let (reply, vacated) = oneshot::channel();
        self.tell(Call::Vacate { tenant, session, identity: None, reply }).await?;
        // It may have been closed meanwhile.
        let Ok(Ok(resident)) = vacated.await else { return Ok(()) };
        self.tell(Call::Depart { resident, departure: Departure::Moved }).await
    }

    async fn tell(&self, call: Call) -> Result<(), OwnerGone> {
        self.events.send(Event::Call(call, Span::current())).await
    }

    async fn home(&self, key: &SessionKey) -> SessionHome {
        while self.tenure.is_sure() {
            match self.placement.place_session(key, &self.options.group).await {
                Ok(placed) if *placed.group() == self.options.group => return SessionHome::Here,
                Ok(_) => return SessionHome::Elsewhere,
                Err(error) if error.is_transient() => {
                    tracing::debug!(group = %self.options.group, %error, "a session's home is not claimed yet");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(group = %self.options.group, %error, "the homes of sessions are not claimed");
                    return SessionHome::Unsaid;
                }
            }
        }
        SessionHome::Unsaid
    }
}
