"""What becomes of each tensor of a model folder: its name and type in the file, and how its bytes are made."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType

from .architectures.rules import Architecture, TensorRule, UnsupportedArchitecture
from .encode import encode
from .experts import Parts
from .quantizations import build_of, stored_type, wanted_type
from .streaming import Streamed


@dataclass(frozen=True)
class Planned:
    """One tensor of the file to be written."""

    name: str  # in GGUF
    parts: Parts  # one, or one per expert
    rule: TensorRule
    wanted: GGMLQuantizationType
    type: GGMLQuantizationType  # `wanted`, or what its rows can have instead

    @property
    def shape(self) -> tuple[int, ...]:
        """In GGUF, written the way NumPy does."""
        one = self.parts[0].shape
        return (len(self.parts), *one) if self.rule.stacked else one

    def streamed(self, config: dict) -> Streamed:
        """The tensor as it is to be written."""
        return Streamed(self.name, self.shape, self.type, lambda: self._encoded(config))

    def _encoded(self, config: dict) -> Iterator[np.ndarray]:
        for part in self.parts:
            array = np.ascontiguousarray(self.rule.to_gguf(part.read(), config))
            if self.type == GGMLQuantizationType.F16 and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
                raise ValueError(f"{part.name} holds values beyond fp16's 65504; write bf16 or f32 instead.")
            yield encode(array, self.type)


def planned(
    architecture: Architecture, config: dict, stored: dict[str, Parts], quantization: str
) -> tuple[list[Planned], list[str]]:
    """What becomes of each stored tensor, and what to say of those left out. Raises for one missing or without rule."""
    layers = config["num_hidden_layers"]
    names = architecture.tensor_names(layers)
    tied = config.get("tie_word_embeddings", "lm_head.weight" not in stored)
    notices = []
    # Computed from the config by every reader; some old Llama checkpoints still store it.
    wanted = {key: parts for key, parts in stored.items() if not key.endswith("rotary_emb.inv_freq")}
    if tied and wanted.pop("lm_head.weight", None):
        notices.append("lm_head.weight is left out: the config ties the head to the embedding.")
    if unknown := [key for key in wanted if key not in names]:
        raise UnsupportedArchitecture(
            f"{len(unknown)} tensors have no rule for {architecture.name} and would be lost: {', '.join(unknown[:8])}."
        )
    if missing := [key for key in architecture.required_tensors(layers, tied=tied) if key not in wanted]:
        raise ValueError(f"The model folder lacks {len(missing)} tensors: {', '.join(missing[:8])}.")
    build = build_of(architecture, config, tied=tied)
    plan = []
    for key, (gguf_name, rule) in names.items():
        if key in wanted:
            *rows, width = wanted[key][0].shape
            # As the converter has it (llama.cpp/conversion/base.py, prepare_tensors): vectors in fp32.
            exact = rule.exact or not rows
            kind = GGMLQuantizationType.F32 if exact else wanted_type(gguf_name, quantization, build)
            plan.append(Planned(gguf_name, wanted[key], rule, kind, stored_type(width, kind)))
    return plan, notices
