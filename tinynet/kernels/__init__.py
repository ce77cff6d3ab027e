"""Numba kernels: plain functions on arrays, outputs first, no allocation, no graph. Nothing here knows a Tensor.

All numbers of a tensor are written through one function, `launch(kernel, *arrays)`. While a plan is being captured it
notes each call, so that the whole step can be repeated later without anything of Python but these calls.

Arrays are C-contiguous, float32 or float64, all of one dtype; x is read, y written; shapes are given in the files.

    activations   unary(name)(y, x)                            y = f(x) for an operation of the derivative table
                  unary_backward(name)(dx, g, x, y)            dx = g · ∂y/∂x
                  binary_backward(name, i)(g, a, b, y, out)    out = g · ∂y/∂(operand i); a ufunc, so it broadcasts
                  accumulate(y, x)   copy(y, x)   fill(y, number)   scale(y, x, number)
                  dropout(y, x, uniforms, p)                   also its own backward: dropout(dx, g, uniforms, p)
    dense         matmul(c, a, b)   batched(c, a, b)           C = A B; A and B may be transposed views
                  layer(name)(y, z, x, w, b)                   z = x wᵀ + b, y = f(z); z is y unless keeps_input(name)
                  layer_backward(dx, dw, db, z, x, w)          dx = z w, dw = zᵀ x, db = Σ rows of z; or None
                  bias_act_backward(name)(dz, db, g, z, y)     dz = g · f'; db = Σ rows of dz; z is y likewise
                  column_sums(out, x)   total(out, x, factor)   total_of_squares(out, x)   transpose(y, x)
                  embedding(out, weight, indices)   embedding_backward(dweight, g, indices)
    normalization softmax(y, x)   softmax_backward(dx, g, y)   log_softmax(y, x)   log_softmax_backward(dx, g, y)
                  layer_norm(y, mean, rstd, x, weight, bias, eps)
                  layer_norm_backward(dx, dweight, dbias, g, x, mean, rstd, weight)
                  channel_moments(mean, variance, x)   batch_norm(y, x, mean, variance, weight, bias, eps)
                  batch_norm_backward(dx, dweight, dbias, g, x, mean, variance, weight, eps, trained)
    attention     attention(out, lse, q, k, v, mask, causal, scale)
                  attention_backward(dq, dk, dv, g, out, lse, q, k, v, mask, causal, scale)
    convolution   conv2d(y, x, weight, bias, stride_h, stride_w, pad_h, pad_w)
                  conv2d_backward(dx, dweight, dbias, g, x, weight, stride_h, stride_w, pad_h, pad_w)
                  max_pool2d(y, where, x, kh, kw, stride_h, stride_w, pad_h, pad_w)   max_pool2d_backward(dx, g, where)
                  avg_pool2d(y, x, kh, kw, stride_h, stride_w, pad_h, pad_w)          avg_pool2d_backward(dx, g, kh, …)
    recurrent     rnn(name)(h, x, weight)           rnn_backward(name)(dx, dh, g, h, weight)
                  lstm(h, c, gates, x, weight)      lstm_backward(dx, dh, dc, gh, gc, c, gates, weight)
                  gru(h, gates, x, weight, bias)    gru_backward(dx, da, dh, g, h, gates, weight)
    losses        cross_entropy(loss, p, logits, targets, ignored, mean)    …_backward(dlogits, g, p, targets, …)
                  mse(loss, y, target, factor)                      …_backward(dy, g, y, target, factor)
                  bce_with_logits(loss, z, target, factor)          …_backward(dz, g, z, target, factor)
    updates       the optimisers' formulas on plain numbers (no Numba): sgd_update, adam_update, …
    optimizers    sgd(p, g, momentum, h)   adam(p, g, m, v, h)   adamw   rmsprop   rmsprop_centered
    backend       compiled     how kernels are compiled, cached and shared among threads
                  blas         the matrix product of the BLAS that NumPy brings, and `gemm`, which kernels call
                  simd         the one vocabulary of vector instructions, for loops that compilers leave slow
                  small_gemm   products of small matrices, for use inside kernels: multiply(c, a, b, add)
                  math32       exp, log, tanh, erf, … in single precision, in arithmetic that vectorises
                  replay       a list of kernel calls as one function of machine code

A family is imported on first use: importing `tinynet.kernels` imports neither NumPy nor Numba.
"""

import importlib

from ..graph import mode

BACKEND = ("blas", "compiled", "math32", "simd", "small_gemm", "replay")
HOMES = {"matmul": "dense", "batched": "dense"}
FAMILIES = ("activations", "dense", "normalization", "attention", "convolution", "recurrent", "losses", "updates",
            "optimizers", *BACKEND)


class Kernel:
    """Something that chooses a concrete function for its arguments: `dispatch(args)` returns (function, arguments)."""

    __slots__ = ()

    def __call__(self, *args):
        function, args = self.dispatch(args)
        function(*args)


def launch(kernel, *args):
    """Call kernel(*args), and note the call where a plan is being captured. Any function that writes into its
    arguments is a kernel, NumPy's with `out` among them."""
    if isinstance(kernel, Kernel):
        kernel, args = kernel.dispatch(args)
    kernel(*args)
    if mode.plan is not None:
        mode.plan.steps.append((kernel, args))


def set_num_threads(n):
    """Let kernels use n threads; ValueError where the machine, or NUMBA_NUM_THREADS, has fewer."""
    from .backend import compiled

    compiled.set_num_threads(n)


def get_num_threads():
    """How many threads kernels use."""
    from .backend import compiled

    return compiled.threads


def __getattr__(name):
    if name in FAMILIES:
        return importlib.import_module(f".backend.{name}" if name in BACKEND else f".{name}", __name__)
    if name in HOMES:
        found = globals()[name] = getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
