// @ts-check
// Axes: where values lie on the screen, and at which values to put a label.

/**
 * A straight scale from values to pixels.
 * @param {number} low @param {number} high @param {number} start @param {number} end
 */
export function scale(low, high, start, end) {
  const width = high - low || 1;
  const to = (/** @type {number} */ value) => start + ((value - low) / width) * (end - start);
  const from = (/** @type {number} */ pixel) => low + ((pixel - start) / (end - start)) * width;
  return { low, high, to, from };
}

/** Round values between two ends, about as many as asked for. @param {number} low @param {number} high @param {number} count */
export function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  if (!(raw > 0) || !Number.isFinite(raw)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) ?? 10) * power;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) found.push(n * step);
  return found;
}

/** Least and largest of the numbers, with room around them. @param {number[]} values */
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (Number.isFinite(value)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  if (low === high) return [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
  const room = (high - low) * 0.06;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

/**
 * Exponential moving average that starts without a bias towards 0; gaps stay gaps.
 * @param {(number | null)[]} values @param {number} weight of what was before, from 0 to below 1
 */
export function smooth(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** The place of the entry of a sorted list that is nearest. @param {number[]} sorted @param {number} value */
export function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}
