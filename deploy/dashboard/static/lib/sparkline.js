// @ts-check
// A line without axes, for a row of a table.

import { h } from "./dom.js";
import { extent, scale } from "./scale.js";

/** @param {(number | null)[]} values */
export function sparkline(values) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null));
  if (known.length < 2) return h("span", { class: "quiet" }, "–");
  const [low, high] = extent(known);
  const x = scale(0, known.length - 1, 1, 89);
  const y = scale(low, high, 21, 3);
  const path = known.map((value, i) => `${i ? "L" : "M"}${x.to(i).toFixed(1)} ${y.to(value).toFixed(1)}`).join("");
  return h("svg", { class: "spark", viewBox: "0 0 90 24", width: 90, height: 24, "aria-hidden": "true" },
    h("path", { d: path }));
}
