/* One chart on a canvas: a plot (lines, points, marks, bands) and a view of it (steps, scale, crosshair) in, pixels out. */

import { firstAtLeast } from "./columns.js";
import { count } from "./words.js";
import { MARGIN, decimate, drawable, evenTicks, pixelOf, tickLabel, valueDomain, valueTicks, visible } from "./scales.js";

/** Draw `plot` as `view` = {steps, log, clipped, cursor, selection} has it; returns how many values could not be shown.
 *
 *  The result is {belowLog, above, below}: values at or below 0 on a log scale, and those beyond a clipped scale. */
export function drawChart(canvas, plot, view, ink) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const hidden = { belowLog: 0, above: 0, below: 0 };
  if (width === 0 || height === 0) return hidden;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  if (canvas.getAttribute("aria-label") !== plot.sentence) canvas.setAttribute("aria-label", plot.sentence);

  const { log, steps } = view;
  const known = valueDomain(plot, steps, view);
  const values = known ?? [0.1, 1];
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
  const space = { pen, ink, width, height, x, y, log, ratio, steps, values };

  if (log) hidden.belowLog = belowLog(plot, steps);
  if (known === null) drawEmpty(space, hidden.belowLog ? "Nothing above 0, so nothing on a logarithmic scale" : plot.empty);
  if (known === null && !plot.bands.length) return hidden; // axes from 0 to 1 would mean nothing
  drawAxes(space, known !== null);
  pen.save();
  pen.beginPath();
  pen.rect(MARGIN.left - 7, 0, width - MARGIN.left - MARGIN.right + 14, height - MARGIN.bottom + 1);
  pen.clip();
  drawBands(space, plot.bands);
  drawMarks(space, plot.marks);
  if (plot.shade) drawShade(space, plot.shade);
  for (const line of plot.lines) drawLine(space, line);
  if (view.clipped) drawClipped(space, plot.lines[0], hidden);
  for (const points of plot.points) drawPoints(space, points);
  pen.restore();
  if (plot.reference) drawReference(space, plot.reference);
  if (view.selection) drawSelection(space, view.selection);
  if (view.cursor !== null) drawCursor(space, plot, view.cursor);
  return hidden;
}

function belowLog(plot, steps) {
  const { values, steps: own } = plot.lines[0] ?? { values: [], steps: [] };
  const [from, to] = visible(own, steps);
  let hidden = plot.points.flatMap((each) => each.values).filter((point) => point[1] !== null && point[1] <= 0).length;
  for (let i = from; i < to; i++) if (values[i] <= 0) hidden++;
  return hidden;
}

function drawEmpty({ pen, ink, width, height }, sentence) {
  pen.fillStyle = ink.muted;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(sentence, width / 2, height / 2);
}

function drawAxes({ pen, ink, width, height, x, y, log, steps, values }, hasValues) {
  const ticks = hasValues ? valueTicks(values, log, height > 160 ? 6 : 4) : [];
  const gap = ticks.length > 1 ? Math.min(...ticks.slice(1).map((tick, i) => tick - ticks[i])) : Math.abs(ticks[0]);
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const tick of ticks) {
    const row = Math.round(y(tick)) + 0.5;
    pen.strokeStyle = ink.grid;
    stroke(pen, MARGIN.left, row, width - MARGIN.right, row);
    pen.fillStyle = ink.muted;
    pen.fillText(tickLabel(tick, log ? Math.min(gap, tick) : gap), MARGIN.left - 8, row);
  }
  pen.textBaseline = "top";
  pen.textAlign = "center";
  const bottom = height - MARGIN.bottom;
  pen.strokeStyle = ink.axis;
  stroke(pen, MARGIN.left, bottom + 0.5, width - MARGIN.right, bottom + 0.5);
  for (const tick of evenTicks(steps, width > 600 ? 8 : 4, [1, 2, 5, 10]).filter(Number.isInteger)) {
    const column = Math.round(x(tick)) + 0.5;
    stroke(pen, column, bottom, column, bottom + 4);
    const label = count(tick);
    pen.fillText(label, Math.min(column, width - pen.measureText(label).width / 2), bottom + 7);
  }
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
    for (let at = left - (bottom - top); at < right; at += 6) stroke(pen, at, bottom, at + (bottom - top), top);
    pen.restore();
  }
}

/** Checkpoints as small triangles on the axis, changes of the learning rate as dotted uprights. */
function drawMarks({ pen, ink, height, x }, { checkpoints, changes }) {
  const bottom = height - MARGIN.bottom;
  pen.fillStyle = ink.muted;
  for (const step of checkpoints) {
    const at = x(step);
    pen.beginPath();
    pen.moveTo(at - 3.5, bottom);
    pen.lineTo(at + 3.5, bottom);
    pen.lineTo(at, bottom - 6);
    pen.fill();
  }
  pen.save();
  pen.strokeStyle = ink.muted;
  pen.setLineDash([2, 3]);
  for (const step of changes) stroke(pen, x(step + 0.5), MARGIN.top, x(step + 0.5), bottom);
  pen.restore();
}

function drawLine(space, { steps, values, color, width: thickness, alpha = 1, dash = [], tip = false, derived = false }) {
  const { pen, ink, x, y, log, width } = space;
  const range = visible(steps, space.steps);
  pen.save();
  pen.strokeStyle = pen.fillStyle = color;
  pen.lineWidth = thickness;
  pen.globalAlpha = alpha;
  pen.setLineDash(dash);
  pen.beginPath();
  if (range[1] - range[0] <= width) traceValues(space, { steps, values }, range);
  else if (dash.length) traceColumns(space, { steps, values }, range, derived);
  else fillColumns(space, { steps, values, thickness }, range);
  pen.stroke();
  if (tip && range[1] && range[1] === steps.length && drawable(values[range[1] - 1], log)) {
    pen.setLineDash([]);
    dot(pen, x(steps[range[1] - 1]), y(values[range[1] - 1]), 3, color, ink.paper);
  }
  pen.restore();
}

/** The room between two lines, at the steps both have a value. */
function drawShade({ pen, x, y, log, steps, width }, { upper, lower, color }) {
  const [from, to] = visible(upper.steps, steps);
  const stride = Math.max(Math.floor((to - from) / width), 1); // no finer than the columns of pixels
  const places = [];
  for (let i = from; i < to - 1; i += stride) places.push(i);
  if (to > from) places.push(to - 1);
  const edges = [];
  for (const i of places) {
    const other = firstAtLeast(lower.steps, upper.steps[i]);
    if (lower.steps[other] !== upper.steps[i]) continue;
    const [above, below] = [upper.values[i], lower.values[other]];
    if (drawable(above, log) && drawable(below, log)) edges.push([x(upper.steps[i]), y(above), y(below)]);
  }
  pen.save();
  pen.globalAlpha = 0.14;
  pen.fillStyle = color;
  pen.beginPath();
  edges.forEach(([at, row], i) => (i ? pen.lineTo(at, row) : pen.moveTo(at, row)));
  edges.reverse().forEach(([at, , row]) => pen.lineTo(at, row));
  pen.fill();
  pen.restore();
}

function traceValues({ pen, x, y, log }, { steps, values }, [from, to]) {
  let joined = false;
  for (let i = from; i < to; i++) {
    if (!drawable(values[i], log)) {
      joined = false;
      continue;
    }
    const [at, row] = [x(steps[i]), y(values[i])];
    if (joined) pen.lineTo(at, row);
    else begin(pen, at, row);
    joined = true;
  }
}

/** What is `smooth` goes from column to column; of what is not, the highest and the lowest in each are drawn too. */
function traceColumns(space, line, range, smooth) {
  let joined = false;
  for (const column of decimate(line, range, space)) {
    if (column === null) {
      joined = false;
      continue;
    }
    const [at, first, low, high, last] = column;
    if (joined) space.pen.lineTo(at, smooth ? last : first);
    else begin(space.pen, at, first);
    joined = true;
    if (smooth) continue;
    if (low !== first) space.pen.lineTo(at, low);
    if (high !== low) space.pen.lineTo(at, high);
    if (last !== high) space.pen.lineTo(at, last);
  }
}

/** What `traceColumns` would draw undashed, as one bar in every column: many times as fast to paint. */
function fillColumns(space, line, range) {
  const { pen, ratio } = space;
  const half = line.thickness / 2;
  let before = null; // where the last column left off
  for (const column of decimate(line, range, space)) {
    if (column !== null) {
      const low = before === null ? column[2] : Math.max(column[2], before);
      const high = before === null ? column[3] : Math.min(column[3], before);
      pen.fillRect(column[0], high - half, 1 / ratio, low - high + line.thickness);
    }
    before = column === null ? null : column[4];
  }
}

/** A value between two gaps is at least a dot. */
function begin(pen, at, row) {
  pen.moveTo(at, row);
  pen.lineTo(at + 0.01, row);
}

/** Triangles at the rim where a line leaves a clipped scale, and how many of its values do. */
function drawClipped({ pen, ink, height, x, steps, values: [low, high] }, line, hidden) {
  if (!line) return;
  const [from, to] = visible(line.steps, steps);
  const bottom = height - MARGIN.bottom;
  const last = { above: -Infinity, below: -Infinity };
  pen.fillStyle = ink.bad;
  for (let i = from; i < to; i++) {
    const side = line.values[i] > high ? "above" : line.values[i] < low ? "below" : null;
    if (side === null || line.steps[i] < steps[0] || line.steps[i] > steps[1]) continue;
    hidden[side]++;
    const at = x(line.steps[i]);
    if (at - last[side] < 6) continue; // triangles on top of one another are a bar
    last[side] = at;
    const [base, tip] = side === "above" ? [MARGIN.top, MARGIN.top - 7] : [bottom - 8, bottom - 1];
    pen.beginPath();
    pen.moveTo(at - 4, base);
    pen.lineTo(at + 4, base);
    pen.lineTo(at, tip);
    pen.fill();
  }
}

/** Diamonds joined by a dashed line; the best one filled. */
function drawPoints({ pen, ink, x, y, log, steps }, { values: points, color, best = null }) {
  const shown = points.filter(([, value]) => drawable(value, log));
  pen.save();
  pen.strokeStyle = color;
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
    if (step < steps[0] || step > steps[1] || (!isBest && x(step) - last < 10)) continue; // else a bar of diamonds
    last = x(step);
    pen.fillStyle = isBest ? color : ink.paper;
    diamond(pen, x(step), y(value), isBest ? 6 : 4.5);
  }
  pen.restore();
}

function drawReference({ pen, ink, width, y, values: [low, high] }, { value, label }) {
  if (value < low || value > high) return;
  const row = Math.round(y(value)) + 0.5;
  pen.save();
  pen.strokeStyle = ink.muted;
  pen.setLineDash([1, 4]);
  stroke(pen, MARGIN.left, row, width - MARGIN.right, row);
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

function drawSelection({ pen, ink, height, x }, [first, last]) {
  pen.save();
  pen.globalAlpha = 0.14;
  pen.fillStyle = ink.loss;
  pen.fillRect(x(first), MARGIN.top, x(last) - x(first), height - MARGIN.top - MARGIN.bottom);
  pen.restore();
}

/** An upright at `step`, and a dot on every line that has a value there. */
function drawCursor({ pen, ink, height, x, y, log, steps, values: [low, high] }, plot, step) {
  if (step < steps[0] || step > steps[1]) return;
  const column = Math.round(x(step)) + 0.5;
  pen.strokeStyle = ink.axis;
  pen.lineWidth = 1;
  stroke(pen, column, MARGIN.top, column, height - MARGIN.bottom);
  for (const { steps: own, values, color } of plot.lines) {
    const [at] = visible(own, [step, step]);
    const index = own[at] === step ? at : at + 1;
    const value = own[index] === step ? values[index] : null;
    if (drawable(value, log) && value >= low && value <= high) dot(pen, x(step), y(value), 3.5, color, ink.paper);
  }
}

function stroke(pen, fromX, fromY, toX, toY) {
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(toX, toY);
  pen.stroke();
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

/** The colours and the font of the style sheet, resolved for the theme in force. */
export function inkOf(root) {
  const style = getComputedStyle(root);
  const names = ["loss", "held", "grad", "rate", "speed", "memory", "chosen", "rejected", "third", "fourth", "bad", "muted", "grid", "axis", "paper"];
  const colors = names.map((name) => [name, style.getPropertyValue(`--tunebook-${name}`).trim()]);
  return { ...Object.fromEntries(colors), font: style.fontFamily };
}
