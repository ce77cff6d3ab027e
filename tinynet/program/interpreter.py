"""The interpreter: one loop over the instructions, forward and backward, for tile after tile of samples."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ..kernels.backend import compiled
from .rules import alive

numba = compiled.numba


def call(address, memory, code, n):
    """Run the kernel at an address with its instruction."""
    alive[address - 1](memory, code, n)


@overload(call)
def compiled_call(address, memory, code, n):
    return lambda address, memory, code, n: call_address(address, memory, code, np.uint64(n))


@intrinsic
def call_address(typing, address, memory, code, n):
    """The machine's call, with the addresses of both arrays."""

    def lower(context, builder, signature, arguments):
        address, memory, code, n = arguments
        memory, code = [context.make_array(t)(context, builder, x).data
                        for t, x in zip(signature.args[1:3], (memory, code))]
        kind = ir.FunctionType(ir.VoidType(), [memory.type, code.type, n.type])
        builder.call(builder.inttoptr(address, kind.as_pointer()), [memory, code, n])
        return context.get_dummy_value()

    return types.void(address, memory, code, n), lower


@numba.njit(cache=True)
def run_code(code, table, memory, n):
    """Instruction after instruction, each for n samples."""
    for i in range(code.shape[0]):
        call(table[code[i, 0]], memory, code[i], n)


@numba.njit(cache=True)
def store_columns(results, memory, addresses, t, count):
    for j in range(addresses.size):
        for s in range(count):
            results[t + s, j] = memory[addresses[j] + s]


@numba.njit(cache=True, nogil=True)
def run_tiles(batch, begin, stop, width, lanes, memory, table, forward, backward, inputs, outputs, seed,
              input_gradients, results, gradients, totals):
    """Run samples begin … stop - 1, a tile of `width` at a time.

    inputs, outputs, seed, input_gradients   addresses; seed is that of the gradient of the loss, -1 without gradients
    results, gradients                       (samples, outputs) and (samples, inputs): written
    totals                                   the gradients of the scalars, summed over the samples: written
    """
    scalars = totals.size
    for u in range(scalars):
        memory[scalars + u] = 0
        totals[u] = 0
    for t in range(begin, stop, width):
        count = min(width, stop - t)
        n = min(width, (count + lanes - 1) // lanes * lanes)  # whole vectors; the last sample is the padding
        for j in range(inputs.size):
            for s in range(n):
                memory[inputs[j] + s] = batch[t + min(s, count - 1), j]
        run_code(forward, table, memory, n)
        store_columns(results, memory, outputs, t, count)
        if seed >= 0:
            for s in range(n):
                memory[seed + s] = 1 if s < count else 0  # the padding adds nothing to the sums
            run_code(backward, table, memory, n)
            store_columns(gradients, memory, input_gradients, t, count)
            for u in range(scalars):
                totals[u] += memory[scalars + u]


def run_batch(batch, width, lanes, memory, table, forward, backward, inputs, outputs, seed, input_gradients, results,
              gradients, totals):
    """The whole batch: an equal part of its tiles for each thread, which has a line of `memory` and `totals`."""
    threads = memory.shape[0]
    tiles = (batch.shape[0] + width - 1) // width
    for k in compiled.prange(threads):
        begin, stop = np.int64(k) * tiles // threads * width, (np.int64(k) + 1) * tiles // threads * width
        run_tiles(batch, begin, min(stop, batch.shape[0]), width, lanes, memory[k], table, forward, backward, inputs,
                  outputs, seed, input_gradients, results, gradients, totals[k])


run_threads = compiled.Launch(compiled.jit(run_batch, math=False, parallel=True, inline=False),
                              compiled.jit(run_batch, math=False, inline=False))
