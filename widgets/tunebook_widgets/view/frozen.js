/* The outputs a run has left, put into the notebook by the page itself.
 *
 * A page that was loaded again in the middle of a run is not told by the kernel what stands in place of the live view:
 * JupyterLab knows a display id only from the page in which its cell was started. Without this, the notebook would be
 * saved with a view that no kernel draws. Other front ends keep the id, and have no such model of a notebook. */

const WIDGET = "application/vnd.jupyter.widget-view+json";
const BELOW = "below"; // metadata of the lower output (dashboard/notebook.py)

/** Put `outputs`, [data, metadata] of the upper and the lower one, where the view `of` stands in the notebook. */
export function keepFrozen(manager, of, outputs) {
  if (manager?.isDisposed) return;
  for (const cell of manager?.context?.model?.cells ?? []) {
    if (cell.type !== "code") continue;
    for (let at = 0; at < cell.outputs.length; at++) {
      if (cell.outputs.get(at).data[WIDGET]?.model_id !== of) continue;
      const [upper, lower] = outputs.map(([data, metadata]) => ({ output_type: "display_data", data, metadata }));
      const next = cell.outputs.get(at + 1);
      if (next?.metadata?.tunebook === BELOW) cell.outputs.set(at + 1, lower);
      else cell.outputs.add(lower);
      cell.outputs.set(at, upper);
    }
  }
}
