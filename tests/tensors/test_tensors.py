"""Tensor: NumPy's dialect and its gradients, against NumPy, finite differences, and PyTorch where installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinynet
from tinynet import Tensor, cat, gradcheck, optim, stack, tensor, where
from tinynet.value import RULES

rng = np.random.default_rng(0)


def leaf(*shape, low=None):
    x = rng.normal(size=shape) if low is None else rng.uniform(low, low + 2, size=shape)
    return Tensor(x, requires_grad=True)


UNARY = {name: (lambda x, name=name: getattr(x, name)()) for name, rule in RULES.items() if len(rule.derivatives) == 1}
DIFFERENTIABLE = {
    **{name: (f, [leaf(3, 4, low=0.2)]) for name, f in UNARY.items()},
    **{f"{name} below zero": (f, [leaf(3, 4, low=-3.0)]) for name, f in UNARY.items() if name not in ("log", "sqrt")},
    "add": (lambda a, b: a + b, [leaf(3, 4), leaf(4)]),
    "sub": (lambda a, b: a - b, [leaf(3, 1), leaf(3, 4)]),
    "mul": (lambda a, b: a * b, [leaf(2, 3, 4), leaf(3, 1)]),
    "div": (lambda a, b: a / b, [leaf(3, 4), leaf(1, 4, low=0.5)]),
    "pow": (lambda a, b: a ** b, [leaf(3, 4, low=0.3), leaf(4)]),
    "square": (lambda a: a ** 2, [leaf(3, 4)]),
    "numbers": (lambda a: 2 / (1 - a * 3) + 2 ** a, [leaf(3, low=1.0)]),
    "maximum": (lambda a, b: a.maximum(b), [leaf(3, 4), leaf(4)]),
    "minimum": (lambda a, b: a.minimum(b), [leaf(3, 4), leaf(3, 1)]),
    "matmul": (lambda a, b: a @ b, [leaf(3, 4), leaf(4, 2)]),
    "matmul of batches": (lambda a, b: a @ b, [leaf(5, 3, 4), leaf(5, 4, 2)]),
    "matmul, batch and matrix": (lambda a, b: a @ b, [leaf(2, 5, 3, 4), leaf(4, 2)]),
    "matmul, matrix and batch": (lambda a, b: a @ b, [leaf(3, 4), leaf(5, 4, 2)]),
    "matmul, broadcast batches": (lambda a, b: a @ b, [leaf(2, 1, 3, 4), leaf(5, 4, 2)]),
    "matrix and vector": (lambda a, b: a @ b, [leaf(3, 4), leaf(4)]),
    "vector and matrix": (lambda a, b: a @ b, [leaf(3), leaf(3, 2)]),
    "vector and batch": (lambda a, b: a @ b, [leaf(3), leaf(5, 3, 2)]),
    "dot": (lambda a, b: a @ b, [leaf(4), leaf(4)]),
    "transposed products": (lambda a, b: a.T @ b.T, [leaf(3, 4), leaf(2, 3)]),
    "sum": (lambda a: a.sum(), [leaf(3, 4)]),
    "sum of an axis": (lambda a: a.sum(1, keepdims=True) * a.sum((0, 2)).sum(), [leaf(2, 3, 4)]),
    "mean": (lambda a: a.mean(-1) * a.mean(), [leaf(3, 4)]),
    "var": (lambda a: a.var(0) + a.std(), [leaf(3, 4)]),
    "max": (lambda a: a.max(1) * a.max(), [leaf(3, 4)]),
    "min": (lambda a: a.min(0, keepdims=True), [leaf(3, 4)]),
    "clip": (lambda a: a.clip(-0.5, 0.7), [leaf(3, 4)]),
    "reshape": (lambda a: a.reshape(2, -1) * a.view((2, 6)), [leaf(3, 4)]),
    "transpose": (lambda a: a.transpose(0, 2) * a.permute(2, 1, 0), [leaf(2, 3, 4)]),
    "flatten": (lambda a: a.flatten(1) * a.flatten(1).squeeze(), [leaf(2, 3, 4)]),
    "unsqueeze": (lambda a: a.unsqueeze(1) * a.unsqueeze(-1), [leaf(3)]),
    "expand": (lambda a: a.expand(5, 3, 4) * a, [leaf(3, 1)]),
    "cat": (lambda a, b: cat([a, b, a], 1), [leaf(2, 3), leaf(2, 1)]),
    "stack": (lambda a, b: stack([a, b], -1), [leaf(2, 3), leaf(2, 3)]),
    "where": (lambda a, b: where(Tensor(np.array([True, False, True])), a, b), [leaf(2, 3), leaf(3)]),
    "slices": (lambda a: a[1:, ::-2] * a[0, -1] + a[..., None, :2].sum(), [leaf(3, 4)]),
    "indices": (lambda a: a[[0, 2, 0]] * a[np.array([1, 1, 1]), np.array([[0], [3]])].sum(), [leaf(3, 4)]),
    "mask": (lambda a: a[Tensor(np.array([True, False, True]))], [leaf(3, 4)]),
    "clone": (lambda a: a.clone() * a.double(), [leaf(3)]),
    "numpy's functions": (lambda a: np.exp(a) + np.tanh(a) + np.add(np.ones(3), a) + np.maximum(a, 0.1), [leaf(3)]),
    "numpy's where, clip, pad": (lambda a: np.pad(np.where(a > 0, a, np.clip(a, -0.5, 0.5)), ((1, 0), (2, 1))),
                                 [leaf(3, 4)]),
    "numpy's joins": (lambda a, b: np.concatenate([a, b], axis=1) * np.stack([a, a], -1).sum(),
                      [leaf(3, 4), leaf(3, 2)]),
    "numpy's reductions": (lambda a: np.mean(a, axis=0) + np.sum(a, -1, keepdims=True) * np.max(a) + np.std(a, axis=0),
                           [leaf(3, 4)]),
    "numpy's axes": (lambda a: np.moveaxis(a, 0, -1) + np.swapaxes(np.transpose(a), 0, 1) * np.ravel(a).sum(),
                     [leaf(2, 3, 4)]),
    "einsum": (lambda a, b: np.einsum("bij,bjk->ik", a, b), [leaf(2, 3, 4), leaf(2, 4, 5)]),
    "windows": (lambda a: np.lib.stride_tricks.sliding_window_view(a, (2, 3), (1, 2))[:, ::2], [leaf(2, 4, 5)]),
    "numpy on the left": (lambda a: np.ones((2, 3)) @ a - np.ones(2), [leaf(3, 2)]),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_equal_finite_differences(name):
    f, inputs = DIFFERENTIABLE[name]
    assert gradcheck(f, inputs)


def test_numpys_other_functions_take_arrays_or_say_that_a_gradient_would_be_lost():
    x = leaf(3)
    assert np.array_equal(np.cumsum(x.detach()), np.cumsum(x.data)) and np.allclose(x, x) and not np.isnan(x).any()
    for function in (np.cumsum, np.linalg.norm, np.floor):
        with pytest.raises(TypeError):
            function(x)


@pytest.mark.parametrize("error", [3e-1, 1e-2, 1e-3, 1e-4])
def test_gradcheck_can_fail(error):
    from tinynet.tensors import Layout
    wrong = Layout("wrong", lambda x: x * 1.0, lambda g, x: g * np.where(np.arange(4) == 2, 1 + error, 1))
    with pytest.raises(ValueError, match=r"gradcheck: at input 0\[2\] the gradient is"):
        gradcheck(lambda x: wrong(x), [leaf(4)])


@settings(max_examples=60, deadline=None)
@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.sampled_from("+-*/"), st.booleans())
def test_broadcasting(shapes, symbol, reverse):
    f = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}[symbol]
    a, b = (leaf(*shape, low=0.5) for shape in shapes.input_shapes)
    y = f(a, b)
    assert y.shape == shapes.result_shape and np.array_equal(y.detach().numpy(), f(a.data, b.data))
    weights = rng.normal(size=y.shape)
    (y * weights).sum().backward()
    da, db = {"+": (1, 1), "-": (1, -1), "*": (b.data, a.data), "/": (1 / b.data, -a.data / b.data**2)}[symbol]
    for x, d in ((a, da), (b, db)):
        full = np.broadcast_to(d * weights, y.shape)
        expected = np.zeros(x.shape)
        for place in np.ndindex(y.shape):  # the definition: every use of an element adds its share
            own = tuple(0 if n == 1 else i for n, i in zip(x.shape, place[len(place) - x.ndim:]))
            expected[own] += full[place]
        np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(0,), (1,), (0, 3), (7, 1), (33, 65)])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "exp", "neg"])
def test_odd_sizes_and_layouts(shape, name):
    base = rng.normal(size=(*shape, 2)).astype(np.float32)
    repeated = np.broadcast_to(base[:1, ..., 0] if shape[0] else base[..., 0], shape)
    for view in (base[..., 0], base[::-1, ..., 1], repeated):
        x = Tensor(view, requires_grad=True)
        y = getattr(x, name)()
        y.sum().backward()
        expected = np.vectorize(RULES[name].value, otypes=[float])(view.astype(float)) if view.size else view
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=2e-5, atol=2e-6)
        assert x.grad.shape == shape


def test_creation_and_dtypes():
    assert tensor([1.0]).dtype == np.float32 and tensor([1]).dtype == np.int64 and tensor([True]).dtype == bool
    assert tensor(np.ones(2)).dtype == np.float64 and tensor(1.5).shape == ()
    assert tinynet.zeros(2, 3).shape == (2, 3) == tinynet.ones((2, 3)).shape
    assert tinynet.full((2,), 3.0).tolist() == [3, 3] and tinynet.arange(3).tolist() == [0, 1, 2]
    assert tinynet.arange(0, 1, 0.5).dtype == np.float32 and tinynet.zeros_like(tensor([1])).dtype == np.int64
    x = np.ones(2)
    assert tensor(x).numpy() is not x and tinynet.from_numpy(x).numpy() is x
    tinynet.manual_seed(3)
    a = tinynet.randn(100, 100)
    tinynet.manual_seed(3)
    assert np.array_equal(a.numpy(), tinynet.randn(100, 100).numpy())
    assert abs(a.mean().item()) < 0.03 and abs(a.std().item() - 1) < 0.03
    assert set(tinynet.randint(2, 4, (50,)).tolist()) == {2, 3}
    assert sorted(tinynet.randperm(5).tolist()) == [0, 1, 2, 3, 4]


def test_leaves_accumulate_and_own_their_gradients():
    a, b = leaf(3), leaf(3)
    loss = (a + b).sum()
    loss.backward()
    assert a.grad is not b.grad
    loss.backward()
    assert a.grad.tolist() == [2, 2, 2] == b.grad.tolist()
    a.grad[:] = 0
    assert b.grad.tolist() == [2, 2, 2]
    h = a * b
    h.retain_grad()
    (h * h).sum().backward()
    np.testing.assert_allclose(h.grad, 2 * a.data * b.data)


def test_reading_and_views():
    x = tinynet.arange(6, dtype=np.float32).reshape(2, 3)
    x[0, 1] = 9
    assert x.tolist() == [[0, 9, 2], [3, 4, 5]] and x[0].tolist() == [0, 9, 2]
    assert x.argmax().item() == 1 and x.argmax(1).tolist() == [1, 2] and x.argmin(0, keepdims=True).shape == (1, 3)
    assert (x > 3).tolist() == [[False, True, False], [False, True, True]] and bool((x == x).min())
    assert len(x) == 2 and [row.tolist() for row in x] == x.tolist() and float(x[0, 1]) == 9 and "9." in repr(x)
    assert x.size() == (2, 3) and x.size(1) == 3 and x.dim() == 2 and x.numel() == 6
    parameter = leaf(3)
    with tinynet.no_grad():
        parameter[0] = 5.0
    assert parameter.data[0] == 5 and parameter.detach().numpy()[0] == 5


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: tensor("abc"), TypeError, "tensor: expected numbers"),
    (lambda: tensor([[1.0], [1.0, 2.0]]), ValueError, "rows have different lengths"),
    (lambda: tensor([tinynet.Value(1.0)]), TypeError, "got Values"),
    (lambda: tensor([1], requires_grad=True), TypeError, "only float tensors take gradients"),
    (lambda: leaf(2) + leaf(3), ValueError, r"\+: shapes \(2,\) and \(3,\) do not broadcast"),
    (lambda: leaf(2) + "a", TypeError, r"unsupported operand type\(s\) for \+: 'Tensor' and 'str'"),
    (lambda: leaf(2) + None, TypeError, r"unsupported operand type\(s\) for \+"),
    (lambda: leaf(2).add(None), TypeError, "add: expected a tensor or a number, got None"),
    (lambda: leaf(2) + tinynet.Value(1.0), TypeError, "Value"),
    (lambda: leaf(2, 3) @ leaf(2, 3), ValueError, r"@: the last axis of \(2, 3\) and the second last axis of"),
    (lambda: leaf(2).sum(1), IndexError, "sum: axis 1 does not exist in a tensor of 1 axes"),
    (lambda: leaf(2, 3).reshape(4), ValueError, r"reshape: 6 elements of shape \(2, 3\) do not fit \(4,\)"),
    (lambda: leaf(2)[5], IndexError, r"index 5 is out of bounds .* shape \(2,\)"),
    (lambda: leaf(2).backward(), ValueError, "backward: expected one number"),
    (lambda: tinynet.ones(2).sum().backward(), ValueError, "nothing that this tensor was made from requires"),
    (lambda: leaf(2).numpy(), ValueError, "call .detach"),
    (lambda: leaf(2).item(), ValueError, "item: expected one number"),
    (lambda: bool(leaf(2) > 0), ValueError, "expected one number"),
    (lambda: leaf(2).__setitem__(0, 1.0), ValueError, "assignment to a part of a tensor that takes gradients"),
    (lambda: cat([]), ValueError, "cat: expected at least one tensor"),
    (lambda: cat([leaf(2, 3), leaf(3, 2)]), ValueError, r"cat: shapes \(2, 3\) and \(3, 2\) differ"),
    (lambda: tensor([1, 2]).exp(), TypeError, "exp: expected float numbers, got int64"),
    (lambda: tensor([1, 2]).mean(), TypeError, "mean: expected float numbers, got int64"),
    (lambda: tinynet.zeros(0).max(), ValueError, "max: expected at least one element"),
    (lambda: tinynet.zeros(-1), ValueError, "zeros: expected non-negative integers as shape"),
    (lambda: tinynet.zeros(2, dtype="text"), TypeError, "zeros: "),
    (lambda: tinynet.manual_seed("a"), TypeError, "manual_seed: expected seed to be a non-negative"),
    (lambda: where(tensor([1.0]), 1.0, 2.0), TypeError, "where: expected a condition of bools"),
    (lambda: tinynet.grad(leaf(2).sum(), [leaf(1)]), ValueError, "does not depend on input 0"),
    (lambda: (lambda x: tinynet.grad(x.sum(), [x], create_graph=True))(leaf(2)), ValueError, "second derivatives"),
    (lambda: len(tensor(1.0)), TypeError, "has no length"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()


# -------------------------------------------------------------------------------------------- changes in place, views

def test_numbers_change_in_place_where_no_gradient_flows():
    x = tinynet.zeros(2, 3)
    same, row = x, x[0]
    x += 2
    x *= tensor([1.0, 2.0, 3.0])
    row -= 1  # a view: x changes too
    x /= 2
    assert same is x and x.tolist() == [[0.5, 1.5, 2.5], [1, 2, 3]]
    counts = tinynet.zeros(3, dtype=np.int64)
    counts[1] += 4
    x[1][2] = 7
    assert counts.tolist() == [0, 4, 0] and x[1, 2].item() == 7
    assert x.zero_().add_(tinynet.ones(3), alpha=3).mul_(2).sub_(1).div_(5).clamp_(max=0.9) is x
    assert np.allclose(x.data, 0.9) and x.fill_(2).copy_([1.0, 2, 3]).tolist() == [[1, 2, 3]] * 2


def test_parameters_change_in_place_under_no_grad():
    w, kept = leaf(3), []
    before = w.detach().numpy().copy()
    (w * w).sum().backward()
    with tinynet.no_grad():
        for p in [w]:
            p -= 0.1 * p.grad
        kept.append(w)
    np.testing.assert_allclose(kept[0].data, 0.8 * before)
    w.data.add_(w.grad, alpha=-0.1)
    w.data -= tensor(0.1 * w.grad)
    np.testing.assert_allclose(w.data, 0.4 * before)
    memory = w._data
    w.data -= 1
    assert w._data is memory and w.grad.norm() == pytest.approx(np.linalg.norm(2 * before))
    assert not w.grad.zero_().any() and not w.grad.any()


def test_an_update_through_which_a_gradient_flows_makes_a_new_tensor():
    w, x = leaf(3), tinynet.zeros(3, dtype=np.float64)
    before = x
    x += w
    x *= 2
    x.sum().backward()
    assert x is not before and w.grad.tolist() == [2, 2, 2] and before.tolist() == [0, 0, 0]


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: leaf(2).__iadd__(1), ValueError, r"\+=: a leaf that takes gradients is not changed in place"),
    (lambda: leaf(2).add_(1), ValueError, "add_: a leaf that takes gradients .* do it under no_grad"),
    (lambda: (leaf(2) * 2).mul_(2), ValueError, r"mul_: the result of a graph .* work on .detach\(\).clone\(\)"),
    (lambda: tinynet.ones(2).add_(leaf(2)), ValueError, "add_: a tensor that takes gradients would lose them here"),
    (lambda: tinynet.ones(2).__setitem__(0, leaf(1)[0]), ValueError, "assignment of a tensor that takes gradients"),
    (lambda: tinynet.ones(2).__isub__(tinynet.ones(3, 2)), ValueError, r"-=: shape \(3, 2\) does not fit into \(2,\)"),
    (lambda: tensor([1]).__itruediv__(2), TypeError, "/=: the result is no int64"),
    (lambda: tensor([1]).__iadd__(0.5), TypeError, r"\+=: the result is no int64"),
    (lambda: tinynet.ones(2).expand(3, 2).__iadd__(1), ValueError, r"repeats elements .* call .clone\(\) first"),
    (lambda: tinynet.ones(2).fill_("a"), TypeError, "fill_"),
    (lambda: tinynet.ones(2) & tinynet.ones(2), TypeError, "&: expected tensors of bools"),
    (lambda: tinynet.ones(2) % 2, TypeError, "%: expected integers, got float32"),
    (lambda: tensor([1]) // 0, ValueError, "//: division by 0"),
    (lambda: tinynet.ones(2, 3).topk(4), ValueError, "topk: there are no 4 elements along axis -1"),
    (lambda: tinynet.ones(5).split([2, 2]), ValueError, "split: lengths .2, 2. do not make up axis 0"),
    (lambda: tinynet.ones(2, device="cuda"), ValueError, 'device: tensors are on the "cpu", got .cuda.'),
    (lambda: tinynet.multinomial([0.5, 0.0], 2), ValueError, "multinomial: cannot draw 2 of 1 classes"),
    (lambda: tinynet.ones(2).to("cuda"), TypeError, 'to: expected a dtype, or "cpu" .* got .cuda.'),
    (lambda: tinynet.nn.functional.dropout(tensor([1, 2])), TypeError, "dropout: expected float numbers, got int64"),
    (lambda: tinynet.nn.functional.one_hot([-1]), IndexError, "one_hot: label -1 is outside 0"),
    (lambda: tinynet.nn.ModuleDict({"a": tinynet.nn.ReLU()})["b"], KeyError, "ModuleDict: there is no 'b'; it has a"),
    (lambda: tinynet.multinomial([0.5, -1.0], 1), ValueError, "multinomial: expected non-negative weights"),
])
def test_what_cannot_be_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()


def test_draws_have_their_probabilities():
    tinynet.manual_seed(0)
    p = np.array([[0.1, 0.6, 0.3], [3.0, 0.0, 1.0]])
    drawn = tinynet.multinomial(tensor(p), 4000, replacement=True).data
    for row, q in zip(drawn, p):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 4000, q / q.sum(), atol=0.03)
    firsts = np.array([tinynet.multinomial(p[0], 2).tolist() for _ in range(2000)])
    assert (firsts[:, 0] != firsts[:, 1]).all()
    np.testing.assert_allclose(np.bincount(firsts[:, 0]) / 2000, p[0], atol=0.04)
    second = p[0, 1] * p[0, 0] / (1 - p[0, 1]) + p[0, 2] * p[0, 0] / (1 - p[0, 2])  # class 0 after 1, or after 2
    assert abs((firsts[:, 1] == 0).mean() - second) < 0.04


def test_grad_of_tensors():
    x = leaf(3)
    g, = tinynet.grad((x * x).sum(), [x])
    np.testing.assert_allclose(g, 2 * x.data)
    assert x.grad is None


# ------------------------------------------------------------------------------ what changes between there and back

def under_no_grad(change):
    with tinynet.no_grad():
        change()


CHANGES = {
    "add_": lambda x: under_no_grad(lambda: x.add_(1)), "setitem": lambda x: under_no_grad(lambda: x.__setitem__(0, 9)),
    "data -=": lambda x: setattr(x, "data", x.data.__isub__(1)), "data =": lambda x: setattr(x, "data", [1.0, 5.0]),
    "a view": lambda x: x.detach()[1:].zero_(), "data": lambda x: x.data.mul_(2),
    "an optimiser": lambda x: optim.SGD([x], lr=0.1).step(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_gradient_of_what_was_changed_since(change):
    w = tensor([1.0, 2.0], requires_grad=True)
    y = (w * w).sum()
    y.backward()
    y.backward()  # nothing has changed
    CHANGES[change](w)
    with pytest.raises(ValueError, match=r"input 0 of \* was changed after it was used"):
        y.backward()
    w.zero_grad()
    (w * w).sum().backward()
    assert w.grad.tolist() == [2 * x for x in w.tolist()]


W, A = (lambda: tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)), (lambda: tensor([[3.0, 4.0], [5.0, 6.0]]))
READS = {  # what the backward pass reads, as in PyTorch: of w, of a constant a beside it, of the result y
    "+": (lambda w, a: w + a, ""), "-": (lambda w, a: a - w, ""), "*": (lambda w, a: w * a, "a"),
    "/": (lambda w, a: w / a, "a"), "a /": (lambda w, a: a / w, "wy"), "**": (lambda w, a: w ** a, "wa"),
    "@": (lambda w, a: w @ a, "a"), "max": (lambda w, a: w.maximum(a), "wa"), "sum": (lambda w, a: w.sum(0), ""),
    "mean": (lambda w, a: w.mean(), ""), "exp": (lambda w, a: w.exp(), "y"), "tanh": (lambda w, a: w.tanh(), "y"),
    "sin": (lambda w, a: w.sin(), "w"), "relu": (lambda w, a: w.relu(), "w"), "neg": (lambda w, a: -w, ""),
    "where": (lambda w, a: where(a > 4, w, a), ""), "reshape": (lambda w, a: w.reshape(4), ""),
    "cat": (lambda w, a: cat([w, a]), ""), "max of an axis": (lambda w, a: w.max(1), "w"),
    "[]": (lambda w, a: w[:1], ""),
    "clip": (lambda w, a: w.clip(1.5, 3.5), "wy"), "to": (lambda w, a: w.double(), ""),
}


@pytest.mark.parametrize("operation", READS)
def test_operations_remember_the_version_of_what_their_backward_pass_reads(operation):
    f, read = READS[operation]
    for what in "way":
        w, a = W(), A()
        y = f(w, a)
        changed = {"w": w, "a": a, "y": y}[what]
        y.sum().backward()
        expected = w.grad.tolist()
        w.zero_grad()
        changed.data.add_(1)
        if what in read:
            with pytest.raises(ValueError, match="was changed after it was used"):
                y.sum().backward()
        else:
            y.sum().backward()
            assert w.grad.tolist() == expected


def test_indices_and_conditions_are_read_too():
    w, i = W(), tensor([0, 1])
    y, chosen = w[i].sum(), w.detach() > 2
    i += 0
    z = where(chosen, w, 0.0).sum()
    chosen[0] = True
    for loss in (y, z):
        with pytest.raises(ValueError, match="what selects of .* was changed"):
            loss.backward()


def test_data_and_grad_are_tensors_without_a_graph():
    """The lines of scripts that update by hand: PyTorch's, on the same memory."""
    p, lr = tensor([3.0, -4.0], requires_grad=True), 0.1
    (p * p).sum().backward()
    assert type(p.data) is type(p.grad) is Tensor and not p.data.requires_grad and not p.grad.requires_grad
    kept, held = p.grad, np.asarray(p.grad)
    assert p.grad is kept and p.grad.norm().item() == 10
    assert ((lr * p.grad).std() / p.data.std()).item() == pytest.approx(0.2)
    p.data -= lr * p.grad
    assert p.requires_grad and not p.inputs
    p.data = p.data - lr * p.grad
    np.testing.assert_allclose(p.tolist(), [1.8, -2.4], rtol=1e-6)
    with tinynet.no_grad():
        p -= lr * p.grad
    p.grad += 1
    assert p.grad is kept and p.grad.tolist() == [7, -7] == held.tolist()
    y = (p.grad * p).sum()
    p.grad.zero_()
    assert held.tolist() == [0, 0] and kept.tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"input 0 of \* was changed"):
        y.backward()
    p.grad = None
    assert p.grad is None
    (p * p).sum().backward()
    assert held.tolist() == [0, 0] and kept.tolist() == [0, 0]  # a gradient that is kept stays as it is
    p.grad = tensor([1.0, 2.0])
    p.grad *= 2
    assert p.grad.tolist() == [2, 4]


def test_versions_cost_nothing_where_nothing_changes():
    y = leaf(3) * leaf(3)
    assert y._version is None
