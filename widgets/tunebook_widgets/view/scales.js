/* From steps and values to pixels and back: domains, round ticks, limits that leave outliers out, and decimation. */

import { firstAtLeast } from "./columns.js";

export const MARGIN = { left: 60, right: 16, top: 10, bottom: 22 }; // CSS pixels around a plot

const TAIL = 0.01; // share of the values on either side that a clipped scale leaves out
const SORTED_AT_MOST = 4000; // values; a percentile of more is taken of evenly spaced ones

/** The steps on the x-axis of a whole run. Its end grows in rare, round jumps, so the curve does not creep. */
export function wholeDomain(first, last, total) {
  const end = Math.max(total, last, first + 1);
  const reach = roundUp(Math.max((last - first) * 1.25, 10));
  return [first, first + reach > end * 0.8 ? end : first + reach];
}

export function pixelOf(step, width, [first, last]) {
  return MARGIN.left + ((step - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
}

export function stepAt(x, width, [first, last]) {
  return first + ((x - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (last - first);
}

/** Whether there is a place for a value: a logarithm has none for 0 and below. */
export function drawable(value, log) {
  return value !== null && Number.isFinite(value) && (!log || value > 0);
}

/** [from, to) of the indices whose steps are in the domain, and one neighbour on each side, so that lines run out. */
export function visible(steps, [first, last]) {
  return [Math.max(firstAtLeast(steps, first) - 1, 0), Math.min(firstAtLeast(steps, last) + 1, steps.length)];
}

/** Lowest and highest value shown of a plot's lines and points, with a little air; null where there is none.
 *
 *  A `clipped` scale leaves out what is beyond the first and last percentile of each line that was measured. */
export function valueDomain(plot, steps, { log, clipped }) {
  let [low, high] = [Infinity, -Infinity];
  const take = (value) => {
    if (!drawable(value, log)) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  for (const line of plot.lines) {
    const [from, to] = visible(line.steps, steps);
    if (clipped && line.derived) continue;
    if (clipped) percentiles(line.values, from, to, log).forEach(take);
    else for (let i = from; i < to; i++) take(line.values[i]);
  }
  for (const { values } of plot.points) for (const [step, value] of values) if (step >= steps[0] && step <= steps[1]) take(value);
  // A line far above the curve would flatten it; then its label alone says where it is.
  const reference = plot.reference?.value;
  if (drawable(reference ?? null, log) && reference < 4 * high) take(reference);
  if (low > high) return null;
  if (plot.limits && !log) return plot.limits.map((limit, i) => limit + (i ? 0.05 : -0.05) * (plot.limits[1] - plot.limits[0]));
  if (log) {
    const air = Math.max((high / low) ** 0.06, 1.02);
    return [low / air, high * air];
  }
  const air = Math.max((high - low) * 0.08, Math.abs(high) * (high === low ? 0.1 : 0.01), 1e-9);
  return [low >= 0 ? Math.max(low - air, 0) : low - air, high + air];
}

/** Round values for the y-axis: 1, 2 and 5 in every decade where a log axis spans one, evenly spaced otherwise. */
export function valueTicks([low, high], log, wanted) {
  if (!log || high / low < 10) return evenTicks([low, high], wanted, [1, 2, 2.5, 5, 10]);
  const decades = Math.log10(high / low);
  const heads = decades > wanted ? [1] : decades > wanted / 3 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const head of heads) ticks.push(head * 10 ** power);
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** Multiples of one of `heads` times a power of ten, at most `wanted` + 1 of them. */
export function evenTicks([low, high], wanted, heads) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * heads.find((each) => each * power >= rough * (1 - 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / gap); k * gap <= high + gap * 1e-6; k++) ticks.push(k * gap);
  return ticks;
}

export function tickLabel(value, gap) {
  const size = Math.abs(value);
  if (size < gap * 1e-6) return "0";
  if (size < 1e-3 || size >= 1e5) {
    const digits = Math.min(Math.max(Math.ceil(Math.log10(size) - Math.log10(gap) - 1e-9), 0), 2);
    return value.toExponential(digits).replace("-", "−");
  }
  const whole = (number) => Math.abs(number - Math.round(number)) < 1e-6;
  return value.toFixed([0, 1, 2, 3].find((decimals) => whole(gap * 10 ** decimals)) ?? 4);
}

/** Pixel columns of a line, so that a spike of one step in a hundred thousand is still a spike.
 *
 *  Gives [at, first, low, high, last] for every column of device pixels that holds a value, rows counted from the top,
 *  and null where the line is broken by a value that has no place. */
export function* decimate({ steps, values }, [from, to], { x, y, ratio, log }) {
  let column = null;
  for (let i = from; i < to; i++) {
    if (!drawable(values[i], log)) {
      if (column) yield column;
      yield (column = null);
      continue;
    }
    const row = y(values[i]);
    const at = Math.floor(x(steps[i]) * ratio) / ratio;
    if (column && column[0] === at) {
      if (row > column[2]) column[2] = row;
      if (row < column[3]) column[3] = row;
      column[4] = row;
    } else {
      if (column) yield column;
      column = [at, row, row, row, row];
    }
  }
  if (column) yield column;
}

/** The next of 1, 1.5, 2, 3, 5, 7.5 times a power of ten. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 5, 7.5, 10].find((each) => each * power >= value * (1 - 1e-9));
}

/** The lowest and highest value left when TAIL of them is cut off at either end; none where there is none. */
function percentiles(values, from, to, log) {
  const stride = Math.max(Math.ceil((to - from) / SORTED_AT_MOST), 1);
  const kept = [];
  for (let i = from; i < to; i += stride) if (drawable(values[i], log)) kept.push(values[i]);
  kept.sort((a, b) => a - b);
  const cut = Math.ceil(kept.length * TAIL);
  return kept.length > 2 * cut ? [kept[cut], kept[kept.length - 1 - cut]] : kept;
}
