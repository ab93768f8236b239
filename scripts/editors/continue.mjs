// Continue's own autocompletion, without the editor around it: what it makes of a file and a cursor is posted to a pool, as its provider for
// llama.cpp and its provider for OpenAI do. scripts/editors/continue.sh bundles and starts it.
import { CompletionProvider } from "@continuedev/core/dist/autocomplete/CompletionProvider.js";
import LlamaCpp from "@continuedev/core/dist/llm/llms/LlamaCpp.js";
import OpenAI from "@continuedev/core/dist/llm/llms/OpenAI.js";
import fs from "node:fs";

const [base, model, file, line, character] = process.argv.slice(2);
const uri = "file:///work/" + file.split("/").pop();
const text = fs.readFileSync(file, "utf8");
const answers = {
  readFile: async () => text,
  fileExists: async (asked) => asked === uri,
  getWorkspaceDirs: async () => ["file:///work"],
  getOpenFiles: async () => [uri],
  getIdeInfo: async () => ({ ideType: "vscode" }),
  getClipboardContent: async () => ({ text: "", copiedAt: new Date().toISOString() }),
  getDiff: async () => [],
  onDidChangeActiveTextEditor: () => {},
};
const ide = new Proxy(answers, { get: (known, name) => known[name] ?? (async () => undefined) });
const config = { loadConfig: async () => ({ config: { tabAutocompleteOptions: { useCache: false, debounceDelay: 0 } } }) };
const providers = { "llama.cpp": new LlamaCpp({ model, apiBase: base }), openai: new OpenAI({ model, apiBase: `${base}/v1`, apiKey: "none" }) };

async function complete(name) {
  let failed;
  const engine = new CompletionProvider(config, ide, async () => providers[name], (error) => { failed = error; }, async () => []);
  const place = { filepath: uri, pos: { line: Number(line) - 1, character: Number(character) - 1 }, isUntitledFile: false, completionId: name };
  const outcome = await engine.provideInlineCompletionItems({ ...place, recentlyVisitedRanges: [], recentlyEditedRanges: [] });
  if (failed || !outcome) throw failed ?? new Error(`nothing from ${name}`);
  console.log(JSON.stringify({ provider: name, completion: outcome.completion, ms: outcome.time, prompt: outcome.prompt }));
}

async function all() {
  for (const name of Object.keys(providers)) await complete(name);
}
all().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
