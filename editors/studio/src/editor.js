// The editor: CodeMirror with the language, the findings, and the lines that belong to a box of the picture.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab, isolateHistory } from "@codemirror/commands";
import { bracketMatching, indentOnInput, indentUnit } from "@codemirror/language";
import { lintGutter, lintKeymap } from "@codemirror/lint";
import { unifiedMergeView } from "@codemirror/merge";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, StateEffect, StateField, Transaction } from "@codemirror/state";
import {
  Decoration, EditorView, drawSelection, dropCursor, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers,
  placeholder, rectangularSelection,
} from "@codemirror/view";
import { colours, hover, nas } from "./language.js";

const setLines = StateEffect.define();
const markedLines = StateField.define({
  create: () => Decoration.none,
  update(marks, transaction) {
    marks = marks.map(transaction.changes);
    for (const effect of transaction.effects) {
      if (!effect.is(setLines)) continue;
      const found = [];
      for (const [first, last] of effect.value) {
        for (let number = first; number <= Math.min(last, transaction.state.doc.lines); number++) {
          found.push(Decoration.line({ class: "cm-marked" }).range(transaction.state.doc.line(number).from));
        }
      }
      marks = Decoration.set(found, true);
    }
    return marks;
  },
  provide: field => EditorView.decorations.from(field),
});

const comparison = new Compartment();
const completion = new Compartment();

export class Editor {
  /** `on`: change(text), line(number), wordAt(word), rowsAt(name), keys. */
  constructor(parent, on) {
    this.on = on;
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        doc: "",
        extensions: [
          lineNumbers(), highlightActiveLine(), highlightActiveLineGutter(), history(), drawSelection(), dropCursor(),
          rectangularSelection(), indentUnit.of("  "), EditorState.tabSize.of(4), indentOnInput(), bracketMatching(), closeBrackets(),
          highlightSelectionMatches(), lintGutter({ hoverTime: 150 }), nas, colours, markedLines, EditorView.lineWrapping,
          completion.of([]), comparison.of([]), hover(on.wordAt, on.rowsAt),
          placeholder("Write a decoder, or start from the zoo."),
          keymap.of([
            ...on.keys, ...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...completionKeymap,
            ...lintKeymap, indentWithTab,
          ]),
          EditorView.contentAttributes.of({ "aria-label": "text of the decoder", autocapitalize: "off", spellcheck: "false" }),
          EditorView.updateListener.of(update => {
            if (update.docChanged) on.change();
            if (update.selectionSet || update.docChanged) on.line(update.state.doc.lineAt(update.state.selection.main.head).number);
          }),
        ],
      }),
    });
  }

  get text() {
    return this.view.state.doc.toString();
  }

  complete(source) {
    this.view.dispatch({ effects: completion.reconfigure(autocompletion({ override: [source], icons: false })) });
  }

  /** Put another text in, as one step that can be undone; what is alike at both ends stays as it is, and so does the cursor there. */
  replace(text) {
    const old = this.text;
    if (old === text) return;
    let start = 0, end = 0;
    const most = Math.min(old.length, text.length);
    while (start < most && old[start] === text[start]) start++;
    while (end < most - start && old.at(-1 - end) === text.at(-1 - end)) end++;
    this.view.dispatch({
      changes: { from: start, to: old.length - end, insert: text.slice(start, text.length - end) },
      annotations: isolateHistory.of("full"),
    });
  }

  /** Put in the text that the page begins with: there is nothing before it to go back to. */
  load(text) {
    const { length } = this.view.state.doc;
    this.view.dispatch({ changes: { from: 0, to: length, insert: text }, annotations: Transaction.addToHistory.of(length > 0) });
  }

  /** Several changes as one step: `[{from, to, insert}]`, of which those that overlap an earlier one are left out. */
  edit(changes) {
    const apart = [];
    for (const change of [...changes].sort((a, b) => a.from - b.from)) {
      if (!apart.length || change.from >= apart.at(-1).to) apart.push(change);
    }
    this.view.dispatch({ changes: apart, annotations: isolateHistory.of("full") });
    this.view.focus();
  }

  /** Select a range, and show it. */
  go(from, to = from) {
    const length = this.view.state.doc.length;
    this.view.dispatch({ selection: { anchor: Math.min(from, length), head: Math.min(to, length) }, scrollIntoView: true });
    this.view.focus();
  }

  goLine(number) {
    this.go(this.view.state.doc.line(Math.min(number, this.view.state.doc.lines)).from);
  }

  /** Mark lines: `[[first, last], …]`; with `isScrolled` the first of them is brought into sight. */
  mark(lines, isScrolled) {
    const effects = [setLines.of(lines)];
    if (isScrolled && lines.length && lines[0][0] <= this.view.state.doc.lines) {
      effects.push(EditorView.scrollIntoView(this.view.state.doc.line(lines[0][0]).from, { y: "nearest", yMargin: 40 }));
    }
    this.view.dispatch({ effects });
  }

  /** Show how the text differs from another one; null ends it. */
  compare(original) {
    const shown = original === null ? [] : unifiedMergeView({ original, mergeControls: false, gutter: true, highlightChanges: true });
    this.view.dispatch({ effects: comparison.reconfigure(shown) });
  }
}
