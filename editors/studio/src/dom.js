// Elements. Texts of others become text nodes, never HTML.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = id => document.getElementById(id);

/** `code`, **bold**, "- " lists, fences and paragraphs: the Markdown that the compiler writes. */
export function markdown(text) {
  const root = h("div", { class: "markdown" });
  for (const part of text.split(/(```nas\n[\s\S]*?\n```)/)) {
    const fence = part.match(/^```nas\n([\s\S]*?)\n```$/);
    if (fence) {
      root.append(h("pre", {}, fence[1]));
      continue;
    }
    for (const paragraph of part.split(/\n\n+/)) {
      if (!paragraph.trim()) continue;
      const lines = paragraph.trim().split("\n");
      if (lines[0].startsWith("- ")) root.append(h("ul", {}, lines.map(line => h("li", {}, inline(line.slice(2))))));
      else root.append(h("p", {}, inline(lines.join(" "))));
    }
  }
  return root;
}

export function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map(part => {
    if (part.startsWith("`") && part.endsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.endsWith("**") && part.length > 4) return h("b", {}, part.slice(2, -2));
    return part;
  });
}

let timer = 0;
/** A line at the bottom that goes away by itself. */
export function toast(text) {
  const element = byId("toast");
  element.textContent = text;
  element.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => element.classList.remove("shown"), 3200);
}

/** Give a file to the one who reads the page. */
export function download(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
