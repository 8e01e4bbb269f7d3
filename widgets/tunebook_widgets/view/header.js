/* The upper part of the page: where the run stands in a sentence, a bar and eight numbers; and the notices below. */

import { button, node } from "./page.js";
import { clock, count, gigabytes, loss, rate, short } from "./words.js";

const SHOWN_AFTER = 600; // milliseconds that a work must last to be named

export function headerView() {
  const title = node("span", { class: "tunebook-model" });
  const phase = node("span", { class: "tunebook-phase" });
  const headline = node("p", { class: "tunebook-headline" });
  const fill = node("div", { class: "tunebook-progress-fill" });
  const progress = node("div", { class: "tunebook-progress", role: "progressbar", "aria-label": "Steps done" }, fill);
  const numbers = {
    loss: number("Loss"),
    best: number("Best held-out"),
    grad: number("Gradient norm"),
    lr: number("Learning rate"),
    speed: number("Trained tokens/s"),
    memory: number("Peak memory"),
    elapsed: number("Elapsed"),
    left: number("Left"),
  };
  const list = node("dl", { class: "tunebook-numbers" }, ...Object.values(numbers).map((each) => each.root));
  const name = node("div", { class: "tunebook-title" }, phase, title);
  return { title, phase, headline, fill, progress, numbers, list, name, work: { kind: "", since: 0, words: "" } };
}

function number(label) {
  const value = node("dd", { class: "tunebook-value" }, "–");
  const detail = node("dd", { class: "tunebook-detail" });
  return { value, detail, root: node("div", {}, node("dt", {}, label), value, detail) };
}

/** Whether the work in hand is none of a step: an evaluation, a sample, a pause. */
export function isBetweenSteps(state) {
  return Boolean(state.working) && state.working[0] !== "training";
}

/** `phase` is "running", "stopping", "ended", "replay", "gone" or "unreached". */
export function showHeader(view, root, state, { phase, headline }) {
  root.dataset.phase = phase;
  const [work, finished, of] = state.working ?? [];
  const running =
    {
      testing: "Testing",
      precomputing: `Reference ${finished} of ${of}`,
      evaluating: `Evaluating ${finished} of ${of}`,
      scoring: `Exam: ${finished} of ${of}`,
      sampling: "Writing a sample",
      paused: "Paused",
    }[work] ?? "Training";
  showPhase(view, { running, stopping: "Stopping", ended: "Done", replay: "Replay", gone: "No kernel", unreached: "No connection" }[phase], phase === "running" ? (work ?? "training") : phase);
  view.title.textContent = view.title.title = state.model ?? "";
  view.headline.textContent = headline;
  const part = state.working && !isBetweenSteps(state) ? finished / of : 0; // of the step in progress
  const done = state.total_steps ? (state.step + part) / state.total_steps : 0;
  view.fill.style.width = `${100 * Math.min(done, 1)}%`;
  view.progress.setAttribute("aria-valuenow", state.step ?? 0);
  view.progress.setAttribute("aria-valuemin", 0);
  view.progress.setAttribute("aria-valuemax", state.total_steps ?? 0);
}

/** Show what is being done when it has been for a moment: one that is over in half a second would only flash.
 *
 *  `kind` is one of the phases or of the works of a run; what is no work is shown at once. */
function showPhase(view, words, kind) {
  if (view.work.kind !== kind) view.work = { kind, since: performance.now(), words };
  view.work.words = words;
  const isWork = ["testing", "precomputing", "evaluating", "scoring", "sampling"].includes(kind);
  if (!isWork) view.phase.textContent = words;
  else settlePhase(view);
}

/** Called now and then: show the work that has lasted. */
export function settlePhase({ phase, work }) {
  if (work.words && performance.now() - work.since >= SHOWN_AFTER) phase.textContent = work.words;
  else if (!phase.textContent) phase.textContent = "Training";
}

export function showNumbers({ numbers }, state, run) {
  const { record } = run;
  const last = run.count - 1;
  const now = (name) => (last < 0 ? NaN : run.column[name][last]);
  const smooth = last < 0 ? NaN : run.smooth[last];
  const put = (name, value, detail) => {
    numbers[name].value.textContent = last < 0 && name !== "best" ? "–" : value;
    numbers[name].detail.textContent = detail;
  };
  put("loss", loss(now("loss")), Number.isFinite(smooth) ? `smooth ${loss(smooth)}` : "");
  put("best", record.best_eval ? loss(record.best_eval[1]) : "–", record.best_eval ? `at step ${count(record.best_eval[0])}` : "");
  put("grad", run.hasGradNorm ? short(now("grad_norm")) : "–", record.clip_norm ? `clip at ${record.clip_norm}` : "");
  put("lr", rate(now("lr")), record.rates?.length ? `changed at ${count(record.rates.at(-1)[0])}` : "");
  const every = now("all_tokens_sec");
  const speed = now("tokens_sec");
  put("speed", Number.isFinite(speed) ? count(Math.round(speed)) : "–", Number.isFinite(every) ? `of ${count(Math.round(every))} in all` : "");
  put("memory", gigabytes(now("peak_gb")), record.memory_limit_gb ? `of ${gigabytes(record.memory_limit_gb)} GB` : "GB");
  numbers.elapsed.detail.textContent = `${count(state.step ?? 0)} / ${count(state.total_steps ?? 0)}`;
  numbers.left.detail.textContent = "estimated";
}

/** `elapsed` and `left` are seconds; null: not known. */
export function showClock({ numbers }, elapsed, left) {
  numbers.elapsed.value.textContent = clock(elapsed);
  numbers.left.value.textContent = left === null ? "–" : left < 1 ? "any moment" : clock(left);
}

/** A lane for each process of a run: what it trains, how long it works, exchanges and waits. Hidden for one alone. */
export function lanesView() {
  const root = node("div", { class: "tunebook-lanes", role: "list", "aria-label": "Processes" });
  return {
    root,
    show(lanes) {
      root.hidden = (lanes ?? []).length < 2;
      root.replaceChildren(...(root.hidden ? [] : lanes.map(lane)));
    },
  };
}

function lane([name, speed, waiting, exchanging, peak]) {
  const percent = (share) => `${Math.round(100 * share)}%`;
  const part = (kind, share) => {
    const bar = node("span", { class: `tunebook-lane-${kind}` });
    bar.style.width = percent(share);
    return bar;
  };
  const told = `${count(Math.round(speed))} tokens/s, waits ${percent(waiting)}, exchanges ${percent(exchanging)}, ${gigabytes(peak)} GB`;
  const works = Math.max(0, 1 - waiting - exchanging);
  const bar = node("span", { class: "tunebook-lane-bar", "aria-hidden": "true" }, part("works", works), part("exchanges", exchanging), part("waits", waiting));
  return node("div", { class: "tunebook-lane", role: "listitem" }, node("span", { class: "tunebook-lane-name" }, name), bar, node("span", { class: "tunebook-lane-told" }, told));
}

/** What is learnt goes astray, [step, sentence] each: above all else until it is put away. */
export function alarmView() {
  const root = node("div", { class: "tunebook-alarms" });
  const made = new Map(); // by step and sentence
  const alarm = (step, text) => {
    const away = button("Hide");
    const shown = node("div", { class: "tunebook-runaway", role: "alert" }, node("p", {}, node("span", { class: "tunebook-notice-step" }, `step ${count(step)}`), text), node("div", { class: "tunebook-line" }, away));
    away.addEventListener("click", () => (shown.hidden = true));
    return shown;
  };
  return {
    root,
    show(alarms) {
      const named = (alarms ?? []).map((each) => [each.join(" "), each]);
      for (const [name, [step, text]] of named) if (!made.has(name)) made.set(name, alarm(step, text));
      const shown = named.map(([name]) => made.get(name));
      if (shown.length !== root.childElementCount || shown.some((each, i) => root.children[i] !== each)) root.replaceChildren(...shown);
    },
  };
}

export function showNotices(list, record) {
  const lines = (record.notices ?? []).map(([step, text]) =>
    node("li", {}, node("span", { class: "tunebook-notice-step" }, `step ${count(step)}`), text),
  );
  if (record.hidden_notices) lines.unshift(node("li", {}, `${count(record.hidden_notices)} earlier notices`));
  list.hidden = lines.length === 0;
  if (list.childElementCount === lines.length && list.textContent === lines.map((each) => each.textContent).join("")) return;
  list.replaceChildren(...lines);
  list.scrollTop = list.scrollHeight;
}
