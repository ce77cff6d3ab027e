"""The planner: instructions and registers for a graph.

An instruction is a line of integers: (kernel, y, a, b) forward, and (kernel, t, g, a, b, y, first) backward, which
adds g · ∂y/∂a or g · ∂y/∂b to t. Register r >= 0 is vector register r, and -1 - u is scalar register u, until the width
of a tile is known and they become addresses. Scalar registers 0 … N - 1 hold what all samples share (the parameters
first), and N … 2N - 1 the gradients of these.
"""

from typing import NamedTuple

import numpy as np

from ..kernels.backend import compiled

numba = compiled.numba  # as the kernels have set it up

KERNELS, DERIVATIVE = 12, 4  # an opcode has 12 kernels: 4 for its value, 4 for each derivative
ABSENT = -(1 << 62)


class Graph(NamedTuple):
    """A graph as arrays with a line for each node, in topological order."""

    opcode: np.ndarray  # -1 for a leaf
    arity: np.ndarray  # 0 for a leaf
    operands: np.ndarray  # (n, 2); with one operand twice the same
    reads: np.ndarray  # (n, derivative, 3): whether a derivative reads a, b, y
    is_one: np.ndarray  # (n, derivative): whether a derivative is 1 for all operands
    scalar: np.ndarray  # the node's scalar register, -1 for a node in a vector register
    requires_grad: np.ndarray


@numba.njit(cache=True)
def share_scalars(graph, scalars, has_inputs):
    """Give a scalar register to each node computed from scalars alone, and propagate `requires_grad`; returns the
    number of scalar registers.

    Without inputs that would be every node, so there each is in a vector register, of one sample, that is used again.
    """
    scalar = graph.scalar
    for i in range(len(scalar)):
        if graph.arity[i]:
            a, b = graph.operands[i, 0], graph.operands[i, 1]
            graph.requires_grad[i] = graph.requires_grad[a] or graph.requires_grad[b]
            if has_inputs and scalar[a] >= 0 and scalar[b] >= 0:
                scalar[i] = scalars
                scalars += 1
    return scalars


@numba.njit(cache=True)
def lifetimes(graph, outputs):
    """When each register is read for the last time, and which nodes share one for their gradients.

    Node i is computed at time i, and its gradient is propagated at time 2n - 1 - i.

    Returns, for each node: `last`, when its value is read for the last time; `alias`, the node whose register holds its
    gradient; `end`, for such a node, the node at which that register is read for the last time (-1: kept).
    """
    n = len(graph.opcode)
    last, alias, end = np.arange(n), np.arange(n), np.arange(n)
    uses = np.zeros(n, np.int64)  # how many contributions a gradient is the sum of
    for i in range(n):
        if graph.arity[i] and graph.scalar[i] < 0:
            for x in graph.operands[i]:
                last[x] = i
    for i in outputs:
        last[i] = n
    for i in range(n - 1, -1, -1):
        if graph.scalar[i] < 0 and graph.requires_grad[i]:
            for k in range(graph.arity[i]):
                x = graph.operands[i, k]
                if graph.requires_grad[x]:
                    uses[x] += 1
                    for j in range(3):
                        if graph.reads[i, k, j]:
                            last[i if j == 2 else graph.operands[i, j]] = 2 * n - 1 - i
    for i in range(n - 1, -1, -1):
        if graph.scalar[i] < 0 and graph.requires_grad[i]:
            for k in range(graph.arity[i]):
                x = graph.operands[i, k]
                # A derivative of 1 and no other use, as all along a sum: the gradient of x is that of its user.
                if graph.requires_grad[x] and graph.scalar[x] < 0 and uses[x] == 1 and graph.is_one[i, k]:
                    alias[x] = alias[i]
        if not graph.arity[i] and graph.requires_grad[i]:
            end[alias[i]] = -1
        elif end[alias[i]] >= 0:
            end[alias[i]] = i
    return last, alias, end


@numba.njit(cache=True)
def release(free, register):
    """Another node may take this register. free[0] counts the free registers; the latest goes first."""
    free[0] += 1
    free[free[0] + 1] = register


@numba.njit(cache=True)
def take(free):
    """A free register, or a new one; free[1] counts all registers."""
    if free[0]:
        free[0] -= 1
        return free[free[0] + 2]
    free[1] += 1
    return free[1] - 1


@numba.njit(cache=True)
def release_last_read(graph, i, last, now, register, free):
    """Release the registers of the operands of node i that are read for the last time now."""
    a, b = graph.operands[i, 0], graph.operands[i, 1]
    if last[a] == now and graph.scalar[a] < 0:
        release(free, register[a])
    if last[b] == now and graph.scalar[b] < 0 and a != b:
        release(free, register[b])


@numba.njit(cache=True)
def kernel_of(graph, i, derivative):
    """The kernel for node i: its value (0) or a derivative, for the kinds of its operands (see `STEPS`)."""
    a, b = graph.scalar[graph.operands[i, 0]], graph.scalar[graph.operands[i, 1]]
    kinds = 0 if (a < 0) == (b < 0) else 1 if a >= 0 else 2
    return graph.opcode[i] * KERNELS + derivative * DERIVATIVE + kinds


@numba.njit(cache=True)
def plan_forward(graph, last, once, code, register, free):
    """Write the forward instructions, for scalars into `once` and for vectors into `code`, and the register of each
    node's value; returns how many there are.

    A kernel never writes a register that it reads: those are released after the result has its own.
    """
    scalars = vectors = 0
    for i in range(len(graph.opcode)):
        if graph.scalar[i] >= 0:
            register[i] = -1 - graph.scalar[i]
        elif not graph.arity[i]:
            register[i] = take(free)  # all inputs are there before the first instruction runs
    for i in range(len(graph.opcode)):
        if not graph.arity[i]:
            continue
        if graph.scalar[i] >= 0:
            line = once[scalars]
            scalars += 1
        else:
            register[i] = take(free)
            line = code[vectors]
            vectors += 1
            release_last_read(graph, i, last, i, register, free)
        line[0], line[1] = kernel_of(graph, i, 0), register[i]
        line[2], line[3] = register[graph.operands[i, 0]], register[graph.operands[i, 1]]
    return scalars, vectors


@numba.njit(cache=True)
def plan_backward(graph, n_scalars, last, alias, end, root, once, code, register, gradient, free):
    """Write the backward instructions, and the register of each node's gradient; returns how many there are."""
    n = len(graph.opcode)
    scalars = vectors = 0
    written = np.zeros(n, np.bool_)
    for i in range(n):
        gradient[i] = -1 - (n_scalars + graph.scalar[i]) if graph.scalar[i] >= 0 else ABSENT
    if graph.scalar[root] < 0:
        gradient[root] = take(free)
    for i in range(n - 1, -1, -1):
        if not graph.arity[i] or not graph.requires_grad[i]:
            continue
        a, b = graph.operands[i, 0], graph.operands[i, 1]
        for k in range(graph.arity[i]):
            x = graph.operands[i, k]
            if not graph.requires_grad[x] or alias[x] != x:
                continue
            if graph.scalar[i] >= 0:
                line = once[scalars]
                scalars += 1
            else:
                if gradient[x] == ABSENT:
                    gradient[x] = take(free)
                line = code[vectors]
                vectors += 1
            line[0], line[1], line[2] = kernel_of(graph, i, k + 1), gradient[x], gradient[alias[i]]
            line[3], line[4], line[5] = register[a], register[b], register[i]
            line[6] = 0 if written[x] or graph.scalar[i] >= 0 else 1
            written[x] = True
        if graph.scalar[i] < 0:
            now = 2 * n - 1 - i
            release_last_read(graph, i, last, now, register, free)
            if last[i] == now:
                release(free, register[i])
            if end[alias[i]] == i:
                release(free, gradient[alias[i]])
    for i in range(n):
        gradient[i] = gradient[alias[i]]
    return scalars, vectors
