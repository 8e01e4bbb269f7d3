/* Charts that move together: one crosshair, one stretch of steps, on every chart of a page.
 *
 * In come plots and the whole domain; the stretch shown, the scales and the crosshair are kept here. Drag to zoom, drag
 * with Shift or scroll sideways to move along, double-click for the whole; arrow keys, +, − and 0 do the same. */

import { drawChart, inkOf } from "./chart.js";
import { nearest } from "./columns.js";
import { button, node } from "./page.js";
import { MARGIN, pixelOf, stepAt } from "./scales.js";
import { count } from "./words.js";

const FEWEST_STEPS = 4; // on the axis when zoomed in as far as it goes
const DRAGGED = 5; // pixels; less is a click

/** `charts` = {name: {title, unit, legend}}; `rows(step)` gives [kind, label, value] of a step, for the tooltip.
 *
 *  `show(plots, whole, steps)` takes the plots by name, as a function of the colours; the whole domain; and the steps the
 *  crosshair stops at. `offer(charts, heading)` adds a group of charts. `say(sentence)` is told what a keyboard found. */
export function linkedCharts(charts, { rows, sentence, say }) {
  const framesOf = (some) => Object.fromEntries(Object.entries(some).map(([name, chart]) => [name, chartFrame(name, chart)]));
  const own = framesOf(charts);
  let frames = own; // and those of the objective, which are known when its first step is
  let offered = "{}";
  const group = node("div", { class: "tunebook-group", role: "group", hidden: "" });
  const tooltip = node("div", { class: "tunebook-tooltip", "aria-hidden": "true", hidden: "" });
  const whole = button("Show the whole run", { class: "tunebook-whole", hidden: "" });
  const root = node(
    "div",
    {
      class: "tunebook-plots",
      tabindex: "0",
      role: "group",
      "aria-label": "Charts. Arrow keys move through the steps, plus and minus zoom, 0 shows the whole run.",
    },
    whole,
    Object.values(own)[0].root,
    group,
    ...Object.values(own).slice(1).map((frame) => frame.root),
    tooltip,
  );
  let given = { plots: () => ({}), whole: [0, 1], steps: [] };
  let made = null; // the plots in the colours of the moment
  let zoom = null; // [first, last], or null for the whole
  let cursor = null; // index into given.steps
  let pointed = Object.values(own)[0]; // the chart the crosshair was last moved in
  let drag = null; // {frame, from, at, steps, pans}
  let frameRequest = 0;

  const domain = () => zoom ?? given.whole;
  const stepOf = (index) => (index === null ? null : given.steps[index]);

  function request() {
    if (!frameRequest) frameRequest = requestAnimationFrame(draw);
  }

  function draw() {
    frameRequest = 0;
    made ??= { plots: given.plots(inkOf(root)), ink: inkOf(root) };
    const selection = drag && !drag.pans && Math.abs(drag.at - drag.from) > DRAGGED ? selected() : null;
    for (const [name, frame] of Object.entries(frames)) {
      const plot = made.plots[name];
      if (!plot) continue;
      const view = { steps: domain(), log: frame.log, clipped: frame.clipped, cursor: stepOf(cursor), selection };
      frame.unit.textContent = plot.unit ?? frame.ownUnit;
      frame.hidden.textContent = hiddenSentence(drawChart(frame.canvas, plot, view, made.ink));
    }
    showTooltip();
  }

  function selected() {
    const width = drag.frame.canvas.clientWidth;
    return [drag.from, drag.at].map((x) => stepAt(x, width, drag.steps)).sort((a, b) => a - b);
  }

  function zoomTo(first, last) {
    const [low, high] = given.whole;
    const span = Math.min(Math.max(last - first, FEWEST_STEPS), high - low);
    const start = Math.min(Math.max(first, low), high - span);
    zoom = span >= (high - low) * 0.999 ? null : [start, start + span];
    whole.hidden = zoom === null;
    request();
  }

  function moveCursor(index, frame = pointed) {
    const last = given.steps.length - 1;
    cursor = last < 0 || index === null ? null : Math.min(Math.max(index, 0), last);
    pointed = frame;
    request();
  }

  function showTooltip() {
    tooltip.hidden = cursor === null || cursor >= given.steps.length;
    if (tooltip.hidden) return;
    const step = stepOf(cursor);
    tooltip.replaceChildren(
      node("strong", {}, `Step ${count(step)}`),
      ...rows(step, cursor).map(([kind, label, value]) =>
        node("div", {}, node("i", { class: `tunebook-swatch-${kind}` }), node("span", {}, label), node("b", {}, value)),
      ),
    );
    const canvas = pointed.canvas;
    const x = canvas.offsetLeft + pixelOf(step, canvas.clientWidth, domain());
    const room = root.clientWidth;
    const width = tooltip.offsetWidth;
    tooltip.style.left = `${x + 14 + width > room ? Math.max(x - 14 - width, 0) : x + 14}px`;
    tooltip.style.top = `${canvas.offsetTop + MARGIN.top}px`;
  }

  function listen(frame) {
    const { canvas } = frame;
    const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      drag = { frame, from: at(event), at: at(event), steps: domain(), pans: event.shiftKey };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) drag.at = at(event);
      if (drag?.pans) {
        const width = canvas.clientWidth;
        const moved = stepAt(drag.from, width, drag.steps) - stepAt(drag.at, width, drag.steps);
        zoomTo(drag.steps[0] + moved, drag.steps[1] + moved);
      }
      moveCursor(nearest(given.steps, stepAt(at(event), canvas.clientWidth, domain())), frame);
    });
    canvas.addEventListener("pointerup", () => {
      if (drag && !drag.pans && Math.abs(drag.at - drag.from) > DRAGGED) zoomTo(...selected());
      drag = null;
      request();
    });
    canvas.addEventListener("pointercancel", () => (drag = null));
    canvas.addEventListener("pointerleave", () => drag || moveCursor(null));
    canvas.addEventListener("dblclick", () => zoomTo(...given.whole));
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (zoom === null || Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return; // up and down is the page's
        event.preventDefault();
        const moved = (event.deltaX / canvas.clientWidth) * (zoom[1] - zoom[0]);
        zoomTo(zoom[0] + moved, zoom[1] + moved);
      },
      { passive: false },
    );
    for (const [name, toggle] of Object.entries(frame.toggles))
      toggle.addEventListener("click", () => {
        frame[name] = !frame[name];
        toggle.setAttribute("aria-pressed", String(frame[name]));
        request();
      });
  }

  function onKey(event) {
    if (event.target !== root || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = cursor ?? given.steps.length - 1;
    const stride = event.shiftKey ? 10 : 1;
    const last = given.steps.length - 1;
    const to = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: last, Escape: null }[event.key];
    const factor = { "+": 0.5, "=": 0.5, "-": 2, "−": 2 }[event.key];
    if (to === undefined && factor === undefined && event.key !== "0") return;
    event.preventDefault();
    event.stopPropagation(); // a notebook reads keys as commands: an arrow as "next cell", 0 0 as "restart the kernel"
    if (factor) {
      const [first, end] = domain();
      const middle = stepOf(cursor) ?? (first + end) / 2;
      zoomTo(middle - (middle - first) * factor, middle + (end - middle) * factor);
    } else if (event.key === "0") zoomTo(...given.whole);
    else {
      moveCursor(to);
      if (cursor !== null) say(sentence(stepOf(cursor), cursor));
    }
  }

  /** Show the charts `some` under the words `heading`, below the first; those that are there stay as they are. */
  function offer(some, heading) {
    if (JSON.stringify([some, heading]) === offered) return;
    offered = JSON.stringify([some, heading]);
    const made = framesOf(some);
    Object.values(made).forEach(listen);
    frames = { ...own, ...made };
    if (!Object.values(frames).includes(pointed)) moveCursor(null, Object.values(own)[0]);
    const roots = Object.values(made).map((frame) => frame.root);
    group.replaceChildren(...(heading ? [node("p", { class: "tunebook-group-heading" }, heading)] : []), ...roots);
    group.classList.toggle("tunebook-odd", roots.length % 2 === 1);
    group.setAttribute("aria-label", heading);
    group.hidden = roots.length === 0;
  }

  Object.values(own).forEach(listen);
  root.addEventListener("keydown", onKey);
  root.addEventListener("blur", () => moveCursor(null));
  whole.addEventListener("click", () => {
    zoomTo(...given.whole);
    root.focus();
  });
  const repaint = () => {
    made = null;
    request();
  };
  const resized = new ResizeObserver(repaint);
  resized.observe(root);
  const themed = new MutationObserver(repaint);
  themed.observe(document.body, { attributes: true });

  return {
    root,
    show(plots, wholeDomain, steps) {
      given = { plots, whole: wholeDomain, steps };
      if (cursor !== null && cursor >= steps.length) cursor = null;
      made = null;
      request();
    },
    zoomTo,
    offer,
    close() {
      cancelAnimationFrame(frameRequest);
      resized.disconnect();
      themed.disconnect();
    },
  };
}

function chartFrame(name, { title, unit, legend }) {
  const canvas = node("canvas", { role: "img" });
  const toggle = (label, what) => {
    const made = button(label, { class: "tunebook-toggle", "aria-pressed": "false" });
    made.setAttribute("aria-label", `${title} ${what}`);
    return made;
  };
  const toggles = { log: toggle("log", "on a logarithmic scale"), clipped: toggle("clip", "without its outliers") };
  const hidden = node("span", { class: "tunebook-hidden-values" });
  const written = node("span", { class: "tunebook-unit" }, unit);
  const entries = legend.map(([kind, label]) => node("li", {}, node("i", { class: `tunebook-swatch-${kind}` }), label));
  const root = node(
    "figure",
    { class: "tunebook-chart", "data-chart": name },
    node(
      "figcaption",
      {},
      node("strong", {}, title),
      written,
      hidden,
      node("ul", { class: "tunebook-legend" }, ...entries),
      toggles.log,
      toggles.clipped,
    ),
    canvas,
  );
  return { root, canvas, toggles, hidden, unit: written, ownUnit: unit, log: false, clipped: false };
}

function hiddenSentence({ belowLog, above, below }) {
  const parts = [belowLog && `${belowLog} at or below 0 not shown`, above && `${above} above`, below && `${below} below`];
  return parts.filter(Boolean).join(", ");
}
