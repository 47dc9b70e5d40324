// @ts-check
// The place in the dashboard as an address: `#/run/NAME/trajectories?stop=submitted`.

/** @typedef {{path: string[], query: Record<string, string>}} Place */

/** @returns {Place} */
export function here() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const query = Object.fromEntries(new URLSearchParams(search ?? ""));
  return { path: path ? path.split("/").map(decode) : [], query };
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string[]} path @param {Record<string, any>} [query] */
export function link(path, query = {}) {
  const given = Object.entries(query).filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

/** @param {string[]} path @param {Record<string, any>} [query] */
export function go(path, query) {
  location.hash = link(path, query);
}

/** Change the query of this place without a step in the history. @param {Record<string, any>} changes */
export function refine(changes) {
  const { path, query } = here();
  history.replaceState(null, "", link(path, { ...query, ...changes }));
}
