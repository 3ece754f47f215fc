// The picture: drawn by Graphviz in a worker, moved and zoomed, its boxes linked with the lines of the text and the rows of costs.
import { byId, h } from "./dom.js";
import { latest } from "./compiler.js";

const TONE = "#737a83"; // of text outside boxes, which follows the theme (nasdsl.backends.diagrams.dot)
const PHONE = matchMedia("(max-width: 820px), (max-height: 480px)"); // as page.css has it
const LEGIBLE = 0.6; // pixels of the page for one of the picture, of which the smallest texts have 9
const NAMESPACE = "http://www.w3.org/2000/svg";

export class Picture {
  #view = byId("view");
  #worker = new Worker(new URL("graphviz.js", document.baseURI), { type: "module" });
  #waiting = new Map();
  #next = 0;
  #svg = null;
  #full = null; // the whole picture, as a viewBox
  #box = null; // what is seen of it
  #first = null; // what is seen of it before anybody has moved it
  #pointers = new Map();
  #boxesOf = new Map(); // row -> element
  #rowsOf = new Map(); // id of an element -> rows
  #drawn = "";

  /** `on`: hover(rows, fromPicture), pick(row), open(view). */
  constructor(on) {
    this.on = on;
    this.#worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.svg);
    };
    this.show = latest(result => this.#show(result));
    this.#listen();
  }

  /** The picture as a file. */
  get svg() {
    return this.#drawn;
  }

  async #show(result) {
    const { picture, rows } = result;
    let text;
    try {
      text = await new Promise((resolve, reject) => {
        const id = this.#next++;
        this.#waiting.set(id, { resolve, reject });
        this.#worker.postMessage({ id, dot: picture.dot });
      });
    } catch (error) {
      this.note(`The picture cannot be drawn: ${error.message}`);
      return;
    }
    this.#drawn = text;
    const parsed = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    if (parsed.nodeName !== "svg") return;
    const svg = document.importNode(parsed, true);
    this.#clean(svg, result.name);
    this.#boxesOf.clear();
    this.#rowsOf.clear();
    for (const [id, numbers] of Object.entries(picture.boxes)) {
      const element = svg.getElementById(id);
      if (!element) continue;
      this.#rowsOf.set(id, numbers);
      for (const number of numbers) this.#boxesOf.set(number, element);
      const row = rows[numbers[0]];
      if (row && row.line !== null) element.classList.add("linked");
    }
    for (const [id, view] of Object.entries(picture.opens)) {
      const element = svg.getElementById(id);
      element.classList.add("opens");
      element.setAttribute("tabindex", "0");
      element.setAttribute("role", "button");
      element.addEventListener("keydown", event => { if (event.key === "Enter") this.on.open(view); });
      element.dataset.opens = view;
    }
    const { x, y, width, height } = svg.viewBox.baseVal;
    const full = [x, y, width, height];
    const isSame = this.#full && full.every((value, n) => Math.abs(value - this.#full[n]) < 1);
    const isFitted = !this.#box || this.#box === this.#first || this.#box.every((value, n) => value === this.#full[n]);
    const isOther = this.shownName !== result.name || this.shownView !== picture.view;
    this.shownName = result.name;
    this.shownView = picture.view;
    this.#full = full;
    if (!isSame && (isFitted || isOther)) this.#box = null;
    this.#svg?.remove();
    this.#svg = svg;
    this.#view.prepend(svg);
    this.#first = this.#firstLook();
    this.#look(this.#box ?? this.#first);
    setApart(svg);
    this.#navigate(picture);
    this.note("");
    this.#view.dataset.drawn = String(Number(this.#view.dataset.drawn ?? 0) + 1);
  }

  /** What Graphviz wrote, without size, scripts and links, and with titles in the place of XLink's. */
  #clean(svg, name) {
    for (const attribute of ["width", "height"]) svg.removeAttribute(attribute);
    svg.setAttribute("class", "picture");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `the picture of ${name}`);
    for (const element of svg.querySelectorAll("title, script, foreignObject, image, use")) element.remove();
    for (const element of svg.querySelectorAll("*")) {
      for (const { name: attribute } of [...element.attributes]) {
        if (attribute.startsWith("on") || attribute === "href" || attribute === "xlink:href") element.removeAttribute(attribute);
      }
    }
    for (const link of svg.querySelectorAll("a")) {
      const tip = link.getAttribute("xlink:title");
      link.removeAttribute("xlink:title");
      if (!tip) continue;
      const title = document.createElementNS(NAMESPACE, "title");
      title.textContent = tip.replace(/^untitled\.nas:/, "line ");
      link.prepend(title);
    }
    for (const text of svg.querySelectorAll(`text[fill="${TONE}"]`)) text.classList.add("tone");
  }

  /** A line over the picture: what it waits for, or why it is not the present text's. Empty takes it away. */
  note(text, isStale = false) {
    byId("note").textContent = text;
    byId("note").hidden = !text;
    this.#view.classList.toggle("stale", isStale);
  }

  get isEmpty() {
    return !this.#svg;
  }

  /** Mark the boxes of rows. */
  mark(numbers) {
    for (const old of this.#view.querySelectorAll(".hit")) old.classList.remove("hit");
    for (const number of numbers) this.#boxesOf.get(number)?.classList.add("hit");
  }

  fit() {
    if (this.#full) this.#look([...this.#full]);
  }

  zoom(by, x = this.#view.clientWidth / 2, y = this.#view.clientHeight / 2) {
    if (!this.#svg) return;
    const corner = this.#view.getBoundingClientRect();
    const at = new DOMPoint(corner.left + x, corner.top + y).matrixTransform(this.#svg.getScreenCTM().inverse());
    const [left, top, width, height] = this.#box, [, , fullWidth] = this.#full;
    by = Math.min(Math.max(by, (0.03 * fullWidth) / width), (3 * fullWidth) / width);
    this.#look([at.x - (at.x - left) * by, at.y - (at.y - top) * by, width * by, height * by]);
  }

  /**
   * What is seen at first: all of it, but on a phone, where a wide picture would be a strip that nobody can read, the part at its
   * left that fills the page or is legible, whichever is more of the picture.
   */
  #firstLook() {
    const [x, y, width, height] = this.#full;
    const across = this.#view.clientWidth / width, down = this.#view.clientHeight / height;
    if (!PHONE.matches || !across || Math.min(across, down) >= LEGIBLE) return [...this.#full];
    const scale = Math.min(Math.max(across, down), LEGIBLE);
    return [x, y, this.#view.clientWidth / scale, this.#view.clientHeight / scale];
  }

  #look(box) {
    this.#box = box;
    this.#svg.setAttribute("viewBox", box.join(" "));
  }

  #navigate({ views, view }) {
    const way = [];
    for (let at = view; views.length && at >= 0; at = views[at].parent) way.unshift(at);
    const last = views.length - 1;
    if (last > 0 && !way.includes(last)) way.push(last);
    byId("views").replaceChildren(
      ...way.map(at => h("button", { type: "button", disabled: at === view, onclick: () => this.on.open(at) }, views[at].title)),
    );
    byId("views").hidden = !way.length;
  }

  #listen() {
    const view = this.#view;
    new ResizeObserver(() => { // a phone is turned, or another tab hid the picture when it was drawn
      if (this.#svg && this.#box === this.#first) this.#look(this.#first = this.#firstLook());
    }).observe(view);
    const rowsAt = event => this.#rowsOf.get(event.target.closest?.("g.node")?.id) ?? [];
    let hovered = "";
    view.addEventListener("pointermove", event => {
      const rows = this.#pointers.size ? [] : rowsAt(event);
      if (String(rows) !== hovered) this.on.hover(rows);
      hovered = String(rows);
    });
    view.addEventListener("pointerleave", () => { if (hovered) this.on.hover([]); hovered = ""; });
    view.addEventListener("wheel", event => {
      event.preventDefault();
      const corner = view.getBoundingClientRect();
      this.zoom(Math.exp((event.deltaY * (event.deltaMode ? 16 : 1)) / 500), event.clientX - corner.left, event.clientY - corner.top);
    }, { passive: false });
    view.addEventListener("dblclick", event => { if (event.target.closest(".picture")) this.fit(); });
    let pressed = null;
    view.addEventListener("pointerdown", event => {
      if (!this.#svg || event.target.closest("button")) return;
      pressed = { element: event.target.closest("g.node"), x: event.clientX, y: event.clientY };
      this.#pointers.set(event.pointerId, event);
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", event => {
      const before = this.#pointers.get(event.pointerId);
      if (!before) return;
      const other = [...this.#pointers.values()].find(pointer => pointer.pointerId !== event.pointerId);
      if (other) {
        const far = pointer => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
        const corner = view.getBoundingClientRect();
        this.zoom(far(before) / Math.max(far(event), 1), other.clientX - corner.left, other.clientY - corner.top);
      } else {
        const [left, top, width, height] = this.#box;
        const scale = Math.max(width / view.clientWidth, height / view.clientHeight);
        this.#look([left - (event.clientX - before.clientX) * scale, top - (event.clientY - before.clientY) * scale, width, height]);
      }
      this.#pointers.set(event.pointerId, event);
    });
    view.addEventListener("pointerup", event => {
      this.#pointers.delete(event.pointerId);
      if (pressed?.element && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 4) {
        if (pressed.element.dataset.opens) this.on.open(Number(pressed.element.dataset.opens));
        else this.on.pick(this.#rowsOf.get(pressed.element.id)?.[0]);
      }
      pressed = null;
    });
    view.addEventListener("pointercancel", event => this.#pointers.delete(event.pointerId));
    byId("zoom-in").addEventListener("click", () => this.zoom(1 / 1.3));
    byId("zoom-out").addEventListener("click", () => this.zoom(1.3));
    byId("zoom-fit").addEventListener("click", () => this.fit());
  }
}

/** Move texts of one line apart: Graphviz has set them by its own estimate of their widths, not by the font of this page. */
function setApart(svg) {
  for (const group of svg.querySelectorAll("g.node, g.cluster")) {
    const texts = [...group.querySelectorAll("text")].filter(text => text.textContent.trim());
    const moves = [];
    for (let n = 1; n < texts.length; n++) {
      const before = texts[n - 1], text = texts[n];
      if (before.getAttribute("y") !== text.getAttribute("y")) continue;
      const at = before.x.baseVal[0].value + before.getComputedTextLength() + 4;
      if (at > text.x.baseVal[0].value) moves.push([text, at]);
    }
    for (const [text, at] of moves) text.setAttribute("x", at);
  }
}
