// The page: each keystroke is a question to the pool, and its answer is shown.

import { EditorView, type ViewUpdate } from "@codemirror/view";
import { editor } from "./editor";
import { ghosts, suggest, suggested } from "./ghost";
import { Panel, element } from "./panel";
import { Player } from "./player";
import { type Cost, Refused, ask, model, useToken } from "./pool";
import { AFTER, SAMPLE } from "./sample";

/** Whoever types faster is asked for once. */
const PAUSE = 80;
const SUGGESTED = 24;
/** How often it is looked whether what is stale has become less, and how often at most. */
const LOOK = 500;
const LOOKS = 60;
/** The model that a pool has when nobody names one. */
const SHIPPED = "pie-coder";
const RETRY_FIRST = 1000;
const RETRY_MOST = 8000;

const session = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
const panel = new Panel();
const compare = element<HTMLInputElement>("compare");
let asking = new AbortController();
let timer = 0;
let retry = RETRY_FIRST;

function sleep(time: number, signal: AbortSignal): Promise<void> {
  return new Promise((done, stopped) => {
    const timer = setTimeout(done, time);
    const stop = () => {
      clearTimeout(timer);
      stopped(signal.reason);
    };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** Asks after a while, unless something else is asked for before. */
function soon(pause: number): void {
  asking.abort();
  clearTimeout(timer);
  timer = setTimeout(() => void question(), pause);
}

async function question(): Promise<void> {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const { doc, selection } = view.state;
  const cursor = selection.main.head;
  const asked = { before: doc.sliceString(0, cursor), behind: doc.sliceString(cursor) };
  try {
    // What is left of an older suggestion stays until the new one says more.
    const left = suggested(view.state);
    const grow = (text: string) => {
      if (!signal.aborted && (!left.startsWith(text) || text === left)) suggest(view, text.trim() ? text : "");
    };
    let whole = "";
    const told = (text: string) => grow((whole = text));
    const cost = await ask({ session, ...asked, tokens: SUGGESTED, runs: true }, signal, told);
    if (!whole.trim() || whole !== suggested(view.state)) suggest(view, whole.trim() ? whole : "");
    panel.pie(cost);
    panel.trouble("");
    element("login").hidden = true;
    retry = RETRY_FIRST;
    if (compare.checked) await inFull(asked, cost, signal);
    player.answered();
    await heal(asked, cost, signal);
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

/** The same keystroke, with everything behind the change encoded again. */
async function inFull(asked: { before: string; behind: string }, cost: Cost, signal: AbortSignal): Promise<void> {
  const full = { session: `${session}-full`, ...asked, tokens: 1, strategy: "full" } as const;
  if (cost.found === "new") {
    // It is only opened, so that the first keystroke finds both alike.
    await ask(full, signal);
    return;
  }
  panel.fullBegins();
  try {
    panel.full(await ask(full, signal));
  } catch (error) {
    panel.noFull();
    throw error;
  }
}

/** Looks on while the pool, which nobody wants anything of, encodes again what is stale. */
async function heal(asked: { before: string; behind: string }, cost: Cost, signal: AbortSignal): Promise<void> {
  let stale = cost.tokens_stale;
  for (let look = 0; look < LOOKS && stale > 0; look += 1) {
    await sleep(LOOK, signal);
    if (document.hidden) continue;
    const now = await ask({ session, ...asked, tokens: 1 }, signal);
    stale = now.tokens_stale;
    panel.healing(now);
  }
}

/** Says what is wrong, and asks again later: a pool that was away finds the page waiting. */
function failed(error: unknown): void {
  player.answered();
  if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
    panel.trouble(`The pool wants a token: ${error.message}`);
    element("login").hidden = false;
    return;
  }
  const again = !(error instanceof Refused) || error.status === 0 || error.status === 429 || error.status >= 500;
  const message = error instanceof Refused ? error.message : "the pool cannot be reached";
  panel.trouble(again ? `${message}; asking again …` : message);
  if (!again) return;
  const pause = error instanceof Refused && error.pause !== null ? error.pause * 1000 : retry;
  retry = Math.min(retry * 2, RETRY_MOST);
  soon(pause);
}

async function nameModel(): Promise<void> {
  try {
    const name = await model();
    element("model").textContent = name;
    element("hint").hidden = name !== SHIPPED;
  } catch {
    // The first question says what is wrong.
  }
}

const view: EditorView = editor(
  element("editor"),
  SAMPLE,
  SAMPLE.indexOf(AFTER) + AFTER.length,
  ghosts(() => {
    // Who leaves a suggestion does not want to see it grow.
    asking.abort();
  }),
  EditorView.updateListener.of((update: ViewUpdate) => {
    if (update.docChanged || update.selectionSet) soon(PAUSE);
  }),
);

const player = new Player(view, element<HTMLButtonElement>("play"));

element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = element<HTMLInputElement>("token");
  useToken(field.value);
  field.value = "";
  void nameModel();
  soon(0);
});
compare.addEventListener("change", () => {
  if (compare.checked) soon(0);
  else panel.noFull();
});

void nameModel();
void question();
