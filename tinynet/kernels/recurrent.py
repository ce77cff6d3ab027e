"""Kernels of recurrent networks: all steps of a sequence in one call, forward or backward.

A step needs the state that the step before it left, so the steps come one after the other; the samples of a batch know
nothing of each other. So each thread takes its rows of the batch through all steps: of every step it computes the
product of state and weights, which stay in the cache, and then the arithmetic of the gates. What the inputs bring to
all steps is one large product beforehand, the gradient of the weights is one afterwards.

Arrays are (steps, batch, features). h and c are (steps + 1, batch, n) and hold the first state, which the caller wrote,
and the state after each step; x is what the inputs bring, W_ih x[t] + b; weight is W_hh, for several gates one below
another (gates · n, n).

Elman (1990); Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000); Cho et al. (2014).
"""

import functools

import numpy as np

from .backend.compiled import chunk_bounds, jit, kernel, prange
from .backend.math32 import compiled_rule
from .backend.small_gemm import multiply, transpose_scaled
from .normalization import add, put

tanh = compiled_rule("tanh")
sigmoid_derivative, tanh_derivative = compiled_rule("sigmoid", 0), compiled_rule("tanh", 0)


@jit
def transposed(weight):
    """The transposed matrix, laid out anew for products."""
    y = np.empty((weight.shape[1], weight.shape[0]), weight.dtype)
    transpose_scaled(y, weight, weight.dtype.type(1))
    return y


# -------------------------------------------------------------------------------------------------------- plain states

def add_and_activate(y, x):
    for i in range(y.shape[0]):
        out, more = y[i], x[i]
        for j in range(out.size):
            out[j] = f(out[j] + more[j])  # noqa: F821


def rnn_kernel(h, x, weight, chunks):
    """h[t + 1] = f(x[t] + h[t] Wᵀ)"""
    weight_t = transposed(weight)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[1], chunk, chunks)
        if hi > lo:
            for t in range(x.shape[0]):
                multiply(h[t + 1, lo:hi], h[t, lo:hi], weight_t, False)
                apply(h[t + 1, lo:hi], x[t, lo:hi])  # noqa: F821


def add_and_differentiate(dx, dh, g, y):
    for i in range(y.shape[0]):
        out, later, now, v = dx[i], dh[i], g[i], y[i]
        for j in range(out.size):
            out[j] = (now[j] + later[j]) * derivative(v[j], v[j])  # noqa: F821


def rnn_backward_kernel(dx, dh, g, h, weight, chunks):
    """dx[t] = (g[t] + dx[t + 1] W) · f'(h[t + 1]); dh = dx[0] W, the gradient of the first state"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(g.shape[1], chunk, chunks)
        if hi > lo:
            dh[lo:hi] = 0
            for t in range(g.shape[0] - 1, -1, -1):
                apply(dx[t, lo:hi], dh[lo:hi], g[t, lo:hi], h[t + 1, lo:hi])  # noqa: F821
                multiply(dh[lo:hi], dx[t, lo:hi], weight, False)


GRAIN = 4096


@functools.cache
def rnn(name):
    """The kernel (h, x, weight) for f of that name, whose derivative is known from its value: tanh or relu."""
    apply = jit(add_and_activate, name=f"rnn_{name}_chunk", f=compiled_rule(name))
    return kernel(rnn_kernel, name=f"rnn_{name}", grain=GRAIN, measure=1, apply=apply)


@functools.cache
def rnn_backward(name):
    """The kernel (dx, dh, g, h, weight)."""
    apply = jit(add_and_differentiate, name=f"rnn_{name}_backward_chunk", derivative=compiled_rule(name, 0))
    return kernel(rnn_backward_kernel, name=f"rnn_{name}_backward", grain=GRAIN, apply=apply)


# --------------------------------------------------- the arithmetic of gates: in short loops, because these vectorise

def activate_sum(y, a, x):
    for j in range(y.size):
        y[j] = f(a[j] + x[j])  # noqa: F821


@jit
def put_tanh(y, x):
    for j in range(y.size):
        y[j] = tanh(x[j])


@jit
def remember(c, before, i, f, g):
    for j in range(c.size):
        c[j] = f[j] * before[j] + i[j] * g[j]


@jit
def put_product_of(y, a, b):
    for j in range(y.size):
        y[j] = a[j] * b[j]


@jit
def times(y, x):
    for j in range(y.size):
        y[j] *= x[j]


def through_activation(d, g, other, y):
    """d = g · other · f', for a gate of value y = f(…) that was multiplied by `other`."""
    for j in range(d.size):
        d[j] = g[j] * other[j] * derivative(y[j], y[j])  # noqa: F821


sigmoid_of_sum, tanh_of_sum = (jit(activate_sum, name=f"{name}_of_sum", f=compiled_rule(name))
                               for name in ("sigmoid", "tanh"))
through_sigmoid, through_tanh = (jit(through_activation, name=f"through_{name}", derivative=compiled_rule(name, 0))
                                 for name in ("sigmoid", "tanh"))


# ---------------------------------------------------------------------------------------------------------------- LSTM

@kernel(grain=GRAIN, measure=3)
def lstm(h, c, gates, x, weight, chunks):
    """With i, f, o = σ and g = tanh of the quarters (i, f, g, o) of x[t] + h[t] Wᵀ, which are kept in gates[t]:

    c[t + 1] = f · c[t] + i · g, h[t + 1] = o · tanh(c[t + 1]). x and gates (steps, batch, 4 n).
    """
    n = h.shape[2]
    weight_t = transposed(weight)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[1], chunk, chunks)
        if hi > lo:
            memory = np.empty((hi - lo, 4 * n), x.dtype)  # stays in the cache
            for t in range(x.shape[0]):
                multiply(memory, h[t, lo:hi], weight_t, False)
                for b in range(lo, hi):
                    y, a, u = gates[t, b], memory[b - lo], x[t, b]
                    sigmoid_of_sum(y[:2 * n], a[:2 * n], u[:2 * n])
                    tanh_of_sum(y[2 * n:3 * n], a[2 * n:3 * n], u[2 * n:3 * n])
                    sigmoid_of_sum(y[3 * n:], a[3 * n:], u[3 * n:])
                    remember(c[t + 1, b], c[t, b], y[:n], y[n:2 * n], y[2 * n:3 * n])
                    put_tanh(h[t + 1, b], c[t + 1, b])
                    times(h[t + 1, b], y[3 * n:])


@jit
def into_cell(dc, dh, gc, o, tanh_c):
    """dc, which holds what later steps want of the cell, becomes the gradient of the cell."""
    for j in range(dc.size):
        dc[j] += gc[j] + dh[j] * o[j] * tanh_derivative(tanh_c[j], tanh_c[j])


@kernel(grain=GRAIN)
def lstm_backward(dx, dh, dc, gh, gc, c, gates, weight, chunks):
    """dx = ∂L/∂x, and dh, dc (batch, n) the gradients of the first states, for the gradients gh, gc of h[1:], c[1:]."""
    n = dh.shape[1]
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(gh.shape[1], chunk, chunks)
        if hi > lo:
            dh[lo:hi] = 0
            dc[lo:hi] = 0
            for t in range(gh.shape[0] - 1, -1, -1):
                for b in range(lo, hi):
                    d, a = dx[t, b], gates[t, b]
                    di, df, dg, do = d[:n], d[n:2 * n], d[2 * n:3 * n], d[3 * n:]
                    i, f, g, o = a[:n], a[n:2 * n], a[2 * n:3 * n], a[3 * n:]
                    add(dh[b], gh[t, b])
                    put_tanh(di, c[t + 1, b])
                    into_cell(dc[b], dh[b], gc[t, b], o, di)
                    through_sigmoid(do, dh[b], di, o)
                    through_sigmoid(di, dc[b], g, i)
                    through_sigmoid(df, dc[b], c[t, b], f)
                    through_tanh(dg, dc[b], i, g)
                    times(dc[b], f)
                multiply(dh[lo:hi], dx[t, lo:hi], weight, False)


# ----------------------------------------------------------------------------------------------------------------- GRU

@jit
def candidate(y, r, a, x):
    for j in range(y.size):
        y[j] = tanh(x[j] + r[j] * a[j])


@jit
def mix(h, before, z, n):
    for j in range(h.size):
        h[j] = n[j] + z[j] * (before[j] - n[j])


@kernel(grain=GRAIN, measure=2)
def gru(h, gates, x, weight, bias, chunks):
    """With r, z = σ of the thirds of x[t] + a, a = h[t] Wᵀ + bias (thirds r, z, n), and n = tanh(x_n[t] + r · a_n):

    h[t + 1] = (1 - z) · n + z · h[t]. x (steps, batch, 3 n); gates[t] (batch, 4 n) keeps r, z, n and a_n.
    """
    n = h.shape[2]
    weight_t = transposed(weight)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[1], chunk, chunks)
        if hi > lo:
            memory = np.empty((hi - lo, 3 * n), x.dtype)
            for t in range(x.shape[0]):
                multiply(memory, h[t, lo:hi], weight_t, False)
                for b in range(lo, hi):
                    y, a, u = gates[t, b], memory[b - lo], x[t, b]
                    add(a, bias)
                    sigmoid_of_sum(y[:2 * n], a[:2 * n], u[:2 * n])
                    put(y[3 * n:], a[2 * n:])
                    candidate(y[2 * n:3 * n], y[:n], y[3 * n:], u[2 * n:])
                    mix(h[t + 1, b], h[t, b], y[n:2 * n], y[2 * n:3 * n])


@jit
def through_update(dz, dn, dh, before, z, n):
    """The gradients of z and n before their activations, for dh = ∂L/∂((1 - z) n + z before)."""
    for j in range(dz.size):
        dz[j] = dh[j] * (before[j] - n[j]) * sigmoid_derivative(z[j], z[j])
    for j in range(dn.size):
        dn[j] = dh[j] * (1 - z[j]) * tanh_derivative(n[j], n[j])


@kernel(grain=GRAIN)
def gru_backward(dx, da, dh, g, h, gates, weight, chunks):
    """dx = ∂L/∂x and da = ∂L/∂a (steps, batch, 3 n), dh (batch, n) the gradient of the first state."""
    n = dh.shape[1]
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(g.shape[1], chunk, chunks)
        if hi > lo:
            memory = np.zeros((hi - lo, n), dh.dtype)
            dh[lo:hi] = 0
            for t in range(g.shape[0] - 1, -1, -1):
                for b in range(lo, hi):
                    d, e, a = dx[t, b], da[t, b], gates[t, b]
                    r, z, new, state = a[:n], a[n:2 * n], a[2 * n:3 * n], a[3 * n:]
                    add(dh[b], memory[b - lo])
                    add(dh[b], g[t, b])
                    through_update(d[n:2 * n], d[2 * n:], dh[b], h[t, b], z, new)
                    through_sigmoid(d[:n], d[2 * n:], state, r)
                    put(e[:2 * n], d[:2 * n])
                    put_product_of(e[2 * n:], d[2 * n:], r)
                    put_product_of(memory[b - lo], dh[b], z)
                multiply(dh[lo:hi], da[t, lo:hi], weight, False)
            for b in range(lo, hi):
                add(dh[b], memory[b - lo])
