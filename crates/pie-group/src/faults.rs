//! What callers are told: the errors of the layers below as public reasons, with numbers and advice.

use crate::call::ModelFacts;
use crate::core::session::Session;
use pie_proto::request::{ApplyEdits, Complete, Edits, SessionName};
use pie_proto::{Fault, Reason};
use pie_text::{Document, DocumentChange, TextError};
use pie_words::{Revision, SpliceError, Splices, TokenId};
use std::time::Duration;

/// The group is not served at the moment, and why.
pub fn group_lost(why: &str) -> Fault {
    Fault::new(Reason::GroupLost, format!("{why}; retry: sessions are encoded again when the group is back"))
}

pub(crate) fn not_kept() -> Fault {
    let message = "no rank of the session's group is there to keep the change, so it would be lost with this router: nothing was changed; retry";
    Fault::new(Reason::NotReplicated, message)
}

pub(crate) fn perhaps_not_kept() -> Fault {
    let message = "all ranks of the session's group were lost before they said that they have the change; this router has it: ask for the session's \
                   revision before you send it again";
    Fault::new(Reason::NotReplicated, message)
}

/// No session of this name is open.
pub fn no_session(name: &str) -> Fault {
    Fault::new(Reason::SessionUnknown, format!("no session `{name}` is open: open it with the whole text"))
        .with("session", name)
}

/// The name is another session's by now.
pub fn replaced(name: &str) -> Fault {
    let message = format!(
        "session `{name}` is not the one that the call is for: it was opened anew; open it with the whole text, under another name if the other \
         document is somebody else's"
    );
    Fault::new(Reason::SessionReplaced, message).with("session", name)
}

/// A document of so many tokens, which the model cannot see.
pub fn too_long(tokens: usize, limit: usize) -> Fault {
    let message = format!(
        "the document would have {tokens} tokens; the model sees fewer than {limit}: send a part of it"
    );
    Fault::new(Reason::DocumentTooLong, message).with("tokens", tokens).with("limit", limit)
}

/// When to try again after a refusal that passes.
const RETRY: Duration = Duration::from_millis(250);
/// When texts that wait should have been tokenized.
const TEXT_RETRY: Duration = Duration::from_secs(1);

/// A document needs more slots than there are, all others aside.
pub fn no_slots(needed: usize, capacity: usize) -> Fault {
    let message = format!(
        "the document would need {needed} KV slots and the group has {capacity}: give the pool more KV memory, or send a part"
    );
    Fault::new(Reason::KvExhausted, message).with("needed", needed).with("capacity", capacity)
}

pub(crate) fn all_busy() -> Fault {
    let message = "every KV slot belongs to a session that is being completed: retry in a moment";
    Fault::new(Reason::KvExhausted, message).retry_after(RETRY)
}

/// A completion gave way to others, whose documents need its slots.
pub fn others_need_slots() -> Fault {
    let message = "another tenant, which holds fewer KV slots than this one, needs some: complete in fewer documents at a time, or retry later";
    Fault::new(Reason::KvExhausted, message).retry_after(RETRY)
}

pub(crate) fn no_slot_for_token() -> Fault {
    Fault::new(
        Reason::KvExhausted,
        "no KV slot is free for the next generated token: close sessions, or retry later",
    )
    .retry_after(RETRY)
}

/// Too much to do. It passes: the caller is told when to ask again.
fn overloaded(message: String) -> Fault {
    Fault::new(Reason::Overloaded, message).retry_after(RETRY)
}

pub(crate) fn too_many_sessions(limit: usize, idle: Option<Duration>) -> Fault {
    let idle = idle.map(|idle| format!(", and none that was idle for {}", humantime::format_duration(idle)));
    overloaded(format!(
        "the group has {limit} sessions, as many as it may (`--sessions`){}: close some, or retry later (who runs the pool lists and closes \
         them with `pie ctl held` and `pie ctl evict`)",
        idle.unwrap_or_default()
    ))
}

/// As many completions as there may be are under way.
pub fn too_many_completions(limit: usize) -> Fault {
    let message =
        format!("{limit} completions run, wait, or are not read to their end already: retry after a pause");
    overloaded(message)
}

pub(crate) fn too_many_waiting(limit: usize, session: &SessionName) -> Fault {
    overloaded(format!("{limit} completions wait in session `{session}`: retry when one is over"))
}

pub(crate) fn too_many_calls(limit: usize, of: &str) -> Fault {
    let message = format!("{limit} calls {of} wait already: retry after a pause");
    overloaded(message).with("limit", limit)
}

pub(crate) fn too_much_text() -> Fault {
    let message = "more text waits to be tokenized than this router takes at a time: retry after a pause";
    Fault::new(Reason::Overloaded, message).retry_after(TEXT_RETRY)
}

/// An edit that was being worked out when its session was closed and opened again.
pub(crate) fn another_life(session: &Session) -> Fault {
    let message = format!(
        "session `{}` was closed and opened again meanwhile: the edit is of another text",
        session.name
    );
    Fault::new(Reason::RevisionMismatch, message).with("current_revision", session.document.revision().0)
}

/// What was worked out for a session does not fit it any more.
pub(crate) fn overtaken(name: &str) -> Fault {
    let message =
        format!("session `{name}` was changed by another call while its text was compared: open it again");
    Fault::new(Reason::RevisionMismatch, message).retry_after(RETRY)
}

pub(crate) fn no_markers() -> Fault {
    let message = "filling in the middle needs a document of text and a model whose tokenizer has markers for it: \
                   complete with mode CONTINUE, or start the pool with --fim";
    Fault::new(Reason::FimUnsupported, message)
}

pub(crate) fn nothing_before(name: &SessionName) -> Fault {
    let message = format!(
        "session `{name}` has no text before the cursor, and the model no leading token: nothing to continue"
    );
    Fault::new(Reason::ContextEmpty, message)
}

/// What a document refuses.
pub fn text(error: &TextError) -> Fault {
    let reason = Reason::of(error.code()).unwrap_or(Reason::Internal);
    let mut fault = Fault::new(reason, error.to_string());
    if let Some(edit) = error.edit() {
        fault = fault.with("edit", edit);
    }
    if let Some(current) = error.current_revision() {
        fault = fault.with("current_revision", current.0);
    }
    fault
}

/// What is wrong with a completion's cursor.
pub fn at_cursor(error: &TextError) -> Fault {
    let what = match error {
        TextError::RangeOutOfBounds { end, length, .. } => {
            format!("is at byte {end}; the text has {length}: is the text the client's?")
        }
        TextError::SpliceOutOfBounds { end, length, .. } => {
            format!("is at token {end}; the document has {length}: is it the client's?")
        }
        TextError::InsideCharacter { offset, before, after, .. } => format!(
            "is at byte {offset}, inside of the character at bytes {before}..{after}: offsets count bytes of UTF-8; send an \
             LSP position if you count UTF-16 units"
        ),
        TextError::ColumnInsidePair { line, column, .. } => {
            format!(
                "is at column {column} of line {line}, inside of a surrogate pair: move it to either side"
            )
        }
        _ => return text(error),
    };
    Fault::new(text(error).reason, format!("the completion's cursor {what}"))
}

/// Rows that a rank would refuse. The checks before should have refused whatever leads here.
pub(crate) fn beyond_the_model() -> Fault {
    let message = "the session has tokens that the model cannot see, which a check should have refused before: please report it";
    Fault::new(Reason::Internal, message)
}

/// What the model computed for a session overflowed.
pub(crate) fn no_numbers() -> Fault {
    let message = "the model's logits are no numbers for this text (they overflow in the type it is computed in): change the text, or run \
                   the model in a wider type (`--dtype`)";
    Fault::new(Reason::Internal, message)
}

fn splice(error: &SpliceError) -> Fault {
    let reason = match error {
        SpliceError::Overlap { .. } => Reason::SplicesUnsorted,
        SpliceError::OutOfBounds { .. } => Reason::RangeOutOfBounds,
    };
    Fault::new(reason, error.to_string()).with("edit", error.index())
}

/// The router is about to end.
pub fn stopping() -> Fault {
    Fault::new(Reason::ShuttingDown, "the router is stopping")
}

/// When a session on its way should have arrived.
const ARRIVAL: Duration = Duration::from_millis(100);

/// The session is on its way to another group or router.
pub fn moving(name: &str) -> Fault {
    let message = format!("session `{name}` is being moved to another group or router: retry in a moment");
    Fault::new(Reason::SessionMoving, message).retry_after(ARRIVAL)
}

/// When a lease that is in doubt should be confirmed, or another router have taken over.
const CERTAINTY: Duration = Duration::from_millis(500);

/// Another router may own the group by now.
pub fn unsure(group: &str) -> Fault {
    let message = format!(
        "this router cannot tell whether it still owns group {group}: its placement has not confirmed that lately; nothing was changed, \
         retry in a moment"
    );
    Fault::new(Reason::OwnershipUnsure, message).with("group", group).retry_after(CERTAINTY)
}

/// Another router asks for documents that are in use: one of the two is wrong, and finds out soon.
pub(crate) fn owned(group: &str) -> Fault {
    let message =
        format!("this router owns group {group}, as far as it knows: its documents are not given away");
    Fault::new(Reason::OwnershipUnsure, message).with("group", group).retry_after(CERTAINTY)
}

/// Does work that only looks. A panic is a bug that this caller found: it fails his call, and nobody else's.
pub(crate) fn contained<T>(look: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
    looked.unwrap_or_else(|_| {
        let message = "the call found a bug, of which the router's log has the place: please report it; nothing was changed";
        Err(Fault::new(Reason::Internal, message))
    })
}

/// Prepares an edit of a document: nothing is changed yet.
pub fn prepare(
    document: &Document,
    request: &ApplyEdits,
    vocabulary: Option<u32>,
) -> Result<DocumentChange, Fault> {
    let base = request.base_revision;
    match &request.edits {
        Edits::Text(edits) => document.prepare(base, edits).map_err(|error| text(&error)),
        Edits::Sequential(edits) => document.prepare_sequential(base, edits).map_err(|error| text(&error)),
        Edits::Parts(parts) => document.prepare_parts(base, parts).map_err(|error| text(&error)),
        Edits::Tokens(list) => {
            for (index, splice) in list.iter().enumerate() {
                check_tokens(splice.insert.iter().copied(), vocabulary)
                    .map_err(|fault| fault.with("edit", index))?;
            }
            let splices = Splices::new(list.clone(), document.token_count()).map_err(|error| splice(&error));
            // A stale splice list must hear of its revision, not of bounds that only look wrong.
            match splices {
                Err(_) if document.revision() != base => {
                    document.prepare_tokens(base, Splices::default()).map_err(|error| text(&error))
                }
                Err(fault) => Err(fault),
                Ok(splices) => document.prepare_tokens(base, splices).map_err(|error| text(&error)),
            }
        }
    }
}

/// Whether the model knows tokens that a client chose.
pub(crate) fn check_tokens(
    mut tokens: impl Iterator<Item = TokenId>,
    vocabulary: Option<u32>,
) -> Result<(), Fault> {
    match tokens.find(|token| vocabulary.is_some_and(|size| token.0 >= size)) {
        Some(token) => Err(token_unknown(token.0, vocabulary)),
        None => Ok(()),
    }
}

pub(crate) fn token_unknown(token: u32, vocabulary: Option<u32>) -> Fault {
    let size = vocabulary.unwrap_or(0);
    Fault::new(Reason::TokenUnknown, format!("token {token} is not in the vocabulary of {size} tokens"))
}

/// A completion is for another revision than there is.
pub fn other_revision(wanted: Revision, current: Revision) -> Fault {
    let message = format!("the completion is for revision {wanted}, the session is at {current}");
    Fault::new(Reason::RevisionMismatch, message).with("current_revision", current)
}

/// Whether a completion can be taken.
pub(crate) fn check_completion(
    request: &Complete,
    session: &Session,
    model: &ModelFacts,
) -> Result<(), Fault> {
    let current = session.document.revision();
    if let Some(wanted) = request.revision.filter(|wanted| *wanted != current) {
        return Err(other_revision(wanted, current));
    }
    if session.tokens() == 0 {
        let message = format!("session `{}` has no tokens: there is nothing to continue", session.name);
        return Err(Fault::new(Reason::ContextEmpty, message));
    }
    if request.max_tokens > model.context_limit {
        let message =
            format!("max_tokens is {}; the model's context is {}", request.max_tokens, model.context_limit);
        return Err(Fault::new(Reason::BadSampling, message));
    }
    if let Some(token) = request.stop_tokens.iter().find(|token| token.0 >= model.vocabulary) {
        return Err(token_unknown(token.0, Some(model.vocabulary)));
    }
    Ok(())
}

/// Whether a completion may have generated these: none that ends it, since others follow.
pub(crate) fn check_generated(
    generated: &[TokenId],
    ends: &[TokenId],
    model: &ModelFacts,
) -> Result<(), Fault> {
    check_tokens(generated.iter().copied(), Some(model.vocabulary))?;
    match generated.iter().position(|token| ends.contains(token)) {
        Some(index) => Err(bad_generated(index, "it is one that ends the completion")),
        None => Ok(()),
    }
}

/// What an earlier stream gave cannot have been generated.
pub fn bad_generated(index: usize, why: &str) -> Fault {
    let message = format!("token {index} of generated cannot have others behind it: {why}");
    Fault::new(Reason::BadGenerated, message).with("index", index)
}

/// The model does not draw again what it is said to have drawn.
pub(crate) fn drawn_otherwise(number: u32, earlier: TokenId, drawn: TokenId) -> Fault {
    let message = format!(
        "token {number} of the completion is {} in generated, and {} as it is drawn now: is it of the same request?",
        earlier.0, drawn.0
    );
    Fault::new(Reason::BadGenerated, message).with("index", number.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused because there is too much to do passes: whoever is told so is told when to ask again.
    #[test]
    fn overload_says_when_to_ask_again() {
        for fault in [too_many_calls(1, "of all"), too_many_sessions(1, None), too_many_completions(1)] {
            assert_eq!((fault.reason, fault.retry_after), (Reason::Overloaded, Some(RETRY)), "{fault}");
        }
    }
}
