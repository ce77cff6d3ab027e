"""What is saved is loaded to the bit, in both formats; damaged and hostile files raise and change nothing."""

import copy
import importlib.util
import io
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import tinynet
from tinynet import Generator, Recorder, Value, fit, load, manual_seed, nn, optim, save, tensor
from tinynet.data import DataLoader, TensorDataset
from tinynet.datasets import moons
from tinynet.train import EarlyStopping, checkpoints

ROOT = Path(__file__).resolve().parents[2]
FORMATS = (".npz", ".safetensors") if importlib.util.find_spec("safetensors") else (".npz",)


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    return tmp_path / f"run{request.param}"


def equal(a, b):
    """The same settings and arrays, of the same kinds, dtypes and shapes; nan equals nan."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
                and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


# --------------------------------------------------------------------------------------------------- there and back

ARRAYS = {f"{code} {shape}": np.random.default_rng(0).normal(0, 50, shape).astype(code)
          for code in ("?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
          for shape in ((), (3,), (2, 3), (0, 4))}
STATE = {
    "arrays": ARRAYS, "epoch": 3, "share": 0.1, "odd": [float("inf"), float("nan"), -0.0, 2**200, "Grüße\0\n", None],
    "state": {0: {"step": 1, "tuple": (1, (2.5, [])), "array": np.arange(3)}, 1: {}, "1": True}, "": {},
}


def test_any_state_comes_back_as_it_was(path):
    save(STATE, path)
    assert equal(load(path), STATE)
    assert np.signbit(load(path)["odd"][2])


def test_any_array_comes_back_whatever_its_layout(path):
    base = np.arange(24.0).reshape(2, 3, 4)
    state = {"transposed": base.T, "reversed": base[::-1, :, ::-2], "repeated": np.broadcast_to(base[0], (5, 3, 4)),
             "from afar": base.astype(">f4"), "fortran": np.asfortranarray(base)}
    save(state, path)
    back = load(path)
    for name, array in state.items():
        assert np.array_equal(back[name], array) and back[name].dtype.isnative and back[name].flags.c_contiguous
        back[name][...] = 0  # they are the caller's


def test_a_plain_dict_of_arrays_is_a_plain_file_of_weights(path):
    model = nn.MLP(3, [4, 2])
    save(model, path)
    content = path.read_bytes()
    save(model.state_dict(), path)
    assert path.read_bytes() == content  # and no clock in it: the same state is the same file
    if path.suffix == ".npz":
        plain = dict(np.load(path))
    else:
        plain = pytest.importorskip("safetensors.numpy").load_file(path)
    assert set(plain) == set(model.state_dict())
    assert all(equal(plain[name], array) for name, array in model.state_dict().items())
    other = nn.MLP(3, [4, 2])
    assert load(path, other) == {}
    assert equal(other.state_dict(), model.state_dict())
    other.load_state_dict(load(path))


def test_plain_files_of_others_are_weights(tmp_path):
    weights = {"fc.weight": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), "steps": np.array(7)}
    np.savez(tmp_path / "a.npz", **weights)
    np.savez_compressed(tmp_path / "b.npz", **weights)
    np.savez(tmp_path / "f.npz", **{name: x.copy(order="F") for name, x in weights.items()})
    for name in "abf":
        assert equal(load(tmp_path / f"{name}.npz"), weights)
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(weights, tmp_path / "c.safetensors", metadata={"format": "pt", "note": "x"})
    assert all(equal(load(tmp_path / "c.safetensors")[name], array) for name, array in weights.items())


def test_weights_travel_both_ways_with_pytorch(tmp_path):
    torch, files = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    theirs, ours = torch.nn.Linear(5, 4), nn.Linear(5, 4)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)

    def agree():
        return np.abs(theirs(torch.from_numpy(x)).detach().numpy() - ours(tensor(x)).detach().numpy()).max() < 1e-6

    files.save_model(theirs, tmp_path / "theirs.safetensors")
    load(tmp_path / "theirs.safetensors", ours)
    assert agree()
    for name in ("weights.safetensors", "weights.npz"):
        ours = nn.Linear(5, 4)
        assert not agree()
        save(ours, tmp_path / name)
        state = (files.load_file(tmp_path / name) if name.endswith("s")
                 else {key: torch.from_numpy(a) for key, a in np.load(tmp_path / name).items()})
        theirs.load_state_dict(state)
        assert agree()
        ours = nn.Linear(5, 4)
        save(theirs.state_dict(), tmp_path / name)  # PyTorch's tensors are arrays too
        load(tmp_path / name, ours)
        assert agree()
    half = {"a": torch.randn(3, 5).to(torch.bfloat16), "b": torch.randn(7).half()}
    files.save_file(half, tmp_path / "half.safetensors")
    back = load(tmp_path / "half.safetensors")
    assert np.array_equal(back["a"], half["a"].float().numpy()) and np.array_equal(back["b"], half["b"].numpy())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_the_state_of_pytorchs_optimisers_is_taken_over(name, tmp_path):
    torch = pytest.importorskip("torch")
    options = {"lr": 0.02} | ({"momentum": 0.5} if name in ("SGD", "RMSprop") else {})
    start = np.linspace(-1, 1, 6).reshape(2, 3)
    theirs, ours = torch.tensor(start, requires_grad=True), tensor(start, requires_grad=True)
    their_optimizer = getattr(torch.optim, name)([theirs], **options)
    our_optimizer = getattr(optim, name)([ours])

    def step(p, optimizer):
        optimizer.zero_grad()
        (p ** 4).sum().backward()
        optimizer.step()

    for _ in range(3):
        step(theirs, their_optimizer)
    save({"p": theirs, "optimizer": their_optimizer}, tmp_path / "run.npz")
    ours.data = load(tmp_path / "run.npz", {"optimizer": our_optimizer})["p"]
    for _ in range(5):
        step(theirs, their_optimizer)
        step(ours, our_optimizer)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("call, error, sentence", [
    (lambda p: save({}, p / "a.pt"), ValueError, r"save: expected a path that ends in .npz or .safetensors"),
    (lambda p: load(p / "a"), ValueError, "load: expected a path that ends in"),
    (lambda p: save(p / "a.npz", {}), TypeError, "save: expected path to be a file name, got {}"),
    (lambda p: save("a.npz", p / "b.npz"), TypeError, r"expected save\(state, path\), got the path 'a.npz' first"),
    (lambda p: save([1], p / "a.npz"), TypeError, "expected a dict, or something with a state_dict"),
    (lambda p: save({"a": {"b": [len]}}, p / "a.npz"), TypeError, r"save: a.b.0 is a builtin_function_or_method"),
    (lambda p: save({"a": np.array(["x"])}, p / "a.npz"), TypeError, "save: a is an array of <U1"),
    (lambda p: save({"a": np.array([Value(1.0)])}, p / "a.npz"), TypeError, "save: a is an array of object"),
    (lambda p: save({"a": np.array([1j])}, p / "a.npz"), TypeError, "save: a is an array of complex128"),
    (lambda p: save({"a": {(1, 2): 3}}, p / "a.npz"), TypeError, r"save: a has the key \(1, 2\)"),
    (lambda p: save({"a.b": np.ones(1), "a": {"b": np.ones(1)}}, p / "a.npz"), ValueError, "two arrays 'a.b'"),
    (lambda p: save({"__metadata__": np.ones(1)}, p / "a.npz"), ValueError, "cannot be an array '__metadata__'"),
    (lambda p: save({}, p / "no" / "a.npz"), OSError, "No such file"),
    (lambda p: load(p / "a.npz"), OSError, "No such file"),
])
def test_what_cannot_be_saved_is_named(tmp_path, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "folder" / "real.npz")
    save({"a": np.ones(3)}, tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink() and equal(load(tmp_path / "folder" / "real.npz"), {"a": np.ones(3)})
    (tmp_path / "plain").write_bytes(b"")
    assert os.stat(tmp_path / "plain").st_mode == os.stat(tmp_path / "folder" / "real.npz").st_mode


# ----------------------------------------------------------------------------------- an interrupted run that is resumed

class Net(nn.Module):
    def __init__(self):
        self.fc1, self.norm, self.drop, self.fc2 = nn.Linear(2, 6), nn.LayerNorm(6), nn.Dropout(0.3), nn.Linear(6, 2)

    def forward(self, x):
        return self.fc2(self.drop(nn.functional.relu(self.norm(self.fc1(x)))))


OPTIMIZERS = {
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "plain": lambda p: optim.SGD(p, lr=0.05),
    "Adam": lambda p: optim.Adam(p, lr=0.05),
    "AdamW": lambda p: optim.AdamW(p, lr=0.05),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


class Run:
    """Training with all that has a state: shuffled batches, dropout, an optimiser with momentum, a schedule."""

    def __init__(self, engine="tensor", captured=False, optimizer="Adam", seed=1, schedule=None, samples=22):
        manual_seed(seed)
        self.model = Net().to(engine)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.schedule = schedule(self.optimizer) if schedule else optim.StepLR(self.optimizer, 2, 0.5)
        X, y = moons(samples)
        self.loaders = [DataLoader(TensorDataset(X, y), 8, shuffle=True, seed=s) for s in (seed + 1, None)]
        self.step = tinynet.capture(self.one) if captured else self.one
        self.losses = []

    def one(self, x, y):
        loss = nn.functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def epochs(self, n):
        for _ in range(n):
            for loader in self.loaders:  # one with a seed of its own, one that draws from the common stream
                self.losses += [float(self.step(x, y)) for x, y in loader]
            self.schedule.step()
        return self

    @property
    def parts(self):
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule,
                "loader": self.loaders[0], "random": Generator}

    @property
    def state(self):
        return copy.deepcopy({name: part.state_dict() for name, part in self.parts.items()})


CASES = [(engine, captured, optimizer) for engine, captured in (("tensor", False), ("tensor", True))
         for optimizer in OPTIMIZERS] + [("scalar", False, "Adam"), ("scalar", False, "momentum")]


@pytest.mark.parametrize("suffix, engine, captured, optimizer", [
    (FORMATS[i % len(FORMATS)], *case) for i, case in enumerate(CASES)])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, suffix, engine, captured, optimizer):
    path, samples = tmp_path / f"run{suffix}", 9 if engine == "scalar" else 22
    whole = Run(engine, captured, optimizer, samples=samples).epochs(3)
    middle = len(whole.losses)
    save({**whole.parts, "epoch": 3}, path)
    whole.epochs(2)
    again = Run(engine, captured, optimizer, seed=99, samples=samples)
    assert not equal(again.state, whole.state)
    assert load(path, again.parts) == {"epoch": 3}
    again.epochs(2)
    assert again.losses == whole.losses[middle:] and equal(again.state, whole.state)


def test_a_step_that_is_captured_already_goes_on_from_what_was_loaded(path):
    """The plan holds the arrays of the optimiser's state: other arrays need another plan."""
    whole = Run(captured=True).epochs(2)
    save(whole.parts, path)
    whole.epochs(2)
    again = Run(captured=True, seed=99).epochs(3)
    load(path, again.parts)
    again.epochs(2)
    assert equal(again.state, whole.state)


def test_either_engine_takes_up_the_weights_of_the_other(path):
    run = Run().epochs(1)
    save(run.model, path)
    scalar = Net().to("scalar")
    load(path, scalar)
    assert all(np.array_equal(x, run.model.state_dict()[name]) for name, x in scalar.state_dict().items())
    save(scalar, path)
    other = Net()
    load(path, other)
    assert equal(other.state_dict(), run.model.state_dict())


def fitted(checkpoint=None, epochs=6, captured=True, **options):
    manual_seed(3)
    X, y = moons(70, noise=0.3)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    loader = DataLoader(TensorDataset(X[:50], y[:50]), 16, shuffle=True, seed=4)
    history = fit(model, loader, nn.CrossEntropyLoss(), optimizer, epochs, capture=captured, progress=False,
                  validation=DataLoader(TensorDataset(X[50:], y[50:]), 20), checkpoint=checkpoint,
                  scheduler=optim.CosineAnnealingLR(optimizer, 6), **options)
    history.values.pop("seconds")
    return history, model.state_dict()


@pytest.mark.parametrize("captured", [True, False])
def test_fit_goes_on_from_its_checkpoint(path, captured):
    whole, weights = fitted(captured=captured)
    for epochs in (2, 3, 6, 6):  # the last one finds all done
        again, others = fitted(path, epochs, captured)
    assert equal(vars(again), vars(whole)) and equal(others, weights)


def test_fit_that_was_stopped_stays_stopped_and_has_its_best_weights(path):
    whole, weights = fitted(epochs=40, callbacks=EarlyStopping(3))
    assert whole.stopped and len(whole) < 40
    fitted(path, 4, callbacks=EarlyStopping(3))
    for _ in range(2):
        again, others = fitted(path, 40, callbacks=EarlyStopping(3))
        assert equal(vars(again), vars(whole)) and equal(others, weights)


def test_fit_goes_on_while_it_is_filmed(path):
    for epochs in (1, 3):  # the film itself is not part of the checkpoint
        manual_seed(0)
        model, X, y = nn.Linear(2, 2), *moons(20)
        history = fit(model, [(X, y)], nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), epochs,
                      progress=False, checkpoint=path, callbacks=Recorder(model, X, y))
    assert len(history) == 3 and len(history.recorder.frames) == 2


def test_fit_says_which_part_its_checkpoint_lacks(path):
    manual_seed(0)
    model, X, y = nn.Linear(2, 2), *moons(20)
    arguments = model, [(X, y)], nn.CrossEntropyLoss(), optim.SGD(model.parameters())
    fit(*arguments, progress=False, checkpoint=path)
    with pytest.raises(ValueError, match="has no part 'scheduler'"):
        fit(*arguments, progress=False, checkpoint=path, scheduler=optim.StepLR(arguments[-1], 2))
    with pytest.raises(ValueError, match="has measured no 'val_loss'"):
        fit(*arguments, progress=False, checkpoint=path, validation=[(X, y)])


# ------------------------------------------------------------------------------------------------------ errors

@pytest.fixture(scope="module", params=FORMATS)
def checkpoint(request, tmp_path_factory):
    """A run, the bytes of its checkpoint, and where to put others."""
    path = tmp_path_factory.mktemp("run") / f"run{request.param}"
    run = Run().epochs(1)
    save({**run.parts, "epoch": 1}, path)
    return run, path.read_bytes(), path


def unchanged(run, before):
    return equal(run.state, before)


def test_a_truncated_file_raises(checkpoint):
    run, content, path = checkpoint
    before = run.state
    for length in (*range(30), *range(30, len(content), 61)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"^load: {path} ") as caught:
            load(path, run.parts)
        assert length < 4 or "truncated" in str(caught.value)
    assert unchanged(run, before)


@pytest.mark.slow
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, checkpoint):
    run, _, path = checkpoint
    path = tmp_path / path.name
    save({"model": run.model.state_dict(), "epoch": 1, "rates": [0.5, {"lr": 1e-3}]}, path)
    content = path.read_bytes()
    before, whole = run.state, load(path)
    chance = random.Random(0)
    raised = 0
    for place in range(len(content)):
        flipped = content[place] ^ (1 << chance.randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1:])
        try:
            got = load(path)
        except ValueError as error:
            assert str(error).startswith(f"load: {path} ") and "\n" not in str(error)
            raised += 1
        else:  # a bit that means nothing, such as the hour in a zip archive
            assert equal(got, whole), place
    assert raised > 0.6 * len(content)
    assert unchanged(run, before)


def test_a_flipped_bit_in_the_numbers_names_the_array_and_changes_nothing(checkpoint):
    run, content, path = checkpoint
    before = run.state
    for name, array in [*((f"model.{name}", run.model.state_dict()[name]) for name in ("fc1.weight", "norm.bias")),
                        ("optimizer.state.0.exp_avg", run.optimizer.state_dict()["state"][0]["exp_avg"])]:
        place = content.index(array.tobytes())
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        with pytest.raises(ValueError, match=f"is damaged.* the array '{name}'"):
            load(path, run.parts)
    assert unchanged(run, before)


class Other(Net):
    def __init__(self, change):
        super().__init__()
        change(self)


@pytest.mark.parametrize("change, sentence", [
    (lambda m: setattr(m, "fc1", nn.Linear(3, 6)), r"'model': load_state_dict: fc1.weight has shape \(6, 2\), expected "
                                                   r"\(6, 3\)"),
    (lambda m: setattr(m, "fc3", nn.Linear(3, 6)), r"'model': load_state_dict: Other lacks 'fc3.weight', 'fc3.bias'"),
    (lambda m: delattr(m, "norm"), r"'model': load_state_dict: Other does not have 'norm.weight', 'norm.bias'"),
])
def test_the_wrong_model_raises_and_nothing_changes(path, change, sentence):
    save(Run().epochs(1).parts, path)
    run = Run(seed=5)
    run.model = Other(change)
    before = run.state
    parts = run.parts
    for names in (list(parts), list(parts)[::-1]):  # whatever comes first
        with pytest.raises(ValueError, match=f"load: {path}, {sentence}"):
            load(path, {name: parts[name] for name in names})
        assert unchanged(run, before)


def test_the_wrong_optimiser_schedule_and_parts_raise_and_nothing_changes(path):
    save(Run().epochs(1).parts, path)
    for run, sentence in ((Run(optimizer="RMSprop"), "'optimizer': RMSprop.load_state_dict: unknown setting 'betas'"),
                          (Run(optimizer="plain"), "'optimizer': SGD.load_state_dict: unknown setting 'betas'"),
                          (Run(engine="scalar"), r"expected groups of \[44\] parameters, got \[6\]"),
                          (Run(schedule=lambda o: optim.CosineAnnealingLR(o, 9)),
                           "'schedule': CosineAnnealingLR.load_state_dict: expected .*T_max")):
        before = run.state
        with pytest.raises(ValueError, match=f"load: {path}, .*{sentence}"):
            load(path, run.parts)
        assert unchanged(run, before)
    run = Run()
    before = run.state
    run.optimizer.add = None
    with pytest.raises(ValueError, match="has no part 'models'; it has 'model', 'optimizer', 'schedule'"):
        load(path, {**run.parts, "models": run.model})
    with pytest.raises(TypeError, match="load: expected an object with load_state_dict for 'model', got {}"):
        load(path, {"optimizer": run.optimizer, "model": {}})
    with pytest.raises(ValueError, match="the file: load_state_dict: Net lacks 'fc1.weight'"):
        load(path, run.model)
    with pytest.raises(ValueError, match="'loader': DataLoader.load_state_dict: expected the state of a loader "
                                         "without a seed"):
        load(path, {**run.parts, "loader": run.loaders[1]})
    assert unchanged(run, before)


@pytest.mark.parametrize("change, sentence", [
    (lambda s: s["optimizer"]["state"][0].pop("exp_avg"), "parameter 0 has no exp_avg"),
    (lambda s: s["optimizer"]["state"][1].update(exp_avg=np.ones(5)),
     r"exp_avg of parameter 1 has shape \(5,\), expected \(6,\)"),
    (lambda s: s["optimizer"]["state"][1].update(exp_avg="x"), "exp_avg of parameter 1 is not an array of numbers"),
    (lambda s: s["optimizer"]["state"][1].update(step=-1),
     "expected step of parameter 1 to be a non-negative number, got -1"),
    (lambda s: s["optimizer"]["state"][1].update(step=float("nan")),
     "expected step of parameter 1 to be a non-negative number, got nan"),
    (lambda s: s["optimizer"]["param_groups"][0].update(lr=-1.0), "expected lr to be a non-negative number, got -1"),
    (lambda s: s["optimizer"]["param_groups"][0].update(betas=[0.9, 2.0]), "expected betas to be two numbers"),
    (lambda s: s["optimizer"]["param_groups"][0].update(amsgrad=True), "unknown setting 'amsgrad'"),
    (lambda s: s.update(optimizer={"param_groups": 3, "state": {}}), "expected the state_dict of an optimizer"),
    (lambda s: s.update(optimizer=5), "'optimizer': expected a state, got int"),
    (lambda s: s["schedule"].update(last_epoch="x"), "expected last_epoch to be a non-negative integer, got 'x'"),
    (lambda s: s["schedule"].pop("gamma"), "StepLR.load_state_dict: expected .*gamma"),
    (lambda s: s["random"].pop("state"), "expected the state of a stream of random numbers"),
    (lambda s: s["random"].update(state={"state": -1, "inc": 2**300}), "expected the state of a stream"),
    (lambda s: s.update(random={"bit_generator": "MT19937"}), "expected the state of a stream"),
    (lambda s: s["loader"]["random"].update(bit_generator=3), "DataLoader.load_state_dict: expected the state of a st"),
    (lambda s: s["model"].update({"fc1.bias": "x"}), "expected fc1.bias to be an array of numbers"),
])
def test_a_state_that_makes_no_sense_raises_and_nothing_changes(path, change, sentence):
    state = Run().epochs(1).state
    change(state)
    save(state, path)
    run = Run(seed=5).epochs(1)
    before = run.state
    with pytest.raises(ValueError, match=sentence):
        load(path, run.parts)
    assert unchanged(run, before)


def test_a_file_of_a_later_version_raises(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    save({"epoch": 1}, path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="it has version 2 of the format, this tinynet reads version 1"):
        load(path)


# ------------------------------------------------------------------------------------------------ killed while saving

SAVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from tinynet.train import checkpoints
path = sys.argv[2]

def state(i):
    return {"number": i, **{f"array {k}": np.full(50_000, i, np.int64) for k in range(4)}}

number = 0
for line in sys.stdin:                 # one child for each line; it is killed while it saves
    number += 1000
    stage = int(line)
    child = os.fork()
    if not child:
        if stage:                      # at a certain call into the system
            left = stage
            def dying(function):
                def call(*args):
                    global left
                    left -= 1
                    if not left:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*args)
                return call
            for name in ("fsync", "replace", "unlink", "close", "fstat"):
                setattr(os, name, dying(getattr(os, name)))
        for i in range(1 if stage else 999):
            checkpoints.save(state(number + i), path)
        os._exit(0)
    print(child, flush=True)
    if stage:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        sys.stdin.readline()
        os.waitpid(child, 0)
        print("dead", flush=True)
"""


class Saver:
    def __init__(self, path):
        self.process = subprocess.Popen([sys.executable, "-c", SAVER, str(ROOT), str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def says(self, line=None):
        if line is not None:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait(30)


def number_in(path):
    """The number in a checkpoint, which is the same in all its parts."""
    state = load(path)
    number = state.pop("number")
    assert len(state) == 4 and all((array == number).all() and len(array) == 50_000 for array in state.values())
    return number


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(path):
    chance, seen, partial, tries = random.Random(0), set(), 0, 0
    with Saver(path) as saver:
        while tries < 150 or len(seen) <= 30 or partial <= 30:  # until both happened often: saved, and killed halfway
            tries += 1
            assert tries < 1500
            child = int(saver.says(0))
            select.select([], [], [], chance.uniform(0, 0.02 + tries / 10_000))  # a slow machine is given more
            os.kill(child, signal.SIGKILL)
            assert saver.says("go on") == "dead"
            left = list(path.parent.glob("*.part"))
            partial += bool(left)
            for file in left:
                file.unlink()
            if path.exists():
                number = number_in(path)
                assert not seen or number >= max(seen)
                seen.add(number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_each_stage_leaves_the_former_or_the_new_file(path):
    save({"number": 0, **{f"array {k}": np.zeros(50_000, np.int64) for k in range(4)}}, path)
    numbers, codes = [], []
    with Saver(path) as saver:
        for stage in range(1, 7):
            saver.says(stage)
            codes.append(int(saver.says()))
            numbers.append(number_in(path))
    # killed at the fsync of the file, at the replacement, at the fsync of the folder, at its close; then not at all
    assert codes == [-9, -9, -9, -9, 0, 0] and numbers == [0, 0, 3000, 4000, 5000, 6000]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_what_fails_leaves_the_former_file_and_nothing_beside_it(path, monkeypatch, failing):
    save({"a": np.ones(3)}, path)

    def fails(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(OSError, match="No space left"):
        save({"a": np.zeros(3)}, path)
    monkeypatch.undo()
    assert equal(load(path), {"a": np.ones(3)}) and list(path.parent.iterdir()) == [path]


# -------------------------------------------------------------------------------------------------------- hostile files

def npy(shape, content=b"", descr="<f4", header=None, version=1):
    header = header if header is not None else f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header.encode() + content


def archive(method=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return file.getvalue()


def tensors(header, content=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def entry(shape, end, dtype="F32", begin=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def ours(metadata, **arrays):
    text = json.dumps(metadata)
    return tensors({"__metadata__": {"tinynet": text, "tinynet.checksum": str(zlib.crc32(text.encode()))}, **arrays})


def overlapping():
    """A zip archive that lists one large member many times."""
    content = archive(**{"a.npy": npy((250_000,), bytes(1_000_000))})
    start, = struct.unpack_from("<I", content, len(content) - 6)
    directory = content[start:-22]
    return content[:start] + directory * 300 + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 300, 300, len(directory) * 300,
                                                           start, 0)


def pretending(content, size):
    """A zip archive that claims another size of its first member."""
    start, = struct.unpack_from("<I", content, len(content) - 6)
    return content[:start + 24] + struct.pack("<I", size) + content[start + 28:]


DEFLATED = zipfile.ZIP_DEFLATED
HOSTILE = {
    "empty.npz": b"",
    "text.npz": b"no zip archive at all" * 10,
    "nothing but an end.npz": b"PK\5\6" + b"\xff" * 18,
    "claims 4 TB.npz": archive(**{"a.npy": npy((1 << 40,), bytes(100))}),
    "claims 2^100 numbers.npz": archive(**{"a.npy": npy((1 << 50, 1 << 50), bytes(100))}),
    "claims none of 2^60.npz": archive(**{"a.npy": npy((0, 1 << 60, 1 << 60))}),
    "negative.npz": archive(**{"a.npy": npy((-4, -5), bytes(80))}),
    "a shape of truths.npz": archive(**{"a.npy": npy((True,), bytes(4))}),
    "a shape of 100 axes.npz": archive(**{"a.npy": npy((1,) * 100, bytes(4))}),
    "too short.npz": archive(**{"a.npy": npy((10,), bytes(39))}),
    "too long.npz": archive(**{"a.npy": npy((10,), bytes(41))}),
    "objects.npz": archive(**{"a.npy": npy((1,), b"cos\nsystem\n(S'echo'\ntR.", "|O")}),
    "text inside.npz": archive(**{"a.npy": npy((1,), bytes(4), "<U1")}),
    "records.npz": archive(**{"a.npy": npy((1,), bytes(4), [("x", "<f4")])}),
    "no array.npz": archive(**{"a.npy": b"hello"}),
    "no npy.npz": archive(readme=b"hello"),
    "an empty array.npz": archive(**{"a.npy": b""}),
    "header broken off.npz": archive(**{"a.npy": npy((3,), bytes(12))[:30]}),
    "header of code.npz": archive(**{"a.npy": npy((), header="__import__('os').system('x')")}),
    "header of brackets.npz": archive(**{"a.npy": npy((), header="(" * 9000)}),
    "header too long.npz": archive(**{"a.npy": npy((), header="{" + " " * 60_000 + "}")}),
    "version 9.npz": archive(**{"a.npy": npy((1,), bytes(4), version=9)}),
    "twice.npz": archive(**{"a.npy": npy((1,), bytes(4)), "a": b"1234"}),
    "overlapping.npz": overlapping(),
    "a bomb.npz": archive(DEFLATED, **{"a.npy": npy((16 << 20,), bytes(64 << 20))}),
    "a bomb that claims little.npz": pretending(archive(DEFLATED, **{"a.npy": npy((16 << 20,), bytes(64 << 20))}), 200),
    "many bombs.npz": archive(DEFLATED, **{f"{i}.npy": npy((1 << 18,), bytes(1 << 20)) for i in range(40)}),
    "a little that claims much.npz": pretending(archive(**{"a.npy": npy((1 << 28,), bytes(80))}), 1 << 30),
    "packed by lzma.npz": archive(zipfile.ZIP_LZMA, **{"a.npy": npy((16 << 20,), bytes(64 << 20))}),
    "a bomb of words.npz": archive(DEFLATED, **{"tinynet.json": b" " * (64 << 20)}),
    "words of brackets.npz": archive(**{"tinynet.json": b"[" * 100_000}),
    "words of no sense.npz": archive(**{"tinynet.json": b'{"version": 1, "state": {"dict": [[[], 1]]}}'}),
    "words of another kind.npz": archive(**{"tinynet.json": b'{"version": 1, "state": {"list": 5}}'}),
    "words without a dict.npz": archive(**{"tinynet.json": b'{"version": 1, "state": 5}'}),
    "words about nothing.npz": archive(**{"tinynet.json": b'{"version": 1, "state": {"dict": [["a", {"array": "b"}]]}}'
                                          }),
    "arrays without words.npz": archive(**{"a.npy": npy((1,), bytes(4)),
                                           "tinynet.json": b'{"version": 1, "state": {"dict": []}}'}),
    "empty.safetensors": b"",
    "short.safetensors": b"\1\0\0",
    "no header.safetensors": bytes(8),
    "claims 2^64.safetensors": tensors({}, length=2**64 - 1),
    "header broken off.safetensors": tensors(b'{"a": {"dty'),
    "header of brackets.safetensors": tensors(b"[" * 100_000),
    "header of bytes.safetensors": tensors(b"\xff\xfe" * 50),
    "a list.safetensors": tensors([1, 2]),
    "metadata of another kind.safetensors": tensors({"__metadata__": 5}),
    "claims 4 TB.safetensors": tensors({"a": entry([1 << 40], 4 << 40)}, bytes(100)),
    "claims 2^100.safetensors": tensors({"a": entry([1 << 50, 1 << 50], 4 << 100)}, bytes(100)),
    "claims none of 2^60.safetensors": tensors({"a": entry([0, 1 << 60, 1 << 60], 0)}),
    "negative.safetensors": tensors({"a": entry([-4, -5], 80)}, bytes(80)),
    "begins before.safetensors": tensors({"a": entry([3], 8, begin=-4)}, bytes(12)),
    "fractions.safetensors": tensors({"a": entry([2.0], 8)}, bytes(8)),
    "truths.safetensors": tensors({"a": entry([True], 4)}, bytes(4)),
    "unequal.safetensors": tensors({"a": entry([3], 8)}, bytes(8)),
    "too short.safetensors": tensors({"a": entry([10], 40)}, bytes(39)),
    "too long.safetensors": tensors({"a": entry([10], 40)}, bytes(41)),
    "overlapping.safetensors": tensors({f"{i}": entry([250_000], 1_000_000) for i in range(300)}, bytes(1_000_000)),
    "a gap.safetensors": tensors({"a": entry([1], 8, begin=4)}, bytes(8)),
    "unknown dtype.safetensors": tensors({"a": entry([4], 4, "F8_E4M3")}, bytes(4)),
    "dtype of another kind.safetensors": tensors({"a": entry([4], 4, [])}, bytes(4)),
    "no dtype.safetensors": tensors({"a": {"shape": [], "data_offsets": [0, 0]}}),
    "three offsets.safetensors": tensors({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0, 0]}}),
    "no entry.safetensors": tensors({"a": None}),
    "no sense.safetensors": ours(5),
    "checksums of no sense.safetensors": ours({"checksums": 5, "text": None}),
    "text of another kind.safetensors": ours({"checksums": {}, "text": 5}),
    "a missing array.safetensors": ours({"checksums": {"a": 1}, "text": None}),
    "another array.safetensors": ours({"checksums": {}, "text": None}, a=entry([0], 0)),
}


def test_the_format_of_metadata_is_fixed(tmp_path):
    """Files of version 0.1, which wrote safetensors without the package."""
    pytest.importorskip("safetensors")
    array = np.arange(3, dtype="<f4")
    text = json.dumps({"version": 1, "state": {"dict": [["a", {"array": "a"}], ["epoch", {"tuple": [3]}]]}})
    content = ours({"checksums": {"a": checkpoints.checksum(array)}, "text": text}, a=entry([3], 12)) + array.tobytes()
    (tmp_path / "run.safetensors").write_bytes(content)
    assert equal(load(tmp_path / "run.safetensors"), {"a": array, "epoch": (3,)})


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    (tmp_path / "a.safetensors").write_bytes(b"")
    for call in (lambda path: save({}, path), load):
        with pytest.raises(ImportError, match=r"pip install tinynet\[safetensors\]"):
            call(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith(FORMATS)])
def test_hostile_files_raise_without_taking_memory(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"load: {path} ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300
    assert peak < (4 << 20) + 40 * len(HOSTILE[name])
