//! The page of reasons, in the order of their gRPC codes.

use pie_proto::Reason;
use std::fmt::Write;
use tonic::Code;

/// A gRPC code as its documentation spells it, and who must act.
const CODES: [(Code, &str, &str); 7] = [
    (
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
        "The request is wrong whatever the pool's state: the same call fails again.",
    ),
    (
        Code::OutOfRange,
        "OUT_OF_RANGE",
        "The request names a place that the document does not have: look at the text that the client edits.",
    ),
    (Code::NotFound, "NOT_FOUND", "Open what is missing, then call again."),
    (
        Code::FailedPrecondition,
        "FAILED_PRECONDITION",
        "The request does not fit the session's or the pool's state: change that first.",
    ),
    (
        Code::ResourceExhausted,
        "RESOURCE_EXHAUSTED",
        "A limit. Call again after the pause in `google.rpc.RetryInfo`; without one it does not pass by itself. Operators: the alert \
         `PieRefusals`.",
    ),
    (
        Code::Unavailable,
        "UNAVAILABLE",
        "The pool cannot at the moment. Call again, with growing pauses and not before the one in `google.rpc.RetryInfo`, if there is one.",
    ),
    (Code::Internal, "INTERNAL", "A bug: the message and the router's log are what a report needs."),
];

/// A code that has no line above: its name, in the spelling of gRPC's documentation.
fn others() -> impl Iterator<Item = Code> {
    let mut codes: Vec<Code> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    codes.sort_by_key(|code| *code as i32);
    codes.dedup();
    codes.into_iter().filter(|code| CODES.iter().all(|(known, ..)| known != code))
}

fn section(page: &mut String, code: Code, name: &str, who: &str) {
    let reasons = || Reason::ALL.iter().filter(|reason| reason.code() == code);
    if reasons().next().is_none() {
        return;
    }
    writeln!(page, "\n## {name}\n\n{who}").expect("a text takes everything");
    for reason in reasons() {
        writeln!(page, "\n### {reason}\n\n{}", reason.advice()).expect("a text takes everything");
    }
}

pub fn page() -> String {
    let mut page = String::from(
        "# Error reasons\n\n\
        <!-- Made of crates/pie-proto/src/reason.rs by `PIE_WRITE_DOCS=1 cargo test -p pie-proto --test docs`. -->\n\n\
        Each refused or failed call of [`pie.v1`](api.md) is a gRPC status whose details hold a `google.rpc.ErrorInfo`: domain `pie-pool`, \
        one of the reasons below, and metadata such as `edit` (which edit of the request, from 0) or `current_revision`. Reasons are stable, \
        messages are for people. A refused call has changed nothing. `pie explain REASON` says the same as this page; \
        `pie_errors_total` counts by `reason` and `code` ([observability.md](observability.md)).\n",
    );
    for (code, name, who) in CODES {
        section(&mut page, code, name, who);
    }
    for code in others() {
        section(&mut page, code, &spelled(code), &format!("{}.", code.description()));
    }
    page
}

/// `PermissionDenied` as `PERMISSION_DENIED`.
fn spelled(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_uppercase());
    }
    name
}
