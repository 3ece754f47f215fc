// What the decoder costs: tiles for its parts, a row for each value, and the decisions of a space.
import { byId, h } from "./dom.js";
import { plural, shortAmount } from "./numbers.js";

const PARTS = [["total", "total"], ["backbone", "backbone"], ["fpn", "fpn"], ["head", "head"]];

export class Costs {
  #rows = [];

  /** `on`: hover(rows), pick(row), line(number), another(), edit(text). */
  constructor(on) {
    this.on = on;
    byId("table-toggle").addEventListener("click", () => this.open(byId("tables").hidden));
  }

  open(isOpen) {
    byId("tables").hidden = !isOpen;
    byId("table-toggle").setAttribute("aria-expanded", String(isOpen));
  }

  show(result) {
    const { cost, kind } = result;
    byId("tiles").replaceChildren(...PARTS.map(([key, title]) => {
      const part = cost[key], share = cost.total.macs ? part.macs / cost.total.macs : 0;
      return h("div", { class: `tile ${key}`, "data-macs": part.macs, "data-params": part.params },
        h("div", { class: "name" }, title, key !== "total" && h("span", { class: "share" }, ` ${Math.round(100 * share)} %`)),
        h("div", { class: "figure", title: `${part.macs.toLocaleString("en")} multiply-accumulates` },
          h("b", {}, shortAmount(part.macs)), " MACs"),
        h("div", { class: "figure", title: `${part.params.toLocaleString("en")} parameters` }, h("b", {}, shortAmount(part.params)), " params"),
        key !== "total" && h("div", { class: "bar" }, bar(share, `fill ${key}`)));
    }));
    byId("decisions-part").hidden = kind !== "space";
    if (kind === "space") this.#decisions(result.space);
    if (result.rows) this.#values(result);
  }

  #values({ rows, cost, removed }) {
    const most = Math.max(1, ...rows.map(row => row.macs));
    this.#rows = rows.map((row, number) => {
      const element = h("tr", {
        class: row.line === null ? "" : "linked",
        onmouseenter: () => this.on.hover([number]), onmouseleave: () => this.on.hover([]),
        onclick: () => this.on.pick(number),
      },
      h("td", { class: "value" }, row.name), h("td", { class: "text" }, row.text === row.name ? "" : row.text),
      h("td", { class: "shape" }, row.shape.replaceAll(" x ", " × ")),
      h("td", { class: "n", title: row.macs.toLocaleString("en") }, row.macs ? shortAmount(row.macs) : ""),
      h("td", { class: "in-row" }, h("div", { class: "bar" }, bar(row.macs / most, "fill"))),
      h("td", { class: "n", title: row.params.toLocaleString("en") }, row.params ? shortAmount(row.params) : ""));
      return element;
    });
    const gone = removed.map(row => h("tr", { class: "gone" },
      h("td", { class: "value" }, row.name), h("td", { class: "text" }, "left out: no output depends on it"), h("td"),
      h("td", { class: "n" }, shortAmount(row.macs)), h("td"), h("td", { class: "n" }, shortAmount(row.params))));
    byId("values").replaceChildren(...this.#rows, ...gone);
    byId("values-title").textContent = `${plural(rows.length, "value")}, ${shortAmount(cost.fpn.macs + cost.head.macs)} MACs`;
  }

  #decisions(space) {
    byId("decisions").replaceChildren(...space.decisions.map(decision => h("tr", {
      class: decision.line === null ? "" : "linked", onclick: () => decision.line !== null && this.on.line(decision.line),
    },
    h("td", { class: "value" }, decision.name), h("td", { class: "n" }, String(decision.count)),
    h("td", { class: "text" }, decision.alternatives.join(" | ") + (decision.count > decision.alternatives.length ? " | …" : "")))));
    byId("decisions-title").textContent = plural(space.decisions.length, "decision");
  }

  /** Mark the rows of values. */
  mark(numbers, isScrolled) {
    for (const old of byId("values").querySelectorAll(".hit")) old.classList.remove("hit");
    for (const number of numbers) this.#rows[number]?.classList.add("hit");
    const first = this.#rows[numbers[0]], frame = byId("tables");
    if (!isScrolled || !first || frame.hidden) return;
    const { top, bottom } = frame.getBoundingClientRect(), own = first.getBoundingClientRect();
    if (own.top < top + 30) frame.scrollTop -= top + 30 - own.top;
    else if (own.bottom > bottom) frame.scrollTop += own.bottom - bottom;
  }
}

function bar(share, kind) {
  const element = h("div", { class: kind });
  element.style.width = `${Math.max(0, Math.min(100, 100 * share)).toFixed(1)}%`;
  return element;
}
