//! `pie ctl rewrite`: the lines around a cursor, written anew, as a diff.

use super::caller::{CtlError, PoolCaller, Wait};
use super::name;
use super::show::{LineChange, Show};
use pie_proto::v1;

/// What is done with the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangesUse {
    /// They are shown.
    ShowAlone,
    /// And made.
    Apply,
}

/// Asks for the changes, and shows them as they come.
///
/// # Errors
/// Those of the calls.
pub(super) async fn rewrite(
    caller: &PoolCaller,
    request: v1::CompleteRequest,
    then: ChangesUse,
    show: Show,
) -> Result<(), CtlError> {
    let session = name::resolve(caller, &request.session).await?;
    let mut wire = caller.pool().wire();
    let read = v1::GetSessionRequest {
        session: session.session.clone(),
        identity: session.identity.clone(),
        content: true,
    };
    let held = caller.call(Wait::Text, "read the session", wire.get_session(read)).await?;
    let (text, held) = (held.text.unwrap_or_default(), held.session.unwrap_or(session));
    let request = v1::CompleteRequest {
        session: held.session.clone(),
        identity: held.identity.clone(),
        revision: Some(held.revision),
        ..request
    };
    let asked = "write the lines anew";
    let mut messages = caller.call(Wait::Tokens, asked, wire.complete(request)).await?;
    let mut edits = Vec::new();
    while let Some(message) = caller.next(Wait::Tokens, asked, &mut messages).await? {
        for edit in message.edits {
            if let Some(change) = line_change(&text, &edit) {
                show.line_change(&change);
            }
            edits.push(edit);
        }
        let finish = v1::FinishReason::try_from(message.finish_reason).unwrap_or_default();
        if finish != v1::FinishReason::Unspecified {
            show.rewritten(message.revision, edits.len(), finish);
        }
    }
    if then == ChangesUse::Apply && !edits.is_empty() {
        let edits = v1::TextEdits { edits, ..Default::default() };
        let request = v1::ApplyEditsRequest {
            session: held.session,
            base_revision: held.revision,
            identity: held.identity,
            edits: Some(v1::apply_edits_request::Edits::Text(edits)),
            ..Default::default()
        };
        show.edited(&caller.call(Wait::Text, "edit the session", wire.apply_edits(request)).await?);
    }
    Ok(())
}

/// What an edit of whole lines takes away, and what it puts there; `None` if it is of another text.
fn line_change<'a>(text: &'a str, edit: &'a v1::TextEdit) -> Option<LineChange<'a>> {
    let Some(v1::text_edit::Range::Bytes(range)) = &edit.range else { return None };
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    let line = text.get(..start)?.matches('\n').count();
    Some(LineChange { line, removed: text.get(start..end)?, inserted: &edit.text, bytes: start..end })
}
