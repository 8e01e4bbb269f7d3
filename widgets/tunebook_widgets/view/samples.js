/* What the model wrote, from base to final: one prompt at a time, scrubbed by step, with what changed; at the end a
 * blind comparison of base and tuned. In come [step, prompt, text] triples; out go the choices that were made. */

import { wordDiff } from "./diff.js";
import { button, node } from "./page.js";
import { passages, prose } from "./prose.js";
import { count } from "./words.js";

/** A panel; `show(samples, ended)` fills it. `chosen(picks)` is told every choice of the blind comparison so far. */
export function samplesPanel(chosen) {
  const prompt = node("select", { "aria-label": "Prompt" });
  const scrub = node("input", { type: "range", min: "0", step: "1", "aria-label": "Step of the sample" });
  const compared = node("select", { "aria-label": "Changes marked against" });
  for (const [value, label] of [["base", "against the first"], ["before", "against the one before"], ["none", "not compared"]])
    compared.append(node("option", { value }, label));
  const place = node("span", { class: "tunebook-place" });
  const asked = node("div", { class: "tunebook-prompt" });
  const before = written();
  const after = written();
  const blind = blindComparison(chosen);
  const root = node(
    "section",
    { class: "tunebook-samples", "aria-label": "What the model writes", hidden: "" },
    node(
      "header",
      {},
      node("strong", {}, "What the model writes"),
      prompt,
      node("label", { class: "tunebook-scrub" }, scrub, place),
      node("label", {}, "changes ", compared),
    ),
    node("b", { class: "tunebook-label" }, "Question"),
    asked,
    node("div", { class: "tunebook-answers" }, before.root, after.root),
    blind.root,
  );
  let timelines = new Map(); // prompt -> [[step, text], ...] by step
  let follows = true; // the newest sample, until someone goes back

  function fill() {
    const timeline = timelines.get(prompt.value) ?? [];
    scrub.max = String(Math.max(timeline.length - 1, 0));
    if (follows) scrub.value = scrub.max;
    scrub.parentElement.hidden = timeline.length < 2;
    compared.parentElement.hidden = timeline.length < 2;
    const index = Number(scrub.value);
    const current = timeline[index];
    if (!current) return;
    const [step, words] = current;
    const name = nameOf(step, index);
    place.textContent = name;
    scrub.setAttribute("aria-valuetext", name);
    asked.replaceChildren(...prose(prompt.value));
    const at = { base: 0, before: index - 1 }[compared.value] ?? -1;
    const earlier = at >= 0 && at < index ? timeline[at] : null;
    before.root.hidden = earlier === null;
    if (earlier) before.show(`Before · ${nameOf(earlier[0], at)}`, marked(earlier[1], words, "gone"));
    after.show(earlier ? `After · ${name}` : `Written · ${name}`, earlier ? marked(words, earlier[1], "new") : prose(words));
  }

  prompt.addEventListener("change", fill);
  compared.addEventListener("change", fill);
  scrub.addEventListener("input", () => {
    follows = scrub.value === scrub.max;
    fill();
  });
  root.addEventListener("keydown", (event) => event.stopPropagation()); // a notebook reads keys as commands

  return {
    root,
    show(samples, ended) {
      timelines = new Map();
      for (const [step, asked, words] of samples) timelines.set(asked, [...(timelines.get(asked) ?? []), [step, words]]);
      const prompts = [...timelines.keys()];
      if (prompts.join("\0") !== [...prompt.options].map((option) => option.value).join("\0")) {
        const kept = prompt.value;
        prompt.replaceChildren(...prompts.map((each) => node("option", { value: each }, each.split("\n")[0])));
        if (timelines.has(kept)) prompt.value = kept;
      }
      prompt.hidden = prompts.length < 2;
      root.hidden = prompts.length === 0;
      fill();
      blind.offer(ended ? [...timelines].filter(([, each]) => each.length > 1 && each[0][1] !== each.at(-1)[1]) : []);
    },
  };
}

const nameOf = (step, index) => (index === 0 && step === 0 ? "base model" : `step ${count(step)}`);

/** A labelled place for what the model wrote. */
function written() {
  const label = node("b", { class: "tunebook-label" });
  const text = node("div", { class: "tunebook-sample", role: "group", "aria-label": "What the model wrote" });
  return {
    root: node("div", { class: "tunebook-written" }, label, text),
    show(words, pieces) {
      label.textContent = words;
      text.replaceChildren(...pieces);
    },
  };
}

/** One of two texts, with the words that the other has not marked as `kind`, "gone" or "new"; code is left unmarked. */
function marked(text, other, kind) {
  const others = passages(other);
  return prose(text, (words, place) => {
    const against = others.length < 2 ? other : others[place]?.[0] === false ? others[place][1] : "";
    const pieces = kind === "new" ? wordDiff(against, words) : wordDiff(words, against);
    const shown = pieces.filter(([found]) => found === "same" || found === kind);
    return shown.map(([found, said]) => node({ same: "span", gone: "del", new: "ins" }[found], {}, said));
  });
}

/** Two answers to each prompt in random order; which is whose is said after the choice. */
function blindComparison(chosen) {
  const start = button("Compare base and tuned blind");
  const question = node("p", {}, "Which answer is better? Which model wrote it is said afterwards.");
  const answers = [node("div", { class: "tunebook-answer" }), node("div", { class: "tunebook-answer" })];
  const choices = [button("A is better"), button("B is better"), button("No difference")];
  const next = button("Next");
  const verdict = node("p", { class: "tunebook-verdict", "aria-live": "polite" });
  const asked = node("div", { class: "tunebook-prompt" });
  const table = node(
    "div",
    { class: "tunebook-blind", hidden: "" },
    question,
    asked,
    node("div", { class: "tunebook-answers" }, ...answers),
    node("div", { class: "tunebook-choices", role: "group", "aria-label": "Your choice" }, ...choices, next),
    verdict,
  );
  const root = node("div", { hidden: "" }, start, table);
  let pairs = []; // [prompt, [[step, text], ...]]
  let round = 0;
  let tunedIsFirst = false;
  const picks = []; // {prompt, pick: "tuned" | "base" | "neither"}

  function ask() {
    const [prompt, timeline] = pairs[round];
    tunedIsFirst = Math.random() < 0.5;
    const texts = [timeline[0][1], timeline.at(-1)[1]];
    if (tunedIsFirst) texts.reverse();
    answers.forEach((answer, i) => answer.replaceChildren(node("b", {}, "AB"[i]), node("div", { class: "tunebook-sample" }, ...prose(texts[i]))));
    asked.replaceChildren(...prose(prompt));
    verdict.textContent = "";
    next.hidden = true;
    for (const choice of choices) choice.hidden = false;
    choices[0].focus();
  }

  function choose(index) {
    const [prompt, timeline] = pairs[round];
    const pick = index === 2 ? "neither" : (index === 0) === tunedIsFirst ? "tuned" : "base";
    picks.push({ prompt, pick });
    chosen([...picks]);
    const number = (what) => picks.filter((each) => each.pick === what).length;
    const whose = `${tunedIsFirst ? "A" : "B"} is the tuned model (step ${count(timeline.at(-1)[0])}).`;
    const sums = `Preferred so far: tuned ${number("tuned")}, base ${number("base")}, no difference ${number("neither")}.`;
    verdict.textContent = `${whose} ${sums}`;
    round += 1;
    for (const choice of choices) choice.hidden = true;
    next.hidden = round >= pairs.length;
    next.focus();
  }

  start.addEventListener("click", () => {
    start.hidden = true;
    table.hidden = false;
    ask();
  });
  next.addEventListener("click", ask);
  choices.forEach((choice, index) => choice.addEventListener("click", () => choose(index)));

  return {
    root,
    offer(found) {
      root.hidden = found.length === 0;
      if (table.hidden) pairs = found; // not under the hand of someone who is choosing
    },
  };
}
