// @ts-check
// The tokens of an episode, coloured.

import { get, of } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { link, refine } from "../lib/route.js";
import { BUCKETS, SCALES, flat, inspector, tokenView } from "../lib/tokens.js";

/** @param {HTMLElement} place @param {string} run @param {string} id @param {import("../main.js").Context} context */
export async function showTokens(place, run, id, context) {
  const view = await get(`${of(run)}/tokens`, { id }, context.signal);
  const tokens = flat(view);
  const versions = [...new Set(view.segments.map((/** @type {any} */ own) => own.version))].sort((a, b) => a - b);
  const about = h("p", { class: "inspector", role: "status", "aria-live": "polite" }, "Choose a token: click, or the left and right keys.");
  const shown = tokenView(tokens, { advantage: view.advantage, versions }, (token, index) => inspector(about, token, index, view.advantage));
  const legend = h("span", { class: "heat-legend" });
  const colour = (/** @type {string} */ name) => {
    const scale = SCALES[/** @type {keyof typeof SCALES} */ (name)];
    const kind = name === "advantage" ? "sign" : "level";
    fill(legend, scale.ends[0], name === "advantage" ? [h("i", { class: "heat sign-7" }), h("i", { class: "heat sign-0" })]
      : Array.from({ length: BUCKETS }, (_, i) => h("i", { class: `heat ${kind}-${i}` })), scale.ends[1]);
    shown.show(name);
  };
  const absent = (/** @type {string} */ name) => name === "ratio" && !view.compared.includes(id);
  const wanted = context.query.colour ?? "";
  const chosen = wanted in SCALES && !absent(wanted) ? wanted : "log-probability";
  const select = h("select", { on: { change: () => { refine({ colour: select.value }); colour(select.value); } } },
    Object.keys(SCALES).map((name) => h("option", { value: name, selected: name === chosen, disabled: absent(name) }, absent(name) ? "ratio (not kept)" : name)));
  const compared = absent("ratio") && view.compared.length ? h("span", { class: "quiet" }, "ratio kept for ",
    view.compared.slice(0, 8).map((/** @type {string} */ other) => [h("a", { href: link(["run", run, "trajectory"], { id: other, view: "tokens", colour: "ratio" }) }, other), " "])) : null;
  fill(place,
    h("div", { class: "controls sticky" }, h("label", null, "Colour ", select), legend,
      h("button", { type: "button", on: { click: () => shown.surprise(-1) } }, "← surprise"), h("button", { type: "button", on: { click: () => shown.surprise(1) } }, "surprise →"),
      view.decoded ? null : h("span", { class: "quiet" }, "the run has no tokenizer: ids are shown"), compared, about),
    shown.element);
  colour(chosen);
  context.leave(shown.close);
}
