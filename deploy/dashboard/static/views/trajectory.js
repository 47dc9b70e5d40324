// @ts-check
// One episode: what was said, what tools answered, what changed, and what it was worth.

import { get, of } from "../lib/api.js";
import { diff } from "../lib/diff.js";
import { fill, h } from "../lib/dom.js";
import { duration, number, words } from "../lib/format.js";
import { go, link } from "../lib/route.js";
import { mark, runHead } from "./frame.js";
import { showTokens } from "./tokens.js";
import { filterOf } from "./trajectories.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const { id, view } = context.query;
  const filter = filterOf(context.query);
  const [episode, beside] = await Promise.all([
    get(`${of(run)}/trajectory`, { id }, context.signal),
    get(`${of(run)}/neighbours`, { id, ...filter }, context.signal),
  ]);
  context.title(`${run}: ${id}`);
  const to = (/** @type {string} */ other) => link(["run", run, "trajectory"], { ...filter, id: other, view });
  const arrow = (/** @type {string} */ other, /** @type {string} */ text, /** @type {string} */ key) =>
    other ? h("a", { class: "button", href: to(other), "aria-keyshortcuts": key, title: `key ${key}` }, text) : h("span", { class: "button off" }, text);
  const content = h("div", { class: "content" });
  fill(place, runHead(run, "trajectories"),
    h("div", { class: "episode-head" },
      h("h2", { class: "mono" }, episode.id),
      h("nav", { class: "arrows", "aria-label": "Other episodes" },
        arrow(beside.previous, "← previous", "k"), arrow(beside.next, "next →", "j"),
        arrow(beside.previous_failing, "← failing", "p"), arrow(beside.next_failing, "failing →", "n"))),
    h("div", { class: "split" },
      h("div", null, h("nav", { class: "tabs small", "aria-label": "Ways to read it" },
        ["conversation", "tokens"].map((own) => h("a", { href: link(["run", run, "trajectory"], { ...filter, id, view: own === "conversation" ? "" : own }), "aria-current": (view || "conversation") === own ? "page" : null, "aria-keyshortcuts": "t" }, own))), content),
      facts(run, episode)));
  context.keys({
    k: () => beside.previous && (location.hash = to(beside.previous)), j: () => beside.next && (location.hash = to(beside.next)),
    p: () => beside.previous_failing && (location.hash = to(beside.previous_failing)), n: () => beside.next_failing && (location.hash = to(beside.next_failing)),
    t: () => go(["run", run, "trajectory"], { ...filter, id, view: view === "tokens" ? "" : "tokens" }),
  });
  if (view === "tokens") await showTokens(content, run, id, context);
  else fill(content, conversation(episode));
}

/** @param {any} episode */
function conversation(episode) {
  return [
    episode.prompt.map((/** @type {any} */ own) => bubble(own.role, own.content, own.calls, [])),
    episode.turns.map((/** @type {any} */ turn) => [
      bubble("assistant", turn.content, turn.calls, [`reply ${turn.number}`, `${number(turn.tokens)} tokens`, turn.mean_logprob === null ? "" : `mean log-probability ${number(turn.mean_logprob)}`, `weights ${turn.version}`]),
      turn.error ? bubble("error", turn.error, [], ["no valid call"]) : null,
      turn.observation || turn.elided ? bubble("tool", turn.observation, [], [turn.elided ? `${number(turn.elided)} bytes left out` : ""]) : null,
    ]),
    episode.patch ? h("section", { class: "patch" }, h("h3", null, "What it changed"), diff(episode.patch)) : null,
  ];
}

/** @param {string} role @param {string} text @param {any[]} calls @param {string[]} beside */
function bubble(role, text, calls, beside) {
  return h("article", { class: `bubble ${role}` },
    h("header", null, h("b", null, role), beside.filter(Boolean).map((own) => h("span", { class: "quiet" }, own))),
    text.trim() ? h("pre", null, text) : null,
    calls.map((call) => h("div", { class: "call" }, h("span", { class: "mono name" }, call.name),
      h("dl", null, Object.entries(call.arguments).map(([name, value]) => [h("dt", null, name), h("dd", null, h("pre", null, value))])))));
}

/** @param {string} run @param {any} own */
function facts(run, own) {
  const failed = own.checks.filter((/** @type {any} */ check) => !check.passed);
  const pair = (/** @type {string} */ name, /** @type {any} */ value) => [h("dt", null, name), h("dd", null, value)];
  const signed = (/** @type {number | null} */ value) => `${value !== null && value > 0 ? "+" : ""}${number(value)}`;
  return h("aside", { class: "facts", "aria-label": "Result" },
    h("section", null, h("h3", null, "Result"), h("p", { class: "verdict" }, own.reward === null ? words(own.outcome) : mark(own.solved, own.solved ? "solved" : "failed")),
      h("dl", null, pair("ended", words(own.stop)), pair("outcome", words(own.outcome)), pair("task", own.task_id),
        pair("group", own.split === "train" ? h("a", { href: link(["run", run, "groups"], { step: own.step, group: own.group_id }) }, own.group_id) : own.group_id),
        pair("split, step", `${own.split}, ${own.step}`), pair("tokens", number(own.tokens)), pair("temperature", number(own.temperature)),
        Object.entries(own.seconds).map(([name, value]) => pair(name, duration(/** @type {number} */ (value))))),
      own.reason ? h("pre", { class: "reason" }, own.reason) : null),
    h("section", null, h("h3", null, "Reward"),
      h("dl", null, Object.entries(own.parts).map(([name, value]) => pair(name, number(/** @type {number} */ (value)))),
        pair("total", h("b", null, number(own.reward))),
        Object.entries(own.shaping).map(([name, value]) => pair(`shaped by ${name}`, signed(/** @type {number} */ (value)))),
        own.shaped !== own.reward ? pair("learned from", number(own.shaped)) : null, pair("advantage", signed(own.advantage)),
        Object.entries(own.verifier).map(([name, value]) => pair(`verifier: ${name}`, number(/** @type {number} */ (value)))))),
    h("section", null, h("h3", null, `Hidden checks: ${own.checks.length - failed.length} of ${own.checks.length}`),
      own.verdict ? h("pre", { class: "reason" }, own.verdict) : null,
      h("ul", { class: "checks" }, own.checks.slice(0, 200).map((/** @type {any} */ check) => h("li", null, mark(check.passed, check.id))))),
    own.notes.map((/** @type {any} */ note) => h("section", null, h("h3", null, note.title), h("pre", { class: "reason" }, note.text))));
}
