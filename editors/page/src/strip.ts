// The tokens of the prompt, coloured by what became of them: as a map of cells, and as text.

import type { Cost, Fate } from "./pool";

/** What a token is coloured by. The pool tells of the first three with each answer; what is repaired shows in what is still stale. */
type Colour = Fate | "repaired";

interface Cell {
  /** Null of a control token. */
  text: string | null;
  fate: Fate;
  span: HTMLElement;
}

const COLOURS: Colour[] = ["encoded", "turned", "repaired", "reused"];
const SIZES = [9, 8, 7, 6, 5, 4, 3];
const MAP_HEIGHT = 132;

function span(text: string | null): HTMLElement {
  const made = document.createElement("span");
  if (text === null) {
    made.className = "marker";
    made.title = "a control token";
    made.textContent = "◆";
  } else {
    // A line break alone would have no place to be coloured.
    made.textContent = text.replaceAll("\n", "↵\n");
  }
  return made;
}

export class Strip {
  private cells: Cell[] = [];
  private stale = { then: 0, now: 0 };
  private size = 6;

  constructor(
    private readonly tokens: HTMLElement,
    private readonly map: HTMLCanvasElement,
  ) {
    new ResizeObserver(() => {
      this.drawMap();
      this.scrollTo(this.lastEncoded());
    }).observe(map);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.drawMap());
    map.addEventListener("click", (event) => {
      const columns = Math.floor(map.clientWidth / this.size);
      this.scrollTo(Math.floor(event.offsetY / this.size) * columns + Math.floor(event.offsetX / this.size));
    });
  }

  /** Shows the tokens of an answer. */
  show(cost: Cost): void {
    const told = (cost.runs ?? []).flatMap(({ fate, tokens }) => tokens.map((text) => ({ text, fate })));
    // The last token is encoded for each answer: out of it comes the next one.
    const last = told.at(-1);
    if (last) last.fate = "encoded";
    // Most of the elements stay: a keystroke changes a few of some thousand.
    const most = Math.min(told.length, this.cells.length);
    let front = 0;
    while (front < most && told[front]?.text === this.cells[front]?.text) front += 1;
    let back = 0;
    while (back < most - front && told.at(-1 - back)?.text === this.cells.at(-1 - back)?.text) back += 1;
    const end = this.cells.length - back;
    for (const { span } of this.cells.slice(front, end)) span.remove();
    const fresh = told.slice(front, told.length - back).map((cell) => ({ ...cell, span: span(cell.text) }));
    const behind = this.cells[end]?.span ?? null;
    const added = document.createDocumentFragment();
    added.append(...fresh.map((cell) => cell.span));
    this.tokens.insertBefore(added, behind);
    this.cells = [...this.cells.slice(0, front), ...fresh, ...this.cells.slice(end)];
    told.forEach(({ fate }, index) => {
      const cell = this.cells[index];
      if (cell) cell.fate = fate;
    });
    this.stale = { then: cost.tokens_stale, now: cost.tokens_stale };
    this.paint();
    this.scrollTo(this.lastEncoded());
  }

  /** Fewer tokens are stale than when the answer came. */
  healed(stale: number): void {
    this.stale.now = Math.min(stale, this.stale.now);
    this.paint();
  }

  /** How many tokens have each colour. */
  counts(): Record<Colour, number> {
    const counts = { encoded: 0, turned: 0, repaired: 0, reused: 0 };
    this.cells.forEach((_, index) => (counts[this.colour(index)] += 1));
    return counts;
  }

  /** Stale tokens are encoded again from left to right, so that what was repaired ends where what is stale begins. */
  private colour(index: number): Colour {
    const cell = this.cells[index];
    if (!cell) return "reused";
    const { then, now } = this.stale;
    // The last token is stale never.
    const end = this.cells.length - 1;
    return cell.fate !== "encoded" && index >= end - then && index < end - now ? "repaired" : cell.fate;
  }

  private lastEncoded(): number {
    // The last token of a prompt is a marker, where it has any: it is not what was typed.
    const last = this.cells.findLastIndex((cell) => cell.fate === "encoded" && cell.text !== null);
    return last < 0 ? this.cells.findLastIndex((cell) => cell.fate === "encoded") : last;
  }

  private scrollTo(index: number): void {
    const span = this.cells[index]?.span;
    if (span) this.tokens.scrollTop = span.offsetTop - this.tokens.clientHeight / 2;
  }

  private paint(): void {
    this.cells.forEach(({ span, text }, index) => {
      const wanted = `${text === null ? "marker " : ""}${this.colour(index)}`;
      if (span.className !== wanted) span.className = wanted;
    });
    this.drawMap();
  }

  private drawMap(): void {
    const { map, cells } = this;
    const width = map.clientWidth;
    const context = map.getContext("2d");
    if (!context || width === 0 || cells.length === 0) return;
    const rows = (size: number) => Math.ceil(cells.length / Math.floor(width / size));
    const size = SIZES.find((size) => rows(size) * size <= MAP_HEIGHT) ?? 3;
    const columns = Math.floor(width / size);
    const height = rows(size) * size;
    this.size = size;
    map.style.height = `${height}px`;
    const scale = devicePixelRatio;
    map.width = Math.round(width * scale);
    map.height = Math.round(height * scale);
    context.scale(scale, scale);
    const style = getComputedStyle(map);
    const fills = Object.fromEntries(COLOURS.map((colour) => [colour, style.getPropertyValue(`--${colour}`)]));
    cells.forEach((_, index) => {
      context.fillStyle = fills[this.colour(index)] ?? "";
      context.fillRect((index % columns) * size, Math.floor(index / columns) * size, size - 1, size - 1);
    });
  }
}
