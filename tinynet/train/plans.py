"""Capture a training step once and replay it: the same kernels on the same memory, without Python in between.

Every number of a Tensor is written by a kernel that `kernels.launch` calls, into memory that `tensors.empty_array`
allocates. A plan records both during the first run of the step; from then on the step is a list of kernel calls. CUDA
graphs work the same way.
"""

import functools
import threading

import numpy as np

from .. import kernels
from ..graph import mode
from ..tensors import Tensor


class Plan:
    """The kernel calls of one run of a step, the arrays they work on, and the guards: what must be as it was then."""

    def __init__(self, inputs):
        self.inputs = inputs  # the arrays into which each replay copies its inputs
        self.steps = []  # (kernel, arguments)
        self.calls = None  # the same as functions without arguments, from the first replay on
        self.memory = {}  # id: array, for all arrays that the step allocated
        self.gradients = {}  # leaf: its gradient array when the step ends
        self.gradient_guards = {}  # leaf: the gradient array, or None, that the step found and added to
        self.guards = []  # (object, attribute, value)
        self.results, self.single = [], True  # what the step returned, without its graph

    def own_memory(self, array):
        self.memory[id(array)] = array

    def guard_gradient(self, leaf):
        """The step adds to this gradient: it must find the same array, unless the step itself cleared it before."""
        if leaf not in self.gradients:
            self.gradient_guards.setdefault(leaf, leaf._grad)

    def record_gradient(self, leaf):
        self.gradients[leaf] = leaf._grad

    def clear_gradient(self, leaf):
        self.gradients[leaf] = None

    def record_guard(self, x, attribute, value):
        self.guards.append((x, attribute, value))

    def guards_hold(self):
        """Whether the step would do the same again."""
        for leaf, g in self.gradient_guards.items():
            if leaf._grad is not g:
                return False
        for x, attribute, value in self.guards:
            if getattr(x, attribute) != value:
                return False
        return True

    def replay(self, inputs):
        for buffer, array in zip(self.inputs, inputs):
            buffer[...] = array
        if self.calls is None:
            self.calls = kernels.replay.launch_list(self.steps)
        for call in self.calls:
            call()
        for leaf, g in self.gradients.items():
            leaf._grad = g

    def returned(self):
        """Copies of the results, for the caller to keep: the next replay writes into the plan's own memory."""
        return copied(self.results[0]) if self.single else tuple([copied(x) for x in self.results])


def copied(x):
    if isinstance(x, Tensor):
        x = x.detach()  # faster than Tensor(…), which checks what it is given
        x._data = x._data.copy()
    return x


class Plans(threading.local):
    """Plans belong to the thread that recorded them."""

    def __init__(self):
        self.known = {}


class Captured:
    """A function of tensors that runs eagerly once and as its plan from then on; see `capture`."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.name, self.function, self.local = getattr(function, "__name__", type(function).__name__), function, Plans()

    @property
    def plans(self):
        """The plans of this thread: {signature: [Plan, …]}."""
        return self.local.known

    def __call__(self, *args, **options):
        if options:
            raise TypeError(f"capture: {self.name} takes its inputs by position, got {', '.join(options)}=")
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
            raise TypeError(f"capture: expected tensors, arrays or hashable settings as inputs of {self.name}, got "
                            + ", ".join(type(x).__name__ for x in args)) from None
        for plan in plans:
            if plan.guards_hold():
                plan.replay(inputs)
                return plan.returned()
        plans.append(self.record(args))
        return plans[-1].returned()

    def record(self, args):
        """Run the function, and return the plan of this run."""
        args = [Tensor(np.array(x)) if isinstance(x, (Tensor, np.ndarray)) else x for x in args]
        plan = Plan([x._data for x in args if isinstance(x, Tensor)])
        mode.plan = plan
        try:
            results = self.function(*args)
        finally:
            mode.plan = None
        plan.single = not isinstance(results, (tuple, list))
        for x in [results] if plan.single else results:
            if not isinstance(x, (Tensor, int, float, str, type(None))):
                raise TypeError(f"capture: expected {self.name} to return tensors, or a tuple of them, got "
                                f"{type(x).__name__}")
            plan.results.append(x.detach() if isinstance(x, Tensor) else x)
        return plan


def capture(step):
    """step, recorded at its first call and replayed from then on: identical results, several times faster.

    There is one plan for each signature (shapes and dtypes of the inputs, other arguments by value) in each thread.
    Inputs are copied in; tensors that are returned are copies without a graph. Parameters, optimisers, schedules and
    random numbers change as they would eagerly. What Python does besides calling tensor operations is done once, when
    the step is recorded; so reading a number inside the step raises ValueError.

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
