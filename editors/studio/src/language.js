// The language .nas in the editor: colours by words alone, indentation, completion, and what a word is under the mouse.
import { HighlightStyle, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { completeFromList } from "@codemirror/autocomplete";
import { hoverTooltip } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { markdown } from "./dom.js";
import { shortAmount } from "./numbers.js";

export const RESERVED =
  "use op agg choice block decoder input require predict fpn head from output merge dangling into repeat in let at distinct";
const reserved = new Set(RESERVED.split(" "));
const defines = new Set(["op", "agg", "block", "choice", "decoder", "shared", "predict", "require"]);
const constants = new Set(["true", "false", "none", "auto"]);

const parser = {
  name: "nas",
  startState: () => ({ brackets: 0, braces: 0, before: "" }),
  token(stream, state) {
    if (stream.eatSpace()) return null;
    if (stream.match(/^#.*/)) return "comment";
    const before = state.before;
    state.before = "";
    if (stream.match(/^"[^"\n]*"?/)) return "string";
    if (stream.match(/^[0-9]+x[0-9]+\b/) || stream.match(/^[0-9]+(\.[0-9]+)?(us|ms|s|[KMG])?\b/)) return (state.before = "number"), "number";
    if (stream.match(/^\?[A-Za-z_]\w*/) || stream.eat("?")) return "hole";
    const operator = stream.match(/^(->|\.\.|<=|>=|==|[|+*/<>=-])/);
    if (operator) return (state.before = operator[0]), "operator";
    const found = stream.match(/^[A-Za-z_]\w*/);
    if (found) {
      const word = found[0];
      if (defines.has(before)) return before === "predict" || before === "require" ? "type" : "definition";
      if (stream.match(/^\s*=(?!=)/, false) && state.brackets) return "attribute";
      if (word === "shared" && stream.match(/^\s+[A-Za-z_]\w*\s*\(/, false)) return (state.before = word), "keyword";
      if (word === "detector" && stream.match(/^\s*\(/, false) && !state.brackets) return "keyword";
      if (word === "on" && before === "number") return "keyword";
      if (reserved.has(word)) return (state.before = word), "keyword";
      if (/^(cls|box|both)$/.test(word) && stream.match(/^\s*:/, false)) return "label";
      if (before === "->" || stream.match(/^\s*(\(|->|\* *[0-9?])/, false)) return "call";
      return constants.has(word) ? "constant" : "name";
    }
    const c = stream.next();
    if (c === "(") state.brackets++;
    else if (c === ")") state.brackets = Math.max(0, state.brackets - 1);
    else if (c === "{") state.braces++;
    else if (c === "}") state.braces = Math.max(0, state.braces - 1);
    return null;
  },
  indent(state, after, context) {
    const depth = state.braces + (state.brackets > 0 ? 1 : 0) - (/^\s*[})]/.test(after) ? 1 : 0);
    return Math.max(0, depth) * context.unit;
  },
  languageData: { commentTokens: { line: "#" }, closeBrackets: { brackets: ["(", "{", "[", '"'] } },
  tokenTable: {
    hole: tags.special(tags.variableName), operator: tags.operator, definition: tags.definition(tags.variableName),
    type: tags.typeName, attribute: tags.propertyName, label: tags.labelName, call: tags.function(tags.variableName),
    constant: tags.bool, name: tags.variableName,
  },
};

export const nas = StreamLanguage.define(parser);

export const colours = syntaxHighlighting(
  HighlightStyle.define([
    { tag: tags.keyword, class: "hl-keyword" },
    { tag: tags.comment, class: "hl-comment" },
    { tag: tags.string, class: "hl-string" },
    { tag: tags.number, class: "hl-number" },
    { tag: tags.bool, class: "hl-number" },
    { tag: tags.special(tags.variableName), class: "hl-hole" },
    { tag: tags.definition(tags.variableName), class: "hl-definition" },
    { tag: tags.typeName, class: "hl-definition" },
    { tag: tags.function(tags.variableName), class: "hl-call" },
    { tag: tags.propertyName, class: "hl-attribute" },
    { tag: tags.labelName, class: "hl-definition" },
    { tag: tags.operator, class: "hl-operator" },
  ]),
);

// ----------------------------------------------------------------------------------------------------- completion

const types = { op: "function", aggregation: "function", block: "function", primitive: "function", keyword: "keyword",
  attribute: "property", prediction: "class", tower: "constant", quantity: "constant" };

export function completions(words) {
  const known = words.map(({ label, kind, info }) => ({
    label, type: types[kind] ?? "text", detail: kind, boost: kind === "keyword" ? -1 : 0,
    info: info ? () => markdown(info) : undefined,
  }));
  const labels = new Set(known.map(option => option.label));
  return context => {
    const word = context.matchBefore(/\w+/);
    if (!word && !context.explicit) return null;
    const line = context.state.doc.lineAt(context.pos);
    if (line.text.slice(0, context.pos - line.from).includes("#")) return null;
    const own = new Set();
    for (const [name] of context.state.doc.toString().replace(/#.*/g, "").matchAll(/\b[A-Za-z_]\w*\b/g)) own.add(name);
    const behind = line.text.slice(context.pos - line.from).match(/^\w*/)[0];
    own.delete((word?.text ?? "") + behind); // the word that is being written
    const options = [...known];
    for (const name of own) if (!labels.has(name)) options.push({ label: name, type: "variable", detail: "in this text", boost: 1 });
    return completeFromList(options)(context);
  };
}

// ---------------------------------------------------------------------------------------------------------- hover

export function hover(wordAt, rowsAt) {
  return hoverTooltip((view, pos) => {
    const line = view.state.doc.lineAt(pos);
    const found = [...line.text.matchAll(/[A-Za-z_]\w*/g)].find(m => line.from + m.index <= pos && pos <= line.from + m.index + m[0].length);
    if (!found || line.text.slice(0, found.index).includes("#")) return null;
    const rows = rowsAt(found[0]).slice(0, 4);
    const info = rows.length ? "" : wordAt(found[0]);
    if (!rows.length && !info) return null;
    const text = rows.map(row => {
      const level = row.level > 0 ? `level ${row.level}, stride ${2 ** row.level}` : "";
      const cost = row.macs || row.params ? `${shortAmount(row.macs)} MACs, ${shortAmount(row.params)} params` : "";
      return [`**${row.name}**`, level, row.shape && `\`${row.shape}\``, cost].filter(Boolean).join(" · ");
    });
    return {
      pos: line.from + found.index, end: line.from + found.index + found[0].length, above: true,
      create: () => ({ dom: Object.assign(markdown(text.join("\n\n") || info), { className: "hover markdown" }) }),
    };
  });
}
