//! The way to the pool: its public API, in this process or over a network, in the name of whoever calls the front.

use axum::http::{HeaderMap, HeaderName};
use pie_proto::Fault;
use pie_proto::v1::pool_client::PoolClient;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::http;
use tower::util::BoxCloneSyncService;

/// The public API as a service: a call goes in, its answer comes out.
pub type PoolApiService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Says whose a request is, by its headers: a tenant's name, empty for nobody in particular.
pub type TenantResolver = Arc<dyn Fn(&HeaderMap) -> Result<String, Fault> + Send + Sync>;

/// Says whether the pool serves, or why not.
pub type ReadinessCheck = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What of a request's headers goes with the calls that are made for it: who calls, and the trace that it is part of.
const PASSED: [&str; 4] = ["authorization", "pie-tenant", "traceparent", "tracestate"];

/// An edit, or a session that is opened, is answered in this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The way to a pool.
#[derive(Clone)]
pub struct PoolWay {
    /// Its public API.
    pub service: PoolApiService,
    /// Who may call it.
    pub tenants: TenantResolver,
    /// Whether it serves.
    pub ready: ReadinessCheck,
}

impl std::fmt::Debug for PoolWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolWay").finish_non_exhaustive()
    }
}

/// A client of the pool in somebody's name.
#[derive(Clone)]
pub(crate) struct ForwardingClient {
    client: PoolClient<PoolApiService>,
    passed: Vec<(HeaderName, axum::http::HeaderValue)>,
}

impl std::fmt::Debug for ForwardingClient {
    /// Without what it calls with.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForwardingClient").finish_non_exhaustive()
    }
}

impl PoolWay {
    /// A client in the name of whoever sent these headers.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> ForwardingClient {
        let passed = PASSED.into_iter().filter_map(|name| {
            let name = HeaderName::from_static(name);
            headers.get(&name).map(|value| (name, value.clone()))
        });
        let client = PoolClient::new(self.service.clone()).max_decoding_message_size(usize::MAX);
        ForwardingClient { client, passed: passed.collect() }
    }
}

impl ForwardingClient {
    /// The generated client, for one call.
    pub fn client(&self) -> PoolClient<PoolApiService> {
        self.client.clone()
    }

    /// A call with one answer.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(PATIENCE);
        request
    }

    /// A call whose answer takes as long as it takes.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        let mut metadata = HeaderMap::new();
        metadata.extend(self.passed.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
        Request::from_parts(tonic::metadata::MetadataMap::from_headers(metadata), Default::default(), message)
    }
}
