//! What llama.cpp's server tells of itself, of its tokenizer and of its slots.

use crate::answer::answer;
use crate::app::App;
use crate::error::{ApiError, Dialect};
use crate::request::{Whole, WholeBody, body};
use crate::sessions::SESSIONS;
use crate::stats::Route;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use pie_words::{Spellings, TokenId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What `POST /tokenize` takes.
#[derive(Debug, Deserialize)]
struct Tokenize {
    content: String,
    #[serde(default)]
    add_special: bool,
    parse_special: Option<bool>,
    #[serde(default)]
    with_pieces: bool,
}

/// `POST /tokenize`
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Response<Body> {
    let answered = tokenized(&app, &headers, sent).await;
    app.told(Route::Other, Dialect::Llama, answered)
}

async fn tokenized(
    app: &App,
    headers: &HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Result<Response<Body>, ApiError> {
    (app.way.tenants)(headers)?;
    let Tokenize { content, add_special, parse_special, with_pieces } = body(headers, sent)?;
    let spellings = if parse_special == Some(false) { Spellings::Text } else { Spellings::ControlTokens };
    let tokenizer = app.tokenizer().clone();
    let tokens = tokio::task::spawn_blocking({
        let tokenizer = tokenizer.clone();
        move || tokenizer.reading(spellings).encode(&content)
    });
    let tokens = tokens.await.map_err(|error| ApiError::internal(&error.to_string()))?;
    let tokens = tokens.map_err(|error| ApiError::bad("content", error.to_string()))?;
    let tokens = &tokens[if add_special { 0 } else { tokenizer.prefix().len() }..];
    // A piece that is no text by itself is told in bytes.
    let piece = |token: &TokenId| {
        let bytes = tokenizer.bytes(*token);
        let piece = std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text));
        json!({ "id": token.0, "piece": piece })
    };
    let tokens: Vec<Value> = match with_pieces {
        true => tokens.iter().map(piece).collect(),
        false => tokens.iter().map(|token| json!(token.0)).collect(),
    };
    Ok(answer(&json!({ "tokens": tokens })))
}

/// What `POST /detokenize` takes.
#[derive(Debug, Deserialize)]
struct Detokenize {
    tokens: Vec<Whole<u32>>,
}

/// `POST /detokenize`
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Response<Body> {
    let answered = || {
        (app.way.tenants)(&headers)?;
        let Detokenize { tokens } = body(&headers, sent)?;
        let (tokenizer, mut bytes) = (app.tokenizer(), Vec::new());
        for Whole(token) in tokens {
            if token >= tokenizer.vocab_size() {
                let message = format!(
                    "`tokens`: there is no token {token}; the last is {}",
                    tokenizer.vocab_size() - 1
                );
                return Err(ApiError::bad("tokens", message));
            }
            // Control tokens too, as their spelling: /tokenize reads them so.
            bytes.extend_from_slice(tokenizer.bytes(TokenId(token)));
        }
        Ok(answer(&json!({ "content": String::from_utf8_lossy(&bytes) })))
    };
    let answered = answered();
    app.told(Route::Other, Dialect::Llama, answered)
}

/// `GET /props`
pub(crate) async fn props(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let answered = async {
        (app.way.tenants)(&headers)?;
        let model = app.model(&app.way.caller(&headers)).await?;
        Ok(answer(&json!({
            "default_generation_settings": { "n_ctx": model.context },
            "total_slots": SESSIONS,
            "model_path": &*model.name,
            "chat_template": "",
            "build_info": concat!("pie-pool ", env!("CARGO_PKG_VERSION")),
        })))
    };
    let answered = answered.await;
    app.told(Route::Other, Dialect::Llama, answered)
}

/// `GET /slots`: the caller's sessions.
pub(crate) async fn slots(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let answered = async {
        let tenant = (app.way.tenants)(&headers)?;
        let model = app.model(&app.way.caller(&headers)).await?;
        let slots = app.front.sessions.of(&tenant).into_iter().map(|slot| {
            json!({
                "id": slot.number, "n_ctx": model.context, "is_processing": slot.running > 0,
                "n_past": slot.tokens, "session": slot.name,
            })
        });
        Ok(answer(&Value::Array(slots.collect())))
    };
    let answered = answered.await;
    app.told(Route::Other, Dialect::Llama, answered)
}

/// `GET /health`: as probes ask, who have no token.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    let answered = match (app.way.ready)() {
        Ok(()) => Ok(answer(&json!({ "status": "ok" }))),
        Err(why) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(ApiError::new(status, "NOT_READY", why))
        }
    };
    app.told(Route::Other, Dialect::Llama, answered)
}
