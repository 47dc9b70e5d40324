// @ts-check
// A unified diff as lines, each with its kind.

import { h } from "./dom.js";

/** @param {string} line */
export function kind(line) {
  if (/^(\+\+\+|---|diff |index |new file|deleted file|old mode|new mode)/.test(line)) return "head";
  if (line.startsWith("@@")) return "where";
  if (line.startsWith("+")) return "plus";
  if (line.startsWith("-")) return "minus";
  return "same";
}

/** @param {string} text */
export function diff(text) {
  return h("pre", { class: "diff", tabindex: 0 }, text.split("\n").map((line) => h("span", { class: kind(line) }, `${line}\n`)));
}
