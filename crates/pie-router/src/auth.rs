//! Who may call: bearer tokens, one tenant each, checked before a call's body is read.
//!
//! The file of tokens is text here: who reads it, and reads it again when it changes, is outside. Tokens themselves are
//! nowhere, only their SHA-256.

use arc_swap::ArcSwap;
use pie_group::stats::Stats;
use pie_group::tenants::{Caller, Quota, Quotas, Role, Tenant};
use pie_proto::{Fault, Reason};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use subtle::ConstantTimeEq;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tower_http::validate_request::{ValidateRequest, ValidateRequestHeaderLayer};

/// The metadata that names a tenant where no tokens are asked for.
const TENANT: &str = "pie-tenant";

/// The SHA-256 of a token.
type BearerTokenHash = [u8; SHA256_OUTPUT_LEN];

/// The SHA-256 of a token, as the tokens file has it.
pub fn hash(token: &str) -> String {
    hex::encode(digest(&SHA256, token.as_bytes()))
}

/// Why a tokens file cannot be used. What stands as `sha256` is not repeated: it may be a token in the wrong place.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// Not TOML, or not of this form.
    #[error("line {line}: {why}")]
    Form {
        /// Where.
        line: usize,
        /// Why.
        why: String,
    },
    /// Nobody could call.
    #[error("it has no [[token]]: nobody could call; `pie token --tenant NAME` makes one")]
    Empty,
    /// An entry that cannot be used.
    #[error("[[token]] {number} (tenant {tenant:?}): {why}")]
    Entry {
        /// Which, counted from 1.
        number: usize,
        /// Of whom.
        tenant: String,
        /// Why.
        why: String,
    },
    /// A quota for a name that is none.
    #[error("[tenant.{tenant:?}]: {why}")]
    Quota {
        /// Which.
        tenant: String,
        /// Why.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<FileToken>,
    #[serde(default)]
    tenant: BTreeMap<String, FileQuota>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToken {
    tenant: String,
    sha256: String,
    #[serde(default)]
    admin: bool,
    expires: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileQuota {
    sessions: Option<usize>,
    tokens: Option<usize>,
    requests: Option<usize>,
}

/// What a tokens file says.
#[derive(Debug)]
pub struct AccessTokens {
    entries: Vec<TokenEntry>,
    quotas: BTreeMap<Tenant, Quota>,
}

#[derive(Debug)]
struct TokenEntry {
    digest: BearerTokenHash,
    caller: Caller,
    expires: Option<SystemTime>,
}

impl AccessTokens {
    /// Reads the text of a tokens file.
    ///
    /// # Errors
    /// [`TokensError`] says where and why.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            TokensError::Form { line: before.matches('\n').count() + 1, why: error.message().to_owned() }
        })?;
        if file.token.is_empty() {
            return Err(TokensError::Empty);
        }
        let mut entries: Vec<TokenEntry> = Vec::new();
        for (number, token) in (1..).zip(file.token) {
            let tenant = token.tenant.clone();
            let entry = TokenEntry::try_from(token).and_then(|entry| {
                let twice = entries.iter().any(|other| other.digest == entry.digest);
                if twice { Err("an entry before it has the same sha256".to_owned()) } else { Ok(entry) }
            });
            entries.push(entry.map_err(|why| TokensError::Entry { number, tenant, why })?);
        }
        let quota = |(name, quota): (String, FileQuota)| {
            let FileQuota { sessions, tokens, requests } = quota;
            let tenant = Tenant::new(&name)
                .map_err(|fault| TokensError::Quota { tenant: name.clone(), why: fault.message })?;
            Ok((tenant, Quota { sessions, tokens, requests }))
        };
        Ok(Self { entries, quotas: file.tenant.into_iter().map(quota).collect::<Result<_, _>>()? })
    }

    /// Whose token it is. Compares with all entries, each in constant time: how long it takes tells nothing about any of them.
    ///
    /// # Errors
    /// [`Reason::BadToken`], [`Reason::TokenExpired`].
    pub fn caller(&self, token: &[u8], now: SystemTime) -> Result<Caller, Fault> {
        let given = digest(&SHA256, token);
        let mut found = None;
        for entry in &self.entries {
            if bool::from(given.as_ref().ct_eq(&entry.digest)) {
                found = Some(entry);
            }
        }
        let Some(entry) = found else {
            return Err(Fault::new(Reason::BadToken, "the pool does not know this token"));
        };
        match entry.expires {
            Some(expires) if expires <= now => {
                let expired = humantime::format_rfc3339_seconds(expires);
                Err(Fault::new(Reason::TokenExpired, format!("the token expired at {expired}")))
            }
            _ => Ok(entry.caller.clone()),
        }
    }
}

impl TryFrom<FileToken> for TokenEntry {
    type Error = String;
    fn try_from(token: FileToken) -> Result<Self, String> {
        let tenant = Tenant::new(&token.tenant).map_err(|fault| fault.message)?;
        let role = if token.admin { Role::Admin } else { Role::User };
        let mut digest = BearerTokenHash::default();
        hex::decode_to_slice(&token.sha256, &mut digest)
            .map_err(|_| "`sha256` must be 64 hexadecimal digits")?;
        let expires = match token.expires {
            None => None,
            Some(toml::Value::String(text)) => Some(moment(&text)?),
            Some(toml::Value::Datetime(moment_of)) => Some(moment(&moment_of.to_string())?),
            Some(_) => return Err(NO_MOMENT.to_owned()),
        };
        Ok(Self { digest, caller: Caller { tenant, role }, expires })
    }
}

const NO_MOMENT: &str = "`expires` must be a moment in UTC, as \"2027-01-01T00:00:00Z\"";

fn moment(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text).map_err(|_| NO_MOMENT.to_owned())
}

/// The tokens that hold now. Clones share them.
#[derive(Clone, Debug)]
pub struct Gate {
    tokens: Arc<ArcSwap<AccessTokens>>,
    quotas: Quotas,
}

impl Gate {
    /// Asks for one of these tokens.
    pub fn new(tokens: AccessTokens) -> Self {
        let quotas = Quotas::default();
        quotas.replace(tokens.quotas.clone());
        Self { tokens: Arc::new(ArcSwap::from_pointee(tokens)), quotas }
    }

    /// From the next call on these hold, and their quotas.
    pub fn replace(&self, tokens: AccessTokens) {
        self.quotas.replace(tokens.quotas.clone());
        self.tokens.store(Arc::new(tokens));
    }

    /// The tenants' own limits, which follow.
    pub fn quotas(&self) -> Quotas {
        self.quotas.clone()
    }

    /// Whose headers these are.
    ///
    /// # Errors
    /// [`Reason::NoToken`], and as of [`AccessTokens::caller`].
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        let token = headers.get(AUTHORIZATION).and_then(|given| bearer(given.as_bytes()));
        let token = token.ok_or_else(|| {
            Fault::new(Reason::NoToken, "the call has no metadata `authorization: Bearer TOKEN`")
        })?;
        self.tokens.load().caller(token, SystemTime::now())
    }

    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Fault> {
        let needs = RequiredRole::of(request.uri().path());
        if needs == RequiredRole::Nothing {
            return Ok(());
        }
        let caller = self.caller(request.headers());
        // Nobody behind this needs it, so nobody can log it.
        request.headers_mut().remove(AUTHORIZATION);
        request.headers_mut().remove(TENANT);
        let caller = caller?;
        if needs == RequiredRole::Admin && caller.role != Role::Admin {
            let message = format!("{} needs a token with `admin = true`", request.uri().path());
            return Err(Fault::new(Reason::NotAdmin, message));
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }
}

/// The scheme's name is case-insensitive (RFC 9110).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// What a service asks of its callers; one that is not named here asks for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequiredRole {
    /// Probes have no tokens.
    Nothing,
    Token,
    Admin,
}

impl RequiredRole {
    fn of(path: &str) -> Self {
        match path.trim_start_matches('/').split('/').next() {
            Some("grpc.health.v1.Health") => Self::Nothing,
            Some("pie.v1.Admin") => Self::Admin,
            _ => Self::Token,
        }
    }
}

/// A layer of the public server: refuses calls without a right token, and says whose the others are ([`Caller`]). Without a gate
/// everybody may call.
pub(crate) fn authorize(gate: Option<Gate>, stats: Arc<Stats>) -> ValidateRequestHeaderLayer<Authorize> {
    ValidateRequestHeaderLayer::custom(Authorize { gate, stats })
}

/// See [`authorize`].
#[derive(Clone, Debug)]
pub(crate) struct Authorize {
    gate: Option<Gate>,
    stats: Arc<Stats>,
}

impl<B> ValidateRequest<B> for Authorize {
    type ResponseBody = Body;

    fn validate(&mut self, request: &mut Request<B>) -> Result<(), Response<Body>> {
        let checked = self.gate.as_ref().map_or(Ok(()), |gate| gate.check(request));
        checked.map_err(|fault| {
            self.stats.fault(&fault);
            Status::from(fault).into_http()
        })
    }
}
