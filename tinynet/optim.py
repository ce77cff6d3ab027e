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

import numpy as np

from . import kernels
from .kernels import run, updates
from .tensors import Tensor, forget_gradient
from .value import Value


class Clock:
    """How many steps some parameters have taken, and the terms of the update for this step, in an array for kernels.

    `tick` is called through the door of the kernels: a replayed step counts on, and sees a changed learning rate.
    """

    def __init__(self, terms, group, t=0):
        self.terms, self.group, self.t = terms, group, t
        self.h = np.zeros(8)

    def tick(self):
        self.t += 1
        terms = self.terms(self.t, self.group)
        self.h[:len(terms)] = terms


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
        self.state = {}  # of each parameter: its Clock, then the arrays (or floats) of its state

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                forget_gradient(p) if isinstance(p, Tensor) else p.zero_grad()

    def step(self):
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            update, kernel, names = self.rule(group)
            started, ticked = Clock(self.terms, group), set()
            for p in group["params"]:
                tensor = isinstance(p, Tensor)
                g = p._grad if tensor else p.grad
                if g is None:
                    continue
                state = self.state.get(p)
                if state is None:
                    state = self.state[p] = [started, *(np.zeros(p.shape, p.dtype) if tensor else 0.0 for _ in names)]
                clock, *arrays = state
                if clock not in ticked:
                    ticked.add(clock)
                    run(clock.tick)
                if tensor:
                    run(kernel(), p._data.reshape(-1), g.reshape(-1), *[a.reshape(-1) for a in arrays], clock.h)
                else:
                    p.data, *state[1:] = update(p.data, g, *arrays, *self.terms(clock.t, group))
            for p in group["params"]:  # who had no gradient while its companions went on gets a clock of its own
                g = p._grad if isinstance(p, Tensor) else p.grad
                if g is None and p in self.state and self.state[p][0] in ticked:
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
                    clock, *arrays = self.state[p]
                    state[number[p]] = {"step": clock.t, **{n: np.array(a) for n, a in zip(names, arrays)}}
        return {"state": state, "param_groups": [{**group, "params": [number[p] for p in group["params"]]}
                                                 for group in self.param_groups]}

    def load_state_dict(self, state_dict):
        """Take over a state_dict of the same optimiser; ValueError, and nothing changed, where it does not fit."""
        name, groups = type(self).__name__, state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(f"{name}.load_state_dict: expected groups of "
                             f"{[len(g['params']) for g in self.param_groups]} parameters, "
                             f"got {[len(g['params']) for g in groups]}")
        loaded, clocks = {}, {}
        for group, saved in zip(self.param_groups, groups):
            settings = {k: v for k, v in saved.items() if k != "params"}
            names = self.rule({**group, **settings})[2]
            for p, i in zip(group["params"], saved["params"]):
                entry = state_dict["state"].get(i, state_dict["state"].get(str(i)))
                if entry is None:
                    continue
                arrays = []
                for n in names:
                    dtype = p.dtype if isinstance(p, Tensor) else float
                    array = np.array(entry[n], dtype=dtype) if n in entry else None
                    if array is None or array.shape != (p.shape if isinstance(p, Tensor) else ()):
                        raise ValueError(f"{name}.load_state_dict: {n} of parameter {i} does not fit")
                    arrays.append(array if isinstance(p, Tensor) else float(array))
                t = int(entry["step"])
                clock = clocks.setdefault((id(group), t), Clock(self.terms, group, t))
                loaded[p] = [clock, *arrays]
        for group, saved in zip(self.param_groups, groups):
            group.update({k: v for k, v in saved.items() if k != "params"})
        self.state = loaded


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


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr · m̂ / (√v̂ + eps). Kingma and Ba (2015)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def terms(self, t, group):
        return updates.adam_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adam_update, lambda: kernels.optimizers.adam, ("exp_avg", "exp_avg_sq")


class AdamW(Optimizer):
    """Adam with a weight decay of the parameter itself: p ← p - lr · weight_decay · p. Loshchilov and Hutter (2019)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def terms(self, t, group):
        return updates.adamw_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adamw_update, lambda: kernels.optimizers.adamw, ("exp_avg", "exp_avg_sq")


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
        run(self.advance)

    def get_last_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state):
        self.last_epoch = int(state["last_epoch"])
        self.set_rates()


class StepLR(Schedule):
    """lr = initial lr · gamma^⌊epoch / step_size⌋."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        if not isinstance(step_size, int) or step_size < 1:
            raise ValueError(f"StepLR: step_size is a whole number from 1 on, got {step_size!r}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return initial * self.gamma ** (self.last_epoch // self.step_size)


class CosineAnnealingLR(Schedule):
    """lr = eta_min + ½ (initial lr - eta_min) (1 + cos(π epoch / T_max)). Loshchilov and Hutter (2017)."""

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        if not isinstance(T_max, int) or T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max is a whole number from 1 on, got {T_max!r}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return self.eta_min + 0.5 * (initial - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max))
