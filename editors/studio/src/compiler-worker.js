// The compiler of the playground: the package as it is, in Pyodide, in a worker.
import { loadPyodide } from "./pyodide/pyodide.mjs";

async function start() {
  const say = progress => postMessage({ progress });
  say("loading Python");
  const archive = fetch(new URL("nasdsl.zip", import.meta.url)).then(response => {
    if (!response.ok) throw new Error(`nasdsl.zip: ${response.status}`);
    return response.arrayBuffer();
  });
  const pyodide = await loadPyodide({ indexURL: new URL("pyodide/", import.meta.url).href });
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
