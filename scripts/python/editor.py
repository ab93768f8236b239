"""An editor as somebody else would write it: pygls' client at the other end of `pie lsp`, and nothing of pie-pool's own code."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

from lsprotocol import types as lsp
from pool import binary, environment
from pygls.lsp.client import LanguageClient

TIMEOUT = 30.0
WIDTHS = {
    "utf-8": lambda character: len(character.encode()),
    "utf-16": lambda character: 2 if ord(character) > 0xFFFF else 1,
    "utf-32": lambda character: 1,
}


def position(text: str, index: int, encoding: str) -> lsp.Position:
    """Where a character is. None is between \\r and \\n."""
    line, column, width = 0, 0, WIDTHS[encoding]
    for at, character in enumerate(text[:index]):
        if character == "\n" or (character == "\r" and text[at + 1 : at + 2] != "\n"):
            line, column = line + 1, 0
        else:
            column += width(character)
    return lsp.Position(line, column)


class Editor:
    """A language server, and what an editor does with it. `settings` says what the editor has set for a document."""

    def __init__(self, cache: Path, *flags: str, encodings=("utf-16",), inline=True, actions=True, versions=True, folders=(), settings=None, options=None):
        self.messages: list[str] = []
        self.shown: list[str] = []
        self.settings = settings
        self.texts: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = LanguageClient("editor", "1")
        self._register()
        self._do(self._client.start_io(str(binary()), "lsp", *flags, env=environment(cache)))
        self.pid: int = self._client._server.pid
        capabilities = lsp.ClientCapabilities(
            general=lsp.GeneralClientCapabilities(position_encodings=list(encodings)),
            text_document=lsp.TextDocumentClientCapabilities(
                inline_completion=lsp.InlineCompletionClientCapabilities() if inline else None,
                completion=lsp.CompletionClientCapabilities(),
                code_action=lsp.CodeActionClientCapabilities(
                    data_support=True, resolve_support=lsp.ClientCodeActionResolveOptions(properties=["edit"])
                )
                if actions
                else None,
            ),
            workspace=lsp.WorkspaceClientCapabilities(
                configuration=settings is not None,
                workspace_folders=True,
                workspace_edit=lsp.WorkspaceEditClientCapabilities(document_changes=versions),
            ),
        )
        params = lsp.InitializeParams(
            capabilities=capabilities,
            workspace_folders=[lsp.WorkspaceFolder(uri=uri, name=uri) for uri in folders],
            initialization_options=options,
        )
        initialized = self._do(self._client.initialize_async(params))
        self.capabilities: lsp.ServerCapabilities = initialized.capabilities
        self.encoding = str(getattr(self.capabilities.position_encoding, "value", self.capabilities.position_encoding))
        self._notify(self._client.initialized, lsp.InitializedParams())

    def _register(self):
        @self._client.feature(lsp.WINDOW_LOG_MESSAGE)
        def logged(params: lsp.LogMessageParams):
            self.messages.append(params.message)

        @self._client.feature(lsp.WINDOW_SHOW_MESSAGE)
        def shown(params: lsp.ShowMessageParams):
            self.shown.append(params.message)

        @self._client.feature(lsp.WORKSPACE_CONFIGURATION)
        def configuration(params: lsp.ConfigurationParams):
            return [self.settings(item.scope_uri) if item.section == "pie" else None for item in params.items]

    def _do(self, work, timeout: float = TIMEOUT):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def _notify(self, notification, *arguments):
        async def send():
            notification(*arguments)

        self._do(send())

    def open(self, uri: str, text: str, language: str = "rust") -> None:
        self.texts[uri], self._versions[uri] = text, 1
        document = lsp.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
        self._notify(self._client.text_document_did_open, lsp.DidOpenTextDocumentParams(document))

    def close(self, uri: str) -> None:
        del self.texts[uri]
        identifier = lsp.TextDocumentIdentifier(uri)
        self._notify(self._client.text_document_did_close, lsp.DidCloseTextDocumentParams(identifier))

    def save(self, uri: str) -> None:
        identifier = lsp.TextDocumentIdentifier(uri)
        self._notify(self._client.text_document_did_save, lsp.DidSaveTextDocumentParams(identifier))

    def change(self, uri: str, *changes: tuple[int, int, str]) -> None:
        """Characters from, to, and what stands there afterwards; each in the text that those before it left. One notification."""
        events = []
        for start, end, new in changes:
            text = self.texts[uri]
            between = lsp.Range(position(text, start, self.encoding), position(text, end, self.encoding))
            events.append(lsp.TextDocumentContentChangePartial(range=between, text=new))
            self.texts[uri] = text[:start] + new + text[end:]
        self._changed(uri, events)

    def replace(self, uri: str, text: str) -> None:
        """The whole text, as editors send it that know no better."""
        self.texts[uri] = text
        self._changed(uri, [lsp.TextDocumentContentChangeWholeDocument(text=text)])

    def _changed(self, uri, events):
        self._versions[uri] = self._versions.get(uri, 0) + 1
        identifier = lsp.VersionedTextDocumentIdentifier(version=self._versions[uri], uri=uri)
        self._notify(self._client.text_document_did_change, lsp.DidChangeTextDocumentParams(identifier, events))

    def configure(self, settings: dict) -> None:
        """Settings changed: pushed."""
        params = lsp.DidChangeConfigurationParams(settings=settings)
        self._notify(self._client.workspace_did_change_configuration, params)

    def raw(self, method: str, params: dict) -> None:
        """A notification as it is, also one that a sane editor would not send."""
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()
        self._notify(self._client._server.stdin.write, b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def ask(self, uri: str, at: int | lsp.Position | None = None):
        """Asks for an inline completion; the answer comes later."""
        text = self.texts.get(uri, "")
        at = at if isinstance(at, lsp.Position) else position(text, len(text) if at is None else at, self.encoding)
        context = lsp.InlineCompletionContext(trigger_kind=lsp.InlineCompletionTriggerKind.Automatic)
        params = lsp.InlineCompletionParams(context=context, text_document=lsp.TextDocumentIdentifier(uri), position=at)
        return Asked(self, params)

    def complete(self, uri: str, at: int | lsp.Position | None = None, timeout: float = TIMEOUT) -> str | None:
        """The text of an inline completion; None if there is nothing to say."""
        return self.ask(uri, at).answer(timeout)

    def list(self, uri: str, at: int):
        """An ordinary completion."""
        place = position(self.texts[uri], at, self.encoding)
        params = lsp.CompletionParams(text_document=lsp.TextDocumentIdentifier(uri), position=place)
        return self._do(self._client.text_document_completion_async(params))

    def actions(self, uri: str, at: int, only=None, trigger=lsp.CodeActionTriggerKind.Invoked) -> list[lsp.CodeAction]:
        """What is offered at a place."""
        place = position(self.texts[uri], at, self.encoding)
        context = lsp.CodeActionContext(diagnostics=[], only=only, trigger_kind=trigger)
        params = lsp.CodeActionParams(lsp.TextDocumentIdentifier(uri), lsp.Range(place, place), context)
        return self._do(self._client.text_document_code_action_async(params)) or []

    def resolve(self, action: lsp.CodeAction) -> list[lsp.TextEdit]:
        """The edits of an action that is chosen."""
        resolved = self._do(self._client.code_action_resolve_async(action))
        if resolved.edit.document_changes is None:
            ((_, edits),) = resolved.edit.changes.items()
            return [*edits]
        (change,) = resolved.edit.document_changes
        assert change.text_document.version == self._versions[change.text_document.uri]
        return [*change.edits]

    def stop(self) -> None:
        """`shutdown` and `exit`."""
        self._do(self._client.shutdown_async(None))
        self._notify(self._client.exit, None)
        assert self.wait() == 0

    def hang_up(self) -> None:
        """As an editor that dies: standard input ends."""
        self._notify(self._client._server.stdin.close)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the end of the server."""
        return self._do(self._client._server.wait(), timeout)

    def end(self) -> None:
        """For cleaning up: in order, so that no session is left to the next test."""
        if self._client._server.returncode is None:
            self.hang_up()
            try:
                self.wait(5)
            except TimeoutError:
                self._client._server.kill()
                self.wait()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)


class Asked:
    """A request that is under way."""

    def __init__(self, editor: Editor, params: lsp.InlineCompletionParams):
        self._editor, self._id = editor, f"ask-{id(self)}"
        protocol = editor._client.protocol

        async def send():
            return protocol.send_request(lsp.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id=self._id)

        self._future = editor._do(send())

    @property
    def is_answered(self) -> bool:
        return self._future.done()

    def answer(self, timeout: float = TIMEOUT) -> str | None:
        result = self._future.result(timeout)
        if result is None:
            return None
        (item,) = result.items
        assert item.range is None or item.range.start == item.range.end
        return item.insert_text

    def cancel(self) -> None:
        self._editor.raw("$/cancelRequest", {"id": self._id})
