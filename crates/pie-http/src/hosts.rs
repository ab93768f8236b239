//! By which names the front is called.

use crate::app::App;
use crate::error::{ApiError, Dialect};
use crate::stats::Route;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Response, StatusCode};
use axum::middleware::Next;
use std::net::IpAddr;
use std::sync::Arc;

/// Which names of the front requests may carry (`Host`, or HTTP/2's `:authority`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any: whoever may come in is asked for a token, or comes from elsewhere anyway.
    Any,
    /// An address, or `localhost`. Whoever can make a browser on this machine look at a page has a name, and may let it lead here once the
    /// page is loaded; the browser would then send, and read, what that page likes.
    ThisMachine,
}

impl Hosts {
    fn take(self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::ThisMachine => is_this_machine(host),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Refuses requests that call the front by a name that it does not take. Where none is told no browser asks.
pub(crate) async fn called_rightly(
    State((app, hosts)): State<(Arc<App>, Hosts)>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let header = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let host = request.uri().authority().map(Authority::as_str).or(header);
    match host.filter(|host| !hosts.take(host)) {
        None => next.run(request).await,
        Some(host) => {
            let message = format!(
                "the front listens to this machine alone and asks for no token, so it is not called {host:?}: call it by its address or \
                 `localhost`, have a proxy in front of it send that as Host, or start it with --tokens"
            );
            let refusal = ApiError::new(StatusCode::FORBIDDEN, "host_refused", message);
            app.told(Route::Other, Dialect::OpenAi, Err(refusal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_this_machine() {
        let here: &[&str] = &[
            "127.0.0.1",
            "127.0.0.1:7480",
            "[::1]:7480",
            "10.0.0.7:80",
            "localhost",
            "LocalHost.:7480",
            "a.localhost:1",
        ];
        let elsewhere: &[&str] = &[
            "",
            "evil.example",
            "evil.example:7480",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "a b",
        ];
        for (hosts, is_here) in [(here, true), (elsewhere, false)] {
            for host in hosts {
                assert_eq!(Hosts::ThisMachine.take(host), is_here, "{host:?}");
                assert!(Hosts::Any.take(host), "{host:?}");
            }
        }
    }
}
