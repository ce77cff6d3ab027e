"""The optimisers' updates on arrays: the formulas of `updates`, compiled. All arrays are 1-D; `h` holds the terms.

`h` is a small float64 array which the host fills before each step with `updates.…_terms(t, …)`, in that order, so that
a repeated plan follows a learning-rate schedule.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import updates
from .backend.compiled import INTERPRETED, chunk_bounds, jit, kernel, prange

X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSH = 0x8040  # of the control register MXCSR: results and operands below the normal range count as zero


def control(name):
    """An intrinsic that reads (`stmxcsr`) or writes (`ldmxcsr`) the control register of x86 vector arithmetic."""

    @intrinsic
    def function(typing, value):
        def generate(context, builder, signature, args):
            if not X86:
                return args[0]
            place = builder.alloca(ir.IntType(32))
            builder.store(args[0], place)
            pointer = ir.IntType(8).as_pointer()
            instruction = builder.module.declare_intrinsic(f"llvm.x86.sse.{name}", (),
                                                           ir.FunctionType(ir.VoidType(), [pointer]))
            builder.call(instruction, [builder.bitcast(place, pointer)])
            return builder.load(place)

        return types.uint32(types.uint32), generate

    return function


read_control, write_control = (int, int) if INTERPRETED else (control("stmxcsr"), control("ldmxcsr"))


@jit
def flush_denormals():
    """Numbers below 1e-38 count as zero in this thread from now on: arithmetic on them is a hundred times slower, and
    the moments of a converged run are full of them. Returns what `restore` needs."""
    before = read_control(np.uint32(0))
    write_control(np.uint32(before | FLUSH))
    return before


@jit
def restore(before):
    write_control(np.uint32(before))


plain_sgd_update, sgd_update, adam_update, adamw_update, rmsprop_update, rmsprop_centered_update = map(jit, (
    updates.plain_sgd_update, updates.sgd_update, updates.adam_update, updates.adamw_update, updates.rmsprop_update,
    updates.rmsprop_centered_update))


@jit
def plain_sgd_chunk(p, g, lr, decay):
    for i in range(p.size):
        p[i] = plain_sgd_update(p[i], g[i], lr, decay)


@kernel(grain=32768)
def plain_sgd(p, g, h, chunks):
    """Without momentum; h as for sgd."""
    real = p.dtype.type
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(p.size, chunk, chunks)
        plain_sgd_chunk(p[lo:hi], g[lo:hi], real(h[0]), real(h[3]))


@jit
def sgd_chunk(p, g, velocity, h):
    real = p.dtype.type
    lr, momentum, fresh, decay, nesterov = real(h[0]), real(h[1]), real(h[2]), real(h[3]), real(h[4])
    for i in range(p.size):
        p[i], velocity[i] = sgd_update(p[i], g[i], velocity[i], lr, momentum, fresh, decay, nesterov)


@kernel(grain=32768)
def sgd(p, g, velocity, h, chunks):
    """h = sgd_terms(t, lr, momentum, dampening, weight_decay, nesterov)"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(p.size, chunk, chunks)
        before = flush_denormals()
        sgd_chunk(p[lo:hi], g[lo:hi], velocity[lo:hi], h)
        restore(before)


def adam_chunk(p, g, m, v, h):
    real = p.dtype.type
    rate, beta1, rest1, beta2 = real(h[0]), real(h[1]), real(h[2]), real(h[3])
    rest2, eps, correction, decay = real(h[4]), real(h[5]), real(h[6]), real(h[7])
    for i in range(p.size):
        p[i], m[i], v[i] = update(p[i], g[i], m[i], v[i], rate, beta1, rest1, beta2, rest2, eps,  # noqa: F821
                                  correction, decay)


def adam_kernel(p, g, m, v, h, chunks):
    """h = adam_terms(t, lr, beta1, beta2, eps, weight_decay), adamw_terms for AdamW"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(p.size, chunk, chunks)
        before = flush_denormals()
        apply(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], h)  # noqa: F821
        restore(before)


adam, adamw = (kernel(adam_kernel, name=name, grain=16384, apply=jit(adam_chunk, name=f"{name}_chunk", update=update))
               for name, update in (("adam", adam_update), ("adamw", adamw_update)))


@jit
def rmsprop_chunk(p, g, square, velocity, h):
    real = p.dtype.type
    lr, alpha, rest, eps, decay, momentum = real(h[0]), real(h[1]), real(h[2]), real(h[3]), real(h[4]), real(h[5])
    for i in range(p.size):
        p[i], square[i], velocity[i] = rmsprop_update(p[i], g[i], square[i], velocity[i], lr, alpha, rest, eps, decay,
                                                      momentum)


@kernel
def rmsprop(p, g, square, velocity, h, chunks):
    """h = rmsprop_terms(t, lr, alpha, eps, weight_decay, momentum)"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(p.size, chunk, chunks)
        before = flush_denormals()
        rmsprop_chunk(p[lo:hi], g[lo:hi], square[lo:hi], velocity[lo:hi], h)
        restore(before)


@jit
def rmsprop_centered_chunk(p, g, square, mean, velocity, h):
    real = p.dtype.type
    lr, alpha, rest, eps, decay, momentum = real(h[0]), real(h[1]), real(h[2]), real(h[3]), real(h[4]), real(h[5])
    for i in range(p.size):
        p[i], square[i], mean[i], velocity[i] = rmsprop_centered_update(
            p[i], g[i], square[i], mean[i], velocity[i], lr, alpha, rest, eps, decay, momentum)


@kernel
def rmsprop_centered(p, g, square, mean, velocity, h, chunks):
    """h = rmsprop_terms(t, lr, alpha, eps, weight_decay, momentum)"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(p.size, chunk, chunks)
        before = flush_denormals()
        rmsprop_centered_chunk(p[lo:hi], g[lo:hi], square[lo:hi], mean[lo:hi], velocity[lo:hi], h)
        restore(before)
