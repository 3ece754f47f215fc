// The compiler of the playground: the package as it is, in Pyodide, in a worker. SNAPSHOT is put in by the build.
/* global SNAPSHOT */
import { loadPyodide } from "./pyodide/pyodide.mjs";

const beside = name => new URL(name, import.meta.url);
const say = progress => postMessage({ progress });

async function fetched(name) {
  const response = await fetch(beside(name));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response.arrayBuffer();
}

/** Python's memory with the compiler loaded, if the service worker has kept it; a first visit does without. */
async function snapshot() {
  try {
    const kept = await caches.match(beside(SNAPSHOT));
    return kept && new Uint8Array(await new Response(kept.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  } catch {
    return undefined; // no caches here, or none that can be read
  }
}

/** Start with a memory of so many bytes at least: Pyodide fills a snapshot into the one that its module begins with, of 30 MiB. */
async function withMemory(bytes, start) {
  const { instantiate, instantiateStreaming } = WebAssembly;
  const growing = make => async (...given) => {
    const made = await make.apply(WebAssembly, given), { memory } = (made.instance ?? made).exports;
    if (memory) memory.grow(Math.max(0, Math.ceil((bytes - memory.buffer.byteLength) / 65536)));
    return made;
  };
  Object.assign(WebAssembly, { instantiate: growing(instantiate), instantiateStreaming: growing(instantiateStreaming) });
  try {
    return await start();
  } finally {
    Object.assign(WebAssembly, { instantiate, instantiateStreaming });
  }
}

async function python(indexURL) {
  const memory = await snapshot();
  if (memory) {
    try {
      return await withMemory(memory.length, () => loadPyodide({ indexURL, _loadSnapshot: memory }));
    } catch (error) {
      console.warn(`starting without the snapshot: ${error.message}`);
    }
  }
  return loadPyodide({ indexURL });
}

async function start() {
  say("loading Python");
  const archive = fetched("nasdsl.zip");
  const pyodide = await python(beside("pyodide/").href);
  say("loading the compiler");
  const site = pyodide.runPython("import site; site.getsitepackages()[0]");
  pyodide.unpackArchive(await archive, "zip", { extractDir: site });
  const answer = pyodide.runPython("from nasdsl.studio.messages import answer_json; answer_json");
  say("");
  return answer;
}

const started = start();
started.catch(() => {});

self.onmessage = async ({ data: { id, request } }) => {
  try {
    const answer = await started;
    postMessage({ id, answer: answer(request) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error).trim().split("\n").at(-1) });
  }
};
