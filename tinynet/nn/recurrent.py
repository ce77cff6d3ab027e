"""Recurrent layers: RNN, LSTM and GRU, with PyTorch's arguments, parameters and outputs.

Sequences are (steps, batch, features), or (batch, steps, features) where `batch_first`; one alone is (steps, features).
"""

import math
import warnings

import numpy as np

from .. import functional as F
from ..errors import check_bool, check_choice, describe
from ..tensors import zeros
from .module import Module, as_input, check_probability, check_sizes, concatenate, is_values, uniform


class Recurrent(Module):
    """The base of all three. A subclass has the number of `gates` its weights are for, the names of its `states`, and

        steps(x, state, w_ih, w_hh, b_ih, b_hh)    (outputs of all steps, the state after the last one)
    """

    gates, states = 1, ("h",)

    def __init__(self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
                 bidirectional=False):
        name = type(self).__name__
        self.input_size, self.hidden_size, self.num_layers = check_sizes(
            self, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.bias, self.batch_first, self.bidirectional = (check_bool(name, what, x) for what, x in (
            ("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)))
        self.dropout = check_probability(self, "dropout", dropout)
        if dropout and self.num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers, and there is only one", stacklevel=3)
        bound, rows = 1 / math.sqrt(self.hidden_size), self.gates * self.hidden_size
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.hidden_size * (1 + self.bidirectional)
            for suffix in self.suffixes(layer):
                setattr(self, f"weight_ih{suffix}", uniform((rows, width), bound))
                setattr(self, f"weight_hh{suffix}", uniform((rows, self.hidden_size), bound))
                if bias:
                    setattr(self, f"bias_ih{suffix}", uniform((rows,), bound))
                    setattr(self, f"bias_hh{suffix}", uniform((rows,), bound))

    def suffixes(self, layer):
        """How the names of a layer's parameters end, for each direction in which it reads the sequence."""
        return [f"_l{layer}", f"_l{layer}_reverse"][:1 + self.bidirectional]

    def forward(self, input, hx=None):
        """(output, final states): the last layer's states after every step, and every layer's after the last step.

        `hx` are the initial states, (layers · directions, batch, hidden_size), by default 0.
        """
        x = as_input(self, input, self.input_size, self.weight_ih_l0)
        unbatched = x.ndim == 2
        if x.ndim not in (2, 3):
            raise ValueError(f"{self.short_repr()}: input has shape {tuple(x.shape)}, expected "
                             f"{'(batch, steps, features)' if self.batch_first else '(steps, batch, features)'}, or "
                             "(steps, features)")
        x = x[:, None] if unbatched else x.swapaxes(0, 1) if self.batch_first else x
        if not len(x):
            raise ValueError(f"{self.short_repr()}: the sequence has no steps")
        initial, final = self.initial_states(hx, x, unbatched), []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self.suffixes(layer):
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weights = [getattr(self, name + suffix, None) for name in names]
                reverse = suffix.endswith("_reverse")
                y, state = self.steps(x[::-1] if reverse else x, [s[len(final)] for s in initial], *weights)
                outputs.append(y[::-1] if reverse else y)
                final.append(state)
            x = outputs[0] if len(outputs) == 1 else concatenate(outputs, 2)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        last = tuple(np.stack(each) for each in zip(*final))
        if unbatched:
            x, last = x[:, 0], tuple(s[:, 0] for s in last)
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        return x, last if len(last) > 1 else last[0]

    def initial_states(self, hx, x, unbatched):
        """The initial states, each (layers · directions, batch, hidden_size)."""
        name, count, batch = self.short_repr(), self.num_layers * (1 + self.bidirectional), x.shape[1]
        if hx is None:
            return [[self.zero_state(f"{letter}0", (batch, self.hidden_size), x)] * count for letter in self.states]
        shape = (count, self.hidden_size) if unbatched else (count, batch, self.hidden_size)
        given = hx if len(self.states) > 1 else (hx,)
        if not isinstance(given, (tuple, list)) or len(given) != len(self.states):
            raise TypeError(f"{name}: expected the initial states as a tuple ({', '.join(self.states)}), got "
                            f"{describe(hx)}")
        states = []
        for letter, s in zip(self.states, given):
            s = F.as_operand(s, self.weight_ih_l0, f"{letter}0")
            if tuple(s.shape) != shape:
                axes = f"(layers{' · directions' * self.bidirectional}{', batch' * (not unbatched)}, features)"
                raise ValueError(f"{name}: the initial state {letter} has shape {tuple(s.shape)}, expected {shape} "
                                 + axes)
            states.append(s[:, None] if unbatched else s)
        return states

    def zero_state(self, label, shape, x):
        """A state of zeros, on the engine of x."""
        if is_values(x):
            return F.as_values(np.zeros(shape), label)
        state = zeros(shape, dtype=x.dtype)
        state.label = label
        return state

    def short_repr(self):
        return f"{type(self).__name__}({self.input_size} -> {self.hidden_size})"

    def extra_repr(self):
        settings = [f"{name}={value}" for name, usual in (
            ("num_layers", 1), ("nonlinearity", "tanh"), ("bias", True), ("batch_first", False), ("dropout", 0.0),
            ("bidirectional", False)) if (value := getattr(self, name, usual)) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *settings])


def add_biases(a, b):
    return None if a is None else a + b


class RNN(Recurrent):
    """hₜ = tanh(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh), or relu instead of tanh (Elman, 1990).

    RNN(input_size, hidden_size)(sequence) returns all hₜ and the last one.

    >>> output, h = RNN(2, 3)(zeros(5, 1, 2))
    >>> output.shape, h.shape
    ((5, 1, 3), (1, 1, 3))
    """

    def __init__(self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False,
                 dropout=0.0, bidirectional=False):
        self.nonlinearity = check_choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y = F.rnn(F.linear(x, w_ih, add_biases(b_ih, b_hh)), *state, w_hh, self.nonlinearity)
        return y, (y[-1],)


class LSTM(Recurrent):
    """A long short-term memory (Hochreiter and Schmidhuber, 1997), with a forget gate (Gers et al., 2000).

    (i, f, g, o) = W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh;  cₜ = σ(f) cₜ₋₁ + σ(i) tanh(g);  hₜ = σ(o) tanh(cₜ).
    LSTM(input_size, hidden_size)(sequence, (h₀, c₀)) returns all hₜ, and the last (h, c).
    """

    gates, states = 4, ("h", "c")

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y, c = F.lstm(F.linear(x, w_ih, add_biases(b_ih, b_hh)), *state, w_hh)
        return y, (y[-1], c[-1])


class GRU(Recurrent):
    """Gated recurrent units (Cho et al., 2014), as PyTorch has them.

    r = σ(W_ir xₜ + b_ir + W_hr hₜ₋₁ + b_hr);  z = σ(W_iz xₜ + b_iz + W_hz hₜ₋₁ + b_hz);
    n = tanh(W_in xₜ + b_in + r (W_hn hₜ₋₁ + b_hn));  hₜ = (1 - z) n + z hₜ₋₁.
    GRU(input_size, hidden_size)(sequence, h₀) returns all hₜ and the last one.
    """

    gates = 3

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y = F.gru(F.linear(x, w_ih, b_ih), *state, w_hh, b_hh)
        return y, (y[-1],)
