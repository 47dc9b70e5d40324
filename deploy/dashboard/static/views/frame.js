// @ts-check
// What all views have around them: title, tabs, messages.

import { h } from "../lib/dom.js";
import { link } from "../lib/route.js";

const TABS = [["", "Metrics"], ["trajectories", "Trajectories"], ["groups", "Groups"], ["evals", "Evaluations"], ["health", "Health"], ["about", "About"]];

/** @param {string} run @param {string} current @param {...any} beside */
export function runHead(run, current, ...beside) {
  return h("div", { class: "head" },
    h("nav", { class: "crumbs", "aria-label": "Place" }, h("a", { href: "#/" }, "Runs"), h("span", null, "/"), h("h1", null, run), beside),
    h("nav", { class: "tabs", "aria-label": "Views of the run" }, TABS.map(([path, name]) =>
      h("a", { href: link(path ? ["run", run, path] : ["run", run]), "aria-current": path === current ? "page" : null }, name))));
}

/** @param {string} state */
export const stateBadge = (state) => h("span", { class: `state state-${state}` }, state);

/** @param {string} title @param {string} text */
export const message = (title, text) => h("div", { class: "message", role: "note" }, h("h2", null, title), h("p", null, text));

/** How far the index is, where it is behind. @param {{indexed: number, recorded: number}} progress */
export function behind(progress) {
  if (progress.indexed >= progress.recorded) return null;
  return h("p", { class: "behind", role: "status" },
    `Indexing: ${progress.indexed.toLocaleString("en")} of ${progress.recorded.toLocaleString("en")} episodes; the list grows.`);
}

/** @param {boolean | null} good @param {string} text */
export const mark = (good, text) => h("span", { class: good ? "good" : good === null ? "quiet" : "bad" }, good ? "✓ " : good === null ? "" : "✗ ", text);
