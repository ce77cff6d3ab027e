"""The same layers on both engines: textbook on Values = textbook on Tensors = fused kernels, outputs and gradients."""

import numpy as np
import pytest

import tinynet
from tinynet import Tensor, Value, nn, textbook

X = np.random.default_rng(0).normal(size=(5, 4))
IMAGES = np.random.default_rng(2).normal(size=(2, 2, 4, 5))
T = np.random.default_rng(1).random(size=(5, 2))


class Last(nn.Module):
    """Of what a recurrent layer gives: the outputs of its last step."""

    def forward(self, result):
        return result[0][-1]


CASES = {
    **{f"perceptron {act}": (lambda act=act: nn.Perceptron(4, 3, act), X, None)
       for act in ("relu", "tanh", "sigmoid", "gelu", "softplus", None)},
    "no bias": (lambda: nn.Perceptron(4, 3, "tanh", bias=False), X, None),
    "one sample": (lambda: nn.Linear(4, 3), X[0], None),
    "three axes": (lambda: nn.Linear(2, 3), X[:4].reshape(2, 4, 2), None),
    "cross-entropy": (lambda: nn.MLP(4, [5, 3]), X, lambda y: nn.CrossEntropyLoss()(y, [0, 1, 2, 0, 1])),
    "cross-entropy sum": (lambda: nn.MLP(4, [5, 3]), X, lambda y: nn.CrossEntropyLoss("sum")(y, [0, 1, 2, 0, 1])),
    **{f"cross-entropy, some ignored, {r}": (lambda: nn.MLP(4, [5, 3]), X, lambda y, r=r: (
        nn.CrossEntropyLoss(r)(y, [0, -100, 2, -100, 1]) * np.arange(1.0, 6 if r == "none" else 2)).sum())
       for r in ("mean", "sum", "none")},
    "cross-entropy one": (lambda: nn.Linear(4, 3), X[0], lambda y: nn.CrossEntropyLoss()(y, 2)),
    **{f"mse {r}": (lambda: nn.Linear(4, 2), X, lambda y, r=r: nn.MSELoss(r)(y, T)) for r in ("mean", "sum")},
    **{f"bce {r}": (lambda: nn.Linear(4, 2), X, lambda y, r=r: nn.BCEWithLogitsLoss(r)(y, T)) for r in ("mean", "sum")},
    "mse none": (lambda: nn.Linear(4, 2), X, lambda y: (nn.MSELoss("none")(y, T) * T).sum()),
    "layer norm": (lambda: nn.LayerNorm(4), X, None),
    "layer norm of two axes": (lambda: nn.LayerNorm((2, 2)), X.reshape(5, 2, 2), None),
    "embedding": (lambda: nn.Embedding(7, 3), np.array([[1, 2], [6, 1]]), None),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), X, None),
    "softmax over the batch": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)), X, None),
    "log-softmax": (lambda: nn.Linear(4, 3), X, lambda y: (nn.functional.log_softmax(y, 1)[:, :2] * T).sum()),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.4)), X, None),
    "activations": (lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU("tanh"), nn.ReLU(), nn.Sigmoid(), nn.Tanh(),
                                           nn.GELU(),
                                          nn.Softplus()), X, None),
    "leaky": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.2), nn.Identity()), X, None),
    "negative log-likelihood": (lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)), X,
                                lambda y: nn.NLLLoss("sum", ignore_index=2)(y, [0, 1, 2, 0, 1])),
    **{f"l1 {r}": (lambda: nn.Linear(4, 2), X, lambda y, r=r: nn.L1Loss(r)(y, T)) for r in ("mean", "sum")},
    **{f"bce of probabilities {r}": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), X, lambda y, r=r: (
        nn.BCELoss(r)(y, T) * np.arange(1.0, 3 if r == "none" else 2)).sum()) for r in ("mean", "sum", "none")},
    "batch norm of features": (lambda: nn.BatchNorm1d(4), X, None),
    "modules by name": (lambda: nn.Sequential({"hidden": nn.Linear(4, 3), "act": nn.ReLU(), "out": nn.Linear(3, 1)}), X,
                        None),
    "convolution": (lambda: nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(0, 1)), IMAGES, None),
    "batch norm": (lambda: nn.BatchNorm2d(2), IMAGES, None),
    "pooling": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.MaxPool2d(2, 1), nn.AvgPool2d((1, 2))), IMAGES, None),
    "recurrent, the last output": (lambda: nn.Sequential(nn.RNN(2, 3, nonlinearity="relu"), Last(), nn.Linear(3, 2)),
                                   X[:4].reshape(4, 2, 2), None),
    "long short-term memory": (lambda: nn.Sequential(nn.LSTM(2, 2), Last()), X[:4].reshape(2, 4, 2), None),
    "gated units": (lambda: nn.Sequential(nn.GRU(2, 2, 2), Last()), X[:4].reshape(4, 2, 2), None),
    "flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), X.reshape(5, 2, 2), None),
}


def outcome(model, x, loss, engine):
    """(output, loss, gradients of the parameters, gradient of the input) as arrays."""
    model.zero_grad()
    tinynet.manual_seed(5)  # the same dropout
    if x.dtype.kind == "f":
        x = np.vectorize(Value, otypes=[object])(x) if engine == "scalar" else Tensor(x, requires_grad=True)
    y = model(x)
    total = loss(y) if loss else (y * y).sum()
    total.backward()
    gradient = lambda v: 0.0 if v.grad is None else v.grad
    grads = [gradient(p) for p in model.parameters()]
    dx = None
    if engine == "scalar":
        y = np.vectorize(float, otypes=[float])(y)
        dx = np.vectorize(gradient, otypes=[float])(x) if x.dtype == object else None
    else:
        y, dx = y.detach().numpy(), x.grad if isinstance(x, Tensor) else None
    return y, float(total), np.concatenate([np.ravel(g) for g in grads] or [np.zeros(0)]), dx


@pytest.mark.parametrize("case", CASES)
def test_kernel_equals_definition_equals_scalar_engine(case):
    make, x, loss = CASES[case]
    tinynet.manual_seed(1)
    model = make().double()
    kernel = outcome(model, x, loss, "tensor")
    with textbook():
        definition = outcome(model, x, loss, "tensor")
    model.to("scalar")
    scalar = outcome(model, x, loss, "scalar")
    for other in (definition, scalar):
        for ours, theirs in zip(kernel, other):
            if ours is not None:
                np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-14)
    assert np.abs(kernel[2]).sum() > 0 or not model.parameters()


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_cross_entropy_of_certain_probabilities_is_pytorchs(reduction):
    torch = pytest.importorskip("torch")
    p, t = map(np.ravel, np.meshgrid([0.0, 1e-300, 1e-45, 1e-14, 0.3, 1 - 1e-14, 1.0], [0.0, 0.3, 1.0]))
    a, b = (torch.tensor(x, requires_grad=True) for x in (p, t))
    theirs = torch.nn.functional.binary_cross_entropy(a, b, reduction=reduction)
    theirs.sum().backward()
    x, y = (Tensor(array, requires_grad=True) for array in (p, t))
    ours = nn.functional.binary_cross_entropy(x, y, reduction)
    ours.sum().backward()
    values, targets = (np.vectorize(Value, otypes=[object])(array) for array in (p, t))
    scalar = nn.functional.binary_cross_entropy(values, targets, reduction)
    np.sum(scalar).backward()
    gradient, n = np.vectorize(lambda v: v.grad, otypes=[float]), 1 if reduction == "none" else p.size
    for expected, *found in ((theirs.detach(), ours.detach(), np.vectorize(float)(scalar)),
                             (a.grad, x.grad, gradient(values)),
                             (np.clip(b.grad * n, -100, 100) / n, y.grad, gradient(targets))):
        for array in found:
            np.testing.assert_allclose(array, expected, rtol=1e-8, atol=1e-12)


def test_to_scalar_and_back_keeps_the_numbers_and_labels_the_values():
    model = nn.MLP(3, [4, 2])
    before = model.state_dict()
    model.to("scalar")
    assert model.layers[0].weight[1, 2].label == "layers.0.weight[1,2]"
    assert dict(model.named_parameters())["layers.1.bias[0]"] is model.layers[1].bias[0]
    assert len(model.parameters()) == 3 * 4 + 4 + 4 * 2 + 2
    after = model.state_dict()
    assert list(before) == list(after) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert all(np.array_equal(before[k], after[k]) for k in before)
    model.to("tensor")
    assert all(np.array_equal(before[k], v) and v.dtype == np.float32 for k, v in model.state_dict().items())
    model.to("scalar").layers[0].weight[0, 0].data = 0.1  # not a float32: the numbers decide
    assert model.to("tensor").state_dict()["layers.0.weight"][0, 0] == 0.1


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = Tied()
    assert len(model.parameters()) == 1
    model.to("scalar")
    assert model.a.weight is model.b.weight
    assert len(model.parameters()) == 9


def test_wrong_inputs_name_the_layer():
    model = nn.Linear(784, 128)
    with pytest.raises(ValueError, match=r"Linear\(784 -> 128\): input has 100 features in its last axis, "
                                         r"expected 784"):
        model(tinynet.zeros(2, 100))
    with pytest.raises(TypeError, match=r"the input is float64 and the weights are float32"):
        model(tinynet.zeros(2, 784, dtype=np.float64))
    with pytest.raises(TypeError, match=r'call model.to\("scalar"\)'):
        nn.Linear(1, 1)([Value(1.0)])
    with pytest.raises(ValueError, match="rows of the input have different lengths"):
        nn.Linear(2, 1)([[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match=r"input has shape \(5, 1\) and target \(5,\)"):
        nn.MSELoss()(tinynet.zeros(5, 1), tinynet.zeros(5))
    with pytest.raises(IndexError, match="target 3 is outside 0 … 2"):
        nn.CrossEntropyLoss()(tinynet.zeros(2, 3), [0, 3])
    with pytest.raises(TypeError, match="expected targets to be integers"):
        nn.CrossEntropyLoss()(tinynet.zeros(2, 3), [0.0, 1.0])
    with pytest.raises(ValueError, match="reduction"):
        nn.MSELoss("average")
    with pytest.raises(ValueError, match="Linear: expected out_features to be a positive integer, got 0"):
        nn.Linear(3, 0)
