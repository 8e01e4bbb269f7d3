/* A conversation with a tuned model and its base, side by side.
 *
 * In come the traits of Chat (panels/chat.py); out go messages that say what to answer, or to stop. What people and models
 * wrote reaches the page as text only. */

import { button, node } from "./page.js";

const NUMBERS = [
  ["temperature", "Temperature", { min: "0", max: "5", step: "any" }],
  ["top_p", "Top-p", { min: "0", max: "1", step: "any" }],
  ["max_tokens", "Max tokens", { min: "1", max: "100000", step: "1" }],
];

export default { render };

function render({ model, el }) {
  const view = buildChat(model.get("name"), model.get("settings"), model.get("chats"));
  let drawn = 0; // turns that are over and on the page
  let current = null; // the element of the turn in progress
  let wasBusy = false;

  const isBusy = () => Boolean(model.get("now").you);

  function send(event) {
    event.preventDefault();
    const text = view.text.value;
    if (!text.trim() || isBusy()) return;
    const numbers = NUMBERS.map(([name]) => [name, view.settings[name].valueAsNumber]);
    const wrong = numbers.find(([name]) => !view.settings[name].checkValidity() || view.settings[name].value === "");
    if (wrong) {
      view.settings[wrong[0]].reportValidity();
      return;
    }
    model.send({ say: text, settings: { ...Object.fromEntries(numbers), system: view.settings.system.value } });
    view.text.value = "";
  }

  function show() {
    const turns = model.get("turns");
    const now = model.get("now");
    const sides = model.get("alone") ? ["tuned"] : ["tuned", "base"];
    const follows = view.log.scrollHeight - view.log.scrollTop - view.log.clientHeight < 40;
    if (turns.length < drawn) {
      view.log.replaceChildren();
      drawn = 0;
    }
    if (current && !isBusy()) {
      current.root.remove();
      current = null;
    }
    for (; drawn < turns.length; drawn++) {
      const made = turnElement(sides);
      made.fill(turns[drawn]);
      view.log.append(made.root);
    }
    if (isBusy()) {
      if (!current) {
        current = turnElement(sides);
        view.log.append(current.root);
      }
      current.fill(now);
    }
    if (follows) view.log.scrollTop = view.log.scrollHeight;
    view.alone.textContent = model.get("alone");
    view.complaint.textContent = model.get("complaint");
    view.send.disabled = isBusy();
    view.stop.disabled = !isBusy();
    view.clear.disabled = isBusy() || !turns.length;
    // Said once, when it is over: a live region that grows ten times a second cannot be listened to.
    const last = turns[turns.length - 1];
    if (wasBusy && !isBusy() && last) {
      view.spoken.textContent = sides.map((side) => `${side}: ${last[side] || "no answer"}`).join(". ") + ` ${last.note}`;
      if (document.activeElement === view.stop || document.activeElement === document.body) view.text.focus();
    } else if (!wasBusy && isBusy()) {
      view.spoken.textContent = "Answering.";
    }
    wasBusy = isBusy();
  }

  view.form.addEventListener("submit", send);
  view.stop.addEventListener("click", () => model.send({ do: "stop" }));
  view.clear.addEventListener("click", () => model.send({ do: "clear" }));
  view.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  // A notebook reads keys as commands: d d as "delete the cell".
  view.root.addEventListener("keydown", (event) => event.stopPropagation());

  el.append(view.root);
  const traits = ["turns", "now", "alone", "complaint"].map((name) => `change:${name}`);
  for (const trait of traits) model.on(trait, show);
  show();
  return () => traits.forEach((trait) => model.off(trait, show));
}

function buildChat(name, values, chats) {
  const settings = Object.fromEntries(
    NUMBERS.map(([key, , limits]) => [key, node("input", { type: "number", required: "", value: values[key], ...limits })]),
  );
  settings.system = node("textarea", { rows: "1", placeholder: "None" });
  settings.system.value = values.system;
  const fields = NUMBERS.map(([key, label]) => node("label", {}, label, settings[key]));
  if (chats) fields.push(node("label", { class: "tunebook-wide" }, "System prompt", settings.system));
  const text = node("textarea", { rows: "2", "aria-label": "Message", placeholder: "Write a message. Enter sends it, Shift+Enter begins a line." });
  const send = node("button", { type: "submit" }, "Send");
  const [stop, clear] = [button("Stop"), button("Clear")];
  const form = node("form", {}, text, node("div", { class: "tunebook-bar" }, send, stop, clear));
  const log = node("div", { class: "tunebook-log", tabindex: "0", role: "group", "aria-label": "Conversation" });
  const alone = node("p", { class: "tunebook-hint" });
  const complaint = node("p", { class: "tunebook-note", role: "alert" });
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const title = node("p", { class: "tunebook-heading" }, node("b", {}, `Chat with ${name}`));
  const root = node(
    "section",
    { class: "tunebook-tokens tunebook-panel", "aria-label": `Chat with ${name}` },
    ...[title, alone, log, complaint, form, node("div", { class: "tunebook-fields" }, ...fields), spoken],
  );
  return { root, log, alone, complaint, form, text, send, stop, clear, settings, spoken };
}

/** One message with its answers; `fill` writes what there is of them so far. */
function turnElement(sides) {
  const you = node("p", { class: "tunebook-you" });
  const answers = sides.map((side) => [side, node("div", { class: "tunebook-text" })]);
  const boxes = answers.map(([side, text]) => node("div", { class: `tunebook-side tunebook-${side}` }, node("b", {}, side), text));
  const note = node("p", { class: "tunebook-hint" });
  const root = node("article", {}, you, node("div", { class: "tunebook-sides" }, ...boxes), note);
  function fill(turn) {
    you.textContent = turn.you;
    for (const [side, text] of answers) {
      text.textContent = turn[side];
      text.toggleAttribute("data-writes", turn.side === side);
    }
    note.textContent = turn.note;
  }
  return { root, fill };
}
