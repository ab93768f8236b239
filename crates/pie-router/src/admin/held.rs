//! What tenants hold, for who runs the pool: sessions whose clients have gone, or that are too many.

use super::AdminService;
use crate::faults;
use crate::group::LocalGroup;
use crate::service::Plane;
use pie_group::call::{Call, More, Why};
use pie_group::tenants::Tenant;
use pie_proto::request::SessionName;
use pie_proto::v1::admin_client::AdminClient;
use pie_proto::v1::close_tenant_sessions_request::Which;
use pie_proto::{Fault, Reason, v1};
use std::time::Duration;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

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
        for group in self.router.locals() {
            let (page, rest) = group.held(whose.clone(), after.clone(), limit).await?;
            all.extend(page);
            more = more.or(rest);
        }
        let list = |mut admin: AdminClient<Channel>| {
            let request = request.clone();
            async move { admin.list_tenant_sessions(request).await }
        };
        for page in self.ask_others(LIST_TIMEOUT, list).await? {
            all.extend(page.sessions);
            more = if page.next_page_token.is_empty() { more } else { More::Yes };
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
        for group in self.router.locals() {
            match &one {
                Some(name) => match group.close(whose.clone(), name.clone(), None, Why::Admin).await {
                    Ok(()) => done.closed += 1,
                    Err(fault) if fault.reason == Reason::SessionUnknown => {}
                    Err(fault) => (done.left, done.why) = (done.left + 1, fault.to_string()),
                },
                None => group.close_all(&whose, &mut done).await?,
            }
        }
        let close = |mut admin: AdminClient<Channel>| {
            let request = request.clone();
            async move { admin.close_tenant_sessions(request).await }
        };
        for closed in self.ask_others(CLOSE_TIMEOUT, close).await? {
            (done.closed, done.left) = (done.closed + closed.closed, done.left + closed.left);
            done.why = if closed.why.is_empty() { done.why } else { closed.why };
        }
        if self.plane == Plane::Public {
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
}

impl LocalGroup {
    async fn held(
        &self,
        tenant: Option<Tenant>,
        after: Option<(Tenant, SessionName)>,
        limit: usize,
    ) -> Result<(Vec<v1::TenantSession>, More), Fault> {
        self.owner.ask(|reply| Call::Held { tenant, after, limit, reply }).await
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
                let (group, tenant) = (self.clone(), tenant.clone());
                closing.spawn(async move { group.close(tenant, name, None, Why::Admin).await });
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
