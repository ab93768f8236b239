//! The next edit as a code action: offered where somebody asks for actions, and worked out when it is chosen.

use super::{ANSWER, Editor};
use crate::document::{Answer, Policy, Wanted};
use crate::text::{offset, position};
use lsp_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CodeActionResponse,
    CodeActionTriggerKind, DocumentChanges, OneOf, OptionalVersionedTextDocumentIdentifier, Range,
    TextDocumentEdit, TextDocumentIdentifier, TextDocumentPositionParams, TextEdit, WorkspaceEdit,
};
use std::collections::HashMap;
use tokio::time::timeout;

/// What the action is called, in menus.
const TITLE: &str = "pie: write the next edit around the cursor";

impl Editor {
    /// What is offered at a place. An editor that asks by itself, at each move of the cursor, is not shown a lamp everywhere.
    pub(super) fn actions(&self, params: &CodeActionParams) -> Option<CodeActionResponse> {
        let uri = &params.text_document.uri;
        let is_sent = matches!(self.open.get(uri)?.policy, Policy::Sent(_));
        let is_automatic = params.context.trigger_kind == Some(CodeActionTriggerKind::AUTOMATIC);
        let kind = CodeActionKind::REFACTOR_REWRITE;
        let wanted = params.context.only.as_ref().is_none_or(|only| {
            only.iter().any(|only| {
                only.as_str().is_empty()
                    || kind.as_str() == only.as_str()
                    || kind.as_str().starts_with(&format!("{}.", only.as_str()))
            })
        });
        if !self.agreement.resolves_actions || !is_sent || is_automatic || !wanted {
            return None;
        }
        // It comes back when the action is chosen.
        let place =
            TextDocumentPositionParams::new(TextDocumentIdentifier::new(uri.clone()), params.range.end);
        let action = CodeAction {
            title: TITLE.to_owned(),
            kind: Some(kind),
            data: serde_json::to_value(place).ok(),
            ..CodeAction::default()
        };
        Some(vec![CodeActionOrCommand::CodeAction(action)])
    }

    /// An action with its edits: none where nothing is to be changed, or the text changed meanwhile.
    pub(super) fn resolved(&mut self, action: CodeAction) -> impl Future<Output = CodeAction> + Send + use<> {
        let place = action
            .data
            .clone()
            .and_then(|data| serde_json::from_value::<TextDocumentPositionParams>(data).ok());
        let (encoding, is_versioned) = (self.agreement.encoding, self.agreement.versioned_edits);
        let asked = place.and_then(|place| {
            let uri = place.text_document.uri;
            let open = self.open.get(&uri)?;
            let cursor = offset(&open.text, place.position, encoding);
            let (text, version) = (open.text.clone(), is_versioned.then_some(open.version));
            Some((self.ask(&uri, cursor, Wanted::NextEdit)?, uri, text, version))
        });
        async move {
            let Some((answered, uri, text, version)) = asked else { return action };
            let Ok(Ok(Answer::NextEdit(edits))) = timeout(ANSWER, answered).await else { return action };
            let edit = |edit: pie_client::Edit| {
                let place = |at: usize| position(&text, at, encoding);
                TextEdit {
                    range: Range::new(place(edit.range.start), place(edit.range.end)),
                    new_text: edit.text,
                }
            };
            let edits: Vec<TextEdit> = edits.into_iter().map(edit).collect();
            let edit = match version {
                // Typed over meanwhile, they are refused by the editor.
                Some(version) => {
                    let text_document =
                        OptionalVersionedTextDocumentIdentifier { uri, version: Some(version) };
                    let edits = edits.into_iter().map(OneOf::Left).collect();
                    let changes = DocumentChanges::Edits(vec![TextDocumentEdit { text_document, edits }]);
                    WorkspaceEdit { document_changes: Some(changes), ..WorkspaceEdit::default() }
                }
                None => WorkspaceEdit::new(HashMap::from([(uri, edits)])),
            };
            CodeAction { edit: Some(edit), ..action }
        }
    }
}
