//! What those who run the pool ask of it: to empty a group, and to use it again. Any router takes these calls, and passes them on to the
//! group's owner.

mod held;

use crate::directory::Home;
use crate::elsewhere::{Elsewhere, admin, passed_on};
use crate::group::{Asker, GroupCall, LocalGroup, Router};
use crate::packing::answer;
use crate::service::Plane;
use pie_group::tenants::Tenant;
use pie_placement::{Admission, GroupId};
use pie_proto::v1::admin_client::AdminClient;
use pie_proto::v1::admin_server::Admin;
use pie_proto::{Fault, Reason, v1};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Completions that run may hold their session back so long, if the caller does not say.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone)]
pub(crate) struct AdminService {
    /// Who calls.
    pub plane: Plane,
    /// What answers.
    pub router: Arc<Router>,
}

impl AdminService {
    async fn known(&self, name: &str) -> Result<GroupId, Fault> {
        let unknown = |why: &dyn std::fmt::Display| {
            Fault::new(
                Reason::GroupUnknown,
                format!("group `{name}`: {why}; `pie ctl pool` lists the groups"),
            )
        };
        let group = GroupId::new(name).map_err(|error| unknown(&error))?;
        let records = self.router.groups.listed().await?;
        match records.iter().any(|record| record.group == group) {
            true => Ok(group),
            false => Err(unknown(&"nobody has heard of it")),
        }
    }

    /// Asks all other routers that own groups, one after the other; on the internal plane nobody.
    async fn ask_others<T, Answer: Future<Output = Result<Response<T>, Status>>>(
        &self,
        patience: Duration,
        ask: impl Fn(AdminClient<Channel>) -> Answer,
    ) -> Result<Vec<T>, Status> {
        let Router { groups, .. } = &*self.router;
        let others = if self.plane == Plane::Public { groups.others() } else { Vec::new() };
        let mut answers = Vec::new();
        for (_, router) in others {
            let answer = tokio::time::timeout(patience, ask(admin(groups.peers.channel(&router)?))).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
            answers.push(answer.map_err(|status| passed_on(&router, status))?.into_inner());
        }
        Ok(answers)
    }
}

type Drain = Pin<Box<dyn Stream<Item = Result<v1::DrainGroupResponse, Status>> + Send>>;

impl GroupCall for v1::DrainGroupRequest {
    type Answer = Drain;

    async fn here(self, group: LocalGroup, _: Asker) -> Result<Drain, Status> {
        let timeout = match self.timeout_ms {
            0 => DRAIN_TIMEOUT,
            milliseconds => Duration::from_millis(milliseconds.into()),
        };
        let (progress, messages) = mpsc::channel(16);
        // It goes on to its end whoever listens: half a group emptied is of no use to anybody.
        tokio::spawn(group.drain(timeout, progress));
        Ok(Box::pin(ReceiverStream::new(messages)))
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Drain, Status> {
        let drain = group
            .call(self, async |channel, request| AdminClient::new(channel).drain_group(request).await)
            .await?;
        Ok(Box::pin(drain))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type DrainGroupStream = Drain;

    async fn drain_group(
        &self,
        request: Request<v1::DrainGroupRequest>,
    ) -> Result<Response<Self::DrainGroupStream>, Status> {
        let request = request.into_inner();
        let group = self.known(&request.group).await?;
        let asker = Asker { tenant: Tenant::default(), arrived: Instant::now() };
        if self.plane == Plane::Internal {
            return request.here(self.router.owned(&group)?, asker).await.map(Response::new);
        }
        let admission = match request.reopening() {
            v1::Reopening::Unspecified | v1::Reopening::ByHand => Admission::Cordoned,
            v1::Reopening::WhenFormed => Admission::CordonedUntilFormed,
        };
        self.router.groups.admit(&group, admission).await?;
        let drain = match self.router.groups.target(&group) {
            Ok(target) => self.router.call(&Home { group, target }, asker, request).await?,
            // Nobody owns it, so nobody has sessions of it.
            Err(_) => Box::pin(tokio_stream::once(Ok(v1::DrainGroupResponse::default()))),
        };
        Ok(Response::new(drain))
    }

    async fn list_tenant_sessions(
        &self,
        request: Request<v1::ListTenantSessionsRequest>,
    ) -> Result<Response<v1::ListTenantSessionsResponse>, Status> {
        Ok(answer(self.list_held(request.into_inner()).await?))
    }

    async fn close_tenant_sessions(
        &self,
        request: Request<v1::CloseTenantSessionsRequest>,
    ) -> Result<Response<v1::CloseTenantSessionsResponse>, Status> {
        Ok(Response::new(self.close_held(request.into_inner()).await?))
    }

    async fn uncordon_group(
        &self,
        request: Request<v1::UncordonGroupRequest>,
    ) -> Result<Response<v1::UncordonGroupResponse>, Status> {
        let group = self.known(&request.into_inner().group).await?;
        self.router.groups.admit(&group, Admission::Open).await?;
        Ok(Response::new(v1::UncordonGroupResponse {}))
    }
}
