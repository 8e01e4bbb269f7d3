"""The optimizer: gradients in, updated parameters out.

The update rules are those of mlx.optimizers, always fed float32: decay, moments and the new values are computed in
float32 whatever the parameters are kept in. A step follows from parameters, gradients, `optimizer.state` and rate
alone. What is trained lies in a few buffers (`buffers.py`), so that a step is a handful of operations; the module's
parameters are views of them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast, final

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ...config import TrainingConfig
from ...machine import runtime
from ...models.tensors import flat
from .buffers import Arrays, Buffer, buffers_of
from .clipping import Gradients
from .rules import Group, decays, groups_of, shown


@dataclass(frozen=True)
class Part:
    """One buffer and what is done with it."""

    buffer: Buffer
    group: Group  # the first that has its rule and its rate
    decays: bool

    def gathered(self, arrays: Arrays) -> mx.array:
        """The buffer of its parameters among `arrays`, each as the rule sees it."""
        return self.buffer.gathered(shown(self.group.rule, {name: arrays[name] for name in self.buffer.names}))

    def spread(self, buffer: mx.array) -> Arrays:
        """The parameters in `buffer` by name, each as the module has it."""
        return shown(self.group.rule, self.buffer.spread(buffer))

    def blank(self) -> Arrays:
        """What the rule remembers before the first step, float32."""
        names, shapes = self.buffer.names, self.buffer.shapes
        end_to_end = len(names) > 1 and not self.buffer.stacked
        remembered: Arrays = {}
        self.group.optimizer.init_single(mx.zeros(self.buffer.size if end_to_end else shapes[0]), remembered)
        if len(names) == 1 or end_to_end:
            return remembered
        return {name: mx.zeros((len(names), *array.shape)) for name, array in remembered.items()}


@dataclass(frozen=True)
class Held:
    """All that lies in memory from one step to the next, by the key of its part. Never changed: a step makes another.

    As long as one is kept, its arrays are, and a step cannot use their memory for what it makes.
    """

    moments: dict[str, Arrays]  # what the rules remember
    remainders: Arrays  # what rounding took from parameters in half precision, bfloat16
    step: mx.array  # how many were taken
    rates: Arrays  # of the last, by the name of the group
    values: Arrays = field(default_factory=dict)  # the parameters; none before the first step
    views: Arrays = field(default_factory=dict)  # the parameters by name, as the step gave them to the module

    @property
    def arrays(self) -> dict[str, Any]:
        """Every array, as a tree."""
        own = {"moments": self.moments, "remainders": self.remainders, "step": self.step}
        return {**own, "rates": self.rates, "values": self.values}


@final
class Optimizer:
    """The groups of a model's trainable parameters, and what rounding took from those kept in half precision.

    A bfloat16 weight near 0.02 cannot take a step of 2e-5: the sum rounds back to where it was. So the part that is
    rounded off is kept, as bfloat16, and added again at the next step; weight and remainder together are precise to
    about 2**-17. Parameters in float32, adapters among them, need none.
    """

    def __init__(self, groups: dict[str, Group], parameters: Arrays):
        self.groups = groups
        self.parts = _parts(groups, parameters)
        self.held = Held(
            moments={key: part.blank() for key, part in self.parts.items()},
            remainders={
                key: mx.zeros(part.gathered(parameters).shape, mx.bfloat16)
                for key, part in self.parts.items()
                if parameters[part.buffer.names[0]].dtype != mx.float32
            },
            step=mx.array(0, mx.uint64),
            rates={name: group.optimizer.learning_rate for name, group in groups.items()},
        )
        self.step = runtime.compiled_on_a_gpu(self._step)
        self.is_finite = runtime.compiled_on_a_gpu(lambda array: mx.isfinite(array).all())

    def gathered(self, gradients: Gradients) -> Arrays:
        """A tree of the gradients of all trainable parameters as `update` takes them: a few arrays, by part."""
        arrays = flat(gradients)
        return {key: part.gathered(arrays) for key, part in self.parts.items()}

    def spread(self, gathered: Arrays) -> Gradients:
        """The tree again that was `gathered`."""
        return cast("Gradients", tree_unflatten([*self._by_name(gathered).items()]))

    @property
    def state(self) -> dict[str, Any]:
        """Everything it remembers, as a tree of arrays by group and parameter: moments, step counts, remainders."""
        named = {
            f"{name}.{kind}": array
            for key, part in self.parts.items()
            for kind, buffer in self.held.moments[key].items()
            for name, array in part.buffer.spread(buffer).items()
        }
        remainders = self._by_name(self.held.remainders)
        states: dict[str, Any] = {}
        for group, members in self.groups.items():
            names = set(members.names)
            own = [(name, array) for name, array in named.items() if name.rpartition(".")[0] in names]
            states[group] = {"step": self.held.step, "learning_rate": self.held.rates[group], **_tree(own)}
        return {**states, "remainders": _tree([*remainders.items()])} if remainders else states

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        """Take up where `state` was left. Raises ValueError when it is another optimizer's or another model's."""
        ours, theirs = flat(self.state), flat(state)
        different = sorted(
            name
            for name in ours.keys() | theirs.keys()
            if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
        )
        if different:
            raise ValueError(
                f"This optimizer state does not fit: {len(different)} of its {len(theirs)} arrays are missing here, "
                f"missing there or of another shape, the first {different[0]!r}. Set optim and what is trained as "
                "they were when it was saved."
            )
        named = {name.partition(".")[2]: array for name, array in theirs.items()}
        self.held = replace(
            self.held,
            moments={
                key: {
                    kind: part.buffer.gathered({name: named[f"{name}.{kind}"] for name in part.buffer.names})
                    for kind in self.held.moments[key]
                }
                for key, part in self.parts.items()
            },
            remainders={key: self.parts[key].gathered(named) for key in self.held.remainders},
            step=theirs[f"{next(iter(self.groups))}.step"],
            rates={group: theirs[f"{group}.learning_rate"] for group in self.groups},
        )

    def lay_out(self, module: nn.Module) -> None:
        """Have the trainable parameters of `module` lie in memory as `update` leaves them, one part after another.

        A product adds in another order where a matrix lies transposed, as Muon leaves adapters: a run that goes on
        from a checkpoint would lose its last bits.
        """
        values, views = {}, {}
        for key, part in self.parts.items():
            values[key] = mx.contiguous(part.gathered(flat(module.trainable_parameters())))
            own = part.spread(values[key])
            mx.eval(values[key], own)
            module.update(cast("dict[str, Any]", tree_unflatten([*own.items()])))
            views |= own
        self.held = replace(self.held, values=values, views=views)

    def values_in(self, module: nn.Module) -> Arrays:
        """The trainable parameters of `module` by part: those of the last step, if the module still has them."""
        own = flat(module.trainable_parameters())
        if self.held.views and all(own[name] is view for name, view in self.held.views.items()):
            return self.held.values
        return self.gathered(own)

    def _by_name(self, gathered: Arrays) -> Arrays:
        return {
            name: array for key, buffer in gathered.items() for name, array in self.parts[key].spread(buffer).items()
        }

    def _step(
        self,
        values: Arrays,
        gradients: Arrays,
        moments: dict[str, Arrays],
        remainders: Arrays,
        step: mx.array,
        rates: Arrays,
        keeps: Arrays,
    ) -> tuple[Arrays, dict[str, Arrays], Arrays]:
        """(values, moments, remainders) after step number `step`; everything by part, and of arrays alone.

        `rates` are scalars, and `keeps` what the decay leaves of a value, for the parts that decay.
        """
        new, remembered, lost = {}, {}, {}
        for key, part in self.parts.items():
            exact = values[key].astype(mx.float32)
            if key in remainders:
                exact = exact + remainders[key].astype(mx.float32)
            if key in keeps:
                exact = exact * keeps[key]
            rule = _rule(part, step, rates[key])
            stepped, remembered[key] = rule(gradients[key].astype(mx.float32), exact, moments[key])
            new[key] = stepped.astype(values[key].dtype)
            if key in remainders:
                lost[key] = (stepped - new[key].astype(mx.float32)).astype(mx.bfloat16)
        return new, remembered, lost


def make_optimizer(config: TrainingConfig, module: nn.Module) -> Optimizer:
    """The optimizer `config.optim` names, its state made for the trainable parameters of `module`.

    Weight decay is left to `update`, which knows what must not be decayed. Raises ValueError when a rate is set for
    parameters of which there are none.
    """
    parameters = flat(module.trainable_parameters())
    return Optimizer(groups_of(config, parameters), parameters)


def update(module: nn.Module, gradients: Arrays, optimizer: Optimizer, *, rate: float, weight_decay: float) -> None:
    """One optimizer step on `module`, in place: decoupled decay, then the optimizer's own update. Not yet evaluated.

    `gradients` are as `optimizer.gathered` gives them. `rate` is the schedule's; each group decays and steps at its
    own multiple of it.
    """
    held, parts = optimizer.held, optimizer.parts
    rates = {key: rate * part.group.factor for key, part in parts.items()}
    decaying = [key for key, part in parts.items() if part.decays and weight_decay]
    step = held.step + 1
    values, moments, remainders = optimizer.step(
        optimizer.values_in(module),
        gradients,
        held.moments,
        held.remainders,
        step,
        {key: mx.array(own) for key, own in rates.items()},
        {key: mx.array(1.0 - rates[key] * weight_decay) for key in decaying},
    )
    views = flat(optimizer.spread(values))
    module.update(cast("dict[str, Any]", tree_unflatten([*views.items()])))
    optimizer.held = Held(
        moments=moments,
        remainders=remainders,
        step=step,
        rates={name: mx.array(rate * group.factor) for name, group in optimizer.groups.items()},
        values=values,
        views=views,
    )


def _parts(groups: dict[str, Group], parameters: Arrays) -> dict[str, Part]:
    """Parameters of one type that share rule, rate and whether they decay, in as few buffers as may be."""
    kinds: dict[tuple[Any, ...], tuple[Group, dict[str, tuple[int, ...]]]] = {}
    for group in groups.values():
        for name, value in shown(group.rule, {name: parameters[name] for name in group.names}).items():
            kind = (group.rule, group.factor, decays(name), str(value.dtype))
            kinds.setdefault(kind, (group, {}))[1][name] = value.shape
    found = [
        Part(buffer, group, kind[2])
        for kind, (group, shapes) in kinds.items()
        for buffer in buffers_of(shapes, by_shape=group.of_matrices)
    ]
    return {str(number): part for number, part in enumerate(found)}


def _rule(
    part: Part, step: mx.array, rate: mx.array
) -> Callable[[mx.array, mx.array, Arrays], tuple[mx.array, Arrays]]:
    """`rule(gradient, value, remembered) -> (value, remembered)` of a buffer at step number `step`."""
    formula = copy.copy(part.group.optimizer)
    formula.state = {"step": step, "learning_rate": rate}

    def rule(gradient: mx.array, value: mx.array, remembered: Arrays) -> tuple[mx.array, Arrays]:
        remembered = dict(remembered)  # which the formula changes in place
        return formula.apply_single(gradient, value, remembered), remembered

    is_many = part.buffer.stacked and len(part.buffer.names) > 1
    return cast("Callable[..., tuple[mx.array, Arrays]]", mx.vmap(rule)) if is_many else rule


def _tree(arrays: list[tuple[str, mx.array]]) -> dict[str, Any]:
    return cast("dict[str, Any]", tree_unflatten(arrays)) if arrays else {}
