/* What can be asked of a run: buttons that answer at once and wait for the run to do as asked.
 *
 * In a cell that keeps the kernel busy nobody hears them; then they say so and point to the interrupt button. */

import { button, disable, isDisabled, node } from "./page.js";
import { count } from "./words.js";

const ACTIONS = {
  pause: ["Pause", "Take no further step until resumed"],
  resume: ["Resume", "Go on with the next step"],
  evaluate: ["Evaluate", "Measure the held-out loss after this step"],
  exam: ["Take exam", "Ask the rows of the exam after this step; what they score changes nothing of the run"],
  sample: ["Sample", "See what the model writes after this step"],
  save: ["Save", "Write a checkpoint after this step"],
  learning_rate: ["Learning rate", "Go on with another learning rate"],
};
const UNHEARD =
  "This cell keeps the kernel busy, so a button cannot be heard. Use the notebook’s interrupt button ■ to stop " +
  "without losing work, or train with “await trainer.train_async()”.";
const DISCARDS = "End the run and put the weights back as they were before it; checkpoints it wrote stay";
const NO_DISCARD =
  "So many weights are trained that no copy of the old ones fits in memory. Stop, and load the model again to have them back.";
const FAR_ABOVE = 5; // times the learning rate in force, from where a higher one is asked about
const SURE_FOR = 5000; // milliseconds in which a second press of Discard counts

/** The buttons; `ask(command, value)` sends a request, `say(sentence)` tells a screen reader. */
export function controls(ask, say) {
  const group = node("div", { class: "tunebook-actions", role: "group", "aria-label": "Between two steps", hidden: "" });
  const stop = button("Stop", { class: "tunebook-stop" });
  const discard = button("Discard", { class: "tunebook-discard" });
  const reason = node("p", { class: "tunebook-reason", id: `tunebook-reason-${Math.random().toString(36).slice(2)}` });
  const rate = rateForm((value) => send("learning_rate", value), say);
  const runaway = runawayView(() => end("go_back"));
  const asked = new Set(); // pressed in this page, and the run has not acknowledged it
  let state = {};
  let stopping = false; // pressed in this page
  let sureUntil = 0;

  function send(command, value) {
    asked.add(command);
    ask(command, value);
    mark();
    const [label] = ACTIONS[command] ?? [command];
    say(`${label}: asked for, done after the step in progress.`);
  }

  function press(command) {
    const pressed = group.querySelector(`[data-command="${command}"]`);
    if (isDisabled(pressed)) return explain();
    return command === "learning_rate" ? rate.open(state.learning_rate) : send(command);
  }

  function explain() {
    if (state.stop === "unheard") say(UNHEARD);
    else if (!state.discards) say(NO_DISCARD);
  }

  function end(command) {
    stopping = true;
    ask(command);
    show(state);
  }

  /** Which buttons there are; a focus stays at its place, for Pause becomes Resume under the finger. */
  function offer(offered) {
    const names = offered.join();
    group.hidden = offered.length === 0;
    if (group.dataset.offered === names) return;
    const focused = group.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    group.dataset.offered = names;
    group.replaceChildren(
      ...offered.map((command, place) => {
        const [label, title] = ACTIONS[command];
        const made = button(label, { title, "data-command": command, "data-place": place });
        made.addEventListener("click", () => press(command));
        return made;
      }),
    );
    group.querySelector(`[data-place="${focused}"]`)?.focus();
  }

  function mark() {
    const unheard = state.stop === "unheard";
    for (const each of group.children) {
      const { command } = each.dataset;
      const waits = asked.has(command) || (state.pending ?? []).includes(command);
      const [label, title] = ACTIONS[command];
      disable(each, unheard || waits);
      each.textContent = waits ? `${label}…` : label;
      each.title = unheard ? UNHEARD : title;
    }
  }

  function show(newState) {
    state = newState;
    const running = state.phase === "running" && !stopping;
    const unheard = state.stop === "unheard" && running;
    const ended = state.phase === "ended" || state.stop === "absent";
    offer(running && state.stop !== "absent" ? (state.offered ?? []) : []);
    mark();
    if (!running) rate.close();
    runaway.show(running && state.stop === "heard" ? state.ran_away : null);
    stop.hidden = ended;
    discard.hidden = ended || !running;
    for (const each of [stop, discard]) disable(each, unheard || !running);
    stop.textContent = running ? "Stop" : "Stopping…";
    stop.title = unheard ? UNHEARD : !running ? "" : (state.stop_means ?? "");
    discard.title = unheard ? UNHEARD : state.discards ? DISCARDS : NO_DISCARD;
    disable(discard, unheard || !running || !state.discards);
    reason.textContent = unheard ? UNHEARD : "";
    reason.hidden = !unheard;
    for (const each of [stop, discard])
      if (unheard) each.setAttribute("aria-describedby", reason.id);
      else each.removeAttribute("aria-describedby");
  }

  stop.addEventListener("click", () => (isDisabled(stop) ? explain() : end("stop")));
  discard.addEventListener("click", () => {
    if (isDisabled(discard)) return explain();
    if (performance.now() < sureUntil) return end("discard");
    sureUntil = performance.now() + SURE_FOR;
    discard.textContent = "Really discard?";
    say("Press again to give the run up: its weights go back to what they were before it.");
    setTimeout(() => (discard.textContent = "Discard"), SURE_FOR);
    return undefined;
  });

  return {
    group,
    stop,
    discard,
    reason,
    form: rate.root,
    runaway: runaway.root,
    show,
    /** The run has said something new: what it has not taken up by now it will not. */
    acknowledge: () => asked.clear(),
    get stopping() {
      return stopping && state.phase === "running";
    },
  };
}

/** What was said of a loss that runs away, [step, text, step to go back to], and the button that does. */
function runawayView(goBack) {
  const words = node("p", {});
  const back = button("", { title: "End the run with the step in progress, and put the weights of that checkpoint into the model" });
  const stay = button("Go on as it is");
  const root = node("div", { class: "tunebook-runaway", role: "alert", hidden: "" }, words, node("div", { class: "tunebook-line" }, back, stay));
  let dismissed = 0; // the step it was said after
  let said = null;
  back.addEventListener("click", goBack);
  stay.addEventListener("click", () => {
    dismissed = said[0];
    root.hidden = true;
  });
  return {
    root,
    show(now) {
      said = now ?? null;
      root.hidden = said === null || said[0] === dismissed;
      if (root.hidden || root.dataset.step === String(said[0])) return;
      root.dataset.step = said[0];
      words.textContent = said[1];
      back.textContent = `Go back to step ${count(said[2])}`;
    },
  };
}

function rateForm(send, say) {
  const input = node("input", { type: "text", inputmode: "decimal", size: "9", "aria-label": "New learning rate" });
  const complaint = node("span", { class: "tunebook-complaint", role: "alert" });
  const cancel = button("Cancel");
  const root = node(
    "form",
    { class: "tunebook-rate", hidden: "" },
    node("label", {}, "The schedule goes on as if learning_rate were ", input),
    node("button", { type: "submit" }, "Change"),
    cancel,
    complaint,
  );
  let inForce = null;
  let sure = null; // a rate far above it that was asked about
  const close = () => {
    root.hidden = true;
  };
  root.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = Number(input.value.replace(",", "."));
    if (!(value > 0 && Number.isFinite(value))) {
      complaint.textContent = `“${input.value}” is no learning rate; write a number above 0, such as 1e-4.`;
      return input.focus();
    }
    if (inForce && value > FAR_ABOVE * inForce && value !== sure) {
      sure = value;
      complaint.textContent = `${value} is ${count(Math.round(value / inForce))} times the rate in force (${inForce}); a loss often runs away at that. Press Change once more to take it.`;
      say(complaint.textContent);
      return undefined;
    }
    close();
    return send(value);
  });
  root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // a notebook reads keys as commands
    if (event.key === "Escape") close();
  });
  cancel.addEventListener("click", close);
  const open = (current) => {
    root.hidden = false;
    inForce = current;
    sure = null;
    complaint.textContent = "";
    input.value = current ? String(current) : "";
    input.focus();
    input.select();
  };
  return { root, open, close };
}
