"""The adapters before the first step: which layers have one, their scale, B zero, and A as mlx-lm draws it."""

import math

import numpy as np

from ...models.adapters import describe
from ..case import Case
from ..finding import Finding

STANDARD_ERRORS = 5  # the spread of A may be off by chance


def layers(case: Case) -> list[Finding]:
    """The adapted layers are those PEFT chooses for the same settings, and carry their adapter at its strength."""
    expected, found = _layers(case.start), _layers(case.own_start)
    missing, extra = [path for path in expected if path not in found], [path for path in found if path not in expected]
    at = f"All {len(expected)} layers are the same, of scale {case.lora.scale:g}."
    wrong = len(missing) + len(extra)
    if wrong:
        most, where = (missing, "there") if missing else (extra, "here")
        at = f"{len(found)} layers have an adapter here and {len(expected)} there; {most[0]} has one {where} alone."
    settings = describe(case.adapted.module)
    scale = settings["lora_parameters"]["scale"] if settings else 0.0
    if not math.isclose(scale, case.lora.scale):
        wrong += len(found)
        at = f"The scale of {found[0]} is {scale:g}, and lora_alpha and r make it {case.lora.scale:g}."
    return [
        Finding(
            stage="adapters",
            what="adapted layers and their scale, here and in PEFT",
            measured=wrong,
            tolerance=0,
            unit="layers",
            evidence=at,
        )
    ]


def draws(case: Case) -> list[Finding]:
    """Adapters of the same seed are those mlx-lm's command line makes, bit for bit: B zero, A of its proper spread."""
    expected, found = case.start, case.own_start
    common = [name for name in found if name in expected and found[name].shape == expected[name].shape]
    different = [name for name in common if not np.array_equal(found[name], expected[name])]
    at = f"All {len(common)} tensors are bit-equal."
    if different:
        name = max(different, key=lambda name: float(np.abs(found[name] - expected[name]).max()))
        by = np.abs(found[name] - expected[name]).max()
        zero = "B is not zero" if name.endswith("lora_b") else "the random state was another"
        at = f"{len(different)} of {len(common)} tensors differ, most {name}, by {by:.3g}: {zero}."
    return [
        Finding(
            stage="adapters",
            what="adapters of the same seed, here and by mlx-lm's command line",
            measured=len(different) + (not common),
            tolerance=0,
            unit="tensors",
            evidence=at,
        ),
        _spread(case),
    ]


def _spread(case: Case) -> Finding:
    """A is uniform within ±1 / sqrt(inputs), in PEFT (kaiming_uniform, a = sqrt 5) as in mlx-lm."""
    values = [array * math.sqrt(array.shape[0]) for name, array in case.own_start.items() if name.endswith("lora_a")]
    pooled = np.concatenate([value.reshape(-1) for value in values]).astype(np.float64)
    error = math.sqrt(4 / 45 / len(pooled))  # of the mean square of as many numbers, uniform within ±1
    off = abs((pooled**2).mean() - 1 / 3) / error
    beyond = np.abs(pooled).max() > 1 + 1e-6
    return Finding(
        stage="adapters",
        what="spread of A and that of a uniform draw within 1 / sqrt(inputs)",
        measured=float("inf") if beyond else float(off),
        tolerance=STANDARD_ERRORS,
        unit="standard errors",
        evidence=f"{len(pooled)} numbers, of mean square {(pooled**2).mean():.4f} where 1/3 is due, the largest "
        f"{np.abs(pooled).max():.4f} of its bound.",
    )


def _layers(arrays: dict[str, np.ndarray]) -> list[str]:
    return [name.removesuffix(".lora_a") for name in arrays if name.endswith(".lora_a")]
