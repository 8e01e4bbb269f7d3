/* The live view of one training run.
 *
 * In come the traits of live.py's LiveView: the steps as packed float32 rows, everything small as one JSON object.
 * Out goes one message, {"command": "stop"}. Words that came from data or a model reach the page as text nodes only. */

const ANNOUNCE_EVERY = 10_000; // milliseconds between two sentences for a screen reader
const TICK_EVERY = 500; // milliseconds between two looks at the clock
const MARGIN = { left: 48, right: 16, top: 10, bottom: 22 }; // CSS pixels around a plot

export default { render };

function render({ model, el }) {
  const view = buildView();
  const local = {
    asked: new Set(), // commands whose button was pressed in this page and that the run has not acknowledged
    stopPressedAt: null, // the step in progress when Stop was pressed in this page
    clock: { elapsed: 0, at: performance.now() }, // the run's own time, and when this page heard it
    cursor: null, // index of the step under the crosshair
    log: { loss: false, grad: false },
    announcedAt: -Infinity,
    announcedPhase: "",
    frame: 0,
  };
  let state = {};
  let run = emptyRun(model.get("columns"));

  function ask(command) {
    local.asked.add(command);
    showActions(view, state, local, ask);
    model.send({ command });
  }

  function takeIn() {
    state = model.get("state");
    local.asked.clear();
    run = readRun(model, state);
    if (state.elapsed !== local.clock.elapsed) local.clock = { elapsed: state.elapsed, at: performance.now() };
    if (local.cursor !== null && local.cursor >= run.count) local.cursor = null;
    showState();
    requestDraw();
  }

  function showState() {
    showHeader(view, state, local);
    showActions(view, state, local, ask);
    showNumbers(view, state, run);
    showSamples(view, state);
    showNotices(view, state);
    showClock();
    announce(headlineOf(state, local), state.phase !== local.announcedPhase);
  }

  function showClock() {
    const running = state.phase === "running" || state.phase === "stopping";
    const since = running ? (performance.now() - local.clock.at) / 1000 : 0;
    view.numbers.elapsed.value.textContent = clock((state.elapsed ?? 0) + since);
    const left = state.seconds_left === null ? null : Math.max(state.seconds_left - since, 0);
    view.numbers.left.value.textContent = left === null || state.phase !== "running" ? "–" : left < 1 ? "any moment" : clock(left);
  }

  function announce(sentence, now = false) {
    if (!now && performance.now() - local.announcedAt < ANNOUNCE_EVERY) return;
    local.announcedAt = performance.now();
    local.announcedPhase = state.phase;
    view.spoken.textContent = sentence;
  }

  function requestDraw() {
    cancelAnimationFrame(local.frame);
    local.frame = requestAnimationFrame(draw);
  }

  function draw() {
    const ink = inkOf(view.root);
    const steps = stepDomain(run, state);
    drawChart(view.charts.loss, lossPlot(run, state, ink), { steps, ink, run, log: local.log.loss, cursor: local.cursor });
    drawChart(view.charts.grad, gradPlot(run, state, ink), { steps, ink, run, log: local.log.grad, cursor: local.cursor });
    showTooltip(view, run, state, local.cursor, steps);
  }

  function moveCursor(index) {
    local.cursor = run.count === 0 || index === null ? null : Math.min(Math.max(index, 0), run.count - 1);
    requestDraw();
  }

  view.stop.addEventListener("click", () => {
    local.stopPressedAt = isBetweenSteps(state) ? state.step : state.step + 1;
    showHeader(view, state, local);
    announce(headlineOf(state, local), true);
    model.send({ command: "stop" });
  });

  for (const [name, chart] of Object.entries(view.charts)) {
    chart.logButton.addEventListener("click", () => {
      local.log[name] = !local.log[name];
      chart.logButton.setAttribute("aria-pressed", String(local.log[name]));
      requestDraw();
    });
    chart.canvas.addEventListener("pointermove", (event) => {
      const left = chart.canvas.getBoundingClientRect().left;
      const steps = stepDomain(run, state);
      moveCursor(nearestStep(run, stepAt(event.clientX - left, chart.canvas.clientWidth, steps)));
    });
    chart.canvas.addEventListener("pointerleave", () => moveCursor(null));
  }

  view.plots.addEventListener("keydown", (event) => {
    const at = local.cursor ?? run.count - 1;
    const stride = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: run.count - 1, Escape: null }[event.key];
    if (to === undefined || event.target !== view.plots) return;
    event.preventDefault();
    event.stopPropagation(); // a notebook reads the arrow keys as "next cell"
    moveCursor(to);
    if (local.cursor !== null) view.spoken.textContent = cursorSentence(run, state, local.cursor);
  });
  view.plots.addEventListener("blur", () => moveCursor(null));

  el.append(view.root);
  const timer = setInterval(showClock, TICK_EVERY);
  const resized = new ResizeObserver(requestDraw);
  resized.observe(view.plots);
  const themed = new MutationObserver(requestDraw);
  themed.observe(document.body, { attributes: true });
  model.on("change:state", takeIn); // one message carries all traits, and the state is in every one
  takeIn();

  return () => {
    clearInterval(timer);
    cancelAnimationFrame(local.frame);
    resized.disconnect();
    themed.disconnect();
    model.off("change:state", takeIn);
  };
}

/* ---- the page ------------------------------------------------------------------------------------------------- */

function buildView() {
  const stop = node("button", { class: "tunebook-stop", type: "button" }, "Stop");
  const actions = node("div", { class: "tunebook-actions", role: "group", "aria-label": "Between two steps", hidden: "" });
  const title = node("span", { class: "tunebook-model" });
  const phase = node("span", { class: "tunebook-phase" });
  const headline = node("p", { class: "tunebook-headline" });
  const reason = node("p", { class: "tunebook-reason", id: `tunebook-reason-${Math.random().toString(36).slice(2)}` });
  const fill = node("div", { class: "tunebook-progress-fill" });
  const progress = node("div", { class: "tunebook-progress", role: "progressbar", "aria-label": "Steps done" }, fill);
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const numbers = {
    loss: number("Loss"),
    best: number("Best held-out"),
    grad: number("Gradient norm"),
    lr: number("Learning rate"),
    speed: number("Speed"),
    memory: number("Peak memory"),
    elapsed: number("Elapsed"),
    left: number("Left"),
  };
  const charts = {
    loss: chartFrame("Loss", "nats per trained token", [
      ["raw", "each step"],
      ["smooth", "smoothed"],
      ["held", "held-out"],
    ]),
    grad: chartFrame("Gradient norm", "before clipping", [["grad", "each step"]]),
  };
  const tooltip = node("div", { class: "tunebook-tooltip", "aria-hidden": "true", hidden: "" });
  const plots = node(
    "div",
    { class: "tunebook-plots", tabindex: "0", role: "group", "aria-label": "Charts. Arrow keys move through the steps." },
    charts.loss.root,
    charts.grad.root,
    tooltip,
  );
  const samples = node("ul", { class: "tunebook-samples", "aria-label": "What the model writes", hidden: "" });
  const notices = node("ul", { class: "tunebook-notices", "aria-label": "Notices" });
  const root = node(
    "section",
    { class: "tunebook-dashboard", "aria-label": "Training run" },
    node("header", { class: "tunebook-header" }, node("div", { class: "tunebook-title" }, phase, title), actions, stop),
    headline,
    reason,
    progress,
    node("dl", { class: "tunebook-numbers" }, ...Object.values(numbers).map((each) => each.root)),
    plots,
    samples,
    notices,
    spoken,
  );
  return { root, stop, actions, title, phase, headline, reason, progress, fill, numbers, charts, plots, tooltip, samples, notices, spoken };
}

function number(label) {
  const value = node("dd", { class: "tunebook-value" }, "–");
  const detail = node("dd", { class: "tunebook-detail" });
  return { value, detail, root: node("div", {}, node("dt", {}, label), value, detail) };
}

function chartFrame(title, unit, legend) {
  const canvas = node("canvas", { role: "img" });
  const logButton = node("button", { class: "tunebook-log", type: "button", "aria-pressed": "false" }, "log");
  logButton.setAttribute("aria-label", `${title} on a logarithmic scale`);
  const hidden = node("span", { class: "tunebook-hidden-values" });
  const entries = legend.map(([kind, label]) => node("li", {}, node("i", { class: `tunebook-swatch-${kind}` }), label));
  const root = node(
    "figure",
    { class: "tunebook-chart" },
    node(
      "figcaption",
      {},
      node("strong", {}, title),
      node("span", { class: "tunebook-unit" }, unit),
      node("ul", { class: "tunebook-legend" }, ...entries),
      hidden,
      logButton,
    ),
    canvas,
  );
  return { root, canvas, logButton, hidden, title };
}

/** An element with attributes and children; a string child becomes a text node, never markup. */
function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Whether the work in hand is none of a step: an evaluation, a sample, a pause. */
function isBetweenSteps(state) {
  return state.working !== null && state.working !== undefined && state.working[0] !== "training";
}

function headlineOf(state, local) {
  const pressed = local.stopPressedAt !== null && state.phase === "running";
  return pressed ? `Stopping after step ${local.stopPressedAt}…` : (state.headline ?? "");
}

function showHeader(view, state, local) {
  const stopping = state.phase === "stopping" || (local.stopPressedAt !== null && state.phase === "running");
  const phase = stopping ? "stopping" : (state.phase ?? "running");
  view.root.dataset.phase = phase;
  const [work, finished, of] = state.working ?? [];
  const running =
    { evaluating: `Evaluating ${finished} of ${of}`, sampling: "Writing a sample", paused: "Paused" }[work] ?? "Training";
  view.phase.textContent = { running, stopping: "Stopping", ended: "Done" }[phase];
  view.title.textContent = state.model ?? "";
  view.title.title = state.model ?? "";
  view.headline.textContent = headlineOf(state, local);
  const part = state.working && !isBetweenSteps(state) ? finished / of : 0; // of the step in progress
  const done = state.total_steps ? (state.step + part) / state.total_steps : 0;
  view.fill.style.width = `${100 * Math.min(done, 1)}%`;
  view.progress.setAttribute("aria-valuenow", state.step ?? 0);
  view.progress.setAttribute("aria-valuemin", 0);
  view.progress.setAttribute("aria-valuemax", state.total_steps ?? 0);
  showStop(view, state, phase);
}

const ACTIONS = {
  pause: ["Pause", "Take no further step until resumed"],
  resume: ["Resume", "Go on with the next step"],
  evaluate: ["Evaluate", "Measure the held-out loss after this step"],
  sample: ["Sample", "See what the model writes after this step"],
  save: ["Save", "Write a checkpoint after this step"],
};

function showActions(view, state, local, ask) {
  const offered = state.stop === "heard" && state.phase === "running" ? (state.offered ?? []) : [];
  view.actions.hidden = offered.length === 0;
  const names = offered.join();
  if (view.actions.dataset.offered !== names) {
    const focused = view.actions.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    view.actions.dataset.offered = names;
    view.actions.replaceChildren(
      ...offered.map((command, place) => {
        const [label, title] = ACTIONS[command];
        const button = node("button", { type: "button", title, "data-command": command, "data-place": place }, label);
        button.addEventListener("click", () => button.getAttribute("aria-disabled") === "true" || ask(command));
        return button;
      }),
    );
    view.actions.querySelector(`[data-place="${focused}"]`)?.focus(); // Pause becomes Resume under the finger
  }
  for (const button of view.actions.children) {
    const { command } = button.dataset;
    button.setAttribute("aria-disabled", String(local.asked.has(command) || (state.pending ?? []).includes(command)));
  }
}

function showStop(view, state, phase) {
  const unheard = state.stop === "unheard" && phase === "running";
  view.stop.hidden = state.stop === "absent" || phase === "ended";
  view.stop.disabled = state.stop !== "heard" || phase !== "running";
  view.stop.textContent = phase === "stopping" ? "Stopping…" : "Stop";
  view.reason.textContent = unheard
    ? "This cell keeps the kernel busy, so a button cannot be heard. Use the notebook’s interrupt button ■ to stop " +
      "without losing work, or train with “await trainer.train_async()”."
    : "";
  view.reason.hidden = !unheard;
  view.stop.title = unheard
    ? view.reason.textContent
    : view.stop.disabled
      ? ""
      : "End the run after the step in progress; nothing is lost";
  if (unheard) view.stop.setAttribute("aria-describedby", view.reason.id);
  else view.stop.removeAttribute("aria-describedby");
}

function showNumbers(view, state, run) {
  const numbers = view.numbers;
  const stepped = state.step > 0;
  const smooth = run.count ? run.smooth[run.count - 1] : NaN;
  numbers.loss.value.textContent = stepped ? loss(state.loss) : "–";
  numbers.loss.detail.textContent = Number.isFinite(smooth) ? `smooth ${loss(smooth)}` : "";
  numbers.best.value.textContent = state.best_eval ? loss(state.best_eval[1]) : "–";
  numbers.best.detail.textContent = state.best_eval ? `at step ${count(state.best_eval[0])}` : "";
  numbers.grad.value.textContent = stepped && run.hasGradNorm ? short(state.grad_norm) : "–";
  numbers.grad.detail.textContent = state.clip_norm ? `clip at ${state.clip_norm}` : "";
  numbers.lr.value.textContent = stepped ? state.lr.toExponential(2).replace("-", "−") : "–";
  numbers.speed.value.textContent = stepped && state.tokens_sec !== null ? count(Math.round(state.tokens_sec)) : "–";
  numbers.speed.detail.textContent = "tokens/s";
  numbers.memory.value.textContent = stepped && state.peak_gb !== null ? state.peak_gb.toFixed(2) : "–";
  numbers.memory.detail.textContent = "GB";
  numbers.elapsed.detail.textContent = `${count(state.step ?? 0)} / ${count(state.total_steps ?? 0)}`;
  numbers.left.detail.textContent = "estimated";
}

function showNotices(view, state) {
  const lines = (state.notices ?? []).map(([step, text]) =>
    node("li", {}, node("span", { class: "tunebook-notice-step" }, `step ${count(step)}`), text),
  );
  if (state.hidden_notices) lines.unshift(node("li", {}, `${count(state.hidden_notices)} earlier notices`));
  view.notices.hidden = lines.length === 0;
  if (view.notices.childElementCount === lines.length && view.notices.textContent === lines.map((l) => l.textContent).join("")) return;
  view.notices.replaceChildren(...lines);
  view.notices.scrollTop = view.notices.scrollHeight;
}

function showSamples(view, state) {
  const lines = (state.samples ?? []).map(([step, prompt, text]) =>
    node(
      "li",
      {},
      node("span", { class: "tunebook-notice-step" }, `step ${count(step)}`),
      node("span", { class: "tunebook-prompt" }, prompt),
      node("q", {}, text),
    ),
  );
  view.samples.hidden = lines.length === 0;
  view.samples.replaceChildren(...lines);
}

function showTooltip(view, run, state, index, steps) {
  view.tooltip.hidden = index === null;
  if (index === null) return;
  const step = run.column.step[index];
  const held = (state.evals ?? []).find((each) => each[0] === step);
  const lines = [
    ["raw", "loss", loss(run.column.loss[index])],
    ...(Number.isFinite(run.smooth[index]) ? [["smooth", "smoothed", loss(run.smooth[index])]] : []),
    ...(held ? [["held", "held-out", loss(held[1])]] : []),
    ...(run.hasGradNorm ? [["grad", "gradient norm", short(run.column.grad_norm[index])]] : []),
    ["none", "learning rate", run.column.lr[index].toExponential(2).replace("-", "−")],
    ["none", "tokens/s", count(Math.round(run.column.tokens_sec[index]))],
  ];
  view.tooltip.replaceChildren(
    node("strong", {}, `Step ${count(step)}`),
    ...lines.map(([kind, label, value]) =>
      node("div", {}, node("i", { class: `tunebook-swatch-${kind}` }), node("span", {}, label), node("b", {}, value)),
    ),
  );
  const canvas = view.charts.loss.canvas;
  const x = canvas.offsetLeft + pixelOf(step, canvas.clientWidth, steps);
  const room = view.plots.clientWidth;
  const width = view.tooltip.offsetWidth;
  view.tooltip.style.left = `${x + 14 + width > room ? Math.max(x - 14 - width, 0) : x + 14}px`;
  view.tooltip.style.top = `${canvas.offsetTop + MARGIN.top}px`;
}

function cursorSentence(run, state, index) {
  const step = run.column.step[index];
  const held = (state.evals ?? []).find((each) => each[0] === step);
  const parts = [`Step ${step}: loss ${loss(run.column.loss[index])}`, `smoothed ${loss(run.smooth[index])}`];
  if (held) parts.push(`held-out ${loss(held[1])}`);
  if (run.hasGradNorm) parts.push(`gradient norm ${short(run.column.grad_norm[index])}`);
  return parts.join(", ");
}

/* ---- numbers as words ----------------------------------------------------------------------------------------- */

function loss(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  return value.toFixed(Math.abs(value) < 100 ? 3 : 1);
}

function short(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(1).replace("-", "−");
  return value.toFixed(size < 0.1 ? 4 : size < 10 ? 3 : size < 1000 ? 1 : 0);
}

/** A whole number in groups of three: 12,345. */
function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Seconds as 0:07, 12:34 or 1:02:03. */
function clock(seconds) {
  const whole = Math.floor(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${pad(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}

/* ---- the run -------------------------------------------------------------------------------------------------- */

function emptyRun(columns) {
  return { count: 0, column: Object.fromEntries(columns.map((name) => [name, new Float32Array(0)])), smooth: [], bad: [], hasGradNorm: false };
}

/** The packed rows of both traits as one typed array per column, with what is derived from them. */
function readRun(model, state) {
  const columns = model.get("columns");
  const blocks = [unpack(model.get("sealed")), unpack(model.get("recent"))];
  const total = blocks.reduce((sum, block) => sum + block.length, 0) / columns.length;
  const run = emptyRun(columns);
  run.count = total;
  columns.forEach((name, at) => {
    const values = new Float32Array(total);
    let row = 0;
    for (const block of blocks) for (let i = at; i < block.length; i += columns.length) values[row++] = block[i];
    run.column[name] = values;
  });
  run.hasGradNorm = run.column.grad_norm.some(Number.isFinite);
  run.smooth = debiasedEma(run.column.loss, state.ema_decay);
  run.bad = stretchesOf(run);
  return run;
}

/** The float32 values of a DataView, which may start at any byte. */
function unpack(bytes) {
  if (!bytes || bytes.byteLength === 0) return new Float32Array(0);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** freeze.debiased_ema: a value that is not finite leaves the average as it was and is NaN in the result. */
function debiasedEma(values, decay) {
  const smooth = new Float32Array(values.length).fill(NaN);
  let average = 0;
  let weight = 0;
  values.forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    average = decay * average + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    smooth[i] = average / weight;
  });
  return smooth;
}

/** First and last step of each stretch whose loss or gradient norm is not finite. */
function stretchesOf(run) {
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

/** Index of the step nearest to `target`. */
function nearestStep(run, target) {
  const steps = run.column.step;
  let low = 0;
  let high = run.count - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < target) low = middle;
    else high = middle;
  }
  return Math.abs(steps[low] - target) <= Math.abs(steps[high] - target) ? low : high;
}

/* ---- scales --------------------------------------------------------------------------------------------------- */

/** The steps on the x-axis. Its end grows in rare, round jumps, so the curve does not creep under the eye. */
function stepDomain(run, state) {
  const evals = (state.evals ?? []).map((each) => each[0]);
  const first = Math.min(run.count ? run.column.step[0] - 1 : 0, ...evals);
  const last = Math.max(run.count ? run.column.step[run.count - 1] : 0, ...evals);
  const total = Math.max(state.total_steps ?? 1, last, first + 1);
  const reach = roundUp(Math.max((last - first) * 1.25, 10));
  return [first, first + reach > total * 0.8 ? total : first + reach];
}

/** The next of 1, 1.5, 2, 3, 5, 7.5 times a power of ten. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 5, 7.5, 10].find((each) => each * power >= value * (1 - 1e-9));
}

function pixelOf(step, width, [first, last]) {
  return MARGIN.left + ((step - first) / (last - first)) * (width - MARGIN.left - MARGIN.right);
}

function stepAt(x, width, [first, last]) {
  return first + ((x - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * (last - first);
}

/** Lowest and highest value that can be drawn, with a little air; a logarithm has no place for 0 and below. */
function valueDomain(plot, log) {
  let low = Infinity;
  let high = -Infinity;
  const take = (value) => {
    if (!drawable(value, log)) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  plot.lines.forEach((line) => line.values.forEach(take));
  plot.points.forEach(([, value]) => take(value));
  // A line far above the curve would flatten it; then the legend alone says where it is.
  if (plot.reference && drawable(plot.reference.value, log) && plot.reference.value < 4 * high) take(plot.reference.value);
  if (low > high) return log ? [0.1, 10] : [0, 1];
  if (log) {
    const air = Math.max((high / low) ** 0.06, 1.02);
    return [low / air, high * air];
  }
  const air = Math.max((high - low) * 0.08, Math.abs(high) * 0.01, 1e-9);
  return [low >= 0 ? Math.max(low - air, 0) : low - air, high + air];
}

function drawable(value, log) {
  return value !== null && Number.isFinite(value) && (!log || value > 0);
}

/** Round values for the y-axis: 1, 2 and 5 in every decade where a log axis spans one, evenly spaced otherwise. */
function valueTicks([low, high], log, wanted) {
  if (!log || high / low < 10) return evenTicks([low, high], wanted, [1, 2, 2.5, 5, 10]);
  const decades = Math.log10(high / low);
  const heads = decades > 4 ? [1] : decades > 2 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const head of heads) ticks.push(head * 10 ** power);
  return ticks.filter((tick) => tick >= low && tick <= high);
}

/** Multiples of one of `heads` times a power of ten, at most `wanted` + 1 of them. */
function evenTicks([low, high], wanted, heads) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * heads.find((each) => each * power >= rough * (1 - 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / gap); k * gap <= high + gap * 1e-6; k++) ticks.push(k * gap);
  return ticks;
}

function tickLabel(value, gap) {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(0).replace("-", "−");
  const whole = (number) => Math.abs(number - Math.round(number)) < 1e-6;
  return value.toFixed([0, 1, 2, 3].find((decimals) => whole(gap * 10 ** decimals)) ?? 4);
}

/* ---- drawing -------------------------------------------------------------------------------------------------- */

function lossPlot(run, state, ink) {
  return {
    lines: [
      { values: run.column.loss, color: ink.loss, width: 1, alpha: 0.45 },
      { values: run.smooth, color: ink.loss, width: 2, alpha: 1, tip: true },
    ],
    points: state.evals ?? [],
    best: state.best_eval,
    empty: run.count ? "" : "The first step is on its way",
    sentence: chartSentence("Loss", run, run.column.loss),
  };
}

function gradPlot(run, state, ink) {
  return {
    lines: [{ values: run.column.grad_norm, color: ink.grad, width: 1.4, alpha: 1, tip: true }],
    points: [],
    reference: state.clip_norm ? { value: state.clip_norm, label: `clipped above ${state.clip_norm}` } : null,
    empty: run.count && !run.hasGradNorm ? "This trainer reports no gradient norm" : "",
    sentence: chartSentence("Gradient norm", run, run.column.grad_norm),
  };
}

function chartSentence(name, run, values) {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return `${name}: no steps yet.`;
  const low = finite.reduce((a, b) => Math.min(a, b));
  const high = finite.reduce((a, b) => Math.max(a, b));
  return `${name} over ${run.count} steps: first ${short(finite[0])}, now ${short(finite.at(-1))}, lowest ${short(low)}, highest ${short(high)}.`;
}

function drawChart(chart, plot, { steps, ink, run, log, cursor }) {
  const { canvas } = chart;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (width === 0 || height === 0) return;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.setAttribute("aria-label", plot.sentence);
  chart.hidden.textContent = log ? hiddenByLog(plot) : "";

  const values = valueDomain(plot, log);
  const scale = log ? Math.log : (value) => value;
  const [low, high] = values.map(scale);
  const x = (step) => pixelOf(step, width, steps);
  const y = (value) => height - MARGIN.bottom - ((scale(value) - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `11px ${ink.font}`;
  pen.lineJoin = "round";
  pen.lineCap = "round";
  const space = { pen, ink, width, height, x, y, log, ratio };

  if (plot.empty) drawEmpty(space, plot.empty);
  drawAxes(space, values, steps);
  drawBands(space, run.bad);
  for (const line of plot.lines) drawLine(space, run.column.step, line);
  if (plot.reference) drawReference(space, plot.reference, values);
  drawHeldOut(space, plot.points, plot.best);
  if (cursor !== null) drawCursor(space, run, plot, cursor);
}

function hiddenByLog(plot) {
  const values = [...plot.lines.slice(0, 1).flatMap((line) => [...line.values]), ...plot.points.map((point) => point[1])];
  const hidden = values.filter((value) => Number.isFinite(value) && value <= 0).length;
  return hidden ? `${hidden} at or below 0 not shown` : "";
}

function drawEmpty({ pen, ink, width, height }, sentence) {
  pen.fillStyle = ink.muted;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(sentence, width / 2, height / 2);
}

function drawAxes({ pen, ink, width, height, x, y, log }, values, steps) {
  const ticks = valueTicks(values, log, height > 160 ? 6 : 3);
  const gap = ticks.length > 1 ? Math.min(...ticks.slice(1).map((tick, i) => tick - ticks[i])) : values[1] - values[0];
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const tick of ticks) {
    const row = Math.round(y(tick)) + 0.5;
    pen.strokeStyle = ink.grid;
    line(pen, MARGIN.left, row, width - MARGIN.right, row);
    pen.fillStyle = ink.muted;
    pen.fillText(tickLabel(tick, log ? Math.min(gap, tick) : gap), MARGIN.left - 8, row);
  }
  pen.textBaseline = "top";
  pen.textAlign = "center";
  const bottom = height - MARGIN.bottom;
  pen.strokeStyle = ink.axis;
  line(pen, MARGIN.left, bottom + 0.5, width - MARGIN.right, bottom + 0.5);
  for (const tick of evenTicks(steps, width > 600 ? 8 : 4, [1, 2, 5, 10]).filter(Number.isInteger)) {
    const column = Math.round(x(tick)) + 0.5;
    line(pen, column, bottom, column, bottom + 4);
    const label = count(tick);
    pen.fillText(label, Math.min(column, width - pen.measureText(label).width / 2), bottom + 7);
  }
}

function line(pen, fromX, fromY, toX, toY) {
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(toX, toY);
  pen.stroke();
}

/** Hatched bands where a step was not finite: a gap alone reads as a step that never was. */
function drawBands({ pen, ink, height, x }, stretches) {
  const top = MARGIN.top;
  const bottom = height - MARGIN.bottom;
  for (const [first, last] of stretches) {
    const left = x(first - 0.5);
    const right = Math.max(x(last + 0.5), left + 3);
    pen.save();
    pen.beginPath();
    pen.rect(left, top, right - left, bottom - top);
    pen.clip();
    pen.globalAlpha = 0.08;
    pen.fillStyle = ink.bad;
    pen.fillRect(left, top, right - left, bottom - top);
    pen.globalAlpha = 0.4;
    pen.strokeStyle = ink.bad;
    pen.lineWidth = 1;
    for (let at = left - (bottom - top); at < right; at += 6) line(pen, at, bottom, at + (bottom - top), top);
    pen.restore();
  }
}

function drawReference({ pen, ink, width, y }, { value, label }, [low, high]) {
  if (value < low || value > high) return;
  const row = Math.round(y(value)) + 0.5;
  pen.save();
  pen.strokeStyle = ink.muted;
  pen.setLineDash([1, 4]);
  line(pen, MARGIN.left, row, width - MARGIN.right, row);
  pen.setLineDash([]);
  pen.textAlign = "right";
  const above = row - MARGIN.top > 16;
  pen.textBaseline = above ? "bottom" : "top";
  const place = [label, width - MARGIN.right, above ? row - 3 : row + 4];
  pen.strokeStyle = ink.paper; // a halo, for a curve may run behind the words
  pen.lineWidth = 4;
  pen.strokeText(...place);
  pen.fillStyle = ink.muted;
  pen.fillText(...place);
  pen.restore();
}

/** A line through every drawable value. Where several share a pixel column it runs from the first over the lowest and
 *  highest to the last of them, so a spike of one step in ten thousand is still a spike. */
function drawLine({ pen, ink, x, y, log, ratio, width }, steps, { values, color, width: thickness, alpha, tip }) {
  const dense = steps.length > width;
  pen.save();
  pen.strokeStyle = color;
  pen.lineWidth = thickness;
  pen.globalAlpha = alpha;
  pen.beginPath();
  let column = null; // the pixel column being gathered: {at, low, high, last}
  let joined = false; // whether the pen is on the line
  const put = (at, row) => {
    if (joined) pen.lineTo(at, row);
    else {
      pen.moveTo(at, row);
      pen.lineTo(at + 0.01, row); // a value between two gaps is at least a dot
    }
    joined = true;
  };
  const finishColumn = () => {
    if (column === null) return;
    put(column.at, column.low);
    put(column.at, column.high);
    put(column.at, column.last);
    column = null;
  };
  for (let i = 0; i < steps.length; i++) {
    if (!drawable(values[i], log)) {
      finishColumn();
      joined = false;
      continue;
    }
    const row = y(values[i]);
    if (!dense) {
      put(x(steps[i]), row);
      continue;
    }
    const at = Math.floor(x(steps[i]) * ratio) / ratio;
    if (column === null || column.at !== at) {
      finishColumn();
      put(at, row);
      column = { at, low: row, high: row, last: row };
    }
    column.low = Math.max(column.low, row);
    column.high = Math.min(column.high, row);
    column.last = row;
  }
  finishColumn();
  pen.stroke();
  if (tip && steps.length && drawable(values.at(-1), log)) dot(pen, x(steps.at(-1)), y(values.at(-1)), 3, color, ink.paper);
  pen.restore();
}

function drawHeldOut({ pen, ink, x, y, log }, points, best) {
  const shown = points.filter(([, value]) => drawable(value, log));
  pen.save();
  pen.strokeStyle = ink.held;
  pen.lineWidth = 1.2;
  pen.setLineDash([4, 4]);
  pen.beginPath();
  shown.forEach(([step, value], i) => (i ? pen.lineTo(x(step), y(value)) : pen.moveTo(x(step), y(value))));
  pen.stroke();
  pen.setLineDash([]);
  pen.lineWidth = 1.6;
  let last = -Infinity;
  for (const [step, value] of shown) {
    const isBest = best && best[0] === step;
    if (!isBest && x(step) - last < 10) continue; // diamonds on top of one another are a bar
    last = x(step);
    pen.fillStyle = isBest ? ink.held : ink.paper;
    diamond(pen, x(step), y(value), 4.5);
  }
  pen.restore();
}

function drawCursor({ pen, ink, height, x, y, log }, run, plot, index) {
  const step = run.column.step[index];
  const column = Math.round(x(step)) + 0.5;
  pen.strokeStyle = ink.axis;
  pen.lineWidth = 1;
  line(pen, column, MARGIN.top, column, height - MARGIN.bottom);
  for (const { values, color } of plot.lines)
    if (drawable(values[index], log)) dot(pen, x(step), y(values[index]), 3.5, color, ink.paper);
}

function dot(pen, x, y, radius, color, rim) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = color;
  pen.strokeStyle = rim;
  pen.lineWidth = 1.5;
  pen.fill();
  pen.stroke();
}

function diamond(pen, x, y, radius) {
  pen.beginPath();
  pen.moveTo(x, y - radius);
  pen.lineTo(x + radius, y);
  pen.lineTo(x, y + radius);
  pen.lineTo(x - radius, y);
  pen.closePath();
  pen.fill();
  pen.stroke();
}

/** The colours and the font of dashboard.css, resolved for the theme in force. */
function inkOf(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--tunebook-${name}`).trim();
  return {
    loss: read("loss"),
    held: read("held"),
    grad: read("grad"),
    bad: read("bad"),
    muted: read("muted"),
    grid: read("grid"),
    axis: read("axis"),
    paper: read("paper"),
    font: style.fontFamily,
  };
}
