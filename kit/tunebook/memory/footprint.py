"""The parts of a run's memory: what a model takes whatever the batch, and what a batch makes of it.

Parameters, gradients and optimizer state are counted; what a layer keeps and what the loss takes is measured
(`probes.py`). Which batch it is, and what to change, is `forecast.py`'s.
"""

from dataclasses import dataclass, field

import mlx.nn as nn
from mlx_lm.models.switch_layers import SwitchLinear

from ..config import TrainingConfig
from ..data.encoded import Encoded
from ..fast.forms import forms_for
from ..machine import runtime
from ..models.adapters import is_adapter
from ..models.layers import trained_outside
from ..models.loaded import Loaded
from ..models.tensors import flat
from ..objectives.base import Objective
from ..objectives.next_token import rows_at_once
from ..objectives.reference import is_its_own_reference
from ..train.kept.snapshots import trains_little
from ..train.optim import make_optimizer
from .costs import NO_IMAGES, ImageCost, LayerCost, LossCost
from .measured import measured
from .probes import a_state, image_cost
from .updates import update_bytes

PIECES_AT_ONCE = 2.5  # of the loss: MLX allocates about ten operations ahead, a piece has four of its logits' size


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The largest batch of a run."""

    rows: int
    tokens: int  # of each row that enter the model, padding among them
    supervised: int  # positions of all rows together


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change that saves memory."""

    advice: str  # "set gradient_checkpointing=True"
    saves: int  # bytes

    def __str__(self):
        return f"{self.advice}, which saves {readable(self.saves)}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes a run needs. `str` of it is a table."""

    weights: int  # parameters that are not trained
    trained: int  # parameters that are: adapters, modules trained whole
    reference: int  # what they were when the run began, for an objective that asks for it
    earlier: int  # what they were at moments to go back to: the start, the last good step, the best
    optimizer: int  # its moments, and what rounding took from half-precision parameters
    gradients: int  # those of a step, and the sum over its micro-batches
    mean: int  # the gradients that an update is made of, when those of the last micro-batch are gone
    activations: int  # kept by all layers from the forward to the backward pass
    layer: int  # by the layer at work, in passing
    images: int  # kept of images: their pixels; by a trained vision tower, and by its layer at work
    reading: int  # in passing, while a vision tower that is not trained reads the images of a batch
    loss: int  # logits and their gradient, a piece of them at a time
    embedding: int  # in passing, when a trained embedding or head gets its gradient
    update: int  # in passing, by the optimizer
    device: int  # what there is
    batch: BatchShape
    gradient_checkpointing: bool
    keeps_start: bool = False  # whether the start is among the earlier ones, so that the run can be discarded
    remedies: list[Remedy] = field(default_factory=list)  # the one that saves most comes first
    not_counted: str | None = None  # what else a run does between its steps, in words

    @property
    def total(self) -> int:
        """Bytes at the peak of a step."""
        return sum(self.at_peak.values())

    @property
    def fits(self) -> bool:
        """Whether that is within what there is."""
        return self.total <= self.device

    @property
    def peak(self) -> str:
        """The moment of a step that takes most: "the loss", "the update"."""
        return max(self._moments, key=lambda moment: sum(self._moments[moment].values()))

    @property
    def at_peak(self) -> dict[str, int]:
        """The parts there are at that moment, in bytes; together they are `total`."""
        held = {"weights": self.weights, "trained parameters": self.trained, "optimizer state": self.optimizer}
        if self.reference:
            held["reference"] = self.reference
        if self.earlier:
            held["earlier parameters"] = self.earlier
        return held | self._moments[self.peak]

    @property
    def _moments(self) -> dict[str, dict[str, int]]:
        """Bytes beyond those held throughout, at the moments that can be the peak."""
        activations, gradients = {"activations": self.activations}, {"gradients": self.gradients}
        images = {"images": self.images} if self.images else {}
        # Activations go as gradients come.
        larger = activations if self.activations > self.gradients else gradients
        reading = {"reading images": gradients | {"the images as they are read": self.reading}} if self.reading else {}
        return reading | {
            "the loss": activations | images | {"loss": self.loss},
            "the backward pass": larger | images | {"the layer at work": self.layer},
            "the end of the backward pass": gradients | images | {"gradient of embedding and head": self.embedding},
            "the update": {"gradients": self.mean, "update": self.update},
        }

    def largest(self, count: int) -> list[str]:
        """The largest parts, in words."""
        parts = sorted(self._parts().items(), key=lambda part: -part[1])
        return [f"{name} {readable(size)}" for name, size in parts[:count]]

    def _parts(self) -> dict[str, int]:
        return {
            "weights": self.weights,
            "trained parameters": self.trained,
            "reference": self.reference,
            "earlier parameters": self.earlier,
            "optimizer state": self.optimizer,
            "gradients": self.gradients,
            "activations": self.activations,
            "the layer at work": self.layer,
            "images": self.images,
            "the images as they are read": self.reading,
            "loss": self.loss,
            "gradient of embedding and head": self.embedding,
            "update": self.update,
        }

    def __str__(self):
        checkpointing = "on" if self.gradient_checkpointing else "off"
        lines = [
            f"{self.batch.rows} rows of {self.batch.tokens} tokens, {self.batch.supervised} supervised; "
            f"gradient checkpointing {checkpointing}",
            *(f"{name:<32}{readable(size):>10}" for name, size in self._parts().items() if readable(size) != "0.0 MB"),
            f"{'at most at once, in ' + self.peak:<32}  {readable(self.total)} of {readable(self.device)}",
            *(f"To save {readable(remedy.saves)}: {remedy.advice}." for remedy in self.remedies),
            *([f"Not counted: {self.not_counted}."] if self.not_counted else []),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What does not change with the batch."""

    frozen: int  # bytes
    quantized: dict[int, int]  # bits -> bytes of the frozen parameters, were they quantized so
    trained: int  # bytes
    reference: int  # bytes
    earlier: int  # bytes, without what is kept only where there is room
    adapters: int  # of them, in adapters
    optimizer: int  # bytes
    gradients: int  # bytes
    mean: int  # bytes
    update: int  # bytes
    embedding: int  # bytes
    head: int  # bytes of the gradient of a trained head
    layers: list[LayerCost]
    recomputed: list[LayerCost]  # the same with gradient checkpointing, while a layer is computed again
    depth: int  # layers that gradients pass through
    image: ImageCost  # of rows like the one that has most images
    loss: LossCost
    together: int | None  # positions that go through the head at once; None: all
    every_token: bool  # whether all tokens go through the head, supervised or not
    state: int  # bytes of one position between two layers
    device: int  # bytes


def facts_of(
    loaded: Loaded, config: TrainingConfig, longest: int, objective: Objective, seen: Encoded | None = None
) -> Facts:
    """Count and measure; rows of at most `longest` tokens are made up for it. `seen` is the row with most images."""
    module, family = loaded.module, loaded.family
    trained = flat(module.trainable_parameters())
    optimizer = make_optimizer(config, module)
    elements = sum(part.buffer.size for part in optimizer.parts.values())
    everything, own = _bytes(flat(module.parameters())), _bytes(trained)
    outside = _bytes(trained_outside(module))
    accumulates = config.gradient_accumulation_steps > 1
    mean = 4 * elements if accumulates else own
    costs = measured(family, module, longest)
    hidden, forms = a_state(family, module), forms_for()
    head = family.head_layer(module)
    return Facts(
        frozen=everything - own,
        quantized={bits: _quantized(module, bits) for bits in (8, 4)},
        trained=own,
        reference=own if _copies_its_reference(module, objective) else 0,
        # A few are kept as they were at the start and at the last good step, whatever room there is.
        earlier=own * (2 * trains_little(module) + config.load_best_model_at_end),
        adapters=_bytes({name: value for name, value in trained.items() if is_adapter(name)}),
        # Made and not evaluated: only shapes and types are looked at.
        optimizer=_bytes(flat(optimizer.state)),
        gradients=8 * elements if accumulates else own,
        mean=mean,
        update=update_bytes(config, module, optimizer, mean),
        embedding=max(0, round(costs.loss.constant) - outside),
        head=_bytes(flat(head.trainable_parameters())) if head is not None else 0,
        layers=costs.layers,
        recomputed=costs.recomputed,
        depth=sum(kind.count for kind in costs.layers),
        image=NO_IMAGES if seen is None else image_cost(family, module, seen),
        loss=costs.loss,
        together=None if head is None else rows_at_once(family, module, hidden.reshape(-1, hidden.shape[-1]), forms),
        every_token=head is None,
        state=hidden.shape[-1] * hidden.itemsize,
        device=round(runtime.training_limit_gb() * 1e9),
    )


def put_together(facts: Facts, batch: BatchShape, *, checkpointing: bool) -> Estimate:
    """What a batch takes, with no remedies yet."""
    rows, tokens = batch.rows, batch.tokens
    kinds = facts.recomputed if checkpointing else facts.layers
    kept = [kind.kept(rows, tokens) for kind in kinds]
    working = [kind.working(rows, tokens) for kind in kinds]
    activations = sum(kind.count * one for kind, one in zip(kinds, kept, strict=True))
    layer = max(working, default=0)
    if checkpointing:  # a layer keeps its input, and has all the rest while it is computed again
        layer = max((one + other for one, other in zip(kept, working, strict=True)), default=0)
        activations = facts.depth * rows * tokens * facts.state
    positions = rows * tokens if facts.every_token else batch.supervised
    at_once = positions if facts.together is None else min(positions, PIECES_AT_ONCE * facts.together)
    # Around the head lie the states of all positions, gathered, and their gradient: twice, for the pieces of it.
    loss = round(facts.loss.position * at_once) + 3 * positions * facts.state + facts.head
    return Estimate(
        weights=facts.frozen,
        trained=facts.trained,
        reference=facts.reference,
        earlier=facts.earlier,
        optimizer=facts.optimizer,
        gradients=facts.gradients,
        mean=facts.mean,
        activations=activations,
        layer=layer,
        images=rows * facts.image.kept,
        reading=facts.image.passing(rows),
        loss=loss,
        embedding=facts.embedding,
        update=facts.update,
        device=facts.device,
        batch=batch,
        gradient_checkpointing=checkpointing,
    )


def _copies_its_reference(module: nn.Module, objective: Objective) -> bool:
    return objective.needs_reference and not objective.asks_beforehand and not is_its_own_reference(module)


def _quantized(module: nn.Module, bits: int) -> int:
    """Bytes of the frozen parameters when matrices are quantized as `loader.load` does: groups of 64, scale and bias.

    What is quantized already stays as it is.
    """
    trained = set(flat(module.trainable_parameters()))
    total = _bytes({name: value for name, value in flat(module.parameters()).items() if name not in trained})
    for path, part in module.named_modules():
        if not isinstance(part, (nn.Linear, nn.Embedding, SwitchLinear)) or f"{path}.weight" in trained:
            continue
        weight = part.weight
        if weight.shape[-1] % 64 == 0:
            total += weight.size * bits // 8 + weight.size // 64 * 2 * weight.itemsize - weight.nbytes
    return total


def _bytes(arrays: dict) -> int:
    return sum(value.nbytes for value in arrays.values())


def readable(size: int) -> str:
    """Bytes in words: GB are 1e9 and MB 1e6 of them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
