"""Elementwise kernels: the rules of the derivative table, dropout, copies."""

import functools
from types import FunctionType

import numba
import numpy as np

from .backend.compiled import INTERPRETED, SAME_ORDER, STAMP, chunk_bounds, jit, kernel, prange
from .backend.math32 import compiled_rule


def value_chunk(y, x):
    for i in range(x.size):
        y[i] = f(x[i])  # noqa: F821  (f is given when the chunk is compiled)


def value_kernel(y, x, chunks):
    """y[i] = f(x[i])"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        compute(y[lo:hi], x[lo:hi])  # noqa: F821


def derivative_chunk(dx, g, x, y):
    for i in range(x.size):
        dx[i] = g[i] * derivative(x[i], y[i])  # noqa: F821


def derivative_kernel(dx, g, x, y, chunks):
    """dx[i] = g[i] · ∂y/∂x at (x[i], y[i])"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        compute(dx[lo:hi], g[lo:hi], x[lo:hi], y[lo:hi])  # noqa: F821


@functools.cache
def unary(name):
    """The kernel (y, x) of a rule with one operand: y = f(x), all 1-D."""
    compute = jit(value_chunk, name=f"{name}_chunk", math=SAME_ORDER, f=compiled_rule(name))
    return kernel(value_kernel, name=name, math=SAME_ORDER, compute=compute)


@functools.cache
def unary_backward(name):
    """The kernel (dx, g, x, y) of a rule with one operand: dx = g · ∂y/∂x, all 1-D."""
    compute = jit(derivative_chunk, name=f"{name}_backward_chunk", math=SAME_ORDER, derivative=compiled_rule(name, 0))
    return kernel(derivative_kernel, name=f"{name}_backward", math=SAME_ORDER, compute=compute)


def product(g, a, b, y):
    return g * derivative(a, b, y)  # noqa: F821


@functools.cache
def binary_backward(name, i):
    """The ufunc (g, a, b, y, out) of a rule with two operands: out = g · ∂y/∂(operand i). It broadcasts."""
    function = FunctionType(product.__code__, {"derivative": compiled_rule(name, i)}, f"{name}_{i}_backward")
    function.__module__, function.__qualname__ = __name__, f"product_{name.encode().hex()}_{i}_{STAMP}"
    if INTERPRETED:
        ufunc = np.frompyfunc(function, 4, 1)
        return lambda g, a, b, y, out: np.copyto(out, ufunc(g, a, b, y), casting="unsafe")
    return numba.vectorize(["f4(f4, f4, f4, f4)", "f8(f8, f8, f8, f8)"], cache=True)(function)


# ------------------------------------------------------------------------------------------------------------- copies

@jit
def accumulate_chunk(y, x):
    for i in range(x.size):
        y[i] += x[i]


@kernel(grain=65536)
def accumulate(y, x, chunks):
    """y[i] += x[i]"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        accumulate_chunk(y[lo:hi], x[lo:hi])


@kernel(grain=65536)
def copy(y, x, chunks):
    """y[i] = x[i]"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        y[lo:hi] = x[lo:hi]


@kernel(grain=65536)
def fill(y, number, chunks):
    """y[i] = number"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(y.size, chunk, chunks)
        y[lo:hi] = y.dtype.type(number)


@jit
def scale_chunk(y, x, number):
    for i in range(x.size):
        y[i] = x[i] * number


@kernel(grain=65536)
def scale(y, x, number, chunks):
    """y[i] = x[i] · number"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        scale_chunk(y[lo:hi], x[lo:hi], y.dtype.type(number))


# ------------------------------------------------------------------------------------------------------------ dropout

@jit
def dropout_chunk(y, x, uniforms, p, factor):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] * factor if uniforms[i] >= p else x[i] * zero


@kernel
def dropout(y, x, uniforms, p, chunks):
    """y[i] = x[i] / (1 - p) where uniforms[i] ≥ p, else 0, for 0 ≤ p ≤ 1. Srivastava et al. (2014)

    The uniforms lie in [0, 1). The backward pass is the same: dropout(dx, g, uniforms, p).
    """
    real = y.dtype.type
    factor = real(1.0 / (1.0 - p)) if p < 1.0 else real(0.0)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        dropout_chunk(y[lo:hi], x[lo:hi], uniforms[lo:hi], uniforms.dtype.type(p), factor)
