// The figures beside the editor.

import { Chart, type Keystroke } from "./chart";
import { type Cost, encoded, toFirstToken } from "./pool";
import { Strip } from "./strip";

export function element<E extends HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as E;
}

function say(id: string, text: string): void {
  element(id).textContent = text;
}

function count(number: number, what = ""): string {
  return `${number.toLocaleString("en")}${what}`;
}

function tokens(number: number): string {
  return number === 1 ? "token" : "tokens";
}

function milliseconds(time: number): string {
  if (time >= 9950) return `${(time / 1000).toFixed(0)} s`;
  if (time >= 995) return `${(time / 1000).toFixed(1)} s`;
  return `${time.toFixed(time < 9.95 ? 1 : 0)} ms`;
}

const CLOCK = 100;

export class Panel {
  private readonly chart = new Chart(element("chart"));
  private readonly strip = new Strip(element("tokens"), element<HTMLCanvasElement>("map"));
  private last: Keystroke | null = null;
  private clock = 0;

  /** The answer with `pie`. */
  pie(cost: Cost): void {
    const time = toFirstToken(cost);
    const opened = cost.found === "new";
    say("pie-time", milliseconds(time));
    const did = opened ? " tokens encoded: it was opened" : ` ${tokens(encoded(cost))} encoded, ${count(cost.tokens_rotated)} turned`;
    say("pie-tokens", count(encoded(cost), did));
    this.noFull();
    this.strip.show(cost);
    this.colours();
    say("count", count(cost.tokens, cost.prompt_is_cut ? " tokens: all that fits the model's context" : " tokens"));
    this.healing(cost);
    // That a document is opened is no keystroke.
    this.last = opened ? null : { pie: time, full: null };
    if (this.last) this.chart.add(this.last);
  }

  /** The same keystroke is being answered with `full`: a clock runs until it is. */
  fullBegins(): void {
    const began = performance.now();
    element("full-time").classList.add("waiting");
    say("full-tokens", "encoding …");
    const tick = () => say("full-time", milliseconds(performance.now() - began));
    // Not more often: what the page draws takes the time of the machine that computes the answer.
    this.clock = setInterval(tick, CLOCK);
    tick();
  }

  /** The answer with `full`. */
  full(cost: Cost): void {
    this.noFull();
    const time = toFirstToken(cost);
    say("full-time", milliseconds(time));
    say("full-tokens", count(encoded(cost), ` ${tokens(encoded(cost))} encoded`));
    if (!this.last) return;
    this.last.full = time;
    const faster = time / this.last.pie;
    if (faster >= 1.5) say("faster", `${faster.toFixed(faster < 10 ? 1 : 0)} × longer`);
    this.chart.draw();
  }

  /** There is no answer with `full`, or none yet. */
  noFull(): void {
    clearInterval(this.clock);
    element("full-time").classList.remove("waiting");
    say("full-time", "–");
    say("full-tokens", "\u00a0");
    say("faster", "");
  }

  /** What is still stale. */
  healing(cost: Cost): void {
    this.strip.healed(cost.tokens_stale);
    this.colours();
    say("healing", cost.tokens_stale ? `healing: ${count(cost.tokens_stale)} stale` : "healed: nothing is stale");
    element("healing").classList.toggle("ill", cost.tokens_stale > 0);
  }

  /** One line of what is wrong; none hides it. */
  trouble(text: string): void {
    const line = element("trouble");
    line.textContent = text;
    line.hidden = text === "";
  }

  private colours(): void {
    for (const [colour, number] of Object.entries(this.strip.counts())) say(`n-${colour}`, count(number));
  }
}
