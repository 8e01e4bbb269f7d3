/* Text of people and models as it is read: what stands between fences is code, the rest is text. Nothing is markup. */

import { node } from "./page.js";

const FENCE = /^[ \t]*```[^\n]*$/m;

/** [[isCode, text], ...] of a text; a fence that is never closed runs to its end. */
export function passages(text) {
  return text
    .split(FENCE)
    .map((piece, at) => [at % 2 === 1, at % 2 === 1 ? piece.replace(/^\n|\n$/g, "") : piece.trim()])
    .filter(([, piece]) => piece !== "");
}

/** The elements of a text; `told(text, place)` makes those of each passage that is none of code. */
export function prose(text, told = (piece) => [node("span", {}, piece)]) {
  const found = passages(text);
  if (found.length === 1 && !found[0][0]) return told(text, 0);
  return found.map(([isCode, piece], place) =>
    isCode ? node("pre", { class: "tunebook-code" }, node("code", {}, piece)) : node("div", {}, ...told(piece, place)),
  );
}
