// @ts-check
// The groups of a step: which of them teach, and what each episode's advantage is.

import { get, of } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { number, words } from "../lib/format.js";
import { go, link } from "../lib/route.js";
import { behind, mark, message, runHead } from "./frame.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const { steps } = await get(`${of(run)}/facets`, {}, context.signal);
  context.title(`${run}: groups`);
  if (!steps.length) return fill(place, runHead(run, "groups"), message("No groups yet", "They appear here when the first episodes are recorded."));
  const step = context.query.step ? Number(context.query.step) : steps[steps.length - 1];
  const at = steps.indexOf(step);
  const found = await get(`${of(run)}/groups`, { step }, context.signal);
  const teaching = found.groups.filter((/** @type {any} */ group) => group.teaches).length;
  const to = (/** @type {number} */ i) => { if (steps[i] !== undefined) go(context.path, { step: steps[i] }); };
  const select = h("select", { on: { change: () => go(context.path, { step: select.value }) } }, steps.map((/** @type {number} */ own) => h("option", { selected: own === step }, own)));
  fill(place, runHead(run, "groups"), behind(found.progress),
    h("div", { class: "controls" }, h("button", { type: "button", "aria-keyshortcuts": "k", on: { click: () => to(at - 1) } }, "←"), h("label", null, "Step ", select),
      h("button", { type: "button", "aria-keyshortcuts": "j", on: { click: () => to(at + 1) } }, "→"),
      h("span", { class: "quiet" }, `${teaching} of ${found.groups.length} groups teach something; advantages: ${words(found.estimator)}${found.by_std ? ", by standard deviation" : ""}${found.whitened ? ", before they are made white over the batch" : ""}`)),
    h("div", { class: "groups" }, found.groups.map((/** @type {any} */ group) => card(run, group, context.query.group))));
  context.keys({ k: () => to(at - 1), j: () => to(at + 1) });
  place.querySelector(".card.chosen")?.scrollIntoView({ block: "center" });
}

/** @param {string} run @param {any} group @param {string | undefined} chosen */
function card(run, group, chosen) {
  return h("section", { class: `card ${group.id === chosen ? "chosen" : ""} ${group.teaches ? "" : "flat"}` },
    h("h3", null, h("span", { class: "mono" }, group.id), h("span", { class: "quiet clip" }, group.task_id), group.teaches ? null : h("span", { class: "state" }, "teaches nothing")),
    h("table", { class: "list" },
      h("thead", null, h("tr", null, ["episode", "result", "reward", "shaped", "advantage", "ended", "tokens"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, group.siblings.map((/** @type {any} */ own) => h("tr", null,
        h("th", { scope: "row" }, h("a", { class: "mono row", href: link(["run", run, "trajectory"], { id: own.episode.id }) }, own.episode.id)),
        h("td", null, own.episode.reward === null ? h("span", { class: "quiet" }, words(own.episode.outcome)) : mark(own.episode.solved, own.episode.solved ? "solved" : "failed")),
        h("td", { class: "n" }, number(own.episode.reward)), h("td", { class: "n" }, own.shaped === own.episode.reward ? h("span", { class: "quiet" }, "–") : number(own.shaped)),
        h("td", { class: "n" }, advantage(own.advantage)), h("td", null, words(own.episode.stop)), h("td", { class: "n" }, number(own.episode.tokens)))))));
}

/** @param {number | null} value */
function advantage(value) {
  if (!value) return number(value);
  return h("span", { class: value > 0 ? "good" : "bad" }, `${value > 0 ? "+" : "−"}${number(Math.abs(value))}`);
}
