// Builds the playground: `npm run playground`. The page with Pyodide, the package and all it needs, in one folder of static files.
// PYTHON names the interpreter with pip (default python3); an argument names another folder than docs/playground.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { loadPyodide } from "pyodide";
import { buildPage, here, target } from "./build.mjs";

const ROOT = resolve(here, "../..");
const FIRST = "nas_fcos"; // of the zoo: what the page begins with

// What the page may load and ask: files beside it. GitHub's pages send no headers, so it stands in the page.
const POLICY = `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'">\n`;

/** Wheels of the package, built from the tree, and of what it needs. */
function wheels() {
  const folder = mkdtempSync(join(tmpdir(), "wheels-"));
  const pip = (...given) => execFileSync(process.env.PYTHON ?? "python3", ["-m", "pip", ...given], { stdio: ["ignore", "ignore", "inherit"] });
  pip("download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", folder, "--requirement", join(here, "requirements.txt"));
  pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT);
  const found = readdirSync(folder).map(name => ({ name, data: readFileSync(join(folder, name)) }));
  rmSync(folder, { recursive: true });
  return found;
}

/** The archive that the worker unpacks, its modules compiled by the Python that will run them; and what the page shows at first. */
async function pack(found) {
  const pyodide = await loadPyodide();
  pyodide.FS.mkdirTree("/wheels");
  for (const { name, data } of found) pyodide.FS.writeFile(`/wheels/${name}`, data);
  pyodide.FS.writeFile("/pack.py", readFileSync(join(here, "pack.py")));
  pyodide.globals.set("first", FIRST);
  try {
    pyodide.runPython("import sys; sys.path.insert(0, '/'); import pack; pack.pack('/wheels', '/nasdsl.zip', '/start.json', first)");
  } catch (error) {
    console.error(error.message); // Node would print the line of Pyodide that threw it, which is a megabyte long
    process.exit(1);
  }
  return { archive: pyodide.FS.readFile("/nasdsl.zip"), start: pyodide.FS.readFile("/start.json") };
}

/** Python's memory after its first answer, with which a later visit starts. */
async function snapshot(archive, start) {
  const pyodide = await loadPyodide({ _makeSnapshot: true });
  pyodide.unpackArchive(archive, "zip", { extractDir: pyodide.runPython("import site; site.getsitepackages()[0]") });
  const { text } = JSON.parse(new TextDecoder().decode(start));
  pyodide.globals.set("request", JSON.stringify({ kind: "check", text }));
  pyodide.runPython("from nasdsl.studio.messages import answer_json; answer_json(request); del request, answer_json");
  return gzipSync(pyodide.makeMemorySnapshot(), { level: 9 });
}

function* files(folder) {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) yield* files(path);
    else yield path;
  }
}

const folder = resolve(process.argv[2] ?? join(ROOT, "docs/playground"));
await buildPage(folder, "worker", POLICY);
const common = { bundle: true, minify: true, format: "esm", target, logLevel: "warning" };

const pyodide = join(here, "node_modules/pyodide");
mkdirSync(join(folder, "pyodide"));
for (const name of ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"]) {
  copyFileSync(join(pyodide, name), join(folder, "pyodide", name));
}
const lock = JSON.parse(readFileSync(join(pyodide, "pyodide-lock.json"), "utf8"));
writeFileSync(join(folder, "pyodide/pyodide-lock.json"), JSON.stringify({ ...lock, packages: {} })); // none is loaded by name

const { archive, start } = await pack(wheels());
writeFileSync(join(folder, "nasdsl.zip"), archive);
writeFileSync(join(folder, "start.json"), start);
const memory = await snapshot(archive, start);
const snapshotName = `snapshot-${createHash("sha256").update(memory).digest("hex").slice(0, 12)}.gz`; // never that of another build
writeFileSync(join(folder, snapshotName), memory);
await build({
  ...common, entryPoints: [join(here, "src/compiler-worker.js")], outdir: folder, external: ["./pyodide/pyodide.mjs"],
  define: { SNAPSHOT: JSON.stringify(snapshotName) },
});
const about = `\n${"=".repeat(80)}\nPyodide ${lock.info.version} (MPL-2.0), with CPython ${lock.info.python} (PSF-2.0)\n${"=".repeat(80)}\n` +
  "Sources: https://github.com/pyodide/pyodide, https://www.python.org/downloads/source/. lark (MIT) is in nasdsl.zip, with its licence.\n";
writeFileSync(join(folder, "licences.txt"), readFileSync(join(folder, "licences.txt"), "utf8") + about);

// The service worker holds the names of all files and a hash over them: another build is another cache.
const names = [...files(folder)].map(path => relative(folder, path));
const hash = createHash("sha256");
for (const name of names) hash.update(name).update(readFileSync(join(folder, name)));
await build({
  ...common, entryPoints: [join(here, "src/service-worker.js")], outdir: folder,
  define: { FILES: JSON.stringify(names.filter(name => name !== "licences.txt")), VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)) },
});
const size = [...files(folder)].reduce((sum, path) => sum + statSync(path).size, 0);
console.log(`${relative(process.cwd(), folder)}: ${names.length + 1} files, ${(size / 1e6).toFixed(1)} MB`);
process.exit(0);
