"""nn.init: initial weights have the range and the standard deviation of PyTorch."""

import numpy as np
import pytest

import tinynet
from tinynet import nn

SHAPES = [(40, 60), (30, 20, 3, 3)]
CALLS = {
    "constant_": ({"val": 0.3},), "zeros_": ({},), "ones_": ({},), "uniform_": ({"a": -1.0, "b": 3.0},),
    "normal_": ({"mean": 1.0, "std": 0.5},), "xavier_uniform_": ({}, {"gain": 2.0}), "xavier_normal_": ({},),
    "kaiming_uniform_": ({}, {"nonlinearity": "relu"}, {"a": 1.0, "mode": "fan_out"}),
    "kaiming_normal_": ({"nonlinearity": "relu"}, {"mode": "fan_out", "nonlinearity": "tanh"}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name, options", [(name, options) for name, all in CALLS.items() for options in all])
def test_weights_are_initialized_as_in_pytorch(name, options, shape):
    torch = pytest.importorskip("torch")
    tinynet.manual_seed(0)
    torch.manual_seed(0)
    ours = nn.Parameter(np.zeros(shape, np.float32))
    assert getattr(nn.init, name)(ours, **options) is ours and ours.requires_grad
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy()
    spread, x = theirs.std() or 1.0, ours.detach().numpy()
    assert abs(x.mean() - theirs.mean()) < 0.1 * spread and abs(x.std() - theirs.std()) < 0.06 * spread
    if "normal" not in name:
        assert abs(x.max() - theirs.max()) < 0.02 * spread
        assert abs(x.min() - theirs.min()) < 0.02 * spread


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains_equal_pytorch(nonlinearity):
    torch = pytest.importorskip("torch")
    assert nn.init.calculate_gain(nonlinearity) == pytest.approx(torch.nn.init.calculate_gain(nonlinearity))


def test_values_and_data_are_written_too():
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight.data, 1.5)
    assert (layer.weight.detach().numpy() == 1.5).all()
    layer.to("scalar")
    kept = layer.weight[0, 0]
    nn.init.constant_(layer.weight, 2.5)
    assert kept is layer.weight[0, 0] and kept.data == 2.5


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.init.xavier_uniform_(nn.Linear(3, 2).bias), ValueError, "xavier_uniform_: expected a weight"),
    (lambda: nn.init.zeros_([1.0]), TypeError, "zeros_: expected a Parameter, got .1.0."),
    (lambda: nn.init.kaiming_normal_(nn.Linear(3, 2).weight, mode="in"), ValueError,
     "expected mode to be .fan_in. or .fan_out., got .in."),
    (lambda: nn.init.calculate_gain("step"), ValueError, "calculate_gain: expected nonlinearity to be .linear. or"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()
