/* What models make of the tokens of a text: a line of tokens for each, told in words, by lines under them and in colour.
 *
 * A place in the text is stepped through with the arrow keys or pointed at; what stands there is said in numbers. */

import { node } from "../view/page.js";

const HOW = "The pointer, or the arrow keys in a line of tokens, tell the number of each.";

/** A view of losses; `scale` is [limits in nats, words for the steps between]. `asked(text)` is told which is wanted. */
export function lossesView(scale, asked) {
  const [limits, words] = scale;
  const choice = node("select", { "aria-label": "Text whose losses are shown" });
  const body = node("div", { class: "tunebook-heats" });
  const readout = node("p", { class: "tunebook-readout", "aria-live": "polite" });
  const legend = node(
    "p",
    { class: "tunebook-hint tunebook-scale-words" },
    "How likely a token was: ",
    ...words.flatMap((word, step) => [node("span", { class: `tunebook-heat-${step}` }, word), " "]),
  );
  const numbers = node("details", { class: "tunebook-fold" }, node("summary", {}, "Every token in numbers"));
  const title = node("div", { class: "tunebook-bar" }, node("b", { class: "tunebook-label" }, "Loss of each token of"), choice, node("span", { class: "tunebook-count" }, "by the model as it is now"));
  const root = node("div", { class: "tunebook-losses" }, title, body, readout, legend, numbers);
  let found = null;
  let at = -1;

  const step = (nats) => limits.filter((limit) => nats > limit).length;

  function point(place) {
    const tokens = found.pieces;
    at = Math.min(Math.max(place, 0), tokens.length - 1);
    for (const heat of body.querySelectorAll(".tunebook-heat"))
      heat.querySelectorAll("[data-at]").forEach((each) => each.toggleAttribute("data-pointed", Number(each.dataset.at) === at));
    const [text, , nats] = tokens[at];
    const told = found.models.map(({ name }, model) => `${name} ${inWords(nats[model])}`).join("; ");
    readout.textContent = `Token ${at + 1} of ${tokens.length}, ‘${text.replaceAll("\n", "↵")}’: ${told}`;
  }

  function heat({ name, said }, model) {
    const tokens = found.pieces.map(([text, special, nats], place) => {
      const kind = nats[model] === null ? "" : `tunebook-heat-${step(nats[model])}`;
      const attributes = { class: special ? `tunebook-key ${kind}` : kind, "data-at": place };
      return node(special ? "kbd" : "span", attributes, text.replaceAll("\n", "↵\n"));
    });
    if (found.hidden) tokens.splice(found.at, 0, node("em", { class: "tunebook-note" }, `\n${found.hidden}\n`));
    const line = node(
      "pre",
      { class: "tunebook-row tunebook-heat", tabindex: "0", role: "group", "aria-label": `Tokens as ${name} finds them. Left and right arrow step through them.` },
      ...tokens,
    );
    line.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: found.pieces.length - 1 }[event.key];
      if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      point(to);
    });
    line.addEventListener("mouseover", ({ target }) => target.dataset.at && point(Number(target.dataset.at)));
    return node("div", {}, node("p", { class: "tunebook-said" }, node("b", {}, name), `: ${said}`), line);
  }

  function table() {
    const head = ["token", ...found.models.map(({ name }) => `${name}, nats`)];
    const rows = found.pieces.map(([text, , nats]) =>
      node("tr", {}, node("td", {}, node("code", {}, text)), ...nats.map((each) => node("td", {}, each === null ? "only read" : each.toFixed(3)))),
    );
    const cells = head.map((each) => node("th", { scope: "col" }, each));
    return node("div", { class: "tunebook-wide-table", tabindex: "0", role: "group", "aria-label": "Every token in numbers" },
      node("table", {}, node("thead", {}, node("tr", {}, ...cells)), node("tbody", {}, ...rows)));
  }

  choice.addEventListener("change", () => asked(choice.value));
  numbers.addEventListener("toggle", () => {
    numbers.querySelector(".tunebook-wide-table")?.remove();
    if (numbers.open && found) numbers.append(table());
  });

  return {
    root,
    get text() {
      return choice.value;
    },
    /** The texts of another row, [name, label] each; the kind that was looked at stays chosen where there is one. */
    offer(texts) {
      const kept = choice.value;
      choice.replaceChildren(...texts.map(([value, label]) => node("option", { value }, label)));
      if (texts.some(([value]) => value === kept)) choice.value = kept;
      root.hidden = texts.length === 0;
    },
    wait() {
      root.setAttribute("aria-busy", "true");
    },
    show(losses) {
      root.removeAttribute("aria-busy");
      [found, at] = [losses.why_not ? null : losses, -1];
      body.replaceChildren(...(found ? found.models.map(heat) : [node("p", { class: "tunebook-note" }, losses.why_not)]));
      readout.textContent = found ? HOW : "";
      for (const each of [readout, legend, numbers]) each.hidden = !found;
      numbers.open = false;
      numbers.querySelector(".tunebook-wide-table")?.remove();
    },
  };
}

/** "6.214 nats, 0.20%". */
function inWords(nats) {
  if (nats === null) return "only reads it";
  const chance = 100 * Math.exp(-nats);
  return `${nats.toFixed(3)} nats, ${chance >= 10 ? chance.toFixed(0) : chance >= 0.01 ? chance.toPrecision(2) : "under 0.01"}%`;
}
