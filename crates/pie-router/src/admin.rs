//! What those who run the pool ask of it: to empty a group, and to use it again. Any router takes these calls, and passes them on to the
//! group's owner.

mod held;

use crate::directory::{Directory, Target};
use crate::moving::Mover;
use crate::peers::passed_on;
use crate::service::Plane;
use pie_placement::{Admission, GroupId};
use pie_proto::v1::admin_server::Admin;
use pie_proto::{Fault, Reason, v1};
use pie_text::Tokenizer;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Completions that run may hold their session back so long, if the caller does not say.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone)]
pub(crate) struct AdminService {
    pub plane: Plane,
    pub directory: Arc<Directory>,
    pub tokenizer: Arc<Tokenizer>,
    pub document_limit: usize,
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
        let records = self.directory.groups().await?;
        match records.iter().any(|record| record.group == group) {
            true => Ok(group),
            false => Err(unknown(&"nobody has heard of it")),
        }
    }

    async fn drain_here(&self, group: GroupId, request: &v1::DrainGroupRequest) -> Result<Drain, Status> {
        let owner = self.directory.local(&group).cloned();
        let owner = owner.ok_or_else(|| crate::faults::not_the_owner(group.as_str()))?;
        let timeout = match request.timeout_ms {
            0 => DRAIN_TIMEOUT,
            milliseconds => Duration::from_millis(milliseconds.into()),
        };
        let (progress, messages) = mpsc::channel(16);
        let (directory, tokenizer) = (self.directory.clone(), self.tokenizer.clone());
        let mover = Mover { directory, tokenizer, document_limit: self.document_limit, group, owner };
        // It goes on to its end whoever listens: half a group emptied is of no use to anybody.
        tokio::spawn(mover.drain(timeout, progress));
        Ok(Box::pin(ReceiverStream::new(messages)))
    }
}

type Drain = Pin<Box<dyn Stream<Item = Result<v1::DrainGroupResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    type DrainGroupStream = Drain;

    async fn drain_group(
        &self,
        request: Request<v1::DrainGroupRequest>,
    ) -> Result<Response<Self::DrainGroupStream>, Status> {
        let request = request.into_inner();
        let group = self.known(&request.group).await?;
        if self.plane == Plane::Internal {
            return Ok(Response::new(self.drain_here(group, &request).await?));
        }
        let admission = match request.reopening() {
            v1::Reopening::Unspecified | v1::Reopening::ByHand => Admission::Cordoned,
            v1::Reopening::WhenFormed => Admission::CordonedUntilFormed,
        };
        self.directory.admit(&group, admission).await?;
        let drain = match self.directory.target(&group) {
            Ok(Target::Local(_)) => self.drain_here(group, &request).await?,
            Ok(Target::Remote(router)) => {
                let mut admin = self.directory.peers().admin(&router)?;
                let stream = admin.drain_group(request).await;
                Box::pin(stream.map_err(|status| passed_on(&router, status))?.into_inner())
            }
            // Nobody owns it, so nobody has sessions of it.
            Err(_) => Box::pin(tokio_stream::once(Ok(v1::DrainGroupResponse::default()))),
        };
        Ok(Response::new(drain))
    }

    async fn list_tenant_sessions(
        &self,
        request: Request<v1::ListTenantSessionsRequest>,
    ) -> Result<Response<v1::ListTenantSessionsResponse>, Status> {
        Ok(Response::new(self.list_held(request.into_inner()).await?))
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
        self.directory.admit(&group, Admission::Open).await?;
        Ok(Response::new(v1::UncordonGroupResponse {}))
    }
}
