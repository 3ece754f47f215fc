// Panes: a border that can be moved on a wide page, tabs on a narrow one.
import { byId } from "./dom.js";

export function layout() {
  const root = document.documentElement, tabs = [...document.querySelectorAll("#tabs button")];
  const show = name => {
    document.body.dataset.pane = name;
    for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab.dataset.pane === name));
  };
  for (const tab of tabs) tab.onclick = () => show(tab.dataset.pane);
  show("picture");
  const splitter = byId("splitter");
  const share = value => root.style.setProperty("--text-share", `${Math.min(Math.max(value, 18), 75)}%`);
  splitter.addEventListener("pointerdown", event => {
    splitter.setPointerCapture(event.pointerId);
    splitter.onpointermove = moved => share((100 * moved.clientX) / innerWidth);
  });
  splitter.addEventListener("pointerup", () => { splitter.onpointermove = null; });
  splitter.addEventListener("dblclick", () => root.style.removeProperty("--text-share"));
  splitter.addEventListener("keydown", event => {
    const now = (100 * splitter.getBoundingClientRect().left) / innerWidth;
    if (event.key === "ArrowLeft") share(now - 3);
    if (event.key === "ArrowRight") share(now + 3);
  });
  return { show };
}
