"""`ExportPanel`: tick the forms a model should leave in, export them, see each read back.

A model and a folder come in; the files are the kit's to write and to verify, here they are only asked for, one form
after the other on the kernel's own thread. The browser gets a state, a row of the verification table and the commands
of each form, drawn by view/export_panel.js.
"""

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import anywidget
import traitlets

from tunebook.data.sources import Row
from tunebook.export.lora import AdapterFormat
from tunebook.export.report import Export, ExportTable
from tunebook.export.saving import SaveMethod, Tuned, export_gguf, export_lora, export_merged
from tunebook.export.usage import commands_for_folder
from tunebook.gguf import QUANTIZATIONS
from tunebook.machine.inert import one_line
from tunebook.models.adapters import adapter_paths, trained_whole
from tunebook.models.loaded import loaded_in

from ..esm import esm
from . import STYLES

_ADAPTERS = {"lora": "LoRA adapters, mlx-lm", "peft": "LoRA adapters, PEFT", "lora_gguf": "LoRA adapters, llama.cpp"}
_FORMATS: dict[str, AdapterFormat | Literal["gguf"]] = {"lora": "mlx", "peft": "peft", "lora_gguf": "gguf"}
_MERGED: dict[SaveMethod, str] = {
    "merged_16bit": "Merged, 16 bits",
    "merged_8bit": "Merged, 8 bits (mlx-lm)",
    "merged_4bit": "Merged, 4 bits (mlx-lm)",
}
_METHODS: dict[str, SaveMethod] = {method: method for method in _MERGED}
_OFFERED_GGUF = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
_ANSWERED = (ValueError, RuntimeError, OSError, ImportError)  # what an export says it cannot do, and why


class ExportPanel(anywidget.AnyWidget):
    """Export a model from the notebook, form by form.

        >>> panel = ExportPanel(model, "out/pirate", rows=held_out_rows[:8])

    Each form gets a folder of its own in `folder`, all GGUF files one together. With `rows` every export is opened by
    the program it is for, and its loss on them compared with the model's; without, it is not read back. A form that
    fails says why and the next is made. `exports` is what was written, as a table.
    """

    _esm = esm("export_panel.js")
    _css = "\n".join(file.read_text(encoding="utf-8") for file in STYLES)

    name = traitlets.Unicode().tag(sync=True)  # of the model
    place = traitlets.Unicode().tag(sync=True)  # the folder, in full
    verifies = traitlets.Bool().tag(sync=True)
    headings = traitlets.List(list(ExportTable.HEADINGS)).tag(sync=True)
    forms = traitlets.List().tag(sync=True)  # [form, label, why it cannot be had or ""]
    # form -> {"state": "waiting" | "at work" | "done" | "failed", "said", and once it is done "cells", "commands"}
    progress = traitlets.Dict().tag(sync=True)
    busy = traitlets.Bool().tag(sync=True)
    complaint = traitlets.Unicode().tag(sync=True)  # what ended the last export before its end

    def __init__(self, model: Tuned, folder: Path | str, rows: Sequence[Row] | None = None):
        super().__init__()
        self._model, self._folder, self._rows = model, Path(folder), rows
        self._exporting: asyncio.Task[ExportTable] | None = None
        self.exports = ExportTable([])
        self.name = one_line(loaded_in(model, "ExportPanel").name)
        self.place = one_line(self._folder.resolve())
        self.verifies = rows is not None
        self.forms = _forms(model)
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        """What a notebook shows that is opened without its kernel."""
        return "\n".join([f"Exports of {self.name} to {self.place}:", repr(self.exports)])

    async def export(self, forms: Sequence[str]) -> ExportTable:
        """Write and verify `forms`, and return what was written; `progress` says of the others why not.

        Raises ValueError for a form that is not offered, and while other exports are made.
        """
        offered = {form: why_not for form, _, why_not in self.forms}
        wrong = [f"{form}: {offered.get(form, 'there is no such form')}" for form in forms if offered.get(form, "no")]
        if wrong:
            raise ValueError(f"These forms cannot be exported: {'; '.join(wrong)}. Choose of {', '.join(offered)}.")
        if self.busy:
            raise ValueError("Exports are being made; wait for their end.")
        self.busy, self.complaint, self.exports = True, "", ExportTable([])
        self.progress = {form: {"state": "waiting", "said": ""} for form in forms}
        try:
            for job in _jobs(forms):
                await self._carry_out(job)
        finally:
            self.busy = False
        return self.exports

    async def _carry_out(self, job: list[str]) -> None:
        """Make the forms of `job`, which come from one call."""
        self._say(job, {"state": "at work", "said": ""})
        await asyncio.sleep(0)
        try:
            made = self._make(job)
        except _ANSWERED as error:
            self._say(job, {"state": "failed", "said": f"{type(error).__name__}: {error}"})
        else:
            self.exports = ExportTable([*self.exports, *made])
            for form, export in zip(job, made, strict=True):
                self._say([form], self._done(form, export))
        await asyncio.sleep(0)

    def _make(self, job: list[str]) -> list[Export]:
        form, rows = job[0], self._rows
        if form.startswith("gguf_"):
            kinds = [each.removeprefix("gguf_") for each in job]
            return export_gguf(self._model, self._folder / "gguf", kinds, verify_with=rows)
        folder = self._folder / form
        if form in _ADAPTERS:
            return [export_lora(self._model, folder, _FORMATS[form], verify_with=rows)]
        return [export_merged(self._model, folder, _METHODS[form], verify_with=rows)]

    def _done(self, form: str, export: Export) -> dict[str, Any]:
        """The state of a form that was written, as JSON."""
        commands, loaded = list(export.commands), self._model.loaded
        if form in _MERGED:
            commands = commands_for_folder(export.path, base=None, library=loaded.family.library)
        elif form == "lora" and not trained_whole(loaded.module):  # with those, mlx-lm does not open the folder
            commands = commands_for_folder(export.path, base=loaded.name, library=loaded.family.library)
        return {
            "state": "done",
            "said": one_line(" ".join(export.said)),
            "cells": [*map(one_line, export.cells)],
            "commands": commands,
        }

    def _say(self, forms: Sequence[str], state: dict[str, Any]) -> None:
        self.progress = self.progress | dict.fromkeys(forms, state)

    def _receive(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        """A press of the button: {"export": [form, ...]}."""
        match content:
            case {"export": list(forms)} if forms and not self.busy:
                self._exporting = asyncio.get_running_loop().create_task(self.export(forms))
                self._exporting.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[ExportTable]") -> None:
        """Show what went wrong beyond a single form, for nobody awaits an export the browser asked for."""
        self._exporting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.complaint = f"{type(error).__name__}: {error}"


def _forms(model: Tuned) -> list[list[str]]:
    """[form, label, why it cannot be had or ""] of all that are offered."""
    no_adapters = "" if adapter_paths(model.loaded.module) else "the model has no adapters"
    forms = [[form, label, no_adapters] for form, label in _ADAPTERS.items()]
    forms += [[form, label, ""] for form, label in _MERGED.items()]
    no_k_quants = "" if find_spec("libgguf") else "needs pip install libgguf"
    offered = [kind for kind in _OFFERED_GGUF if kind in QUANTIZATIONS]
    return [*forms, *([f"gguf_{kind}", f"GGUF {kind}", no_k_quants if "_k" in kind else ""] for kind in offered)]


def _jobs(forms: Sequence[str]) -> list[list[str]]:
    """`forms` in groups made by one call: all GGUF files come from one merge, and one card names them all."""
    alone = [[form] for form in forms if not form.startswith("gguf_")]
    together = [form for form in forms if form.startswith("gguf_")]
    return [*alone, together] if together else alone
