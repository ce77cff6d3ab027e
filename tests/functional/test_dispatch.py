"""A fused form remembers just what its backward pass reads: only a change of that is an error, as in PyTorch."""

import numpy as np
import pytest

import tinynet
from tinynet import functional as F
from tinynet import nn

normal = np.random.default_rng(0).normal


def leaf(*shape):
    return tinynet.tensor(normal(size=shape).astype(np.float32), requires_grad=True)


CASES = {  # operation, its Tensors, which of them its backward pass reads, whether it reads its result
    "softmax": (F.softmax, [(2, 3)], [], True),
    "log_softmax": (F.log_softmax, [(2, 3)], [], True),
    "linear": (F.linear, [(2, 3), (4, 3), (4,)], [0, 1], True),
    "embedding": (lambda table: F.embedding([1, 0], table), [(3, 2)], [], False),
    "dropout": (F.dropout, [(2, 3)], [], False),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (3,), w, b), [(2, 3), (3,), (3,)], [0, 1], False),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), [(4, 3), (3,), (3,)], [0, 1],
                   False),
    "conv2d": (F.conv2d, [(1, 3, 4, 4), (2, 3, 2, 2), (2,)], [0, 1], False),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), [(1, 3, 4, 4)], [], False),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), [(1, 3, 4, 4)], [], False),
    "cross_entropy": (lambda x: F.cross_entropy(x, [1, 0]), [(2, 3)], [], False),
    "mse_loss": (F.mse_loss, [(2, 3), (2, 3)], [0, 1], True),
}


@pytest.mark.parametrize("name", CASES)
def test_only_what_the_backward_pass_reads_must_stay(name):
    function, shapes, reads, reads_result = CASES[name]
    for changed in (*range(len(shapes)), "result"):
        inputs = [leaf(*shape) for shape in shapes]
        tinynet.manual_seed(0)
        y = function(*inputs)
        expected = tinynet.grad(y.sum(), inputs)
        with tinynet.no_grad():
            (y.detach() if changed == "result" else inputs[changed]).add_(1.0)
        if reads_result if changed == "result" else changed in reads:
            with pytest.raises(ValueError, match=rf"of {y.op.name} was changed after it was used"):
                y.sum().backward()
        else:
            y.sum().backward()
            assert all(np.array_equal(x.grad, g) for x, g in zip(inputs, expected))


def test_running_statistics_may_move_before_the_backward_pass():
    layer, x = nn.BatchNorm1d(3), leaf(4, 3)
    y = layer.eval()(x)
    expected, = tinynet.grad(y.sum(), [x])
    layer.train()(leaf(4, 3) * 9)
    y.sum().backward()
    assert np.array_equal(x.grad, expected)
