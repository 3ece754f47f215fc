// What the extension declares: files that are there, snippets that are texts of the language, a page that loads nothing.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const { page } = require("../src/picture");

const EXTENSION = path.join(__dirname, "..");
const manifest = JSON.parse(fs.readFileSync(path.join(EXTENSION, "package.json"), "utf8"));
const source = fs.readFileSync(path.join(EXTENSION, "src/extension.js"), "utf8");

test("the files that the manifest names are there", () => {
  const { languages, grammars, snippets } = manifest.contributes;
  for (const file of [languages[0].configuration, grammars[0].path, snippets[0].path]) {
    assert.ok(fs.existsSync(path.join(EXTENSION, file)), file);
    JSON.parse(fs.readFileSync(path.join(EXTENSION, file), "utf8"));
  }
});

test("every command and setting is used", () => {
  for (const { command } of manifest.contributes.commands) assert.ok(source.includes(`"${command}"`), command);
  assert.deepEqual(Object.keys(manifest.contributes.configuration.properties), [
    "nasdsl.backbone", "nasdsl.size", "nasdsl.command", "nasdsl.trace.server",
  ]);
});

test("the page of the picture loads nothing", () => {
  const html = page("abc");
  assert.match(html, /default-src 'none'/);
  assert.match(html, /script-src 'nonce-abc'/);
  assert.doesNotMatch(html, /https?:|src=/);
});
