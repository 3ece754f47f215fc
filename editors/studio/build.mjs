// Builds the page of `nasdsl studio` into the package: `npm run build`. With a folder as argument, there instead.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

export const here = dirname(fileURLToPath(import.meta.url));

export const target = ["chrome115", "firefox115", "safari16.4"];

/** Build the page into a folder. `compiler`: where the compiler runs, `server` or `worker`. `policy`: elements for the head. */
export async function buildPage(folder, compiler, policy = "") {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const made = await build({
    entryPoints: { page: join(here, "src/main.js"), graphviz: join(here, "src/graphviz-worker.js") },
    outdir: folder, bundle: true, minify: true, format: "esm", target, metafile: true, legalComments: "none", absWorkingDir: here,
    logLevel: "warning",
  });
  await build({ entryPoints: { page: join(here, "src/page.css") }, outdir: folder, bundle: true, minify: true, target, logLevel: "warning" });
  const html = readFileSync(join(here, "src/index.html"), "utf8").replace("@COMPILER@", compiler).replace("@POLICY@", policy);
  writeFileSync(join(folder, "index.html"), html);
  cpSync(join(here, "src/icon.svg"), join(folder, "icon.svg"));
  writeFileSync(join(folder, "licences.txt"), licences(Object.keys(made.metafile.inputs)));
}

/** Names, versions and licences of the packages that files come from. */
function licences(files) {
  const packages = new Set(files.map(file => file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]).filter(Boolean));
  const parts = ["The page is made of nasdsl (Apache-2.0) and of these packages.\n"];
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    let text = "";
    try {
      text = readFileSync(join(folder, "LICENSE"), "utf8").trim();
    } catch {
      text = license;
    }
    parts.push(`${"=".repeat(80)}\n${name} ${version} (${license})\n${"=".repeat(80)}\n${text}\n`);
  }
  parts.push(
    `${"=".repeat(80)}\nGraphviz, compiled to WebAssembly in @hpcc-js/wasm-graphviz (Eclipse Public License)\n${"=".repeat(80)}\n` +
      "Its source is at https://graphviz.org/download/source/, its licence at https://graphviz.org/license/.\n" +
      "Expat, which it contains, is under the MIT licence: https://github.com/libexpat/libexpat\n",
  );
  return parts.join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildPage(resolve(process.argv[2] ?? join(here, "../../nasdsl/studio/page")), "server");
}
