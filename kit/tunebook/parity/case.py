"""What is compared: one model, some rows, the settings, and everything the probes make of them, each made once.

The models here are shared: a probe that changes weights puts them back. Every probe is fed what is common to both
sides (the encoded rows, the reference's adapters), so that one part that differs shows in its own stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlx.core as mx
import numpy as np
import peft
from mlx.utils import tree_unflatten
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..config import LoraConfig, TrainingConfig
from ..data.encoded import Encoded, sequences_of
from ..data.sources import Row
from ..model_files.trusted import openable
from ..models.loaded import Loaded
from ..models.tensors import flat
from ..objectives.answers import OverAnswers
from .procedure import Procedure
from .references import mlx_lm_run, torch_model, trl_losses

SAMPLED_ROWS = 4  # rows that go through forward and backward passes one by one


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything is loaded when first asked for, in float32."""

    name: str | Path
    rows: Sequence[Row]
    procedure: Procedure
    lora: LoraConfig
    training: TrainingConfig
    max_seq_length: int
    objective: OverAnswers | None = None  # None: the next token

    def __post_init__(self):
        wrong = {
            "LoraConfig.lora_dropout is not 0": bool(self.lora.lora_dropout),
            "LoraConfig.modules_to_save is given": self.lora.modules_to_save is not None,
            "LoraConfig.finetune_attention_modules is off": not self.lora.finetune_attention_modules,
            "LoraConfig.finetune_mlp_modules is off": not self.lora.finetune_mlp_modules,
            "TrainingConfig.packing is on": self.training.packing,
            "TrainingConfig.neftune_noise_alpha is given": bool(self.training.neftune_noise_alpha),
        }
        if any(wrong.values()):
            found = "; ".join(sentence for sentence, is_wrong in wrong.items() if is_wrong)
            raise ValueError(f"The lab has no reference for this: {found}. Leave it out.")

    @cached_property
    def bare(self) -> Loaded:
        """The model as the procedure loads it, frozen."""
        return self.procedure.load(self.name, self.max_seq_length)

    @cached_property
    def adapted(self) -> Loaded:
        """The same once more, with the procedure's adapters."""
        loaded = self.procedure.load(self.name, self.max_seq_length)
        self.procedure.adapt(loaded, self.lora)
        return loaded

    @cached_property
    def own_start(self) -> mlx_lm_run.Arrays:
        """The adapters as the procedure made them."""
        return mlx_lm_run.adapters(self.adapted.module)

    @cached_property
    def theirs(self) -> peft.PeftModel:
        """The model under torch, its adapters those of `start` once that was asked for.

        Raises ValueError for a model quantized for MLX.
        """
        if "quantization" in self.bare.config:
            raise ValueError(
                f"{self.name} is quantized for MLX, which torch cannot open; give the model it was made of."
            )
        trusts = self.bare.trust_remote_code
        return torch_model.open_with_adapters(self.bare.folder, self.lora, trust_remote_code=trusts)

    @cached_property
    def with_head(self) -> peft.PeftModel:
        """`theirs`, with the head that TRL's losses ask; without being asked for it, it is what it was."""
        return trl_losses.with_head(self.theirs)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer as transformers opens it."""
        trusts = self.bare.trust_remote_code
        shown = openable(self.bare.folder, trust_remote_code=trusts)
        return AutoTokenizer.from_pretrained(shown, trust_remote_code=trusts)

    @cached_property
    def start(self) -> mlx_lm_run.Arrays:
        """The adapters every reference run starts from: on the layers PEFT chooses, drawn as mlx-lm draws them."""
        targets = [
            name.removesuffix(".lora_a") for name in torch_model.adapters(self.theirs) if name.endswith("lora_a")
        ]
        made = mlx_lm_run.adapters(mlx_lm_run.with_adapters(self.bare.folder, self.lora, targets))
        torch_model.put(self.theirs, made)
        return made

    @cached_property
    def filled(self) -> mlx_lm_run.Arrays:
        """`start` with B matrices that are not zero, so that every adapter acts and every gradient is there."""
        random = np.random.default_rng(0)
        return {
            name: (0.02 * random.standard_normal(array.shape)).astype(np.float32) if name.endswith("lora_b") else array
            for name, array in self.start.items()
        }

    @cached_property
    def encoded(self) -> Sequence[Encoded]:
        """The rows as the procedure reads them."""
        if self.objective is not None:
            return self.procedure.answers.encode(self.rows, self.bare, self.max_seq_length, self.objective.rows)
        return self.procedure.encode(self.rows, self.bare, self.max_seq_length)

    @property
    def few(self) -> list[Encoded]:
        """Some of them."""
        return list(self.encoded[:SAMPLED_ROWS])

    @property
    def sample(self) -> Sequence[Encoded]:
        """The sequences of these: of a pair both."""
        return sequences_of(self.few)

    @property
    def compared(self) -> OverAnswers:
        """The objective, where there is one."""
        assert self.objective is not None
        return self.objective

    @cached_property
    def logits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ours, torch's) float32 logits (T-1, V) of each sampled row, without adapters."""
        _ = self.start
        pairs = []
        with self.theirs.disable_adapter():
            for row in self.sample:
                batch = self.bare.family.collate([row], len(row.tokens))
                hidden = self.bare.family.hidden(self.bare.module, batch)
                ours = self.bare.family.head(self.bare.module, hidden)[0]
                pairs.append((np.array(ours.astype(mx.float32)), torch_model.logits(self.theirs, row.tokens[:-1])))
        return pairs

    @cached_property
    def reference_curve(self) -> list[float]:
        """The losses of the run under torch."""
        torch_model.put(self.theirs, self.start)
        losses = list(torch_model.losses(self.theirs, self.encoded, self.training))
        torch_model.put(self.theirs, self.start)
        return losses

    def put(self, arrays: mlx_lm_run.Arrays) -> None:
        """Set the adapters on both sides to `arrays`."""
        torch_model.put(self.theirs, arrays)
        self.put_ours(arrays)

    def put_ours(self, arrays: mlx_lm_run.Arrays) -> None:
        """Set our adapters to those of `arrays` they have a place for."""
        _ = self.own_start  # before it is overwritten
        have = flat(self.adapted.module.trainable_parameters())
        fitting = [(name, mx.array(array)) for name, array in arrays.items() if name in have]
        self.adapted.module.update(tree_unflatten(fitting))
        mx.eval(self.adapted.module.parameters())

    def token(self, row: Encoded, position: int) -> str:
        """A token as a person would name it: its place, and what it says."""
        return f"token {position} of row {row.number} ({self.tokenizer.decode([int(row.tokens[position])])!r})"
