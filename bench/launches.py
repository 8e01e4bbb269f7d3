"""What a step launches on Metal, counted without a GPU: the primitives of its graph that are no views.

    python bench/launches.py [smollm2 llama3 gemma3 qwen3_5 qwen3_vl] [--settings default packing ...] [--json]

Five models of released shapes in bfloat16, four rows of 1,024 predicted tokens, adapters of rank 16: the kit's step by
default with one micro-batch, with packing, with gradient checkpointing, with four micro-batches, and DPO with the rows
as pairs; beside it the step of mlx-lm's own `train`. Both are compiled. A concatenation launches a copy of each of its
parts; the last column takes it for one primitive, as the graph shows it. Nothing is computed: weights are zeros, and
MLX's CPU build is made to build what Metal would (`graphs/metal.py`). The numbers follow from the code alone and are
the same on every machine; `tests/train/test_launches.py` holds the kit to them. Exits with 1 where the kit's graph has
what Metal lacks (`graphs/counting.py`).
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import tunebook  # before MLX: it loads the fast BLAS

assert tunebook

from graphs.counting import COPIES, lacking, noted_types  # noqa: E402
from graphs.metal import as_on_metal  # noqa: E402
from graphs.models import KINDS, Kind  # noqa: E402
from graphs.steps import SETTINGS, Setting, forward_pass, kit_step, stock_step  # noqa: E402


@dataclass(frozen=True)
class Result:
    """One step."""

    model: str  # of KINDS
    setting: str  # of SETTINGS
    step: int  # launches of the kit's
    update: int  # of these, those behind the gradients: clipping, the optimizer, the look whether all is finite
    stock: int | None  # launches of mlx-lm's step; None: it has no such setting, or was not asked for
    primitives: int  # of the kit's graph: its launches, but a concatenation as one
    stock_primitives: int | None
    forward: int | None  # launches of a forward pass over the same rows; None: not for this setting
    commonest: dict[str, int]  # primitives of the kit's step
    lacking: list[str]  # sentences about what of the kit's step Metal cannot compute


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(KINDS)}; none: all of them")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="those to count for")
    parser.add_argument("--kit", action="store_true", help="leave mlx-lm's step out")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no table")
    options = parser.parse_args()
    if unknown := set(options.models) - KINDS.keys():
        parser.error(f"there is no model {', '.join(sorted(unknown))}; choose of {', '.join(KINDS)}")
    results = []
    if not options.json:
        print(
            f"{'model':<28} {'setting':<14} {'step':>7} {'update':>7} {'mlx-lm':>7} {'launches':>8} {'primitives':>11}"
        )
    for model in options.models or KINDS:
        for setting in options.settings:
            if takes(KINDS[model], SETTINGS[setting]):
                results.append(counted(model, setting, stock=not options.kit))
                if not options.json:
                    print_line(results[-1])
    if options.json:
        print(json.dumps({"results": [asdict(result) for result in results]}))
    sys.exit(any(result.lacking for result in results))


def takes(kind: Kind, setting: Setting) -> bool:
    """Whether a model is counted in a setting.

    What a layer over tokens and an image do where nothing has a gradient is upstream's, kernels of Metal's own among it
    that nothing here stands in for.
    """
    if setting.preferences:
        return not (kind.loops or kind.reads_images)
    return kind.packs or not setting.packing


def counted(model: str, setting: str, *, stock: bool) -> Result:
    """One step of the kit and, with `stock`, of mlx-lm where it has the setting."""
    with as_on_metal():
        with noted_types() as types:
            whole, update = kit_step(KINDS[model], SETTINGS[setting])
        of_pairs = SETTINGS[setting].preferences
        is_stock = stock and not (SETTINGS[setting].packing or of_pairs)
        theirs = stock_step(KINDS[model], SETTINGS[setting]) if is_stock else None
        forward = forward_pass(KINDS[model]).total() if of_pairs else None
    return Result(
        model=model,
        setting=setting,
        step=whole.total(),
        update=update.total(),
        stock=None if theirs is None else theirs.total(),
        primitives=whole.total() - whole[COPIES],
        stock_primitives=None if theirs is None else theirs.total() - theirs[COPIES],
        forward=forward,
        commonest=dict(whole.most_common(12)),
        lacking=lacking(whole, types),
    )


def print_line(result: Result) -> None:
    """One line, and one for each thing that Metal lacks."""
    stock = ""
    if result.stock is not None and result.stock_primitives is not None:
        launches, primitives = result.step / result.stock, result.primitives / result.stock_primitives
        stock = f"{result.stock:>7,} {launches:7.2f}x {primitives:10.2f}x"
    if result.forward is not None:
        stock = f"of which a forward pass takes {result.forward:,}"
    title = KINDS[result.model].title
    print(f"{title:<28} {result.setting:<14} {result.step:>7,} {result.update:>7,} {stock}", flush=True)
    for sentence in result.lacking:
        print(f"    {sentence}")


if __name__ == "__main__":
    main()
