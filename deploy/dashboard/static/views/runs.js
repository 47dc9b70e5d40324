// @ts-check
// All runs side by side.

import { get } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { ago, duration, number, percent } from "../lib/format.js";
import { go, link } from "../lib/route.js";
import { sparkline } from "../lib/sparkline.js";
import { message, stateBadge } from "./frame.js";

const MOST = 8;
const COLUMNS = [
  ["pass", "pass_rate", percent], ["length", "response_length/mean", number], ["entropy", "actor/entropy", number],
  ["KL", "actor/ppo_kl", number], ["mismatch", "mismatch/logprob_abs_diff", number], ["clipped", "actor/pg_clipfrac", percent],
  ["lost", "infra/failure_frac", percent], ["tok/s", "perf/throughput", number],
];

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const list = await get("/runs", {}, context.signal);
  context.title(list.folder);
  /** @type {Set<string>} */
  const chosen = new Set((context.query.chosen ?? "").split(",").filter(Boolean));
  const compare = h("button", { type: "button", class: "primary", on: { click: () => go(["compare"], { runs: [...chosen].join(",") }) } });
  const state = () => {
    compare.disabled = chosen.size < 2;
    fill(compare, chosen.size < 2 ? "Compare: choose two or more" : `Compare ${chosen.size} runs`);
    for (const box of place.querySelectorAll("input[type=checkbox]")) {
      const own = /** @type {HTMLInputElement} */ (box);
      own.disabled = !own.checked && chosen.size >= MOST;
    }
  };
  if (!list.runs.length) {
    fill(place, message("No runs yet", `The folder ${list.folder} holds no run. Start one: palestra train recipes/tiny.toml`));
    return;
  }
  fill(place,
    h("div", { class: "head" }, h("nav", { class: "crumbs" }, h("h1", null, "Runs"), h("span", { class: "quiet" }, list.folder), compare)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs" }, h("table", { class: "list runs" },
      h("thead", null, h("tr", null, ["", "run", "state", "step", "reward", ""].map(column), COLUMNS.map(([name]) => column(name)), ["time", "last step"].map(column))),
      h("tbody", null, list.runs.map((/** @type {any} */ run) => row(run, chosen, state))))));
  state();
}

/** @param {any} name */
const column = (name) => h("th", { scope: "col" }, name || h("span", { class: "sr" }, "more"));

/** @param {any} run @param {Set<string>} chosen @param {() => void} state */
function row(run, chosen, state) {
  const box = h("input", {
    type: "checkbox", "aria-label": `Compare ${run.name}`, checked: chosen.has(run.name),
    on: { change: () => { if (box.checked) chosen.add(run.name); else chosen.delete(run.name); state(); } },
  });
  const latest = run.latest;
  return h("tr", null,
    h("td", null, box),
    h("th", { scope: "row" }, h("a", { href: link(["run", run.name]) }, run.name), run.problem ? h("div", { class: "problem" }, run.problem) : null),
    h("td", null, stateBadge(run.state)),
    h("td", { class: "n" }, run.step === null ? "–" : run.steps ? `${run.step} / ${run.steps}` : run.step),
    h("td", { class: "n" }, number(latest["reward/mean"]), h("span", { class: "quiet" }, latest["reward/std"] === undefined ? "" : ` ± ${number(latest["reward/std"])}`)),
    h("td", null, sparkline(run.rewards)),
    COLUMNS.map(([, name, format]) => h("td", { class: "n" }, /** @type {any} */ (format)(latest[/** @type {string} */ (name)]))),
    h("td", { class: "n" }, duration(run.wall_s)), h("td", { class: "n quiet" }, ago(run.updated)));
}
