"""The rules of the derivative table as kernels on registers.

A kernel works on one long array, `memory`; its instruction, a line of integers, says where in it the registers begin,
and n how many samples there are. An operand in a scalar register is a vector with step 0. Addresses are unsigned
because signed indices may be negative, which Python would count from the end.
"""

import dis
import hashlib
import threading
from types import CodeType, FunctionType

import numpy as np
from numba import types
from numba.extending import overload

from ..kernels.backend import compiled
from ..kernels.backend.math32 import FAST, compiled_function
from ..value import CONSTANT
from .planner import DERIVATIVE, KERNELS

numba = compiled.numba

ENDLESS = 1 << 40  # kernels get the address of `memory`, not its length
ZERO, ONE = np.uint64(0), np.uint64(1)
STEPS = (ONE, ONE), (ZERO, ONE), (ONE, ZERO)  # two vectors (or two scalars), a scalar and a vector, the reverse


def value_kernel(f, step_a, step_b):
    """y = f(a, b)"""
    def kernel(memory, code, n):
        m = array_at(memory)
        y, a, b = np.uint64(code[1]), np.uint64(code[2]), np.uint64(code[3])
        for s in range(n):
            m[y + s] = f(m[a + s * step_a], m[b + s * step_b])

    return kernel


def derivative_kernel(f, step_a, step_b):
    """t += g · f(a, b, y); the first contribution is stored"""
    def kernel(memory, code, n):
        m = array_at(memory)
        t, g, a = np.uint64(code[1]), np.uint64(code[2]), np.uint64(code[3])
        b, y, first = np.uint64(code[4]), np.uint64(code[5]), code[6]
        if first:
            for s in range(n):
                m[t + s] = m[g + s] * f(m[a + s * step_a], m[b + s * step_b], m[y + s])
        else:
            for s in range(n):
                m[t + s] += m[g + s] * f(m[a + s * step_a], m[b + s * step_b], m[y + s])

    return kernel


def summed_derivative_kernel(f, step_a, step_b, zero):
    """t += Σ g · f(a, b, y): the gradient of an operand that all samples share"""
    def kernel(memory, code, n):
        m = array_at(memory)
        t, g, a = np.uint64(code[1]), np.uint64(code[2]), np.uint64(code[3])
        b, y, first = np.uint64(code[4]), np.uint64(code[5]), code[6]
        total = zero
        for s in range(n):
            total += m[g + s] * f(m[a + s * step_a], m[b + s * step_b], m[y + s])
        m[t] = total if first else m[t] + total

    return kernel


def array_at(address):
    """The array that begins at an address."""
    return address


@overload(array_at)
def compiled_array_at(address):
    return lambda address: numba.carray(address, ENDLESS)


def compiled_kernel(rule, index, dtype):
    """Compile one kernel of a rule: its value or a derivative (index // DERIVATIVE), for the kinds of its operands."""
    derivative, kinds = divmod(index, DERIVATIVE)
    f = rule.derivatives[derivative - 1] if derivative else rule.value
    summed = derivative and STEPS[kinds][derivative - 1] == ZERO
    stamp = hashlib.sha1((compiled.STAMP + fingerprint(f)).encode()).hexdigest()[:12]
    if len(rule.derivatives) == 1:
        one = compiled_function(f)
        f = (lambda a, b, y: one(a, y)) if derivative else (lambda a, b: one(a))
    f = compiled_function(f)
    if summed:
        kernel = summed_derivative_kernel(f, *STEPS[kinds], dtype.type(0))
    else:
        kernel = (derivative_kernel if derivative else value_kernel)(f, *STEPS[kinds])
    kernel.__qualname__ = f"{kernel.__qualname__}_{stamp}"
    if compiled.INTERPRETED:
        return kernel
    number = types.float32 if dtype == np.float32 else types.float64
    signature = types.void(types.CPointer(number), types.CPointer(types.int32), types.uint64)
    # A sum over samples may be taken in any order, which is what lets it be a vector instruction.
    fastmath = {"reassoc", "nsz"} if summed else False
    try:
        return numba.cfunc(signature, cache=True, fastmath=fastmath, error_model="numpy")(kernel)
    except numba.core.errors.NumbaError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"compile: Numba cannot compile the rule {rule.name!r}: {reason}") from error


def fingerprint(f, seen=()):
    """A text that changes when f, or a function or number that it uses, is edited: part of a kernel's cache key."""
    if not isinstance(f, FunctionType) or f in seen:
        return repr(f) if isinstance(f, (int, float)) else getattr(f, "__name__", "")
    code = f.__code__
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    used = [f.__globals__[name] for name in code.co_names if name in f.__globals__]
    used += [cell.cell_contents for cell in f.__closure__ or ()]
    return repr([code.co_code, code.co_names, code.co_varnames, constants, [fingerprint(x, (*seen, f)) for x in used]])


def reads(f, arity):
    """Which of the operands (a, b, y) a derivative reads: the values to keep for the backward pass."""
    if f in FAST or not isinstance(f, FunctionType):
        return [True, arity == 2, True]
    read = set(f.__code__.co_cellvars)
    for instruction in dis.get_instructions(f):
        if "LOAD_FAST" in instruction.opname:
            read.update(instruction.argval if isinstance(instruction.argval, tuple) else [instruction.argval])
    used = [name in read for name in f.__code__.co_varnames[:arity + 1]]
    return used if arity == 2 else [used[0], False, used[1]]


class Opcodes(dict):
    """Rule → opcode, assigned as rules are met, with what the planner needs to know of each."""

    def __init__(self):
        super().__init__({None: -1, CONSTANT: -1})
        self.rules = []
        self.arity = np.zeros(1, np.int64)  # arrays end with a line for opcode -1, a leaf
        self.reads = np.zeros((1, 2, 3), bool)  # [opcode, derivative, (a, b, y)]
        self.is_one = np.zeros((1, 2), bool)  # whether the derivative is 1 for all operands
        self.addresses = {np.dtype(t): np.zeros(0, np.int64) for t in ("f4", "f8")}  # of the kernels
        self.lock = threading.Lock()

    def __missing__(self, rule):
        with self.lock:
            if rule in self:
                return self[rule]
            arity = len(rule.derivatives)
            if arity not in (1, 2):
                raise ValueError(f"compile: expected the rule {rule.name!r} to have 1 or 2 derivatives, got {arity}")
            read, is_one = np.zeros((1, 2, 3), bool), np.zeros((1, 2), bool)
            for k, f in enumerate(rule.derivatives):
                read[0, k] = reads(f, arity)
                is_one[0, k] = not read[0, k].any() and f(*[0.0] * (arity + 1)) == 1.0
            self.arity = np.insert(self.arity, -1, arity)
            self.reads = np.concatenate([self.reads[:-1], read, self.reads[-1:]])
            self.is_one = np.concatenate([self.is_one[:-1], is_one, self.is_one[-1:]])
            self.addresses = {t: np.append(table, [0] * KERNELS) for t, table in self.addresses.items()}
            self.rules.append(rule)
            self[rule] = len(self.rules) - 1
            return self[rule]

    def table(self, dtype, kernels):
        """The addresses of all kernels, after compiling those of `kernels` that have not been compiled yet."""
        with self.lock:
            table = self.addresses[dtype].copy()
            for k in kernels[table[kernels] == 0]:
                kernel = compiled_kernel(self.rules[k // KERNELS], k % KERNELS, dtype)
                alive.append(kernel)
                table[k] = len(alive) if compiled.INTERPRETED else kernel.address
            self.addresses[dtype] = table
        return table


opcodes = Opcodes()
alive = []  # compiled kernels, which must outlive every table that holds their addresses
