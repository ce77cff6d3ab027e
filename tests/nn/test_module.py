"""nn.Module: which layer an error comes from, containers, buffers, and loading of states."""

import traceback

import numpy as np
import pytest

import tinynet
from tinynet import nn


class Broken(nn.Module):
    """A layer of a user's that fails by itself."""

    def forward(self, x):
        return {"weight": x}["bias"]


@pytest.mark.parametrize("model, x, note", [
    (lambda: nn.MLP(784, [128, 10]), tinynet.zeros(2, 100), "in layers.0 (Linear(784 -> 128))"),
    (lambda: nn.Sequential(nn.Sequential(nn.ReLU(), nn.LayerNorm(4))), tinynet.zeros(2, 3),
     "in 0.1 (LayerNorm((4,), eps=1e-05))"),
    (lambda: nn.Linear(3, 2).double(), tinynet.zeros(2, 3), "in Linear(3 -> 2)"),
    (lambda: nn.Sequential(Broken()), tinynet.zeros(1), "in 0 (Broken)"),
    (lambda: nn.Sequential(nn.Conv2d(1, 4, 5)), tinynet.zeros(1, 1, 3, 3), "in 0 (Conv2d(1 -> 4))"),
    (lambda: nn.GPT(3, 1, 1, 4, 2), [[5]], "in token (Embedding(3, 4))"),
])
def test_an_error_has_one_note_with_the_path_of_the_innermost_layer(model, x, note):
    with pytest.raises((TypeError, ValueError, IndexError, KeyError)) as caught:
        model()(x)
    note = note.replace("Linear(784", "Perceptron(784")
    assert caught.value.__notes__ == [note] and caught.value.__cause__ is None
    innermost = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert innermost.name != "__call__"


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.Linear(3, 2)([[1, 2, "a"]]), TypeError,
     r"Linear\(3 -> 2\): expected numbers as input, got \[\[1, 2, 'a'\]\]"),
    (lambda: nn.Linear(3, 2)(1.5), ValueError, "input is .*, expected 3"),
    (lambda: nn.Linear(3, 2)([[1, 2, None]]), TypeError, "expected numbers as input"),
    (lambda: nn.Linear(3, 2, bias="no"), TypeError, "Linear: expected bias to be True or False, got 'no'"),
    (lambda: nn.LayerNorm(2.5), TypeError, "LayerNorm: expected normalized_shape to be a positive integer, got 2.5"),
    (lambda: nn.Dropout("half"), TypeError, "Dropout: expected p to be a probability below 1, got 'half'"),
    (lambda: nn.Dropout(1.0), ValueError, "Dropout: expected p to be a probability below 1, got 1.0"),
    (lambda: nn.MLP(2, 3), ValueError, "MLP: expected a list of layer sizes, got 3"),
    (lambda: nn.TransformerEncoderLayer(0, 2), ValueError,
     "TransformerEncoderLayer: expected d_model to be a positive integer, got 0"),
    (lambda: nn.Flatten()(tinynet.zeros(3)), IndexError, r"Flatten: axis 1 does not exist in shape \(3,\)"),
    (lambda: nn.Sequential(3), TypeError, "Sequential: expected an unused name and a Module, got '0' and 3"),
    (lambda: nn.ModuleDict({"forward": nn.ReLU()}), TypeError, "ModuleDict: expected an unused name"),
    (lambda: nn.ModuleList([nn.ReLU()])(3), TypeError, "ModuleList: a list of modules cannot be called"),
    (lambda: nn.Linear(3, 2).train("yes"), TypeError, "train: expected mode to be True or False"),
    (lambda: nn.Linear(3, 2).load_state_dict(3), TypeError, "load_state_dict: expected a dict of arrays, got 3"),
    (lambda: nn.Linear(3, 2).load_state_dict({"weight": np.zeros((2, 3)), "bias": "ab"}), TypeError,
     "load_state_dict: expected bias to be an array of numbers, got 'ab'"),
    (lambda: nn.Linear(3, 2).load_state_dict({"weigth": np.zeros((2, 3))}), ValueError,
     "load_state_dict: Linear lacks 'weight', 'bias' and does not have 'weigth'"),
    (lambda: nn.GPT(3, 1, 1, 4, 2).generate([1], -1), ValueError, "generate: expected max_new_tokens to be a non-neg"),
    (lambda: nn.GPT(3, 1, 1, 4, 2).generate([1], 1, top_k=4), ValueError, "expected top_k .* at most 3, got 4"),
    (lambda: nn.MultiheadAttention(4, 2)(*[tinynet.zeros(3, 1, 4)] * 3, attn_mask=np.zeros((3, 2))), ValueError,
     r"MultiheadAttention\(4, heads=2\): attn_mask has shape \(3, 2\), float64, expected \(3, 3\) or \(2, 3, 3\)"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()


@pytest.mark.parametrize("container", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_containers_are_lists_of_modules(container):
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    modules = container(a, b).append(c)
    assert list(modules) == [a, b, c] and len(modules) == 3 and modules[-1] is c
    part = modules[1:]
    assert type(part) is type(modules) and list(part) == [b, c]
    assert list(modules.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_arrays_are_named_module_by_module_parameters_before_buffers():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    model[0].register_buffer("scratch", np.zeros(3), persistent=False)
    names = ["0.weight", "0.bias", "0.running_mean", "0.running_var", "0.num_batches_tracked", "1.weight", "1.bias"]
    assert list(model.state_dict()) == names
    assert [path for path, *_ in model.named_arrays()] == [name for name in names if name.endswith(("weight", "bias"))]


def test_a_state_that_does_not_fit_changes_nothing():
    model = nn.Linear(3, 2)
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"load_state_dict: bias has shape \(3,\), expected \(2,\)"):
        model.load_state_dict({"weight": np.zeros((2, 3)), "bias": np.zeros(3)})
    assert all(np.array_equal(before[name], x) for name, x in model.state_dict().items())


def test_parameters_are_frozen_on_either_engine():
    for engine in ("tensor", "scalar"):
        model = nn.Linear(2, 1).to(engine).requires_grad_(False)
        assert not any(p.requires_grad for p in model.parameters())
