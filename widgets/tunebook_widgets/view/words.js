/* Numbers as words, for headings, axes and screen readers. */

/** Nats to three decimals, fewer above 100. */
export function loss(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  return value.toFixed(Math.abs(value) < 100 ? 3 : 1);
}

/** Any number to about three digits. */
export function short(value) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(1).replace("-", "−");
  return value.toFixed(size < 0.1 ? 4 : size < 10 ? 3 : size < 1000 ? 1 : 0);
}

/** A learning rate: 2.00e−4. */
export function rate(value) {
  return Number.isFinite(value) ? value.toExponential(2).replace("-", "−") : "–";
}

/** GB (1e9 bytes) to two decimals. */
export function gigabytes(value) {
  return Number.isFinite(value) ? value.toFixed(2) : "–";
}

/** A whole number in groups of three: 12,345. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Seconds as 0:07, 12:34 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${pad(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${pad(minutes % 60)}:${pad(whole % 60)}`;
}
