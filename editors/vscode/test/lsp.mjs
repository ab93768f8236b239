// VS Code's own protocol library in front of `pie lsp`, with a pool of its own: node test/lsp.mjs PATH_OF_PIE
import { spawn } from "node:child_process";
import { strict as assert } from "node:assert";
import protocol from "vscode-languageserver-protocol/node";

const [pie] = process.argv.slice(2);
const flags = ["lsp", "--embedded", "--model", "seeded:tiny", "--", "--world-size", "1"];
const server = spawn(pie, flags, { stdio: ["pipe", "pipe", "inherit"] });
const connection = protocol.createProtocolConnection(
  new protocol.StreamMessageReader(server.stdout),
  new protocol.StreamMessageWriter(server.stdin),
);
connection.onRequest(protocol.ConfigurationRequest.type, ({ items }) => items.map(() => ({ maxTokens: 12, maxLines: 0 })));
connection.listen();

const uri = "untitled:Untitled-1";
const capabilities = {
  general: { positionEncodings: ["utf-16"] },
  textDocument: { inlineCompletion: {} },
  workspace: { configuration: true },
};
const initialized = await connection.sendRequest(protocol.InitializeRequest.type, {
  processId: process.pid, rootUri: null, workspaceFolders: null, capabilities,
});
assert.ok(initialized.capabilities.inlineCompletionProvider);
await connection.sendNotification(protocol.InitializedNotification.type, {});
await connection.sendNotification(protocol.DidOpenTextDocumentNotification.type, {
  textDocument: { uri, languageId: "rust", version: 1, text: "fn main() {\n    🙂" },
});
const position = { line: 1, character: 6 };
const context = { triggerKind: protocol.InlineCompletionTriggerKind.Automatic };
const ask = () => connection.sendRequest(protocol.InlineCompletionRequest.type, { textDocument: { uri }, position, context });
let suggested = null;
for (const end = Date.now() + 60_000; !suggested && Date.now() < end; ) {
  suggested = await ask();
}
const { insertText } = suggested.items[0];
assert.ok(insertText.length > 1);
await connection.sendNotification(protocol.DidChangeTextDocumentNotification.type, {
  textDocument: { uri, version: 2 },
  contentChanges: [{ range: { start: position, end: position }, text: insertText[0] }],
});
if (insertText[0] !== "\n" && insertText[0] !== "\r") {
  position.character += 1;
  assert.equal((await ask()).items[0].insertText, insertText.slice(1));
}
await connection.sendRequest(protocol.ShutdownRequest.type);
await connection.sendNotification(protocol.ExitNotification.type);
assert.equal(await new Promise((resolve) => server.on("exit", resolve)), 0);
connection.dispose();
console.log(`VS Code's protocol library: ${JSON.stringify(insertText)}`);
