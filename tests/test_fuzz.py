"""Malformed calls at everything public: each returns, or raises an error with a sentence.

`python -m tests.test_fuzz 100000` makes so many calls and lists the faults, each as an expression that
`python -m tests.test_fuzz "nn.Linear(3, 2)('abc')"` repeats. A call gives each parameter of a public name something
sensible or junk: wrong shapes and dtypes, nan, None, text, huge, negative and empty things, ragged lists, arrays of
objects, numbers of the other engine. It may

    return   without nan where all inputs were finite and within ±10⁴: losses, normalization, softmax and its kin,
             attention, optimizers, data preparation. (Elsewhere IEEE 754 says what comes out: log(-1) is nan.)
    raise    TypeError, ValueError, IndexError, KeyError or OSError with a message that is no traceback of Numba's,
             or NumPy's MemoryError with the shape that does not fit

and may not raise anything else, crash the process, compute for ten seconds, take 4 GB, or leave the thread in another
mode than before.
"""

import copy
import functools
import inspect
import operator  # noqa: F401 (in expressions)
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np

import tinynet
from tinynet import Tensor, Value, data, datasets, graph, nn, optim, train  # noqa: F401

CALLS = int(os.environ.get("FUZZ_CALLS", 10000))
CHUNK = 10000  # calls in one process
SECONDS = 10
ROOT = Path(__file__).parents[1]
ALLOWED = (TypeError, ValueError, IndexError, KeyError, OSError, MemoryError)
OF_NUMBA = re.compile("numba|nopython|no matching definition", re.IGNORECASE)
F = nn.functional


# ------------------------------------------------------------------------------------------------------ the arguments
# An argument is an expression, evaluated anew for each call: calls may write into what they are given.

def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def grad_tensor(*shape):
    return tinynet.tensor(normal(*shape), requires_grad=True)


def values(*shape):
    array = np.empty(shape, object)
    for index in np.ndindex(*shape):
        array[index] = Value(0.5)
    return array


def with_gradient(*shape):
    x = grad_tensor(*shape)
    (x * x).sum().backward()
    return x


def loader(**options):
    return data.DataLoader(data.TensorDataset(normal(6, 3), np.arange(6) % 2), batch_size=2, **options)


def rows_of(*dtypes):
    """A dataset of the user's, whose samples a DataLoader is to make batches of."""
    class Rows(data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return [normal(3).astype(dtype) for dtype in dtypes]

    return Rows()


def recorder():
    return tinynet.Recorder(nn.Linear(2, 1), normal(4, 2), np.arange(4) % 2)


def filmed():
    record = recorder()
    record(0.5)
    return tinynet.film(record)


def history():
    run = train.History()
    run.add({"loss": 0.5, "val_loss": 0.25, "accuracy": 0.75, "lr": 0.1, "seconds": 1.0})
    return run


def program():
    return tinynet.compile((u := Value(1.0)) * 2.0, inputs=[u])


def stepped(kind, **settings):
    """An optimizer that has a state."""
    optimizer = kind([with_gradient(2, 3)], lr=0.1, **settings)
    optimizer.step()
    return optimizer


def few(count):
    """Junk for a number of iterations: nothing huge, which is asked to take long."""
    return 2 if isinstance(count, (int, np.integer)) and count > 10 else count


def as_kind(shape, kind):
    """Numbers of a shape as an array of a dtype, a Tensor, a list, or Values; other kinds are junk, and returned."""
    if not isinstance(kind, str) or repr(kind) not in KINDS:
        return kind
    name, _, tensor = kind.partition("-")
    if name in ("values", "list"):
        return values(*shape) if name == "values" else normal(*shape).tolist()
    numbers = np.abs(normal(*shape)) if name in ("M8[D]", "uint8") else normal(*shape)
    array = numbers.astype(np.int64).astype(name) if name == "M8[D]" else numbers.astype(name)
    return tinynet.tensor(array) if tensor else array


def spoiled(state, number, fate, junk):
    """A state_dict in which one thing is not as it was."""
    entries = []

    def walk(x):
        for key, part in list(x.items() if isinstance(x, dict) else enumerate(x)):
            entries.append((x, key))
            if isinstance(part, (dict, list)):
                walk(part)

    state = copy.deepcopy(state)
    walk(state)
    if not entries or fate == 0:
        return state
    inside, key = entries[number % len(entries)]
    if fate == 1 and isinstance(inside, dict):
        del inside[key]
    elif fate == 2 and isinstance(inside, dict):
        inside["unheard of"] = junk
    else:
        inside[key] = junk
    return state


def split(text):
    return [part.strip() for part in text.split(";")]


JUNK = split("""
    None; True; ""; "abc"; "x" * 5000; "\\u202e\\0"; b"abc"; float("nan"); float("inf"); -float("inf"); 1e308; 2.5; -1;
    0; 1; 2; 7; -(2**63); 2**31; 2**63; 10**30; 10**400; 1 + 2j; []; [[]]; (); [1, [2]]; [[1.0, 2.0], [3.0]]; [None];
    ["a", "b"]; [float("nan"), 1.0]; {}; {"a": [1, 2]}; {"a": 1}; set(); object(); int; np.float32; "float16";
    slice(None); ...; range(3); lambda *a: None; iter([1, 2]); np.int64(3); np.float64(1.5); np.array([]);
    np.zeros((0, 3)); np.zeros((2, 0), np.float32); np.zeros((1,) * 40); np.array([None, 1], object);
    np.array(["a", "b"]); np.array([1 + 2j]); np.array([np.nan, np.inf]); np.array(["2020-01-01"], "M8[D]");
    np.zeros((2, 3), np.float16); np.arange(6, dtype=np.uint8).reshape(2, 3);
    np.broadcast_to(np.float32(1), (40000, 40000)); np.zeros(3, [("a", "f4")]); normal(2, 3, 4); normal(3); Value(1.0);
    Value(float("nan")); [Value(1.0), 2.0]; values(2, 3); values(0); tinynet.tensor(1.5);
    tinynet.tensor([float("nan"), 1.0]); tinynet.zeros(0); tinynet.zeros(2, 0); grad_tensor(2, 3);
    grad_tensor(2, 3) * 2.0; grad_tensor(3); tinynet.tensor(normal(2, 3, dtype=np.float64));
    tinynet.arange(6).reshape(2, 3); tinynet.tensor([True, False]); grad_tensor(1, 2, 5, 5); nn.Linear(3, 2);
    nn.Linear(3, 2).to("scalar"); nn.MSELoss(); optim.SGD([grad_tensor(2)]); loader(); np""")
ARRAYS = """grad_tensor(2, 3); tinynet.tensor(normal(2, 3)); normal(2, 3); values(2, 3); grad_tensor(3);
    [[1.0, -2.0, 0.5], [0.0, 3.0, 1e4]]; grad_tensor(2, 3, 4); tinynet.tensor(normal(4, 3, dtype=np.float64));
    grad_tensor(2, 3, 5, 5); grad_tensor()"""
INDICES = "[0, 1]; np.array([1, 0]); tinynet.tensor([0, 2]); np.array([[0, 1], [1, 0]]); 1; [5, 1]; [-1, 0]"
WHOLE, FRACTIONS, FLAGS = "1; 2; 3; 4; 0", "0.5; 0.1; 0; 1; 0.9", "True; False"
KINDS = [repr(kind) for kind in (
    "float32 float64 float16 int64 int8 uint8 bool complex64 U3 M8[D] object values list float32-tensor "
    "float64-tensor int64-tensor bool-tensor").split()]
LOOPS = {"epochs", "max_new_tokens", "layers", "num_layers", "frames"}  # numbers of iterations
SENSIBLE = {name: split(pool) for names, pool in (  # by the name of the parameter
    ("others", ARRAYS), ("indices labels tokens key", INDICES), ("target", f"{INDICES}; {ARRAYS}"),
    ("kind_0 kind_1 kind_2 kind_3 kind_4", "; ".join(KINDS)),
    ("shape size", "(2, 3); (3,); (); 3; (-1, 2); (2, 2**40)"), ("generator scheduler", "None"),
    ("dtype", 'np.float32; "float64"; np.int64'), ("reduction", '"sum"; "none"'), ("engine", '"scalar"; "tensor"'),
    ("params", '[grad_tensor(2, 3)]; [Value(1.0)]; [{"params": [grad_tensor(2)], "lr": 0.1}]'),
    ("model", 'nn.Linear(3, 2); nn.MLP(3, [4, 2]); nn.Linear(3, 1).to("scalar")'), ("module", "nn.Linear(3, 2)"),
    ("modules", "nn.Linear(3, 2); [nn.ReLU()]"), ("other", f"{ARRAYS}; 2; 0.5"), ("title", '"<b>run</b>"'),
    ("optimizer", "optim.SGD([grad_tensor(2)]); optim.Adam(nn.Linear(2, 1).parameters())"),
    ("loader", "loader(); [(normal(2, 3), np.array([0, 1]))]"), ("validation", "loader()"),
    ("dataset", 'data.TensorDataset(normal(4, 3), np.arange(4)); [(1.0, 2)] * 3; rows_of("f4", "i8"); rows_of("U3");'
                'rows_of("O"); data.next_tokens(np.arange(5), 2)'),
    ("parameters", "[with_gradient(2, 3), with_gradient(3)]; [Value(1.0)]; with_gradient(2)"),
    ("history", "recorder(); history()"), ("loss", "nn.CrossEntropyLoss(); Value(2.0) * 3.0; nn.MSELoss()"),
    ("table", '{"a": [1.0, 2.0, 3.0, 4.0], "b": ["x", "y", "x", "y"], "y": [0, 1, 1, 0]};'
              '{"a": [1.0, None, 3.0], "y": [1.0, 2.0, 3.0]}; {"a": [1.0], "y": [1.0, 2.0]}; {"y": []}'),
    ("target_column", '"y"; "b"'), ("path", '"file.npz"; "absent"; "."; "x.svg"; "x.html"; "no/x.html"'),
    ("text", '"hello"; "one-hot"; "drop"'), ("missing", '"mean"; "drop"'),
    ("task", '"regression"; "classification"'),
    ("activation", '"relu"; None; "gelu"'), ("function", "lambda x: x"), ("fn", "lambda x: (x * x).sum()"),
    ("step", "lambda x: x * 2.0; 1"), ("betas", "(0.9, 0.99)"), ("layer_sizes", "[3, 1]"),
    ("input_shape", "(2, 3)"), ("equation", '"ij,jk->ik"'), ("mirrors", "[]"), ("download", "False"),
    ("approximate", '"tanh"'), ("mode", '"min"'), ("monitor", '"loss"'), ("label name", '"x"'), ("callbacks", "()"),
    ("attn_mask", "np.ones((3, 3), bool); None"), ("normalized_shape", "3; (3,)"), ("metrics", "train.accuracy"),
    ("inputs", f"{ARRAYS}; [Value(1.0)]"), ("condition", "tinynet.tensor([[True], [False]])"),
    ("max_norm clip_value norm_type p dropout momentum lr eps weight_decay test_size gamma factor noise alpha "
     "dampening temperature min_delta eta_min layer_norm_eps", FRACTIONS),
    ("bias training batch_first shuffle drop_last nesterov centered causal is_causal keepdims keepdim progress capture "
     "need_weights norm_first create_graph bidirectional affine track_running_stats count_include_pad ceil_mode strict "
     "persistent error_if_nonfinite requires_grad", FLAGS),
    ("in_features out_features embed_dim num_heads n classes context batch_size epochs step_size T_max patience "
     "num_classes vocab layers heads width in_channels out_channels kernel_size stride padding hidden_size input_size "
     "num_layers d_model nhead max_len num_features max_new_tokens top_k turns num_embeddings embedding_dim groups "
     "dilation steps depth axis dim start_dim end_dim seed", WHOLE),
) for name in names.split()}


# ---------------------------------------------------------------------------------------------------------- the targets

class Target:
    """What is called: an expression, its parameters, and whether finite numbers must give finite numbers."""

    def __init__(self, expression, parameters=None, finite=None, owner=None):
        self.expression, self.owner = expression, owner
        self.parameters = parameters_of(evaluate(expression)) if parameters is None else parameters
        self.finite = bool(FINITE.search(expression)) if finite is None else finite


FINITE = re.compile("softmax|logsumexp|loss|Loss|entropy|norm|attention|Attention|life|Standard|DataFrame|one_hot"
                    "|sigmoid|tanh|relu|ReLU|gelu|GELU|GPT|Transformer|Linear|MLP|RNN|GRU|LSTM|Perceptron|Conv|pool|Pool")


@functools.cache
def compiled(expression):
    return compile(expression, "<call>", "eval")


def evaluate(expression):
    return eval(compiled(expression), globals())


def parameters_of(function):
    try:
        return [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return []


def positional(*names):
    return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]


def functions(module, names):
    for name in names.split() if isinstance(names, str) else names:
        thing = getattr(evaluate(module), name, None)
        if callable(thing) and (getattr(thing, "__module__", "") or "").startswith("tinynet"):
            yield Target(f"{module}.{name}", finite=module != "tinynet.Tensor" and bool(FINITE.search(name)))


def methods(owner, names):
    """A target for each of the methods that an object has."""
    thing = evaluate(owner)
    for name in names.split() if isinstance(names, str) else names:
        if callable(getattr(thing, name, None)):
            yield Target(f"{owner}.{name}", finite=bool(FINITE.search(name)), owner=owner)


def public(kind):
    """The public methods of a class, and its operators."""
    return [name for name in dir(kind) if callable(getattr(kind, name)) and (name[0] != "_" or name.strip("_") in (
        SPECIAL) and any(name in vars(base) for base in kind.__mro__ if base.__module__.startswith("tinynet")))]


SPECIAL = ("add radd sub rsub mul rmul truediv rtruediv pow rpow matmul rmatmul getitem setitem lt le gt ge eq ne neg "
           "abs len float int bool index iter iadd isub imul itruediv and or xor invert mod floordiv").split()
OPERATORS = "iadd isub imul itruediv ipow imatmul ifloordiv imod floordiv mod lshift contains".split()
LAYERS = split("""
    nn.Linear(3, 2); nn.Linear(3, 2).to("scalar"); nn.Perceptron(3, 2); nn.MLP(3, [4, 2]); nn.ReLU(); nn.GELU();
    nn.Sigmoid(); nn.Tanh(); nn.Softplus(); nn.Softmax(); nn.Flatten(); nn.Dropout(0.5); nn.LayerNorm(3);
    nn.LayerNorm(3).to("scalar"); nn.Embedding(3, 2); nn.Embedding(3, 2).to("scalar"); nn.MSELoss();
    nn.CrossEntropyLoss(); nn.BCEWithLogitsLoss(); nn.BCELoss(); nn.L1Loss(); nn.NLLLoss(); nn.LogSoftmax();
    nn.LeakyReLU(); nn.Identity(); nn.MultiheadAttention(4, 2); nn.TransformerEncoderLayer(4, 2, 4, batch_first=True);
    nn.PositionalEncoding(4); nn.GPT(3, 1, 1, 2, 4); nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2));
    nn.Conv2d(3, 2, 3); nn.MaxPool2d(2); nn.AvgPool2d(2); nn.BatchNorm1d(3); nn.BatchNorm2d(3); nn.RNN(3, 2);
    nn.GRU(3, 2); nn.LSTM(3, 2); nn.ModuleDict({"a": nn.ReLU()})""")
FUNCTIONS = ("relu sigmoid tanh softplus gelu softmax log_softmax logsumexp linear embedding dropout layer_norm "
             "mse_loss cross_entropy binary_cross_entropy_with_logits scaled_dot_product_attention conv2d max_pool2d "
             "avg_pool2d batch_norm one_hot nll_loss l1_loss leaky_relu binary_cross_entropy")
SHAPES = {"relu": [(2, 3)], "softmax": [(2, 3)], "gelu": [(2, 3)], "log_softmax": [(2, 3)], "sigmoid": [(2, 3)],
          "linear": [(2, 3), (4, 3), (4,)], "embedding": [(2, 3), (4, 3)], "dropout": [(2, 3)],
          "layer_norm": [(2, 3)], "mse_loss": [(2, 3), (2, 3)], "cross_entropy": [(2, 3), (2,)],
          "binary_cross_entropy_with_logits": [(2, 3), (2, 3)],
          "scaled_dot_product_attention": [(2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 3)],
          "conv2d": [(2, 3, 5, 5), (2, 3, 3, 3), (2,)], "max_pool2d": [(2, 3, 5, 5)], "avg_pool2d": [(2, 3, 5, 5)],
          "batch_norm": [(2, 3), (3,), (3,), (3,), (3,)]}
OPTIONS = {"layer_norm": {"normalized_shape": 3}, "max_pool2d": {"kernel_size": 2}, "avg_pool2d": {"kernel_size": 2},
           "batch_norm": {"training": True}}
SETTABLE = {"grad_tensor(2, 3)": "data grad requires_grad", "tinynet.arange(6).reshape(2, 3)": "data",
            "(grad_tensor(2, 3) * 2.0)": "data grad", "tinynet.tensor(1.5)": "data grad requires_grad"}


def typed(name):
    """A function called with arguments of the right shapes, whose dtypes are anything."""
    return lambda *kinds: getattr(F, name)(
        *[as_kind(shape, kind) for shape, kind in zip(SHAPES[name], kinds)], **OPTIONS.get(name, {}))


def life(kind):
    """An optimizer from its settings to two steps with a gradient, and its state loaded."""
    def run(params, gradient, **settings):
        optimizer = kind(list(params) if isinstance(params, (list, tuple)) else params, **settings)
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = gradient
        optimizer.step()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        return [p.data for group in optimizer.param_groups for p in group["params"]]

    return run


def used_after(thing, name, use):
    """A method called wrongly, and the object used after it: what was accepted must not fail later and far away."""
    def run(*args, **options):
        getattr(thing, name)(*args, **options)
        return use(thing)

    return run


CHANGES = "to load_state_dict register_buffer requires_grad_ train"
USES = {  # object: methods; what is done afterwards
    "nn.Linear(3, 2)": f"{CHANGES}; lambda m: (m(normal(2, 3)), m.state_dict(), m.parameters(), repr(m))",
    'nn.Linear(3, 2).to("scalar")': f"{CHANGES}; lambda m: (m(normal(2, 3)), m.state_dict(), repr(m))",
    "nn.BatchNorm2d(3)": f"{CHANGES}; lambda m: (m(normal(2, 3, 2, 2)), m.state_dict(), repr(m))",
    "nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))": "to load_state_dict train; lambda m: m(normal(2, 3))",
    "stepped(optim.SGD, momentum=0.5)": "load_state_dict; lambda o: (o.step(), o.zero_grad(), o.state_dict())",
    "stepped(optim.Adam)": "load_state_dict; lambda o: (o.step(), o.zero_grad(), o.state_dict())",
    "stepped(optim.RMSprop, momentum=0.5)": "load_state_dict; lambda o: (o.step(), o.zero_grad(), o.state_dict())",
    "optim.StepLR(optim.SGD([grad_tensor(2)], lr=0.1), 2)":
        "load_state_dict; lambda s: (s.step(), s.get_last_lr(), s.state_dict())",
    "loader(shuffle=True, seed=0)": "load_state_dict; lambda l: [len(batch) for batch in l]",
    "type(tinynet.Generator)()": "load_state_dict; lambda g: g.state_dict()",
    "history()": "load_state_dict; lambda h: (repr(h), h.state_dict())",
    "nn.ModuleList([nn.Linear(3, 2)])": "append; lambda m: (len(m), repr(m), m.state_dict())",
}


def film_of(loss, title, *args, **options):
    record = tinynet.Recorder(*args, **options)
    record(loss)
    return tinynet.film(record, title).html


def targets():
    skipped = {*tinynet.PARTS, *"float32 float64 int64 set_num_threads inference_mode inf nan pi".split()}
    yield from functions("tinynet", [name for name in tinynet.HOME if name not in skipped])
    yield from functions("nn", [name for name in nn.__all__ if name != "functional"])
    yield from functions("F", FUNCTIONS)
    yield from functions("nn.init", [name for name in dir(nn.init) if name.endswith("_") and name[0] != "_"])
    yield from functions("nn.utils", "clip_grad_norm_ clip_grad_value_")
    yield from functions("optim", "SGD Adam AdamW RMSprop StepLR CosineAnnealingLR")
    yield from functions("data", "TensorDataset DataLoader next_tokens read_csv DataFrameDataset train_test_split "
                                 "random_split StandardScaler one_hot CharTokenizer")
    yield from functions("datasets", "xor moons circles spiral mnist read_idx text")
    yield from functions("train", "fit accuracy EarlyStopping summary")
    for owner, names in SETTABLE.items():
        yield from methods(owner, public(Tensor))
        for name in names.split():
            yield Target(f"functools.partial(setattr, {owner}, {name!r})", positional("array"), False)
    for owner in ("Value(0.5)", 'Value(2.0, "b") * 3.0'):
        yield from methods(f"({owner})", public(Value))
    module = ("apply children double eval extra_repr float load_state_dict modules named_children named_modules "
              "named_parameters parameters register_buffer requires_grad_ state_dict to train zero_grad")
    container = "__iter__ __len__ __getitem__ __setitem__ items keys update values append"
    optimizer = "load_state_dict state_dict step zero_grad get_last_lr"
    dataset = "__getitem__ __len__ __iter__"
    for owner, names in (
            ("nn.Linear(3, 2)", module), ('nn.Linear(3, 2).to("scalar")', module),
            ("nn.GPT(3, 1, 1, 2, 4)", "generate"),
            ('nn.ModuleDict({"a": nn.ReLU()})', container), ("nn.Sequential(nn.ReLU())", container),
            *((f"optim.{kind}([grad_tensor(2, 3)])", optimizer) for kind in "SGD Adam AdamW RMSprop".split()),
            ("optim.StepLR(optim.SGD([grad_tensor(2)], lr=0.1), 2)", optimizer),
            ("data.StandardScaler()", "fit fit_transform inverse_transform transform"),
            ("data.StandardScaler().fit(normal(4, 3))", "fit fit_transform inverse_transform transform"),
            ('data.CharTokenizer("hello")', "decode encode __len__"),
            ("loader()", "state_dict load_state_dict __iter__"),
            ("data.TensorDataset(normal(4, 3), np.arange(4))", dataset), ("data.next_tokens(np.arange(9), 3)", dataset),
            ("data.train_test_split(data.TensorDataset(normal(8, 3), np.arange(8)))[0]", dataset),
            ('data.DataFrameDataset({"a": [1.0, 2.0], "y": [0, 1]}, "y")', dataset), ("program()", "backward listing"),
            ("filmed()", "frame save"), ("filmed().frame(0)", "save"), ("tinynet.draw(Value(2.0) * 3.0)", "save"),
            ("tinynet.walkthrough(Value(2.0) * 3.0)", "save"), ("history()", "plot state_dict __getitem__")):
        yield from methods(owner, names)
    for layer in LAYERS:
        yield Target(layer, parameters_of(evaluate(layer).forward), True)
    for kind in "SGD Adam AdamW RMSprop".split():
        yield Target(f"life(optim.{kind})", [*parameters_of(getattr(optim, kind)), inspect.Parameter(
            "gradient", inspect.Parameter.KEYWORD_ONLY)], True)
    for name, shapes in SHAPES.items():
        yield Target(f"typed({name!r})", positional(*[f"kind_{i}" for i in range(len(shapes))]))
    for owner in ("tinynet.tensor(normal(2, 3))", "tinynet.arange(3)", "Value(0.5)"):
        for name in OPERATORS:
            yield Target(f"(lambda other: operator.{name}({owner}, other))", positional("other"), False)
            yield Target(f"(lambda other: operator.{name}(other, {owner}))", positional("other"), False)
    for name in "exp log tanh add subtract divide power maximum matmul greater arctan2 floor".split():
        others = positional("other", "other")[:getattr(np, name).nin - 1]
        yield Target(f"functools.partial(np.{name}, grad_tensor(2, 3))", others, False)
    for owner, text in USES.items():
        names, use = split(text)
        for name in names.split():
            parameters = parameters_of(getattr(evaluate(owner), name))
            yield Target(f"used_after({owner}, {name!r}, {use})", parameters, False, owner)
    yield Target("(lambda *a, **k: [len(b) for b, _ in zip(data.DataLoader(*a, **k), range(3))])",
                 parameters_of(data.DataLoader), False)
    yield from map(Target, ("program()", "train.EarlyStopping(2)", "recorder()"))
    yield Target("film_of", [*positional("loss", "title"), *parameters_of(tinynet.Recorder)], False)
    yield Target("tinynet.capture(lambda *xs: xs[0] * 2.0)", [
        inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)], False)


# ------------------------------------------------------------------------------------------------------------ the calls

def arguments(target, rng):
    """The arguments of a call, as text: mostly sensible, so that junk gets past the first check of others."""
    args, named = [], False
    for p in target.parameters:
        pool, fate = SENSIBLE.get(p.name, SENSIBLE["others"]), rng.randrange(20)
        junk = rng.choice(JUNK)
        if p.name in LOOPS:
            junk = f"few({junk})"
        if p.name in ("state", "state_dict") and target.owner and fate < 16:
            text = f"spoiled({target.owner}.state_dict(), {rng.randrange(30)}, {rng.randrange(9)}, {junk})"
        else:
            text = rng.choice(pool) if fate < 12 else junk
        if p.kind is p.VAR_POSITIONAL:
            args += [rng.choice([*pool, junk]) for _ in range(rng.randrange(4))] if not named else []
        elif p.kind is p.VAR_KEYWORD:
            continue
        elif p.name in ("mirrors", "download"):
            args, named = [*args, f"{p.name}={pool[0]}"], True
        elif p.default is not p.empty and fate % 3 == 0 or fate == 19 and "setattr" not in target.expression:
            named = True  # left out
        else:
            named = named or p.kind is p.KEYWORD_ONLY
            args.append(f"{p.name}={text}" if named and p.kind is not p.POSITIONAL_ONLY else text)
    if rng.randrange(60) == 0 and "setattr" not in target.expression:
        args.append("unheard_of=1")
    return ", ".join(args)


class Hang(BaseException):
    pass


def on_alarm(number, frame):
    raise Hang


def flat(x, depth=0):
    """The arrays of numbers in something; infinity stands for what is unknown."""
    if isinstance(x, (Tensor, Value)):
        yield x._data if isinstance(x, Tensor) else np.float64(x.data)
    elif isinstance(x, (bool, int, float, np.number)):
        yield np.float64(x) if x != x or abs(x) < 1e300 else np.float64("inf")
    elif isinstance(x, np.ndarray) and x.dtype != object:
        yield x if x.dtype.kind in "fiub" and x.size < 10**6 else np.float64("inf")
    elif isinstance(x, (list, tuple, dict, np.ndarray)) and depth < 4:
        for part in x.values() if isinstance(x, dict) else x.ravel() if isinstance(x, np.ndarray) else x:
            yield from flat(part, depth + 1)
    elif not isinstance(x, (str, type(None))) and not callable(x):
        yield np.float64("inf")


def moderate(things):
    return all(np.isfinite(a).all() and (not a.size or np.abs(a).max() <= 1e4) for a in flat(things))


def has_nan(x):
    return isinstance(x, (Tensor, Value, np.ndarray, tuple, list)) and any(
        a.dtype.kind == "f" and np.isnan(a).any() for a in flat(x))


def attempt(target, text):
    """What is wrong with one call, and where; or None."""
    modes = lambda: [getattr(graph.mode, name) for name in ("grad_enabled", "scope", "plan", "reference")]
    before = modes()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        function, (args, options) = evaluate(target.expression), evaluate(f"(lambda *a, **k: (a, k))({text})")
        finite = target.finite and moderate([args, options])
        result = function(*args, **options)
        if hasattr(result, "__next__"):
            result = [next(result)]
        if finite and has_nan(result) and "ignore_index" not in options:  # the mean of no loss is 0 / 0
            return "nan from finite numbers", "nan"
    except StopIteration:
        pass
    except Hang:
        return f"no end after {SECONDS} seconds of computing", "hang"
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        allowed = isinstance(error, ALLOWED) and str(error) and not OF_NUMBA.search(str(error))
        if not allowed and not raised_by_junk(error):
            return f"{type(error).__name__}: {error}"[:300], where(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        after = modes()
        for name, mode in zip(("grad_enabled", "scope", "plan", "reference"), before):
            setattr(graph.mode, name, mode)
    return (f"left the thread in the mode {after}", "mode") if after != before else None


def raised_by_junk(error):
    """Whether it comes from a function among the arguments, or from making them: then the call is not at fault."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename == "<call>" and last.name == "<lambda>" or last.filename == __file__ and last.name != "attempt"


def where(error):
    """The last line of the package on the way of an error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tinynet/" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def chunk(n, seed, log):
    """Make n calls in this process; returns the faults, one for each place."""
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    signal.signal(signal.SIGPROF, on_alarm)
    rng, everything, faults = random.Random(seed), list(targets()), {}
    warnings.simplefilter("ignore")
    for _ in range(n):
        target = rng.choice(everything)
        text = arguments(target, rng)
        call = f"{target.expression}({text})"
        log.seek(0)
        log.truncate()
        log.write(call)
        log.flush()
        fault = attempt(target, text)
        if fault and fault[1] == "hang":  # on a cold cache it may have compiled
            fault = attempt(target, text)
        if fault:
            faults.setdefault((fault[1], fault[0][:40]), (call, *fault))
    return faults.values()


def main(n, seed=0):
    """n calls, in chunks that each have a process of their own; returns the faults, a line each."""
    faults = {}
    for size in (CHUNK,) * (n // CHUNK) + (n % CHUNK,):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            child = subprocess.run([sys.executable, "-m", "tests.test_fuzz", "--chunk", str(size), str(seed), log],
                                   cwd=ROOT, capture_output=True, text=True, timeout=1800)
            if child.returncode:
                what = f"the process ended with {child.returncode}: {child.stderr[-600:]}"
                faults[what] = f"{log.read_text() if log.exists() else ''}\n    {what}"
            for line in child.stdout.splitlines():
                if line.startswith("FAULT "):
                    faults.setdefault(line.split(" ¦ ")[1:][-1], line)
        seed += 1
    return list(faults.values())


def test_malformed_calls():
    faults = main(CALLS)
    assert not faults, "\n".join(faults)


def run_chunk(n, seed, path):
    os.environ["TQDM_DISABLE"] = "1"
    os.chdir(path.parent)
    with open(path, "w") as log:
        for fault in chunk(n, seed, log):
            print("FAULT", " ¦ ".join(part.replace("\n", " ") for part in fault))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--chunk"]:
        run_chunk(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).resolve())
    elif sys.argv[1:] and not sys.argv[1].isdecimal():
        print(evaluate(sys.argv[1]))
    else:
        found = main(int(sys.argv[1]) if sys.argv[1:] else CALLS, int(sys.argv[2]) if sys.argv[2:] else 0)
        print(*found, f"{len(found)} faults", sep="\n")
