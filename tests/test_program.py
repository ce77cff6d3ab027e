"""A compiled program computes what the interpreted engine computes: values, gradients, on random graphs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import value as page
from tinynet.program import compile, opcodes
from tinynet.value import RULES, Rule, Value

NUMBERS = st.one_of(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), st.floats(-3, 3))


def apply(rule, *operands):
    return page.node(rule, operands, [x.data for x in operands])


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
        nodes.append(apply(rule, *[nodes[p] for p in places]))
    loss = nodes[-1]
    for x in nodes[:-1]:
        loss = loss + x * 0.5
    return loss, inputs, weights


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_random_graphs_equal_the_interpreted_engine(recipe):
    steps, batch, parameters, constants = recipe
    losses, slopes, gradients = [], [], []
    for sample in batch:
        loss, inputs, weights = build(steps, sample, parameters, constants)
        loss.backward()
        losses.append(loss.data)
        slopes.append([x.grad for x in inputs])
        gradients.append([w.grad for w in weights])
    losses, gradients = np.array(losses), np.array(gradients)
    slopes = np.array(slopes).reshape(batch.shape) / len(batch)

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
        size = np.abs(slopes).max(initial=0) * 1 + 1
        np.testing.assert_allclose(found, slopes, rtol=0, atol=tolerance * size)
