// @ts-check
// Charts of one run, or of up to eight on top of each other, and where the time went.

import { get, of } from "../lib/api.js";
import { chart } from "../lib/chart.js";
import { fill, h } from "../lib/dom.js";
import { lanes } from "../lib/lanes.js";
import { link, refine } from "../lib/route.js";
import { message, runHead, stateBadge } from "./frame.js";

/** What is shown first, by what it is about. @type {[string, string[]][]} */
const SECTIONS = [
  ["Learning", ["reward/mean", "pass_rate", "reward/zero_std_frac", "response_length/mean", "response_length/clip_ratio", "num_turns/mean", "tools/failure_rate"]],
  ["Policy", ["actor/entropy", "actor/ppo_kl", "actor/grad_norm", "actor/pg_clipfrac", "actor/pg_loss", "actor/lr", "actor/kl_loss", "rollout/temperature"]],
  ["Engine and learner", ["mismatch/logprob_abs_diff", "mismatch/kl", "mismatch/probe_mean"]],
  ["Judge", ["judge/first_frac", "judge/contradiction_frac", "judge/length_corr", "judge/calls", "judge/abstained", "judge/over_budget", "critic/accuracy"]],
  ["Cost of a point of reward", ["cost/tokens_per_reward", "cost/seconds_per_reward", "judge/input_tokens", "judge/output_tokens"]],
  ["Toggle", ["toggle/phase", "toggle/budget/mean", "toggle/over_budget_frac", "shaping/toggle/mean"]],
  ["Machine", ["perf/throughput", "timing_s/step", "infra/failure_frac", "task/failure_frac", "sandbox/leased", "sandbox/wait_s", "memory/engine_device_bytes", "memory/engine_rss_bytes", "memory/learner_rss_bytes"]],
];

/** What a section's numbers mean, where their names do not say it. @type {Record<string, string>} */
const NOTES = {
  Judge: "Every pair is shown in both orders: a fair judge chooses the first as often as the second (0.5), contradicts itself never (0), and does not go by length (0).",
  "Cost of a point of reward": "Tokens that the policy generated and judges read and wrote, and seconds of the whole step, by the sum of the step's rewards before shaping. Steps without reward have none.",
};

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const names = context.path[0] === "compare" ? (context.query.runs ?? "").split(",").filter(Boolean).slice(0, 8) : [context.path[1]];
  const details = await Promise.all(names.map((run) => get(of(run), {}, context.signal)));
  const single = context.path[0] === "run";
  context.title(names.join(", "));
  const settings = {
    axis: context.query.axis === "time" ? "time" : "step",
    smoothing: Math.min(0.98, Math.max(0, Number(context.query.smooth) || 0)),
    zoom: range(context.query.zoom),
    match: context.query.match ?? "",
    spread: context.query.spread === "yes",
  };
  const known = [...new Set(details.flatMap((detail) => detail.metrics))].sort();
  const head = single
    ? runHead(names[0], "", stateBadge(details[0].run.state), h("span", { class: "quiet" }, progress(details[0].run)))
    : h("div", { class: "head" }, h("nav", { class: "crumbs" }, h("a", { href: "#/" }, "Runs"), h("span", null, "/"), h("h1", null, "Compare")),
      h("ul", { class: "legend" }, names.map((run, i) => h("li", null, h("i", { class: `swatch line tone-${i}` }), h("a", { href: link(["run", run]) }, run), stateBadge(details[i].run.state)))));
  const charts = h("div", { class: "charts" });
  fill(place, head, problems(details), known.length ? controls(settings, context) : message("No metrics yet", "They appear here when the first step is finished."), charts);
  await draw(charts, names, known, settings, context, single);
}

/** @param {any} run */
const progress = (run) => (run.step === null ? "no step finished" : `step ${run.step}${run.steps ? ` of ${run.steps}` : ""}`);

/** @param {any[]} details */
const problems = (details) => details.filter((detail) => detail.run.problem).map((detail) => h("p", { class: "warning" }, `${detail.run.name}: ${detail.run.problem}`));

/** @param {string | undefined} text @returns {[number, number] | null} */
function range(text) {
  const ends = (text ?? "").split("..").map(Number);
  return ends.length === 2 && ends.every(Number.isFinite) && ends[0] < ends[1] ? [ends[0], ends[1]] : null;
}

/** @param {any} settings @param {import("../main.js").Context} context */
function controls(settings, context) {
  const set = (/** @type {Record<string, any>} */ changes) => { refine(changes); context.again(); };
  const smoothing = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: settings.smoothing, on: { change: () => set({ smooth: smoothing.value === "0" ? "" : smoothing.value }) } });
  const axis = h("select", { on: { change: () => set({ axis: axis.value === "step" ? "" : axis.value, zoom: "" }) } },
    ["step", "time"].map((own) => h("option", { value: own, selected: own === settings.axis }, own)));
  const match = h("input", { type: "search", placeholder: "metric, e.g. entropy", value: settings.match, on: { change: () => set({ match: match.value }) } });
  const spread = h("input", { type: "checkbox", checked: settings.spread, on: { change: () => set({ spread: spread.checked ? "yes" : "" }) } });
  return h("form", { class: "controls", on: { submit: (/** @type {Event} */ event) => event.preventDefault() } },
    h("label", null, "Show ", match), h("label", null, "Smoothing ", smoothing), h("label", null, "Axis ", axis), h("label", { title: "reward/mean ± reward/std" }, spread, " Spread"),
    settings.zoom ? h("button", { type: "button", on: { click: () => set({ zoom: "" }) } }, "Show all steps") : h("span", { class: "quiet" }, "drag over a chart to zoom"));
}

/** @param {HTMLElement} place @param {string[]} runs @param {string[]} known @param {any} settings @param {import("../main.js").Context} context @param {boolean} single */
async function draw(place, runs, known, settings, context, single) {
  const sections = sectionsOf(known, settings.match);
  const wanted = [...new Set(sections.flatMap(([, names]) => names)), ...(settings.spread && known.includes("reward/std") ? ["reward/std"] : [])].slice(0, 200);
  if (!wanted.length) return;
  const bySteps = settings.zoom && settings.axis === "step" ? { first: Math.floor(settings.zoom[0]), last: Math.ceil(settings.zoom[1]) } : {};
  const [{ series }, timeline] = await Promise.all([
    get("/metrics", { runs, names: wanted, points: 600, ...bySteps }, context.signal),
    single && !settings.match ? get(`${of(runs[0])}/timeline`, {}, context.signal) : null,
  ]);
  /** @type {ReturnType<typeof chart>[]} */
  const made = [];
  const onCursor = (/** @type {number | null} */ x) => made.forEach((own) => own.setCursor(x));
  const onZoom = (/** @type {[number, number] | null} */ to) => {
    refine({ zoom: to ? to.map((end) => Number(end.toFixed(2))).join("..") : "" });
    context.again();
  };
  for (const [title, names] of sections) {
    const own = names.map((name) => {
      const lines = runs.map((run, tone) => line(series, run, name, tone, settings)).filter((found) => found !== null);
      const figure = chart({ title: name, lines, axis: settings.axis, smoothing: settings.smoothing, zoom: settings.zoom, onZoom, onCursor });
      made.push(figure);
      return figure.element;
    });
    place.append(h("h2", { class: "section" }, title), NOTES[title] ? h("p", { class: "quiet" }, NOTES[title]) : "", h("div", { class: "grid" }, own));
    if (title === "Learning" && timeline) place.append(lanes(timeline.steps, settings.axis === "step" ? settings.zoom : null));
  }
  made.forEach((own) => own.draw());
  const resized = new ResizeObserver(() => made.forEach((own) => own.draw()));
  resized.observe(place);
  context.leave(() => resized.disconnect());
}

/** @param {string[]} known @param {string} match @returns {[string, string[]][]} */
function sectionsOf(known, match) {
  if (match) return [[`Metrics with “${match}”`, known.filter((name) => name.toLowerCase().includes(match.toLowerCase())).slice(0, 60)]];
  const found = SECTIONS.map(([title, names]) => [title, /** @type {string[]} */ (names).filter((name) => known.includes(name))]);
  const hacking = known.filter((name) => name.startsWith("hacking/") || name.split("/").includes("alarm"));
  const parts = known.filter((name) => /^reward\/.+\/mean$/.test(name));
  return /** @type {[string, string[]][]} */ ([...found, ["Reward parts", parts.length > 1 ? parts : []], ["Detectors", hacking]]).filter(([, names]) => names.length);
}

/** @param {any[]} series @param {string} run @param {string} name @param {number} tone @param {any} settings */
function line(series, run, name, tone, { axis, spread: wanted }) {
  const found = series.find((own) => own.run === run && own.name === name);
  if (!found) return null;
  const spread = wanted && name === "reward/mean" ? series.find((own) => own.run === run && own.name === "reward/std") : null;
  const by = new Map((spread?.steps ?? []).map((/** @type {number} */ step, /** @type {number} */ i) => [step, spread.values[i]]));
  const edge = (/** @type {number} */ sign) => found.values.map((/** @type {number | null} */ value, /** @type {number} */ i) => {
    const own = by.get(found.steps[i]);
    return value === null || own === undefined || own === null ? null : value + sign * own;
  });
  const x = axis === "time" ? found.times.map((/** @type {number | null} */ at) => at ?? NaN) : found.steps;
  return { label: run, tone, x, y: found.values, ...(spread ? { low: edge(-1), high: edge(1) } : {}) };
}
