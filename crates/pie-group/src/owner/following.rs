//! Documents that follow their group: from a router that lost it to the one that has it.

use super::Event;
use super::background::Common;
use crate::call::{ArrivedDocuments, Call};
use crate::carrying;
use crate::ranks::OwnerGone;
use pie_placement::RouterRecord;
use pie_proto::Reason;
use pie_proto::carried::Carried;
use pie_proto::peer_v1::TakeSessionRequest;
use pie_proto::reason::reason_of;
use pie_words::Epoch;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tracing::Span;

/// A router that lives takes a document in this time.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of a document that is offered.
enum Offer {
    Taken,
    /// It never will be, and why.
    Refused(Status),
    /// The router does not serve the group yet, or not any more, or is not there.
    Later(Status),
}

impl Common {
    /// Sends documents to the router that owns their group. What it does not take now stays here: as long as it owns the group, it is
    /// offered again.
    pub async fn send_after(self: Arc<Self>, router: RouterRecord, served: Epoch, left: Vec<Carried>) {
        let group = &self.options.group;
        tracing::info!(%group, sessions = left.len(), router = %router.id, "documents follow the group to its owner");
        for carried in left {
            let name = carried.name.clone();
            let tenant = match carrying::tenant(&carried) {
                Ok(tenant) => tenant,
                Err(fault) => {
                    tracing::error!(%fault, session = name.as_str(), "a document cannot follow its group");
                    continue;
                }
            };
            match self.offer(&router, served, carried).await {
                Offer::Taken => {}
                Offer::Refused(error) => {
                    let error = error.message();
                    tracing::error!(%error, session = name.as_str(), "the group's owner refuses a document: its client opens it again");
                }
                Offer::Later(error) => {
                    let error = error.message();
                    tracing::debug!(%group, %error, "the group's owner takes no documents yet");
                    return;
                }
            }
            let arrived = Call::Arrived { what: ArrivedDocuments::One(tenant, name) };
            if let Err(OwnerGone) = self.events.send(Event::Call(arrived, Span::current())).await {
                return;
            }
        }
    }

    async fn offer(&self, router: &RouterRecord, served: Epoch, carried: Carried) -> Offer {
        let group = self.options.group.to_string();
        let request = TakeSessionRequest { group, session: Some(carried.into()), left_from: served.0 };
        let mut peer = match self.options.peers.peer(router) {
            Ok(peer) => peer,
            Err(fault) => return Offer::Later(fault.into()),
        };
        let late = || Status::deadline_exceeded("it does not answer in time");
        let taken = tokio::time::timeout(TAKE_TIMEOUT, peer.take_session(request)).await;
        match taken.unwrap_or_else(|_| Err(late())) {
            Ok(_) => Offer::Taken,
            Err(status) => match reason_of(&status) {
                None
                | Some(
                    Reason::SessionElsewhere
                    | Reason::SessionMoving
                    | Reason::OwnershipUnsure
                    | Reason::Overloaded
                    | Reason::ShuttingDown,
                ) => Offer::Later(status),
                Some(_) => Offer::Refused(status),
            },
        }
    }
}
