//! What the server says in the protocol: what it can do, and a suggestion as the editor asked for it.

use crate::text::{ColumnEncoding, offset, position, word_before};
use lsp_types::{
    ClientCapabilities, CodeActionKind, CodeActionOptions, CompletionItem, CompletionItemKind,
    CompletionList, CompletionOptions, CompletionResponse, CompletionTextEdit, InitializeResult,
    InlineCompletionItem, InlineCompletionList, InlineCompletionOptions, InlineCompletionResponse,
    InsertTextFormat, OneOf, Position, Range, SaveOptions, ServerCapabilities, ServerInfo,
    TextDocumentSyncCapability, TextDocumentSyncKind, TextDocumentSyncOptions, TextDocumentSyncSaveOptions,
    TextEdit, WorkspaceFoldersServerCapabilities, WorkspaceServerCapabilities,
};
use ropey::Rope;
use serde_json::Value;

/// After these an editor asks for ordinary completions by itself, besides letters.
const TRIGGERS: [&str; 5] = [".", ":", "(", ",", "="];

/// What the editor and the server agreed on.
#[derive(Clone, Debug, Default)]
pub struct NegotiatedCapabilities {
    /// What columns count.
    pub encoding: ColumnEncoding,
    /// How suggestions are asked for.
    pub asking: CompletionMethod,
    /// How settings come.
    pub settings: SettingsFrom,
    /// Whether an action's edits may be told when it is chosen.
    pub resolves_actions: bool,
    /// Whether edits may name the version of the text that they are of.
    pub versioned_edits: bool,
}

/// How suggestions are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompletionMethod {
    /// As inline completions: text in grey at the cursor.
    #[default]
    Inline,
    /// As ordinary ones, items of a list: editors without inline completion.
    Ordinary,
    /// As either.
    Both,
}

/// How settings come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SettingsFrom {
    /// The editor pushes them, if it has any.
    #[default]
    Pushed,
    /// The server asks for those of each document.
    Pulled,
}

impl NegotiatedCapabilities {
    /// What an editor's capabilities lead to. `ordinaryCompletion` of its options is `auto`, `always` or `never`.
    pub fn with(capabilities: &ClientCapabilities, options: Option<&Value>) -> Self {
        let general = capabilities.general.as_ref();
        let encoding =
            ColumnEncoding::agreed(general.and_then(|general| general.position_encodings.as_deref()));
        let is_inline =
            capabilities.text_document.as_ref().is_some_and(|text| text.inline_completion.is_some());
        let wanted = options.and_then(|options| options.get("ordinaryCompletion")).and_then(Value::as_str);
        let asking = match (is_inline, wanted) {
            (_, Some("never")) => CompletionMethod::Inline,
            (true, Some("always")) => CompletionMethod::Both,
            (true, _) => CompletionMethod::Inline,
            (false, _) => CompletionMethod::Ordinary,
        };
        let pulls = capabilities.workspace.as_ref().and_then(|workspace| workspace.configuration);
        let settings = if pulls == Some(true) { SettingsFrom::Pulled } else { SettingsFrom::Pushed };
        let actions = capabilities.text_document.as_ref().and_then(|text| text.code_action.as_ref());
        let resolved = actions.and_then(|actions| actions.resolve_support.as_ref());
        let edits = resolved.is_some_and(|resolved| resolved.properties.iter().any(|name| name == "edit"));
        let resolves_actions = edits && actions.is_some_and(|actions| actions.data_support == Some(true));
        let edits = capabilities.workspace.as_ref().and_then(|workspace| workspace.workspace_edit.as_ref());
        let versioned_edits = edits.and_then(|edits| edits.document_changes) == Some(true);
        Self { encoding, asking, settings, resolves_actions, versioned_edits }
    }

    /// The answer to `initialize`.
    pub fn answer(&self) -> InitializeResult {
        let sync = TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            save: Some(TextDocumentSyncSaveOptions::SaveOptions(SaveOptions { include_text: Some(false) })),
            ..TextDocumentSyncOptions::default()
        };
        let ordinary = CompletionOptions {
            trigger_characters: Some(TRIGGERS.map(str::to_owned).to_vec()),
            ..CompletionOptions::default()
        };
        let folders = WorkspaceFoldersServerCapabilities {
            supported: Some(true),
            change_notifications: Some(OneOf::Left(true)),
        };
        let capabilities = ServerCapabilities {
            position_encoding: Some(self.encoding.kind()),
            text_document_sync: Some(TextDocumentSyncCapability::Options(sync)),
            completion_provider: (self.asking != CompletionMethod::Inline).then_some(ordinary),
            inline_completion_provider: (self.asking != CompletionMethod::Ordinary)
                .then(|| OneOf::Right(InlineCompletionOptions::default())),
            code_action_provider: self.resolves_actions.then(|| {
                CodeActionOptions {
                    code_action_kinds: Some(vec![CodeActionKind::REFACTOR_REWRITE]),
                    resolve_provider: Some(true),
                    ..CodeActionOptions::default()
                }
                .into()
            }),
            workspace: Some(WorkspaceServerCapabilities {
                workspace_folders: Some(folders),
                file_operations: None,
            }),
            ..ServerCapabilities::default()
        };
        let version = Some(env!("CARGO_PKG_VERSION").to_owned());
        let server_info = Some(ServerInfo { name: "pie".to_owned(), version });
        InitializeResult { capabilities, server_info, ..InitializeResult::default() }
    }
}

/// Where a suggestion is wanted, as the editor says it.
#[derive(Clone, Debug)]
pub struct SuggestionPosition {
    /// The cursor.
    pub position: Position,
    /// The same in bytes.
    pub cursor: usize,
    word: String,
    word_start: Position,
}

impl SuggestionPosition {
    /// A position of a text.
    pub fn new(text: &Rope, at: Position, encoding: ColumnEncoding) -> Self {
        let cursor = offset(text, at, encoding);
        let word = word_before(text, cursor);
        let word_start = position(text, cursor - word.len(), encoding);
        Self { position: position(text, cursor, encoding), cursor, word, word_start }
    }

    /// A suggestion in grey at the cursor.
    pub fn inline(&self, text: String) -> InlineCompletionResponse {
        let item = InlineCompletionItem {
            insert_text: text,
            filter_text: None,
            range: Some(Range::new(self.position, self.position)),
            command: None,
            insert_text_format: Some(InsertTextFormat::PLAIN_TEXT),
        };
        InlineCompletionResponse::List(InlineCompletionList { items: vec![item] })
    }

    /// A suggestion as the one item of a list. It takes the word before the cursor along, which editors filter their items by.
    pub fn ordinary(&self, text: &str) -> CompletionResponse {
        let new_text = self.word.clone() + text;
        let label = new_text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let item = CompletionItem {
            label: label.to_owned(),
            kind: Some(CompletionItemKind::TEXT),
            detail: Some("pie".to_owned()),
            filter_text: Some(new_text.lines().next().unwrap_or_default().to_owned()),
            // Before what other servers know: it was asked of this place.
            sort_text: Some("\u{1}".to_owned()),
            preselect: None,
            insert_text_format: Some(InsertTextFormat::PLAIN_TEXT),
            text_edit: Some(CompletionTextEdit::Edit(TextEdit {
                range: Range::new(self.word_start, self.position),
                new_text,
            })),
            ..CompletionItem::default()
        };
        CompletionResponse::List(CompletionList { is_incomplete: true, items: vec![item] })
    }
}
