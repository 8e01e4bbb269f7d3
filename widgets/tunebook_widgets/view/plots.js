/* Which curves of a run go into which chart, in which colour and dash, and each chart as a sentence. */

import { gigabytes, short } from "./words.js";

/** What there is to see of a run, in the order of the page: name -> {title, unit, legend}. */
export const CHARTS = {
  loss: {
    title: "Loss",
    unit: "nats per trained token",
    legend: [
      ["raw", "each step"],
      ["smooth", "smoothed"],
      ["held", "held-out"],
      ["best", "best"],
      ["saved", "checkpoint"],
    ],
  },
  grad: { title: "Gradient norm", unit: "before clipping", legend: [] },
  rate: { title: "Learning rate", unit: "", legend: [] },
  speed: {
    title: "Speed",
    unit: "tokens per second",
    legend: [
      ["speed", "trained"],
      ["every", "with padding"],
    ],
  },
  memory: {
    title: "Memory",
    unit: "GB",
    legend: [
      ["active", "in use"],
      ["cache", "kept for reuse"],
      ["peak", "peak"],
    ],
  },
};

/** The plots of a run, by the names in CHARTS. */
export function plotsOf(run, ink) {
  const { column, record } = run;
  const line = (values, style) => ({ steps: column.step, values, width: 1.4, ...style });
  const plot = (name, lines, more = {}) => ({
    lines,
    points: [],
    reference: null,
    bands: run.bad,
    marks: { checkpoints: [], changes: [] },
    empty: run.count ? "No finite value" : "No step yet",
    sentence: chartSentence(CHARTS[name].title, run.count, lines[0].values),
    ...more,
  });
  const limit = record.memory_limit_gb;
  return {
    loss: plot(
      "loss",
      [line(column.loss, { color: ink.loss, width: 1, alpha: 0.45 }), line(run.smooth, { color: ink.loss, width: 2, tip: true, derived: true })],
      {
        unit: record.loss_unit,
        points: record.evals ?? [],
        best: record.best_eval,
        marks: { checkpoints: record.checkpoints ?? [], changes: [] },
        empty: run.count ? "No finite value" : "The first step is on its way",
      },
    ),
    grad: plot("grad", [line(column.grad_norm, { color: ink.grad, tip: true })], {
      reference: record.clip_norm ? { value: record.clip_norm, label: `clipped above ${record.clip_norm}` } : null,
      empty: run.count && !run.hasGradNorm ? "This trainer reports no gradient norm" : "No step yet",
    }),
    rate: plot("rate", [line(column.lr, { color: ink.rate, tip: true })], {
      marks: { checkpoints: [], changes: (record.rates ?? []).map((each) => each[0]) },
    }),
    speed: plot("speed", [
      line(column.tokens_sec, { color: ink.speed, width: 1.2, tip: true }),
      ...(run.hasEvery ? [line(column.all_tokens_sec, { color: ink.speed, dash: [1, 3], width: 1.4 })] : []),
    ]),
    memory: plot("memory", memoryLines(run, line, ink), {
      reference: limit ? { value: limit, label: `this device: ${gigabytes(limit)} GB` } : null,
    }),
  };
}

function memoryLines({ column, hasMemory }, line, ink) {
  const peak = line(column.peak_gb, { color: ink.memory, dash: [6, 4] });
  if (!hasMemory) return [peak];
  return [line(column.active_gb, { color: ink.memory, width: 1.6 }), line(column.cache_gb, { color: ink.memory, dash: [1, 4], width: 1.6 }), peak];
}

function chartSentence(name, steps, values) {
  let [first, last, low, high] = [NaN, NaN, Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (Number.isNaN(first)) first = value;
    last = value;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (Number.isNaN(first)) return `${name}: no steps yet.`;
  return `${name} over ${steps} steps: first ${short(first)}, now ${short(last)}, lowest ${short(low)}, highest ${short(high)}.`;
}
