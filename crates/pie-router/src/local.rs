//! The public API for callers in this process: a service that takes calls and gives answers, without a connection between.
//!
//! Calls are checked, counted, traced and limited as those that come over a connection.

use crate::auth::{Gate, authorize};
use crate::elsewhere::TENANT;
use pie_group::stats::Stats;
use pie_group::tenants::Tenant;
use pie_proto::Fault;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

/// The public API as a service.
pub type LocalService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The pool without a connection.
#[derive(Clone)]
pub struct InProcessApi {
    service: LocalService,
    gate: Option<Gate>,
    stats: Arc<Stats>,
}

impl InProcessApi {
    /// A service whose callers are asked who they are.
    pub(crate) fn new<S>(service: S, gate: Option<Gate>, stats: Arc<Stats>) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let service = authorize(gate.clone(), stats.clone()).layer(service);
        Self { service: BoxCloneSyncService::new(service), gate, stats }
    }

    /// The API.
    pub fn service(&self) -> LocalService {
        self.service.clone()
    }

    /// Whose a call with these headers is: a tenant's name, empty for nobody in particular.
    ///
    /// # Errors
    /// As a call with these headers would be refused.
    pub fn tenant(&self, headers: &HeaderMap) -> Result<String, Fault> {
        let tenant = match (&self.gate, headers.get(TENANT)) {
            (Some(gate), _) => gate.caller(headers).map(|caller| caller.tenant),
            (None, None) => Ok(Tenant::default()),
            (None, Some(name)) => Tenant::new(name.to_str().unwrap_or_default()),
        };
        let tenant = tenant.inspect_err(|fault| self.stats.fault(fault))?;
        Ok(tenant.as_str().to_owned())
    }
}

impl std::fmt::Debug for InProcessApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcessApi").finish_non_exhaustive()
    }
}
