/* The page of one training run: live, brought back, or played from a recording.
 *
 * In come the traits of LiveView (dashboard/live.py): the steps as packed float32 rows, everything else as JSON. Out go messages
 * that say what is asked of the run, {"command": "stop"}, and {"ready": true} once when the page is there. */

import { METRIC, firstSteps, nearest, readRun } from "./columns.js";
import { controls } from "./controls.js";
import { keepFrozen } from "./frozen.js";
import { alarmView, headerView, isBetweenSteps, lanesView, settlePhase, showClock, showHeader, showNotices, showNumbers } from "./header.js";
import { linkedCharts } from "./linked.js";
import { lostView, watchKernel } from "./kernel.js";
import { node } from "./page.js";
import { player } from "./player.js";
import { CHARTS, metricCharts, metricRows, plotsOf } from "./plots.js";
import { samplesPanel } from "./samples.js";
import { wholeDomain } from "./scales.js";
import { count, gigabytes, loss, rate, short } from "./words.js";

const ANNOUNCE_EVERY = 10_000; // milliseconds between two sentences for a screen reader
const TICK_EVERY = 500; // milliseconds between two looks at the clock
const KEEP_AFTER = 1000; // milliseconds; a page that was there from the start has the outputs by then
const TABLE_ROWS = 12; // evenly spaced steps of the table that says the curves in numbers

export default { render };

function render({ model, el }) {
  const isReplay = model.get("mode") === "replay";
  let state = {};
  let run = readRun(model);
  let heard = { elapsed: 0, at: performance.now() }; // the run's own time, and when this page heard it
  let announced = { at: -Infinity, phase: "" };

  const header = headerView();
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const say = (sentence) => {
    announced = { at: performance.now(), phase: state.phase };
    spoken.textContent = sentence;
  };
  const kernel = watchKernel(model.widget_manager, () => showWords());
  const lost = lostView(say);
  const buttons = controls((command, value) => {
    model.send(value === undefined ? { command } : { command, value });
    showWords();
    say(headline());
  }, say);
  const charts = linkedCharts(CHARTS, {
    rows: (step, index) => tooltipRows(run, step, index),
    sentence: (step, index) => cursorSentence(run, step, index),
    say,
  });
  const samples = samplesPanel((picks) => {
    model.set("picks", picks);
    model.save_changes();
  });
  const alarms = alarmView();
  const lanes = lanesView();
  const notices = node("ul", { class: "tunebook-notices", "aria-label": "Notices" });
  const table = numbersTable(() => run);
  const replay = isReplay ? player(run.column.elapsed, (steps) => showRecorded(firstSteps(recorded, steps))) : null;
  const recorded = run;
  const root = node(
    "section",
    { class: "tunebook-dashboard", "aria-label": isReplay ? "Recorded training run" : "Training run" },
    node("header", { class: "tunebook-header" }, header.name, buttons.group, node("div", { class: "tunebook-ends" }, buttons.discard, buttons.stop)),
    buttons.form,
    header.headline,
    buttons.reason,
    lost.root,
    buttons.runaway,
    alarms.root,
    header.progress,
    ...(replay ? [replay.root] : []),
    header.list,
    lanes.root,
    charts.root,
    table,
    samples.root,
    notices,
    spoken,
  );

  /** "gone" or "unreached" where a run that goes on has nobody behind it, else "". */
  const lostKernel = () => (state.phase === "running" ? kernel.lost() : "");

  function headline() {
    if (lostKernel()) return lost.headline(lostKernel(), state);
    if (!buttons.stopping) return state.headline ?? "";
    const step = isBetweenSteps(state) ? state.step : state.step + 1;
    return `Stopping after step ${count(step)}…`;
  }

  function takeIn() {
    state = model.get("state");
    run = readRun(model);
    if (state.elapsed !== heard.elapsed) heard = { elapsed: state.elapsed, at: performance.now() };
    buttons.acknowledge();
    showRun();
  }

  function showRecorded(until) {
    run = until;
    const step = run.count ? run.column.step[run.count - 1] : (recorded.column.step[0] ?? 1) - 1;
    const whole = run.count === recorded.count;
    const { total_steps: total, model: name } = model.get("state");
    const parts = [`Step ${count(step)} of ${count(total)}`];
    if (run.count) parts.push(`loss ${loss(run.column.loss[run.count - 1])}`);
    if (run.record.best_eval) parts.push(`best held-out ${loss(run.record.best_eval[1])} at ${count(run.record.best_eval[0])}`);
    const words = whole ? model.get("state").headline : parts.join(" · ");
    const elapsed = run.count ? run.column.elapsed[run.count - 1] : 0;
    state = { phase: whole ? "ended" : "replay", headline: words, model: name, step, total_steps: total, elapsed, seconds_left: null, stop: "absent" };
    showRun();
  }

  function showRun() {
    const step = state.step ?? 0;
    const known = model.get("samples").filter((each) => !isReplay || each[0] <= step);
    showWords();
    showNumbers(header, state, run);
    samples.show(known, state.phase === "ended");
    alarms.show(run.record.alarms);
    lanes.show(run.record.lanes);
    showNotices(notices, run.record);
    showTime();
    const evals = (run.record.evals ?? []).map((each) => each[0]);
    const first = Math.min(run.count ? run.column.step[0] - 1 : 0, ...evals);
    const last = Math.max(run.count ? run.column.step[run.count - 1] : 0, ...evals);
    charts.offer(metricCharts(run.record), groupHeading(run.record));
    charts.show((ink) => plotsOf(run, ink), wholeDomain(first, last, state.total_steps ?? 1), run.column.step);
    const due = performance.now() - announced.at >= ANNOUNCE_EVERY || state.phase !== announced.phase;
    if (due) say(headline());
  }

  function showWords() {
    const gone = lostKernel();
    lost.show(gone, state.lost ?? ["", ""]);
    const { learning_rate, ran_away } = run.record;
    buttons.show({ ...state, learning_rate, ran_away, stop: gone ? "absent" : state.stop });
    const phase = gone || (buttons.stopping ? "stopping" : (state.phase ?? "running"));
    showHeader(header, root, state, { phase, headline: headline() });
  }

  function showTime() {
    settlePhase(header);
    const running = (state.phase === "running" || state.phase === "stopping") && !lostKernel();
    const since = running ? (performance.now() - heard.at) / 1000 : 0;
    const left = state.seconds_left ?? null;
    showClock(header, (state.elapsed ?? 0) + since, left === null || state.phase !== "running" || lostKernel() ? null : Math.max(left - since, 0));
  }

  /** Where a page was loaded again, the notebook in it is not told what stands in place of this view. */
  let keeping = 0;
  function keep() {
    const { of, outputs } = model.get("frozen") ?? {};
    if (of) keeping = setTimeout(() => keepFrozen(model.widget_manager, of, outputs), KEEP_AFTER);
  }

  el.append(root);
  const timer = setInterval(showTime, TICK_EVERY);
  if (replay) {
    showRecorded(firstSteps(recorded, 0));
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) replay.finish();
    else replay.start();
  } else {
    model.on("change:frozen", keep);
    keep();
    model.on("change:state", takeIn); // one message carries all traits, and the state is in every one
    takeIn();
    model.send({ ready: true });
  }

  return () => {
    clearInterval(timer);
    clearTimeout(keeping);
    kernel.close();
    replay?.close();
    charts.close();
    model.off("change:state", takeIn);
    model.off("change:frozen", keep);
  };
}

function heldOutAt(run, step) {
  return (run.record.evals ?? []).find((each) => each[0] === step);
}

/** What stands above the charts of an objective. */
function groupHeading({ objective, charts, hidden_charts: hidden }) {
  const more = hidden ? ` (${count(hidden)} more charts are left out; the event log has their numbers)` : "";
  const isExam = (charts ?? []).every((chart) => chart.points === "exam");
  return `${isExam ? "The exam" : (objective ?? "The objective")}, beside ${isExam ? "the" : "its"} loss${more}`;
}

/** [swatch, metric, value] of what the objective reported in a step, and of the held-out rows or the exam after it. */
function reported({ metrics, record }, step) {
  return metricRows(record).flatMap(([kind, name]) => {
    const { steps, values } = metrics[name] ?? { steps: [], values: [] };
    const at = steps.length ? nearest(steps, step) : 0;
    const held = (record.held_out[name] ?? []).find((each) => each[0] === step && each[1] !== null);
    if (!steps.length) return held ? [[kind, name, short(held[1])]] : []; // of an exam: points alone
    const value = steps[at] === step ? short(values[at]) : "–";
    return [[kind, name, held ? `${value}, held-out ${short(held[1])}` : value]];
  });
}

/** [swatch, label, value] of a step, for the tooltip. */
function tooltipRows(run, step, index) {
  const { column, smooth, record, hasGradNorm, hasMemory, hasEvery } = run;
  const held = heldOutAt({ record }, step);
  return [
    ["raw", "loss", loss(column.loss[index])],
    ...(Number.isFinite(smooth[index]) ? [["smooth", "smoothed", loss(smooth[index])]] : []),
    ...(held ? [["held", "held-out", loss(held[1])]] : []),
    ...reported(run, step),
    ...(hasGradNorm ? [["grad", "gradient norm", short(column.grad_norm[index])]] : []),
    ["rate", "learning rate", rate(column.lr[index])],
    ["speed", "trained tokens/s", count(Math.round(column.tokens_sec[index]))],
    ...(hasEvery ? [["every", "all tokens/s", count(Math.round(column.all_tokens_sec[index]))]] : []),
    ...(hasMemory ? [["active", "memory in use", `${gigabytes(column.active_gb[index])} GB`]] : []),
    ["peak", "peak memory", `${gigabytes(column.peak_gb[index])} GB`],
  ];
}

function cursorSentence(run, step, index) {
  const held = heldOutAt(run, step);
  const parts = [`Step ${step}: loss ${loss(run.column.loss[index])}`, `smoothed ${loss(run.smooth[index])}`];
  if (held) parts.push(`held-out ${loss(held[1])}`);
  if (run.hasGradNorm) parts.push(`gradient norm ${short(run.column.grad_norm[index])}`);
  for (const [, name, value] of reported(run, step)) parts.push(`${name} ${value}`);
  return parts.join(", ");
}

/** A metric in a step: as the objective reported it; of an exam, which no step reports, what came after it. */
function metricAt({ column, metrics, record }, name, i) {
  if (metrics[name]?.steps.length) return column[METRIC + name][i];
  return (record.held_out[name] ?? []).find((each) => each[0] === column.step[i])?.[1] ?? NaN;
}

/** The curves in numbers, made when it is opened. */
function numbersTable(runNow) {
  const [head, body] = [node("tr", {}), node("tbody", {})];
  const heads = ["Step", "Loss", "Smoothed", "Gradient norm", "Learning rate", "Trained tokens/s", "All tokens/s", "Peak GB"];
  const made = node("table", {}, node("thead", {}, head), body);
  const details = node("details", { class: "tunebook-table" }, node("summary", {}, "The curves as a table"), made);
  details.addEventListener("toggle", () => {
    if (!details.open) return;
    const run = runNow();
    const { column, smooth, count: steps } = run;
    const metrics = metricRows(run.record).map(([, name]) => name);
    head.replaceChildren(...[...heads, ...metrics].map((each) => node("th", { scope: "col" }, each)));
    const rows = Math.min(steps, TABLE_ROWS);
    const places = Array.from({ length: rows }, (_, i) => (rows < 2 ? 0 : Math.round((i * (steps - 1)) / (rows - 1))));
    const told = (value) => (Number.isFinite(value) ? short(value) : "–");
    const cells = (i) => [
      count(column.step[i]),
      loss(column.loss[i]),
      loss(smooth[i]),
      short(column.grad_norm[i]),
      rate(column.lr[i]),
      count(Math.round(column.tokens_sec[i])),
      Number.isFinite(column.all_tokens_sec[i]) ? count(Math.round(column.all_tokens_sec[i])) : "–",
      gigabytes(column.peak_gb[i]),
      ...metrics.map((name) => told(metricAt(run, name, i))),
    ];
    body.replaceChildren(...places.map((i) => node("tr", {}, ...cells(i).map((each) => node("td", {}, each)))));
  });
  details.addEventListener("keydown", (event) => event.stopPropagation());
  return details;
}
