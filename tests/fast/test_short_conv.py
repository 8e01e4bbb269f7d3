import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tunebook.fast.short_conv import shifted_convolutions


def convolution(channels=6, taps=4, **settings):
    return nn.Conv1d(channels, channels, taps, **{"groups": channels, **settings})


def by_hand(x, weight, bias):
    """Every channel's last `taps` entries, the latest last, times that channel's weights, in float64."""
    x, weight = np.array(x, np.float64), np.array(weight, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[1], axis=1)  # (B, T - taps + 1, C, taps)
    return (windows * weight[:, :, 0]).sum(-1) + (0 if bias is None else np.array(bias, np.float64))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("taps", [1, 3, 4])
def test_shifted_products_are_the_convolution_and_have_its_gradients(taps, bias):
    layer = convolution(taps=taps, bias=bias)
    if bias:
        layer.bias = mx.random.normal((6,), key=mx.random.key(2))
    x, weight = (mx.random.normal((2, size, 6), key=mx.random.key(size)) for size in (19, 20 - taps))

    def total(parameters, x):
        layer.update(parameters)
        return (layer(x) * weight).sum()

    plain = mx.grad(total, argnums=(0, 1))(layer.parameters(), x)
    with shifted_convolutions(layer):
        assert type(layer) is not nn.Conv1d
        assert np.abs(np.array(layer(x)) - by_hand(x, layer.weight, layer.bias if bias else None)).max() < 1e-5
        found = mx.grad(total, argnums=(0, 1))(layer.parameters(), x)
    assert type(layer) is nn.Conv1d
    assert mx.allclose(found[1], plain[1], rtol=1e-5, atol=1e-5)
    assert plain[0].keys() == found[0].keys()
    assert all(mx.allclose(found[0][name], plain[0][name], rtol=1e-5, atol=1e-5) for name in plain[0])


@pytest.mark.parametrize(
    "settings", [{"groups": 1}, {"groups": 3}, {"padding": 1}, {"stride": 2}, {"dilation": 2}, {"taps": 9}]
)
def test_other_convolutions_stay_as_they_are(settings):
    layer = convolution(**settings)
    with shifted_convolutions(layer):
        assert type(layer) is nn.Conv1d


def test_half_precision_is_summed_by_mlx():
    layer, x = convolution(), mx.random.normal((1, 9, 6)).astype(mx.bfloat16)
    layer.set_dtype(mx.bfloat16)
    plain = layer(x)
    with shifted_convolutions(layer):
        assert mx.array_equal(layer(x), plain)
