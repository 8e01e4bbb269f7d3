/* The rows of an exam: an order of them, a list to move through, and one row with its answers and losses.
 *
 * In come the traits of score_browser.py's ScoreBrowser; out go messages that say where to go, and which text is to be
 * measured. Words from data and models reach the page as text nodes only. */

import { WORDS_AT_MOST, wordDiff } from "../view/diff.js";
import { button, node } from "../view/page.js";
import { lossesView } from "./losses.js";

const SETTLED = 200; // ms a row is looked at before its losses are asked for: whoever leafs through waits for none

export default { render };

function render({ model, el }) {
  const view = buildBrowser(model.get("names"), model.get("metrics"), model.get("said"));
  const row = rowView(model.get("names"));
  const losses = lossesView(model.get("scale"), measure);
  let waiting = 0;
  let wanted = null; // where the arrow keys have got to, ahead of the kernel's answers
  row.root.append(losses.root);
  view.look.append(row.root);

  function go(message) {
    wanted = message.go === "row" ? message.at : null;
    view.root.setAttribute("aria-busy", "true"); // until the kernel answers; it may be busy with a cell
    model.send(message);
  }

  const here = () => wanted ?? model.get("view").at;

  function turnTo(at) {
    if (at !== here() && at >= 0 && at < model.get("view").rows) go({ go: "row", at });
  }

  function measure() {
    clearTimeout(waiting);
    losses.wait();
    const place = model.get("row").place;
    waiting = setTimeout(() => model.send({ losses: losses.text, place }), SETTLED);
  }

  function showList() {
    const { metric, sentence, orders, order, rows, at, first, lines } = model.get("view");
    if (at === wanted) wanted = null;
    view.metric.value = metric;
    view.sentence.textContent = sentence;
    const buttons = orders.map(([name, count]) => orderButton(name, count, name === order));
    // One that is put in anew loses the focus.
    if (buttons.some((each, place) => view.orders.children[place] !== each) || view.orders.children.length > buttons.length)
      view.orders.replaceChildren(...buttons);
    const focused = view.list.contains(document.activeElement);
    view.list.replaceChildren(...lines.map((line, place) => lineElement(line, first + place, first + place === at)));
    if (focused) view.list.querySelector('[aria-selected="true"]').focus();
    view.place.textContent = `${first + 1}–${first + lines.length} of ${rows}`;
    [view.previous.disabled, view.next.disabled] = [first === 0, first + lines.length >= rows];
  }

  function showRow() {
    const shown = model.get("row");
    row.show(shown);
    losses.offer(shown.texts);
    if (shown.texts.length) measure();
    const { at, rows, order } = model.get("view");
    view.spoken.textContent = `Row ${shown.number}, ${shown.badge}. ${order}: ${at + 1} of ${rows}.`;
  }

  function showLosses() {
    const found = model.get("losses");
    if (found.place === model.get("row").place && found.text === losses.text) losses.show(found);
  }

  function showReply() {
    view.complaint.textContent = model.get("complaint");
    view.root.removeAttribute("aria-busy"); // also where the answer is that all stays as it is
  }

  function orderButton(name, count, isPressed) {
    const made = view.orderButtons.get(name) ?? button("", {});
    view.orderButtons.set(name, made);
    made.textContent = `${name} (${count.toLocaleString("en")})`;
    made.setAttribute("aria-pressed", String(isPressed));
    made.disabled = count === 0;
    made.onclick = () => go({ go: "order", name });
    return made;
  }

  function lineElement([number, told, kind, begins], at, isSelected) {
    const line = node(
      "li",
      { role: "option", "aria-selected": String(isSelected), tabindex: isSelected ? "0" : "-1", "data-kind": kind },
      node("b", {}, `Row ${number}`),
      " ",
      node("span", { class: "tunebook-told" }, told),
      node("div", { class: "tunebook-begins" }, begins),
    );
    line.addEventListener("click", () => turnTo(at));
    return line;
  }

  const page = (step) => turnTo(model.get("view").first + step);
  view.previous.addEventListener("click", () => page(-1));
  view.next.addEventListener("click", () => page(model.get("view").lines.length));
  view.metric.addEventListener("change", () => go({ go: "metric", name: view.metric.value }));
  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = view.number.valueAsNumber;
    if (Number.isInteger(number)) go({ go: "number", number });
  });
  view.list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { rows, first, lines } = model.get("view");
    const at = here();
    const [back, on] = [Math.max(first - 1, 0), Math.min(first + lines.length, rows - 1)];
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows - 1, PageUp: back, PageDown: on }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    turnTo(to);
  });
  view.root.addEventListener("keydown", (event) => event.stopPropagation()); // a notebook reads keys as commands

  el.append(view.root);
  const heard = { view: showList, row: showRow, losses: showLosses, replies: showReply };
  for (const [name, listener] of Object.entries(heard)) model.on(`change:${name}`, listener);
  showList();
  showRow();
  return () => {
    clearTimeout(waiting);
    for (const [name, listener] of Object.entries(heard)) model.off(`change:${name}`, listener);
  };
}

function buildBrowser(names, metrics, said) {
  const title = names.join(" → ");
  const metric = node("select", {}, ...metrics.map((name) => node("option", { value: name }, name)));
  const sentence = node("p", { class: "tunebook-sentence" });
  const orders = node("div", { class: "tunebook-bar", role: "group", "aria-label": "Which rows" });
  const list = node("ul", { class: "tunebook-list", role: "listbox", "aria-label": "Rows. Up and down arrow move through them." });
  const previous = button("◀", { "aria-label": "Previous page of rows" });
  const next = button("▶", { "aria-label": "Next page of rows" });
  const place = node("span", { class: "tunebook-count" });
  const number = node("input", { type: "number", min: "0", step: "1", "aria-label": "Row number", placeholder: "row" });
  const form = node("form", {}, number, node("button", { type: "submit", "aria-label": "Go to row" }, "Go"));
  const complaint = node("p", { class: "tunebook-note", role: "alert" });
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const pages = node("div", { class: "tunebook-bar" }, previous, next, place, form);
  const look = node("div", { class: "tunebook-look" }, node("div", { class: "tunebook-pick" }, list, pages, complaint));
  const chooser = node("label", { class: "tunebook-metric" }, "Metric ", metric);
  chooser.hidden = metrics.length < 2;
  const root = node(
    "section",
    { class: "tunebook-tokens tunebook-panel tunebook-scores", "aria-label": `Rows of an exam: ${title}` },
    node("div", { class: "tunebook-bar" }, node("b", { class: "tunebook-heading" }, title), chooser),
    sentence,
    ...said.map((each) => node("p", { class: "tunebook-hint" }, each)),
    ...[orders, look, spoken],
  );
  return { root, look, metric, sentence, orders, orderButtons: new Map(), list, previous, next, place, number, form, complaint, spoken };
}

/** One row: what it asks, what was to be answered, what was answered, and what the metrics say. */
function rowView(names) {
  const compared = node("select", { "aria-label": "What is marked in the answers" });
  const ways = [...(names.length > 1 ? [["each other", "what differs between both"]] : []), ["reference", "what differs from the row's own answer"], ["", "nothing"]];
  compared.append(...ways.map(([value, label]) => node("option", { value }, label)));
  const title = node("p", { class: "tunebook-row-title" });
  const body = node("div", {});
  const answers = node("div", { class: "tunebook-sides" });
  const chooser = node("label", { class: "tunebook-compared" }, "Marked: ", compared);
  const unmarked = node("p", { class: "tunebook-hint" });
  const marks = node("div", { class: "tunebook-wide-table", tabindex: "0", role: "group", "aria-label": "Marks of the row" });
  const head = node("div", { class: "tunebook-bar" }, node("b", { class: "tunebook-label" }, names.length > 1 ? "Answers" : "Answer"), chooser);
  const root = node("article", { "aria-label": "Row" }, title, marks, body, head, answers, unmarked);
  let row = null;

  function fill() {
    const texts = row.answers.map(({ text }) => text);
    const kinds = names.length > 1 ? ["gone", "new"] : ["new"];
    const why = new Set();
    const made = row.answers.map((answer, which) => {
      const other = compared.value === "reference" ? row.reference : compared.value ? texts[1 - which] : null;
      const kind = compared.value === "reference" ? "new" : kinds[which];
      const [pieces, whyNot] = other && answer.text ? marked(answer.text, other, kind) : [[answer.text ?? ""], ""];
      if (whyNot) why.add(whyNot);
      return answerElement(answer, names.length > 1 && which === 1, pieces);
    });
    answers.replaceChildren(...made);
    unmarked.textContent = [...why].join(" ");
  }

  compared.addEventListener("change", fill);

  return {
    root,
    show(shown) {
      row = shown;
      const badge = node("em", { class: "tunebook-why", "data-kind": row.kind }, row.badge);
      title.replaceChildren(node("b", {}, `Row ${row.number}`), " ", badge);
      marks.replaceChildren(marksTable(names, row.marks));
      body.replaceChildren(
        ...row.notes.map((each) => node("p", { class: "tunebook-note" }, each)),
        ...passage("Asked", row.prompt || "(nothing: the row is a text by itself)"),
        ...pictures(row),
        ...passage("The row's own answer", row.reference ?? "(it has none)"),
      );
      const hasReference = row.reference !== null;
      [...compared.options].find((option) => option.value === "reference").disabled = !hasReference;
      if (!hasReference && compared.value === "reference") compared.value = "";
      fill();
    },
  };
}

function marksTable(names, marks) {
  const head = ["metric", ...names].map((name) => node("th", { scope: "col" }, name));
  const rows = marks.map(([metric, ...cells]) =>
    node("tr", {}, node("th", { scope: "row" }, metric), ...cells.map((cell) => node("td", {}, cell))),
  );
  return node("table", {}, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows));
}

function passage(label, text) {
  return [node("b", { class: "tunebook-label" }, label), node("div", { class: "tunebook-passage", tabindex: "0", role: "group", "aria-label": label }, text)];
}

function pictures(row) {
  const shown = row.pictures.map((address, place) => node("img", { src: address, alt: `Picture ${place + 1} of the row` }));
  const said = row.of_pictures ? [node("p", { class: "tunebook-hint" }, row.of_pictures)] : [];
  return shown.length ? [node("div", { class: "tunebook-pictures" }, ...shown), ...said] : said;
}

function answerElement({ name, thoughts, text, note }, isTuned, pieces) {
  const folded = node("details", { class: "tunebook-fold" }, node("summary", {}, `Thoughts (${thoughts.length.toLocaleString("en")} characters)`), node("div", { class: "tunebook-thoughts" }, thoughts));
  return node(
    "div",
    { class: `tunebook-side${isTuned ? " tunebook-tuned" : ""}` },
    node("b", {}, name),
    ...(thoughts ? [folded] : []),
    ...(text === null ? [] : [node("div", { class: "tunebook-text tunebook-scrolled", tabindex: "0", role: "group", "aria-label": `Answer of ${name}` }, ...pieces)]),
    ...(note ? [node("p", { class: "tunebook-note" }, note)] : []),
  );
}

/** [`text` with the words that `other` has not marked as `kind`, "gone" or "new"; why none is marked]. */
function marked(text, other, kind) {
  if ([text, other].some((each) => (each.match(/\s+|[^\s]+/g) ?? []).length > WORDS_AT_MOST))
    return [[text], "Nothing is marked: one of the texts is too long to be compared word by word."];
  const pieces = kind === "new" ? wordDiff(other, text) : wordDiff(text, other);
  if (!pieces.some(([found, words]) => found === "same" && words.trim()))
    return [[text], "Nothing is marked: the texts have no word in common."];
  const own = pieces.filter(([found]) => found === "same" || found === kind);
  return [own.map(([found, words]) => node({ same: "span", gone: "del", new: "ins" }[found], {}, words)), ""];
}
