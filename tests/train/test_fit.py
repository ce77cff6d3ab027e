"""fit is the loop written by hand: the same results on both engines, captured or not, and a clean end."""

import math
import os
import signal
import threading

import numpy as np
import pytest

from tinynet import fit, manual_seed, nn, optim, summary, tensor
from tinynet.data import DataLoader, TensorDataset
from tinynet.datasets import moons, spiral
from tinynet.train import EarlyStopping, History, accuracy


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as in a terminal: a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def problem(n=70, batch_size=16, seed=0, **options):
    """A model, its loader (with a smaller last batch), a loss and an optimiser."""
    manual_seed(seed)
    model = nn.MLP(2, [8, 3])
    loader = DataLoader(TensorDataset(*spiral(n)), batch_size, shuffle=True, seed=seed)
    return model, loader, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.02, **options)


def weights(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def same(a, b, **tolerance):
    return all(np.allclose(a[name], b[name], **(tolerance or {"rtol": 0, "atol": 0})) for name in a)


def by_hand(model, loader, loss, optimizer, epochs):
    losses = []
    for _ in range(epochs):
        total = 0.0
        for x, y in loader:
            error = loss(model(x), y)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            total += error.item() * len(y)
        losses.append(total / len(loader.dataset))
    return losses


@pytest.mark.parametrize("capture", [True, False])
def test_fit_is_the_loop_by_hand(capture):
    model, *rest = problem()
    expected = by_hand(model, *rest, epochs=4)
    other, *rest = problem()
    history = fit(other, *rest, epochs=4, capture=capture, progress=False)
    assert history["loss"] == expected and same(weights(model), weights(other))
    assert len(history) == 4 and history.stopped == "" and history.best == 1 + int(np.argmin(expected))
    assert expected[-1] < expected[0]


def test_both_engines_learn_the_same():
    model, *rest = problem(n=20)
    tensors = fit(model.double(), *doubled(model, *rest), epochs=2, progress=False, metrics=accuracy)
    other, *rest = problem(n=20)
    other.double().to("scalar")
    scalars = fit(other, *doubled(other, *rest), epochs=2, progress=False, metrics=accuracy)
    assert np.allclose(tensors["loss"], scalars["loss"], rtol=1e-12) and tensors["accuracy"] == scalars["accuracy"]
    assert same(weights(model), weights(other), rtol=1e-10)


def doubled(model, loader, loss, optimizer):
    """The same in float64, with an optimiser for the model as it now is."""
    loader.dataset.arrays[0] = loader.dataset.arrays[0].astype(np.float64)
    return loader, loss, optim.Adam(model.parameters(), lr=0.02)


def test_validation_and_metrics_are_those_of_the_whole_set():
    model, loader, loss, optimizer = problem()
    X, y = spiral(45, seed=9)
    model.dropout = nn.Dropout(0.5)
    model.forward = lambda x: model.dropout(nn.MLP.forward(model, x))
    validation = DataLoader(TensorDataset(X, y), 20)

    def first_class(outputs, targets):
        assert isinstance(outputs, np.ndarray) and isinstance(targets, np.ndarray)
        return len(targets)

    history = fit(model, loader, loss, optimizer, 3, validation=validation, metrics=[accuracy, first_class],
                  progress=False)
    assert model.training and model.dropout.training  # as it was
    model.eval()
    outputs = model(X).detach().numpy()  # no dropout in validation
    assert history["val_loss"][-1] == pytest.approx(loss(tensor(outputs), tensor(y)).item(), rel=1e-5)
    assert history["val_accuracy"][-1] == accuracy(outputs, y) == np.mean(outputs.argmax(1) == y)
    assert history["first_class"] == [70] * 3 and history["val_first_class"] == [45] * 3
    fit(model, loader, loss, optimizer, 1, metrics={"right": accuracy}, progress=False)["right"]
    assert not model.training


def test_accuracy():
    assert accuracy(np.array([[0.1, 2.0], [3.0, 1.0], [0.0, 1.0]]), np.array([1, 1, 1])) == pytest.approx(2 / 3)
    assert accuracy(np.array([[0.1], [-2.0]]), np.array([[1.0], [1.0]])) == 0.5
    with pytest.raises(ValueError, match=r"got \(3, 1\) and \(4,\)"):
        accuracy(np.zeros((3, 1)), np.zeros(4))


def test_a_scheduler_steps_after_each_epoch():
    model, loader, loss, optimizer = problem()
    history = fit(model, loader, loss, optimizer, 5, scheduler=optim.StepLR(optimizer, 2, 0.5), progress=False)
    assert history["lr"] == pytest.approx([0.02, 0.02, 0.01, 0.01, 0.005])


def test_batches_may_be_a_list_of_arrays():
    X, y = moons(30)
    manual_seed(0)
    model = nn.Linear(2, 1)
    batches = [(X[:20].astype(np.float64), y[:20, None]), (X[20:], y[20:, None])]
    history = fit(model, batches, nn.BCEWithLogitsLoss(), optim.SGD(model.parameters(), lr=0.5), 20, progress=False)
    assert history["loss"][-1] < history["loss"][0]


def test_two_inputs():
    class Sum(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x, z):
            return self.a(x) + self.b(z)

    x, z = np.random.default_rng(0).normal(size=(2, 40, 1))
    manual_seed(0)
    model = Sum()
    loader = DataLoader(TensorDataset(x, z, 2 * x - z), 10)
    history = fit(model, loader, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.1), 60, progress=False)
    assert history["loss"][-1] < 1e-3 and model.a.weight.item() == pytest.approx(2, abs=0.1)


# ------------------------------------------------------------------------------------------------------- ending early

class Script:
    """A loss that follows a script, epoch by epoch, so that the best epoch is known; its gradient moves the weight."""

    def __init__(self, losses):
        self.losses, self.epoch = losses, -1

    def __call__(self, output, target):
        return (output - output.detach()).sum() + float(self.losses[self.epoch])

    def __iter__(self):
        self.epoch += 1
        yield tensor([[1.0]]), tensor([[0.0]])


def scripted(losses, callbacks=(), epochs=None, **options):
    """Train on a script of losses. The weight falls by 1 an epoch, from 0."""
    script, model = Script(losses), nn.Linear(1, 1, bias=False)
    model.weight.data[:] = 0
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    history = fit(model, script, script, optimizer, len(losses) if epochs is None else epochs, callbacks=callbacks,
                  capture=False, progress=False, **options)
    return history, model.weight.item()


def test_after_all_epochs_the_model_has_its_last_weights():
    history, weight = scripted([3.0, 1.0, 2.0])
    assert history["loss"] == [3, 1, 2] and history.best == 2 and weight == -3


def test_early_stopping_goes_back_to_the_best_epoch():
    history, weight = scripted([3.0, 1.0, 2.0, 1.0, 0.5], EarlyStopping(patience=2))
    assert history["loss"] == [3, 1, 2, 1] and history.stopped == "by a callback"
    assert history.best == 2 and weight == -2


@pytest.mark.parametrize("losses, patience, min_delta, stops", [
    ([3, 2, 1, 0], 1, 0.0, 4), ([3, 3, 3, 3], 2, 0.0, 3), ([3, 2.9, 2.8, 2.7], 2, 0.5, 3), ([1, 2, 3, 0], 3, 0.0, 4),
    ([1, 2, 3, 4], 3, 0.0, 4), ([1, 2, 3, 4], 1, 0.0, 2)])
def test_patience(losses, patience, min_delta, stops):
    assert len(scripted(losses, EarlyStopping(patience, min_delta))[0]) == stops


def test_early_stopping_on_a_metric_that_should_rise():
    values = iter([0.5, 0.7, 0.6, 0.9])
    history, _ = scripted([4, 3, 2, 1], EarlyStopping(1, monitor="score", mode="max"),
                          metrics={"score": lambda outputs, targets: next(values)})
    assert history["score"] == [0.5, 0.7, 0.6]
    with pytest.raises(KeyError, match="there is no 'val_score'; measured were 'lr', 'loss'"):
        scripted([1], EarlyStopping(1, monitor="val_score"))


def test_a_diverged_run_keeps_the_best_weights_and_says_so():
    with pytest.warns(RuntimeWarning, match="the loss is nan in epoch 3.* weights of epoch 1"):
        history, weight = scripted([1.0, 2.0, math.nan, 1.0])
    assert history.stopped == "diverged" and len(history) == 3 and weight == -1
    with pytest.warns(RuntimeWarning, match="the loss is inf in epoch 1.*from before training"):
        assert scripted([math.inf, 1.0])[1] == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_lets_the_batch_end_and_keeps_the_best_weights():
    model, loader, loss, optimizer = problem()
    best, batches = [], 0

    class Impatient:
        def __len__(self):
            return len(loader)

        def __iter__(self):
            nonlocal batches
            for batch in loader:
                batches += 1
                if batches == 13:  # five batches an epoch: the third of the third
                    signal.raise_signal(signal.SIGINT)
                yield batch

    before = signal.getsignal(signal.SIGINT)
    history = fit(model, Impatient(), loss, optimizer, 10, progress=False,
                  callbacks=lambda history, model: best.append(weights(model)))
    assert history.stopped == "interrupted" and len(history) == 2 and batches == 13
    assert same(weights(model), best[history.best - 1]) and model.training
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_first_epoch_keeps_what_was_learned():
    model, loader, loss, optimizer = problem()
    start = weights(model)

    def interrupted(output, target):
        signal.raise_signal(signal.SIGINT)
        return loss(output, target)

    history = fit(model, loader, interrupted, optimizer, 10, progress=False)
    assert history.stopped == "interrupted" and len(history) == 0 and not same(weights(model), start)
    assert all(np.isfinite(x).all() for x in weights(model).values())
    assert repr(history) == "History(0 epochs; stopped: interrupted)"


def test_a_second_ctrl_c_ends_at_once_with_the_best_weights():
    model, loader, loss, optimizer = problem()
    best = []

    def impatient(history, model):
        best.append(weights(model))
        if len(history) == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(model, loader, loss, optimizer, 10, callbacks=impatient, progress=False)
    assert len(best) == 3 and any(same(weights(model), w) for w in best)
    assert signal.getsignal(signal.SIGINT) is before


def test_training_in_a_thread_leaves_signals_alone():
    model, *rest = problem()
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(model, *rest, epochs=2, progress=False)))
    thread.start()
    thread.join()
    assert len(found[0]) == 2


# ---------------------------------------------------------------------------------------------------------- bad input

def test_fit_validates():
    model, loader, loss, optimizer = problem()
    with pytest.raises(TypeError, match="fit: expected epochs to be a non-negative integer, got 1.5"):
        fit(model, loader, loss, optimizer, 1.5)
    with pytest.raises(TypeError, match="fit: expected capture to be True or False, got 'no'"):
        fit(model, loader, loss, optimizer, capture="no")
    assert len(fit(model, loader, loss, optimizer, 0, progress=False)) == 0
    with pytest.raises(TypeError, match=r"expected batches \(inputs …, target\) from the loader, got 1 part"):
        fit(model, DataLoader(TensorDataset([[1.0, 2.0]])), loss, optimizer, progress=False)
    with pytest.raises(TypeError, match="from the loader, got Tensor"):
        fit(model, [tensor([[1.0, 2.0]])], loss, optimizer, progress=False)
    with pytest.raises(ValueError, match="the loader gave no samples"):
        fit(model, iter(loader), loss, optimizer, 2, progress=False)
    with pytest.raises(ValueError, match="the validation gave no samples"):
        fit(model, loader, loss, optimizer, validation=[], progress=False)
    with pytest.raises(TypeError, match="expected metrics to be functions of outputs and targets, got 'accuracy'"):
        fit(model, loader, loss, optimizer, metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"the optimiser holds none of the model's parameters; .* after model.to\(…\)"):
        fit(model.to("scalar"), loader, loss, optimizer)
    with pytest.raises(ValueError, match="expected patience to be a positive integer"):
        EarlyStopping(0)
    with pytest.raises(ValueError, match="expected mode to be 'min' or 'max', got 'higher'"):
        EarlyStopping(mode="higher")


def test_a_model_that_reads_numbers_trains_without_capture():
    class Reader(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y * 2 if y.sum().item() > 0 else y

    manual_seed(0)
    model = Reader(2, 3)
    arguments = model, problem()[1], nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^capture: item.*or call fit\(…, capture=False\)"):
        fit(*arguments, progress=False)
    assert len(fit(*arguments, capture=False, progress=False)) == 1


# --------------------------------------------------------------------------------------- the bar, the chart, the table

def test_the_bar_shows_epochs_samples_and_losses(capsys):
    model, *rest = problem()
    history = fit(model, *rest, epochs=3, validation=rest[0], metrics=accuracy)
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert last.startswith("epoch 3/3: 100%") and "210/210" in last and "samples/s" in last
    assert f"loss={history['loss'][-1]:.4f}, accuracy={history['accuracy'][-1]:.4f}, val_loss=" in last
    fit(model, *rest, epochs=1, progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_history_says_what_it_measured():
    history = History()
    assert repr(history) == "History(0 epochs)" and "loss" not in history
    history.add({"lr": 0.1, "loss": 2.0, "seconds": 0.1})
    history.best = 1
    assert repr(history) == "History(1 epochs: loss 2; best epoch 1)" and history["loss"] == [2.0]
    with pytest.raises(KeyError, match="there is no 'accuracy'; measured were 'lr', 'loss', 'seconds'"):
        history["accuracy"]


def test_history_plots_what_it_measured(tmp_path):
    pytest.importorskip("matplotlib")
    history = History()
    for i in range(1, 5):
        history.add({"lr": 0.1, "loss": 1 / i, "right": i / 4, "val_loss": 2 / i, "val_right": i / 5, "seconds": 1.0})
    history.best = 4
    figure = history.plot(tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [history["loss"], history["val_loss"]]
    assert [list(line.get_ydata()) for line in right.lines[:2]] == [history["right"], history["val_right"]]
    assert list(left.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["training", "validation", "best epoch, 4"]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install tinynet\[plot\]"):
        History().plot()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(10, 64), nn.Dropout(0.5), nn.Linear(64, 1)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc2(self.drop(nn.functional.relu(self.fc1(x))))


def test_summary():
    net = Net()
    net.drop.eval()
    table = summary(net, (32, 10))
    assert str(table) == repr(table) == """\
layer            output shape   parameters
Net              (32, 1)
  fc1 Linear     (32, 64)              704
  drop Dropout   (32, 64)
  fc2 Linear     (32, 1)                65
  spare Linear   not called              6
input (32, 10), parameters 775, trainable 775"""
    assert net.training and not net.drop.training and "forward" not in vars(net)  # as it was
    net.fc1.requires_grad_(False)
    assert summary(net, (32, 10)).endswith("parameters 775, trainable 71")
    assert summary(net.to("scalar"), (1, 10)).endswith("parameters 775, trainable 71")


def test_summary_of_words_and_of_shared_layers():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Embedding(9, 4), shared, shared)
    assert str(summary(net, [2, 5])) == """\
layer           output shape   parameters
Sequential      (2, 5, 4)
  0 Embedding   (2, 5, 4)              36
  1 Linear      (2, 5, 4)              20
input (2, 5), parameters 56, trainable 56"""


def test_summary_validates():
    for shape in (10, (0, 10), (None, 10), (2.0, 10)):
        with pytest.raises(ValueError, match="expected input_shape to be a tuple of positive integers"):
            summary(Net(), shape)
    net = Net()
    with pytest.raises(ValueError, match=r"Linear\(10 -> 64\): input has 3 features in its last axis, expected 10"):
        summary(net, (32, 3))
    assert "forward" not in vars(net) and net.training
