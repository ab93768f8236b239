//! What tenants hold, for who runs the pool.

use super::caller::{CtlError, PoolCaller, Wait};
use pie_proto::v1;
use pie_proto::v1::close_tenant_sessions_request::Which;

/// Sessions of a page.
const PAGE: u32 = 1000;
/// On the command line: those who do not say who they are.
const NOBODY: &str = "-";

fn tenant(whose: &str) -> String {
    if whose == NOBODY { String::new() } else { whose.to_owned() }
}

/// All of a tenant's sessions, or of all tenants'.
pub async fn list(caller: &PoolCaller, whose: Option<String>) -> Result<Vec<v1::TenantSession>, CtlError> {
    let tenant = whose.as_deref().map(tenant);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListTenantSessionsRequest { tenant: tenant.clone(), page_size: PAGE, page_token };
        let mut admin = caller.pool().admin();
        let listed =
            caller.call(Wait::Answer, "list what tenants hold", admin.list_tenant_sessions(request)).await?;
        all.extend(listed.sessions);
        page_token = listed.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Closes one of a tenant's sessions, or all.
pub async fn close(
    caller: &PoolCaller,
    whose: &str,
    session: Option<String>,
) -> Result<v1::CloseTenantSessionsResponse, CtlError> {
    let which = Some(session.map_or(Which::All(true), Which::Session));
    let request = v1::CloseTenantSessionsRequest { tenant: tenant(whose), which };
    let mut admin = caller.pool().admin();
    caller.call(Wait::Text, "close what the tenant holds", admin.close_tenant_sessions(request)).await
}
