//! What tenants hold, for who runs the pool: sessions whose clients have gone, or that are too many.

use super::AdminService;
use crate::call::{Call, More, Why};
use crate::closing::Place;
use crate::faults;
use crate::peers::passed_on;
use crate::service::Plane;
use crate::tenants::Tenant;
use pie_proto::request::SessionName;
use pie_proto::v1::close_tenant_sessions_request::Which;
use pie_proto::{Fault, Reason, v1};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::Status;

const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1000;
/// Sessions that are closed at a time.
const AT_ONCE: usize = 32;
/// A router that lives lists its sessions in this time.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// And closes them in this.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

impl AdminService {
    pub(super) async fn list_held(
        &self,
        request: v1::ListTenantSessionsRequest,
    ) -> Result<v1::ListTenantSessionsResponse, Status> {
        let limit = match request.page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_LIMIT),
        };
        let whose = request.tenant.as_deref().map(tenant).transpose()?;
        let after = after(&request.page_token)?;
        let (mut all, mut more) = (Vec::new(), More::No);
        for place in self.places() {
            let (page, rest) = place.held(whose.clone(), after.clone(), limit).await?;
            all.extend(page);
            more = more.or(rest);
        }
        if self.plane == Plane::Public {
            for router in self.directory.others() {
                let mut admin = self.directory.peers().admin(&router)?;
                let page =
                    tokio::time::timeout(LIST_TIMEOUT, admin.list_tenant_sessions(request.clone())).await;
                let page = page.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
                let page = page.map_err(|status| passed_on(&router, status))?.into_inner();
                all.extend(page.sessions);
                more = if page.next_page_token.is_empty() { more } else { More::Yes };
            }
        }
        all.sort_by(|a, b| place_of(a).cmp(&place_of(b)));
        if all.len() > limit {
            all.truncate(limit);
            more = More::Yes;
        }
        let last = all.last().map(|last| {
            let (tenant, name) = place_of(last);
            format!("{tenant}/{name}")
        });
        let next_page_token = if more == More::Yes { last.unwrap_or_default() } else { String::new() };
        Ok(v1::ListTenantSessionsResponse { sessions: all, next_page_token })
    }

    pub(super) async fn close_held(
        &self,
        request: v1::CloseTenantSessionsRequest,
    ) -> Result<v1::CloseTenantSessionsResponse, Status> {
        let whose = tenant(&request.tenant)?;
        let one = match &request.which {
            Some(Which::Session(name)) => Some(SessionName::new(name.clone())?),
            Some(Which::All(true)) => None,
            Some(Which::All(false)) | None => {
                let message =
                    "`session` or `all` must be given: which sessions of the tenant are to be closed";
                return Err(Fault::new(Reason::FieldMissing, message).into());
            }
        };
        let mut done = v1::CloseTenantSessionsResponse::default();
        for place in self.places() {
            match &one {
                Some(name) => match place.close(whose.clone(), name.clone(), None, Why::Admin).await {
                    Ok(()) => done.closed += 1,
                    Err(fault) if fault.reason == Reason::SessionUnknown => {}
                    Err(fault) => (done.left, done.why) = (done.left + 1, fault.to_string()),
                },
                None => place.close_all(&whose, &mut done).await?,
            }
        }
        if self.plane == Plane::Public {
            for router in self.directory.others() {
                let mut admin = self.directory.peers().admin(&router)?;
                let closing = admin.close_tenant_sessions(request.clone());
                let closed = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
                let closed = closed.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
                let closed = closed.map_err(|status| passed_on(&router, status))?.into_inner();
                (done.closed, done.left) = (done.closed + closed.closed, done.left + closed.left);
                done.why = if closed.why.is_empty() { done.why } else { closed.why };
            }
            if let (Some(name), 0, 0) = (&one, done.closed, done.left) {
                return Err(faults::no_session(name.as_str()).into());
            }
            tracing::info!(
                tenant = whose.as_str(),
                closed = done.closed,
                left = done.left,
                "sessions of a tenant were closed"
            );
        }
        Ok(done)
    }

    /// All groups of this router's: also those that are not served have documents.
    fn places(&self) -> Vec<Place> {
        let place = |(group, owner): (&pie_placement::GroupId, &crate::owner::Owner)| Place {
            directory: self.directory.clone(),
            group: group.clone(),
            owner: owner.clone(),
        };
        self.directory.locals().map(place).collect()
    }
}

impl Place {
    async fn held(
        &self,
        tenant: Option<Tenant>,
        after: Option<(Tenant, SessionName)>,
        limit: usize,
    ) -> Result<(Vec<v1::TenantSession>, More), Fault> {
        let (reply, answer) = oneshot::channel();
        self.owner.call(Call::Held { tenant, after, limit, reply })?;
        answer.await.map_err(|_| faults::stopping())
    }

    /// A page after the other: what is opened behind the last page meanwhile is closed too, what is opened before it is not.
    async fn close_all(
        &self,
        tenant: &Tenant,
        done: &mut v1::CloseTenantSessionsResponse,
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let (page, more) = self.held(Some(tenant.clone()), after, AT_ONCE).await?;
            let names = page.into_iter().filter_map(|held| SessionName::new(held.session?.session).ok());
            let names: Vec<_> = names.collect();
            after = names.last().map(|last| (tenant.clone(), last.clone()));
            let mut closing = JoinSet::new();
            for name in names {
                let (place, tenant) = (self.clone(), tenant.clone());
                closing.spawn(async move { place.close(tenant, name, None, Why::Admin).await });
            }
            while let Some(closed) = closing.join_next().await {
                match closed.unwrap_or_else(|_| Err(faults::stopping())) {
                    Ok(()) => done.closed += 1,
                    // Its client was quicker.
                    Err(fault) if fault.reason == Reason::SessionUnknown => {}
                    Err(fault) => (done.left, done.why) = (done.left + 1, fault.to_string()),
                }
            }
            if more == More::No || after.is_none() {
                return Ok(());
            }
        }
    }
}

fn tenant(name: &str) -> Result<Tenant, Fault> {
    if name.is_empty() { Ok(Tenant::default()) } else { Tenant::new(name) }
}

fn place_of(held: &v1::TenantSession) -> (&str, &str) {
    (&held.tenant, held.session.as_ref().map_or("", |session| session.session.as_str()))
}

/// A page token is a tenant, which has no slash, and a session's name.
fn after(page_token: &str) -> Result<Option<(Tenant, SessionName)>, Fault> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let wrong = || Fault::new(Reason::BadPageToken, "the page token is not one of this pool's");
    let (whose, name) = page_token.split_once('/').ok_or_else(wrong)?;
    let (whose, name) =
        (tenant(whose).map_err(|_| wrong())?, SessionName::new(name.to_owned()).map_err(|_| wrong())?);
    Ok(Some((whose, name)))
}
