/* All rows of a set, one at a time.
 *
 * In come the traits of token_browser.py's TokenBrowser; out go messages that say where to go, and the kernel answers
 * with another page. Words from the data reach the page as text nodes only. */

export default { render };

function render({ model, el }) {
  const view = buildView(model.get("name"), model.get("orders"), model.get("word"));
  const last = () => model.get("total") - 1;
  const at = () => model.get("page").index;

  function go(message) {
    view.root.setAttribute("aria-busy", "true"); // until the kernel answers; it may be busy with a cell
    model.send(message);
  }

  function turnTo(index) {
    if (index !== at() && index >= 0 && index <= last()) go({ go: "to", index });
  }

  function show() {
    const page = model.get("page");
    view.root.removeAttribute("aria-busy");
    view.previous.disabled = page.index === 0;
    view.next.disabled = page.index === last();
    view.title.textContent = page.title;
    view.why.textContent = page.why;
    view.count.textContent = page.caption;
    view.place.textContent = `${(page.index + 1).toLocaleString("en")} of ${(last() + 1).toLocaleString("en")}`;
    view.complaint.textContent = page.complaint;
    if (!page.complaint && document.activeElement !== view.number) view.number.value = page.asked;
    view.row.replaceChildren(...page.head.map(token), note(page.gap && `\n${page.gap}\n`), ...page.tail.map(token), note(page.cut));
    view.row.scrollTop = 0;
    view.spoken.textContent = page.complaint || [view.title.textContent, page.why, page.caption].filter(Boolean).join(", ");
  }

  view.previous.addEventListener("click", () => turnTo(at() - 1));
  view.next.addEventListener("click", () => turnTo(at() + 1));
  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = view.number.valueAsNumber;
    if (Number.isInteger(number)) go({ go: "row", number });
  });
  for (const [name, button] of view.orders) button.addEventListener("click", () => go({ go: "order", name }));
  view.root.addEventListener("keydown", (event) => {
    event.stopPropagation(); // a notebook reads keys as commands: an arrow as "next cell", d d as "delete it"
    if (event.target === view.number || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = { ArrowLeft: at() - 1, ArrowRight: at() + 1, Home: 0, End: last() }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    turnTo(to);
  });

  el.append(view.root);
  model.on("change:page", show);
  show();
  return () => model.off("change:page", show);
}

function buildView(name, orders, word) {
  const previous = node("button", { type: "button", "aria-label": "Previous row" }, "◀");
  const next = node("button", { type: "button", "aria-label": "Next row" }, "▶");
  const place = node("span", { class: "tunebook-count" });
  const number = node("input", { type: "number", min: "0", step: "1", "aria-label": `${word === "line" ? "Line" : "Row"} number` });
  const form = node("form", {}, number, node("button", { type: "submit" }, `Go to ${word}`));
  const buttons = orders.map(([order, count]) => [
    order,
    node("button", { type: "button", title: `Next by: ${order}` }, `${order} (${count.toLocaleString("en")})`),
  ]);
  const title = node("b", {});
  const why = node("em", { class: "tunebook-why" });
  const count = node("span", { class: "tunebook-count" });
  const complaint = node("span", { class: "tunebook-note" });
  const row = node("pre", { class: "tunebook-row", tabindex: "0", role: "group", "aria-label": "Tokens of the row" });
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const root = node(
    "section",
    { class: "tunebook-tokens", tabindex: "0", "aria-label": `Rows of ${name}. Left and right arrow turn the pages.` },
    node("div", { class: "tunebook-bar" }, previous, next, place, form, complaint),
    node("div", { class: "tunebook-bar", role: "group", "aria-label": "Next row by" }, node("span", { class: "tunebook-count" }, "Next by"), ...buttons.map(([, button]) => button)),
    node("p", { class: "tunebook-row-title" }, title, " ", why, " ", count),
    row,
    spoken,
  );
  return { root, previous, next, place, number, form, orders: buttons, title, why, count, complaint, row, spoken };
}

function token([text, ids, trained, special]) {
  const same = ids.every((id) => id === ids[0]);
  const title = ids.length === 1 ? `token ${ids[0]}` : same ? `${ids.length} times token ${ids[0]}` : `tokens ${ids.join(" ")}`;
  const kinds = [special && "tunebook-key", trained && "tunebook-trained"].filter(Boolean);
  return node(special ? "kbd" : "span", { title, class: kinds.join(" ") }, text);
}

function note(text) {
  return text ? node("em", { class: "tunebook-note" }, text) : "";
}

/** An element with attributes and children; a string child becomes a text node, never markup. */
function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
