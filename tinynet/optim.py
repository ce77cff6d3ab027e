"""Optimisers, written once: each applies an update rule (kernels/updates.py) to every parameter that has a gradient.

A single Value is updated by the rule itself, on Python floats; a Tensor by the same rule, compiled to go through the
array. The settings live in `param_groups`, as in PyTorch, where a schedule (or you) may change them between steps.

>>> from tinynet import Value, optim
>>> x = Value(1.0)
>>> optimizer = optim.SGD([x], lr=0.1)
>>> (x * x).backward()
>>> optimizer.step()                        # x - 0.1 · 2x
>>> x.data
0.8
"""

import math
import sys

import numpy as np

from . import kernels
from .errors import refusing
from .graph import mode
from .kernels import launch, updates
from .tensors import Tensor, bump_version, copied
from .value import Value


class Clock:
    """How many steps some parameters have taken, and the terms of the update for this step: `now` for numbers, and the
    same in an array, `h`, for kernels.

    `tick` is called through the door of the kernels: a replayed step counts on, and sees a changed learning rate.
    """

    def __init__(self, terms, group, t=0):
        self.terms, self.group, self.t = terms, group, t
        self.now, self.h = (), np.zeros(8)

    def tick(self):
        self.t += 1
        self.now = self.terms(self.t, self.group)
        self.h[:len(self.now)] = self.now


@refusing
class Optimizer:
    """What all optimisers share. A subclass gives, for a group of settings,

        terms(t, group)   the terms of its formula at step t = 1, 2, …
        rule(group)       (formula on numbers, name of its kernel, names of its state, which begins at 0)
    """

    def __init__(self, params, **settings):
        name = type(self).__name__
        params = [params] if isinstance(params, (Tensor, Value)) else list(params)
        if not params:
            raise ValueError(f"{name}: expected parameters, got an empty list")
        self.param_groups = []
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            if not isinstance(group, dict) or "params" not in group:
                raise TypeError(f'{name}: a group is a dict with "params", got {type(group).__name__}')
            members = group["params"]
            members = [members] if isinstance(members, (Tensor, Value)) else list(members)
            group = {**settings, **group, "params": members}
            check(name, group, settings)
            self.param_groups.append(group)
        self.settings = settings
        self.state = {}  # of each parameter: its Clock, then its state, floats or arrays of one axis
        self.loads = 0

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.zero_grad()

    def step(self):
        """Update every parameter that has a gradient."""
        if mode.plan is not None:
            mode.plan.assumes(self, "loads", self.loads)  # load_state_dict puts other arrays in place
        for group in self.param_groups:
            update, kernel, names = self.rule(group)
            launched, started, ticked, waiting = None, None, set(), []
            for p in group["params"]:
                tensor = isinstance(p, Tensor)
                g = p._grad if tensor else p.grad
                if g is None:
                    waiting.append(p)
                    continue
                state = self.state.get(p)
                if state is None:
                    started = started or Clock(self.terms, group)
                    state = self.state[p] = [started, *(np.zeros(g.size, g.dtype) if tensor else 0.0 for _ in names)]
                clock = state[0]
                if clock not in ticked:
                    ticked.add(clock)
                    launch(clock.tick)
                if tensor:
                    numbers = p._data if p._data.flags.carray else in_rows(p._data)
                    launched = launched or kernel()
                    launch(launched, numbers.ravel(), g.ravel(), *state[1:], clock.h)
                    if numbers is not p._data:
                        launch(np.copyto, p._data, numbers)
                    bump_version(p)
                else:
                    p.data, *state[1:] = update(p.data, g, *state[1:], *clock.now)
            for p in waiting:  # who had no gradient while its companions went on gets a clock of its own
                if p in self.state and self.state[p][0] in ticked:
                    self.state[p][0] = Clock(self.terms, group, self.state[p][0].t - 1)

    def state_dict(self):
        """{"state": {i: {"step": …, name: array}}, "param_groups": […]}, parameters by their number, as in PyTorch."""
        params = [p for group in self.param_groups for p in group["params"]]
        number = {p: i for i, p in enumerate(params)}
        state = {}
        for group in self.param_groups:
            names = self.rule(group)[2]
            for p in group["params"]:
                if p in self.state:
                    clock, *own = self.state[p]
                    own = [x.reshape(p.shape).copy() if isinstance(p, Tensor) else x for x in own]
                    state[number[p]] = {"step": clock.t, **dict(zip(names, own))}
        return {"state": state, "param_groups": [{**group, "params": [number[p] for p in group["params"]]}
                                                 for group in self.param_groups]}

    def load_state_dict(self, state_dict):
        """Take over a state_dict of the same optimiser; ValueError, and nothing changed, where it does not fit."""
        self.accept(state_dict)()

    def accept(self, state_dict):
        """Check a state_dict, and return the function that takes it over."""
        name = f"{type(self).__name__}.load_state_dict"
        try:
            groups, entries = [dict(group) for group in state_dict["param_groups"]], dict(state_dict["state"])
            numbers = [list(group.pop("params")) for group in groups]
        except (TypeError, ValueError, KeyError):
            raise ValueError(f"{name}: expected the state_dict of an optimiser") from None
        sizes, expected = [len(g) for g in numbers], [len(g["params"]) for g in self.param_groups]
        if sizes != expected:
            raise ValueError(f"{name}: expected groups of {expected} parameters, got {sizes}")
        loaded, clocks = {}, {}
        for group, saved, places in zip(self.param_groups, groups, numbers):
            for setting in [s for s in saved if s in PYTORCH or (s not in self.settings and not saved[s])]:
                del saved[setting]
            try:
                check(name, {"params": [], **saved}, self.settings)
            except TypeError as error:
                raise ValueError(str(error)) from None
            names = self.rule({**group, **saved})[2]
            for p, i in zip(group["params"], places):
                entry = entries.get(i, entries.get(str(i)))
                if entry is None:
                    continue
                arrays = [fitting(name, entry, n, i, p) for n in names]
                t = int(fitting(name, {"step": 1, **entry}, "step", i))  # PyTorch's SGD counts no steps
                clock = clocks.setdefault((id(group), t), Clock(self.terms, group, t))
                loaded[p] = [clock, *arrays]

        def take_over():
            for group, saved in zip(self.param_groups, groups):
                group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
            self.state = loaded
            self.loads += 1

        return take_over


def in_rows(array):
    """A copy, row by row, of a parameter that lies in memory in another way."""
    if not array.flags.writeable:
        raise ValueError(f"step: a parameter of shape {array.shape} lies in memory that is read-only")
    return copied(array)


PYTORCH = ("foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay")  # how it computes, not what


def fitting(name, entry, part, i, p=None):
    """One part of a parameter's saved state, in the shape and dtype of the parameter."""
    tensor = isinstance(p, Tensor)
    shape = p.shape if tensor else ()
    try:
        array = np.array(entry[part], dtype=p.dtype if tensor else float)
    except KeyError:
        raise ValueError(f"{name}: parameter {i} has no {part}") from None
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {part} of parameter {i} is not an array of numbers") from None
    if array.shape != shape or (p is None and not 0 <= array < math.inf):
        got = f"has shape {array.shape}, expected {shape}" if array.shape != shape else f"is {array}"
        raise ValueError(f"{name}: {part} of parameter {i} {got}")
    return array.ravel() if tensor else float(array)


def check(name, group, settings):
    """Refuse settings that cannot be right, and what is no parameter."""
    for setting, value in group.items():
        if setting not in settings and setting not in ("params", "initial_lr"):
            raise TypeError(f"{name}: unknown setting {setting!r}; it knows {', '.join(settings)}")
        if setting == "betas":
            if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
                raise ValueError(f"{name}: betas are two numbers in [0, 1), got {value!r}")
        elif setting not in ("params", "nesterov", "centered"):
            if isinstance(value, str) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: {setting} is a number from 0 on, got {value!r}")
    for p in group["params"]:
        if not isinstance(p, (Tensor, Value)) or p.inputs:
            raise TypeError(f"{name}: expected parameters (leaf Tensors or Values), got "
                            + ("the result of a computation" if isinstance(p, (Tensor, Value)) else type(p).__name__))


@refusing
class SGD(Optimizer):
    """v ← momentum · v + (1 - dampening) g; p ← p - lr · v (Nesterov: p - lr (g + momentum · v)).

    Stochastic gradient descent, Robbins and Monro (1951); momentum, Polyak (1964), Nesterov (1983).
    """

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False):
        if nesterov and (momentum == 0 or dampening != 0):
            raise ValueError("SGD: nesterov needs a momentum above 0 and dampening 0")
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                         nesterov=nesterov)

    def terms(self, t, group):
        return updates.sgd_terms(t, group["lr"], group["momentum"], group["dampening"], group["weight_decay"],
                                 group["nesterov"])

    def rule(self, group):
        if group["momentum"] == 0:
            return plain_sgd, lambda: kernels.optimizers.plain_sgd, ()
        return updates.sgd_update, lambda: kernels.optimizers.sgd, ("momentum_buffer",)


def plain_sgd(p, g, lr, momentum, fresh, weight_decay, nesterov):
    return (updates.plain_sgd_update(p, g, lr, weight_decay),)


@refusing
class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr · m̂ / (√v̂ + eps). Kingma and Ba (2015)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def terms(self, t, group):
        return updates.adam_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adam_update, lambda: kernels.optimizers.adam, ("exp_avg", "exp_avg_sq")


@refusing
class AdamW(Optimizer):
    """Adam with a weight decay of the parameter itself: p ← p - lr · weight_decay · p. Loshchilov and Hutter (2019)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def terms(self, t, group):
        return updates.adamw_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adamw_update, lambda: kernels.optimizers.adamw, ("exp_avg", "exp_avg_sq")


@refusing
class RMSprop(Optimizer):
    """s ← α s + (1 - α) g²; v ← momentum · v + g / (√s + eps); p ← p - lr v (Hinton, 2012; centered: Graves, 2013)."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False):
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
                         centered=centered)

    def terms(self, t, group):
        return updates.rmsprop_terms(t, group["lr"], group["alpha"], group["eps"], group["weight_decay"],
                                     group["momentum"])

    def rule(self, group):
        if group["centered"]:
            return (updates.rmsprop_centered_update, lambda: kernels.optimizers.rmsprop_centered,
                    ("square_avg", "grad_avg", "momentum_buffer"))
        return updates.rmsprop_update, lambda: kernels.optimizers.rmsprop, ("square_avg", "momentum_buffer")


@refusing
class Schedule:
    """A learning rate for each epoch: `factor()` gives lr / initial lr. Call `step()` after each epoch."""

    def __init__(self, optimizer, last_epoch=-1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an optimiser, got {type(optimizer).__name__}")
        self.optimizer, self.last_epoch = optimizer, max(last_epoch, 0)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.set_rates()

    def set_rates(self):
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(group["initial_lr"])

    def advance(self):
        self.last_epoch += 1
        self.set_rates()

    def step(self):
        """Go on to the next epoch's learning rate (also inside a captured step)."""
        launch(self.advance)

    def get_last_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """All its settings, and the epoch where it is."""
        return {name: x for name, x in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state):
        """Take over a state_dict of the same schedule; ValueError, and nothing changed, where it does not fit."""
        self.accept(state)()

    def accept(self, state):
        """Check a state_dict, and return the function that takes it over."""
        own = self.state_dict()
        if not isinstance(state, dict) or state.keys() != own.keys():
            got = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"{type(self).__name__}.load_state_dict: expected {', '.join(own)}, got {got}")
        for name, x in state.items():
            if type(x) is not type(own[name]) and not isinstance(x, (int, float)):
                raise ValueError(f"{type(self).__name__}.load_state_dict: {name} is {x!r}")

        def take_over():
            vars(self).update(state)
            self.set_rates()

        return take_over


@refusing
class StepLR(Schedule):
    """lr = initial lr · gamma^⌊epoch / step_size⌋."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        if not isinstance(step_size, int) or step_size < 1:
            raise ValueError(f"StepLR: step_size is a whole number from 1 on, got {step_size!r}")
        self.step_size, self.gamma = step_size, 0.0 + gamma  # powers of whole numbers have no end
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return initial * self.gamma ** (self.last_epoch // self.step_size)


@refusing
class CosineAnnealingLR(Schedule):
    """lr = eta_min + ½ (initial lr - eta_min) (1 + cos(π epoch / T_max)). Loshchilov and Hutter (2017)."""

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        if not isinstance(T_max, int) or T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max is a whole number from 1 on, got {T_max!r}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return self.eta_min + 0.5 * (initial - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max))


# PyTorch's path to the schedules: optim.lr_scheduler.StepLR, `from tinynet.optim.lr_scheduler import StepLR`
lr_scheduler = sys.modules[f"{__name__}.lr_scheduler"] = sys.modules[__name__]
