//! What the whole pool holds, put together from this router's groups and what other routers say of theirs.

use super::{Plane, PoolService};
use crate::call::{Call, More};
use crate::directory::describe;
use crate::tenants::Tenant;
use pie_placement::{Admission, GroupId, GroupRecord, RouterRecord};
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, v1};
use tokio::sync::oneshot;
use tonic::Status;

/// Page tokens are names behind this, so that a client's own text is not taken for one.
const PAGE_TOKEN: &str = "after:";

/// The name behind which a page begins.
pub(super) fn after(page_token: &str) -> Result<Option<SessionName>, Fault> {
    match page_token.strip_prefix(PAGE_TOKEN) {
        Some(name) => SessionName::new(name.to_owned()).map(Some),
        None if page_token.is_empty() => Ok(None),
        None => Err(Fault::new(Reason::BadPageToken, "the page token is not one of this pool's")),
    }
}

impl PoolService {
    /// The sessions of this router's groups, and with `Plane::Public` those of all others.
    pub(super) async fn list(
        &self,
        tenant: &Tenant,
        after: Option<SessionName>,
        limit: usize,
    ) -> Result<v1::ListSessionsResponse, Status> {
        let (mut all, mut more) = (Vec::new(), More::No);
        for (_, owner) in self.directory.locals() {
            let (reply, answer) = oneshot::channel();
            let (tenant, after) = (tenant.clone(), after.clone());
            let call = Call::List { tenant, after, limit, reply };
            let (sessions, rest) = self.reach(owner, call, answer).await?;
            all.extend(sessions);
            more = more.or(rest);
        }
        if self.plane == Plane::Public {
            for (group, router) in once_each(self.directory.remotes()) {
                let page_token = after.as_ref().map(|name| format!("{PAGE_TOKEN}{name}")).unwrap_or_default();
                let page_size = u32::try_from(limit).unwrap_or(u32::MAX);
                let message = v1::ListSessionsRequest { page_size, page_token };
                let elsewhere = self.elsewhere(&router, &group, tenant)?;
                let page =
                    elsewhere.call(message, async |pool, request| pool.list_sessions(request).await).await?;
                all.extend(page.sessions);
                more = if page.next_page_token.is_empty() { more } else { More::Yes };
            }
        }
        all.sort_by(|a, b| a.session.cmp(&b.session));
        if all.len() > limit {
            all.truncate(limit);
            more = More::Yes;
        }
        let last = all.last().map(|session| format!("{PAGE_TOKEN}{}", session.session));
        let next_page_token = if more == More::Yes { last.unwrap_or_default() } else { String::new() };
        Ok(v1::ListSessionsResponse { sessions: all, next_page_token })
    }

    /// This router's groups as their owners describe them.
    pub(super) async fn describe_own(&self) -> Result<v1::DescribePoolResponse, Status> {
        let mut pool = v1::DescribePoolResponse::default();
        for (id, owner) in self.directory.locals() {
            let owned = self.directory.local(id).is_some();
            let (reply, answer) = oneshot::channel();
            let described = self.reach(owner, Call::Describe { reply }, answer).await?;
            merge(&mut pool, described, owned);
        }
        Ok(pool)
    }

    /// Adds the groups of other routers, and those that nobody owns.
    pub(super) async fn describe_others(&self, pool: &mut v1::DescribePoolResponse) -> Result<(), Status> {
        for (_, router) in once_each(self.directory.remotes()) {
            if let Ok(described) = describe(self.directory.peers(), &router).await {
                merge(pool, described, true);
            }
        }
        for record in self.counted(self.directory.groups().await)? {
            complete_by(pool, record);
        }
        pool.groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(())
    }
}

/// Adds what a router says of groups; what it says of groups that it does not own is left out.
fn merge(pool: &mut v1::DescribePoolResponse, described: v1::DescribePoolResponse, owned: bool) {
    let mut groups = std::mem::take(&mut pool.groups);
    if pool.model.is_empty() {
        *pool = v1::DescribePoolResponse { groups: Vec::new(), ..described.clone() };
    }
    let waiting = |group: &v1::Group| owned || group.state != "serving";
    groups.extend(described.groups.into_iter().filter(waiting));
    pool.groups = groups;
}

/// Adds what the placement knows of a group.
fn complete_by(pool: &mut v1::DescribePoolResponse, record: GroupRecord) {
    let name = record.group.as_str();
    // A candidate and the owner may both speak of a group: the owner has the word.
    if pool.groups.iter().filter(|group| group.group == name).count() > 1 {
        let serves = pool.groups.iter().any(|group| group.group == name && group.state == "serving");
        pool.groups.retain(|group| group.group != name || !serves || group.state == "serving");
    }
    if !pool.groups.iter().any(|group| group.group == name) {
        let state = match &record.owner {
            Some(owner) => format!("router {} does not answer", owner.router.id),
            None => "no router owns it".to_owned(),
        };
        pool.groups.push(v1::Group { group: name.to_owned(), state, ..Default::default() });
    }
    for group in pool.groups.iter_mut().filter(|group| group.group == name) {
        group.open = record.admission == Admission::Open;
        group.owner = record.owner.as_ref().map(|owner| owner.router.address.clone()).unwrap_or_default();
    }
}

/// A router owns several groups; it is asked once.
fn once_each(mut remotes: Vec<(GroupId, RouterRecord)>) -> Vec<(GroupId, RouterRecord)> {
    remotes.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
    remotes.dedup_by(|(_, a), (_, b)| a.id == b.id);
    remotes
}
