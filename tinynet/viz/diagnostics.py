"""Common mistakes, found in a graph: `diagnose(loss)` says where each one is, and what to do about it.

>>> from tinynet import Value
>>> a = Value(3.0, label="a")
>>> f = a * a
>>> [sentence for _, sentence in diagnose(f)]
['backward() not called: there are no gradients yet; call backward() first']
"""

import copy
import math
import operator
import re

from ..errors import describe
from ..graph import topological
from ..value import RULES, Rule, Value
from .formulas import activation_of
from .labels import Models, data_of, extent, grad_of, is_node, names, numeral, one_line

SATURATED = 1e-3  # a tanh or sigmoid whose derivative is below this passes almost no gradient
MANY = 8  # so many samples decide whether a neuron is dead, or just inactive for these


def diagnose(root, parameters=()):
    """What goes wrong in a graph, as [(node, sentence)]; nothing for a healthy one.

    Seven things are found: backward() not called, backward() called twice, gradients left from an earlier step, a dead
    ReLU, a saturated tanh or sigmoid, a parameter that the loss does not depend on, and the origin of NaN. Each
    sentence begins with the name of the mistake and a colon, then says what to do.

    `root` is a Value or a Tensor, or a list of them. `parameters` are a model, or leaves that the loss should depend
    on; those of the layers that were called in the graph are known anyway.
    """
    roots = list(root) if isinstance(root, (list, tuple)) else [root]
    is_model = hasattr(parameters, "named_parameters")
    for x in roots if is_model else (*roots, *parameters):
        if not is_node(x):
            raise TypeError(f"diagnose: expected Values or Tensors, got {describe(x)}")
    order = topological(*roots)
    inside, known = set(order), Models(order).parameters
    if is_model:
        known.update({p: name for name, p in parameters.named_parameters()})
    else:
        known.update({p: p.label for p in parameters if p not in known})
    name = names([*order, *(p for p in known if p not in inside)])
    found = origin_of_nan(order, roots, name)
    if not found and len(roots) == 1:
        found = wrong_gradients(roots[0], order, name)
    scalar = all(isinstance(node, Value) for node in order)
    closed = dead_or_saturated(order, roots, known, name) if scalar else dead_or_saturated_units(order, name)
    return found + closed + unconnected(inside, known, name)


def contributions(root):
    """Yield (node, i, g, contribution) in backward order: input i of node, whose upstream gradient is g, receives
    `contribution`.
    """
    for node, g in root.gradients():
        if node.inputs:
            both = (node, *node.inputs) if not isinstance(node, Value) else (node.data, *[x.data for x in node.inputs])
            for i, contribution in enumerate(node.op.vjp(g, *both)):
                if contribution is not None and node.inputs[i].requires_grad:
                    yield node, i, g, contribution


# --------------------------------------------------------------------------------------------------- NaN, and gradients


def has_nan(x):
    if isinstance(x, (float, int, type(None))):
        return x is not None and math.isnan(x)
    return x.dtype.kind == "f" and bool((abs(x) >= 0.0).all()) is False  # every comparison with a NaN is False


def origin_of_nan(order, roots, name):
    """The first operation that produced NaN, in the forward pass, or else in the backward pass."""
    for node in order:
        if has_nan(data_of(node)) and not any(has_nan(data_of(x)) for x in node.inputs):
            if not node.inputs:
                return [(node, f"Origin of NaN: {name[node]} is NaN from the start; check the data it was made from")]
            numbers = ", ".join(f"{name[x]} = {extent([data_of(x)], numeral)}" for x in node.inputs)
            return [(node, f"Origin of NaN: {node.op.name} produced NaN in {name[node]} from {numbers}; keep its "
                           "operands in range")]
    if len(roots) == 1 and any(has_nan(grad_of(node)) for node in order):
        for node, i, _, contribution in contributions(roots[0]):
            if has_nan(contribution):
                x = node.inputs[i]
                return [(node, f"Origin of NaN: in the backward pass, {node.op.name} has no derivative with respect "
                               f"to {name[x]} at {extent([data_of(x)], numeral)}; keep it where the operation is "
                               "differentiable")]
    return []


def wrong_gradients(root, order, name):
    """backward() not called or called twice, or gradients of an earlier step: compared with those of this graph."""
    leaves = [node for node in order if not node.inputs and node.requires_grad]
    if not root.inputs or not leaves or not root.requires_grad:
        return []
    value = isinstance(root, Value)
    if root.grad is None if value else all(leaf.grad is None for leaf in leaves):
        call = f"{name[root]}.backward()" if root.label.isidentifier() else "backward()"
        return [(root, f"backward() not called: there are no gradients yet; call {call} first")]
    if (root.grad != 1.0 if value else root._data.size != 1) or not is_current(order):
        return []  # gradients of something made from the root, or of numbers that an optimizer has changed since
    try:
        fresh = dict(root.gradients())
    except ValueError:
        return []
    leaves = [leaf for leaf in leaves if leaf.grad is not None and leaf in fresh]
    times = ratio([(grad_of(leaf), fresh[leaf]) for leaf in leaves])
    if times is None:
        left = [leaf for leaf in leaves if not same(grad_of(leaf), fresh[leaf])]
        more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
        sizes = f" ({numeral(left[0].grad)}; this graph gives {numeral(fresh[left[0]])})" if value else ""
        return [(left[0], f"Stale gradients: those of {name[left[0]]}{sizes}{more} still contain gradients of an "
                          "earlier step; call zero_grad() before backward()")]
    if times > 1.5:
        return [(root, f"backward() called twice: the gradients of the leaves are {times:.0f} times those of this "
                       "graph; call backward() once, after zero_grad()")]
    return []


def is_current(order):
    """Whether the numbers in a graph still follow from its leaves."""
    for node in filter(operator.attrgetter("inputs"), order):
        numbers, again = [data_of(x) for x in node.inputs], None
        reads_leaf = any(x.requires_grad and not x.inputs for x in node.inputs)
        try:
            if isinstance(node.op, Rule):
                again = node.op.value(*numbers)
            elif reads_leaf and not re.search("drop|norm", node.op.name):  # no memory, not random
                again = copy.copy(node.op).forward(*numbers)
        except (ArithmeticError, ValueError):
            return False
        if again is not None and not same(again, data_of(node), tolerance=1e-6):
            return False
    return True


def same(a, b, tolerance=1e-4):
    """Whether two gradients are equal but for rounding: of doubles, or of float32 arrays."""
    if isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)
    return a.shape == b.shape and (not a.size or float(abs(a - b).max()) <= tolerance * float(abs(b).max()) + 1e-12)


def ratio(pairs):
    """k where every gradient is k times the expected one: 1, an integer, or less than 1 (clipped); else None."""
    def size(x):
        return abs(x) if isinstance(x, float) else float(abs(x).max(initial=0.0))

    got, due = max(pairs, key=lambda pair: size(pair[1]), default=(0.0, 0.0))
    k = size(got) / size(due) if size(due) else 1.0
    if k > 1.0 - 1e-4:
        k = float(round(k))
    return k if all(same(a, b * k) for a, b in pairs) else None


def unconnected(inside, known, name):
    """Parameters that the graph does not contain; an array of Values as a whole."""
    missing, reached = {}, set()
    for p, label in known.items():
        stem = label.partition("[")[0] or id(p)
        if p in inside:
            reached.add(stem)
        elif p.requires_grad:
            missing.setdefault(stem, p)
    return [(p, "Unconnected parameter: the loss does not depend on "
                f"{one_line(stem) if isinstance(stem, str) else name[p]}, so it is not trained; use it in forward() "
                "(detach() and item() cut the graph), or remove it")
            for stem, p in missing.items() if stem not in reached]


# ---------------------------------------------------------------------------------------------- dead or saturated units

ACTIVATIONS = ("relu", "tanh", "sigmoid")  # their derivatives vanish at one end or at both


def passes_nothing(kind, y):
    """Whether an activation with result y passes almost no gradient. (relu: y ≤ 0 exactly where its operand is.)"""
    return abs(RULES[kind].derivatives[0](y, y)) < SATURATED


def dead_or_saturated(order, roots, known, name):
    """ReLUs that are never active, and tanhs and sigmoids that are always saturated.

    A neuron of a layer is judged by all its samples; one sample proves nothing, unless all of the layer is closed. An
    activation outside a layer is judged by whether most of what it was computed from gets no gradient at all.
    """
    units = [node for node in order if node.inputs and node.op.name in ACTIVATIONS]
    closed = {node for node in units if passes_nothing(node.op.name, node.data)}
    if not closed:
        return []
    alive, stack = set(), list(roots)
    while stack:  # where the gradient of the root still arrives
        node = stack.pop()
        if node not in alive:
            alive.add(node)
            stack += node.inputs if node not in closed else ()
    layers, found = {}, []
    for node in units:
        if node.scope is not None:
            layers.setdefault((id(node.scope.module), node.op.name), []).append(node)
        elif node in closed and node in alive:
            sources = [x for x in sources_of(node) if x.requires_grad]
            if 2 * sum(x not in alive for x in sources) > len(sources):
                found.append((node, sentence_of(node.op.name, name[node], f"at {numeral(node.inputs[0].data)}")))
    for layer in layers.values():
        first = layer[0]
        if closed.issuperset(layer):
            where = f"and all {len(layer):,} of its layer" if len(layer) > 1 else f"at {numeral(first.inputs[0].data)}"
            found.append((first, sentence_of(first.op.name, name[first], where)))
        elif not closed.isdisjoint(layer):
            neurons = {}
            for node in layer:
                neurons.setdefault(frozenset(x for x in sources_of(node) if x in known) or (node,), []).append(node)
            dead = {neuron_name(neuron, known) or name[samples[0]]: samples for neuron, samples in neurons.items()
                    if len(samples) >= MANY and closed.issuperset(samples)}
            if dead:
                called, samples = list(dead), next(iter(dead.values()))
                more = f" and {len(called) - 8:,} more" if len(called) > 8 else ""
                subject = called[0] if len(called) == 1 else f"each of {', '.join(called[:8])}{more}"
                found.append((samples[0], sentence_of(first.op.name, subject, f"for all {len(samples):,} samples")))
    return found


def dead_or_saturated_units(order, name):
    """The same for arrays: units, along the last axis, that are closed for all samples."""
    found = []
    for node in order:
        kind = activation_of(node.op) or getattr(node.op, "name", "")
        y = data_of(node)
        if isinstance(node, Value) or not node.inputs or kind not in ACTIVATIONS or not y.size:
            continue
        y = y.reshape(-1, y.shape[-1] if y.ndim else 1)
        closed = sum(all(passes_nothing(kind, x) for x in unit.tolist()) for unit in y.T)
        if closed == y.shape[1] or len(y) >= MANY and closed:
            where = f"in {closed:,} of {y.shape[1]:,} units, for all {len(y):,} samples"
            found.append((node, sentence_of(kind, name[node], where)))
    return found


def sentence_of(kind, name, where):
    if kind == "relu":
        return (f"Dead ReLU: {name} is 0 {where}, and passes no gradient; use another initialization, raise the bias, "
                "or lower the learning rate")
    return (f"Saturated {kind}: {name} is saturated {where}, and passes almost no gradient; use smaller weights, or "
            "standardize the inputs")


def neuron_name(neuron, known):
    """layers.0[3], after the parameters that it was computed from; "" where they have no such names."""
    path, _, index = min((known[x] for x in neuron if x in known), default="").partition("[")
    return f"{path.rpartition('.')[0]}[{index.strip(']').split(',')[0]}]" if index else ""


def sources_of(node):
    """What an activation was computed from: leaves, and activations before it; sums and products are looked through."""
    found, seen, stack = [], set(), list(node.inputs)
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            if len(x.inputs) == 2 or x.inputs and x.op.name == "neg":
                stack += x.inputs
            else:
                found.append(x)
    return found
