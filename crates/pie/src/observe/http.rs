//! The three endpoints over HTTP/1.1.

use super::Observe;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; more wait. Scrapers and probes are few.
const CONNECTIONS: usize = 64;
/// Who is silent for so long is disconnected.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error of accepting, for example too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers as long as the process runs.
pub(super) async fn serve(listener: TcpListener, observe: Observe) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = free.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let observe = observe.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &observe);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the metrics ended");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, observe: &Observe) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => match observe.metrics() {
            Ok(metrics) => {
                let mut answer = Response::new(Full::from(metrics));
                let kind = HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, &format!("metrics cannot be written: {error}"))
            }
        },
        "/healthz" => text(StatusCode::OK, "alive"),
        "/readyz" => match observe.readiness() {
            Ok(()) => text(StatusCode::OK, "ready"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
