// @ts-check
// From the address to a view; keys; live updates; what to say when something fails.

import { ApiError, follow, get } from "./lib/api.js";
import { fill, h } from "./lib/dom.js";
import { here, link } from "./lib/route.js";
import * as about from "./views/about.js";
import * as api from "./views/api.js";
import * as evals from "./views/evals.js";
import { message } from "./views/frame.js";
import * as groups from "./views/groups.js";
import * as health from "./views/health.js";
import { login } from "./views/login.js";
import * as metrics from "./views/metrics.js";
import * as runs from "./views/runs.js";
import * as trajectories from "./views/trajectories.js";
import * as trajectory from "./views/trajectory.js";

/**
 * What a view knows of where it is, and what it may ask for.
 * @typedef {{path: string[], query: Record<string, string>, signal: AbortSignal, title: (text: string) => void,
 *   again: () => void, keys: (own: Record<string, () => void>) => void, leave: (what: () => void) => void}} Context
 */

/** @type {Record<string, {show: (place: HTMLElement, context: Context) => Promise<void>}>} */
const RUN = { "": metrics, trajectories, trajectory, groups, evals, health, about };
/** Views of one record that is done: nothing in them changes while it is read. */
const STILL = new Set(["trajectory", "about", "api"]);
const HELP = [["/", "search"], ["j k", "next, previous"], ["n p", "next, previous failing"], ["t", "tokens or conversation"], ["g r", "all runs"], ["?", "these keys"], ["Escape", "close; show all steps"]];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const live = /** @type {HTMLElement} */ (document.getElementById("live"));
const connection = h("span", { class: "connection" });
/** @type {{stop: AbortController, leave: (() => void)[], keys: Record<string, () => void>} | null} */
let current = null;
let pending = false;

/** @param {string[]} path */
function viewOf(path) {
  if (!path.length) return runs;
  if (path[0] === "api") return api;
  if (path[0] === "compare") return metrics;
  return path[0] === "run" && path.length <= 3 ? RUN[path[2] ?? ""] : undefined;
}

/** Show what the address says; `quiet` keeps what is on the screen until the new is there. */
async function show(quiet = false) {
  const { path, query } = here();
  const view = viewOf(path);
  current?.stop.abort();
  current?.leave.forEach((own) => own());
  const keys = quiet && current ? current.keys : {}; // until the new view says which it has
  const own = { stop: new AbortController(), leave: /** @type {(() => void)[]} */ ([]), keys };
  current = own;
  const place = h("div", { class: "view" });
  /** @type {Context} */
  const context = {
    path, query, signal: own.stop.signal, again: () => show(true),
    title: (text) => { document.title = text ? `${text} · Palestra` : "Palestra"; },
    keys: (keys) => { own.keys = keys; }, leave: (what) => { own.leave.push(what); },
  };
  const scrolled = scrollY;
  if (quiet) {
    place.classList.add("coming"); // laid out, as charts need their size, but not seen yet
    main.append(place);
  } else {
    main.replaceChildren(place);
    scrollTo(0, 0);
  }
  main.setAttribute("aria-busy", "true");
  try {
    if (view) await view.show(place, context);
    else fill(place, message("No such page", "The address leads nowhere. Go to the list of runs."));
  } catch (error) {
    if (own.stop.signal.aborted) return place.remove();
    if (error instanceof ApiError && error.status === 401) return login(main, start);
    if (quiet && !(error instanceof ApiError)) return place.remove(); // offline: what is there stays
    fill(place, failed(error));
  }
  if (current !== own) return place.remove();
  main.setAttribute("aria-busy", "false");
  if (quiet) swap(place, scrolled);
}

/** Put a new view in the place of the old; what has the focus keeps it. @param {HTMLElement} place @param {number} scrolled */
function swap(place, scrolled) {
  const held = main.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : null;
  place.classList.remove("coming");
  main.replaceChildren(place);
  scrollTo(0, scrolled);
  if (held) /** @type {HTMLElement | null} */ (place.querySelector(`a[href="${CSS.escape(held)}"]`))?.focus({ preventScroll: true });
}

/** @param {unknown} error */
function failed(error) {
  if (!(error instanceof ApiError)) return message("The server does not answer", "Is palestra dashboard still running? The page goes on by itself when it is back.");
  if (error.status === 409) return message("The run cannot be read", error.message);
  if (error.status === 404) return message("Not found", `There is ${error.message} in this folder.`);
  return message("That did not work", error.message);
}

function top() {
  const theme = h("button", { type: "button", "aria-label": "Dark or light", title: "dark or light", on: { click: () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    setTheme(dark ? "light" : "dark");
    show(true);
  } } }, "◐");
  const keys = h("button", { type: "button", "aria-label": "Keys", title: "keys", on: { click: help } }, "?");
  fill(/** @type {HTMLElement} */ (document.getElementById("top")),
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/static/icon.svg", alt: "", width: 18, height: 18 }), "Palestra"), connection,
    h("nav", { "aria-label": "Everywhere" }, h("a", { href: "#/" }, "Runs"), h("a", { href: link(["api"]) }, "API"), theme, keys));
}

/** @param {string} name */
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

function help() {
  document.querySelector("dialog")?.remove();
  const dialog = h("dialog", { "aria-label": "Keys" }, h("h2", null, "Keys"), h("dl", null, HELP.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])), h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}

let before = "";
document.addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const search = /** @type {HTMLElement | null} */ (document.querySelector('[data-key="search"]'));
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "?") help();
  else if (before === "g" && event.key === "r") location.hash = "#/";
  else if (current && event.key in current.keys) current.keys[event.key]();
  else if ((event.key === "j" || event.key === "k") && main.querySelector("a.row, .runs a")) walk(event.key === "j" ? 1 : -1);
  before = event.key;
});

/** From row to row of a list. @param {number} way */
function walk(way) {
  const rows = /** @type {HTMLElement[]} */ ([...main.querySelectorAll("a.row, .runs tbody th a")]);
  const at = rows.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  rows[Math.max(0, Math.min(rows.length - 1, at + way))]?.focus();
}

/** @param {string | null} run */
function changed(run) {
  const { path, query } = here();
  const named = path[0] === "run" ? [path[1]] : path[0] === "compare" ? (query.runs ?? "").split(",") : null;
  if ((run !== null && named && !named.includes(run)) || (STILL.has(path[2] ?? path[0] ?? "") && main.querySelector(".head"))) return;
  if (pending || main.querySelector("input:focus, select:focus, details[open]")) return; // do not take away what is in use
  pending = true;
  setTimeout(() => {
    pending = false;
    show(true).then(() => fill(live, "Updated"));
  }, 300);
}

async function start() {
  top();
  try {
    if (!(await get("/session")).open) return login(main, start);
  } catch {
    // The view says what is wrong.
  }
  follow(changed, (up) => {
    connection.className = up ? "connection up" : "connection down";
    fill(connection, up ? "live" : "no connection: what is shown may be old; trying again");
  });
  await show();
}

const stored = localStorage.getItem("theme");
if (stored) setTheme(stored);
addEventListener("hashchange", () => show());
start();
