// The TextMate grammar, run by VS Code's own tokenizer over all decoders of the zoo, and against the scanner's words.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const ROOT = path.join(__dirname, "..", "..", "..");
const EXTENSION = path.join(__dirname, "..");

/** The words that the scanner reserves, read from its source. */
const RESERVED = new Set(
  [...fs.readFileSync(path.join(ROOT, "nasdsl/syntax/lexer.py"), "utf8").match(/RESERVED: Final = \{[^}]*\}/)[0].matchAll(/"([a-z ]+)"/g)]
    .flatMap(([, words]) => words.trim().split(/ +/)),
);

let grammar;

test.before(async () => {
  const wasm = fs.readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm"));
  await oniguruma.loadWASM(wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.length));
  const registry = new textmate.Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => {
      const file = path.join(EXTENSION, "syntaxes/nas.tmLanguage.json");
      return textmate.parseRawGrammar(fs.readFileSync(file, "utf8"), file);
    },
  });
  grammar = await registry.loadGrammar("source.nas");
});

/** Text and innermost scope of each token that is no space. */
function tokens(text) {
  const found = [];
  let stack = textmate.INITIAL;
  for (const line of text.split("\n")) {
    const result = grammar.tokenizeLine(line, stack);
    stack = result.ruleStack;
    for (const { startIndex, endIndex, scopes } of result.tokens) {
      const word = line.slice(startIndex, endIndex).trim();
      if (word) found.push({ word, scope: scopes.at(-1) });
    }
  }
  return { found, depth: stack.depth };
}

function* files(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* files(file);
    else if (file.endsWith(".nas")) yield file;
  }
}

test("the scanner's words are there", () => {
  assert.ok(RESERVED.has("decoder") && RESERVED.has("distinct") && RESERVED.size > 18, [...RESERVED].join(" "));
});

for (const file of [...files(path.join(ROOT, "genotypes")), ...files(path.join(ROOT, "grammars"))]) {
  test(`every token of ${path.relative(ROOT, file)} has a scope`, () => {
    const { found, depth } = tokens(fs.readFileSync(file, "utf8"));
    assert.equal(depth, 1, "a bracket stays open");
    for (const { word, scope } of found) {
      assert.notEqual(scope, "source.nas", word);
      if (word.startsWith("#")) assert.match(scope, /^comment/);
      else if (/^[0-9]/.test(word) && !scope.startsWith("comment")) assert.match(scope, /^constant.numeric/, word);
      else if (RESERVED.has(word) && !/comment|entity|constant.hole/.test(scope)) assert.match(scope, /^keyword|variable.parameter/, word);
      else if (scope.startsWith("keyword") && /^[a-z]/.test(word)) assert.ok(RESERVED.has(word) || ["shared", "detector", "on"].includes(word), word);
    }
  });
}

const CASES = {
  "op f(x, k=3) = conv(x, k=k)": [
    ["op", "keyword.other.definition.nas"], ["f", "entity.name.function.nas"], ["(", "punctuation.section.parens.begin.nas"],
    ["x", "variable.other.nas"], [",", "punctuation.nas"], ["k", "variable.parameter.nas"], ["=", "keyword.operator.nas"],
    ["3", "constant.numeric.nas"], [")", "punctuation.section.parens.end.nas"], ["=", "keyword.operator.nas"],
    ["conv", "entity.name.function.call.nas"], ["(", "punctuation.section.parens.begin.nas"], ["x", "variable.other.nas"],
    [",", "punctuation.nas"], ["k", "variable.parameter.nas"], ["=", "keyword.operator.nas"], ["k", "variable.other.nas"],
    [")", "punctuation.section.parens.end.nas"],
  ],
  "choice op = a | b": [
    ["choice", "keyword.other.definition.nas"], ["op", "entity.name.type.choice.nas"], ["=", "keyword.operator.nas"],
    ["a", "variable.other.nas"], ["|", "keyword.operator.nas"], ["b", "variable.other.nas"],
  ],
  "x = ?op(c3)  # choice": [
    ["x", "variable.other.nas"], ["=", "keyword.operator.nas"], ["?", "keyword.operator.hole.nas"],
    ["op", "variable.other.constant.hole.nas"], ["(", "punctuation.section.parens.begin.nas"],
    ["c3", "variable.language.level.nas"], [")", "punctuation.section.parens.end.nas"],
    ["# choice", "comment.line.number-sign.nas"],
  ],
  "require latency <= 15ms on torch at 480x640": [
    ["require", "keyword.control.nas"], ["latency", "support.variable.quantity.nas"], ["<=", "keyword.operator.nas"],
    ["15ms", "constant.numeric.duration.nas"], ["on", "keyword.control.nas"], ["torch", "support.constant.runtime.nas"],
    ["at", "keyword.control.nas"], ["480x640", "constant.numeric.size.nas"],
  ],
  'fpn(norm=none) from "a # b.nas"': [
    ["fpn", "keyword.control.nas"], ["(", "punctuation.section.parens.begin.nas"], ["norm", "variable.parameter.nas"],
    ["=", "keyword.operator.nas"], ["none", "constant.language.nas"], [")", "punctuation.section.parens.end.nas"],
    ["from", "keyword.control.nas"], ['"a # b.nas"', "string.quoted.double.nas"],
  ],
};

for (const [text, expected] of Object.entries(CASES)) {
  test(text, () => {
    assert.deepEqual(tokens(text).found.map(({ word, scope }) => [word, scope]), expected);
  });
}
