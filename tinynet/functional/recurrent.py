"""Recurrent networks: all steps of a sequence."""

import numpy as np

from .. import kernels
from ..errors import check_choice
from ..kernels import launch
from ..tensors import contiguous, empty_array, filled
from .activations import ACTIVATIONS, sigmoid, tanh
from .dense import linear
from .dispatch import check_floats, compute, fused_by


def split(x, n):
    """The last axis in n equal parts."""
    width = x.shape[-1] // n
    return [x[..., i * width:(i + 1) * width] for i in range(n)]


def check_recurrence(name, gates, x, weight, *states):
    """Raise unless x is (steps, batch, gates · n), weight (gates · n, n) and each state (batch, n), of one dtype."""
    n = weight.shape[-1] if weight.ndim else 0
    if (not n or x.ndim != 3 or not len(x) or x.shape[2] != gates * n or weight.shape != (gates * n, n)
            or any(s.shape != (x.shape[1], n) for s in states)):
        wide = f"{gates} n" if gates > 1 else "n"
        raise ValueError(f"{name}: expected x (steps, batch, {wide}), states (batch, n), weight ({wide}, n), "
                         f"got {x.shape}, {', '.join(str(s.shape) for s in states)} and {weight.shape}")
    check_floats(name, x, weight, *states)


def all_states(steps, *initial):
    """An array (steps + 1, batch, n) for each initial state, which is its first element."""
    states = empty_array((len(initial), steps + 1, *initial[0].shape), initial[0].dtype)
    for h, first in zip(states, initial):
        launch(np.copyto, h[0], first)
    return states


def weight_vjp(da, h):
    """∂W = Σₜ daₜᵀ hₜ₋₁, one product over all steps and samples."""
    dw = empty_array((da.shape[-1], h.shape[-1]), h.dtype)
    launch(kernels.matmul, dw, da.reshape(-1, da.shape[-1]).T, h[:-1].reshape(-1, h.shape[-1]))
    return dw


def fused_rnn(x, h, weight, nonlinearity="tanh"):
    """With s the gradient before f: sₜ = (gₜ + sₜ₊₁ W) · f'(hₜ), ∂xₜ = sₜ, ∂W = Σₜ sₜᵀ hₜ₋₁, ∂h₀ = s₁ W."""
    check_recurrence("rnn", 1, x, weight, h)
    check_choice("rnn", "nonlinearity", nonlinearity, ("tanh", "relu"))  # derivatives are functions of their values
    (states,), w = all_states(len(x), h), contiguous(weight)
    launch(kernels.recurrent.rnn(nonlinearity), states, contiguous(x), w)

    def vjps(g, needs):
        dx, dh = compute(kernels.recurrent.rnn_backward(nonlinearity), (x, h), contiguous(g), states, w)
        return dx, dh, weight_vjp(dx, states) if needs[2] else None

    return states[1:], vjps


@fused_by(fused_rnn)
def rnn(x, h, weight, nonlinearity="tanh"):
    """hₜ = f(xₜ + W hₜ₋₁) for t = 1 … steps (Elman, 1990), f tanh or relu; result (steps, batch, n).

    x (steps, batch, n) is the contribution of the inputs, W_ih inputₜ + b; h (batch, n) is the initial state; weight
    (n, n).
    """
    states = []
    for t in range(len(x)):
        h = ACTIVATIONS[nonlinearity](x[t] + h @ weight.T)
        states.append(h)
    return np.stack(states)


def fused_lstm(x, h, c, weight):
    """From the last step back: ∂cₜ = gcₜ + ∂hₜ oₜ tanh'(cₜ) + ∂cₜ₊₁ fₜ₊₁; each gate by what it is multiplied with."""
    check_recurrence("lstm", 4, x, weight, h, c)
    states, gates, w = all_states(len(x), h, c), empty_array(x.shape, x.dtype), contiguous(weight)
    launch(kernels.recurrent.lstm, *states, gates, contiguous(x), w)

    def vjps(g, needs):
        dx, dh, dc = compute(kernels.recurrent.lstm_backward, (x, h, c), *contiguous(g), states[1], gates, w)
        return dx, dh, dc, weight_vjp(dx, states[0]) if needs[3] else None

    return states[:, 1:], vjps


@fused_by(fused_lstm)
def lstm(x, h, c, weight):
    """The states (hₜ, cₜ) of a long short-term memory (Hochreiter and Schmidhuber, 1997), (2, steps, batch, n).

    (i, f, g, o) = xₜ + W hₜ₋₁;  cₜ = σ(f) cₜ₋₁ + σ(i) tanh(g);  hₜ = σ(o) tanh(cₜ).
    x (steps, batch, 4 n) is W_ih inputₜ + b; h and c (batch, n) are the initial states; weight (4 n, n).
    """
    states = []
    for t in range(len(x)):
        i, f, g, o = split(x[t] + h @ weight.T, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        states.append((h, c))
    return np.stack([np.stack(each) for each in zip(*states)])


def fused_gru(x, h, weight, bias=None):
    """From the last step back; the product a = W hₜ₋₁ + b enters r and z as x does, but n only through r · a."""
    check_recurrence("gru", 3, x, weight, h)
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype):
        raise ValueError(f"gru: bias is {bias.dtype} of shape {bias.shape}, expected {x.dtype} of shape "
                         f"{weight.shape[:1]}")
    b = filled(len(weight), weight.dtype, 0.0) if bias is None else contiguous(bias)
    (states,), w = all_states(len(x), h), contiguous(weight)
    gates = empty_array((*x.shape[:2], 4 * h.shape[1]), x.dtype)
    launch(kernels.recurrent.gru, states, gates, contiguous(x), w, b)

    def vjps(g, needs):
        dx, da, dh = compute(kernels.recurrent.gru_backward, (x, x, h), contiguous(g), states, gates, w)
        dw = weight_vjp(da, states) if needs[2] else None
        if bias is None:
            return dx, dh, dw
        return dx, dh, dw, *compute(kernels.dense.column_sums, [b], da.reshape(-1, b.size))

    return states[1:], vjps


@fused_by(fused_gru)
def gru(x, h, weight, bias=None):
    """The states of gated recurrent units (Cho et al., 2014), (steps, batch, n); the reset gate r as in PyTorch.

    a = W hₜ₋₁ + bias;  r = σ(x_r + a_r);  z = σ(x_z + a_z);  n = tanh(x_n + r a_n);  hₜ = (1 - z) n + z hₜ₋₁.
    x (steps, batch, 3 n) is W_ih inputₜ + b, parts r, z, n; h (batch, n) is the initial state; weight (3 n, n).
    """
    states = []
    for t in range(len(x)):
        (x_r, x_z, x_n), (a_r, a_z, a_n) = split(x[t], 3), split(linear(h, weight, bias), 3)
        r, z = sigmoid(x_r + a_r), sigmoid(x_z + a_z)
        n = tanh(x_n + r * a_n)
        h = (1.0 - z) * n + z * h
        states.append(h)
    return np.stack(states)
