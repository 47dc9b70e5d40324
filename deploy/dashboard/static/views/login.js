// @ts-check
// The token that the server was started with.

import { session } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";

/** @param {HTMLElement} place @param {() => void} done */
export function login(place, done) {
  const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const said = h("p", { class: "bad", role: "alert" });
  fill(place, h("form", { class: "login", on: { submit: async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await session("POST", { token: input.value });
      done();
    } catch (error) {
      fill(said, /** @type {Error} */ (error).message);
      input.select();
    }
  } } }, h("h1", null, "Palestra"), h("label", null, "Token ", input), h("button", { class: "primary" }, "Open"), said));
  input.focus();
}
