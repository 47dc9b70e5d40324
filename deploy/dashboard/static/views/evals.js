// @ts-check
// Evaluations: pass@1 over steps with its interval, and the tasks whose result changed.

import { get, of } from "../lib/api.js";
import { chart } from "../lib/chart.js";
import { fill, h } from "../lib/dom.js";
import { percent } from "../lib/format.js";
import { link } from "../lib/route.js";
import { message, runHead } from "./frame.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const { points, tasks } = await get(`${of(run)}/evals`, {}, context.signal);
  context.title(`${run}: evaluations`);
  if (!points.length) return fill(place, runHead(run, "evals"), message("No evaluations yet", "A run evaluates before its first step, every rl.eval.freq steps, and at its end."));
  const splits = [...new Set(points.map((/** @type {any} */ own) => own.split))];
  const charts = splits.map((split, tone) => {
    const own = points.filter((/** @type {any} */ point) => point.split === split);
    const column = (/** @type {string} */ name) => own.map((/** @type {any} */ point) => point[name]);
    return chart({ title: `${split}: pass@1 of ${own[0].tasks} tasks`, axis: "step", smoothing: 0, zoom: null, onZoom: () => {}, onCursor: () => {},
      lines: [{ label: String(split), tone, x: column("step"), y: column("pass_at_1"), low: column("low"), high: column("high") }] });
  });
  const steps = [...new Set(points.map((/** @type {any} */ own) => own.step))];
  fill(place, runHead(run, "evals"), h("div", { class: "charts" }, h("div", { class: "grid" }, charts.map((own) => own.element))),
    h("h2", { class: "section" }, "Tasks, those that changed first"),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tasks" }, h("table", { class: "list" },
      h("thead", null, h("tr", null, ["task", "split", ...steps.map((step) => `step ${step}`), "change"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, tasks.map((/** @type {any} */ task) => h("tr", null,
        h("th", { scope: "row" }, h("a", { class: "mono", href: link(["run", run, "trajectories"], { split: task.split, task: task.task_id }) }, task.task_id)),
        h("td", null, task.split), steps.map((step) => h("td", { class: "n" }, percent(task.solved[task.steps.indexOf(step)]))),
        h("td", { class: "n" }, change(task.solved[task.solved.length - 1] - task.solved[0]))))))));
  charts.forEach((own) => own.draw());
}

/** @param {number} value */
const change = (value) => (value ? h("span", { class: value > 0 ? "good" : "bad" }, `${value > 0 ? "+" : "−"}${percent(Math.abs(value))}`) : h("span", { class: "quiet" }, "0"));
