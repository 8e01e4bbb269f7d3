/* Forms a model can leave in: ticked here, written and read back by the kernel.
 *
 * In come the traits of ExportPanel (panels/export_panel.py); out goes the list of forms to export. Paths, notes and errors
 * reach the page as text only. */

import { button, node } from "./page.js";

export default { render };

function render({ model, el }) {
  const view = buildPanel(model);
  let shown = ""; // the progress that is drawn, as JSON: a table that is drawn anew loses the focus inside it
  let wasBusy = false;

  function show() {
    const [progress, busy] = [model.get("progress"), model.get("busy")];
    const labels = new Map(model.get("forms").map(([form, label]) => [form, label]));
    const entries = Object.entries(progress);
    const over = entries.filter(([, each]) => each.state === "done" || each.state === "failed").length;
    view.complaint.textContent = model.get("complaint");
    view.start.disabled = busy || !view.ticked().length;
    view.bar.hidden = !entries.length;
    view.bar.max = entries.length || 1;
    view.bar.value = over;
    if (JSON.stringify(progress) !== shown) {
      shown = JSON.stringify(progress);
      view.states.replaceChildren(...entries.map(([form, each]) => stateLine(labels.get(form), each)));
      const done = entries.filter(([, each]) => each.cells);
      view.rows.replaceChildren(...done.map(([, each]) => tableRow(each.cells)));
      view.table.hidden = !done.length;
      view.commands.replaceChildren(
        ...done.filter(([, each]) => each.commands.length).map(([form, each]) => commandBlock(labels.get(form), each.commands, view.spoken)),
      );
      const at = entries.find(([, each]) => each.state === "at work");
      if (at) view.spoken.textContent = `Exporting ${labels.get(at[0])}, ${over} of ${entries.length} done.`;
    }
    if (wasBusy && !busy) view.spoken.textContent = `Exported: ${entries.map(([form, each]) => `${labels.get(form)}, ${verdict(each)}`).join("; ")}.`;
    wasBusy = busy;
  }

  view.form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!model.get("busy") && view.ticked().length) model.send({ export: view.ticked() });
  });
  view.form.addEventListener("change", show);
  view.root.addEventListener("keydown", (event) => event.stopPropagation()); // a notebook reads keys as commands

  el.append(view.root);
  const traits = ["progress", "busy", "complaint"].map((name) => `change:${name}`);
  for (const trait of traits) model.on(trait, show);
  show();
  return () => traits.forEach((trait) => model.off(trait, show));
}

function buildPanel(model) {
  const boxes = model.get("forms").map(([form, label, whyNot]) => {
    const box = node("input", { type: "checkbox", value: form, ...(whyNot ? { disabled: "" } : {}) });
    return [box, node("label", {}, box, " ", label, ...(whyNot ? [node("span", { class: "tunebook-hint" }, ` ${whyNot}`)] : []))];
  });
  const start = node("button", { type: "submit" }, "Export");
  const bar = node("progress", { "aria-label": "Forms exported" });
  const choices = node("fieldset", {}, node("legend", {}, "Forms"), ...boxes.map(([, label]) => label));
  const form = node("form", {}, choices, node("div", { class: "tunebook-bar" }, start, bar));
  const states = node("ul", { class: "tunebook-states" });
  const head = node("tr", {}, ...model.get("headings").map((name) => node("th", { scope: "col" }, name)));
  const rows = node("tbody", {});
  const table = node("div", { class: "tunebook-wide-table", tabindex: "0", role: "group", "aria-label": "Verification" });
  table.append(node("table", {}, node("thead", {}, head), rows));
  const commands = node("div", {});
  const complaint = node("p", { class: "tunebook-note", role: "alert" });
  const spoken = node("div", { class: "tunebook-spoken", "aria-live": "polite" });
  const reads = model.get("verifies") ? "Each is read back by the program it is for." : "None is read back: the panel was given no rows.";
  const root = node(
    "section",
    { class: "tunebook-tokens tunebook-panel", "aria-label": `Export ${model.get("name")}` },
    node("p", { class: "tunebook-heading" }, node("b", {}, `Export ${model.get("name")}`)),
    node("p", { class: "tunebook-hint" }, `To ${model.get("place")}. ${reads}`),
    ...[form, complaint, states, table, commands, spoken],
  );
  const ticked = () => boxes.filter(([box]) => box.checked).map(([box]) => box.value);
  return { root, form, start, bar, states, rows, table, commands, complaint, spoken, ticked };
}

function verdict(each) {
  if (each.state !== "done") return each.state;
  return each.cells[each.cells.length - 1] || "not read back";
}

function stateLine(label, each) {
  const state = verdict(each) === "FAIL" ? "failed" : each.state;
  return node("li", { "data-state": state }, node("b", {}, label), ` ${verdict(each)}`, ...(each.said ? [node("div", { class: "tunebook-hint" }, each.said)] : []));
}

function tableRow(cells) {
  return node("tr", {}, ...cells.map((cell) => node("td", {}, cell)));
}

function commandBlock(label, commands, spoken) {
  const text = node("pre", { tabindex: "0", "aria-label": `Commands for ${label}` }, commands.join("\n"));
  const copy = button("Copy", { "aria-label": `Copy the commands for ${label}` });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      spoken.textContent = "Copied.";
      copy.textContent = "Copied";
    } catch {
      // No clipboard without a secure page or a permission: leave it selected, to be copied by hand.
      getSelection().selectAllChildren(text);
      spoken.textContent = "Selected; copy it with the keyboard.";
      copy.textContent = "Selected";
    }
  });
  return node("div", { class: "tunebook-commands" }, node("span", { class: "tunebook-hint" }, label), copy, text);
}
