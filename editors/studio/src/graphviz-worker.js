// Graphviz, as WebAssembly, in a worker: it only draws, since the compiler gives all positions.
import { Graphviz } from "@hpcc-js/wasm-graphviz";

const loaded = Graphviz.load();

self.onmessage = async ({ data: { id, dot } }) => {
  try {
    postMessage({ id, svg: (await loaded).layout(dot, "svg", "nop2") });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) });
  }
};
