/* A recorded run, played: a clock that can be started, sped up and set, and how many steps were done at its time. */

import { firstAtLeast } from "./columns.js";
import { button, node } from "./page.js";
import { clock, count } from "./words.js";

const FASTEST = 10_000; // times as fast as it was
const SECONDS_TO_PLAY = 30; // the whole run takes this long at the speed a replay starts with

/** `elapsed` are the run's own seconds after each step; `show(steps)` is called with how many are done. */
export function player(elapsed, show) {
  const last = elapsed.length ? elapsed[elapsed.length - 1] : 0;
  const first = elapsed.length ? Math.max(elapsed[0] - 1, 0) : 0; // a resumed run begins where it went on
  const play = button("Play", { class: "tunebook-play" });
  const place = node("input", { type: "range", min: "0", max: String(elapsed.length), step: "1", "aria-label": "Place in the run" });
  const speed = node("input", { type: "range", min: "0", max: "1", step: "0.01", "aria-label": "Speed" });
  const times = node("span", { class: "tunebook-place" });
  const root = node(
    "div",
    { class: "tunebook-player", role: "group", "aria-label": "Replay" },
    play,
    node("label", { class: "tunebook-scrub" }, place),
    node("label", { class: "tunebook-speed" }, "speed ", speed, times),
  );
  let seconds = first; // of the run
  let steps = -1; // shown
  let playing = false;
  let before = 0; // when the last frame was, in milliseconds
  let request = 0;

  const factor = () => FASTEST ** Number(speed.value);
  speed.value = String(Math.min(Math.max(Math.log(Math.max(last - first, 1) / SECONDS_TO_PLAY) / Math.log(FASTEST), 0), 1));

  function tell() {
    const done = seconds >= last ? elapsed.length : firstAtLeast(elapsed, seconds + 1e-6);
    if (done === steps) return;
    steps = done;
    place.value = String(steps);
    place.setAttribute("aria-valuetext", `${count(steps)} steps, ${clock(seconds)}`);
    show(steps);
  }

  function tick(now) {
    seconds = Math.min(seconds + ((now - before) / 1000) * factor(), last);
    before = now;
    tell();
    if (seconds >= last) setPlaying(false);
    else request = requestAnimationFrame(tick);
  }

  function setPlaying(wanted) {
    cancelAnimationFrame(request);
    playing = wanted;
    play.textContent = playing ? "Pause" : "Play";
    if (!playing) return;
    if (seconds >= last) seconds = first;
    before = performance.now();
    request = requestAnimationFrame(tick);
  }

  function showSpeed() {
    times.textContent = `× ${count(Math.round(factor()))}`;
    speed.setAttribute("aria-valuetext", `${Math.round(factor())} times`);
  }

  play.addEventListener("click", () => setPlaying(!playing));
  speed.addEventListener("input", showSpeed);
  place.addEventListener("input", () => {
    const done = Number(place.value);
    seconds = done ? elapsed[done - 1] : first;
    tell();
  });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // a notebook reads keys as commands
  showSpeed();

  return {
    root,
    start: () => setPlaying(true),
    finish() {
      seconds = last;
      tell();
    },
    close: () => cancelAnimationFrame(request),
  };
}
