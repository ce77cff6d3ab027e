"""Capture a training step once, and replay it: the same kernels on the same memory, without anything in between.

Every number of a Tensor is written by a kernel that is called through one door (`kernels.run`), into memory that comes
from one place (`tensors.empty_array`). A plan notes both while the step runs for the first time; from then on the
step is a list of kernel calls. CUDA graphs work the same way.
"""

import functools
import threading

import numpy as np

from .. import kernels
from ..errors import refusing
from ..graph import mode
from ..tensors import Tensor


class Plan:
    """The kernel calls of one run of a step, the arrays they work on, and what was true when they were recorded."""

    def __init__(self, inputs):
        self.inputs = inputs  # the arrays into which each replay copies its inputs
        self.steps = []  # (kernel, arguments)
        self.calls = None  # the same as functions without arguments, once it is replayed
        self.owned = {}  # id: array, for all the memory that the step asked for
        self.gradients = {}  # leaf: the array that its gradient is in when the step ends
        self.entry = {}  # leaf: the gradient array that it had, or None, where the step added to it
        self.guards = []  # (module, attribute, value)

    def own_memory(self, array):
        self.owned[id(array)] = array

    def guard_gradient(self, leaf):
        """The step adds to this gradient: it must find it as it was, unless the step itself had cleared it."""
        if leaf not in self.gradients:
            self.entry.setdefault(leaf, leaf._grad)

    def record_gradient(self, leaf):
        self.gradients[leaf] = leaf._grad

    def clear_gradient(self, leaf):
        self.gradients[leaf] = None

    def record_guard(self, module, attribute, value):
        self.guards.append((module, attribute, value))

    def guards_hold(self):
        """Whether the step would do the same again."""
        for leaf, g in self.entry.items():
            if leaf._grad is not g:
                return False
        for module, attribute, value in self.guards:
            if getattr(module, attribute) != value:
                return False
        return True

    def replay(self, inputs):
        for buffer, array in zip(self.inputs, inputs):
            buffer[...] = array
        if self.calls is None:
            self.calls = kernels.replay.joined(self.steps)
        for call in self.calls:
            call()
        for leaf, g in self.gradients.items():
            leaf._grad = g


class Plans(threading.local):
    """Plans belong to the thread that recorded them."""

    def __init__(self):
        self.known = {}  # {signature: [(Plan, result), …]}


class Captured:
    """A function of tensors that runs once as it is written, and from then on as its plan; see `capture`."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self.local = Plans()

    @property
    def plans(self):
        """The plans of this thread: {signature: [(Plan, result), …]}."""
        return self.local.known

    def __call__(self, *args, **options):
        if options:
            raise TypeError(f"capture: {self.__name__} takes its inputs by position, got {', '.join(options)}=")
        if mode.plan is not None:  # a captured function inside a captured function is a part of it
            return self.function(*args)
        inputs, signature = [], [mode.grad_enabled, mode.reference]
        for x in args:
            if isinstance(x, Tensor):
                x = x._data
            if isinstance(x, np.ndarray):
                inputs.append(x)
                x = x.shape, x.dtype
            signature.append(x)
        try:
            plans = self.local.known.setdefault(tuple(signature), [])
        except TypeError:
            raise TypeError(f"capture: the inputs of {self.__name__} are tensors, arrays or plain settings, got "
                            + ", ".join(type(x).__name__ for x in args)) from None
        for plan, result in plans:
            if plan.guards_hold():
                plan.replay(inputs)
                return kept(result)
        return self.record(args, plans)

    def record(self, args, plans):
        buffers = [np.array(x._data if isinstance(x, Tensor) else x) if isinstance(x, (Tensor, np.ndarray)) else x
                   for x in args]
        plan = Plan([x for x in buffers if isinstance(x, np.ndarray)])
        mode.plan = plan
        try:
            result = self.function(*[Tensor(x) if isinstance(x, np.ndarray) else x for x in buffers])
        finally:
            mode.plan = None
        check(result, self.__name__)
        plans.append((plan, forgotten(result)))
        return kept(result)


def check(result, name):
    for x in result if isinstance(result, (tuple, list)) else [result]:
        if not isinstance(x, (Tensor, int, float, str, type(None))):
            raise TypeError(f"capture: {name} returns tensors, or a tuple of them, got {type(x).__name__}")


def forgotten(result):
    """The result without the graph that made it: a plan needs its memory alone."""
    if isinstance(result, (tuple, list)):
        return tuple(forgotten(x) for x in result)
    return result.detach() if isinstance(result, Tensor) else result


def kept(result):
    """A copy of the result, which is the caller's: the next replay writes into the plan's own memory."""
    if isinstance(result, tuple):
        return tuple(kept(x) for x in result)
    if isinstance(result, Tensor):
        result = result.detach()
        result._data = result._data.copy()
    return result


@refusing
def capture(step):
    """step, recorded at its first call and replayed from then on: the same numbers, several times faster.

    There is one plan for each signature (shapes and dtypes of the inputs, other arguments by value) in each thread.
    Inputs are copied in; tensors that come back are copies, without a graph, and the caller's to keep. Parameters,
    optimisers, schedules and random numbers go on as they would. What Python does besides calling tensor operations
    is done once, when the step is recorded; reading a number inside the step is therefore refused (ValueError).

    >>> from tinynet import capture, nn, optim, randn
    >>> model = nn.Linear(3, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> @capture
    ... def step(x, y):
    ...     loss = nn.functional.mse_loss(model(x), y)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = randn(8, 3), randn(8, 1)
    >>> losses = [step(x, y).item() for _ in range(20)]
    >>> losses[-1] < losses[0]
    True
    """
    if not callable(step):
        raise TypeError(f"capture: expected a function, got {type(step).__name__}")
    return Captured(step)
