// The compiler, wherever it runs: `ask` sends a request of nasdsl.studio.messages and gives its answer.

/** Behind `nasdsl studio`: in the Python process that serves the page. */
export class ServerCompiler {
  hasFiles = true;
  async ask(request) {
    const response = await fetch("ask", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request),
    });
    if (response.headers.get("Content-Type") !== "application/json") throw new Error((await response.text()).trim());
    return response.json();
  }
}

/** In the playground: Python in a worker, so that typing never waits. */
export class WorkerCompiler {
  hasFiles = false;
  #waiting = new Map();
  #next = 0;

  constructor(onProgress) {
    this.worker = new Worker(new URL("compiler-worker.js", document.baseURI), { type: "module" });
    this.worker.onmessage = ({ data }) => {
      if ("progress" in data) return onProgress(data.progress);
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(JSON.parse(data.answer));
    };
    this.worker.onerror = event => {
      const error = new Error(event.message || "the compiler could not be loaded");
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  ask(request) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, request: JSON.stringify(request) });
    });
  }
}

/** Runs one task at a time; of those that come meanwhile the last one only. */
export function latest(task) {
  let running = false, waiting = null;
  return async function run(...given) {
    if (running) {
      waiting = given;
      return;
    }
    running = true;
    try {
      await task(...given);
    } finally {
      running = false;
      if (waiting) {
        const next = waiting;
        waiting = null;
        run(...next);
      }
    }
  };
}
