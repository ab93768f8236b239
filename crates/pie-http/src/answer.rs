//! What answers of both protocols say of their cost, and how they travel.

use crate::error::{ApiError, Dialect};
use crate::found::{PromptFacts, TokenRun};
use crate::generation::Generation;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};
use futures::Stream;
use pie_proto::v1;
use pie_text::Tokenizer;
use pie_words::TokenId;
use serde_json::{Value, json};
use std::convert::Infallible;

/// A JSON answer.
pub(crate) fn answer(value: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(value.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer of server-sent events.
pub(crate) fn events(events: impl Stream<Item = String> + Send + 'static) -> Response<Body> {
    let events = futures::StreamExt::map(events, |event| Ok::<_, Infallible>(format!("data: {event}\n\n")));
    let mut answer = Response::new(Body::from_stream(events));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// What a stream says instead of going on.
pub(crate) fn broken(refusal: &ApiError, dialect: Dialect) -> String {
    refusal.object(dialect).to_string()
}

/// Tokens of the prompt that were encoded for the answer: all others were in the cache.
pub(crate) fn encoded(facts: &PromptFacts, timings: &v1::Timings) -> u64 {
    let encoded = u64::from(timings.tokens_encoded) + u64::from(timings.tokens_encoded_ahead);
    encoded.min(facts.prompt as u64)
}

/// What the pool did, under `pie`: no other server has it.
pub(crate) fn own(generation: &Generation, tokenizer: &Tokenizer) -> Value {
    let Generation { facts, timings, seed, .. } = generation;
    let mut object = json!({
        "session": facts.session,
        "revision": facts.revision,
        "found": facts.way.as_str(),
        "prompt_is_cut": facts.is_cut,
        "tokens": facts.prompt,
        "tokens_inserted": facts.inserted,
        "tokens_deleted": facts.deleted,
        "tokens_encoded": timings.tokens_encoded,
        "tokens_encoded_ahead": timings.tokens_encoded_ahead,
        "tokens_reused": timings.tokens_reused,
        "tokens_rotated": timings.tokens_rotated,
        "tokens_adopted": timings.tokens_adopted,
        "tokens_stale": timings.tokens_stale,
        "tokens_repaired": timings.tokens_repaired,
        "search_us": facts.search.as_micros() as u64,
        "reading_us": facts.reading.as_micros() as u64,
        "queue_us": timings.queue_us,
        "first_token_us": timings.first_token_us,
        "edit_to_first_token_us": timings.edit_to_first_token_us,
        "seed": seed,
    });
    if !facts.runs.is_empty() {
        let text = |token: &TokenId| match tokenizer.control_tokens().contains(token) {
            // It stands for no text.
            true => Value::Null,
            false => Value::String(tokenizer.decode(&[*token])),
        };
        let run = |run: &TokenRun| json!({ "fate": run.fate.as_str(), "tokens": run.tokens.iter().map(text).collect::<Vec<_>>() });
        object["runs"] = facts.runs.iter().map(run).collect();
    }
    object
}
