// @ts-check
// Episodes: filters, search, pages.

import { get, of } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { number, words } from "../lib/format.js";
import { link, refine } from "../lib/route.js";
import { behind, mark, runHead } from "./frame.js";

export const FILTERS = ["q", "split", "environment", "task", "group", "step", "outcome", "stop", "solved", "reward_min", "reward_max", "errors"];
const SORTS = [["newest", "newest first"], ["oldest", "oldest first"], ["reward", "least reward first"], ["-reward", "most reward first"], ["tokens", "shortest first"], ["-tokens", "longest first"]];

/** The filters of an address. @param {Record<string, string>} query */
export const filterOf = (query) => Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const results = h("div", { class: "results" });
  const facets = await get(`${of(run)}/facets`, {}, context.signal);
  const form = filters(context, facets, () => list(results, run, context).catch((error) => {
    if (!context.signal.aborted) fill(results, h("p", { class: "bad", role: "alert" }, error.message));
  }));
  fill(place, runHead(run, "trajectories"), form, results);
  context.title(`${run}: trajectories`);
  await list(results, run, context);
}

/** @param {import("../main.js").Context} context @param {any} facets @param {() => void} changed */
function filters(context, facets, changed) {
  const query = context.query;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const set = (/** @type {string} */ name, /** @type {string} */ value, wait = 0) => {
    context.query[name] = value;
    refine({ [name]: value });
    clearTimeout(timer);
    timer = setTimeout(changed, wait);
  };
  const counted = (/** @type {string} */ name) => {
    const counts = new Map();
    for (const facet of facets.facets) counts.set(String(facet[name]), (counts.get(String(facet[name])) ?? 0) + facet.count);
    return [...counts].sort(([a], [b]) => a.localeCompare(b));
  };
  const select = (/** @type {string} */ name, /** @type {string} */ label, /** @type {[string, string][]} */ options) => {
    const made = h("select", { on: { change: () => set(name, made.value) } },
      name === "sort" ? null : h("option", { value: "" }, "any"),
      options.map(([value, text]) => h("option", { value, selected: query[name] === value }, text)));
    return h("label", null, `${label} `, made);
  };
  const text = (/** @type {string} */ name, /** @type {string} */ label, /** @type {Record<string, any>} */ props) => {
    const made = h("input", { ...props, value: query[name] ?? "", on: { input: () => set(name, made.value, 250) } });
    return h("label", null, `${label} `, made);
  };
  const option = (/** @type {[string, number]} */ [value, count]) => /** @type {[string, string]} */ ([value, `${words(value)} (${count.toLocaleString("en")})`]);
  return h("form", { class: "controls", role: "search", on: { submit: (/** @type {Event} */ event) => event.preventDefault() } },
    text("q", "Search", { type: "search", placeholder: "words in the episode", class: "wide", data: { key: "search" } }),
    select("split", "Split", counted("split").map(option)),
    select("environment", "Environment", counted("environment").map(option)),
    select("stop", "Ended", counted("stop").map(option)),
    select("outcome", "Outcome", counted("outcome").map(option)),
    select("solved", "Solved", [["true", "yes"], ["false", "no"]]),
    text("task", "Task", { type: "text", placeholder: "begins with" }),
    text("step", "Step", { type: "number", class: "short" }),
    text("reward_min", "Reward from", { type: "number", step: "any", class: "short" }),
    text("reward_max", "to", { type: "number", step: "any", class: "short" }),
    select("sort", "Order", /** @type {[string, string][]} */ (SORTS)),
    query.group ? h("a", { class: "chip", href: link(context.path, { ...query, group: "" }) }, `group ${query.group} ✕`) : null);
}

/** @param {HTMLElement} place @param {string} run @param {import("../main.js").Context} context */
async function list(place, run, context) {
  const filter = filterOf(context.query);
  const ask = (/** @type {string} */ cursor) => get(`${of(run)}/trajectories`, { ...filter, sort: context.query.sort, cursor, limit: 100 }, context.signal);
  const turn = String(Number(place.dataset.turn ?? 0) + 1);
  place.dataset.turn = turn;
  const page = await ask("");
  if (place.dataset.turn !== turn) return; // the filter has changed meanwhile
  const body = h("tbody", null, page.episodes.map((/** @type {any} */ own) => row(run, own, filter)));
  const more = h("button", { type: "button", on: { click: () => next() } }, "Show more");
  let cursor = page.cursor;
  const next = async () => {
    const following = await ask(cursor);
    cursor = following.cursor;
    body.append(...following.episodes.map((/** @type {any} */ own) => row(run, own, filter)));
    more.hidden = !cursor;
  };
  more.hidden = !cursor;
  fill(place, behind(page.progress),
    h("p", { class: "quiet count", role: "status" }, `${page.total.toLocaleString("en")} ${page.total === 1 ? "episode" : "episodes"}`),
    page.total ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Episodes" }, h("table", { class: "list episodes" },
      h("thead", null, h("tr", null, ["episode", "task", "step", "result", "reward", "ended", "turns", "tokens", "what was said last"].map((name) => h("th", { scope: "col" }, name)))),
      body)) : h("p", null, "No episode matches."), more);
}

/** @param {string} run @param {any} own @param {Record<string, string>} filter */
function row(run, own, filter) {
  return h("tr", { class: own.solved ? null : "failed" },
    h("th", { scope: "row" }, h("a", { class: "mono row", href: link(["run", run, "trajectory"], { id: own.id, ...filter }) }, own.id)),
    h("td", { class: "clip" }, own.task_id), h("td", { class: "n" }, own.step),
    h("td", null, own.reward === null ? h("span", { class: "quiet" }, words(own.outcome)) : mark(own.solved, own.solved ? "solved" : "failed")),
    h("td", { class: "n" }, number(own.reward)), h("td", null, words(own.stop)), h("td", { class: "n" }, own.turns),
    h("td", { class: "n" }, number(own.tokens)), h("td", { class: "clip quiet" }, own.preview));
}
