// Starts `pie lsp`. Everything else is the language server's.
import { commands, ExtensionContext, workspace } from "vscode";
import { LanguageClient, LanguageClientOptions, ServerOptions } from "vscode-languageclient/node";

let client: LanguageClient | undefined;

function server(): ServerOptions {
  const settings = workspace.getConfiguration("pie");
  const command = settings.get("path", "pie");
  const pool = settings.get("pool", "");
  const flags = settings.get<string[]>("flags", []);
  const args = pool
    ? ["lsp", "--pool", pool, ...flags]
    : ["lsp", "--embedded", "--model", settings.get("model", "qwen2.5-coder-0.5b"), "--", ...flags];
  return { command, args };
}

async function start(): Promise<void> {
  const options: LanguageClientOptions = {
    documentSelector: [{ scheme: "file" }, { scheme: "untitled" }],
    synchronize: { configurationSection: "pie" },
  };
  client = new LanguageClient("pie", "pie", server(), options);
  await client.start();
}

async function restart(): Promise<void> {
  await client?.stop();
  await start();
}

export async function activate(context: ExtensionContext): Promise<void> {
  const launched = ["pie.path", "pie.pool", "pie.model", "pie.flags"];
  context.subscriptions.push(
    commands.registerCommand("pie.restart", restart),
    workspace.onDidChangeConfiguration(async (event) => {
      if (launched.some((name) => event.affectsConfiguration(name))) {
        await restart();
      }
    }),
  );
  await start();
}

export function deactivate(): Promise<void> | undefined {
  return client?.stop();
}
