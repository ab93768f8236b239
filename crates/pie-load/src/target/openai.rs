//! `/v1/completions` with `stream: true`, as llama.cpp, vLLM and others serve it: whole prompts, tokens as server-sent
//! events. Each event with text counts as a token.

use super::events::EventReader;
use super::{CallError, CompletionDelta};
use crate::error::LoadError;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::future::Future;

/// Bytes of a refusal that are read at all.
const REFUSAL_LIMIT: usize = 1 << 16;

/// A server of `/v1/completions`.
#[derive(Clone, Debug)]
pub struct OpenAi {
    uri: Uri,
    model: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl OpenAi {
    /// A server by its address, with or without the path, and the name of its model.
    ///
    /// # Errors
    /// [`LoadError::BadUrl`].
    pub fn new(url: &str, model: &str) -> Result<Self, LoadError> {
        let bad = || LoadError::BadUrl { url: url.to_owned() };
        let base = url.trim_end_matches('/').trim_end_matches("/v1/completions").trim_end_matches("/v1");
        let uri: Uri = format!("{base}/v1/completions").parse().map_err(|_| bad())?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(bad());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { uri, model: model.to_owned(), client })
    }

    /// The address that prompts are sent to.
    pub fn url(&self) -> String {
        self.uri.to_string()
    }

    pub(super) fn start(
        &self,
        prompt: String,
        suffix: Option<String>,
        max_tokens: u32,
    ) -> impl Future<Output = Result<Chunks, CallError>> + Send + use<> {
        let mut body = json!({
            "model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, "stream": true,
        });
        if let Some(suffix) = suffix {
            body["suffix"] = suffix.into();
        }
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .body(Full::new(Bytes::from(body.to_string())));
        let client = self.client.clone();
        async move {
            let request = request.map_err(|error| failed("BAD_REQUEST", &error))?;
            let response = client.request(request).await.map_err(|error| failed("CONNECT_FAILED", &error))?;
            let status = response.status();
            if status.is_success() {
                return Ok(Chunks { body: response.into_body(), events: EventReader::default() });
            }
            let body = Limited::new(response.into_body(), REFUSAL_LIMIT).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let message = String::from_utf8_lossy(&body).chars().take(300).collect();
            Err(CallError { code: format!("HTTP_{}", status.as_u16()), message })
        }
    }
}

fn failed(code: &str, error: &dyn std::error::Error) -> CallError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    CallError { code: code.to_owned(), message: format!("{error}{cause}") }
}

/// An answer as it comes.
pub(crate) struct Chunks {
    body: Incoming,
    events: EventReader,
}

impl Chunks {
    /// The next event with text; none behind the last.
    pub async fn next(&mut self) -> Result<Option<CompletionDelta>, CallError> {
        loop {
            if let Some(piece) = self.events.next_piece()? {
                return Ok(Some(piece));
            }
            if self.events.ended() {
                return Ok(None);
            }
            let Some(frame) = self.body.frame().await else {
                let message = "the stream ended without [DONE] or a finish_reason".to_owned();
                return Err(CallError { code: "COMPLETION_CUT_OFF".to_owned(), message });
            };
            let frame = frame.map_err(|error| failed("CONNECTION_BROKE", &error))?;
            self.events.push(frame.data_ref().map_or(&[][..], |data| data));
        }
    }
}
