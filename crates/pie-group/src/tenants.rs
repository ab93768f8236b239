//! What each tenant has, and may have.

use pie_placement::SessionKey;
use pie_proto::request::SessionName;
use pie_proto::{Fault, Reason};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Who a session belongs to; nobody in particular without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

const NAME_LIMIT: usize = 64;
/// When to try again after a refusal by a limit.
const RETRY: Duration = Duration::from_millis(500);

impl Tenant {
    /// A tenant by name.
    ///
    /// # Errors
    /// [`Reason::BadTenant`].
    pub fn new(name: &str) -> Result<Self, Fault> {
        // A slash ends it where the placement keeps it before a session's name.
        let visible = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if !visible || name.len() > NAME_LIMIT {
            let message =
                format!("a tenant's name must be 1 to {NAME_LIMIT} visible ASCII characters other than `/`");
            return Err(Fault::new(Reason::BadTenant, message));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name; empty for nobody in particular.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A session's name in the whole pool. A tenant's name has no slash, so that no two can be mixed up.
    ///
    /// # Errors
    /// [`Reason::BadSessionName`]: too long for the placement.
    pub fn session_key(&self, name: &SessionName) -> Result<SessionKey, Fault> {
        SessionKey::new(format!("{}/{name}", self.0))
            .map_err(|error| Fault::new(Reason::BadSessionName, error.to_string()))
    }

    /// The first bits of the SHA-256 of the name: what others are told who only need to know whether two are the same.
    pub fn digest(&self) -> u64 {
        let digest = digest(&SHA256, self.0.as_bytes());
        digest.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Use the pool.
    User,
    /// And run it.
    Admin,
}

/// Whose call it is, by its token: an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// In whose name.
    pub tenant: Tenant,
    /// With which rights.
    pub role: Role,
}

/// The most that one tenant may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Open sessions.
    pub sessions: usize,
    /// Tokens of their documents.
    pub tokens: usize,
    /// Completions that run or wait.
    pub requests: usize,
}

impl TenantLimits {
    /// No limits.
    pub const NONE: Self = Self { sessions: usize::MAX, tokens: usize::MAX, requests: usize::MAX };
}

/// Whose encoded rows a document with the same beginning may take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Its own tenant's. What is cached answers sooner, so that whoever shares can find out what others hold.
    #[default]
    WithinTenant,
    /// Everybody's: for pools whose tenants trust each other.
    AcrossTenants,
}

/// What one tenant may have, where that differs from [`TenantLimits`] for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Open sessions.
    pub sessions: Option<usize>,
    /// Tokens of their documents.
    pub tokens: Option<usize>,
    /// Completions that run or wait.
    pub requests: Option<usize>,
}

/// The tenants that have limits of their own. Clones share them; they may change at any time, and what is above a new limit
/// stays, but does not grow.
#[derive(Clone, Debug, Default)]
pub struct Quotas(Arc<RwLock<BTreeMap<Tenant, Quota>>>);

impl Quotas {
    /// From now on these hold, and no others.
    pub fn replace(&self, quotas: BTreeMap<Tenant, Quota>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = quotas;
    }

    fn limits(&self, tenant: &Tenant, all: TenantLimits) -> TenantLimits {
        let own = self.0.read().unwrap_or_else(PoisonError::into_inner).get(tenant).copied();
        let own = own.unwrap_or_default();
        TenantLimits {
            sessions: own.sessions.unwrap_or(all.sessions),
            tokens: own.tokens.unwrap_or(all.tokens),
            requests: own.requests.unwrap_or(all.requests),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    sessions: usize,
    tokens: usize,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Tenants {
    /// Of each tenant without a quota.
    limits: TenantLimits,
    quotas: Quotas,
    usage: BTreeMap<Tenant, Usage>,
}

impl Tenants {
    /// Nobody has anything yet.
    pub fn new(limits: TenantLimits, quotas: Quotas) -> Self {
        Self { limits, quotas, usage: BTreeMap::new() }
    }

    fn limits(&self, tenant: &Tenant) -> TenantLimits {
        self.quotas.limits(tenant, self.limits)
    }

    /// Whether a tenant may open another session of so many tokens.
    pub fn check_open(&self, tenant: &Tenant, tokens: usize) -> Result<(), Fault> {
        let usage = self.usage.get(tenant).copied().unwrap_or_default();
        let limits = self.limits(tenant);
        check("sessions", usage.sessions + 1, limits.sessions)?;
        check("tokens", usage.tokens + tokens, limits.tokens)
    }

    /// Whether a tenant's documents may grow by so many tokens.
    pub fn check_growth(&self, tenant: &Tenant, tokens: usize) -> Result<(), Fault> {
        let usage = self.usage.get(tenant).copied().unwrap_or_default();
        check("tokens", usage.tokens + tokens, self.limits(tenant).tokens)
    }

    /// Whether a tenant that has so many completions may have one more.
    pub fn check_request(&self, tenant: &Tenant, running: usize) -> Result<(), Fault> {
        check("running completions", running + 1, self.limits(tenant).requests)
    }

    /// Nobody has anything.
    pub fn forget(&mut self) {
        self.usage.clear();
    }

    /// Tenants that have sessions.
    pub fn with_sessions(&self) -> usize {
        self.usage.len()
    }

    /// Sessions that it has.
    pub fn sessions(&self, tenant: &Tenant) -> usize {
        self.usage.get(tenant).map_or(0, |usage| usage.sessions)
    }

    /// It has one more session.
    pub fn opened(&mut self, tenant: &Tenant, tokens: usize) {
        let usage = self.usage.entry(tenant.clone()).or_default();
        (usage.sessions, usage.tokens) = (usage.sessions + 1, usage.tokens + tokens);
    }

    /// One of its sessions had `before` tokens and has `after`.
    pub fn edited(&mut self, tenant: &Tenant, before: usize, after: usize) {
        if let Some(usage) = self.usage.get_mut(tenant) {
            usage.tokens = (usage.tokens + after).saturating_sub(before);
        }
    }

    /// It has one session less.
    pub fn closed(&mut self, tenant: &Tenant, tokens: usize) {
        if let Some(usage) = self.usage.get_mut(tenant) {
            usage.sessions = usage.sessions.saturating_sub(1);
            usage.tokens = usage.tokens.saturating_sub(tokens);
            if usage.sessions == 0 {
                self.usage.remove(tenant);
            }
        }
    }
}

fn check(what: &'static str, wanted: usize, limit: usize) -> Result<(), Fault> {
    if wanted <= limit {
        return Ok(());
    }
    let message = format!("the tenant would have {wanted} {what}; the limit is {limit}");
    Err(Fault::new(Reason::TenantLimit, message).with("limit", limit).retry_after(RETRY))
}
