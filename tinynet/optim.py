"""Optimizers: each applies an update rule (kernels/updates.py) to every parameter that has a gradient.

A Value is updated by the rule itself, on Python floats; a Tensor by the same rule, compiled for arrays. The settings
are in `param_groups`, as in PyTorch, where a schedule (or you) may change them between steps.

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
from .errors import check_bool, check_int, check_number, check_positive_int, describe, is_number
from .graph import mode
from .kernels import launch, updates
from .tensors import Tensor, bump_version, copied
from .value import Value


class Clock:
    """The number of steps t that some parameters have taken, and the terms of their update at t: `now` for Values, and
    the same in an array, `h`, for kernels.

    `tick` is launched like a kernel: a replayed step counts on, and sees a changed learning rate.
    """

    def __init__(self, terms, group, t=0):
        self.terms, self.group, self.t = terms, group, t
        self.now, self.h = (), np.zeros(8)

    def tick(self):
        self.t += 1
        self.now = self.terms(self.t, self.group)
        self.h[:len(self.now)] = self.now


class Optimizer:
    """The base of all optimizers. A subclass defines, for a group of settings,

        terms(t, group)   the terms of its formula at step t = 1, 2, …
        rule(group)       (formula on floats, name of its kernel, names of its state, which is initialized to 0)
    """

    def __init__(self, params, **defaults):
        name = type(self).__name__
        params = [params] if isinstance(params, (Tensor, Value)) else list(params)
        if not params:
            raise ValueError(f"{name}: expected parameters, got an empty list")
        self.defaults, self.param_groups = defaults, []
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            if not isinstance(group, dict) or "params" not in group:
                raise TypeError(f'{name}: expected a group to be a dict with "params", got {describe(group)}')
            members = group["params"]
            members = [members] if isinstance(members, (Tensor, Value)) else list(members)
            for p in members:
                if not isinstance(p, (Tensor, Value)) or p.inputs:
                    raise TypeError(f"{name}: expected parameters (leaf Tensors or Values), got " + (
                        "the result of an operation" if isinstance(p, (Tensor, Value)) else describe(p)))
            self.param_groups.append({**check_settings(name, {**defaults, **group}, defaults), "params": members})
        self.state = {}  # of each parameter: its Clock, then its state, floats or flat arrays
        self.loads = 0

    def zero_grad(self, set_to_none=True):
        """Reset the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.zero_grad()

    def step(self):
        """Update every parameter that has a gradient."""
        if mode.plan is not None:
            mode.plan.record_guard(self, "loads", self.loads)  # load_state_dict replaces the arrays of the state
        for group in self.param_groups:
            update, kernel, names = self.rule(group)
            ready, idle, new, clocks = [], [], None, {}
            for p in group["params"]:
                tensor, state = isinstance(p, Tensor), self.state.get(p)
                g = p._grad if tensor else p.grad
                if g is None:
                    idle.append(state)
                    continue
                if state is None:
                    new = new or Clock(self.terms, group)
                    state = self.state[p] = [new, *(np.zeros(g.size, g.dtype) if tensor else 0.0 for _ in names)]
                clocks[state[0]] = None
                ready.append((p, g, tensor, state))
            for state in idle:  # it stays behind, with a clock of its own
                if state is not None and state[0] in clocks:
                    state[0] = Clock(self.terms, group, state[0].t)
            for clock in clocks:
                launch(clock.tick)
            kernel = getattr(kernels.optimizers, kernel) if any(tensor for _, _, tensor, _ in ready) else None
            for p, g, tensor, state in ready:
                if tensor:
                    update_tensor(kernel, p, g, state)
                else:
                    p.data, *state[1:] = update(p.data, g, *state[1:], *state[0].now)

    def state_dict(self):
        """{"state": {i: {"step": …, name: array}}, "param_groups": […]}, parameters by their index, as in PyTorch."""
        index = {p: i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        state = {}
        for group in self.param_groups:
            names = self.rule(group)[2]
            for p in group["params"]:
                if p in self.state:
                    clock, *own = self.state[p]
                    own = [x.reshape(p.shape).copy() if isinstance(p, Tensor) else x for x in own]
                    state[index[p]] = {"step": clock.t, **dict(zip(names, own))}
        return {"state": state, "param_groups": [{**group, "params": [index[p] for p in group["params"]]}
                                                 for group in self.param_groups]}

    def load_state_dict(self, state_dict):
        """Load a state_dict of the same optimizer; ValueError, and nothing changed, where it does not fit."""
        self.validate_state_dict(state_dict)()

    def validate_state_dict(self, state_dict):
        """Validate a state_dict, and return the function that loads it."""
        name = f"{type(self).__name__}.load_state_dict"
        try:
            groups, entries = [dict(group) for group in state_dict["param_groups"]], dict(state_dict["state"])
            indices = [list(group.pop("params")) for group in groups]
        except (TypeError, ValueError, LookupError):
            raise ValueError(f"{name}: expected the state_dict of an optimizer, got {describe(state_dict)}") from None
        sizes, expected = [len(g) for g in indices], [len(g["params"]) for g in self.param_groups]
        if sizes != expected:
            raise ValueError(f"{name}: expected groups of {expected} parameters, got {sizes}")
        loaded, clocks = {}, {}
        for n, (group, saved) in enumerate(zip(self.param_groups, groups)):
            saved = {setting: x for setting, x in saved.items()
                     if setting in self.defaults or x and setting not in PYTORCH}
            try:
                saved = groups[n] = check_settings(name, saved, self.defaults)
            except TypeError as error:
                raise ValueError(str(error)) from None
            names = self.rule({**group, **saved})[2]
            for p, i in zip(group["params"], indices[n]):
                entry = entries.get(i, entries.get(str(i)))
                if entry is not None:
                    t = int(state_entry(name, {"step": 1, **entry}, "step", i))  # PyTorch's SGD counts no steps
                    clock = clocks.setdefault((n, t), Clock(self.terms, group, t))
                    loaded[p] = [clock, *(state_entry(name, entry, part, i, p) for part in names)]

        def load():
            for group, saved in zip(self.param_groups, groups):
                group.update(saved)
            self.state = loaded
            self.loads += 1

        return load


def update_tensor(kernel, p, g, state):
    """Launch an update of a Tensor, through a copy where its memory is not contiguous."""
    flat = p._data
    if not flat.flags.carray:
        if not flat.flags.writeable:
            raise ValueError(f"step: a parameter of shape {flat.shape} has read-only memory")
        flat = copied(flat)
    launch(kernel, flat.ravel(), g.ravel(), *state[1:], state[0].h)
    if flat is not p._data:
        launch(np.copyto, p._data, flat)
    bump_version(p)


PYTORCH = ("foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay")  # how it computes, not what


def state_entry(name, entry, part, i, p=None):
    """One part of a parameter's saved state, in the shape and dtype of the parameter; flat for a Tensor."""
    tensor = isinstance(p, Tensor)
    try:
        array = np.array(entry[part], dtype=p.dtype if tensor else float)
    except KeyError:
        raise ValueError(f"{name}: parameter {i} has no {part}") from None
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: {part} of parameter {i} is not an array of numbers") from None
    shape = p.shape if tensor else ()
    if array.shape != shape:
        raise ValueError(f"{name}: {part} of parameter {i} has shape {array.shape}, expected {shape}")
    if p is None:
        check_number(name, f"{part} of parameter {i}", float(array), 0)
    return array.ravel() if tensor else float(array)


def check_settings(name, settings, defaults):
    """The settings of a group, checked."""
    checked = {}
    for setting, x in settings.items():
        if setting not in defaults and setting not in ("params", "initial_lr"):
            raise TypeError(f"{name}: unknown setting {describe(setting)}; expected {', '.join(defaults)}")
        if setting == "betas":
            if not isinstance(x, (tuple, list)) or len(x) != 2 or not all(is_number(b) and 0 <= b < 1 for b in x):
                raise ValueError(f"{name}: expected betas to be two numbers in [0, 1), got {describe(x)}")
            checked[setting] = tuple(map(float, x))
        elif setting in ("nesterov", "centered"):
            checked[setting] = check_bool(name, setting, x)
        elif setting != "params":
            checked[setting] = float(check_number(name, setting, x, 0))
    return checked


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
            return plain_sgd, "plain_sgd", ()
        return updates.sgd_update, "sgd", ("momentum_buffer",)


def plain_sgd(p, g, lr, momentum, fresh, weight_decay, nesterov):
    return (updates.plain_sgd_update(p, g, lr, weight_decay),)


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²; p ← p - lr · m̂ / (√v̂ + eps). Kingma and Ba (2015)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def terms(self, t, group):
        return updates.adam_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adam_update, "adam", ("exp_avg", "exp_avg_sq")


class AdamW(Adam):
    """Adam with a weight decay of the parameter itself: p ← p - lr · weight_decay · p. Loshchilov and Hutter (2019)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)

    def terms(self, t, group):
        return updates.adamw_terms(t, group["lr"], *group["betas"], group["eps"], group["weight_decay"])

    def rule(self, group):
        return updates.adamw_update, "adamw", ("exp_avg", "exp_avg_sq")


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
            return updates.rmsprop_centered_update, "rmsprop_centered", ("square_avg", "grad_avg", "momentum_buffer")
        return updates.rmsprop_update, "rmsprop", ("square_avg", "momentum_buffer")


class Schedule:
    """The base of learning-rate schedules; a subclass defines rate(initial lr). Call `step()` after each epoch."""

    def __init__(self, optimizer, last_epoch=-1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an optimizer, got {describe(optimizer)}")
        self.optimizer, self.last_epoch = optimizer, max(check_int(type(self).__name__, "last_epoch", last_epoch), 0)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.set_rates()

    def set_rates(self):
        try:
            rates = [self.rate(group["initial_lr"]) for group in self.optimizer.param_groups]
        except OverflowError:
            raise ValueError(f"{type(self).__name__}: the learning rate overflows at epoch {self.last_epoch}") from None
        for group, rate in zip(self.optimizer.param_groups, rates):
            group["lr"] = rate

    def advance(self):
        self.last_epoch += 1
        self.set_rates()

    def step(self):
        """Set the next epoch's learning rate (also inside a captured step)."""
        launch(self.advance)

    def get_last_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """All settings, and the current epoch."""
        return {name: x for name, x in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state):
        """Load a state_dict of the same schedule; ValueError, and nothing changed, where it does not fit."""
        self.validate_state_dict(state)()

    def validate_state_dict(self, state):
        """Validate a state_dict, and return the function that loads it."""
        name, own = f"{type(self).__name__}.load_state_dict", self.state_dict()
        if not isinstance(state, dict) or state.keys() != own.keys():
            got = ", ".join(map(str, state)) if isinstance(state, dict) else describe(state)
            raise ValueError(f"{name}: expected {', '.join(own)}, got {got}")
        checked = {key: check_int(name, key, x, key != "last_epoch") if isinstance(own[key], int)
                   else float(check_number(name, key, x)) for key, x in state.items()}

        def load():
            vars(self).update(checked)
            self.set_rates()

        return load


class StepLR(Schedule):
    """lr = initial lr · gamma^⌊epoch / step_size⌋."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        self.step_size = check_positive_int("StepLR", "step_size", step_size)
        self.gamma = float(check_number("StepLR", "gamma", gamma))
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return initial * self.gamma ** (self.last_epoch // self.step_size)


class CosineAnnealingLR(Schedule):
    """lr = eta_min + ½ (initial lr - eta_min) (1 + cos(π epoch / T_max)). Loshchilov and Hutter (2017)."""

    def __init__(self, optimizer, T_max, eta_min=0.0, last_epoch=-1):
        self.T_max = check_positive_int("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = float(check_number("CosineAnnealingLR", "eta_min", eta_min))
        super().__init__(optimizer, last_epoch)

    def rate(self, initial):
        return self.eta_min + 0.5 * (initial - self.eta_min) * (1 + math.cos(math.pi * self.last_epoch / self.T_max))


# PyTorch's path to the schedules: optim.lr_scheduler.StepLR, `from tinynet.optim.lr_scheduler import StepLR`
lr_scheduler = sys.modules[f"{__name__}.lr_scheduler"] = sys.modules[__name__]
