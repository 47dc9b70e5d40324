// @ts-check
// What the run was told, and what it ran with.

import { get, of } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { runHead } from "./frame.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const run = context.path[1];
  const detail = await get(of(run), {}, context.signal);
  context.title(`${run}: about`);
  const text = (/** @type {string} */ title, /** @type {string} */ own) => [h("h2", { class: "section" }, title), own ? h("pre", { class: "file", tabindex: 0 }, own) : h("p", { class: "quiet" }, "There is none.")];
  fill(place, runHead(run, "about"), h("p", null, `${detail.trajectories.toLocaleString("en")} episodes of training, ${detail.evaluated.toLocaleString("en")} of evaluations.`),
    text("config.toml", detail.config), text("summary.json", detail.summary),
    h("h2", { class: "section" }, "Versions"),
    h("dl", { class: "versions" }, Object.entries(detail.versions).map(([name, value]) => [h("dt", null, name), h("dd", null, value)])));
}
