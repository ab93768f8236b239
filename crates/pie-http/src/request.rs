//! What requests of both protocols have in common.

use crate::begin::LARGE;
use crate::error::ApiError;
use crate::held::HeldSession;
use crate::sessions::SessionSelector;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use pie_proto::v1;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Names the session that a request is for.
pub(crate) const SESSION: &str = "x-pie-session";
/// With what stands in front of them, names are no longer than the pool takes.
const NAME_LIMIT: usize = 200;

/// How tokens are drawn, and how many.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GenerationOptions {
    /// None are generated when 0.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// All when absent.
    pub top_p: Option<f32>,
    /// All when 0.
    pub top_k: u32,
    /// Chosen by the pool when absent.
    pub seed: Option<u64>,
    /// It ends before one of these.
    pub stop: Vec<String>,
    /// Alternatives to report for each token.
    pub top_logprobs: u32,
    /// What the pool alone knows.
    pub own: Own,
    /// Of the edit.
    pub strategy: v1::Strategy,
}

/// What a request may ask for that its protocol does not know, in its field `pie`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Own {
    /// Encode again what is stale before the first token.
    #[serde(default)]
    pub exact: bool,
    /// How the edit is made: pie, full, conflict or repair; the session's when absent.
    #[serde(default)]
    pub strategy: Option<String>,
    /// What it may write: looked up ahead.
    #[serde(default)]
    pub prediction: Option<String>,
    /// Tell what became of each token of the prompt.
    #[serde(default)]
    pub tokens: bool,
}

impl Own {
    /// # Errors
    /// There is no such strategy.
    pub fn strategy(&self) -> Result<v1::Strategy, ApiError> {
        Ok(match self.strategy.as_deref() {
            None => v1::Strategy::Unspecified,
            Some("pie") => v1::Strategy::Pie,
            Some("full") => v1::Strategy::Full,
            Some("conflict") => v1::Strategy::Conflict,
            Some("repair") => v1::Strategy::Repair,
            Some(other) => {
                let message = format!("there is no strategy {other:?}: take pie, full, conflict or repair");
                return Err(ApiError::bad("pie.strategy", message));
            }
        })
    }
}

impl GenerationOptions {
    /// The call that completes what a session holds.
    pub fn request(&self, held: &HeldSession) -> v1::CompleteRequest {
        let (identity, revision) = match &held.life {
            Some(life) => (life.identity.clone(), Some(life.revision)),
            None => (String::new(), None),
        };
        v1::CompleteRequest {
            session: held.name.clone(),
            revision,
            identity,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
            stop: self.stop.clone(),
            top_logprobs: self.top_logprobs,
            exact: self.own.exact,
            prediction: self.own.prediction.clone().unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// A text or several, as both protocols take stop strings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    /// One.
    One(String),
    /// Any number.
    Many(Vec<String>),
}

impl Texts {
    /// All that say something.
    pub fn list(texts: Option<Self>) -> Vec<String> {
        let mut list = match texts {
            None => Vec::new(),
            Some(Self::One(text)) => vec![text],
            Some(Self::Many(texts)) => texts,
        };
        list.retain(|text| !text.is_empty());
        list
    }
}

/// Reads a body. It must say that it is JSON: a page of another site, which a browser shows, could send it otherwise without asking.
///
/// # Errors
/// Where it is wrong, and how.
pub(crate) fn body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        let message =
            format!("the body must be JSON, and its Content-Type say so: application/json, not {kind:?}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", message));
    }
    let read = || serde_json::from_slice(body);
    // What others wait for on this thread goes on elsewhere meanwhile.
    let read = if body.len() > LARGE { tokio::task::block_in_place(read) } else { read() };
    let message = |error| format!("the body cannot be read: {error}");
    read.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message(error)))
}

/// The session that a header names.
///
/// # Errors
/// The name is none.
pub(crate) fn named(headers: &HeaderMap) -> Result<Option<SessionSelector>, ApiError> {
    let Some(name) = headers.get(SESSION) else { return Ok(None) };
    let name = name.to_str().unwrap_or_default();
    if name.is_empty() || name.len() > NAME_LIMIT || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("the header X-Pie-Session takes 1 to {NAME_LIMIT} visible ASCII characters");
        return Err(ApiError::bad("X-Pie-Session", message));
    }
    Ok(Some(SessionSelector::Named(Arc::from(name))))
}

/// For names that nobody guesses or uses twice; without a source of randomness they tell moments apart.
pub(crate) fn random() -> u64 {
    let mut random = [0; 8];
    match getrandom::fill(&mut random) {
        Ok(()) => u64::from_le_bytes(random),
        Err(_) => std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
    }
}
