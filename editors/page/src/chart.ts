// The running chart: a logarithmic axis of milliseconds, one column for each keystroke.

/** What a keystroke took, in milliseconds. */
export interface Keystroke {
  pie: number;
  full: number | null;
}

const COLUMNS = 60;
const LEFT = 46;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 8;
const LABELS: Record<number, string> = { 0: "1 ms", 1: "10 ms", 2: "100 ms", 3: "1 s", 4: "10 s", 5: "100 s" };

function element(name: string, attributes: Record<string, string | number>, text = ""): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
}

export class Chart {
  private keystrokes: Keystroke[] = [];

  constructor(private readonly place: HTMLElement) {
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /** Adds a keystroke, which may still change: `draw` then shows it. */
  add(keystroke: Keystroke): void {
    this.keystrokes = [...this.keystrokes, keystroke].slice(-COLUMNS);
    this.draw();
  }

  draw(): void {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (width === 0 || height === 0) return;
    const all = this.keystrokes.flatMap(({ pie, full }) => (full === null ? [pie] : [pie, full]));
    const low = Math.min(0, ...all.map((time) => Math.floor(Math.log10(Math.max(time, 0.1)))));
    const high = Math.max(3, ...all.map((time) => Math.ceil(Math.log10(Math.max(time, 0.1)))));
    const y = (time: number) => height - BOTTOM - ((Math.log10(Math.max(time, 0.1)) - low) / (high - low)) * (height - TOP - BOTTOM);
    const x = (column: number) => LEFT + 6 + (column / (COLUMNS - 1)) * (width - LEFT - RIGHT - 6);
    const svg = element("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
    for (let decade = low; decade <= high; decade += 1) {
      const at = y(10 ** decade);
      svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      svg.append(element("text", { x: LEFT - 6, y: at + 3.5, "text-anchor": "end" }, LABELS[decade] ?? ""));
    }
    const first = COLUMNS - this.keystrokes.length;
    for (const kind of ["full", "pie"] as const) {
      const points = this.keystrokes.flatMap((keystroke, index) => {
        const time = keystroke[kind];
        return time === null ? [] : [{ x: x(first + index), y: y(time) }];
      });
      const path = points.map((point, index) => `${index ? "L" : "M"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("");
      svg.append(element("path", { class: kind, d: path }));
      for (const point of points) svg.append(element("circle", { class: kind, cx: point.x, cy: point.y, r: 2.6 }));
      const last = points.at(-1);
      if (last) svg.append(element("text", { class: kind, x: last.x, y: last.y - 7, "text-anchor": "end" }, kind));
    }
    this.place.replaceChildren(svg);
  }
}
