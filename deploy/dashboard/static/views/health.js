// @ts-check
// Must anybody act now? Alerts, detectors of reward hacking, and how each environment goes.

import { get, of } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { number, percent } from "../lib/format.js";
import { link } from "../lib/route.js";
import { behind, runHead } from "./frame.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const health = await get(`${of(run)}/health`, {}, context.signal);
  context.title(`${run}: health`);
  fill(place, runHead(run, "health"), behind(health.progress),
    h("h2", { class: "section" }, "Alerts"),
    health.alerts.length ? h("ul", { class: "alerts" }, health.alerts.map((/** @type {any} */ own) => h("li", { class: own.level },
      h("b", null, own.title), h("span", null, own.why), own.metric ? h("a", { href: link(["run", run], { match: own.metric }) }, "show it") : null)))
      : h("p", { class: "good" }, "✓ Nothing to look at in the last step."),
    h("h2", { class: "section" }, "Detectors of reward hacking"),
    health.detectors.length ? table(["metric", "last", "largest", "at step"], health.detectors.map((/** @type {any} */ own) => [
      h("a", { href: link(["run", run], { match: own.name }) }, own.name), number(own.last), number(own.largest), number(own.at)]))
      : h("p", { class: "quiet" }, "This run has recorded no metric hacking/* or alarm."),
    h("h2", { class: "section" }, "Environments, in the last 10 steps and the last evaluations"),
    health.environments.length ? table(["environment", "split", "episodes", "pass@1", "pass@k", "k", "mixed groups", "uniform groups", "cut off", "no valid call", "tokens", "lost"],
      health.environments.map((/** @type {any} */ own) => [
        h("a", { href: link(["run", run, "trajectories"], { environment: own.environment, split: own.split }) }, own.environment), own.split, number(own.episodes),
        percent(own.pass_at_1), percent(own.pass_at_k), number(own.k), percent(own.mixed), percent(own.uniform), percent(own.clipped), percent(own.errors), number(own.tokens), percent(own.lost)]))
      : h("p", { class: "quiet" }, "No episode has been recorded yet."));
}

/** @param {string[]} heads @param {any[][]} rows */
function table(heads, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads[0] }, h("table", { class: "list" },
    h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell, i) => (i ? h("td", { class: "n" }, cell) : h("th", { scope: "row" }, cell))))))));
}
