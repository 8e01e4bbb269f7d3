/* What a run has said, as columns: packed float32 rows in, one typed array per quantity out, with what follows from them. */

export const METRIC = "metric:"; // as progress.METRIC, in front of the name of a column of what an objective reports

/** A run of `count` steps, from the traits of LiveView (dashboard/live.py). Times are seconds, memory is GB. */
export function readRun(model) {
  const names = model.get("columns");
  const blocks = [unpack(model.get("sealed")), unpack(model.get("recent"))];
  const total = blocks.reduce((sum, block) => sum + block.length, 0) / names.length;
  const column = {};
  names.forEach((name, at) => {
    const values = new Float32Array(total);
    let row = 0;
    for (const block of blocks) for (let i = at; i < block.length; i += names.length) values[row++] = block[i];
    column[name] = values;
  });
  return runOf(column, total, model.get("record"));
}

/** `record` is what is not said step by step: evaluations, checkpoints, limits. */
export function runOf(column, total, record) {
  const run = { count: total, column, record };
  run.hasGradNorm = column.grad_norm.some(Number.isFinite);
  run.hasMemory = column.active_gb.some(Number.isFinite);
  run.hasEvery = column.all_tokens_sec.some(Number.isFinite);
  run.smooth = smoothed(column.loss);
  run.bad = badStretches(run);
  run.metrics = metricsOf(run);
  return run;
}

/** name -> {steps, values, smooth} of what an objective reports beside its loss, at the steps where it did. */
function metricsOf({ count: total, column }) {
  const names = Object.keys(column).filter((name) => name.startsWith(METRIC));
  const series = (values) => {
    const known = [];
    for (let i = 0; i < total; i++) if (Number.isFinite(values[i])) known.push(i);
    const own = Float32Array.from(known, (i) => values[i]);
    return { steps: Float32Array.from(known, (i) => column.step[i]), values: own, smooth: smoothed(own) };
  };
  return Object.fromEntries(names.map((name) => [name.slice(METRIC.length), series(column[name])]));
}

/** The first `total` steps of a run, and what was known by then; costs nothing, the columns are shared. */
export function firstSteps(run, total) {
  const step = total ? run.column.step[total - 1] : (run.column.step[0] ?? 1) - 1;
  const known = (list) => (list ?? []).filter((each) => each[0] <= step);
  const evals = known(run.record.evals);
  const upTo = ({ steps, values, smooth }) => {
    const end = firstAtLeast(steps, step + 1);
    return { steps: steps.subarray(0, end), values: values.subarray(0, end), smooth: smooth.subarray(0, end) };
  };
  const each = (object, change) => Object.fromEntries(Object.entries(object).map(([name, one]) => [name, change(one)]));
  return {
    ...run,
    metrics: each(run.metrics, upTo),
    count: total,
    column: each(run.column, (values) => values.subarray(0, total)),
    smooth: run.smooth.subarray(0, total),
    bad: run.bad.filter(([first]) => first <= step),
    record: {
      ...run.record,
      evals,
      best_eval: bestOf(evals.filter(([at]) => !(run.record.asked_evals ?? []).includes(at))),
      best_score: run.record.best_score ? [run.record.best_score[0], known(run.record.best_score[1])] : null,
      checkpoints: (run.record.checkpoints ?? []).filter((each) => each <= step),
      rates: known(run.record.rates),
      notices: known(run.record.notices),
      hidden_notices: 0,
      held_out: each(run.record.held_out ?? {}, known),
      alarms: known(run.record.alarms),
    },
  };
}

/** [step, loss] of the lowest finite held-out loss, or null. */
export function bestOf(evals) {
  return evals.reduce((best, each) => (each[1] !== null && (best === null || each[1] < best[1]) ? each : best), null);
}

/** Index of the step nearest to `target`, in ascending `steps`. */
export function nearest(steps, target) {
  const after = firstAtLeast(steps, target);
  if (after === 0) return 0;
  if (after === steps.length) return steps.length - 1;
  return target - steps[after - 1] <= steps[after] - target ? after - 1 : after;
}

/** Index of the first of ascending `values` that is at least `target`; their number if none is. */
export function firstAtLeast(values, target) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < target) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The float32 values of a DataView, which may start at any byte. */
export function unpack(bytes) {
  if (!bytes || bytes.byteLength === 0) return new Float32Array(0);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** picture.smoothed: the mean of the last twentieth of the values by then, 3 to 100 of them; NaN where a value is none. */
export function smoothed(values) {
  const smooth = new Float32Array(values.length).fill(NaN);
  const sums = new Float64Array(values.length + 1);
  const counts = new Uint32Array(values.length + 1);
  values.forEach((value, i) => {
    const known = Number.isFinite(value);
    sums[i + 1] = sums[i] + (known ? value : 0);
    counts[i + 1] = counts[i] + (known ? 1 : 0);
    if (!known) return;
    const first = i + 1 - Math.min(Math.max(3, Math.min(100, Math.ceil((i + 1) / 20))), i + 1);
    smooth[i] = (sums[i + 1] - sums[first]) / (counts[i + 1] - counts[first]);
  });
  return smooth;
}

/** First and last step of each stretch whose loss or gradient norm is not finite. */
function badStretches(run) {
  const stretches = [];
  const { step, loss: losses, grad_norm: norms } = run.column;
  for (let i = 0; i < run.count; i++) {
    if (Number.isFinite(losses[i]) && (!run.hasGradNorm || Number.isFinite(norms[i]))) continue;
    const last = stretches.at(-1);
    if (last && last[1] === step[i] - 1) last[1] = step[i];
    else stretches.push([step[i], step[i]]);
  }
  return stretches;
}
