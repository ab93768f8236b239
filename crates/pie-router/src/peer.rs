//! What this router answers to others: whether it wants a group, and the documents that it has of one.

use crate::faults;
use crate::group::{Asker, GroupCall, Router};
use pie_group::call::{ArrivedDocuments, Call};
use pie_group::owner::{GroupState, OwnerHandle};
use pie_group::tenants::Tenant;
use pie_placement::GroupId;
use pie_proto::peer_v1::peer_server::Peer;
use pie_proto::{Fault, Reason, peer_v1};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub(crate) struct PeerService(pub Arc<Router>);

impl PeerService {
    /// A router that was started again has nothing of what its former run had, though it answers at the same address; it may even ask
    /// itself.
    fn is_meant(&self, router: &str) -> bool {
        router.is_empty() || router == self.0.groups.me.as_str()
    }

    /// The owner-to-be in this router.
    fn candidate(&self, name: &str) -> Result<Option<&OwnerHandle>, Fault> {
        Ok(self.0.groups.candidate(&group(name)?))
    }
}

fn group(name: &str) -> Result<GroupId, Fault> {
    GroupId::new(name).map_err(|error| Fault::new(Reason::GroupUnknown, error.to_string()))
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn take_session(
        &self,
        request: Request<peer_v1::TakeSessionRequest>,
    ) -> Result<Response<peer_v1::TakeSessionResponse>, Status> {
        let request = request.into_inner();
        let group = self.0.owned(&group(&request.group)?)?;
        let asker = Asker { tenant: Tenant::default(), arrived: Instant::now() };
        request.here(group, asker).await.map(Response::new)
    }

    async fn standing(
        &self,
        request: Request<peer_v1::StandingRequest>,
    ) -> Result<Response<peer_v1::StandingResponse>, Status> {
        let peer_v1::StandingRequest { group: name, router } = request.into_inner();
        let owner = self.candidate(&name)?;
        let candidate =
            self.is_meant(&router) && owner.is_some_and(|owner| owner.now() != GroupState::Retired);
        Ok(Response::new(peer_v1::StandingResponse { candidate }))
    }

    type GiveGroupStream = Pin<Box<dyn Stream<Item = Result<peer_v1::Carried, Status>> + Send>>;

    async fn give_group(
        &self,
        request: Request<peer_v1::GiveGroupRequest>,
    ) -> Result<Response<Self::GiveGroupStream>, Status> {
        let peer_v1::GiveGroupRequest { group: name, router } = request.into_inner();
        let owner = self.candidate(&name)?.filter(|_| self.is_meant(&router));
        let owner = owner.ok_or_else(|| faults::not_the_owner(&name))?;
        let all = owner.ask_surely(|reply| Call::GiveAll { reply }).await??;
        let stream = tokio_stream::iter(all.into_iter().map(|carried| Ok(carried.into())));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn group_arrived(
        &self,
        request: Request<peer_v1::GroupArrivedRequest>,
    ) -> Result<Response<peer_v1::GroupArrivedResponse>, Status> {
        let name = request.into_inner().group;
        let owner = self.candidate(&name)?.ok_or_else(|| faults::not_the_owner(&name))?;
        owner.call(Call::Arrived { what: ArrivedDocuments::All })?;
        Ok(Response::new(peer_v1::GroupArrivedResponse {}))
    }
}
