//! What this router answers to others: whether it wants a group, and the documents that it has of one.

use crate::call::{Arrived, Call};
use crate::carrying;
use crate::directory::Directory;
use crate::faults;
use crate::moving::take;
use crate::owner::State;
use pie_placement::GroupId;
use pie_proto::peer_v1::peer_server::Peer;
use pie_proto::{Fault, Reason, peer_v1};
use pie_text::Tokenizer;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub directory: Arc<Directory>,
    pub tokenizer: Arc<Tokenizer>,
    pub document_limit: usize,
}

impl PeerService {
    /// A router that was started again has nothing of what its former run had, though it answers at the same address; it may even ask
    /// itself.
    fn is_meant(&self, router: &str) -> bool {
        router.is_empty() || router == self.directory.me().as_str()
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
        let peer_v1::TakeSessionRequest { group: name, session } = request.into_inner();
        let owner = self.directory.local(&group(&name)?).ok_or_else(|| faults::not_the_owner(&name))?;
        let session = session.ok_or_else(|| Fault::new(Reason::FieldMissing, "`session` is missing"))?;
        let taken = carrying::unpack(session, self.tokenizer.clone(), self.document_limit).await?;
        take(owner, taken).await?;
        Ok(Response::new(peer_v1::TakeSessionResponse {}))
    }

    async fn standing(
        &self,
        request: Request<peer_v1::StandingRequest>,
    ) -> Result<Response<peer_v1::StandingResponse>, Status> {
        let peer_v1::StandingRequest { group: name, router } = request.into_inner();
        let owner = self.directory.candidate(&group(&name)?);
        let candidate = self.is_meant(&router) && owner.is_some_and(|owner| owner.now() != State::Retired);
        Ok(Response::new(peer_v1::StandingResponse { candidate }))
    }

    type GiveGroupStream = Pin<Box<dyn Stream<Item = Result<peer_v1::Carried, Status>> + Send>>;

    async fn give_group(
        &self,
        request: Request<peer_v1::GiveGroupRequest>,
    ) -> Result<Response<Self::GiveGroupStream>, Status> {
        let peer_v1::GiveGroupRequest { group: name, router } = request.into_inner();
        let owner = self.directory.candidate(&group(&name)?).filter(|_| self.is_meant(&router));
        let owner = owner.ok_or_else(|| faults::not_the_owner(&name))?;
        let (reply, answer) = oneshot::channel();
        owner.tell(Call::GiveAll { reply }).await?;
        let all = answer.await.map_err(|_| faults::stopping())??;
        let stream = tokio_stream::iter(all.into_iter().map(|carried| Ok(carried.into())));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn group_arrived(
        &self,
        request: Request<peer_v1::GroupArrivedRequest>,
    ) -> Result<Response<peer_v1::GroupArrivedResponse>, Status> {
        let name = request.into_inner().group;
        let owner = self.directory.candidate(&group(&name)?).ok_or_else(|| faults::not_the_owner(&name))?;
        owner.call(Call::Arrived { what: Arrived::All })?;
        Ok(Response::new(peer_v1::GroupArrivedResponse {}))
    }
}
