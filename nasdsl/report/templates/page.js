(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 560px)");
  const data = document.getElementById("themes");
  const themes = data ? JSON.parse(data.textContent) : {};
  const drawn = new Map(); // plot -> its view, to be finalized before it is drawn again

  // Replace names of colours by the colours of a theme, except in data.
  function apply_theme(value, palette) {
    if (Array.isArray(value)) return value.map((inner) => apply_theme(inner, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([name, inner]) => [name, name === "data" || name === "datasets" ? inner : apply_theme(inner, palette)]));
    }
    return typeof value === "string" && Object.hasOwn(palette, value) ? palette[value] : value;
  }

  async function draw(plot) {
    const theme = themes[dark.matches ? "dark" : "light"];
    const spec = apply_theme(JSON.parse(document.getElementById(plot.dataset.spec).textContent), theme.palette);
    const config = structuredClone(theme.config);
    if (narrow.matches) { config.legend.columns = 2; config.axisX.tickCount = 4; }
    try {
      drawn.get(plot)?.finalize();
      drawn.set(plot, await vegaEmbed(plot, spec, {
        mode: "vega-lite", renderer: "svg", actions: false, config, tooltip: { disableDefaultStyle: true },
      }));
      plot.dataset.drawn = dark.matches ? "dark" : "light";
    } catch (error) {
      plot.textContent = `This chart could not be drawn: ${error.message}`;
      plot.classList.add("failed-plot");
    }
  }

  const shown = (plot) => !plot.closest("details:not([open])"); // a closed fold has no width
  const plots = [...document.querySelectorAll(".plot")];
  const drawAll = () => Promise.all(plots.filter(shown).map(draw));
  for (const query of [dark, narrow]) query.addEventListener("change", drawAll);
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => {
      if (fold.open) [...fold.querySelectorAll(".plot")].filter(shown).forEach((plot) => plot.dataset.drawn || draw(plot));
    });
  }
  drawAll().then(() => { document.documentElement.dataset.ready = "yes"; });

  // A link to a decoder opens its fold.
  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  }
  addEventListener("hashchange", open);
  open();

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const text = button.nextElementSibling;
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch { // no clipboard: select the text, to be copied with the keyboard
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
