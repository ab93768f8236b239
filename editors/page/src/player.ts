// Types by itself, for those who look on.

import type { EditorView } from "@codemirror/view";
import { SCRIPT } from "./sample";

/** Between two letters, and the longest wait for the answer to one. */
const BEAT = 260;
const MOST = 8000;

export class Player {
  private playing: AbortController | null = null;
  private wake: () => void = () => {};

  constructor(
    private readonly view: EditorView,
    private readonly button: HTMLButtonElement,
  ) {
    button.addEventListener("click", () => (this.playing ? this.stop() : void this.play()));
    // Whoever takes the keyboard or the cursor has it.
    for (const event of ["keydown", "mousedown"]) view.dom.addEventListener(event, () => this.stop());
  }

  /** What was typed last has been answered. */
  answered(): void {
    this.wake();
  }

  private stop(): void {
    this.playing?.abort();
    this.playing = null;
    this.button.textContent = "Type for me";
    this.wake();
  }

  private async play(): Promise<void> {
    const playing = new AbortController();
    this.playing = playing;
    this.button.textContent = "Stop";
    for (const letters of SCRIPT) {
      const { head } = this.view.state.selection.main;
      this.view.dispatch({
        changes: { from: head, insert: letters },
        selection: { anchor: head + letters.length },
        scrollIntoView: true,
        userEvent: "input.type",
      });
      await this.answer();
      await new Promise((done) => setTimeout(done, BEAT));
      if (playing.signal.aborted) return;
    }
    this.stop();
  }

  private answer(): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(done, MOST);
      this.wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}
