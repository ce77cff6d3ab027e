"""gradcheck finds and names every kind of wrong gradient, and finds none in all that tinynet differentiates."""

import contextlib

import numpy as np
import pytest

import tinynet
from tinynet import Generator, Tensor, Value, gradcheck, nn, tensor, textbook
from tinynet import functional as F
from tinynet.functional.dispatch import FUSED
from tinynet.graph import topological
from tinynet.tensors import Layout

rng = np.random.default_rng(0)


def leaf(*shape, scale=1.0, away=0.0):
    """Random numbers, not nearer to 0 than `away`, where there may be a kink."""
    x = rng.normal(size=shape) * scale
    return Tensor(x + np.copysign(away, x), requires_grad=True)


def values(*shape):
    return np.vectorize(Value, otypes=[object])(rng.normal(size=shape))


# -------------------------------------------------------------------------------------------- it must be able to fail

class Wrong:
    """An operation with wrong vector-Jacobian products, on either engine."""

    def __init__(self, op, change):
        self.op, self.change, self.name = op, change, op.name

    def vjp(self, g, y, *xs):
        return self.change(list(self.op.vjp(g, y, *xs)))


def spoiled(f, change):
    """f, with change(products) of its last operation."""
    def g(*inputs):
        y = f(*inputs)
        for node in [y] if isinstance(y, (Tensor, Value)) else y.flat:
            if node.op is not None:
                node.op = Wrong(node.op, change)
        return y
    return g


def first(error):
    return lambda products: [error(products[0]), *products[1:]]


def last(error):
    return lambda products: [*products[:-1], error(products[-1])]


def at(k, error):
    """The error in one element alone."""
    def change(g):
        g = np.array(g)
        g.reshape(-1)[k] = error(g.reshape(-1)[k])
        return g
    return change


ERRORS = {
    **{f"1 + 1e-{k}": (lambda g, k=k: g * (1 + 10.0**-k)) for k in range(6)},
    **{f"1 - 1e-{k}": (lambda g, k=k: g * (1 - 10.0**-k)) for k in range(1, 6)},
    "sign": lambda g: -g, "777": lambda g: g * 0 + 777.0, "twice": lambda g: g * 2,
    "nothing": lambda g: g * 0, "none": lambda g: None, "nan": lambda g: g * np.nan, "infinity": lambda g: g * np.inf,
    "a little more": lambda g: g + 1e-5, "huge": lambda g: g * 1e300,
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("spoil", [first, last])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (40, 50)])
def test_a_wrong_product_for_either_input_is_found_at_its_input(error, spoil, shape):
    a, b = leaf(*shape, away=0.3), leaf(*shape, away=0.3)
    right = lambda a, b: a * b
    assert gradcheck(right, [a, b])
    with pytest.raises(ValueError, match=f"at input {0 if spoil is first else 1}.*the gradient is|along a direction"):
        gradcheck(spoiled(right, spoil(ERRORS[error])), [a, b])


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("spoil", [first, last])
def test_the_same_on_the_scalar_engine(error, spoil):
    a, b = Value(1.7), Value(-0.6)
    right = lambda a, b: a * b
    assert gradcheck(right, [a, b])
    with pytest.raises(ValueError, match=f"at input {0 if spoil is first else 1} the gradient is"):
        gradcheck(spoiled(right, spoil(ERRORS[error])), [a, b])
    a, b = values(2, 3), values(3)
    assert gradcheck(right, [a, b])
    with pytest.raises(ValueError, match=rf"at input {0 if spoil is first else 1}\[\d(,\d)?\] the gradient is"):
        gradcheck(spoiled(right, spoil(ERRORS[error])), [a, b])


@pytest.mark.parametrize("n", [1, 5, 32, 33, 1000])
@pytest.mark.parametrize("error", [e for e in ERRORS if e not in ("none", "1 + 1e-5", "1 - 1e-5", "a little more")])
def test_one_wrong_element_among_many_is_found_and_named(n, error):
    k = n // 3
    with pytest.raises(ValueError, match=rf"gradcheck: at input 0\[{k}\] the gradient is "):
        gradcheck(spoiled(lambda x: x * 1.5, first(at(k, ERRORS[error]))), [leaf(n)])


def test_up_to_32_elements_are_each_held_to_their_own_size():
    """A large gradient beside it hides no small one."""
    scale = Tensor(10.0 ** -np.arange(8.0))
    right = lambda x: x * scale
    assert gradcheck(right, [leaf(8)])
    for k in range(8):
        with pytest.raises(ValueError, match=rf"at input 0\[{k}\]"):
            gradcheck(spoiled(right, first(at(k, lambda g: g * 1.1))), [leaf(8)])


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_an_input_is_held_to_its_own_size(scale):
    a, b = leaf(5), leaf(5)
    right = lambda a, b: a * scale + b
    assert gradcheck(right, [a, b])
    with pytest.raises(ValueError, match=r"at input 0\[0\]"):
        gradcheck(lambda a, b: spoiled(lambda a: a * scale, first(lambda g: g * (1 + 1e-2)))(a) + b, [a, b])


@pytest.mark.parametrize("forward, backward", [
    (lambda x: x ** 3, lambda g, x: g * 2 * x ** 2),  # the exponent
    (lambda x: x * np.sin(x), lambda g, x: g * np.sin(x)),  # half of the product rule
    (lambda x: np.exp(2 * x), lambda g, x: g * np.exp(2 * x)),  # the inner derivative
    (lambda x: x - x.mean(), lambda g, x: g),  # the mean depends on x as well
    (lambda x: x / np.linalg.norm(x), lambda g, x: g / np.linalg.norm(x)),
    (lambda x: x[::-1], lambda g, x: g),  # the wrong order
    (lambda x: x.T, lambda g, x: g.reshape(x.shape)),  # the wrong axes
    (lambda x: x * 1.0, lambda g, x: np.broadcast_to(g.mean(0), x.shape)),  # the mean of a row for each element
    (lambda x: np.tanh(x), lambda g, x: g * (1 - np.tanh(x))),  # a square that was forgotten
    (lambda x: np.maximum(x, 0), lambda g, x: g),
    (lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0.1)),  # the wrong threshold
])
def test_mistakes_that_people_make_are_found(forward, backward):
    x = Tensor(np.linspace(-0.95, 1.25, 12).reshape(4, 3), requires_grad=True)
    with pytest.raises(ValueError, match=r"gradcheck: at input 0\[\d,\d\] the gradient is"):
        gradcheck(lambda x: Layout("mistake", forward, backward)(x), [x])


def test_where_the_tolerance_ends():
    """What is wrong by less than rtol passes: differences are not more exact than that."""
    near = lambda error: spoiled(lambda x: x * 1.5, first(lambda g: g * (1 + error)))
    assert gradcheck(near(3e-7), [leaf(5)])
    with pytest.raises(ValueError):
        gradcheck(near(3e-6), [leaf(5)])
    with pytest.raises(ValueError):
        gradcheck(near(3e-7), [leaf(5)], rtol=1e-8)
    assert gradcheck(near(1e-3), [leaf(5)], rtol=1e-2)


def test_the_sentence_has_both_numbers_and_modules_name_their_parameters():
    x = Tensor(np.array([[0.0, 2.0]]), requires_grad=True)
    with pytest.raises(ValueError) as caught:
        gradcheck(spoiled(lambda x: x.sum(), first(at(1, lambda g: 3 * g))), [x])
    message = str(caught.value)
    assert message.startswith("gradcheck: at input 0[0,1] the gradient is ")
    found, numeric = (float(word) for word in message.replace(",", "").split() if word[0].isdigit() and "." in word)
    assert found == pytest.approx(3 * numeric, rel=1e-6)

    class Spoiled(nn.Linear):
        def forward(self, x):
            return x @ spoiled(lambda w: w * 1.0, first(lambda g: 1.01 * g))(self.weight).T + self.bias

    for model in (Spoiled(3, 2).double(), Spoiled(3, 2).to("scalar")):
        with pytest.raises(ValueError, match=r"gradcheck: at weight\[0,0\] the gradient is"):
            gradcheck(model, [rng.normal(size=(4, 3))])


# ------------------------------------------------------------------------------------------- side effects and errors

def test_everything_is_afterwards_as_it_was():
    model, x = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).double(), leaf(4, 3)
    x.grad = np.full((4, 3), 7.0)
    weights, numbers, stream = model.state_dict(), np.array(x), Generator.state_dict()
    assert gradcheck(model, x)
    assert np.array_equal(x.data, numbers) and (x.grad == 7).all() and model[0].weight.grad is None
    assert all(np.array_equal(array, weights[name]) for name, array in model.state_dict().items())
    assert Generator.state_dict() == stream
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda x: 1 / 0, x)
    assert (x.grad == 7).all()


def test_what_cannot_be_checked_is_said():
    with pytest.raises(ValueError, match="none of the inputs requires a gradient"):
        gradcheck(lambda x: x, [tensor([1.0])])
    with pytest.raises(TypeError, match=r"input 1 is float32; finite differences need float64"):
        gradcheck(lambda a, b: a * b, [leaf(3), tensor([1.0], requires_grad=True)])
    with pytest.raises(TypeError, match=r"weight is float32; finite differences need float64 \(model.double\(\)\)"):
        gradcheck(nn.Linear(3, 2), [leaf(3)])
    with pytest.raises(TypeError, match="fn returns float32"):
        gradcheck(lambda x: x.float(), [leaf(3)])
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="fn returns nan or infinity for these inputs"):
        gradcheck(lambda x: (x - 10).log(), [leaf(3)])
    with pytest.raises(ValueError, match=r"gradcheck: at input 0\[1\] the gradient is 0, finite"):
        gradcheck(lambda x: x.relu(), [Tensor(np.array([1.0, 0.0]), requires_grad=True)])


def test_large_numbers_are_moved_by_steps_of_their_own_size():
    assert gradcheck(lambda x: x * x, [leaf(5, scale=1e8)])
    assert gradcheck(lambda x: x * x, [leaf(50, scale=1e8)])


# ------------------------------------------------------------------------------------------- all that is differentiable

pair, batch = rng.normal(size=(4, 2)), rng.normal(size=(5, 6))
image = (2, 2, 5, 6)
mask = np.array([[True, False, True], [True, True, True], [False, False, False]])
TOKENS = np.array([[1, 3, 0], [2, 2, 5]])

FUNCTIONS = {
    **{name: (getattr(F, name), [leaf(4, 3, away=0.1)]) for name in ("relu", "tanh", "sigmoid", "gelu", "softplus")},
    "gelu by tanh": (lambda x: F.gelu(x, "tanh"), [leaf(4, 3)]),
    **{f"softmax over {i}": (lambda x, i=i: F.softmax(x, i), [leaf(2, 3, 4)]) for i in (0, 1, -1)},
    **{f"log_softmax over {i}": (lambda x, i=i: F.log_softmax(x, i), [leaf(2, 3, 4)]) for i in (0, 1, -1)},
    "linear": (F.linear, [leaf(4, 3), leaf(2, 3), leaf(2)]),
    **{f"linear and {a}": (lambda x, w, b, a=a: F.linear(x, w, b, a), [leaf(4, 3), leaf(2, 3), leaf(2)])
       for a in ("relu", "tanh", "sigmoid", "gelu", "softplus")},
    "embedding": (lambda w: F.embedding(TOKENS, w), [leaf(6, 2)]),
    "dropout": (lambda x: F.dropout(x, 0.4), [leaf(4, 5)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [leaf(3, 4), leaf(4), leaf(4)]),
    "layer_norm alone": (lambda x: F.layer_norm(x, (3, 4)), [leaf(2, 3, 4)]),
    **{f"{loss} {r}": (lambda y, t, loss=loss, r=r: getattr(F, loss)(y, t, r), [leaf(4, 2), leaf(4, 2)])
       for loss in ("mse_loss", "binary_cross_entropy_with_logits") for r in ("mean", "sum", "none")},
    **{f"cross_entropy {r}": (lambda y, r=r: F.cross_entropy(y, [0, 2, 2, 1], reduction=r), [leaf(4, 3)])
       for r in ("mean", "sum", "none")},
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), [leaf(4, 3, away=0.1)]),
    **{f"l1_loss {r}": (lambda y, t, r=r: F.l1_loss(y, t, r), [leaf(4, 2, away=0.1, scale=0.0), leaf(4, 2, scale=0.01)])
       for r in ("mean", "sum", "none")},
    **{f"nll_loss {r}": (lambda y, r=r: F.nll_loss(y, [0, 2, 2, 1], reduction=r), [leaf(4, 3)])
       for r in ("mean", "sum", "none")},
    **{f"binary_cross_entropy {r}": (lambda x, t, r=r: F.binary_cross_entropy(F.sigmoid(x), F.sigmoid(t), r),
                                     [leaf(4, 2), leaf(4, 2)]) for r in ("mean", "sum", "none")},
    "attention": (F.scaled_dot_product_attention, [leaf(2, 3, 4), leaf(2, 5, 4), leaf(2, 5, 2)]),
    "causal attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                         [leaf(1, 2, 3, 4) for _ in range(3)]),
    "masked attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask), [leaf(3, 4) for _ in range(3)]),
    "scores added": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask * 0.7, scale=0.3),
                     [leaf(3, 4) for _ in range(3)]),
    "attention with dropout": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.3),
                               [leaf(2, 3, 4) for _ in range(3)]),
}

LAYERS = {
    "Linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "Perceptron": (lambda: nn.Perceptron(3, 2, "tanh"), (4, 3)),
    "MLP": (lambda: nn.MLP(3, [4, 2], "softplus"), (4, 3)),
    "Dropout": (lambda: nn.Dropout(0.4), (4, 5)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (3, 4)),
    "Embedding": (lambda: nn.Embedding(6, 2), TOKENS),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), (3, 2, 3)),
    "activations": (lambda: nn.Sequential(nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.Softplus(), nn.Softmax()), (3, 4)),
    "ReLU": (lambda: nn.ReLU(), (3, 4)),
    "LeakyReLU": (lambda: nn.Sequential(nn.LeakyReLU(0.2), nn.Identity()), (3, 4)),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), (3, 4)),
    "ModuleDict": (lambda: ByName({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)}), (2, 3)),
    "L1Loss": (lambda: Against(nn.L1Loss(), rng.normal(size=(4, 2))), (4, 2)),
    "NLLLoss": (lambda: Against(nn.NLLLoss(), [1, 0, 2]), (3, 3)),
    "BCELoss": (lambda: nn.Sequential(nn.Sigmoid(), Against(nn.BCELoss(), rng.random(size=(4, 2)))), (4, 2)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "BatchNorm1d over steps": (lambda: nn.BatchNorm1d(3), (2, 3, 4)),
    "GELU": (lambda: nn.GELU("tanh"), (3, 4)),
    "PositionalEncoding": (lambda: nn.PositionalEncoding(4, 0.3, max_len=8), (2, 3, 4)),
    "MultiheadAttention": (lambda: Itself(nn.MultiheadAttention(4, 2, batch_first=True)), (2, 3, 4)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, activation="gelu",
                                                                   batch_first=True), (2, 3, 4)),
    "GPT": (lambda: nn.GPT(6, layers=1, heads=2, width=4, context=4), TOKENS),
    "MSELoss": (lambda: Against(nn.MSELoss(), rng.normal(size=(4, 2))), (4, 2)),
    "BCEWithLogitsLoss": (lambda: Against(nn.BCEWithLogitsLoss(), rng.random(size=(4, 2))), (4, 2)),
    "CrossEntropyLoss": (lambda: Against(nn.CrossEntropyLoss(), [1, 0, 2]), (3, 3)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), image),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), image),
    "AvgPool2d": (lambda: nn.AvgPool2d(2), image),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2), image),
    "RNN": (lambda: nn.RNN(2, 3, num_layers=2, dropout=0.3), (3, 2, 2)),
    "RNN with relu": (lambda: nn.RNN(2, 3, nonlinearity="relu"), (3, 2, 2)),
    "LSTM": (lambda: nn.LSTM(2, 3, bidirectional=True), (3, 2, 2)),
    "GRU": (lambda: nn.GRU(2, 3, batch_first=True), (2, 3, 2)),
}


class Itself(nn.Module):
    def __init__(self, attention):
        self.attention = attention

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class ByName(nn.Module):
    def __init__(self, layers):
        self.layers = nn.ModuleDict(layers)

    def forward(self, x):
        return self.layers["b"](F.tanh(self.layers.a(x)))


class Against(nn.Module):
    def __init__(self, loss, target):
        self.loss, self.target = loss, target

    def forward(self, x):
        return self.loss(x, self.target)


def on(engine, f, inputs):
    """gradcheck with the kernels, the reference implementations, or the scalar engine."""
    if engine == "scalar":
        inputs = [np.vectorize(Value, otypes=[object])(x.data) if isinstance(x, Tensor) else x for x in inputs]
        return gradcheck(f, inputs)
    with textbook() if engine == "definitions" else contextlib.nullcontext():
        return gradcheck(f, inputs)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("engine", ["kernels", "definitions", "scalar"])
def test_the_gradients_of_every_function_are_right(name, engine):
    assert on(engine, *FUNCTIONS[name])


def layer(name):
    make, x = LAYERS[name]
    tinynet.manual_seed(3)
    model, random = make().double(), np.random.default_rng(4)
    for p in model.parameters():  # biases of 0 and weights of 1 would hide a mistake
        p.data += random.normal(size=p.shape) * 0.3
    return model, Tensor(random.normal(size=x), requires_grad=True) if isinstance(x, tuple) else x


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("engine", ["kernels", "definitions", "scalar"])
def test_the_gradients_of_every_layer_are_right(name, engine):
    model, x = layer(name)
    assert on(engine, model.to("scalar" if engine == "scalar" else "tensor"), [x])


def kinds(parent):
    return {kind for child in parent.__subclasses__() for kind in (child, *kinds(child))}


def test_no_operation_and_no_layer_has_been_forgotten():
    operations, layers = set(), set()

    def note(output):
        if isinstance(output, tuple):
            for part in output:
                note(part)
        else:
            operations.update(node.op.name for node in topological(output) if node.op is not None)

    for f, inputs in FUNCTIONS.values():
        note(f(*inputs))
    for name in LAYERS:
        model, x = layer(name)
        layers.update(type(module).__name__ for module in model.modules())
        note(model(x))
        with textbook():
            note(model(x))
    assert not set(FUSED) - operations
    assert {name for name in nn.__all__ if name[0].isupper()} - layers == {"Module", "Parameter"}
