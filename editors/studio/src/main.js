// The page: a text, and beside it what the compiler says of it.
import { ServerCompiler, WorkerCompiler, latest } from "./compiler.js";
import { Costs } from "./costs.js";
import { byId, download, h, toast } from "./dom.js";
import { Editor } from "./editor.js";
import { Findings } from "./findings.js";
import { completions } from "./language.js";
import { decode, encode } from "./link.js";
import { plural } from "./numbers.js";
import { Picture } from "./picture.js";
import { layout } from "./layout.js";
import { TextFile } from "./text-file.js";
import { zooDialog } from "./zoo.js";

const FIRST = `# A pyramid and a head, to begin with: change something, and see what it costs.
decoder mine {
  input c3, c4, c5

  fpn(width=128, norm=bn) {
    t5 = conv_1x1(c5)
    t4 = sum(conv_1x1(c4), t5)
    t3 = sum(conv_1x1(c3), t4)
    output p3 = conv_3x3(t3), p4 = conv_3x3(t4), p5 = conv_3x3(t5)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=128, norm=gn) {
    conv_3x3 * 4
  }

  predict fcos(centerness=box)
}
`;

const isStudio = document.documentElement.dataset.compiler === "server";
const settings = { backbone: "", size: "", width: "", theme: "auto" };
let view = 0, seed = 0; // which view of the picture, and which sample of a space
let words = new Map();
let last = null; // the last result, and whether it is of the present text
let version = 0;

const compiler = isStudio ? new ServerCompiler() : new WorkerCompiler(progress => {
  byId("status").textContent = progress;
  byId("status").classList.toggle("busy", Boolean(progress));
});

const editor = new Editor(byId("editor"), {
  change: () => {
    version++;
    view = 0;
    check();
    remember();
    file?.refresh();
  },
  line: number => {
    if (!last?.rows) return;
    const rows = last.rows.flatMap((row, n) => (row.line !== null && row.line <= number && number <= row.last ? [n] : []));
    const narrow = rows.filter(n => last.rows[n].line === number);
    const here = narrow.length ? narrow : rows.length < 6 ? rows : [];
    picture.mark(here);
    costs.mark(here, true);
  },
  wordAt: word => words.get(word) ?? "",
  rowsAt: name => (last?.rows ?? []).filter(row => row.name === name && row.role !== "prediction"),
  keys: [
    { key: "Shift-Alt-f", run: () => (format(), true) },
  ],
});

const linked = { hover: rows => mark(rows, true), pick: row => pick(row), line: number => editor.goLine(number) };
const picture = new Picture({ hover: rows => mark(rows, true), pick, open: number => { view = number; check(); } });
const costs = new Costs({ ...linked, hover: rows => mark(rows, false) });
const findings = new Findings({
  go: (from, to) => { panes.show("text"); editor.go(from, to); },
  fix: finding => fix([finding]),
  fixAll: fix,
  explain,
});
const panes = layout();
const file = isStudio ? new TextFile(compiler, editor, { renamed: () => { check(); remember(); } }) : null;

// ------------------------------------------------------------------------------------------------ text to result

const check = latest(async () => {
  const asked = version;
  const request = { kind: "check", text: editor.text, view, seed, name: file?.name ?? undefined, ...settings };
  let result;
  try {
    result = await compiler.ask(request);
  } catch (error) {
    picture.note(isStudio ? "nasdsl studio has ended. The text is still here: start it again, or download the text." : `The compiler stopped: ${error.message}`, true);
    return;
  }
  if (asked === version) show(result);
  if (document.documentElement.dataset.compiled) return;
  document.documentElement.dataset.compiled = "yes"; // the compiler answers
  if (!isStudio && "serviceWorker" in navigator) navigator.serviceWorker.register("service-worker.js").catch(() => {});
});

function show(result) {
  if (result.error) {
    byId("setting-problem").textContent = result.error;
    return;
  }
  byId("setting-problem").textContent = "";
  findings.show(editor.view, result);
  const hadFigures = last?.rows;
  if (result.kind === "broken" || result.kind === "definitions") {
    last = { ...result, isStale: true, rows: null };
    picture.mark([]);
    const what = result.kind === "broken" ? "Mend the text to see it drawn." : "There is no decoder in this text yet.";
    picture.note(picture.isEmpty ? what : result.kind === "broken" ? "as it was before the mistake" : what, true);
    document.body.classList.toggle("stale", Boolean(hadFigures) || document.body.classList.contains("stale"));
  } else {
    last = result;
    document.body.classList.remove("stale");
    if (result.cost) costs.show(result);
    if (result.picture) picture.show(result);
    if (result.problem) picture.note(result.problem, true);
  }
  const space = result.space;
  byId("space").hidden = !space && !(last.isStale && !byId("space").hidden);
  if (space) showSpace(space);
  if (result.digest) {
    byId("digest").textContent = result.digest.slice(0, 12);
    byId("digest").title = `digest of this decoder: ${result.digest}\nClick to copy it.`;
    byId("digest").onclick = () => copy(result.digest, "the digest");
    document.title = `${result.space?.name ?? result.name} · nasdsl`;
  }
  byId("digest").hidden = !result.digest && !byId("digest").textContent;
  if (result.backbone) byId("backbone").options[0].textContent = settings.backbone ? "auto" : `auto: ${result.backbone}`;
  if (result.size && !settings.size) byId("size").placeholder = result.size;
  byId("source").disabled = result.kind !== "decoder";
  byId("findings-status").dataset.version = String(version);
}

function showSpace(space) {
  byId("space-size").replaceChildren(
    h("b", { title: space.exactly || space.fillings }, space.fillings), " decoders, ", plural(space.decisions.length, "decision"),
    space.requirements.length ? `, ${space.requirements.join(", ")}` : "");
  byId("sample-title").textContent = `sample ${space.seed}`;
  byId("sample-edit").onclick = () => { editor.replace(space.sample); toast("This is the sample. Undo brings the space back."); };
}

// ------------------------------------------------------------------------------------------------------- linking

function mark(rows, isFromPicture) {
  picture.mark(rows);
  costs.mark(rows, isFromPicture);
  const found = rows.map(n => last?.rows?.[n]).filter(row => row && row.line !== null);
  editor.mark(found.map(row => [row.line, row.last]), isFromPicture);
}

function pick(number) {
  const row = last?.rows?.[number];
  if (row && row.line !== null) {
    panes.show("text");
    editor.goLine(row.line);
  }
}

// ------------------------------------------------------------------------------------------------------- actions

function fix(found) {
  if (Number(byId("findings-status").dataset.version) !== version) return; // another text by now
  editor.edit(found.map(({ from, to, fix: insert }) => ({ from, to, insert })));
}

async function format() {
  const asked = version, result = await compiler.ask({ kind: "format", text: editor.text });
  if (result.error) toast(result.error);
  else if (asked === version) {
    if (result.text === editor.text) toast("The text is formatted already.");
    editor.replace(result.text);
  }
}

async function explain(code) {
  const { text } = await compiler.ask({ kind: "explain", code });
  byId("explain-text").textContent = text;
  byId("explain-dialog").showModal();
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`copied ${what}`);
  } catch {
    toast("The browser does not let this page copy.");
  }
}

const baseName = () => (file?.name ?? `${last?.space?.name ?? last?.name ?? "decoder"}.nas`).replace(/\.nas$/, "");

function wire() {
  byId("format").onclick = byId("format-narrow").onclick = format;
  byId("share").onclick = async () => { await rememberNow(); copy(location.href, "the link, with all of this page in it"); };
  byId("sample-next").onclick = () => { seed = (seed + 1) % 2 ** 31; view = 0; check(); };
  byId("download-text").onclick = () => download(`${baseName()}.nas`, editor.text, "text/plain");
  byId("picture-file").onclick = () => download(`${baseName()}.svg`, picture.svg, "image/svg+xml");
  byId("source").onclick = async () => {
    const result = await compiler.ask({ kind: "source", text: editor.text, name: file?.name ?? undefined, ...settings });
    if (result.error) toast(result.error);
    else download(`${baseName()}.py`, result.text, "text/x-python");
  };
  for (const name of ["backbone", "size", "width"]) {
    byId(name).addEventListener(name === "backbone" ? "change" : "input", event => {
      settings[name] = event.target.value.trim();
      version++;
      check();
      remember();
    });
  }
  byId("theme").onclick = () => {
    settings.theme = { auto: "light", light: "dark", dark: "auto" }[settings.theme];
    showTheme();
    remember();
  };
  if (file) {
    byId("save").onclick = () => file.save();
    byId("save-as").onclick = () => file.saveAs();
  }
  for (const close of document.querySelectorAll("dialog .close")) close.onclick = () => close.closest("dialog").close();
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  }
  for (const menu of document.querySelectorAll("details.menu")) {
    menu.addEventListener("click", event => { if (event.target.closest("button")) menu.open = false; });
    document.addEventListener("click", event => { if (!menu.contains(event.target)) menu.open = false; });
    menu.addEventListener("keydown", event => { if (event.key === "Escape") menu.open = false; });
  }
}

addEventListener("keydown", event => {
  if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
  event.preventDefault();
  if (document.querySelector("dialog[open]")) return;
  if (file) file.save();
  else toast("The address of this page holds the text; “More” downloads it.");
});

function showTheme() {
  document.documentElement.dataset.theme = settings.theme;
  byId("theme").title = `colours: ${settings.theme === "auto" ? "as the system has them" : settings.theme}`;
}

// ------------------------------------------------------------------------------------------- state in the address

let timer = 0, own = "";

function remember() {
  clearTimeout(timer);
  timer = setTimeout(rememberNow, 300);
}

async function rememberNow() {
  clearTimeout(timer);
  const state = Object.fromEntries(Object.entries(settings).filter(([, value]) => value && value !== "auto"));
  if (file?.name) state.file = file.name;
  else state.text = editor.text;
  if (seed) state.seed = seed;
  own = `#${await encode(state)}`;
  window.history.replaceState(null, "", own);
}

/** Take the state of the address; whether there was one. */
async function restore() {
  const state = await decode(location.hash);
  if (!state) return false;
  for (const name of Object.keys(settings)) settings[name] = typeof state[name] === "string" ? state[name].slice(0, 40) : "";
  if (!["light", "dark"].includes(settings.theme)) settings.theme = "auto";
  for (const name of ["backbone", "size", "width"]) byId(name).value = settings[name];
  seed = Number.isInteger(state.seed) && state.seed >= 0 ? state.seed : 0;
  showTheme();
  if (isStudio && typeof state.file === "string") {
    await file.open(state.file);
    return true;
  }
  if (typeof state.text !== "string") return false;
  editor.load(state.text);
  return true;
}

addEventListener("hashchange", async () => {
  if (location.hash !== own && !(await restore())) toast("This link is damaged: the text stays as it was.");
});

// --------------------------------------------------------------------------------------------------------- start

async function start() {
  document.body.classList.add(isStudio ? "studio" : "playground");
  wire();
  showTheme();
  // The playground knows at once what the compiler would say of the first text, and of the language.
  const prepared = isStudio ? null : await fetch("start.json").then(response => response.json());
  const ready = isStudio ? compiler.ask({ kind: "start" }) : prepared.start;
  let begun = false;
  try {
    begun = await restore();
  } catch (error) {
    toast(error.message);
  }
  if (!begun && isStudio) {
    const session = await compiler.ask({ kind: "session" });
    const exists = session.name !== null && (await file.open(session.name));
    if (!exists) editor.load(session.text || FIRST);
    if (session.name === null) file.begin();
  } else if (!begun) {
    editor.load(prepared.text);
    if (!last) show(prepared.result); // the compiler is still on its way
  }
  file?.refresh();
  const { words: found, backbones, zoo, version: number } = await ready;
  words = new Map(found.map(({ label, info }) => [label, info]));
  editor.complete(completions(found));
  byId("backbone").append(...backbones.map(({ name, about }) => h("option", { value: name, title: about }, name)));
  byId("backbone").value = settings.backbone;
  zooDialog(zoo, async name => {
    const { text } = await compiler.ask({ kind: "zoo", name });
    seed = 0;
    editor.replace(text);
    editor.go(0);
    toast(`${name} from the zoo. Undo brings your text back.`);
  });
  byId("zoo").disabled = false;
  byId("about").title = `nasdsl ${number}`;
  check();
}

start().catch(error => picture.note(error.message, true));
