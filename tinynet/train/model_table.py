"""A model as a table: `summary`."""

import numpy as np

from ..errors import is_int
from ..graph import no_grad, one_line
from ..nn.module import Module, shape_of
from ..tensors import Tensor


class Table(str):
    """Text that a notebook and the prompt show as it is."""

    __repr__ = str.__str__


def summary(model, input_shape):
    """A table of a model's layers in the order in which they are called: layer, output shape, parameters.

    input_shape has the batch as its first axis, as in draw(model, (32, 784)).

    >>> from tinynet import nn
    >>> summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), (8, 4))
    layer        output shape   parameters
    Sequential   (8, 1)
      0 Linear   (8, 3)                 15
      1 ReLU     (8, 3)
      2 Linear   (8, 1)                  4
    input (8, 4), parameters 19, trainable 19
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: expected a Module, got {type(model).__name__}")
    if not isinstance(input_shape, (tuple, list)) or not all(is_int(n) and n > 0 for n in input_shape):
        raise ValueError(f"summary: expected input_shape to be a tuple of positive integers, the batch first, got "
                         f"{input_shape!r}")
    first = next((p for p in model.parameters() if isinstance(p, Tensor)), None)
    x = np.zeros(input_shape, np.float32 if first is None else first.dtype)
    try:
        calls = traced(model, Tensor(x))
    except TypeError:  # a model of tokens takes integers
        calls = traced(model, Tensor(x.astype(np.int64)))
    counts = {}
    for _, module, _, p in model.named_arrays():
        counts[module] = counts.get(module, 0) + (p.numel() if isinstance(p, Tensor) else np.size(p))
    rows, paths = [("layer", "output shape", "parameters")], {module: path for path, module in model.named_modules()}
    for module in [*calls, *(module for module in counts if module not in calls)]:
        depth, shape = calls.get(module, (paths[module].count(".") + 1, "not called"))
        name = one_line(f"{paths[module].rpartition('.')[2]} {type(module).__name__}")
        rows.append(("  " * depth + name, shape, f"{counts[module]:,}" if module in counts else ""))
    widths = [max(len(row[i]) for row in rows) + 3 for i in range(2)]
    lines = [f"{a:{widths[0]}}{b:{widths[1]}}{c:>10}".rstrip() for a, b, c in rows]
    trainable = sum(p.numel() if isinstance(p, Tensor) else 1 for p in model.parameters() if p.requires_grad)
    shape = tuple(input_shape)
    lines.append(f"input {shape}, parameters {sum(counts.values()):,}, trainable {trainable:,}")
    return Table("\n".join(lines))


def traced(model, x):
    """{module: (depth of the call, output shape)} of the modules that model(x) calls, in that order, in eval mode."""
    calls, depth, modules = {}, 0, [(module, module.training) for module in model.modules()]

    def wrapped(module, forward):
        def run(*inputs, **options):
            nonlocal depth
            calls.setdefault(module, (depth, ""))
            depth += 1
            try:
                output = forward(*inputs, **options)
            finally:
                depth -= 1
            calls[module] = calls[module][0], str(shape_of(output))
            return output

        return run

    own = {module: vars(module)["forward"] for module, _ in modules if "forward" in vars(module)}
    for module, _ in modules:
        module.forward = wrapped(module, module.forward)
    try:
        with no_grad():
            model.eval()(x)
    finally:
        for module, training in modules:
            module.training = training
            del module.forward
        for module, forward in own.items():
            module.forward = forward
    return calls
