// The editor: CodeMirror, as small as it can be and still be pleasant.

import { defaultKeymap, history, historyKeymap, insertTab } from "@codemirror/commands";
import { rust } from "@codemirror/lang-rust";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorSelection, EditorState, type Extension } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

/** An editor of a document, with the cursor in its middle. */
export function editor(parent: HTMLElement, text: string, cursor: number, ...more: Extension[]): EditorView {
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text,
      selection: EditorSelection.cursor(cursor),
      extensions: [
        ...more,
        lineNumbers(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        highlightActiveLineGutter(),
        indentUnit.of("    "),
        indentOnInput(),
        bracketMatching(),
        rust(),
        // Its colours are those of the page's style sheet, light or dark.
        syntaxHighlighting(classHighlighter),
        keymap.of([{ key: "Tab", run: insertTab }, ...historyKeymap, ...defaultKeymap]),
        EditorView.contentAttributes.of({ "aria-label": "Document", spellcheck: "false", autocorrect: "off", autocapitalize: "off" }),
      ],
    }),
  });
  view.dispatch({ effects: EditorView.scrollIntoView(cursor, { y: "center" }) });
  view.focus();
  return view;
}
