// @ts-check
// A line chart on a canvas: hover, drag to zoom, arrow keys, and its numbers as a table.

import { fill, h } from "./dom.js";
import { number, tick, time } from "./format.js";
import { extent, nearest, scale, smooth, ticks } from "./scale.js";

/**
 * @typedef {{label: string, tone: number, x: number[], y: (number | null)[], low?: (number | null)[], high?: (number | null)[]}} Line
 * @typedef {{title: string, lines: Line[], axis: "step" | "time", smoothing: number, zoom: [number, number] | null,
 *   onZoom: (range: [number, number] | null) => void, onCursor: (x: number | null) => void}} Options
 */

const LEFT = 54;
const BOTTOM = 18;
const TOP = 6;
const RIGHT = 8;
export const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [], [6, 3], [2, 3], [8, 3, 2, 3]];

/** @param {Options} options */
export function chart(options) {
  /** @type {HTMLCanvasElement} */
  const canvas = h("canvas", {
    tabindex: 0, role: "img", class: "plot",
    "aria-label": `${options.title}; left and right keys move along the line, Escape shows all`,
  });
  const readout = h("span", { class: "readout" });
  const table = h("details", { class: "numbers", on: { toggle: () => table.open && fill(body, rows(options)) } },
    h("summary", null, "numbers"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${options.title} as numbers` }));
  const body = table.lastElementChild;
  const element = h("figure", { class: "chart", data: { metric: options.title } },
    h("figcaption", null, h("span", { class: "name" }, options.title), readout), canvas, table);
  const state = { cursor: /** @type {number | null} */ (null), drag: /** @type {[number, number] | null} */ (null) };
  /** @type {any} */
  let axes = null;

  const drawn = options.lines.map((line) => ({ ...line, y: smooth(line.y, options.smoothing) }));

  function draw() {
    axes = paint(canvas, options, drawn, state);
    fill(readout, said(options, drawn, state.cursor));
  }

  /** @param {number | null} x */
  function setCursor(x) {
    state.cursor = x;
    draw();
  }

  const at = (/** @type {PointerEvent} */ event) => axes.x.from(event.clientX - canvas.getBoundingClientRect().left);
  canvas.addEventListener("pointerdown", (event) => {
    state.drag = [at(event), at(event)];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!axes) return;
    if (state.drag) state.drag[1] = at(event);
    options.onCursor(at(event));
  });
  canvas.addEventListener("pointerup", () => {
    const drag = state.drag;
    state.drag = null;
    if (drag && Math.abs(axes.x.to(drag[0]) - axes.x.to(drag[1])) > 6) {
      options.onZoom([Math.min(...drag), Math.max(...drag)]);
    }
  });
  canvas.addEventListener("pointerleave", () => options.onCursor(null));
  canvas.addEventListener("dblclick", () => options.onZoom(null));
  canvas.addEventListener("keydown", (event) => {
    const xs = drawn[0]?.x ?? [];
    if (event.key === "Escape") options.onZoom(null);
    else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && xs.length) {
      const place = state.cursor === null ? xs.length - 1 : nearest(xs, state.cursor) + (event.key === "ArrowLeft" ? -1 : 1);
      options.onCursor(xs[Math.max(0, Math.min(xs.length - 1, place))]);
      event.preventDefault();
    }
  });
  return { element, draw, setCursor };
}

/** The values beside the title: at the cursor, or the last. @param {Options} options @param {Line[]} lines @param {number | null} cursor */
function said(options, lines, cursor) {
  return lines.map((line) => {
    if (!line.x.length) return null;
    const i = cursor === null ? line.x.length - 1 : nearest(line.x, cursor);
    const where = cursor === null ? "" : options.axis === "time" ? ` at ${time(line.x[i])}` : ` at ${line.x[i]}`;
    return h("span", { class: `value tone-${line.tone}`, title: line.label }, number(line.y[i]) + (lines.length === 1 ? where : ""));
  });
}

/** @param {Options} options */
function rows(options) {
  const heads = options.lines.map((line) => h("th", { scope: "col" }, line.label));
  const xs = [...new Set(options.lines.flatMap((line) => line.x))].sort((a, b) => a - b).slice(-200);
  const found = options.lines.map((line) => new Map(line.x.map((x, i) => [x, line.y[i]])));
  return h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, options.axis), heads)),
    h("tbody", null, xs.map((x) => h("tr", null,
      h("th", { scope: "row" }, options.axis === "time" ? time(x) : x),
      found.map((values) => h("td", null, number(values.get(x))))))));
}

/** @param {HTMLCanvasElement} canvas @param {Options} options @param {Line[]} lines @param {{cursor: number | null, drag: [number, number] | null}} state */
function paint(canvas, options, lines, state) {
  const style = getComputedStyle(canvas);
  const tone = (/** @type {string} */ name) => style.getPropertyValue(name);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const xs = lines.flatMap((line) => [line.x[0], line.x[line.x.length - 1]]).filter(Number.isFinite);
  const [x0, x1] = options.zoom ?? (xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1]);
  const shown = lines.flatMap((line) => [line.y, line.low ?? [], line.high ?? []].flatMap((column) =>
    column.filter((_, i) => line.x[i] >= x0 && line.x[i] <= x1)));
  const [y0, y1] = extent(/** @type {number[]} */ (shown.filter((value) => value !== null)));
  const x = scale(x0, x1, LEFT, width - RIGHT);
  const y = scale(y0, y1, height - BOTTOM, TOP);

  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = tone("--quiet");
  pen.strokeStyle = tone("--line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const levels = ticks(y0, y1, 4);
  for (const value of levels) {
    pen.fillText(tick(value, levels.length > 1 ? levels[1] - levels[0] : Math.abs(value) || 1), LEFT - 6, y.to(value));
    stroke(pen, [[LEFT, y.to(value)], [width - RIGHT, y.to(value)]]);
  }
  pen.textAlign = "center";
  pen.textBaseline = "alphabetic";
  for (const value of ticks(x0, x1, Math.max(2, Math.floor(width / 110)))) {
    if (options.axis === "step" && !Number.isInteger(value)) continue;
    pen.fillText(options.axis === "time" ? time(value) : number(value), Math.min(x.to(value), width - 18), height - 4);
  }
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, TOP - 2, width - LEFT - RIGHT, height - BOTTOM - TOP + 4);
  pen.clip();
  for (const line of lines) {
    pen.strokeStyle = pen.fillStyle = tone(`--tone-${line.tone}`);
    if (line.low && line.high) band(pen, line, x, y);
    pen.lineWidth = 1.6;
    pen.setLineDash(DASHES[line.tone]);
    polyline(pen, line, x, y);
    pen.setLineDash([]);
    if (state.cursor !== null && line.x.length) {
      const i = nearest(line.x, state.cursor);
      if (line.y[i] !== null) dot(pen, x.to(line.x[i]), y.to(/** @type {number} */ (line.y[i])));
    }
  }
  if (state.cursor !== null) {
    pen.strokeStyle = tone("--quiet");
    pen.lineWidth = 0.5;
    stroke(pen, [[x.to(state.cursor), TOP], [x.to(state.cursor), height - BOTTOM]]);
  }
  if (state.drag) {
    pen.fillStyle = tone("--select");
    pen.fillRect(x.to(state.drag[0]), TOP, x.to(state.drag[1]) - x.to(state.drag[0]), height - TOP - BOTTOM);
  }
  pen.restore();
  return { x, y };
}

/** @param {CanvasRenderingContext2D} pen @param {number[][]} points */
function stroke(pen, points) {
  pen.beginPath();
  points.forEach(([px, py], i) => (i ? pen.lineTo(px, Math.round(py) + 0.5) : pen.moveTo(px, Math.round(py) + 0.5)));
  pen.stroke();
}

/** @param {CanvasRenderingContext2D} pen @param {Line} line @param {any} x @param {any} y */
function polyline(pen, line, x, y) {
  pen.beginPath();
  let down = false;
  line.x.forEach((value, i) => {
    const own = line.y[i];
    if (own === null || !Number.isFinite(own)) down = false;
    else if (down) pen.lineTo(x.to(value), y.to(own));
    else {
      pen.moveTo(x.to(value), y.to(own));
      down = true;
    }
  });
  pen.stroke();
  if (line.x.length === 1 && line.y[0] !== null) dot(pen, x.to(line.x[0]), y.to(line.y[0]));
}

/** The spread around a line. @param {CanvasRenderingContext2D} pen @param {Line} line @param {any} x @param {any} y */
function band(pen, line, x, y) {
  const known = line.x.map((value, i) => [value, line.low?.[i], line.high?.[i]]).filter(([, a, b]) => a !== null && b !== null);
  pen.globalAlpha = 0.12;
  pen.beginPath();
  known.forEach(([value, low], i) => (i ? pen.lineTo(x.to(value), y.to(low)) : pen.moveTo(x.to(value), y.to(low))));
  known.reverse().forEach(([value, , high]) => pen.lineTo(x.to(value), y.to(high)));
  pen.fill();
  pen.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} pen @param {number} px @param {number} py */
function dot(pen, px, py) {
  pen.beginPath();
  pen.arc(px, py, 3, 0, 7);
  pen.fill();
}
