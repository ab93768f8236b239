//! The pool over HTTP, as editors speak it today: OpenAI's `/v1/completions`, and llama.cpp's `/infill` and `/completion`.
//!
//! These protocols send whole prompts. The front finds the session that holds most of one ([`sessions`]), works out what differs
//! ([`held`]), sends that to the pool as an edit of its tokens, and asks for the completion: whoever types pays for
//! what was typed, whatever stands behind the cursor and whatever chunks of other files come and go in front.
//!
//! **Owns** the two protocols ([`openai`], [`llama`]), what a prompt is made of ([`prompt`]), and which session of the pool holds which
//! prompt. A session of the front is one of tokens in the pool: prompts have control tokens wherever their protocol puts them.
//!
//! **Invariant.** F1: what a completion is asked for with is exactly the prompt's tokens: the session holds those of the prompt, each
//! piece tokenized by itself, whatever it held before. F2: nobody's prompt is compared with another tenant's, and a completion that
//! runs is not disturbed by a prompt that only looks like its own.
//!
//! **Must not know** the router's insides, models: it calls `pie.v1`, in this process or over a network.

mod answer;
mod app;
mod begin;
mod edit;
mod error;
mod found;
mod generation;
mod given;
mod held;
mod hosts;
mod infill;
pub mod likeness;
mod llama;
mod openai;
mod page;
mod pool;
mod prompt;
mod request;
mod serve;
mod sessions;
mod stats;

pub use found::SessionMatch;
pub use hosts::Hosts;
pub use page::PageVisibility;
pub use pool::{PoolApiService, PoolWay, ReadinessCheck, TenantResolver};
pub use serve::{HttpOptions, HttpServer, ListenError, serve};
pub use stats::{CLASSES, RequestStats, Route};
