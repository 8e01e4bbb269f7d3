"""What a run will need of memory, part by part, and what to change where that is more than there is.

A model and a configuration go in, an `Estimate` comes out. Parameters, gradients and optimizer state are counted; what
a layer keeps and what the loss takes is measured on a few short made-up rows (`probing.py`), which takes a second or
two and counts MLX's peak memory anew. It is of MLX's plain pass: not of a compiled one, of evaluation or of sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import mlx.nn as nn
from mlx_lm.models.switch_layers import SwitchLinear

from . import runtime
from .adapters import adapter_paths, is_adapter
from .batches import padded_width, steps_per_epoch, windows
from .config import TrainingConfig
from .encoded import lengths_of
from .families.base import Encoded
from .loader import Loaded
from .loss import rows_at_once
from .optim import make_optimizer
from .probing import LayerCost, LossCost, a_state, layer_costs, layers_of, loss_cost, trained_outside
from .tensors import flat

UPDATED_AT_ONCE = 10  # tensors MLX (0.32) is in the middle of updating; it evaluates at most 20 arrays side by side
PIECES_AT_ONCE = (
    2  # of the loss: MLX allocates up to ten operations ahead, and a piece has four of a logit array's size
)
WORTH_SAYING = 0.02  # share of the total a remedy must save
FEWEST_TOKENS = 256  # below which a shorter max_seq_length is not suggested
LOWEST_RANK = 8  # below which a smaller rank is not


class HoldsLoaded(Protocol):
    """What is asked of a model: `FastModel` is one, and so is a `Trainer`."""

    loaded: Loaded


@dataclass(frozen=True, kw_only=True)
class Batch:
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
        return f"{self.advice}, which saves {_readable(self.saves)}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes a run needs. `str` of it is a table."""

    weights: int  # parameters that are not trained
    trained: int  # parameters that are: adapters, modules trained whole
    optimizer: int  # its moments, and what rounding took from half-precision parameters
    gradients: int  # those of a step, and the sum over its micro-batches
    activations: int  # kept by all layers from the forward to the backward pass
    layer: int  # by the layer at work, in passing
    loss: int  # logits and their gradient, a piece of them at a time
    embedding: int  # in passing, when a trained embedding or head gets its gradient
    update: int  # in passing, by the optimizer
    device: int  # what there is
    batch: Batch
    gradient_checkpointing: bool
    remedies: list[Remedy] = field(default_factory=list)  # the one that saves most comes first

    @property
    def total(self) -> int:
        """Bytes at the peak of a step."""
        return self._held + max(self._moments.values())

    @property
    def fits(self) -> bool:
        """Whether that is within what there is."""
        return self.total <= self.device

    @property
    def _held(self) -> int:
        return self.weights + self.trained + self.optimizer

    @property
    def _moments(self) -> dict[str, int]:
        """Bytes beyond those held, at the moments that can be the peak. Activations go as gradients come."""
        return {
            "the loss": self.activations + self.loss,
            "the backward pass": max(self.activations, self.gradients) + self.layer,
            "the end of the backward pass": self.gradients + self.embedding,
            "the update": self.gradients + self.update,
        }

    def largest(self, count: int) -> list[str]:
        """The largest parts, in words."""
        parts = sorted(self._parts().items(), key=lambda part: -part[1])
        return [f"{name} {_readable(size)}" for name, size in parts[:count]]

    def _parts(self) -> dict[str, int]:
        return {
            "weights": self.weights,
            "trained parameters": self.trained,
            "optimizer state": self.optimizer,
            "gradients": self.gradients,
            "activations": self.activations,
            "the layer at work": self.layer,
            "loss": self.loss,
            "gradient of embedding and head": self.embedding,
            "update": self.update,
        }

    def __str__(self):
        moment = max(self._moments, key=self._moments.__getitem__)
        checkpointing = "on" if self.gradient_checkpointing else "off"
        lines = [
            f"{self.batch.rows} rows of {self.batch.tokens} tokens, {self.batch.supervised} supervised; "
            f"gradient checkpointing {checkpointing}",
            *(f"{name:<32}{_readable(size):>10}" for name, size in self._parts().items() if size),
            f"{'at most at once, in ' + moment:<32}  {_readable(self.total)} of {_readable(self.device)}",
            *(f"To save {_readable(remedy.saves)}: {remedy.advice}." for remedy in self.remedies),
        ]
        return "\n".join(lines)


def estimate(
    model: HoldsLoaded,
    config: TrainingConfig | None = None,
    *,
    rows: Sequence[Encoded] | None = None,
    longest: int | None = None,
) -> Estimate:
    """What training `model` takes, with the parameters that are trainable now.

    The batch is the largest that the encoded `rows` give, or rows of `longest` tokens (None: max_seq_length), all of
    them supervised. With `gradient_checkpointing` "auto" or None it is on where the run would not fit without. Raises
    ValueError when nothing is trainable.
    """
    config, loaded = config or TrainingConfig(), model.loaded
    if not flat(loaded.module.trainable_parameters()):
        raise ValueError("Nothing in this model is trainable; call FastModel.get_peft_model(model) first.")
    cap = config.max_seq_length or loaded.max_seq_length
    batch = _largest(rows, config, cap) if rows else _of(longest or cap, config, cap)
    facts = _facts(loaded, config, batch.tokens)
    switch = config.gradient_checkpointing
    found = _put_together(facts, batch, checkpointing=switch is True)
    if switch in ("auto", None) and not found.fits:
        found = _put_together(facts, batch, checkpointing=True)
    return replace(found, remedies=_remedies(found, facts, config, _rank(loaded.module)))


def settled(model: HoldsLoaded, config: TrainingConfig, rows: Sequence[Encoded]) -> tuple[TrainingConfig, list[str]]:
    """`config` with gradient checkpointing on or off where it was "auto", and a sentence where memory is short."""
    chooses = config.gradient_checkpointing == "auto"
    if _surely_fits(model.loaded, config, rows):
        return replace(config, gradient_checkpointing=False) if chooses else config, []
    need = estimate(model, config, rows=rows)
    config = replace(config, gradient_checkpointing=need.gradient_checkpointing)
    if not need.fits:
        advice = "; or ".join(map(str, need.remedies[:3]))
        return config, [
            f"This run may need {_readable(need.total)}, and there are {_readable(need.device)}. Most of it: "
            f"{', '.join(need.largest(3))}. To need less: {advice or 'take a smaller model'}."
        ]
    if chooses and need.gradient_checkpointing:
        without = estimate(model, replace(config, gradient_checkpointing=False), rows=rows)
        return config, [
            f"Gradient checkpointing is on: without it this run may need {_readable(without.total)} of the "
            f"{_readable(need.device)} there are, with it {_readable(need.total)}."
        ]
    return config, []


def _surely_fits(loaded: Loaded, config: TrainingConfig, rows: Sequence[Encoded]) -> bool:
    """Whether a bound far above any estimate is within what there is, so that a small run need not be measured.

    It takes 16 float32 numbers for each parameter; for each token 8 for every row and column of a matrix (a layer
    keeps one or two); and for each layer and token 12 scores per token and head of 16 numbers, or states of that size.
    """
    batch = _largest(rows, config, config.max_seq_length or loaded.max_seq_length)
    parameters = flat(loaded.module.parameters()).values()
    depth, width = len(layers_of(loaded.module)), a_state(loaded.family, loaded.module).shape[-1]
    sides = sum(value.size // value.shape[-1] + value.size // value.shape[-2] for value in parameters if value.ndim > 1)
    scores = 3 * width * depth * (batch.tokens + 1024)
    bound = 64 * sum(value.size for value in parameters) + batch.rows * batch.tokens * (32 * sides + scores)
    return bound <= runtime.training_limit_gb() * 1e9


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What does not change with the batch."""

    frozen: int  # bytes
    quantized: dict[int, int]  # bits -> bytes of the frozen parameters, were they quantized so
    trained: int  # bytes
    adapters: int  # of them, in adapters
    optimizer: int  # bytes
    gradients: int  # bytes
    update: int  # bytes
    embedding: int  # bytes
    head: int  # bytes of the gradient of a trained head
    layers: list[LayerCost]
    depth: int  # layers that gradients pass through
    loss: LossCost
    together: int | None  # positions that go through the head at once; None: all
    every_token: bool  # whether all tokens go through the head, supervised or not
    state: int  # bytes of one position between two layers
    device: int  # bytes


def _facts(loaded: Loaded, config: TrainingConfig, longest: int) -> _Facts:
    module, family = loaded.module, loaded.family
    trained = flat(module.trainable_parameters())
    sizes = sorted((value.size for value in trained.values()), reverse=True)
    everything, own = _bytes(flat(module.parameters())), _bytes(trained)
    outside = _bytes(trained_outside(module))
    accumulates = config.gradient_accumulation_steps > 1
    half = any(value.itemsize < 4 for value in trained.values())
    loss, layers = loss_cost(family, module), layer_costs(family, module, longest)
    hidden = a_state(family, module)
    fixed = family.head_is_fixed(module)
    return _Facts(
        frozen=everything - own,
        quantized={bits: _quantized(module, bits) for bits in (8, 4)},
        trained=own,
        adapters=_bytes({name: value for name, value in trained.items() if is_adapter(name)}),
        # Made and not evaluated: only shapes and types are looked at.
        optimizer=_bytes(flat(make_optimizer(config, module).state)),
        gradients=8 * sum(sizes) if accumulates else own,
        # A new value and its float32 form, of the tensors that are being updated; Lion's moments wait until the end.
        update=(8 if half else 4) * sum(sizes[:UPDATED_AT_ONCE]) + (4 * sum(sizes) if config.optim == "lion" else 0),
        embedding=max(0, round(loss.constant) - outside),
        head=0 if fixed else outside,
        layers=layers,
        depth=sum(kind.count for kind in layers),
        loss=loss,
        together=rows_at_once(family, module, hidden.reshape(-1, hidden.shape[-1])) if fixed else None,
        every_token=family.head(module, hidden) is hidden,
        state=hidden.shape[-1] * hidden.itemsize,
        device=round(runtime.training_limit_gb() * 1e9),
    )


def _put_together(facts: _Facts, batch: Batch, *, checkpointing: bool) -> Estimate:
    rows, tokens = batch.rows, batch.tokens
    kept = [kind.kept(rows, tokens) for kind in facts.layers]
    working = [kind.working(rows, tokens) for kind in facts.layers]
    activations = sum(kind.count * one for kind, one in zip(facts.layers, kept, strict=True))
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
        optimizer=facts.optimizer,
        gradients=facts.gradients,
        activations=activations,
        layer=layer,
        loss=loss,
        embedding=facts.embedding,
        update=facts.update,
        device=facts.device,
        batch=batch,
        gradient_checkpointing=checkpointing,
    )


def _remedies(now: Estimate, facts: _Facts, config: TrainingConfig, rank: int | None) -> list[Remedy]:
    """Changes, each made alone, that save something worth saying; the one that saves most first."""
    batch, on = now.batch, now.gradient_checkpointing
    changed = {} if on else {"set gradient_checkpointing=True": _put_together(facts, batch, checkpointing=True)}
    if batch.rows > 1:
        steps = config.gradient_accumulation_steps * batch.rows
        one = replace(batch, rows=1, supervised=-(-batch.supervised // batch.rows))
        advice = f"set per_device_train_batch_size=1 and gradient_accumulation_steps={steps}"
        changed[advice] = _put_together(facts, one, checkpointing=on)
    if batch.tokens >= 2 * FEWEST_TOKENS:
        shorter = replace(batch, tokens=batch.tokens // 2, supervised=-(-batch.supervised // 2))
        changed[f"set max_seq_length={batch.tokens // 2}"] = _put_together(facts, shorter, checkpointing=on)
    for bits, size in facts.quantized.items():
        smaller = replace(facts, frozen=size)
        changed[f"load the model with load_in_{bits}bit=True"] = _put_together(smaller, batch, checkpointing=on)
    if rank is not None and rank > LOWEST_RANK:
        share = 1 - facts.adapters / facts.trained * (1 - LOWEST_RANK / rank)
        names = ("trained", "optimizer", "gradients", "update")
        smaller = replace(facts, **{name: round(share * size) for name, size in vars(facts).items() if name in names})
        changed[f"make the adapters with r={LOWEST_RANK}"] = _put_together(smaller, batch, checkpointing=on)
    remedies = [Remedy(advice=advice, saves=now.total - other.total) for advice, other in changed.items()]
    return sorted(
        (remedy for remedy in remedies if remedy.saves > WORTH_SAYING * now.total), key=lambda remedy: -remedy.saves
    )


def _largest(rows: Sequence[Encoded], config: TrainingConfig, cap: int) -> Batch:
    """The batch of the first epoch with most tokens, taken to have as many supervised ones as any has."""
    lengths = lengths_of(rows)
    epoch = islice(windows(lengths, config), steps_per_epoch(len(rows), config))
    batches = [batch for window in epoch for batch in window]
    widths = [padded_width(max(lengths[row] for row in batch), cap) for batch in batches]
    largest = max(range(len(batches)), key=lambda index: len(batches[index]) * widths[index])
    return Batch(
        rows=len(batches[largest]),
        tokens=widths[largest] - 1,
        supervised=max(sum(rows[row].supervised_tokens for row in batch) for batch in batches),
    )


def _of(longest: int, config: TrainingConfig, cap: int) -> Batch:
    rows, tokens = config.per_device_train_batch_size, padded_width(longest, cap) - 1
    return Batch(rows=rows, tokens=tokens, supervised=rows * tokens)


def _rank(module: nn.Module) -> int | None:
    """The rank of the adapters; None when there are none."""
    paths = adapter_paths(module)
    return dict(module.named_modules())[paths[0]]["lora_b"].shape[-2] if paths else None


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


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
