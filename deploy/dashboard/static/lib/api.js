// @ts-check
// Requests and live events.

export class ApiError extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * GET as JSON; lists in the query are repeated, empty values left out.
 * @param {string} path
 * @param {Record<string, any>} [query]
 * @param {AbortSignal} [signal]
 */
export async function get(path, query = {}, signal) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const own of Array.isArray(value) ? value : [value]) {
      if (own !== null && own !== undefined && own !== "") search.append(name, String(own));
    }
  }
  const text = search.toString();
  return answer(await fetch(`/api${path}${text ? `?${text}` : ""}`, { signal }));
}

/** @param {string} method @param {any} [body] */
export async function session(method, body) {
  const headers = { "Content-Type": "application/json" };
  return answer(await fetch("/api/session", { method, headers, body: body && JSON.stringify(body) }));
}

/** @param {Response} response */
async function answer(response) {
  const data = await response.json().catch(() => ({}));
  if (response.ok) return data;
  const detail = typeof data.detail === "string" ? data.detail : `the server answered ${response.status}`;
  throw new ApiError(response.status, detail);
}

/** The path of a run. @param {string} run */
export const of = (run) => `/runs/${encodeURIComponent(run)}`;

/**
 * Calls `changed(run)` when a run has changed, with null when anything may have: after a time without
 * a connection, or when runs came or went. `connected(true | false)` says how the connection is.
 * @param {(run: string | null) => void} changed
 * @param {(up: boolean) => void} connected
 */
export function follow(changed, connected) {
  /** @type {EventSource | null} */
  let source = null;
  let lost = false;
  const open = () => {
    source = new EventSource("/api/events");
    source.addEventListener("hello", () => {
      connected(true);
      if (lost) changed(null);
      lost = false;
    });
    source.addEventListener("run", (event) => changed(JSON.parse(event.data)));
    source.addEventListener("runs", () => changed(null));
    source.addEventListener("error", () => {
      lost = true;
      connected(false);
      if (source?.readyState === EventSource.CLOSED) setTimeout(open, 3000);
    });
  };
  const close = () => {
    source?.close();
    source = null;
    lost = true;
  };
  open();
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : source || open()));
  addEventListener("offline", () => {
    close();
    connected(false);
  });
  addEventListener("online", () => source || open());
}
