//! Refusals, in the words of the two protocols.

use crate::held::ReadError;
use crate::sessions::SessionInUse;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use pie_proto::reason::reason_of;
use pie_proto::{Fault, Reason};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// In whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's: `code` is a name.
    OpenAi,
    /// llama.cpp's: `code` is the HTTP status.
    Llama,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    /// A stable name: a reason of the pool (`pie explain` knows it) where it has one.
    code: String,
    message: String,
    /// The field that is wrong.
    field: Option<String>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A request that cannot be taken as it is.
    pub fn bad(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        }
    }

    /// A field whose value asks for what there is not.
    pub fn unsupported(field: &str, what: &str) -> Self {
        let message = format!("`{field}`: {what}; leave it out");
        Self { code: "unsupported_parameter".to_owned(), ..Self::bad(field, message) }
    }

    /// More than one prompt.
    pub fn one_prompt() -> Self {
        let message = "`prompt` has several prompts, and a request completes one: send a request for each";
        Self { code: "unsupported_parameter".to_owned(), ..Self::bad("prompt", message) }
    }

    /// A bug.
    pub fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal.as_str(), message)
    }

    /// Too many wait for the same.
    pub fn overloaded(message: &str) -> Self {
        let (status, code) = (StatusCode::TOO_MANY_REQUESTS, Reason::Overloaded.as_str());
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(status, code, message) }
    }

    /// With an HTTP status of its own.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), field: None, retry_after: None }
    }

    /// The object that tells of it.
    pub fn object(&self, dialect: Dialect) -> Value {
        let kind = kind(self.status);
        let error = match dialect {
            Dialect::OpenAi => {
                json!({ "message": self.message, "type": kind, "param": self.field, "code": self.code })
            }
            Dialect::Llama => {
                json!({ "code": self.status.as_u16(), "message": self.message, "type": kind, "reason": self.code })
            }
        };
        json!({ "error": error })
    }

    /// The answer that tells of it.
    pub fn answer(&self, dialect: Dialect) -> Response<Body> {
        let mut answer = Response::new(Body::from(self.object(dialect).to_string()));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(pause) = self.retry_after {
            // Whole seconds, and none is no pause.
            headers.insert(RETRY_AFTER, HeaderValue::from(pause.as_millis().div_ceil(1000).max(1) as u64));
        }
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        self.answer(Dialect::OpenAi)
    }
}

/// As OpenAI names the kinds of errors; llama.cpp has the same names for most.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        501 => "not_supported_error",
        503 => "unavailable_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
        Code::Internal | Code::Unknown | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let reason = reason_of(&status);
        let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let (status_code, code) = match reason {
            // As OpenAI names it, and its clients look for it.
            Some(Reason::DocumentTooLong) => (http(status.code()), TOO_LONG),
            // It is longer than the cache, and so it will be: asking again does not help.
            Some(Reason::KvExhausted) if retry_after.is_none() => (StatusCode::BAD_REQUEST, TOO_LONG),
            Some(reason) => (http(status.code()), reason.as_str()),
            None => (http(status.code()), "INTERNAL"),
        };
        // The pool speaks of a session, of which the caller knows nothing.
        let refusal = match reason {
            Some(Reason::ContextEmpty) => {
                Self::bad("prompt", "`prompt` is empty: there is nothing to continue")
            }
            _ => Self::new(status_code, code, status.message()),
        };
        Self { code: code.to_owned(), retry_after, ..refusal }
    }
}

/// As OpenAI names a prompt that is longer than the model's context.
const TOO_LONG: &str = "context_length_exceeded";

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Status::from(fault).into()
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::TooLong { .. } => TOO_LONG,
            ReadError::Text(_) => Reason::TokenizerFailed.as_str(),
        };
        Self::new(StatusCode::BAD_REQUEST, code, error.to_string())
    }
}

impl From<SessionInUse> for ApiError {
    fn from(busy: SessionInUse) -> Self {
        Self::overloaded(&busy.to_string())
    }
}
