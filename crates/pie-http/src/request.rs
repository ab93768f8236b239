//! What requests of both protocols have in common.

use crate::begin::LARGE;
use crate::error::ApiError;
use crate::held::HeldSession;
use crate::sessions::SessionSelector;
use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use pie_proto::v1;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
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
#[serde(untagged, expecting = "expected a text, or a list of texts")]
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

/// The bytes of a request, as many as it may have.
pub(crate) struct WholeBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        bytes.map(Self).map_err(|refusal| match refusal.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = "the body is larger than a document may be: who runs the pool sets that (--document-limit)";
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
            }
            status => ApiError::new(status, "invalid_request", refusal.body_text()),
        })
    }
}

/// Reads a body. It must say that it is JSON: a page of another site, which a browser shows, could send it otherwise without asking.
///
/// # Errors
/// Where it is wrong, and how.
pub(crate) fn body<T: DeserializeOwned>(
    headers: &HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Result<T, ApiError> {
    let WholeBody(body) = sent?;
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        let message =
            format!("the body must be JSON, and its Content-Type say so: application/json, not {kind:?}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", message));
    }
    let is_plain =
        |coding: &HeaderValue| coding.is_empty() || coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| !is_plain(coding)) {
        let message = format!("the body must be sent as it is, not as {coding:?}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", message));
    }
    // Some begin a file with a mark of its byte order.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&body);
    let read = || {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let (field, error) = (error.path().to_string(), error.into_inner());
            // Where the text is no JSON, no field of it is wrong.
            (Some(field).filter(|field| error.is_data() && field != "." && !field.contains('?')), error)
        })?;
        reader.end().map_err(|error| (None, error))?;
        Ok(value)
    };
    // What others wait for on this thread goes on elsewhere meanwhile.
    let read = if body.len() > LARGE { tokio::task::block_in_place(read) } else { read() };
    read.map_err(|(field, error): (Option<String>, serde_json::Error)| match field {
        Some(field) => ApiError::bad(&field, format!("`{field}`: {error}")),
        None => ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            format!("the body cannot be read: {error}"),
        ),
    })
}

/// A whole number, however it is written: in JSON 3 and 3.0 are one number, and some languages write the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<T>(pub T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = number.as_i128().or_else(|| {
            // Beyond these a float does not tell one whole number from the next.
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9e15)?;
            Some(float as i128)
        });
        let number = whole.and_then(|whole| T::try_from(whole).ok());
        number.map(Self).ok_or_else(|| D::Error::custom("expected a whole number that is in range"))
    }
}

/// A field that is a whole number, or absent.
///
/// # Errors
/// It is something else.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(deserializer)?.map(|Whole(number)| number))
}

/// What `top_p` means: 0 takes the likeliest, as the smallest number above it does.
pub(crate) fn nucleus(top_p: f32) -> f32 {
    if top_p == 0.0 { f32::MIN_POSITIVE } else { top_p }
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
