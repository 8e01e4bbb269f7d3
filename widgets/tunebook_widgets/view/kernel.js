/* Whether the kernel behind a page is still there, as far as the front end says so: JupyterLab and Notebook 7 do. */

import { button, node } from "./page.js";
import { count } from "./words.js";

const OVER = ["dead", "restarting", "autorestarting", "terminating"]; // states of a kernel whose process is gone
const LOOK_EVERY = 1000; // milliseconds
const UNREACHED_AFTER = 3000; // milliseconds without a connection, which a slow network may take to come back
const COPIED_FOR = 2000; // milliseconds

/** `lost()` is "gone" for good, "unreached" for now, or ""; `changed()` is called when it is another. */
export function watchKernel(manager, changed) {
  const own = kernelOf(manager);
  let gone = false;
  let since = null; // when the connection was lost
  let told = "";

  function lost() {
    if (gone) return "gone";
    return since !== null && performance.now() - since > UNREACHED_AFTER ? "unreached" : "";
  }

  function look() {
    if (manager?.isDisposed) return;
    gone ||= kernelOf(manager) !== own || OVER.includes(own?.status);
    if ((own?.connectionStatus ?? "connected") === "connected") since = null;
    else since ??= performance.now();
    if (lost() !== told) {
      told = lost();
      changed();
    }
  }

  // A restart may be over between two looks; its signal is not missed.
  own?.statusChanged?.connect(look);
  const timer = setInterval(look, LOOK_EVERY);
  look();
  return {
    lost,
    close() {
      clearInterval(timer);
      own?.statusChanged?.disconnect(look);
    },
  };
}

/** The kernel of a widget manager; undefined where the front end shows none. */
function kernelOf(manager) {
  return manager?.isDisposed ? undefined : (manager?.kernel ?? undefined);
}

/** What a page says that has lost its kernel, and the line that goes on. */
export function lostView(say) {
  const sentence = node("p", {});
  const code = node("code", {});
  const copy = button("Copy", { class: "tunebook-copy" });
  const line = node("div", { class: "tunebook-line" }, code, copy);
  const root = node("div", { class: "tunebook-lost", role: "alert", hidden: "" }, sentence, line);
  copy.hidden = !navigator.clipboard; // there is none outside of https and localhost
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
    say("Copied.");
    setTimeout(() => (copy.textContent = "Copy"), COPIED_FOR);
  });

  return {
    root,
    headline(lost, { step, total_steps: total, elsewhere }) {
      if (elsewhere && lost === "gone") return `The kernel behind this page is gone; the run was last heard of at step ${count(step)} of ${count(total)}`;
      const where = step ? `after step ${count(step)} of ${count(total)}` : "before the first step was done";
      return lost === "gone" ? `The kernel died or was restarted ${where}` : `There is no connection to the kernel; last heard ${where}`;
    },
    /** `lost` is what `watchKernel` says, the others what the run said for this case. */
    show(lost, [words, typed]) {
      root.hidden = !lost;
      if (!lost) return;
      const text = lost === "gone" ? `${words}${typed ? ":" : ""}` : "The run goes on where the kernel is. When it is reached again, this page goes on too.";
      if (sentence.textContent !== text) sentence.textContent = text;
      code.textContent = typed;
      line.hidden = lost !== "gone" || !typed;
    },
  };
}
