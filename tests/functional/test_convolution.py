"""Convolution, pooling and batch norm: definition = kernel = scalar engine = PyTorch, and captured = eager."""

import contextlib
import re

import numpy as np
import pytest

import tinynet
from tests.functional.test_engines import outcome
from tinynet import Tensor, Value, capture, nn, optim, textbook
from tinynet import functional as F

rng = np.random.default_rng(0)

CONVOLUTIONS = {  # (images, outputs, kernel, stride, padding)
    "plain": ((2, 2, 5, 5), 3, 3, 1, 0),
    "padded": ((2, 1, 4, 5), 2, 3, 1, 1),
    "strides": ((1, 2, 7, 6), 2, (3, 2), (2, 3), (1, 0)),
    "more padding than window": ((1, 1, 3, 2), 2, (1, 2), 1, (2, 3)),
    "one by one": ((2, 3, 2, 2), 2, 1, 1, 0),
    "one pixel": ((1, 1, 1, 1), 1, 3, 2, 1),
    "windows apart": ((1, 1, 7, 7), 1, 2, 3, 0),
    "one window": ((3, 1, 4, 4), 1, 4, 1, 0),
    "empty batch": ((0, 2, 5, 5), 3, 3, 1, 1),
}
POOLS = {  # (images, kernel, stride, padding)
    "halves": ((2, 2, 4, 6), 2, None, 0),
    "odd": ((1, 2, 5, 7), 2, 2, 0),
    "overlapping": ((1, 1, 5, 5), 3, 1, 1),
    "two settings": ((1, 2, 6, 5), (3, 2), (2, 1), (1, 1)),
    "windows apart": ((1, 1, 7, 7), 2, 3, 0),
    "one pixel": ((2, 1, 1, 1), 1, None, 0),
    "empty batch": ((0, 1, 4, 4), 2, None, 0),
}
LAYERS = {
    **{f"conv, {name}": (lambda c=c: nn.Conv2d(c[0][1], c[1], c[2], c[3], c[4]), c[0])
       for name, c in CONVOLUTIONS.items()},
    "conv, no bias": (lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 2, 4, 4)),
    **{f"{kind.__name__}, {name}": (lambda kind=kind, c=c: kind(c[1], c[2], c[3]), c[0])
       for name, c in POOLS.items() for kind in (nn.MaxPool2d, nn.AvgPool2d)},
    "batch norm": (lambda: nn.BatchNorm2d(3), (2, 3, 2, 3)),
    "batch norm, eval": (lambda: nn.BatchNorm2d(3).eval(), (2, 3, 2, 3)),
    "batch norm, eval, empty batch": (lambda: nn.BatchNorm2d(3).eval(), (0, 3, 2, 3)),
    "batch norm, cumulative": (lambda: nn.BatchNorm2d(2, momentum=None), (3, 2, 1, 2)),
    "batch norm, no parameters": (lambda: nn.BatchNorm2d(2, affine=False, track_running_stats=False), (3, 2, 2, 2)),
    "network": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2),
                                      nn.Conv2d(2, 3, 2), nn.Tanh(), nn.AvgPool2d(2, 1), nn.Flatten(),
                                      nn.Linear(3, 2)), (3, 1, 6, 6)),
}


def made(case):
    """The layer in double precision, with running statistics and weights that are not those of the beginning."""
    make, shape = LAYERS[case]
    tinynet.manual_seed(1)
    layer = make().double()
    state = np.random.default_rng(2)
    layer.load_state_dict({name: a if a.dtype.kind == "i" else state.uniform(0.5, 1.5, a.shape)
                           for name, a in layer.state_dict().items()})
    return layer, state.normal(size=shape)


EMPTY = [case for case in LAYERS if case.endswith("empty batch")]


@pytest.mark.parametrize("case", [case for case in LAYERS if case not in EMPTY])
def test_kernel_equals_definition_equals_scalar_engine(case):
    layer, x = made(case)
    before = layer.state_dict()
    results = []
    for engine in ("kernel", "definition", "scalar"):
        layer.to("scalar" if engine == "scalar" else "tensor").load_state_dict(before)
        if engine == "definition":
            with textbook():
                found = outcome(layer, x, None, "tensor")
        else:
            found = outcome(layer, x, None, "scalar" if engine == "scalar" else "tensor")
        results.append([*found, *layer.state_dict().values()])
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-12)
    assert np.abs(results[0][3]).sum() > 0


@pytest.mark.parametrize("case", EMPTY)
def test_an_empty_batch_gives_an_empty_batch_and_gradients_of_zero(case):
    layer, x = made(case)
    kernel = outcome(layer, x, None, "tensor")
    with textbook():
        definition = outcome(layer, x, None, "tensor")
    for y, loss, gradients, dx in (kernel, definition):
        assert y.shape == kernel[0].shape and not y.size and loss == 0 and dx.shape == x.shape
        assert np.array_equal(gradients, np.zeros(sum(p.numel() for p in layer.parameters())))
    y = layer.to("scalar")(x.astype(object))
    assert y.shape == kernel[0].shape and y.dtype == object


def torch_twin(layer):
    """PyTorch's layer of the same name, settings and numbers."""
    torch = pytest.importorskip("torch")
    if isinstance(layer, nn.Sequential):
        return torch.nn.Sequential(*map(torch_twin, layer))
    kind = getattr(torch.nn, type(layer).__name__)
    settings = {
        "Conv2d": "in_channels out_channels kernel_size stride padding", "MaxPool2d": "kernel_size stride padding",
        "AvgPool2d": "kernel_size stride padding", "Linear": "in_features out_features",
        "BatchNorm2d": "num_features eps momentum affine track_running_stats"}.get(type(layer).__name__, "")
    settings = {name: getattr(layer, name) for name in settings.split()}
    if kind in (torch.nn.Conv2d, torch.nn.Linear):
        settings["bias"] = layer.bias is not None
    twin = kind(**settings).double().train(layer.training)
    assert list(twin.state_dict()) == list(layer.state_dict())
    twin.load_state_dict({name: torch.tensor(a) for name, a in layer.state_dict().items()})
    return twin


@pytest.mark.parametrize("case", LAYERS)
def test_outputs_and_gradients_equal_pytorch(case):
    torch = pytest.importorskip("torch")
    layer, x = made(case)
    twin = torch_twin(layer)
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = layer(a), twin(b)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-11, atol=1e-12)
    (y * y + y).sum().backward()
    (z * z + z).sum().backward()
    np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-10, atol=1e-11)
    for (name, p), t in zip(layer.named_parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-10, atol=1e-11, err_msg=name)
    for name, t in twin.state_dict().items():
        np.testing.assert_allclose(layer.state_dict()[name], t.numpy(), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("stride, padding", [(1, 0), ((2, 1), (1, 2))])
def test_the_functions_equal_pytorchs_on_batches_and_on_one_image(stride, padding):
    torch = pytest.importorskip("torch")
    x, w, b = rng.normal(size=(2, 3, 9, 8)), rng.normal(size=(4, 3, 4, 5)), rng.normal(size=4)
    for image in (x, x[0]):
        for bias in (b, None):
            ours = F.conv2d(Tensor(image), Tensor(w), bias if bias is None else Tensor(bias), stride, padding)
            theirs = torch.nn.functional.conv2d(torch.tensor(image), torch.tensor(w),
                                                None if bias is None else torch.tensor(bias), stride, padding)
            np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-11, atol=1e-12)
        for name in ("max_pool2d", "avg_pool2d"):
            ours = getattr(F, name)(Tensor(image), (4, 5), stride, padding)
            theirs = getattr(torch.nn.functional, name)(torch.tensor(image), (4, 5), stride, padding)
            np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("x", [np.zeros((4, 4)), np.array([[1, 2, 0, 0], [2, 2, -1, 0], [3, 3, 5, 4], [3, 3, 5, 5]])])
@pytest.mark.parametrize("stride, padding", [(2, 0), (1, 1)])
def test_of_several_maxima_the_first_receives_the_gradient(x, stride, padding):
    torch = pytest.importorskip("torch")
    x = x[None, None].astype(float)
    theirs = torch.tensor(x, requires_grad=True)
    torch.nn.functional.max_pool2d(theirs, 2, stride, padding).sum().backward()
    for switch in (contextlib.nullcontext(), tinynet.textbook()):
        ours = Tensor(x, requires_grad=True)
        with switch:
            F.max_pool2d(ours, 2, stride, padding).sum().backward()
        assert np.array_equal(ours.grad, theirs.grad)
    values = np.vectorize(Value, otypes=[object])(x)
    F.max_pool2d(values, 2, stride, padding).sum().backward()
    assert np.array_equal(np.vectorize(lambda v: v.grad)(values), theirs.grad)


def test_a_drawn_network_is_a_program_that_chooses_the_largest_for_each_sample():
    tinynet.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.BatchNorm2d(2).eval(), nn.MaxPool2d(2, 2, 1), nn.Flatten(),
                          nn.Linear(8, 1)).to("scalar")
    x = np.vectorize(Value, otypes=[object])(np.zeros((1, 1, 2, 2)))
    program = tinynet.compile(model(x)[0, 0], inputs=x)
    batch = rng.normal(size=(6, 1, 2, 2))
    wanted = np.vectorize(float)(model(batch))[:, 0]
    np.testing.assert_allclose(program(batch.reshape(6, 4)), wanted, rtol=1e-12)
    assert len(np.unique(wanted)) == 6


# ---------------------------------------------------------------------------------------------------------- training

def network(nn):
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2),
                         nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
                         nn.Linear(6, 3))


IMAGES, LABELS = rng.normal(size=(20, 8, 1, 7, 7)), rng.integers(0, 3, (20, 8))


def trained(nn, model, optimizer, tensors, wrap=lambda step: step):
    """The losses of 20 steps."""
    def step(x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = wrap(step)
    return [float(step(tensors(x), tensors(y))) for x, y in zip(IMAGES, LABELS)]


def test_twenty_steps_equal_pytorchs_and_captured_ones():
    torch = pytest.importorskip("torch")
    tinynet.manual_seed(0)
    first = network(nn).double()
    state, outcomes = first.state_dict(), []
    for wrap in (lambda step: step, capture, textbook()):
        model = network(nn).double()
        model.load_state_dict(state)
        losses = trained(nn, model, optim.Adam(model.parameters(), 0.01), Tensor, wrap)
        outcomes.append([losses, *model.state_dict().values()])
    model = network(torch.nn).double()
    model.load_state_dict({name: torch.tensor(a) for name, a in state.items()})
    losses = trained(torch.nn, model, torch.optim.Adam(model.parameters(), 0.01), torch.tensor)
    outcomes.append([losses, *(t.numpy() for t in model.state_dict().values())])
    eager = outcomes[0]
    assert eager[0][-1] != eager[0][0] and model.state_dict()["1.num_batches_tracked"] == 20
    for a, b in zip(eager, outcomes[1], strict=True):
        assert np.array_equal(a, b)  # captured
    for other in outcomes[2:]:
        for a, b in zip(eager, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


def test_running_statistics_move_at_replay_and_serve_a_captured_eval():
    layer, twin = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    step = capture(lambda x: layer(x))
    for x in rng.normal(size=(5, 3, 2, 2, 2)).astype(np.float32):
        assert np.array_equal(step(Tensor(x)).data, twin(Tensor(x)).data)
        assert all(np.array_equal(a, b) for a, b in zip(layer.state_dict().values(), twin.state_dict().values()))
    assert layer.num_batches_tracked == 5
    x = Tensor(rng.normal(size=(3, 2, 2, 2)).astype(np.float32))
    layer.eval()
    before = step(x).numpy()
    assert layer.num_batches_tracked == 5 and not np.array_equal(before, twin(x).data)
    layer.running_mean += 1
    np.testing.assert_allclose(step(x).numpy(), layer(x).data, rtol=1e-6)
    assert not np.allclose(step(x).numpy(), before)


def test_a_network_learns_on_the_scalar_engine_as_on_tensors():
    tinynet.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(2, 3)).double()
    state, losses = model.state_dict(), {}
    for engine in ("tensor", "scalar"):
        model.to(engine).load_state_dict(state)
        optimizer = optim.SGD(model.parameters(), 0.1)
        losses[engine] = []
        for x, y in zip(IMAGES[:3, :3], LABELS[:3, :3]):
            loss = nn.CrossEntropyLoss()(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[engine].append(float(loss))
    np.testing.assert_allclose(losses["tensor"], losses["scalar"], rtol=1e-10)
    assert model.state_dict()["1.num_batches_tracked"] == 3


# ----------------------------------------------------------------------------------------------- the rest of a layer

def test_layers_are_written_as_in_pytorch():
    pytest.importorskip("torch")
    for case in LAYERS:
        layer = LAYERS[case][0]()
        theirs = repr(torch_twin(layer.double())).replace(", dilation=1, ceil_mode=False", "")
        if isinstance(layer, nn.BatchNorm2d):  # some versions name the bias as well
            theirs = re.sub(r" bias=\w+,", "", theirs)
        if not isinstance(layer, nn.Sequential):
            assert repr(layer) == theirs


def test_first_weights_are_drawn_as_in_pytorch():
    torch = pytest.importorskip("torch")
    tinynet.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = nn.Conv2d(8, 50, (3, 5)), torch.nn.Conv2d(8, 50, (3, 5))
    bound = 1 / np.sqrt(8 * 15)
    for name, a in ours.state_dict().items():
        b = theirs.state_dict()[name].numpy()
        assert a.dtype == b.dtype and a.shape == b.shape
        assert 0.9 * bound < np.abs(a).max() <= bound and 0.9 * bound < np.abs(b).max() <= bound
        assert abs(a.mean()) < 0.2 * bound


def test_running_statistics_are_part_of_the_state_and_outlast_an_engine():
    layer, copy = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    layer(tinynet.randn(4, 3, 2, 2))
    copy.load_state_dict(layer.state_dict())
    assert all(np.array_equal(a, b) for a, b in zip(layer.state_dict().values(), copy.state_dict().values()))
    assert copy.num_batches_tracked == 1 and copy.num_batches_tracked.dtype == np.int64
    layer.to("scalar")(rng.normal(size=(2, 3, 1, 2)))
    assert layer.to("tensor").state_dict()["num_batches_tracked"] == 2 and copy.num_batches_tracked == 1
    assert layer.double().running_mean.dtype == np.float64 and layer.num_batches_tracked.dtype == np.int64


def test_a_summary_and_pictures_of_a_network():
    model = network(nn)
    table = str(tinynet.summary(model, (8, 1, 7, 7)))
    assert "(8, 4, 7, 7)" in table and "(8, 6, 2, 2)" in table
    assert not model[1].num_batches_tracked  # a look is no training
    folded = tinynet.draw(model, (8, 1, 7, 7)).source
    assert "Conv2d" in folded and "(8, 1, 7, 7) → (8, 4, 7, 7)" in folded and "MaxPool2d" in folded
    small = nn.Conv2d(1, 1, 2).to("scalar")
    scalar = tinynet.draw(small(rng.normal(size=(1, 1, 2, 2)))[0, 0, 0, 0]).source
    assert "weight[0,0,1,1]" in scalar
    y = nn.Conv2d(1, 1, 2)(tinynet.randn(1, 1, 3, 3))
    assert "@" in tinynet.draw(y, fused=False).source and "conv2d" in tinynet.draw(y).source


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.Conv2d(3, 0, 3), ValueError, "Conv2d: expected out_channels to be a positive integer, got 0"),
    (lambda: nn.Conv2d(3, 4, 0), ValueError, "Conv2d: expected kernel_size to be a positive integer, got 0"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, r"kernel_size to be an integer or .*two, got \(3, 3, 3\)"),
    (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "Conv2d: expected stride to be a positive integer, got 0"),
    (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError,
     "Conv2d: expected padding to be a non-negative integer, got -1"),
    (lambda: nn.Conv2d(3, 4, 3, padding=0.5), TypeError, "Conv2d: expected padding .* got 0.5"),
    (lambda: nn.Conv2d(3, 4, 3)(tinynet.zeros(2, 1, 28, 28)), ValueError,
     r"Conv2d\(3 -> 4\): input has shape \(2, 1, 28, 28\), expected \(batch, 3, height, width\)"),
    (lambda: nn.Conv2d(3, 4, 3)(tinynet.zeros(5, 5)), ValueError, r"input has shape \(5, 5\)"),
    (lambda: nn.Conv2d(1, 4, 3)([[[[1.0], [1.0, 2.0]]]]), ValueError, r"Conv2d\(1 -> 4\): input has shape None"),
    (lambda: nn.Conv2d(1, 4, 5)(tinynet.zeros(2, 1, 3, 28)), ValueError,
     r"conv2d: a window of 5 × 5 does not fit into images of 3 × 28\nin Conv2d\(1 -> 4\)"),
    (lambda: nn.Conv2d(1, 4, 5, padding=(0, 1))(tinynet.zeros(2, 1, 3, 28)), ValueError, "padded by 0 × 1"),
    (lambda: nn.Conv2d(1, 4, 3)(tinynet.zeros(2, 1, 5, 5, dtype=np.float64)), TypeError,
     r"the input is float64 and the weights are float32; .*\nin Conv2d\(1 -> 4\)"),
    (lambda: nn.Conv2d(1, 4, 3)(np.vectorize(Value, otypes=[object])(np.zeros((1, 1, 3, 3)))), TypeError,
     r'call model.to\("scalar"\)'),
    (lambda: F.conv2d(tinynet.zeros(1, 2, 5, 5), tinynet.zeros(3, 2, 3)), ValueError,
     r"conv2d: expected weight \(outputs, channels, kh, kw\), got shape \(3, 2, 3\)"),
    (lambda: F.conv2d(tinynet.zeros(1, 2, 5, 5), tinynet.zeros(3, 1, 3, 3)), ValueError,
     "have 2 channels, the weight .* expects 1"),
    (lambda: F.conv2d(tinynet.zeros(1, 2, 5, 5), tinynet.zeros(3, 2, 3, 3), tinynet.zeros(2)), ValueError,
     r"conv2d: bias has shape \(2,\), expected \(3,\)"),
    (lambda: nn.MaxPool2d(2, padding=2)(tinynet.zeros(1, 1, 4, 4)), ValueError, "padding is at most half"),
    (lambda: nn.MaxPool2d("two"), TypeError,
     "MaxPool2d: expected kernel_size to be a positive integer, got 'two'"),
    (lambda: nn.AvgPool2d(5)(tinynet.zeros(1, 1, 4, 9)), ValueError, "a window of 5 × 5 does not fit"),
    (lambda: nn.AvgPool2d(2)(tinynet.zeros(4, 9)), ValueError, r"avg_pool2d: expected images .* got shape \(4, 9\)"),
    (lambda: F.max_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64)), 2), TypeError, "expected float numbers, got int64"),
    (lambda: nn.BatchNorm2d(3)(tinynet.zeros(2, 4, 5, 5)), ValueError,
     r"BatchNorm2d\(3\): input has shape \(2, 4, 5, 5\), expected \(batch, 3, height, width\)"),
    (lambda: nn.BatchNorm2d(3)(tinynet.zeros(1, 3, 1, 1)), ValueError,
     r"batch_norm: training needs more than one element in each channel, .*\nin BatchNorm2d\(3\)"),
    (lambda: nn.BatchNorm2d(3)(tinynet.zeros(0, 3, 2, 2)), ValueError, "training needs more than one element"),
    (lambda: F.batch_norm(tinynet.zeros(2, 3), None, None), ValueError, "running_mean and running_var are needed"),
    (lambda: F.batch_norm(tinynet.zeros(2, 3), np.zeros(2), np.ones(3)), ValueError,
     r"batch_norm: running_mean has shape \(2,\), the input has 3 channels"),
    (lambda: nn.BatchNorm2d(2).load_state_dict(nn.BatchNorm2d(2, affine=False).state_dict()), ValueError,
     "lacks 'weight', 'bias'"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()
