"use strict";
// Everything is drawn from the data that lie in this page; names and values reach it as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const AXES = { epoch: "epochs", step: "steps", seconds: "training time" };
const state = { axis: "epoch", log: true, hidden: new Set(), epoch: 0 };

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "path", "circle", "text", "g"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const colour = (i) => `var(--run-${i % 8})`;
const dashed = (i) => Math.floor(i / 8) % 2 === 1;
const swatch = (i) => make("span", { class: dashed(i) ? "swatch dashed" : "swatch", style: `border-color: ${colour(i)}` });
const shown = () => data.runs.map((run, i) => ({ run, i })).filter(({ i }) => !state.hidden.has(i));

// --- numbers as people read them --------------------------------------------------------------------------
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(3).replace(/\.?0+$/, "") || "0";
}
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 100) return `${number(seconds)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(seconds < 600 ? 1 : 0)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
// of round numbers on an axis
const tickName = (t) => (Math.abs(t) >= 1000 ? t.toLocaleString("en") : String(Number(t.toPrecision(6))));
const place = (x) => (state.axis === "seconds" ? duration(x) : `${state.axis} ${number(Math.round(x))}`);
const KINDS = {
  text: String,
  number,
  score: (v) => (v === null ? "–" : v.toFixed(v >= 100 ? 1 : 2)),
  share: (v) => (v === null ? "–" : v.toFixed(3)),
  count: (v) => (v === null ? "–" : Math.round(v).toLocaleString("en")),
  duration,
};

// --- charts -----------------------------------------------------------------------------------------------
function ticks(low, high, log, wanted) {
  if (log) {
    const decades = Math.log10(high / low);
    const steps = decades > 3.2 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of steps) found.push(step * 10 ** power);
    return found.filter((t) => t >= low * 0.999 && t <= high * 1.001);
  }
  const raw = (high - low) / wanted, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high * (1 + 1e-9); t += step) found.push(Number(t.toPrecision(12)));
  return found;
}

class Chart {
  constructor(parent, metric, title, height) {
    Object.assign(this, { parent, metric, height });
    if (title) parent.append(make("h3", {}, title));
    this.svg = make("svg", { role: "img", "aria-label": `${title || "Fréchet distance"} of each run` });
    this.tip = make("div", { class: "tip", hidden: "" });
    parent.append(this.svg, this.tip);
    this.svg.addEventListener("pointermove", (event) => this.hover(event));
    this.svg.addEventListener("pointerdown", (event) => this.hover(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("click", () => this.at !== undefined && state.axis === "epoch" && setEpoch(this.at));
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  lines() {
    const lines = shown().map(({ run, i }) => {
      const rows = run.rows.filter((row) => row[this.metric] !== undefined && row[state.axis] !== undefined);
      return { run, i, points: rows.map((row) => ({ x: row[state.axis], y: row[this.metric], epoch: row.epoch })) };
    });
    return lines.filter((line) => line.points.length);
  }

  scales(points, width) {
    const fid = this.metric === "fid", ys = points.map((p) => p.y), top = Math.max(...ys);
    this.log = fid && state.log && Math.min(...ys) > 0;
    let [low, high] = this.log ? [Math.min(...ys) / 1.15, top * 1.15] : [0, fid ? top * 1.05 : Math.max(1, top * 1.05)];
    if (low === high) high = low + 1;
    const xs = points.map((p) => p.x);
    const from = Math.min(...xs, state.axis === "epoch" ? Infinity : 0), to = Math.max(...xs, from + 1e-9);
    const f = this.log ? Math.log : (v) => v;
    this.box = { left: 46, right: width - 12, top: 12, bottom: this.height - 26 };
    const { left, right, top: up, bottom } = this.box;
    this.x = (v) => (to - from < 1e-6 ? (left + right) / 2 : left + ((v - from) / (to - from)) * (right - left));
    this.y = (v) => bottom - ((f(v) - f(low)) / (f(high) - f(low))) * (bottom - up);
    return { low, high, from, to };
  }

  draw() {
    const width = Math.max(200, this.parent.clientWidth);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    this.svg.replaceChildren();
    this.drawn = this.lines();
    const points = this.drawn.flatMap((line) => line.points);
    if (!points.length) {
      this.svg.append(make("text", { x: width / 2, y: this.height / 2, "text-anchor": "middle" }, "no scores yet"));
      return;
    }
    this.rules(this.scales(points, width), width);
    for (const { i, points } of this.drawn) {
      const d = points.map((p, n) => `${n ? "L" : "M"}${this.x(p.x).toFixed(1)} ${this.y(p.y).toFixed(1)}`).join("");
      this.svg.append(make("path", { class: "run", d, stroke: colour(i), ...(dashed(i) ? { "stroke-dasharray": "6 4" } : {}) }));
    }
    this.marks = make("g");
    this.svg.append(this.marks);
    this.mark();
  }

  rules({ low, high, from, to }, width) {
    const { left, right, top, bottom } = this.box;
    for (const t of ticks(low, high, this.log, this.height > 200 ? 6 : 4)) {
      this.svg.append(make("line", { class: "rule", x1: left, x2: right, y1: this.y(t), y2: this.y(t) }));
      this.svg.append(make("text", { x: left - 8, y: this.y(t) + 4, "text-anchor": "end" }, tickName(t)));
    }
    const fits = ticks(from, to, false, Math.max(2, Math.floor(width / 110)));
    for (const t of to - from < 1e-6 ? [from] : fits) {
      if (state.axis !== "seconds" && !Number.isInteger(t)) continue;
      const name = state.axis === "seconds" ? duration(t) : tickName(t);
      this.svg.append(make("text", { x: this.x(t), y: bottom + 18, "text-anchor": "middle" }, name));
    }
    this.svg.append(make("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  }

  // the epoch of the slider: a dot on each curve, and a line where the axis is epochs
  mark() {
    if (!this.marks) return;
    this.marks.replaceChildren();
    const { top, bottom } = this.box;
    if (state.axis === "epoch") {
      const x = Math.min(this.box.right, Math.max(this.box.left, this.x(state.epoch)));
      this.marks.append(make("line", { class: "now", x1: x, x2: x, y1: top, y2: bottom }));
    }
    for (const { i, points } of this.drawn) {
      const point = points.findLast((p) => p.epoch <= state.epoch);
      if (point) this.marks.append(make("circle", { class: "dot", r: 4.5, cx: this.x(point.x), cy: this.y(point.y), fill: colour(i) }));
    }
  }

  // what each run had reached by the place under the pointer
  hover(event) {
    if (!this.drawn.length) return;
    const bounds = this.svg.getBoundingClientRect(), at = event.clientX - bounds.left;
    const all = this.drawn.flatMap((line) => line.points);
    const nearest = all.reduce((a, b) => (Math.abs(this.x(b.x) - at) < Math.abs(this.x(a.x) - at) ? b : a));
    this.at = nearest.epoch;
    const table = make("table");
    for (const { run, i, points } of this.drawn) {
      const point = points.findLast((p) => p.x <= nearest.x);
      if (!point) continue;
      const earlier = state.axis === "epoch" && point.x < nearest.x ? ` (epoch ${point.epoch})` : "";
      table.append(make("tr", {}, make("td", {}, swatch(i), run.label + earlier), make("td", {}, number(point.y))));
    }
    this.tip.replaceChildren(make("b", {}, place(nearest.x)), table);
    this.tip.hidden = false;
    this.cross?.remove();
    const x = this.x(nearest.x);
    this.cross = make("line", { class: "cross", x1: x, x2: x, y1: this.box.top, y2: this.box.bottom });
    this.svg.append(this.cross);
    const room = this.parent.clientWidth - this.tip.offsetWidth;
    const side = x + 14 <= room ? x + 14 : x - 14 - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, side))}px`;
    this.tip.style.top = `${bounds.top - this.parent.getBoundingClientRect().top + 10}px`;
  }

  leave() {
    this.tip.hidden = true;
    this.cross?.remove();
  }
}

// --- grids ------------------------------------------------------------------------------------------------
const epochs = [...new Set(data.runs.flatMap((run) => [...Object.keys(run.grids).map(Number), ...run.rows.map((r) => r.epoch)]))];
epochs.sort((a, b) => a - b);
const figures = data.runs.map((run, i) => {
  const told = make("span", { class: "quiet" }), frame = make("div");
  const figure = make("figure", { "data-run": run.label }, make("figcaption", {}, swatch(i), run.label, told), frame);
  const image = make("img", { alt: "" });
  byId("grids").append(figure);
  return { run, figure, told, frame, image, kept: Object.keys(run.grids).map(Number).sort((a, b) => a - b) };
});

function picture(image, grid, description) {
  if (image.getAttribute("src") === grid.source) return image;
  image.src = grid.source;
  image.alt = description;
  image.width = grid.width;
  image.height = grid.height;
  image.className = grid.width < 400 ? "small" : "";
  return image;
}

function showGrids() {
  for (const { run, told, frame, image, kept } of figures) {
    const epoch = kept.findLast((e) => e <= state.epoch);
    const row = run.rows.findLast((r) => r.epoch <= (epoch ?? -1) && r.fid !== undefined);
    const score = row === undefined ? "" : `, FID ${KINDS.score(row.fid)}${row.epoch === epoch ? "" : ` (epoch ${row.epoch})`}`;
    told.textContent = epoch === undefined ? "no grid up to here" : `epoch ${epoch}${score}`;
    if (epoch === undefined) frame.replaceChildren(make("div", { class: "none" }, "no grid"));
    else frame.replaceChildren(picture(image, run.grids[epoch], `samples of ${run.label}, epoch ${epoch}`));
  }
}

function setEpoch(epoch) {
  state.epoch = epoch;
  const position = epochs.indexOf(epoch);
  byId("epoch").value = position;
  byId("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  byId("epoch-now").textContent = `epoch ${epoch}`;
  showGrids();
  charts.forEach((chart) => chart.mark());
}

// --- tables -----------------------------------------------------------------------------------------------
function table(headings, rows, kind) {
  const head = make("tr", {}, ...headings.map((h) => make("th", { scope: "col" }, h)));
  const body = rows.map((cells) => {
    const made = cells.map((cell, c) => {
      const content = [cell.content].flat();
      return make("td", { "data-label": headings[c], class: cell.best ? "best" : "" }, ...content);
    });
    return make("tr", {}, ...made);
  });
  return make("table", { class: `rows ${kind}` }, make("thead", {}, head), make("tbody", {}, ...body));
}

function finalTable() {
  const columns = data.columns.filter((column) => data.runs.some((run) => (run.final[column.key] ?? null) !== null));
  const best = Object.fromEntries(columns.filter((c) => c.better && !data.warning).map((c) => {
    const values = data.runs.map((run) => run.final[c.key] ?? null).filter((v) => v !== null);
    return [c.key, values.length > 1 ? (c.better === "lower" ? Math.min(...values) : Math.max(...values)) : null];
  }));
  const rows = data.runs.map((run, i) => {
    const going = run.finished ? [] : [make("span", { class: "state" }, " in progress")];
    const cells = columns.map(({ key, kind }) => {
      const value = run.final[key] ?? null;
      return { content: value === null ? "–" : KINDS[kind](value), best: value !== null && value === best[key] };
    });
    return [{ content: [swatch(i), run.label, ...going] }, ...cells];
  });
  byId("final").append(table(["run", ...columns.map((c) => c.title)], rows, ""));
}

function settingsTable() {
  const keys = Object.keys(data.differences);
  if (!keys.length) {
    byId("settings").append(make("p", { class: "quiet" }, data.runs.length > 1 ? "None: the runs have the same settings." : "One run alone."));
    return;
  }
  const rows = keys.map((key) => [{ content: key }, ...data.differences[key].map((v) => ({ content: v === null ? "–" : String(v) }))]);
  byId("settings").append(table(["setting", ...data.runs.map((run) => run.label)], rows, "text"));
}

// --- the page ---------------------------------------------------------------------------------------------
byId("reference").textContent = data.reference;
byId("warning").textContent = data.warning;
byId("warning").hidden = !data.warning;
byId("final-note").textContent = data.note;
if (data.real) {
  const frame = make("div", {}, picture(make("img"), data.real, "real images"));
  byId("grids").append(make("figure", {}, make("figcaption", {}, "real images", make("span", { class: "quiet" }, data.real.name)), frame));
}
data.runs.forEach((run, i) => {
  const button = make("button", { type: "button", "aria-pressed": "true" }, swatch(i), run.label);
  button.addEventListener("click", () => {
    state.hidden.has(i) ? state.hidden.delete(i) : state.hidden.add(i);
    button.setAttribute("aria-pressed", String(!state.hidden.has(i)));
    charts.forEach((chart) => chart.draw());
  });
  byId("legend").append(button);
});
for (const [axis, name] of Object.entries(AXES)) {
  const input = make("input", { type: "radio", name: "axis", value: axis, ...(axis === state.axis ? { checked: "" } : {}) });
  input.addEventListener("change", () => { state.axis = axis; charts.forEach((chart) => chart.draw()); });
  byId("axis").append(make("label", {}, input, make("span", {}, name)));
}
byId("log").addEventListener("change", (event) => { state.log = event.target.checked; charts[0].draw(); });
const charts = [new Chart(byId("chart-fid"), "fid", "", 320)];
for (const [metric, title] of Object.entries(data.shares)) {
  const parent = make("div", { class: "chart", id: `chart-${metric}` });
  byId("small").append(parent);
  charts.push(new Chart(parent, metric, title, 170));
}
const slider = byId("epoch");
slider.max = Math.max(0, epochs.length - 1);
slider.addEventListener("input", () => setEpoch(epochs[Number(slider.value)]));
let timer = null;
function stop() {
  clearInterval(timer);
  timer = null;
  byId("play").textContent = "▶";
}
byId("play").addEventListener("click", () => {
  if (timer !== null) return stop();
  if (Number(slider.value) === epochs.length - 1) setEpoch(epochs[0]);
  byId("play").textContent = "❚❚";
  timer = setInterval(() => {
    const next = Number(slider.value) + 1;
    next < epochs.length ? setEpoch(epochs[next]) : stop();
  }, 600);
});
finalTable();
settingsTable();
charts.forEach((chart) => chart.draw());
setEpoch(epochs[epochs.length - 1]);
