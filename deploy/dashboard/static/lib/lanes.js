// @ts-check
// Seconds by phase: one bar per step and lane. The journal says how long each phase of a step took, not
// when within the step; phases stand in the order in which a step goes through them.

import { fill, h } from "./dom.js";
import { duration } from "./format.js";
import { scale } from "./scale.js";

const LANES = [
  ["engine", ["generate"]],
  ["boxes", ["environment", "grade"]],
  ["learner", ["learn", "checkpoint"]],
  ["both", ["sync"]],
  ["nobody", ["idle"]],
];
const ORDER = ["generate", "environment", "grade", "idle", "learn", "checkpoint", "sync"];
const ROW = 22;
const LEFT = 64;
const MOST = 240;

/**
 * @param {{step: number, end: number | null, total: number | null, seconds: Record<string, number | null>}[]} steps
 * @param {[number, number] | null} zoom in steps
 */
export function lanes(steps, zoom) {
  const shown = steps.filter((own) => !zoom || (own.step >= zoom[0] && own.step <= zoom[1])).slice(-MOST);
  const known = new Set(shown.flatMap((own) => Object.keys(own.seconds)));
  const others = [...known].filter((phase) => !ORDER.includes(phase));
  const rows = [...LANES, ...(others.length ? [["other", others]] : [])];
  const total = shown.reduce((sum, own) => sum + spent(own), 0);
  const readout = h("span", { class: "readout" });
  const width = 1000;
  const x = scale(0, total || 1, LEFT, width);
  const bars = [];
  let start = 0;
  for (const own of shown) {
    let at = start;
    for (const phase of [...ORDER, ...others]) {
      const seconds = own.seconds[phase] ?? 0;
      const row = rows.findIndex(([, phases]) => phases.includes(phase));
      if (seconds > 0 && row >= 0) {
        const text = `step ${own.step}: ${phase} ${duration(seconds)}`;
        bars.push(h("rect", {
          class: `phase phase-${ORDER.indexOf(phase) + 1}`, x: x.to(at).toFixed(2), y: row * ROW + 3,
          width: Math.max(0.4, x.to(at + seconds) - x.to(at)).toFixed(2), height: ROW - 6,
          on: { pointerenter: () => fill(readout, text) },
        }));
      }
      at += seconds;
    }
    start += spent(own);
  }
  const labels = rows.map(([name], row) => h("text", { x: 0, y: row * ROW + ROW * 0.68 }, name));
  const sums = [...ORDER, ...others].map((phase) => [phase, shown.reduce((sum, own) => sum + (own.seconds[phase] ?? 0), 0)]);
  return h("figure", { class: "chart wide lanes" },
    h("figcaption", null, h("span", { class: "name" }, "Seconds by phase"), readout),
    shown.length
      ? h("svg", { viewBox: `0 0 ${width} ${rows.length * ROW}`, role: "img", "aria-label": `Seconds by phase of ${shown.length} steps` }, labels, bars)
      : h("p", { class: "quiet" }, "No step has been finished yet."),
    h("ul", { class: "legend" }, sums.filter(([, sum]) => Number(sum) > 0).map(([phase, sum]) =>
      h("li", null, h("i", { class: `swatch phase-${ORDER.indexOf(String(phase)) + 1}` }), `${phase} ${duration(Number(sum))}`,
        h("span", { class: "quiet" }, ` ${Math.round((100 * Number(sum)) / (total || 1))} %`)))));
}

/** @param {{seconds: Record<string, number | null>}} step */
function spent(step) {
  return Object.values(step.seconds).reduce((/** @type {number} */ sum, own) => sum + (own ?? 0), 0);
}
