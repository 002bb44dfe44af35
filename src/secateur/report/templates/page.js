"use strict";
(() => {
  const root = document.documentElement;
  const trouble = [];
  // What goes wrong is said on the page, and kept where a test can read it.
  const complain = (what) => {
    trouble.push(String(what));
    root.dataset.errors = JSON.stringify(trouble);
    document.getElementById("trouble").hidden = false;
  };
  const said = console.error;
  console.error = (...parts) => { complain(parts.join(" ")); said.apply(console, parts); };
  window.addEventListener("error", (event) => complain(event.message));
  window.addEventListener("unhandledrejection", (event) => complain(event.reason));

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const touch = matchMedia("(pointer: coarse)").matches;

  // Figures name their colours by role; the stylesheet says what a role looks like.
  const paint = (part, style, key = "") => {
    if (Array.isArray(part)) return part.map((item) => paint(item, style, key));
    if (part && typeof part === "object")
      return Object.fromEntries(Object.entries(part).map(([k, v]) => [k, paint(v, style, k)]));
    const isRole = /color$/.test(key) && typeof part === "string" && part.startsWith("--");
    return isRole ? style.getPropertyValue(part).trim() : part;
  };

  const draw = async (place) => {
    const style = getComputedStyle(root);
    const { data, layout } = paint(figures[place.dataset.figure], style);
    const font = { family: style.getPropertyValue("--font"), size: 12.5, color: style.getPropertyValue("--ink-soft").trim() };
    const label = { bgcolor: style.getPropertyValue("--card").trim(), bordercolor: style.getPropertyValue("--line-strong").trim(), font: { ...font, color: style.getPropertyValue("--ink").trim() } };
    // Plotly writes into what it is given, so every drawing starts from the page's own copy.
    await Plotly.react(place, data, { ...layout, font, hoverlabel: { ...label, namelength: -1 }, autosize: true }, { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: !touch && "reset" });
  };

  const drawAll = async () => {
    let drawn = 0;
    for (const place of plots) {
      try { await draw(place); drawn += 1; } catch (error) { complain(error); }
      root.dataset.drawn = drawn;
      // Leaves the browser time to scroll and paint between two plots.
      await new Promise((resume) => setTimeout(resume));
    }
    root.dataset.done = "yes";
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();
