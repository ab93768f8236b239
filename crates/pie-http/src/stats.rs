//! What the front counts, for whoever publishes it.

use crate::found::{PromptFacts, SessionMatch};
use axum::http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// OpenAI's completions.
    Completions,
    /// llama.cpp's filling in the middle.
    Infill,
    /// llama.cpp's completion.
    Completion,
    /// All else.
    Other,
}

impl Route {
    /// All, with their names.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Completions, "completions"),
        (Self::Infill, "infill"),
        (Self::Completion, "completion"),
        (Self::Other, "other"),
    ];
}

/// The hundreds of an HTTP status.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Counts since the start.
#[derive(Debug, Default)]
pub struct RequestStats {
    answers: [[AtomicU64; CLASSES.len()]; Route::ALL.len()],
    found: [AtomicU64; SessionMatch::ALL.len()],
    prompt: AtomicU64,
    inserted: AtomicU64,
}

impl RequestStats {
    /// Requests of a route that were answered with a status of a class, an index of [`CLASSES`].
    pub fn answers(&self, route: Route, class: usize) -> u64 {
        self.answers[route as usize].get(class).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Prompts whose session was found so.
    pub fn sessions(&self, way: SessionMatch) -> u64 {
        self.found[way as usize].load(Ordering::Relaxed)
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt.load(Ordering::Relaxed)
    }

    /// Of those, tokens that were sent to the pool, since no session had them.
    pub fn inserted_tokens(&self) -> u64 {
        self.inserted.load(Ordering::Relaxed)
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2).min(CLASSES.len() - 1);
        self.answers[route as usize][class].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn prompt(&self, facts: &PromptFacts) {
        self.found[facts.way as usize].fetch_add(1, Ordering::Relaxed);
        self.prompt.fetch_add(facts.prompt as u64, Ordering::Relaxed);
        self.inserted.fetch_add(facts.inserted as u64, Ordering::Relaxed);
    }
}
