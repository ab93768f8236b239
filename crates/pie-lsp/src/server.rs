//! The language server: the editor's documents, and what is done with each message, in the order in which they come. Nothing here waits.

mod actions;
mod definitions;
mod neighbours;
mod roots;

use crate::answers::{CompletionMethod, NegotiatedCapabilities, SettingsFrom, SuggestionPosition};
use crate::document::{Answer, DocumentHandle, DocumentMessage, DocumentSnapshot, Policy, Question, Wanted};
use crate::link::{PoolAddress, PoolLink};
use crate::settings::{CheckedSettings, SECTION};
use crate::text::apply;
use async_lsp::concurrency::ConcurrencyLayer;
use async_lsp::panic::CatchUnwindLayer;
use async_lsp::router::Router;
use async_lsp::server::LifecycleLayer;
use async_lsp::{AnyNotification, ClientSocket, LspService, ResponseError};
use definitions::Definitions;
use lsp_types::notification::{self as note, Notification};
use lsp_types::request::{
    CodeActionRequest, CodeActionResolveRequest, Completion, Initialize, InlineCompletionRequest, Shutdown,
    WorkspaceConfiguration,
};
use lsp_types::{
    ConfigurationItem, ConfigurationParams, DidChangeConfigurationParams, DidChangeTextDocumentParams,
    DidCloseTextDocumentParams, DidOpenTextDocumentParams, InitializeParams, InitializeResult, MessageType,
    ShowMessageParams, TextDocumentPositionParams, Url,
};
use neighbours::{Recent, around, name, part};
use pie_proto::v1;
use roots::WorkspaceFolders;
use ropey::Rope;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Questions that are asked at once; more wait, and the editor with them. Each document has one at a time.
const QUESTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
/// A question is answered in this time, with nothing at the worst.
const ANSWER: Duration = Duration::from_secs(120);
/// An editor tells its settings in this time, or has none.
const SETTINGS: Duration = Duration::from_secs(5);
/// Names of sessions that the pool takes.
const NAME: usize = 256;
/// Complaints that are remembered, so as to be shown once.
const COMPLAINTS: usize = 256;
/// Cells of notebooks: their text alone is no document.
const NOTEBOOK_CELL: &str = "vscode-notebook-cell";

/// The server's state.
pub struct LanguageServer {
    address: PoolAddress,
    ends: mpsc::Sender<Infallible>,
    /// Tells this server's sessions from others'.
    random: String,
    /// Documents that were opened, so far.
    count: u64,
}

impl LanguageServer {
    /// A server that nobody has talked to.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn new(address: PoolAddress, ends: mpsc::Sender<Infallible>) -> Result<Self, getrandom::Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        Ok(Self { address, ends, random: hex::encode(random), count: 0 })
    }

    /// What answers the editor.
    pub fn service(self, client: ClientSocket) -> impl LspService<Response = Value, Error = ResponseError> {
        let link = PoolLink::new(self.address.clone(), client.clone());
        let mut router = Router::new(Editor {
            server: self,
            client,
            link,
            agreement: NegotiatedCapabilities::default(),
            roots: WorkspaceFolders::default(),
            settings: CheckedSettings::default(),
            open: HashMap::new(),
            recent: Recent::default(),
            definitions: Definitions::default(),
            complained: HashSet::new(),
        });
        router
            .request::<Initialize, _>(|editor, params| std::future::ready(Ok(editor.initialize(params))))
            .request::<Shutdown, _>(|editor, ()| {
                // Their tasks close the sessions.
                editor.open.clear();
                std::future::ready(Ok(()))
            })
            .request::<InlineCompletionRequest, _>(|editor, params| {
                let suggested = editor.suggested(CompletionMethod::Inline, params.text_document_position);
                async move { Ok(suggested.await.map(|(place, text)| place.inline(text))) }
            })
            .request::<Completion, _>(|editor, params| {
                let suggested = editor.suggested(CompletionMethod::Ordinary, params.text_document_position);
                async move { Ok(suggested.await.map(|(place, text)| place.ordinary(&text))) }
            })
            .request::<CodeActionRequest, _>(|editor, params| std::future::ready(Ok(editor.actions(&params))))
            .request::<CodeActionResolveRequest, _>(|editor, action| {
                let resolved = editor.resolved(action);
                async move { Ok(resolved.await) }
            })
            .event::<ConfigurationReply>(|editor, arrived| {
                editor.arrived(arrived);
                ControlFlow::Continue(())
            })
            // All of them: one that cannot be read must not end the server.
            .unhandled_notification(|editor, notification| {
                editor.notified(notification);
                ControlFlow::Continue(())
            });
        tower::ServiceBuilder::new()
            .layer(LifecycleLayer::default())
            .layer(CatchUnwindLayer::default())
            .layer(ConcurrencyLayer::new(QUESTIONS))
            .service(router)
    }
}

/// An open document, as the editor has it.
struct OpenDocument {
    language: String,
    text: Rope,
    /// Changes, so far.
    number: u64,
    version: i32,
    /// Which opening it is, of all: settings that were asked for before are another one's.
    opening: u64,
    /// Where it was edited last.
    cursor: usize,
    policy: Policy,
    handle: DocumentHandle,
}

/// Settings that the editor was asked for; `None` if it does not say.
struct ConfigurationReply {
    uri: Url,
    opening: u64,
    value: Option<Value>,
}

/// An editor, and what it has open.
struct Editor {
    server: LanguageServer,
    client: ClientSocket,
    link: PoolLink,
    agreement: NegotiatedCapabilities,
    roots: WorkspaceFolders,
    /// Those that came with `initialize`, and what was pushed later.
    settings: CheckedSettings,
    open: HashMap<Url, OpenDocument>,
    recent: Recent,
    definitions: Definitions,
    complained: HashSet<String>,
}

impl Editor {
    fn initialize(&mut self, params: InitializeParams) -> InitializeResult {
        // Some editors wrap them in the section's name.
        let options = params.initialization_options.as_ref();
        let options = options.map(|options| options.get(SECTION).unwrap_or(options));
        self.agreement = NegotiatedCapabilities::with(&params.capabilities, options);
        self.roots = WorkspaceFolders::of(&params);
        if let Some(options) = options {
            self.settings = CheckedSettings::default().above(options);
        }
        self.agreement.answer()
    }

    fn notified(&mut self, notification: AnyNotification) {
        let AnyNotification { method, params, .. } = notification;
        let read = match method.as_str() {
            note::DidOpenTextDocument::METHOD => {
                read::<note::DidOpenTextDocument>(params).map(|it| self.opened(it))
            }
            note::DidChangeTextDocument::METHOD => {
                read::<note::DidChangeTextDocument>(params).map(|it| self.changed(it))
            }
            note::DidCloseTextDocument::METHOD => {
                read::<note::DidCloseTextDocument>(params).map(|it| self.closed(&it))
            }
            note::DidChangeConfiguration::METHOD => {
                read::<note::DidChangeConfiguration>(params).map(|it| self.configured(&it))
            }
            note::DidChangeWorkspaceFolders::METHOD => {
                read::<note::DidChangeWorkspaceFolders>(params).map(|it| {
                    self.roots.change(it.event);
                    self.fetch_all();
                })
            }
            // What is saved is what is open.
            _ => Ok(()),
        };
        if let Err(error) = read {
            tracing::warn!(method, %error, "a notification that cannot be read");
        }
    }

    fn opened(&mut self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        if document.uri.scheme() == NOTEBOOK_CELL {
            return;
        }
        let text = Rope::from_str(&document.text);
        if self.open.contains_key(&document.uri) {
            tracing::warn!(uri = %document.uri, "opened though it is open: the later text counts");
            self.definitions.closed(&document.uri);
        }
        self.server.count += 1;
        let opening = self.server.count;
        let name = session_name(&self.server.random, opening, &document.uri);
        let handle = DocumentHandle::start(name, text.clone(), self.link.clone(), self.server.ends.clone());
        let open = OpenDocument {
            language: document.language_id,
            text,
            number: 0,
            version: document.version,
            opening,
            cursor: 0,
            policy: Policy::Unknown,
            handle,
        };
        self.open.insert(document.uri.clone(), open);
        self.fetch(&document.uri);
    }

    fn changed(&mut self, params: DidChangeTextDocumentParams) {
        let (uri, version) = (params.text_document.uri, params.text_document.version);
        let Some(open) = self.open.get_mut(&uri) else {
            if uri.scheme() != NOTEBOOK_CELL {
                tracing::warn!(%uri, "changed though it is not open");
            }
            return;
        };
        if version <= open.version {
            tracing::warn!(%uri, before = open.version, now = version, "versions go back; the change counts");
        }
        open.version = version;
        let encoding = self.agreement.encoding;
        let changes = params.content_changes.into_iter();
        let edits: Vec<_> = changes.filter_map(|change| apply(&mut open.text, change, encoding)).collect();
        if let Some(last) = edits.last() {
            open.number += 1;
            open.cursor = last.range.start + last.text.len();
            self.recent.used(&uri);
            open.handle.tell(DocumentMessage::Edited(open.snapshot(), edits));
        }
    }

    fn closed(&mut self, params: &DidCloseTextDocumentParams) {
        let uri = &params.text_document.uri;
        self.recent.closed(uri);
        self.definitions.closed(uri);
        // Its task closes the session.
        if self.open.remove(uri).is_none() && uri.scheme() != NOTEBOOK_CELL {
            tracing::warn!(%uri, "closed though it is not open");
        }
    }

    /// The settings changed. Editors that are asked for them push nothing, or what is not for us.
    fn configured(&mut self, params: &DidChangeConfigurationParams) {
        if self.agreement.settings == SettingsFrom::Pushed
            && let Some(section) = params.settings.get(SECTION)
        {
            let before = CheckedSettings { settings: self.settings.settings.clone(), complaints: Vec::new() };
            self.settings = before.above(section);
        }
        self.fetch_all();
    }

    fn fetch_all(&mut self) {
        let all: Vec<Url> = self.open.keys().cloned().collect();
        all.iter().for_each(|uri| self.fetch(uri));
    }

    /// Finds out what may be done with a document: root folders may have settings of their own.
    fn fetch(&mut self, uri: &Url) {
        let Some(open) = self.open.get(uri) else { return };
        let (uri, opening) = (uri.clone(), open.opening);
        if self.agreement.settings == SettingsFrom::Pushed {
            return self.arrived(ConfigurationReply { uri, opening, value: None });
        }
        let item = ConfigurationItem { scope_uri: Some(uri.clone()), section: Some(SECTION.to_owned()) };
        let client = self.client.clone();
        tokio::spawn(async move {
            let params = ConfigurationParams { items: vec![item] };
            let asked = timeout(SETTINGS, client.request::<WorkspaceConfiguration>(params)).await;
            let value = match asked {
                Ok(Ok(values)) => values.into_iter().next(),
                Ok(Err(_)) | Err(_) => None,
            };
            // The server may have ended meanwhile.
            let _ = client.emit(ConfigurationReply { uri, opening, value });
        });
    }

    fn arrived(&mut self, arrived: ConfigurationReply) {
        let Some(open) = self.open.get_mut(&arrived.uri).filter(|open| open.opening == arrived.opening)
        else {
            return;
        };
        let read = self.settings.clone().above(arrived.value.as_ref().unwrap_or(&Value::Null));
        let path = arrived.uri.to_file_path().ok();
        let excluded = read.settings.exclude.holds(path.as_deref(), &open.language, self.roots.folders());
        open.policy = match read.settings.enable && !excluded {
            true => Policy::Sent(Arc::new(read.settings)),
            false => Policy::Kept,
        };
        open.handle.set_policy(open.policy.clone());
        read.complaints.into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// Shows what is wrong, once.
    fn complain(&mut self, message: String) {
        if self.complained.len() < COMPLAINTS && self.complained.insert(message.clone()) {
            let shown = ShowMessageParams { typ: MessageType::WARNING, message };
            // The editor may be gone: there is nobody to show it to.
            let _ = self.client.notify::<note::ShowMessage>(shown);
        }
    }

    /// What a completion at a byte of a document is to see of others that the pool may have: what the names there stand for, and where
    /// somebody edited last.
    fn front(&mut self, uri: &Url, cursor: usize) -> v1::Parts {
        let Self { open, definitions, recent, roots, .. } = self;
        let Some(OpenDocument { policy: Policy::Sent(settings), text, .. }) = open.get(uri) else {
            return v1::Parts::default();
        };
        let roots = roots.folders();
        let others = recent.besides(uri).filter_map(|other| Some((other, open.get(other)?)));
        let sent: Vec<_> = others.filter(|(_, open)| matches!(open.policy, Policy::Sent(_))).collect();
        let edited: Vec<_> = sent
            .iter()
            .map(|(other, open)| (*other, &open.text, around(&open.text, open.cursor)))
            .filter(|(_, text, lines)| !text.byte_slice(lines.clone()).to_string().trim().is_empty())
            .take(settings.other_files)
            .collect();
        // Behind those that were edited come those that were only opened, the last one first.
        let is_opened = |(other, open): &(&Url, &OpenDocument)| {
            *other != uri && !recent.has(other) && matches!(open.policy, Policy::Sent(_))
        };
        let mut opened: Vec<_> = open.iter().filter(is_opened).collect();
        opened.sort_by_key(|(_, open)| std::cmp::Reverse(open.opening));
        let known = sent.iter().copied().chain(opened).map(|(other, open)| (other, &open.text, open.number));
        let found = definitions.around(text, cursor, known, settings.definitions);
        let is_shown = |uri: &Url, bytes: &Range<usize>| {
            edited.iter().any(|(other, _, lines)| {
                *other == uri && lines.start <= bytes.start && bytes.end <= lines.end
            })
        };
        let found = found.into_iter().filter(|definition| !is_shown(&definition.uri, &definition.bytes));
        let found = found.filter_map(|definition| {
            Some(part(&definition.uri, &open.get(&definition.uri)?.text, definition.bytes, roots))
        });
        let mut parts: Vec<v1::Part> = edited
            .iter()
            .map(|(other, text, lines)| part(other, text, lines.clone(), roots))
            .chain(found)
            .collect();
        // The last one stands next to the document.
        parts.reverse();
        v1::Parts { parts, document: name(uri, roots) }
    }

    /// Asks the document's task, unless the editor asks in the other way, too.
    fn suggested(
        &mut self,
        asking: CompletionMethod,
        at: TextDocumentPositionParams,
    ) -> impl Future<Output = Option<(SuggestionPosition, String)>> + Send + use<> {
        let agreed = self.agreement.asking == asking || self.agreement.asking == CompletionMethod::Both;
        let uri = &at.text_document.uri;
        let open = self.open.get(uri).filter(|_| agreed);
        let place =
            open.map(|open| SuggestionPosition::new(&open.text, at.position, self.agreement.encoding));
        let asked = place.and_then(|place| Some((self.ask(uri, place.cursor, Wanted::Suggestion)?, place)));
        async move {
            let (answered, place) = asked?;
            match timeout(ANSWER, answered).await.ok()?.ok()? {
                Answer::Suggestion(text) => Some((place, text)),
                Answer::NextEdit(_) => None,
            }
        }
    }

    /// Asks a document's task, if there is one.
    fn ask(&mut self, uri: &Url, cursor: usize, wanted: Wanted) -> Option<oneshot::Receiver<Answer>> {
        let front = self.front(uri, cursor);
        let open = self.open.get(uri)?;
        let (answer, answered) = oneshot::channel();
        let question = Question { shown: open.snapshot(), cursor, front, wanted, answer };
        open.handle.tell(DocumentMessage::Asked(question));
        Some(answered)
    }
}

impl OpenDocument {
    fn snapshot(&self) -> DocumentSnapshot {
        DocumentSnapshot { text: self.text.clone(), number: self.number }
    }
}

fn read<N: Notification>(params: Value) -> Result<N::Params, serde_json::Error> {
    serde_json::from_value(params)
}

/// Of one opening of a document of this server: by its address, or, if that is long, by a hash of it.
fn session_name(random: &str, opening: u64, uri: &Url) -> String {
    let name = format!("lsp/{random}/{opening}/{uri}");
    if name.len() <= NAME {
        return name;
    }
    format!("lsp/{random}/{opening}/{:032x}", xxhash_rust::xxh3::xxh3_128(uri.as_str().as_bytes()))
}
