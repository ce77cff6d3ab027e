"""The chain rule in words, read back: every line is computed again; and broken graphs, each with just its mistake."""

import math
import random
import re

import pytest

from tinynet import Value
from tinynet.graph import topological
from tinynet.value import CONSTANT, RULES, Rule
from tinynet.viz.diagnostics import diagnose
from tinynet.viz.explanations import explain
from tinynet.viz.formulas import source
from tinynet.viz.labels import names

MATHS = {name: rule.value for name, rule in RULES.items() if name.isidentifier()} | {"nan": math.nan}


def example():
    a, b = Value(-2, label="a"), Value(3, label="b")
    f = (a * b) * (a + b)
    f.label = "f"
    return a, b, f


def evaluated(formula):
    """What a formula is, by Python's own rules, with the functions of the derivative table."""
    return eval(formula, {"__builtins__": {}}, MATHS)


def comes_out_right(sentence):
    """Whether the last formula of a line, computed, rounds to the number printed after it."""
    formula, printed = sentence.split(" = ")[-2:] if sentence.count(" = ") > 1 else (sentence.split(" = ")[-1],) * 2
    digits = len(re.sub(r"e.*|[-.]", "", printed).lstrip("0"))
    value = evaluated(formula)
    return value == float(printed) or f"{value:.{max(digits, 4)}g}" == f"{float(printed):.{max(digits, 4)}g}"


OPERATIONS = [rule for name, rule in RULES.items() if name not in ("constant",)]


def random_graph(seed, operations=25):
    """A graph over every operation, away from the places where one is not defined."""
    draw = random.Random(seed)
    pool = [Value(draw.uniform(-2.0, 2.0), label=name) for name in "abc"]
    rules = OPERATIONS + draw.choices(OPERATIONS, k=max(0, operations - len(OPERATIONS)))
    draw.shuffle(rules)
    for rule in rules:
        x, y = draw.choice(pool[-6:]), draw.choice([*pool, Value(draw.uniform(0.5, 2.0), requires_grad=False)])
        positive = x * x + 0.5
        if rule.name in ("log", "sqrt"):
            pool.append(getattr(positive, rule.name)())
        elif rule.name == "/":
            pool.append(x / (y * y + 0.5))
        elif rule.name == "**":
            pool.append(positive ** y.tanh())
        elif rule.name in ("exp", "softplus"):
            pool.append(getattr(x.tanh(), rule.name)())
        elif len(rule.derivatives) == 2:
            method = {"+": Value.__add__, "-": Value.__sub__, "*": Value.__mul__}.get(rule.name)
            pool.append(method(x.tanh(), y) if method else getattr(x, rule.name)(y))
        else:
            pool.append(-x if rule.name == "neg" else getattr(x, rule.name)())
    total = pool[0]
    for x in pool[1:]:
        total = total + x
    return total


# --------------------------------------------------------------------------------------------------------- the lines


def test_the_example_is_explained_line_by_line():
    _, _, f = example()
    f.backward()
    assert explain(f).sentences == [
        "v1 = a * b = (-2) * 3 = -6",
        "v2 = a + b = (-2) + 3 = 1",
        "f = v1 * v2 = (-6) * 1 = -6",
        "df/df = 1",
        "df/dv1 = df/df * ∂f/∂v1 = df/df * v2 = 1 * 1 = 1",
        "df/dv2 = df/df * ∂f/∂v2 = df/df * v1 = 1 * (-6) = -6",
        "df/da (1 of 2) = df/dv2 * ∂v2/∂a = df/dv2 * 1 = (-6) * 1 = -6",
        "df/db (1 of 2) = df/dv2 * ∂v2/∂b = df/dv2 * 1 = (-6) * 1 = -6",
        "df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a = (-6) + df/dv1 * b = (-6) + 1 * 3 = -3",
        "df/db (2 of 2) = (-6) + df/dv1 * ∂v1/∂b = (-6) + df/dv1 * a = (-6) + 1 * (-2) = -8",
    ]


@pytest.mark.parametrize("seed", range(8))
def test_every_line_of_a_graph_over_every_operation_comes_out_right(seed):
    f = random_graph(seed)
    f.backward()
    order = topological(f)
    assert {node.op.name for node in order if node.inputs} == set(RULES)
    sentences = explain(f, limit=None).sentences
    shares = sum(x.op is not CONSTANT for node in order for x in node.inputs)
    assert len(sentences) == sum(bool(node.inputs) for node in order) + 1 + shares
    for sentence in sentences:
        assert comes_out_right(sentence), sentence


@pytest.mark.parametrize("seed", range(8))
def test_the_last_line_about_a_node_says_its_gradient(seed):
    f = random_graph(seed)
    f.backward()
    last = {}
    for sentence in explain(f, limit=None).sentences:
        effect = re.match(r"dv?\w+/d(\w+)", sentence)
        if effect:
            last[effect[1]] = float(sentence.split(" = ")[-1])
    order = topological(f)
    name = names(order)
    for node in order:
        if node.op is not CONSTANT:
            assert last[name[node]] == pytest.approx(node.grad, rel=1e-3), name[node]


def test_the_symbolic_formula_is_the_numeric_one_with_names():
    """The names of a line, filled in with the numbers of the graph, give what its figures give."""
    f = random_graph(3)
    order = topological(f)
    name = names(order)
    known = {name[node]: node.data for node in order if node.op is not CONSTANT}
    for sentence in explain(f, limit=None).sentences:
        parts = sentence.split(" = ")
        if "/" not in parts[0]:
            assert eval(parts[1], {"__builtins__": {}}, MATHS | known) == pytest.approx(known[parts[0]], rel=1e-12)


def test_each_case_of_a_derivative_is_the_one_that_holds():
    x = Value(-1.5, label="x")
    assert " = dv1/dv1 * 0 = " in repr(explain(x.relu()))
    assert " = dv1/dv1 * (-1) = " in repr(explain(abs(x)))
    assert " = dv1/dv1 * 1 = " in repr(explain(abs(Value(1.5, label="x"))))
    assert " = dv1/dv1 * 0.5 = " in repr(explain(x.max(-1.5)))


def test_every_formula_of_the_page_is_found_in_its_source():
    for rule in RULES.values():
        for function in (rule.value, *rule.derivatives):
            assert source(function) is not None, rule
    assert source(RULES["-"].derivatives[0]) is not source(RULES["-"].derivatives[1])


def test_an_operation_that_a_reader_adds_is_explained_too():
    cube = Rule("cube", lambda a: a * a * a, lambda a, y: 3.0 * a * a)
    x = Value(2.0, label="x")
    text = repr(explain(cube(x)))
    assert "v1 = cube(x) = cube(2) = 8" in text
    assert "dv1/dx = dv1/dv1 * ∂v1/∂x = dv1/dv1 * (3 * x * x) = 1 * (3 * 2 * 2) = 12" in text
    unreadable = Rule("twice", lambda a: 2.0 * a, eval("lambda a, y: 2.0"))
    assert "dv1/dx = dv1/dv1 * ∂v1/∂x = 1 * 2 = 2" in repr(explain(unreadable(x)))


def test_nodes_without_a_name_are_numbered_and_given_names_are_kept():
    a, other, taken = Value(1.0, label="a"), Value(2.0, label="a"), Value(3.0, label="v1")
    f = (a + other) * taken
    assert [names(topological(f))[node] for node in topological(f)] == ["a", "a#2", "v2", "v1", "v3"]


HOSTILE = ['</script><b>"', "a|{x}<y>\\n", "two\nlines\r\x00", "שלום\u202eevil", "😀 \ud83d", "\u2067open", "a = b"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_label_stays_on_its_line(label):
    a = Value(2.0, label=label)
    lines = repr(explain(a * a)).split("\n")
    assert len(lines) == len(repr(explain(a * a)).splitlines()) == 7
    for line in lines:
        line.encode()
        assert line.count("\u2066") + line.count("\u2067") + line.count("\u2068") == line.count("\u2069")


def test_a_long_text_says_what_it_leaves_out():
    x = y = Value(1.0, label="x")
    for _ in range(1000):
        y = y + x
    lines = explain(y, limit=20).lines
    assert len(lines) <= 30
    gaps = [line for line in lines if "omitted" in line]
    left = [int(re.search(r"([\d,]+) steps omitted", line)[1].replace(",", "")) for line in gaps]
    assert sum(left) + len(explain(y, limit=20).sentences) == len(explain(y, limit=None).sentences) == 1000 + 1 + 2000
    assert "1. v1 = x + x" in lines[1]
    assert any(line.lstrip().startswith("1000. v1000 = v999 + x") for line in lines)


def test_a_derivative_that_is_not_finite_ends_the_backward_pass():
    text = repr(explain(Value(0.0, label="x").sqrt()))
    assert "backward: sqrt has no finite derivative at 0" in text


def test_bad_input_raises():
    with pytest.raises(TypeError, match="expected a Value or a Tensor, got 3"):
        explain(3)
    with pytest.raises(ValueError, match="expected limit to be an integer ≥ 8, got 2"):
        explain(Value(1.0), limit=2)


def test_a_graph_of_tensors_is_described_by_shapes():
    pytest.importorskip("numpy")
    from tinynet import nn, tensor
    model = nn.MLP(2, [3, 1])
    loss = (model(tensor([[1.0, 2.0]] * 5)) ** 2).mean()
    loss.label = "loss"
    loss.backward()
    text = repr(explain(loss))
    assert "layers.0.weight (3, 2)" in text
    assert "dloss/dlayers.1.weight has shape (1, 3)" in text


# --------------------------------------------------------------------------------------------------------- diagnostics


def kinds(root, parameters=()):
    return [sentence.split(":")[0] for _, sentence in diagnose(root, parameters)]


def no_backward():
    _, _, f = example()
    return f


def backward_twice():
    _, _, f = example()
    f.backward()
    f.backward()
    return f


def old_gradients():
    a, b, f = example()
    f.backward()
    g = a * b + a
    g.backward()
    return g


def dead_relu():
    x, w, b = Value(2.0, label="x"), Value(-3.0, label="w"), Value(1.0, label="b")
    y = (w * x + b).relu()
    loss = (y - 1) ** 2
    loss.backward()
    return loss


def saturated_tanh():
    x, w = Value(20.0, label="x"), Value(1.0, label="w")
    loss = ((w * x).tanh() - 0.5) ** 2
    loss.backward()
    return loss


def saturated_sigmoid():
    x, w = Value(-20.0, label="x"), Value(1.0, label="w")
    loss = ((w * x).sigmoid() - 0.5) ** 2
    loss.backward()
    return loss


def nan_forward():
    a = Value(1e200, label="a")
    big = a * a
    loss = big - big
    loss.backward()
    return loss


def nan_backward():
    base, power = Value(-2.0, label="base"), Value(2.0, label="power")
    loss = base ** power
    loss.backward()
    return loss


def not_reached():
    pytest.importorskip("numpy")
    from tinynet import nn

    class Model(nn.Module):
        def __init__(self):
            self.used, self.forgotten = nn.Linear(2, 1), nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return self.used(x)

    loss = (Model().to("scalar")([[1.0, 2.0]]) ** 2).sum()
    loss.backward()
    return loss


BROKEN = [(no_backward, "backward() not called"), (backward_twice, "backward() called twice"),
          (old_gradients, "Stale gradients"), (dead_relu, "Dead ReLU"), (saturated_tanh, "Saturated tanh"),
          (saturated_sigmoid, "Saturated sigmoid"),
          (not_reached, "Unconnected parameter"), (nan_forward, "Origin of NaN"), (nan_backward, "Origin of NaN")]


@pytest.mark.parametrize(("graph", "kind"), BROKEN, ids=[graph.__name__ for graph, _ in BROKEN])
def test_a_broken_graph_has_exactly_its_mistake(graph, kind):
    root = graph()
    (node, sentence), = diagnose(root)
    assert sentence.startswith(kind + ": ")
    assert (node in set(topological(root))) == (kind != "Unconnected parameter")
    assert sentence in repr(explain(root))
    assert "\n" not in sentence
    assert ";" in sentence, "it says what to do"


def test_the_mistake_is_at_the_node_that_made_it():
    root = nan_forward()
    assert diagnose(root)[0][0] is root
    root = dead_relu()
    assert diagnose(root)[0][0].op.name == "relu"
    root = old_gradients()
    node, sentence = diagnose(root)[0]
    assert node.label == "a"
    assert "(1; this graph gives 4)" in sentence


def test_a_parameter_that_the_loss_does_not_reach():
    a, b, f = example()
    f.backward()
    w = Value(1.0, label="w")
    assert diagnose(f, [a, b]) == []
    (node, sentence), = diagnose(f, [a, b, w])
    assert node is w
    assert sentence.startswith("Unconnected parameter: the loss does not depend on w,")


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_the_layers_of_a_graph_know_their_parameters(engine):
    pytest.importorskip("numpy")
    from tinynet import nn

    class Net(nn.Module):
        def __init__(self):
            self.used, self.forgotten = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.used(x).sum()

    loss = Net().to(engine)([[1.0, 2.0], [3.0, 5.0]])
    loss.backward()
    said = [sentence for _, sentence in diagnose(loss)]
    assert [re.search("depend on ([^,]*),", sentence)[1] for sentence in said] == ["forgotten.weight", "forgotten.bias"]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_graph_has_none(seed):
    f = random_graph(seed, operations=12) if seed else example()[2]
    f.backward()
    activations = [node for node in topological(f) if node.inputs and node.op.name == "relu" and node.data == 0]
    assert kinds(f) in ([], ["Dead ReLU"] if activations else [])
    assert kinds(example()[2] * 0) == ["backward() not called"]


def trained(engine, steps=1, samples=30, activation="tanh", seed=0):
    """A model, a step of training on it, and its loss."""
    numpy = pytest.importorskip("numpy")
    from tinynet import manual_seed, nn, tensor
    manual_seed(seed)
    model = nn.MLP(2, [6, 6, 1], activation=activation).to(engine)
    x = numpy.random.default_rng(seed).normal(size=(samples, 2)).astype(numpy.float32)
    for _ in range(steps):
        model.zero_grad()
        output = model(x.tolist() if engine == "scalar" else tensor(x))
        loss = ((output - 1.0) ** 2).mean()
        loss.backward()
    return model, loss


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_a_model_in_training_has_none_before_and_after_the_optimisers_step(engine):
    model, loss = trained(engine, steps=2)
    assert kinds(loss, model) == []
    for p in model.parameters():
        p.data = p.data - 0.1 * p.grad
    assert kinds(loss, model) == []
    for p in model.parameters():
        p.grad = p.grad * 0.5
    assert kinds(loss, model) == []


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_clipped_gradients_are_no_mistake_but_doubled_ones_are(engine):
    model, loss = trained(engine)
    for p in model.parameters():
        p.grad = p.grad * 0.25
    assert kinds(loss) == []
    model.zero_grad()
    loss.backward()
    loss.backward()
    assert kinds(loss) == ["backward() called twice"]


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_gradients_of_an_earlier_step_are_found_in_a_model(engine):
    model, _ = trained(engine)
    output = model([[0.5, -0.5]] * 9)
    again = (output ** 2).mean()
    again.backward()
    assert kinds(again) == ["Stale gradients"]


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_a_neuron_is_judged_by_all_samples(engine):
    model, loss = trained(engine, activation="relu", seed=2)
    assert "Dead ReLU" not in kinds(loss)
    first = model.layers[0]
    if engine == "scalar":
        first.bias[3].data = -100.0
    else:
        first.bias.data[3] = -100.0
    model.zero_grad()
    x = [[math.sin(i), math.cos(i)] for i in range(30)]
    loss = (model(x) ** 2).mean()
    loss.backward()
    said = [sentence for _, sentence in diagnose(loss)]
    assert "Dead ReLU" in [s.split(":")[0] for s in said]
    assert any("layers.0[3]" in s or "units, for all 30" in s for s in said)
    loss = (model([[0.3, 0.4]]) ** 2).mean()  # one sample proves nothing
    model.zero_grad()
    loss.backward()
    assert kinds(loss) == []


def test_dead_neurons_of_one_layer_share_a_sentence():
    model, _ = trained("scalar", activation="relu", seed=2)
    for i in (1, 3, 4):
        model.layers[0].bias[i].data = -100.0
    model.zero_grad()
    loss = (model([[math.sin(i), math.cos(i)] for i in range(30)]) ** 2).mean()
    loss.backward()
    said = [sentence for _, sentence in diagnose(loss) if "layers.0" in sentence]
    assert len(said) == 1
    assert said[0].startswith("Dead ReLU: each of layers.0[1], layers.0[3], layers.0[4] is 0 for all 30 samples, and")


def test_a_graph_of_thousands_is_checked_in_a_moment():
    import time
    _, loss = trained("scalar", samples=200)
    start = time.perf_counter()
    diagnose(loss)
    assert time.perf_counter() - start < 5.0


def test_negative_numbers_have_one_pair_of_parentheses():
    x = Value(-0.5, label="x")
    text = repr(explain(x.softplus() * x.erf()))
    assert "softplus(-0.5)" in text
    assert "* sigmoid(-0.5) =" in text
    assert "((-" not in text.replace("exp(-(-0.5) * (-0.5))", "")
    assert "(-v1 / x)" in repr(explain(1.0 / x))
    assert "* (-0.5 / 2)" in repr(explain(1.0 / Value(2.0, label="x")))


def test_the_origin_of_a_nan_is_not_where_it_only_passes():
    from tinynet import no_grad
    big = Value(math.inf, label="big")
    born = big - big
    later = (born * 2 + 1) * born
    later.backward()
    (node, sentence), = diagnose(later)
    assert node is born
    assert "- produced NaN in v1 from big = inf, big = inf" in sentence
    with no_grad():
        leaf = Value(math.nan, label="leaf")
    (node, sentence), = diagnose(leaf * 2)[:1]
    assert node is leaf
    assert "leaf is NaN from the start" in sentence


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_rows_of_a_table_that_nobody_looked_up_and_frozen_layers_are_no_mistake(engine):
    pytest.importorskip("numpy")
    from tinynet import nn

    class Net(nn.Module):
        def __init__(self):
            self.table, self.out, self.frozen = nn.Embedding(5, 2), nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x):
            return self.out(self.table(x)).sum()

    model = Net().to(engine)
    model.frozen.requires_grad_(False)
    loss = model([1, 3])
    loss.backward()
    assert kinds(loss) == []


def test_an_activation_outside_a_layer_is_shut_where_most_of_its_operands_are():
    w, b = Value(1.0, label="w"), Value(0.5, label="b")
    loss = sum((w * x + b).relu() for x in (3.0, 1.0, -2.0))  # off for one sample of three
    loss.backward()
    assert kinds(loss) == []
    x, y = Value(1.0, label="x"), Value(-2.0, label="y")
    data = [Value(z, label=f"x{i}") for i, z in enumerate((3.0, 1.0, -2.0))]  # samples may be Values, too
    loss = sum((w * x + b).relu() for x in data)
    w.zero_grad(), b.zero_grad()
    loss.backward()
    assert kinds(loss) == []
    x1, w1, w2, b1, b2 = (Value(z) for z in (1.0, 1.0, -1.0, 0.1, 0.1))
    loss = (x1 * w1 + b1).relu() + (x1 * w2 + b2).relu()  # the second neuron is off: w2 and b2 learn nothing
    loss.backward()
    assert kinds(loss) == ["Dead ReLU"]
    assert x.grad is y.grad is None


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_a_layer_that_is_shut_altogether_is_told_once(engine):
    pytest.importorskip("numpy")
    from tinynet import nn
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).to(engine)
    loss = (model([[1e3, 2e3]]) ** 2).mean()
    loss.backward()
    assert kinds(loss) == ["Saturated tanh"]


def test_a_tanh_that_works_is_not_saturated():
    x, w = Value(2.0, label="x"), Value(1.0, label="w")  # the derivative of tanh at 2 is 0.07
    loss = ((w * x).tanh() - 0.5) ** 2
    loss.backward()
    assert kinds(loss) == []


def test_what_is_random_or_has_a_memory_is_not_computed_again():
    pytest.importorskip("numpy")
    from tinynet import nn
    model = nn.Sequential(nn.Linear(2, 50), nn.Dropout(0.5), nn.LayerNorm(50), nn.Linear(50, 1))
    loss = (model([[1.0, 2.0], [0.5, -1.0]]) ** 2).mean()
    loss.backward()
    assert kinds(loss) == []


def test_the_gradients_of_what_lies_between_are_compared_with_nothing():
    a, b, f = example()
    (f * 3 + a).backward()
    assert kinds(f) == []
