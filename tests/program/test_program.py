"""A compiled program computes what the interpreted engine computes: values, gradients, on random graphs."""


import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import value
from tinynet.graph import topological
from tinynet.kernels.backend import compiled
from tinynet.program import compile
from tinynet.value import RULES, Rule, Value

NUMBERS = st.one_of(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), st.floats(-3, 3))


def tame(rule, operands):
    """Whether the value and all derivatives are numbers of ordinary size, so that rounding errors stay small."""
    try:
        y = rule.value(*operands)
        found = [y] + [d(*operands, y) for d in rule.derivatives]
    except (ValueError, ZeroDivisionError, OverflowError):
        return False
    return all(abs(z) < 50 and (z == 0 or abs(z) > 1e-3) for z in found)


@st.composite
def recipes(draw):
    """(steps, samples, parameters, constants): steps (rule, i, j) on earlier nodes that are tame for all samples."""
    inputs, parameters, constants = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
    samples = draw(st.integers(1, 40)) if inputs else 1
    few = [[draw(NUMBERS) for _ in range(inputs)] for _ in range(min(samples, 5))]
    batch = [few[s % len(few)] for s in range(samples)]
    fixed = [draw(NUMBERS) for _ in range(parameters + constants)]
    columns = [[sample[i] for sample in few] for i in range(inputs)] + [[x] * len(few) for x in fixed]
    steps = []
    for _ in range(draw(st.integers(1, 25))):
        rule = RULES[draw(st.sampled_from(sorted(RULES)))]
        places = [draw(st.integers(0, len(columns) - 1)) for _ in rule.derivatives]
        operands = list(zip(*[columns[p] for p in places]))
        if all(tame(rule, x) for x in operands):
            steps.append((rule, *places))
            columns.append([rule.value(*x) for x in operands])
    return steps, np.array(batch, float).reshape(samples, inputs), fixed[:parameters], fixed[parameters:]


def build(steps, sample, parameters, constants):
    """The graph of a recipe for one sample: (loss, inputs, parameters). The loss adds up everything."""
    inputs = [Value(x, f"x{i}") for i, x in enumerate(sample)]
    weights = [Value(x, f"w{i}") for i, x in enumerate(parameters)]
    nodes = inputs + weights + [Value(x, requires_grad=False) for x in constants]
    for rule, *places in steps:
        nodes.append(rule(*[nodes[p] for p in places]))
    loss = nodes[-1]
    for x in nodes[:-1]:
        loss = loss + x * 0.5
    return loss, inputs, weights


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_random_graphs_equal_the_interpreted_engine(recipe):
    steps, batch, parameters, constants = recipe
    losses, input_gradients, gradients = [], [], []
    for sample in batch:
        loss, inputs, weights = build(steps, sample, parameters, constants)
        loss.backward()
        losses.append(loss.data)
        input_gradients.append([x.grad for x in inputs])
        gradients.append([w.grad for w in weights])
    losses, gradients = np.array(losses), np.array(gradients)
    input_gradients = np.array(input_gradients).reshape(batch.shape) / len(batch)

    loss, inputs, weights = build(steps, batch[0], parameters, constants)
    for dtype, tolerance in ("float64", 1e-12), ("float32", 2e-4):
        program = compile(loss, inputs, weights, dtype)
        for w in weights:
            w.zero_grad()
        mean, found = program.backward(batch, inputs=True)
        size = np.abs(losses).max() + 1
        np.testing.assert_allclose(program(batch), losses, rtol=0, atol=tolerance * size)
        np.testing.assert_allclose(mean, losses.mean(), rtol=0, atol=tolerance * size)
        if dtype == "float32" and any(step[0].name in ("max", "min", "relu", "abs") for step in steps):
            continue  # on which side of its kink such a function is may be decided by rounding
        size = np.abs(gradients).max(axis=0) + 1
        np.testing.assert_array_less(np.abs([w.grad for w in weights] - gradients.mean(axis=0)), tolerance * size)
        size = np.abs(input_gradients).max(initial=0) + 1
        np.testing.assert_allclose(found, input_gradients, rtol=0, atol=tolerance * size)


POINTS = [-3.0, -1.5, -1.0, -0.25, 0.0, 0.25, 1.0, 1.5, 3.0]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-15), ("float32", 2e-6)])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_of_the_derivative_table(name, dtype, tolerance):
    """Value and derivatives on a grid, ties and corners included; each operand as an input and as a parameter."""
    rule = RULES[name]
    grid = [(a, b) for a in POINTS for b in POINTS] if len(rule.derivatives) == 2 else [(a,) for a in POINTS]
    grid = [x for x in grid if tame(rule, x)]
    assert len(grid) >= 4
    expected = [(rule.value(*x), [d(*x, rule.value(*x)) for d in rule.derivatives]) for x in grid]
    operands = [Value(x) for x in grid[0]]
    program = compile(rule(*operands), operands, dtype=dtype)
    np.testing.assert_allclose(program(grid), [y for y, _ in expected], rtol=tolerance, atol=tolerance)
    _, input_gradients = program.backward(grid, inputs=True)
    np.testing.assert_allclose(input_gradients * len(grid), [d for _, d in expected], rtol=tolerance, atol=tolerance)
    for k in range(len(operands)):  # operand k is a number that all samples share
        shared = operands[k]
        others = [x for x in operands if x is not shared]
        program = compile(rule(*operands), others, [shared], dtype)
        for x, (y, input_gradients) in zip(grid, expected):
            shared.data, shared.grad = x[k], None
            batch = np.array([[z for i, z in enumerate(x) if i != k]] * 3) if others else None
            np.testing.assert_allclose(program.backward(batch), y, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(shared.grad, input_gradients[k], rtol=tolerance, atol=tolerance)


def bump_helper(a, width=2.0):
    return math.exp(-a * a / width)


def test_a_new_rule_compiles_with_nothing_else_written():
    bump = Rule("bump", lambda a: bump_helper(a) + math.atan(a),
                lambda a, y: -a * bump_helper(a) * value.exp(a * 0.0) + 1.0 / (1.0 + a * a))
    x = Value(0.0)
    xs = np.linspace(-2, 2, 33)
    for dtype, tolerance in ("float64", 1e-14), ("float32", 1e-6):
        program = compile(bump(x), [x], dtype=dtype)
        _, dx = program.backward(xs[:, None], inputs=True)
        np.testing.assert_allclose(program(xs[:, None]), [bump.value(a) for a in xs], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(dx[:, 0] * len(xs), [bump.derivatives[0](a, 0.0) for a in xs], atol=tolerance)


def test_a_rule_that_numba_cannot_compile_is_named():
    strange = Rule("strange", lambda a: float(str(a)[::-1].strip("-")), lambda a, y: 1.0)
    x = Value(1.0)
    with pytest.raises(ValueError, match="cannot compile the rule 'strange'"):
        compile(strange(x), [x])([[1.0]])


def perceptron(seed=0, sizes=(3, 5, 4, 1), activation="tanh"):
    """(loss, inputs, parameters) of a small network with a squared error; the last input is the target."""
    rng = np.random.default_rng(seed)
    inputs = [Value(0.0, f"x{i}") for i in range(sizes[0])]
    parameters, x = [], np.array(inputs, dtype=object)
    for n, m in pairwise(sizes):
        W = np.array([[Value(w) for w in row] for row in rng.normal(size=(m, n))], dtype=object)
        b = np.array([Value(w) for w in rng.normal(size=m)], dtype=object)
        parameters += [*W.flat, *b]
        x = x @ W.T + b
        if m != sizes[-1]:
            x = np.array([getattr(z, activation)() for z in x], dtype=object)
    target = Value(0.0, "target")
    return (x[0] - target) ** 2, [*inputs, target], parameters


def interpreted(loss, inputs, parameters, batch):
    """(mean loss, mean gradients of the parameters) by the interpreted engine: the graph is run again by hand."""
    order = topological(loss)
    losses, gradients = [], []
    for sample in batch:
        for x, number in zip(inputs, sample):
            x.data = float(number)
        for node in order:
            if node.inputs:
                node.data = node.op.value(*[x.data for x in node.inputs])
        for p in parameters:
            p.zero_grad()
        loss.backward()
        losses.append(loss.data)
        gradients.append([p.grad for p in parameters])
    for p in parameters:
        p.zero_grad()
    return np.mean(losses), np.mean(gradients, axis=0)


@pytest.mark.parametrize("graph", [
    lambda z: (z.tanh() + 1).exp().tanh() + 1,  # derivatives that read their own value, which nobody else reads
    lambda z: ((z * z).sin() + z).tanh() * (z + 1),
    lambda z: (z + 1) + z + z.tanh(),  # sums that share their gradient's register, and nodes that must not
    lambda z: (z + z) + ((z + 2) - (z + 3)) * (z + z),
    lambda z: sum([(z + i) + (z * i) for i in range(9)], z * z),
])
def test_what_the_backward_pass_reads_is_still_there(graph):
    x, w = Value(0.0), Value(0.7)
    loss = graph(w * x)
    batch = np.linspace(-2, 2, 37)[:, None]
    mean, gradients = interpreted(loss, [x], [w], batch)
    program = compile(loss, [x], [w])
    np.testing.assert_allclose(program.backward(batch), mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose([w.grad], gradients, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("samples", [1, 2, 7, 15, 16, 17, 33, 100, 257])
def test_a_network_on_every_size_of_batch(samples):
    loss, inputs, parameters = perceptron()
    batch = np.random.default_rng(1).normal(size=(samples, 4))
    mean, gradients = interpreted(loss, inputs, parameters, batch)
    program = compile(loss, inputs, parameters)
    np.testing.assert_allclose(program.backward(batch), mean, rtol=1e-12)
    np.testing.assert_allclose([p.grad for p in parameters], gradients, rtol=1e-12, atol=1e-12)


def test_many_tiles_and_threads_add_up():
    """A batch of many copies has the mean gradient of one copy, in any number of threads, the same to the bit."""
    loss, inputs, parameters = perceptron()
    few = np.random.default_rng(1).normal(size=(10, 4))
    mean, gradients = interpreted(loss, inputs, parameters, few)
    program = compile(loss, inputs, parameters)
    runs = []
    for _ in range(3):
        for p in parameters:
            p.zero_grad()
        assert math.isclose(program.backward(np.tile(few, (10_001, 1))), mean, rel_tol=1e-12)
        runs.append([p.grad for p in parameters])
    np.testing.assert_allclose(runs[0], gradients, rtol=1e-11, atol=1e-12)
    assert runs[0] == runs[1] == runs[2]
    assert len(program.plans[True, False].memory) == compiled.threads


def test_gradients_of_leaves_add_up_over_calls_as_in_the_interpreted_engine():
    x, w, unused = Value(2.0), Value(3.0), Value(1.0)
    program = compile(w * x, [x], [w, unused])
    program.backward([[2.0], [4.0]])
    assert (w.grad, unused.grad, x.grad) == (3.0, None, None)
    program.backward([[2.0], [4.0]])
    assert w.grad == 6.0


def test_parameters_are_read_at_each_call_and_constants_never_again():
    x, w, c = Value(1.0), Value(3.0), Value(5.0)
    program = compile(w * x + c, [x], [w])
    assert program([[1.0]]) == [8.0]
    w.data, c.data = 4.0, 100.0
    assert program([[1.0]]) == [9.0]


def test_without_parameters_every_other_leaf_is_one():
    x, w, c = Value(1.0), Value(3.0), Value(5.0, requires_grad=False)
    program = compile(w * x + c, [x])
    assert program.parameters == [w]
    program.backward([[2.0]])
    assert w.grad == 2.0


def test_results_belong_to_the_caller():
    x = Value(0.0)
    program = compile(x * 2, [x])
    first = program([[1.0], [2.0]])
    program([[5.0], [6.0]])
    assert first.tolist() == [2.0, 4.0]


def test_backward_without_a_batch_takes_the_latest():
    x, w = Value(0.0), Value(1.0)
    program = compile(w * x, [x], [w])
    program([[1.0], [3.0]])
    assert program.backward() == 2.0
    assert w.grad == 2.0


def test_several_outputs():
    x, y, w = Value(0.0), Value(0.0), Value(7.0)
    batch = [[1.0, 2.0], [3.0, 4.0]]
    assert compile([x + y, x * y, w], [x, y])(batch).tolist() == [[3.0, 2.0, 7.0], [7.0, 12.0, 7.0]]
    square = np.array([[x, y], [x + 1, y + 1]], dtype=object)
    assert compile(square, [x, y])(batch).tolist() == [[[1, 2], [2, 3]], [[3, 4], [4, 5]]]
    with pytest.raises(ValueError, match="2 outputs, expected one loss"):
        compile([x, y], [x, y]).backward(batch)


def test_a_loss_that_is_an_input_or_has_none():
    x, w = Value(0.0), Value(3.0)
    mean, input_gradients = compile(x, [x]).backward([[1.0], [3.0]], inputs=True)
    assert mean == 2.0 and input_gradients.tolist() == [[0.5], [0.5]]
    program = compile(w * w + 1, parameters=[w])
    assert program() == [10.0]
    assert program.backward() == 10.0 and w.grad == 6.0
    leaf = compile(w, parameters=[w])
    w.zero_grad()
    assert leaf.backward() == 3.0 and w.grad == 1.0


def test_what_depends_on_the_parameters_alone_is_still_differentiated():
    """Weight decay: computed once for all samples, with gradients from both sides."""
    x, v, w = Value(0.0), Value(2.0), Value(3.0)
    scale = (v * w).exp() * 1e-2
    loss = scale * x + scale * scale + w ** 2
    batch = np.random.default_rng(0).normal(size=(50, 1))
    mean, gradients = interpreted(loss, [x], [v, w], batch)
    program = compile(loss, [x], [v, w])
    np.testing.assert_allclose(program.backward(batch), mean, rtol=1e-12)
    np.testing.assert_allclose([v.grad, w.grad], gradients, rtol=1e-12)


def test_one_bad_sample_does_not_touch_the_others():
    x = Value(1.0)
    y = compile((1 / x).log(), [x])([[1.0], [0.0], [-1.0], [math.nan], [math.e]])
    np.testing.assert_allclose(y, [0.0, math.inf, math.nan, math.nan, -1.0])


def test_registers_are_used_again():
    """A chain needs two registers without gradients; a sum's gradients need one for all its terms."""
    x = Value(0.5)
    y = x
    for _ in range(1000):
        y = y.tanh()
    program = compile(y, [x])
    program([[1.0]])
    assert program.plans[False, False].registers <= 3
    inputs = [Value(0.1) for _ in range(100)]
    program = compile(sum(w * x for w, x in zip([Value(1.0) for _ in range(100)], inputs)), inputs)
    program.backward(np.ones((1, 100)))
    assert program.plans[True, False].registers <= 104


def test_a_graph_of_a_hundred_thousand_nodes():
    x, w = Value(0.5), Value(1.0)
    y = x
    for _ in range(50_000):
        y = y * w + 1e-5
    program = compile(y, [x], [w])
    np.testing.assert_allclose(program.backward([[0.5], [0.5]]), y.data, rtol=1e-12)
    compiled_gradient = w.grad
    w.zero_grad()
    y.backward()
    np.testing.assert_allclose(compiled_gradient, w.grad, rtol=1e-10)


def test_threads_of_python_may_share_a_program():
    loss, inputs, parameters = perceptron()
    program = compile(loss, inputs, parameters)
    batches = [np.random.default_rng(s).normal(size=(64 + s, 4)) for s in range(8)]
    expected = [program(b) for b in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for y, found in zip(expected, pool.map(program, batches)):
                np.testing.assert_array_equal(found, y)


def test_the_listing_is_a_program_that_can_be_read():
    """Each line, read back and evaluated, gives the program's number."""
    a, b = Value(2.0, "a"), Value(-3.0, "b")
    program = compile((a * b + 10).tanh().max(b - 4), [a], [b])
    names = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
    numbers, given = {}, {"a": 1.5, "b": -3.0}
    for line in str(program).splitlines():
        code = line.split("#")[0].strip()
        if code.startswith("return"):
            assert program([[1.5]])[0] == numbers[code.split()[1]]
            break
        target, right = code.split(" = ")
        operation, *operands = right.replace(",", "").split()
        if operation in ("input", "parameter"):
            numbers[target] = given[operands[0]]
        elif operation == "constant":
            numbers[target] = float(operands[0])
        else:
            numbers[target] = RULES[names.get(operation, operation)].value(*[numbers[x] for x in operands])
    assert "# a · b" in str(program)


def test_a_long_listing_is_cut_in_the_middle():
    x = y = Value(1.0)
    for _ in range(3000):
        y = y + x
    program = compile(y, [x])
    assert len(str(program).splitlines()) == 1001
    assert len(program.listing().splitlines()) == 3002


@pytest.mark.parametrize("arguments, error, message", [
    (lambda x, w: (x * w, ["x"]), TypeError, r"expected inputs\[0\] to be a Value, got 'x'"),
    (lambda x, w: (x * w, 3), TypeError, "expected inputs to be a list of Values, got 3"),
    (lambda x, w: (3.0, [x]), TypeError, "expected loss to be a Value, got 3.0"),
    (lambda x, w: ([], [x]), ValueError, "expected loss to hold a Value"),
    (lambda x, w: ([[x, w], [x]], [x]), (TypeError, ValueError), "loss"),
    (lambda x, w: (x * w, [x, Value(0.0, "idle")]), ValueError, r"the loss does not depend on inputs\[1\] \(idle\)"),
    (lambda x, w: (x * w, [x, x]), ValueError, r"inputs\[1\] \(x\) is listed twice"),
    (lambda x, w: (x * w, [x], [x]), ValueError, r"parameters\[0\] \(x\) is also an input"),
    (lambda x, w: (x * w, [x * 2]), ValueError, r"inputs\[0\] is the result of \*, expected a leaf"),
    (lambda x, w: (x * w, [x], [w], "float16"), ValueError, "dtype to be 'float64' or 'float32', got 'float16'"),
])
def test_bad_arguments_of_compile(arguments, error, message):
    with pytest.raises(error, match=message):
        compile(*arguments(Value(1.0, "x"), Value(2.0, "w")))


@pytest.mark.parametrize("batch, error, message", [
    ([[1.0, 2.0]], ValueError, r"a batch of shape \(samples, 1\), got \(1, 2\)"),
    ([1.0, 2.0], ValueError, r"a batch of shape \(samples, 1\), got \(2,\)"),
    ([[1.0], [2.0, 3.0]], ValueError, "got lists of different lengths"),
    ([["one"]], TypeError, "expected a batch of numbers"),
    ([[1j]], TypeError, "expected a batch of numbers"),
    ([[None]], TypeError, "expected a batch of numbers"),
    (None, ValueError, "expected a batch"),
])
def test_bad_batches(batch, error, message):
    x = Value(1.0)
    program = compile(x * 2, [x])
    with pytest.raises(error, match=message):
        program(batch)
    with pytest.raises(error, match=message):
        program.backward(batch)


def test_an_empty_batch_has_outputs_but_no_mean():
    x = Value(1.0)
    program = compile(x * 2, [x])
    assert program(np.empty((0, 1))).shape == (0,)
    with pytest.raises(ValueError, match="expected a batch with samples"):
        program.backward(np.empty((0, 1)))


@pytest.mark.parametrize("batch", [[[1], [2]], np.array([[True], [False]]), np.ones((4, 3))[::-2, 1:2]])
def test_batches_of_other_types_and_strides(batch):
    x = Value(1.0)
    np.testing.assert_array_equal(compile(x * 2, [x])(batch), np.array(batch, float)[:, 0] * 2)


def test_without_the_compiler_the_same_program_runs():
    code = ("from tinynet import Value\nfrom tinynet.program import compile\n"
            "x, w = Value(1.0), Value(3.0)\n"
            "program = compile((w * x).tanh() + w ** 2 / x, [x], [w])\n"
            "print(program.backward([[1.0], [2.0], [0.5]]), w.grad)\n")
    run = [subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": off}, text=True,
                          capture_output=True, check=True).stdout.split() for off in "01"]
    np.testing.assert_allclose(np.array(run[0], float), np.array(run[1], float), rtol=1e-14)
