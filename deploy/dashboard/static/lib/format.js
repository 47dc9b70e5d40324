// @ts-check
// Numbers and times as short text.

/** Up to four significant digits; a dash where there is no number. @param {number | null | undefined} value */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

/** A label of an axis: as many digits as tell it from its neighbours. @param {number} value @param {number} step */
export function tick(value, step) {
  const size = Math.abs(value);
  if (size < step * 1e-6) return "0";
  const place = Math.floor(Math.log10(step) + 1e-9);
  if (size < 1e-3 || size >= 1e7) return value.toExponential(Math.max(0, Math.floor(Math.log10(size) + 1e-9) - place));
  return value.toLocaleString("en", { maximumFractionDigits: Math.max(0, -place) });
}

/** @param {number | null | undefined} value */
export function percent(value) {
  return value === null || value === undefined ? "–" : `${Number((value * 100).toFixed(1))} %`;
}

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Seconds since the epoch as local time. @param {number | null | undefined} seconds */
export function time(seconds) {
  if (!seconds) return "–";
  const date = new Date(seconds * 1000);
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

/** @param {number | null | undefined} seconds */
export function ago(seconds) {
  return seconds ? `${duration(Math.max(0, Date.now() / 1000 - seconds))} ago` : "–";
}

/** @param {string} name */
export const words = (name) => name.replaceAll("_", " ");
