/* Which curves of a run go into which chart, in which colour and dash, and each chart as a sentence. */

import { gigabytes, short } from "./words.js";

const STYLES = ["chosen", "rejected", "third", "fourth"]; // of the curves of a chart with several: colour, dash, swatch

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

/** The charts of what an objective reports beside its loss, as CHARTS has its own; `record` as in live.record_of. */
export function metricCharts(record) {
  const { charts, held_out: held } = record;
  const several = ({ curves, labels, margin, points }) => [
    ...curves.map((_, i) => [STYLES[i % STYLES.length], labels[i]]),
    ...(margin ? [["margin", "margin"]] : []),
    ...(curves.some((name) => held[name]?.length) ? [["score", points]] : []),
  ];
  const alone = ({ curves, points }) => [
    ...(held[curves[0]]?.length ? [["held", points]] : []),
    ...(bestScore(record, curves[0]) ? [["best", "best"]] : []),
  ];
  return Object.fromEntries(
    (charts ?? []).map((chart) => [
      `metric:${chart.name}`,
      { title: chart.title, unit: chart.unit, legend: chart.curves.length > 1 ? several(chart) : alone(chart) },
    ]),
  );
}

/** [swatch, name, metric] of all that `charts` of a record show, in their order. */
export function metricRows({ charts }) {
  return (charts ?? []).flatMap(({ curves, margin, points }) => [
    ...curves.map((metric, i) => [curves.length > 1 ? STYLES[i % STYLES.length] : points === "exam" ? "held" : "smooth", metric]),
    ...(margin ? [["margin", margin]] : []),
  ]);
}

/** The plots of a run, by the names in CHARTS and metricCharts. */
export function plotsOf(run, ink) {
  return { ...ownPlots(run, ink), ...metricPlots(run, ink) };
}

function metricPlots({ metrics, record, bad }, ink) {
  const plot = ({ title, unit, curves, margin, limits, points }) => {
    const isAlone = curves.length === 1;
    const styles = isAlone ? [{ color: ink.loss, points: ink.held }] : curves.map((_, i) => curveStyle(i, ink));
    const lines = curves.flatMap((metric, i) => {
      const { steps, values, smooth } = metrics[metric];
      const { color, dash = [] } = styles[i];
      return [
        { steps, values, color, width: 1, alpha: isAlone ? 0.45 : 0.3 },
        { steps, values: smooth, color, dash, width: 2, tip: true, derived: true },
      ];
    });
    const held = (metric) => record.held_out[metric] ?? [];
    return {
      lines,
      shade: margin ? { upper: lines[1], lower: lines[3], color: ink.chosen } : null,
      points: curves.map((metric, i) => ({ values: held(metric), best: bestScore(record, metric), color: styles[i].points ?? styles[i].color })),
      reference: null,
      bands: bad,
      marks: { checkpoints: [], changes: [] },
      limits,
      empty: "No value yet",
      unit: [unit, ...(isAlone || margin ? figures(margin ?? curves[0], metrics, held, points) : [])].filter(Boolean).join(" · "),
      sentence: metrics[curves[0]].steps.length ? chartSentence(title, metrics[curves[0]].steps.length, metrics[curves[0]].values) : pointsSentence(title, held(curves[0])),
    };
  };
  return Object.fromEntries((record.charts ?? []).map((chart) => [`metric:${chart.name}`, plot(chart)]));
}

/** [step, value] of the best score in a metric that the run goes by, or null. */
function bestScore(record, metric) {
  const [by, known] = record.best_score ?? [];
  return by === metric && known.length ? known.at(-1).slice(1) : null;
}

function curveStyle(place, ink) {
  const style = STYLES[place % STYLES.length];
  return { color: ink[style], dash: { rejected: [6, 3], third: [2, 3], fourth: [8, 3, 2, 3] }[style] };
}

/** "margin 0.312, held-out 0.402": the last smoothed value of a metric, and the last on the held-out rows. */
function figures(metric, metrics, held, points) {
  const { smooth } = metrics[metric] ?? { smooth: [] };
  const parts = [
    smooth.length ? `${metric.endsWith("margins") ? "margin" : "now"} ${short(smooth[smooth.length - 1])}` : "",
    held(metric).length ? `${points} ${short(held(metric).at(-1)[1])}` : "",
  ].filter(Boolean);
  return parts.length ? [parts.join(", ")] : [];
}

function ownPlots(run, ink) {
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
        points: [{ values: record.evals ?? [], best: record.best_eval, color: ink.held }],
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

function pointsSentence(name, points) {
  const known = points.filter(([, value]) => value !== null);
  if (!known.length) return `${name}: no value yet.`;
  return `${name}, ${known.length} values: first ${short(known[0][1])}, now ${short(known.at(-1)[1])}.`;
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
