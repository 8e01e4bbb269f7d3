"""The gated delta rule over a sequence, a chunk of tokens at a time: queries, keys, values and gates in, outputs out.

Yang et al., Gated Delta Networks, arXiv 2412.06464, and Parallelizing Linear Transformers with the Delta Rule over
Sequence Length, arXiv 2406.06484. The state is kept once for every chunk and not for every token, and nearly all
arithmetic is matrix products. Decays that differ from channel to channel of the keys are not covered.
"""

from typing import cast

import mlx.core as mx

CHUNK = 64  # tokens


def chunkwise(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    log_decay: mx.array,
    beta: mx.array,
    state: mx.array | None = None,
    *,
    chunk: int = CHUNK,
) -> tuple[mx.array, mx.array]:
    """(y (B, T, Hv, Dv) of the type of `q`, the state (B, Hv, Dv, Dk) behind the last token, float32).

    For every head and token S <- exp(log_decay) S;  S <- S + beta (v - S k) k^T;  y = S q  (2412.06464, section 3.1),
    computed in float32. `q` and `k` (B, T, Hk, Dk) serve Hv / Hk neighbouring heads of `v` (B, T, Hv, Dv) each;
    `log_decay` <= 0 and `beta` are (B, T, Hv). No `state` means zeros. Keys are to be of length 1 at most.
    """
    _, length, heads, _ = q.shape
    if v.shape[-2] % heads:
        raise ValueError(f"{v.shape[-2]} heads of values cannot share {heads} of keys; the one must divide the other.")
    chunk = min(chunk, length)
    queries, keys, values = (_cut(x, heads, chunk) for x in (q, k, v))
    log_decay, beta = (_cut(x[..., None], heads, chunk) for x in (log_decay, beta))  # (N, B, Hk, Hv / Hk, C, 1)

    since_start = mx.exp(mx.cumsum(log_decay, axis=-2))  # (..., C, 1)
    between = _decay_between(log_decay)  # (..., C, C)
    transposed = keys.swapaxes(-1, -2)
    inverse = inverse_of_unit_lower(mx.tril(keys @ transposed, -1) * between * beta)
    # What the tokens write is `written` - `erased` @ state^T: the WY form, 2412.06464, section 3.3.
    written = inverse @ (beta * values)  # (..., C, Dv)
    erased = inverse @ (beta * since_start * keys)  # (..., C, Dk)
    lasting = between[..., -1, :, None] * keys  # (..., C, Dk); as much of them as is left behind the last token
    shape = (*written.shape[1:-2], written.shape[-1], keys.shape[-1])  # (B, Hk, Hv / Hk, Dv, Dk)
    start = mx.zeros(shape) if state is None else state.astype(mx.float32).reshape(shape)
    through = _through(start, written, erased, lasting, since_start[..., -1:, :])
    states, updates, end = cast("tuple[mx.array, mx.array, mx.array]", through)

    y = since_start * (queries @ states.swapaxes(-1, -2)) + ((queries @ transposed) * between) @ updates
    return _join(y, length).astype(q.dtype), end.reshape(shape[0], -1, *shape[-2:])


@mx.custom_function
def recomputed_chunkwise(
    q: mx.array, k: mx.array, v: mx.array, log_decay: mx.array, beta: mx.array
) -> tuple[mx.array, mx.array]:
    """`chunkwise` from a state of zeros, which keeps its inputs alone until its gradient is wanted.

    (y (B, T, Hv, Dv) of the type of `q`, the state (B, Hv, Dv, Dk) behind the last token, float32), of `q` and `k`
    (B, T, Hk, Dk), `v` (B, T, Hv, Dv), `log_decay` and `beta` (B, T, Hv). Raises ValueError as `chunkwise` does. What
    lies between is several times as large, and cheap beside the rest of a layer.
    """
    return chunkwise(q, k, v, log_decay, beta)


@recomputed_chunkwise.vjp
def _recomputed_vjp(
    inputs: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], _: tuple[mx.array, ...]
) -> tuple[mx.array, ...]:
    # mx.checkpoint (0.32) waits for the outputs only, so that every layer may be recomputed at once, early on.
    held = mx.depends(list(inputs), list(cotangents))
    return tuple(mx.vjp(lambda *held: list(chunkwise(*held)), held, list(cotangents))[1])


def inverse_of_unit_lower(below: mx.array) -> mx.array:
    """(I + `below`)^-1 for the strictly lower triangular `below` (..., C, C).

    By halves: the inverse of a block is those of its diagonal halves, and -inverse @ corner @ inverse in the corner.
    A series in powers of `below` has terms of 1e18 where keys repeat, which cancel in exact arithmetic only.
    """
    return cast(mx.array, _inverse(below))


@mx.custom_function
def _inverse(below: mx.array) -> mx.array:
    size = below.shape[-1]
    place = mx.arange(size)
    inverse, half = mx.eye(size), 1
    while half < size:
        block, side = place // (2 * half), place // half
        is_corner = (block[:, None] == block[None]) & (side[:, None] > side[None])
        inverse = inverse - inverse @ mx.where(is_corner, below, 0.0) @ inverse
        half *= 2
    return inverse


@_inverse.vjp
def _inverse_vjp(_: mx.array, cotangent: mx.array, inverse: mx.array) -> mx.array:
    transposed = inverse.swapaxes(-1, -2)
    return mx.tril(-(transposed @ cotangent @ transposed), -1)


def _decay_between(log_decay: mx.array) -> mx.array:
    """(..., C, C): what is left at token i of what token j wrote, 0 where j is later; from (..., C, 1)."""
    size = log_decay.shape[-2]
    # Summed from j on each time: with sums from the start, a weak decay behind strong ones is a difference of two large
    # numbers.
    steps = mx.tril(mx.broadcast_to(log_decay, (*log_decay.shape[:-1], size)), -1)
    return mx.tril(mx.exp(mx.cumsum(steps, axis=-2)))


@mx.custom_function
def _through(
    state: mx.array, written: mx.array, erased: mx.array, lasting: mx.array, decay: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """From chunk to chunk: (states before each (N, ..., Dv, Dk), updates (N, ..., C, Dv), the state at the end).

    update = written - erased @ state^T;  state <- decay state + update^T @ lasting.
    """
    states, updates = [], []
    for new, old, kept, left in zip(written, erased, lasting, decay, strict=True):
        update = new - old @ state.swapaxes(-1, -2)  # (B, Hk, Hv / Hk, C, Dv)
        states.append(state)
        updates.append(update)
        state = left * state + update.swapaxes(-1, -2) @ kept
    return mx.stack(states), mx.stack(updates), state


@_through.vjp
def _through_vjp(
    inputs: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
) -> tuple[mx.array, ...]:
    """From the last chunk to the first. Of MLX (0.32), the gradient of the loop costs the square of its length."""
    _, _, erased, lasting, decay = inputs
    states, updates, _ = outputs
    for_states, for_updates, gradient = cotangents  # `gradient` is that of the state behind a chunk
    gradients, for_written = [], []
    for n in reversed(range(len(states))):
        for_update = for_updates[n] + lasting[n] @ gradient.swapaxes(-1, -2)
        gradients.append(gradient)
        for_written.append(for_update)
        gradient = for_states[n] + decay[n] * gradient - for_update.swapaxes(-1, -2) @ erased[n]
    gradients, for_written = mx.stack(gradients[::-1]), mx.stack(for_written[::-1])
    for_decay = (gradients * states).sum(axis=(-2, -1), keepdims=True)
    return gradient, for_written, -for_written @ states, updates @ gradients, for_decay


def _cut(x: mx.array, heads: int, chunk: int) -> mx.array:
    """(B, T, H, D) as (N, B, heads, H / heads, C, D), float32; the last chunk is filled up with zeros.

    A token of zeros neither decays nor writes.
    """
    batch, length, _, width = x.shape
    x = mx.pad(x.astype(mx.float32), [(0, 0), (0, -length % chunk), (0, 0), (0, 0)])
    return x.reshape(batch, -1, chunk, heads, x.shape[2] // heads, width).transpose(1, 0, 3, 4, 2, 5)


def _join(y: mx.array, length: int) -> mx.array:
    """The way back: (N, B, Hk, Hv / Hk, C, D) as (B, T, Hv, D)."""
    chunks, batch, keys, per_key, chunk, width = y.shape
    return y.transpose(1, 0, 4, 2, 3, 5).reshape(batch, chunks * chunk, keys * per_key, width)[:, :length]
