// Charts: a crosshair with the figures of its bucket, by pointer and by arrow keys; a drag, or Shift with the arrows and then
// Enter, shows that time alone (`from` and `to` in the URL). The figures are those of the table beside the chart.
const SVG = "http://www.w3.org/2000/svg";

for (const chart of document.querySelectorAll("[data-chart]")) enliven(chart);
document.addEventListener("htmx:afterSwap", ({ target }) => {
  for (const chart of target.querySelectorAll?.("[data-chart]") ?? []) enliven(chart);
});

function enliven(chart) {
  const plot = chart.querySelector("[data-plot]");
  const rows = [...chart.querySelectorAll(".as-table tbody tr")];
  const heads = [...chart.querySelectorAll(".as-table thead th")].slice(1);
  if (!plot || !rows.length || plot.tabIndex === 0) return;
  const drawing = plot.querySelector("svg");
  const zooms = chart.hasAttribute("data-zooms");
  let at = null;
  let from = null;

  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `${chart.querySelector("figcaption").textContent}. ${plot.dataset.hint}`);

  const cross = drawing.appendChild(document.createElementNS(SVG, "line"));
  cross.setAttribute("class", "cross");
  const selected = drawing.appendChild(document.createElementNS(SVG, "rect"));
  selected.setAttribute("class", "selected");
  const height = drawing.querySelector(".shapes").getAttribute("height");
  const tip = plot.appendChild(document.createElement("div"));
  tip.className = "chart-tip";
  hide();

  function show(bucket, speaks) {
    at = Math.max(0, Math.min(rows.length - 1, bucket));
    const x = `${((at + 0.5) / rows.length) * 100}%`;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: height })) cross.setAttribute(name, value);
    cross.removeAttribute("hidden");
    const [title, ...cells] = [...rows[at].children].map((cell) => cell.textContent.trim());
    const head = document.createElement("strong");
    head.textContent = title;
    tip.replaceChildren(head, ...cells.flatMap((text, n) => figure(heads[n], text)));
    tip.hidden = false;
    // On the side where there is room.
    const isRight = at > rows.length / 2;
    const middle = ((at + 0.5) / rows.length) * drawing.clientWidth;
    tip.style.left = isRight ? "auto" : `${plot.clientWidth - drawing.clientWidth + middle + 8}px`;
    tip.style.right = isRight ? `${drawing.clientWidth - middle + 8}px` : "auto";
    if (speaks) document.getElementById("announcement").textContent = [title, ...cells.map((text, n) => `${heads[n].textContent} ${text}`)].join(", ");
    mark();
  }

  function figure(head, text) {
    const name = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.className = `swatch ${head.dataset.css ?? ""}`;
    if (head.dataset.css) name.append(swatch);
    name.append(head.textContent);
    const value = document.createElement("b");
    value.textContent = text;
    return [name, value];
  }

  function mark() {
    selected.toggleAttribute("hidden", from === null || from === at);
    const [low, high] = [Math.min(from, at), Math.max(from, at) + 1];
    const sides = { x: `${(low / rows.length) * 100}%`, width: `${((high - low) / rows.length) * 100}%`, y: 0, height };
    for (const [name, value] of Object.entries(sides)) selected.setAttribute(name, value);
  }

  function hide() {
    at = from = null;
    cross.setAttribute("hidden", "");
    selected.setAttribute("hidden", "");
    tip.hidden = true;
  }

  function zoom() {
    if (!zooms || from === null || from === at) return;
    const url = new URL(location.href);
    url.searchParams.set("range", "custom");
    url.searchParams.set("from", rows[Math.min(from, at)].dataset.from);
    url.searchParams.set("to", ends(Math.max(from, at)));
    url.searchParams.delete("page");
    location.assign(url);
  }

  // A row ends where the next one begins.
  function ends(bucket) {
    return rows[bucket + 1]?.dataset.from ?? rows[bucket].dataset.to;
  }

  function bucketAt(event) {
    const box = drawing.getBoundingClientRect();
    return Math.floor(((event.clientX - box.left) / box.width) * rows.length);
  }

  plot.addEventListener("pointermove", (event) => show(bucketAt(event), false));
  plot.addEventListener("pointerdown", (event) => {
    if (!zooms || event.button !== 0 || event.pointerType === "touch") return;
    event.preventDefault(); // selects no words
    plot.focus({ preventScroll: true, focusVisible: false });
    plot.setPointerCapture(event.pointerId);
    show(bucketAt(event), false);
    from = at;
  });
  plot.addEventListener("pointerup", () => {
    zoom();
    from = null;
    mark();
  });
  plot.addEventListener("pointercancel", hide);
  plot.addEventListener("pointerleave", () => from === null && hide());
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const before = at ?? (steps[event.key] > 0 ? -1 : rows.length);
      if (event.shiftKey && zooms) from ??= at ?? Math.max(0, Math.min(rows.length - 1, before + steps[event.key]));
      else from = null;
      show(before + steps[event.key], true);
    } else if (event.key === "Enter") zoom();
    else if (event.key === "Escape") hide();
    else return;
    event.preventDefault();
  });
}
