// The dialog with the decoders and search spaces that come with nasdsl.
import { byId, h } from "./dom.js";

export function zooDialog(entries, pick) {
  const dialog = byId("zoo-dialog"), filter = byId("zoo-filter");
  const shown = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = entries.filter(({ name, about }) => wanted.every(word => `${name} ${about}`.toLowerCase().includes(word)));
    byId("zoo-list").replaceChildren(...[["decoder", "Decoders"], ["space", "Search spaces"]].flatMap(([kind, title]) => {
      const group = found.filter(entry => entry.kind === kind);
      return group.length ? [h("h3", {}, title), h("ul", {}, group.map(({ name, about }) =>
        h("li", {}, h("button", { type: "button", "data-name": name, onclick: () => { dialog.close(); pick(name); } },
          h("b", {}, name), h("span", {}, about)))))] : [];
    }));
    if (!found.length) byId("zoo-list").replaceChildren(h("p", {}, "Nothing in the zoo has these words."));
  };
  filter.oninput = shown;
  filter.onkeydown = event => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // the focus goes back to the button that opened the dialog, which Enter would press
    byId("zoo-list").querySelector("button")?.click();
  };
  byId("zoo").onclick = () => {
    filter.value = "";
    shown();
    dialog.showModal();
    filter.focus();
  };
}
