// The findings of the checker: under the text, in the text, and in a list with help, fixes and explanations.
import { setDiagnostics } from "@codemirror/lint";
import { byId, h, inline } from "./dom.js";
import { plural } from "./numbers.js";

export class Findings {
  /** `on`: go(from, to), fix(finding), fixAll(findings), explain(code). */
  constructor(on) {
    this.on = on;
  }

  show(view, { diagnostics, errors, warnings }) {
    const length = view.state.doc.length;
    const inText = diagnostics.map(finding => {
      let from = Math.min(finding.from, length), to = Math.min(Math.max(finding.to, from), length);
      if (from === to && from > 0 && (from === length || view.state.doc.sliceString(from, from + 1) === "\n")) from--;
      else if (from === to && to < length) to++;
      return {
        from, to, severity: finding.severity, source: finding.code,
        message: finding.message,
        renderMessage: () => this.#body(finding, "tip"),
        actions: finding.fix === null ? [] : [{ name: fixTitle(finding), apply: () => this.on.fix(finding) }],
      };
    });
    view.dispatch(setDiagnostics(view.state, inText));
    const count = [errors && plural(errors, "error"), warnings && plural(warnings, "warning")].filter(Boolean).join(", ");
    const status = byId("findings-status");
    status.textContent = count || "no findings";
    status.className = errors ? "error" : warnings ? "warning" : "fine";
    const fixes = diagnostics.filter(finding => finding.fix !== null);
    byId("fix-all").hidden = fixes.length < 2;
    byId("fix-all").onclick = () => this.on.fixAll(fixes);
    const more = errors + warnings - diagnostics.length;
    byId("findings-list").replaceChildren(
      ...diagnostics.map(finding => this.#item(finding)),
      ...(more ? [h("li", { class: "more" }, `and ${more} more`)] : []),
    );
    byId("findings").classList.toggle("empty", !diagnostics.length);
  }

  #item(finding) {
    const jump = () => this.on.go(finding.from, finding.to);
    return h("li", { class: finding.severity },
      h("button", { type: "button", class: "jump", onclick: jump, title: "Go there" },
        h("span", { class: "place" }, finding.elsewhere || `${finding.line}:${finding.column}`)),
      h("div", { class: "about" },
        this.#body(finding, "item"),
        finding.related.length > 0 && h("ul", { class: "related" }, finding.related.map(other =>
          h("li", {}, h("button", { type: "button", disabled: other.from === undefined, onclick: () => this.on.go(other.from, other.to) },
            other.place), " ", inline(other.message)))),
        h("div", { class: "actions" },
          finding.fix !== null && h("button", { type: "button", class: "fix", onclick: () => this.on.fix(finding) }, fixTitle(finding)),
          h("button", { type: "button", class: "code", onclick: () => this.on.explain(finding.code), title: "What this means" }, finding.code))),
    );
  }

  #body(finding, kind) {
    return h("div", { class: `finding ${kind}` },
      h("div", { class: "message" }, inline(finding.message)),
      finding.expected && h("div", { class: "expected" }, inline(finding.expected)),
      finding.help && h("div", { class: "help" }, h("b", {}, "help: "), inline(finding.help)));
  }
}

function fixTitle({ fix }) {
  const text = fix.trim().replace(/\s+/g, " ");
  return text ? `Write ${text.length > 40 ? `${text.slice(0, 39)}…` : text}` : "Remove it";
}
