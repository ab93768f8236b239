//! What the whole pool holds, put together from this router's groups and what other routers say of theirs.

use super::{Plane, PoolService};
use crate::directory::describe;
use crate::elsewhere::{Elsewhere, pool};
use crate::faults;
use pie_group::call::{Call, More};
use pie_group::tenants::Tenant;
use pie_placement::{Admission, GroupId, GroupRecord, RouterRecord};
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason, v1};
use tonic::Status;

/// Sessions on a page, if the caller does not say, and at most.
const PAGE: usize = 100;
const PAGE_LIMIT: usize = 1000;
/// Page tokens are names behind this, so that a client's own text is not taken for one.
const PAGE_TOKEN: &str = "after:";

/// The name behind which a page begins.
fn after(page_token: &str) -> Result<Option<SessionName>, Fault> {
    match page_token.strip_prefix(PAGE_TOKEN) {
        Some(name) => SessionName::new(name.to_owned()).map(Some),
        None if page_token.is_empty() => Ok(None),
        None => Err(Fault::new(Reason::BadPageToken, "the page token is not one of this pool's")),
    }
}

impl PoolService {
    /// The other routers that own groups; on the internal plane nobody else is asked.
    fn others(&self) -> Vec<(GroupId, RouterRecord)> {
        if self.plane == Plane::Public { self.router.groups.others() } else { Vec::new() }
    }

    /// The sessions of this router's groups, and with `Plane::Public` those of all others.
    pub(super) async fn list(
        &self,
        tenant: Tenant,
        request: v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse, Status> {
        let limit = match request.page_size as usize {
            0 => PAGE,
            size => size.min(PAGE_LIMIT),
        };
        let after = self.router.counted(after(&request.page_token))?;
        let (mut all, mut more) = (Vec::new(), More::No);
        for group in self.router.locals() {
            if !group.owner.is_sure() {
                // Documents that may be another router's by now are not told of; where there are none, there is nothing to tell.
                if group.owner.holdings().sessions > 0 {
                    self.router.counted(Err(faults::unsure(group.id.as_str())))?;
                }
                continue;
            }
            let (tenant, after) = (tenant.clone(), after.clone());
            let listed = group.owner.ask(|reply| Call::List { tenant, after, limit, reply }).await;
            let (sessions, rest) = self.router.counted(listed)?;
            all.extend(sessions);
            more = more.or(rest);
        }
        for (group, router) in self.others() {
            let elsewhere = Elsewhere::new(&self.router.groups.peers, &router, &group, &tenant);
            let elsewhere = self.router.counted(elsewhere)?;
            let request = request.clone();
            let page = elsewhere
                .call(request, async |channel, request| pool(channel).list_sessions(request).await)
                .await?;
            all.extend(page.sessions);
            more = if page.next_page_token.is_empty() { more } else { More::Yes };
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

    /// This router's groups as their owners describe them, and with `Plane::Public` those of others, and those that nobody owns.
    pub(super) async fn describe(&self) -> Result<v1::DescribePoolResponse, Status> {
        let mut described = v1::DescribePoolResponse::default();
        for group in self.router.locals() {
            let owned = self.router.groups.local(&group.id).is_some();
            let of_group = self.router.counted(group.owner.ask(|reply| Call::Describe { reply }).await)?;
            merge(&mut described, of_group, owned);
        }
        if self.plane == Plane::Internal {
            return Ok(described);
        }
        for (_, router) in self.others() {
            if let Ok(others) = describe(&self.router.groups.peers, &router).await {
                merge(&mut described, others, true);
            }
        }
        for record in self.router.counted(self.router.groups.listed().await)? {
            complete_by(&mut described, record);
        }
        described.groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(described)
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
