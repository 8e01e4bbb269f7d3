/* Pieces of the page. Words that came from data or a model get into it here and nowhere else, as text. */

/** An element with attributes and children; a string child becomes a text node, never markup. */
export function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A button with a text and what it is for. */
export function button(label, attributes = {}) {
  return node("button", { type: "button", ...attributes }, label);
}

/** Seen and heard as disabled, and still reachable, so that its title can be read and said. */
export function disable(element, disabled) {
  element.setAttribute("aria-disabled", String(disabled));
}

export function isDisabled(element) {
  return element.getAttribute("aria-disabled") === "true";
}
