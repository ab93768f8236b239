//! Metrics of the HTTP API.

use super::out::Out;
use pie_http::{CLASSES, RequestStats, Route, SessionMatch};
use std::fmt::Error;

/// Writes them.
pub(super) fn encode(http: &RequestStats, out: &mut Out<'_>) -> Result<(), Error> {
    let answers = Route::ALL.into_iter().flat_map(|(route, name)| {
        let answered = move |(class, code): (usize, &'static str)| {
            ([("route", name), ("code", code)], http.answers(route, class))
        };
        CLASSES.into_iter().enumerate().map(answered)
    });
    out.counters(
        "pie_http_requests",
        "Requests of the HTTP API that were answered, or whose stream began.",
        answers,
    )?;
    let found = SessionMatch::ALL.into_iter().map(|(way, name)| ([("found", name)], http.sessions(way)));
    out.counters("pie_http_prompts", "Prompts that came over HTTP, by how their session was found.", found)?;
    out.counter("pie_http_prompt_tokens", "Tokens of those prompts.", http.prompt_tokens())?;
    let help = "Of those, tokens that the prompt's session did not hold.";
    out.counter("pie_http_prompt_tokens_inserted", help, http.inserted_tokens())
}
