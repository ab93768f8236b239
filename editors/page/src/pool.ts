// What the page asks of the pool: the same requests that any editor sends.

/** What became of a token at the last edit. */
export type Fate = "encoded" | "turned" | "reused";

/** Tokens that follow each other, with one fate; a control token is null. */
export interface Run {
  fate: Fate;
  tokens: (string | null)[];
}

/** What the pool says that an answer has cost. */
export interface Cost {
  session: string;
  found: "named" | "alike" | "new";
  prompt_is_cut: boolean;
  tokens: number;
  tokens_encoded: number;
  tokens_encoded_ahead: number;
  tokens_rotated: number;
  tokens_reused: number;
  tokens_stale: number;
  tokens_repaired: number;
  search_us: number;
  reading_us: number;
  first_token_us: number;
  runs?: Run[];
}

/** Both sides of the cursor, and how they are to be filled in. */
export interface Question {
  session: string;
  before: string;
  behind: string;
  tokens: number;
  strategy?: "full";
  /** Whether what became of each token is asked for. */
  runs?: boolean;
}

/** The pool, or what stands in front of it, said no. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
    /** Seconds after which it may be asked again. */
    readonly pause: number | null,
  ) {
    super(message);
  }
}

const TOKEN = "pie-token";
/** Two line breaks end a suggestion: what follows them is another thought. */
const STOP = ["\n\n"];

let fillsIn = true;

/** Keeps a bearer token for this tab. */
export function useToken(token: string): void {
  sessionStorage.setItem(TOKEN, token);
}

function headers(): Record<string, string> {
  const token = sessionStorage.getItem(TOKEN);
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function refusal(answer: Response): Promise<Refused> {
  const pause = Number(answer.headers.get("Retry-After") ?? NaN);
  const error = await answer
    .json()
    .then((body) => body.error)
    .catch(() => null);
  const message = error?.message ?? `HTTP ${answer.status}`;
  return new Refused(answer.status, String(error?.reason ?? ""), message, Number.isFinite(pause) ? pause : null);
}

/** The name of the pool's model. */
export async function model(): Promise<string> {
  const answer = await fetch("/props", { headers: headers() });
  if (!answer.ok) throw await refusal(answer);
  return String((await answer.json()).model_path ?? "");
}

/** Asks for a completion. `told` hears of its text as it grows. */
export async function ask(question: Question, signal: AbortSignal, told: (text: string) => void = () => {}): Promise<Cost> {
  try {
    return await asked(question, signal, told);
  } catch (error) {
    // A model without markers for the two sides of a cursor goes on behind what stands before it.
    if (!(error instanceof Refused && error.reason === "FIM_UNSUPPORTED" && fillsIn)) throw error;
    fillsIn = false;
    return asked(question, signal, told);
  }
}

async function asked(question: Question, signal: AbortSignal, told: (text: string) => void): Promise<Cost> {
  const { session, before, behind, tokens, strategy, runs } = question;
  const prompt = fillsIn ? { prompt: "", input_prefix: before, input_suffix: behind } : { prompt: before };
  const pie = { tokens: runs ?? false, ...(strategy ? { strategy } : {}) };
  const answer = await fetch(fillsIn ? "/infill" : "/completion", {
    method: "POST",
    headers: { ...headers(), "X-Pie-Session": session },
    body: JSON.stringify({ ...prompt, n_predict: tokens, temperature: 0, stop: STOP, stream: true, pie }),
    signal,
  });
  if (!answer.ok || !answer.body) throw await refusal(answer);
  let text = "";
  for await (const event of events(answer.body)) {
    if (event.error) throw new Refused(Number(event.error.code), String(event.error.reason ?? ""), String(event.error.message), null);
    text += event.content;
    told(text);
    if (event.stop) return event.pie;
  }
  throw new Refused(0, "", "the answer ended early", null);
}

/** Server-sent events, as far as the pool sends any: one line of data each. */
async function* events(body: ReadableStream<Uint8Array>) {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

/** Milliseconds from the request to the first token, all that the pool did for it included. */
export function toFirstToken(cost: Cost): number {
  return (cost.search_us + cost.reading_us + cost.first_token_us) / 1000;
}

/** Tokens of the prompt that went through the model. */
export function encoded(cost: Cost): number {
  return cost.tokens_encoded + cost.tokens_encoded_ahead;
}
