// Ghost text: a suggestion at the cursor that is not in the document yet.

import { EditorState, Prec, StateEffect, StateField, type Extension, type Transaction } from "@codemirror/state";
import { Decoration, EditorView, WidgetType, keymap } from "@codemirror/view";

interface Ghost {
  at: number;
  text: string;
}

const show = StateEffect.define<string>();

class GhostWidget extends WidgetType {
  constructor(readonly text: string) {
    super();
  }

  override eq(other: GhostWidget): boolean {
    return other.text === this.text;
  }

  toDOM(): HTMLElement {
    const ghost = document.createElement("span");
    ghost.className = "ghost";
    ghost.textContent = this.text;
    return ghost;
  }
}

/** What of a suggestion is left when the document changes: who types what it says takes it letter by letter. */
function kept(ghost: Ghost, transaction: Transaction): Ghost | null {
  if (!transaction.docChanged) {
    const { main, ranges } = transaction.state.selection;
    return ranges.length === 1 && main.empty && main.head === ghost.at ? ghost : null;
  }
  let rest: Ghost | null = null;
  let changes = 0;
  transaction.changes.iterChanges((from, to, _fromNew, toNew, inserted) => {
    changes += 1;
    const typed = inserted.toString();
    if (from === ghost.at && to === from && ghost.text.startsWith(typed) && ghost.text !== typed) {
      rest = { at: toNew, text: ghost.text.slice(typed.length) };
    }
  });
  return changes === 1 ? rest : null;
}

const field = StateField.define<Ghost | null>({
  create: () => null,
  update(ghost, transaction) {
    let next = ghost && kept(ghost, transaction);
    for (const effect of transaction.effects) {
      if (effect.is(show)) next = effect.value ? { at: transaction.state.selection.main.head, text: effect.value } : null;
    }
    return next;
  },
  provide: (field) =>
    EditorView.decorations.from(field, (ghost) =>
      ghost ? Decoration.set(Decoration.widget({ widget: new GhostWidget(ghost.text), side: 1 }).range(ghost.at)) : Decoration.none,
    ),
});

/** Shows a suggestion at the cursor; an empty one goes. */
export function suggest(view: EditorView, said: string): void {
  // As the editor has line breaks, so that what is taken is as long as what was shown.
  const text = said.replace(/\r\n?/g, "\n");
  if (suggested(view.state) !== text) view.dispatch({ effects: show.of(text) });
}

/** What is suggested. */
export function suggested(state: EditorState): string {
  return state.field(field)?.text ?? "";
}

function accept(view: EditorView, part: (text: string) => string): boolean {
  const ghost = view.state.field(field);
  if (!ghost) return false;
  const text = part(ghost.text);
  view.dispatch({
    changes: { from: ghost.at, insert: text },
    selection: { anchor: ghost.at + text.length },
    scrollIntoView: true,
    userEvent: "input.complete",
  });
  return true;
}

const word = (text: string) => /^\s*(?:\w+|[^\w\s]+|$)/.exec(text)?.[0] ?? text;

/** The field, and the keys that take or leave what it shows. `left` hears of the latter. */
export function ghosts(left: () => void): Extension {
  const takeWord = (view: EditorView) => accept(view, word);
  const leave = (view: EditorView) => {
    if (!view.state.field(field)) return false;
    left();
    suggest(view, "");
    return true;
  };
  return [
    field,
    Prec.highest(
      keymap.of([
        { key: "Tab", run: (view) => accept(view, (text) => text) },
        { key: "Ctrl-ArrowRight", run: takeWord },
        { key: "Alt-ArrowRight", run: takeWord },
        { key: "Escape", run: leave },
      ]),
    ),
  ];
}
