//! The HTTP API of a router in this process.

use crate::Failure;
use crate::cli::{HttpArg, PageArg, ServeArgs};
use crate::secure::Ports;
use pie_http::{Hosts, HttpOptions, ListenError, PageVisibility, PoolWay};
use pie_router::RunningRouter;
use pie_text::Tokenizer;
use pie_transport::Acceptor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where a pool has it when nobody says where.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7480);
/// Above the document, a request holds little.
const BODY_SLACK: usize = 1 << 20;

/// When a front that nobody has asked for is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unless {
    /// It is there where it was asked for.
    Asked,
    /// It is there, at its usual address, unless somebody else has that.
    Taken,
}

impl Unless {
    /// Whether there is a page where nobody says: who starts a pool at a laptop wants to see it.
    fn page(self) -> PageVisibility {
        match self {
            Self::Asked => PageVisibility::Hidden,
            Self::Taken => PageVisibility::Shown,
        }
    }
}

/// A front that is not started yet.
pub struct FrontBuilder {
    http: Option<HttpArg>,
    page: Option<PageArg>,
    acceptor: Acceptor,
    /// Nobody who has no token is answered.
    asks_for_tokens: bool,
    tokenizer: Arc<Tokenizer>,
    body_limit: usize,
}

impl FrontBuilder {
    /// What it needs of a router's settings.
    pub fn new(serve: &ServeArgs, ports: &Ports, tokenizer: &Arc<Tokenizer>) -> Self {
        let limit = usize::try_from(serve.document_limit).unwrap_or(usize::MAX);
        Self {
            http: serve.http,
            page: serve.page,
            acceptor: ports.public.clone(),
            asks_for_tokens: ports.gate.is_some(),
            tokenizer: tokenizer.clone(),
            body_limit: limit.saturating_add(BODY_SLACK),
        }
    }

    /// Starts it in front of a router.
    pub async fn start(
        self,
        serving: &RunningRouter,
        unless: Unless,
    ) -> Result<Option<pie_http::HttpServer>, Failure> {
        let listen = match (self.http, unless) {
            (Some(HttpArg::Off), _) | (None, Unless::Asked) => return Ok(None),
            (Some(HttpArg::At(listen)), _) => listen,
            (None, Unless::Taken) => DEFAULT,
        };
        let page = self.page.map_or(unless.page(), PageVisibility::from);
        let is_open = listen.ip().is_loopback() && !self.asks_for_tokens;
        let hosts = if is_open { Hosts::ThisMachine } else { Hosts::Any };
        let options =
            HttpOptions { listen, acceptor: self.acceptor, hosts, body_limit: self.body_limit, page };
        let (local, readiness) = (serving.local(), serving.readiness());
        let way = PoolWay {
            service: local.service(),
            tenants: Arc::new(move |headers| local.tenant(headers)),
            ready: Arc::new(move || readiness.now()),
        };
        match pie_http::serve(options, way, self.tokenizer).await {
            Ok(http) => Ok(Some(http)),
            Err(ListenError::Listen { source, .. }) if self.http.is_none() => {
                say!("no HTTP API: cannot listen on {listen} ({source}); --http gives it another address");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Tells people where it is.
pub fn say(http: Option<&pie_http::HttpServer>) {
    if let Some(http) = http {
        let page = http.page().map(|page| format!("; see it work at {page}")).unwrap_or_default();
        say!(
            "editors that speak HTTP find it at {} (OpenAI's /v1/completions, llama.cpp's /infill){page}",
            http.url()
        );
    }
}

/// Stops it, if it is there.
pub async fn stop(http: Option<pie_http::HttpServer>, grace: Duration) {
    if let Some(http) = http {
        http.stop(grace).await;
    }
}
