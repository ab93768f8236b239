//! The front as a server.

use crate::app::App;
use crate::edit::close;
use crate::error::{ApiError, Dialect};
use crate::hosts::{Hosts, called_rightly};
use crate::page::PageVisibility;
use crate::pool::PoolWay;
use crate::request::random;
use crate::stats::{RequestStats, Route};
use crate::{llama, openai};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Response, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use pie_text::Tokenizer;
use pie_transport::Acceptor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::Routes;

/// Sessions are closed in this time when the front stops, or left to the pool.
const CLOSING: Duration = Duration::from_secs(1);

/// How a front serves.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Takes its connections.
    pub acceptor: Acceptor,
    /// By which names it is called.
    pub hosts: Hosts,
    /// Bytes of the largest request.
    pub body_limit: usize,
    /// Whether it has the page.
    pub page: PageVisibility,
}

/// Why a front cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address with --http")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A serving front. Dropping it stops it at once.
#[derive(Debug)]
pub struct HttpServer {
    /// Where clients reach it.
    pub address: SocketAddr,
    scheme: &'static str,
    page: PageVisibility,
    stats: Arc<RequestStats>,
    app: Arc<App>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl HttpServer {
    /// Where, as clients are told.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where the page is, if it is shown.
    pub fn page(&self) -> Option<String> {
        match self.page {
            PageVisibility::Shown => Some(format!("{}/", self.url())),
            PageVisibility::Hidden => None,
        }
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<RequestStats> {
        self.stats.clone()
    }

    /// Takes no more requests, and closes its sessions in the pool. Requests that run may end within `grace`.
    pub async fn stop(mut self, grace: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = tokio::time::timeout(grace, &mut self.server).await;
        self.server.abort();
        let closing = async {
            for held in self.app.front.sessions.take_all() {
                close(Some(held)).await;
            }
        };
        let _ = tokio::time::timeout(CLOSING, closing).await;
    }
}

/// Serves a pool over HTTP/1.1 and HTTP/2.
///
/// # Errors
/// The address cannot be had.
pub async fn serve(
    options: HttpOptions,
    way: PoolWay,
    tokenizer: Arc<Tokenizer>,
) -> Result<HttpServer, ListenError> {
    let refused = |source| ListenError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let stats: Arc<RequestStats> = Arc::default();
    let app = Arc::new(App::new(way, tokenizer, format!("{:016x}", random()), stats.clone()));
    let routes = Routes::from(routes(app.clone(), &options));
    let (stop, stopped) = oneshot::channel::<()>();
    let acceptor = options.acceptor.for_http();
    let server = acceptor
        .server()
        .accept_http1(true)
        .add_routes(routes)
        .serve_with_incoming_shutdown(acceptor.accept(listener), async { drop(stopped.await) });
    let server = tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::warn!(%error, "the HTTP server ended");
        }
    });
    Ok(HttpServer {
        address,
        scheme: acceptor.scheme(),
        page: options.page,
        stats,
        app,
        stop: Some(stop),
        server,
    })
}

fn routes(app: Arc<App>, options: &HttpOptions) -> Router {
    Router::new()
        .route("/v1/completions", post(openai::completions))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{model}", get(openai::model))
        .route("/infill", post(llama::infill))
        .route("/completion", post(llama::completion))
        .route("/completions", post(llama::completion))
        .route("/tokenize", post(llama::tokenize))
        .route("/detokenize", post(llama::detokenize))
        .route("/props", get(llama::props))
        .route("/slots", get(llama::slots))
        .route("/health", get(llama::health))
        .route("/v1/health", get(llama::health))
        .merge(options.page.routes())
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(options.body_limit))
        .layer(from_fn_with_state((app.clone(), options.hosts), called_rightly))
        .with_state(app)
}

/// Both protocols' clients read OpenAI's errors.
pub(crate) async fn nothing(State(app): State<Arc<App>>, uri: Uri) -> Response<Body> {
    let message = format!(
        "there is nothing at {}: the front has /v1/completions, /v1/models, /infill, /completion, /tokenize, /detokenize, /props, \
         /slots and /health",
        uri.path()
    );
    app.told(Route::Other, Dialect::OpenAi, Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message)))
}

async fn not_so(State(app): State<Arc<App>>, uri: Uri) -> Response<Body> {
    let message =
        format!("{} is asked for by another method: POST what has a body, GET all else", uri.path());
    let refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
    app.told(Route::Other, Dialect::OpenAi, Err(refusal))
}
