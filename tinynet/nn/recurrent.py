"""Recurrent layers: RNN, LSTM and GRU, with PyTorch's arguments, parameters and outputs.

Sequences are (steps, batch, features), or (batch, steps, features) where `batch_first`; one alone is (steps, features).
"""

import math
import warnings

import numpy as np

from .. import functional as F
from ..errors import refusing
from ..tensors import zeros
from .attention import joined
from .dense import features, sizes
from .module import Module, is_values, uniform


@refusing
class Recurrent(Module):
    """What the three share. A subclass says how many `gates` its weights are for, how many arrays its `state` has, and

        steps(x, state, w_ih, w_hh, b_ih, b_hh)    (outputs of all steps, the state after the last one)
    """

    gates, state = 1, ("h",)

    def __init__(self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
                 bidirectional=False):
        name = type(self).__name__
        sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"{name}: dropout is a probability below 1, got {dropout}")
        if dropout and num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers, and there is only one", stacklevel=4)
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        bound, rows = 1 / math.sqrt(hidden_size), self.gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
            for end in self.directions():
                setattr(self, f"weight_ih_l{layer}{end}", uniform((rows, width), bound))
                setattr(self, f"weight_hh_l{layer}{end}", uniform((rows, hidden_size), bound))
                if bias:
                    setattr(self, f"bias_ih_l{layer}{end}", uniform((rows,), bound))
                    setattr(self, f"bias_hh_l{layer}{end}", uniform((rows,), bound))

    def directions(self):
        """How the names of the parameters end, for each direction in which a sequence is read."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def forward(self, input, hx=None):
        """(output, last states): the states of the last layer after every step, those of every layer after the last.

        `hx` are the states to begin with, (layers · directions, batch, hidden_size), 0 where none are given.
        """
        name = f"{type(self).__name__}({self.input_size} -> {self.hidden_size})"
        features(self, name, input, self.input_size)
        try:
            x = F.as_operand(input, self.weight_ih_l0)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        alone = x.ndim == 2
        if x.ndim not in (2, 3):
            raise ValueError(f"{name}: input has shape {tuple(x.shape)}, expected "
                             f"{'(batch, steps, features)' if self.batch_first else '(steps, batch, features)'}, or "
                             "(steps, features)")
        x = x[:, None] if alone else x.swapaxes(0, 1) if self.batch_first else x
        if not len(x):
            raise ValueError(f"{name}: the sequence has no steps")
        begin = self.beginning(name, hx, x, alone)
        ends, directions = [], self.directions()
        for layer in range(self.num_layers):
            outputs = []
            for end in directions:
                weights = [getattr(self, f"{kind}_l{layer}{end}", None)
                           for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                state = [s[len(ends)] for s in begin]
                y, state = self.steps(x[::-1] if end else x, state, *weights)
                outputs.append(y[::-1] if end else y)
                ends.append(state)
            x = outputs[0] if len(outputs) == 1 else joined(outputs)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        last = tuple(np.stack(each) for each in zip(*ends))
        if alone:
            x, last = x[:, 0], tuple(s[:, 0] for s in last)
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        return x, last if len(last) > 1 else last[0]

    def beginning(self, name, hx, x, alone):
        """The first states, each (layers · directions, batch, hidden_size)."""
        count, batch = self.num_layers * len(self.directions()), x.shape[1]
        if hx is None:
            return [[self.nothing(f"{letter}0", (batch, self.hidden_size), x)] * count for letter in self.state]
        wanted = (count, self.hidden_size) if alone else (count, batch, self.hidden_size)
        given = hx if len(self.state) > 1 else (hx,)
        if not isinstance(given, (tuple, list)) or len(given) != len(self.state):
            raise TypeError(f"{name}: expected the first states as a tuple ({', '.join(self.state)}), got "
                            f"{type(hx).__name__}")
        states = []
        for letter, s in zip(self.state, given):
            s = F.as_operand(s, self.weight_ih_l0, f"{letter}0")
            if tuple(s.shape) != wanted:
                raise ValueError(f"{name}: the first state {letter} has shape {tuple(s.shape)}, expected {wanted} "
                                 f"(layers{' · directions' * self.bidirectional}{', batch' * (not alone)}, features)")
            states.append(s[:, None] if alone else s)
        return states

    def nothing(self, label, shape, x):
        """The state of who has read nothing, 0, in the engine of x."""
        if is_values(x):
            return F.as_values(np.zeros(shape), label)
        state = zeros(shape, dtype=x.dtype)
        state.label = label
        return state

    def extra_repr(self):
        settings = [f"{name}={value}" for name, usual in (
            ("num_layers", 1), ("nonlinearity", "tanh"), ("bias", True), ("batch_first", False), ("dropout", 0.0),
            ("bidirectional", False)) if (value := getattr(self, name, usual)) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *settings])


def plus(a, b):
    return None if a is None else a + b


@refusing
class RNN(Recurrent):
    """hₜ = tanh(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh), or relu in the place of tanh (Elman, 1990).

    RNN(input_size, hidden_size)(sequence) gives all hₜ and the last one.

    >>> output, h = RNN(2, 3)(zeros(5, 1, 2))
    >>> output.shape, h.shape
    ((5, 1, 3), (1, 1, 3))
    """

    def __init__(self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False,
                 dropout=0.0, bidirectional=False):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'RNN: nonlinearity is "tanh" or "relu", got {nonlinearity!r}')
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y = F.rnn(F.linear(x, w_ih, plus(b_ih, b_hh)), *state, w_hh, self.nonlinearity)
        return y, (y[-1],)


@refusing
class LSTM(Recurrent):
    """A long short-term memory (Hochreiter and Schmidhuber, 1997), with a forget gate (Gers et al., 2000).

    (i, f, g, o) = W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh;  cₜ = σ(f) cₜ₋₁ + σ(i) tanh(g);  hₜ = σ(o) tanh(cₜ).
    LSTM(input_size, hidden_size)(sequence, (h₀, c₀)) gives all hₜ, and the last (h, c).
    """

    gates, state = 4, ("h", "c")

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y, c = F.lstm(F.linear(x, w_ih, plus(b_ih, b_hh)), *state, w_hh)
        return y, (y[-1], c[-1])


@refusing
class GRU(Recurrent):
    """Gated recurrent units (Cho et al., 2014), as PyTorch has them.

    r = σ(W_ir xₜ + b_ir + W_hr hₜ₋₁ + b_hr);  z = σ(W_iz xₜ + b_iz + W_hz hₜ₋₁ + b_hz);
    n = tanh(W_in xₜ + b_in + r (W_hn hₜ₋₁ + b_hn));  hₜ = (1 - z) n + z hₜ₋₁.
    GRU(input_size, hidden_size)(sequence, h₀) gives all hₜ and the last one.
    """

    gates = 3

    def steps(self, x, state, w_ih, w_hh, b_ih, b_hh):
        y = F.gru(F.linear(x, w_ih, b_ih), *state, w_hh, b_hh)
        return y, (y[-1],)
