"""A graph of Values is a program: flattened into integer arrays, it runs over a whole batch at machine speed.

>>> from tinynet import Value
>>> from tinynet.program import compile
>>> x, w = Value(0.0, label="x"), Value(3.0, label="w")
>>> program = compile(w * x + 1, inputs=[x], parameters=[w])
>>> print(program)
%0 = parameter w
%1 = input x
%2 = mul %0, %1                 # w · x
%3 = constant 1.0
%4 = add %2, %3                 # %2 + 1
return %4
>>> program([[1.0], [2.0]])
array([4., 7.])
>>> program.backward([[1.0], [2.0]])    # the mean over the batch, and its gradients
5.5
>>> w.grad
1.5

How it works, from the top of this file to its end:

1.  Every row of the page of calculus becomes a few small loops over a *row*: the values of one node for many samples
    side by side. `y = a * b` is one loop for the value and one for each share of the gradient, and Numba makes vector
    instructions of them. They are compiled once for a row of the page, never for a graph.
2.  The graph becomes two lists of instructions (which loop, which rows), one forward and one backward. What does not
    depend on the inputs (the weights) is one number, not a row. Rows are given out as registers are: as soon as
    nobody reads a row any more, the next node gets it, so that the working set stays in the processor's cache.
3.  One loop walks down the list for a tile of samples, then back up, then takes the next tile. Threads share the tiles.

Sources: linear-scan register allocation, Poletto and Sarkar (1999); the gradient as a reversed program ("tape"),
Speelpenning (1980).
"""

import dis
import hashlib
import math
import threading
from types import CodeType, FunctionType, ModuleType

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .. import value
from ..errors import refusing
from ..graph import one_line, topological
from ..kernels.backend import compiled, math32
from ..value import CONSTANT, Value

numba = compiled.numba  # as the kernels have set it up

# ------------------------------------------------------------------------------------------- 1. the calculus, compiled
# A kernel works on one long array `rows`; its instruction, a line of integers, says where in it each row begins, and n
# how many samples there are. An operand that is the same for all samples (a weight) is a row with step 0: one number.
# Places are unsigned because signed indices may be negative, which Python would count from the end.

ENDLESS = 1 << 40  # kernels get the address of `rows`, not its length
KERNELS, DERIVATIVE = 12, 4  # an operation has 12 places in the table of kernels: 4 for its value, 4 a derivative
ZERO, ONE = np.uint64(0), np.uint64(1)
STEPS = (ONE, ONE), (ZERO, ONE), (ONE, ZERO)  # the patterns: two rows (or two numbers), a number and a row, the reverse


def forward_kernel(f, step_a, step_b):
    """y = f(a, b), or f(a)"""

    def kernel(rows, line, n):
        r = array_of(rows)
        y, a, b = np.uint64(line[1]), np.uint64(line[2]), np.uint64(line[3])
        for s in range(n):
            r[y + s] = f(r[a + s * step_a], r[b + s * step_b])

    def unary(rows, line, n):
        r = array_of(rows)
        y, a = np.uint64(line[1]), np.uint64(line[2])
        for s in range(n):
            r[y + s] = f(r[a + s])

    return unary if step_b is None else kernel


def share_kernel(f, step_a, step_b):
    """t += g · f(a, b, y), or f(a, y); the first share of a row is stored instead of added"""

    def kernel(rows, line, n):
        r = array_of(rows)
        t, g, a, b, y = (np.uint64(line[1]), np.uint64(line[2]), np.uint64(line[3]), np.uint64(line[4]),
                         np.uint64(line[5]))
        if line[6]:
            for s in range(n):
                r[t + s] = r[g + s] * f(r[a + s * step_a], r[b + s * step_b], r[y + s])
        else:
            for s in range(n):
                r[t + s] += r[g + s] * f(r[a + s * step_a], r[b + s * step_b], r[y + s])

    def unary(rows, line, n):
        r = array_of(rows)
        t, g, a, y = np.uint64(line[1]), np.uint64(line[2]), np.uint64(line[3]), np.uint64(line[5])
        if line[6]:
            for s in range(n):
                r[t + s] = r[g + s] * f(r[a + s], r[y + s])
        else:
            for s in range(n):
                r[t + s] += r[g + s] * f(r[a + s], r[y + s])

    return unary if step_b is None else kernel


def summed_share_kernel(f, step_a, step_b, zero):
    """t += Σ g · f(a, b, y): the share of an operand that all samples have in common"""

    def kernel(rows, line, n):
        r = array_of(rows)
        t, g, a, b, y = (np.uint64(line[1]), np.uint64(line[2]), np.uint64(line[3]), np.uint64(line[4]),
                         np.uint64(line[5]))
        total = zero
        for s in range(n):
            total += r[g + s] * f(r[a + s * step_a], r[b + s * step_b], r[y + s])
        r[t] = total if line[6] else r[t] + total

    return kernel


def array_of(rows):
    """The array that begins at this address."""
    return rows


@overload(array_of)
def array_of_pointer(rows):
    return lambda rows: numba.carray(rows, ENDLESS)


def compilable(f):
    """Let compiled code call the plain function f, and the plain functions that f calls by name."""
    if not isinstance(f, FunctionType) or f in known:
        return f
    known.add(f)
    if f.__code__ is value.exp.__code__:  # `exp`, `cos`, … of the page: a function of a float or a Value
        row = compilable(f.__closure__[f.__code__.co_freevars.index("value")].cell_contents)
        overload(f, strict=False, jit_options=NUMPY_ERRORS)(lambda x: row)
        return f
    for x in named_by(f):
        compilable(x)
    single = in_single_precision(f)
    overload(f, strict=False, jit_options=NUMPY_ERRORS)(lambda *xs: single if types.float32 in xs else f)
    return f


def named_by(f):
    """What a function mentions: globals and variables of the functions around it."""
    found = [f.__globals__[name] for name in f.__code__.co_names if name in f.__globals__]
    return found + [cell.cell_contents for cell in f.__closure__ or ()]


def fingerprint(f, seen=()):
    """A text that changes when f, or a function or number that it mentions, is edited: a kernel's name in the cache."""
    if not isinstance(f, FunctionType) or f in seen:
        return repr(f) if isinstance(f, (int, float)) else getattr(f, "__name__", "")
    code = f.__code__
    constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
    return repr([code.co_code, code.co_names, constants, [fingerprint(x, (*seen, f)) for x in named_by(f)]])


def in_single_precision(f):
    """The same code with its constants in single precision and with `math` as `kernels.math32` has it."""
    code = f.__code__
    constants = tuple(np.float32(c) if isinstance(c, float) else c for c in code.co_consts)
    names = {name: MATH32 if x is math else x for name, x in f.__globals__.items()}
    return FunctionType(code.replace(co_consts=constants), names, f.__name__, f.__defaults__, f.__closure__)


MATH32 = ModuleType("math32")  # Python's functions, but for exp, log, tanh, … of a float32: those vectorise
vars(MATH32).update(vars(math))
for name, function in vars(math32.SINGLE).items():
    if hasattr(function, "py_func"):
        setattr(MATH32, name, math32.either(function, getattr(math, name), 1))
known = set()
NUMPY_ERRORS = {"error_model": "numpy"}  # 1/0 is inf and 0/0 is nan: one bad sample does not stop the others


def reads(f, arity):
    """Which of its operands (a, b, y) a derivative looks at: the values that must be kept for the way back."""
    if not isinstance(f, FunctionType):
        return [True, arity == 2, True]
    seen = set(f.__code__.co_cellvars)
    for instruction in dis.get_instructions(f):
        if "LOAD_FAST" in instruction.opname:
            seen.update(instruction.argval if isinstance(instruction.argval, tuple) else [instruction.argval])
    used = [name in seen for name in f.__code__.co_varnames[:arity + 1]]
    return used if arity == 2 else [used[0], False, used[1]]


class Opcodes(dict):
    """Rule → its opcode, given out as rules are met; with what the planner must know of each."""

    def __init__(self):
        super().__init__({None: -1, CONSTANT: -1})
        self.rules = []
        self.arity = np.zeros(0, np.int64)
        self.reads = np.zeros((0, 2, 3), bool)  # [opcode, derivative, (a, b, y)]
        self.unit = np.zeros((0, 2), bool)  # whether the derivative is 1 whatever the operands
        self.tables = {np.dtype(t): np.zeros(0, np.int64) for t in ("f4", "f8")}  # addresses of the kernels
        self.lock = threading.Lock()

    def __missing__(self, rule):
        with self.lock:
            if rule in self:
                return self[rule]
            arity = len(rule.derivatives)
            if arity not in (1, 2):
                raise ValueError(f"compile: {rule.name} has {arity} derivatives, expected one or two")
            looks = [reads(f, arity) for f in rule.derivatives]
            unit = [not any(used) and f(*[0.0] * (arity + 1)) == 1.0 for f, used in zip(rule.derivatives, looks)]
            self.arity = np.append(self.arity, arity)
            self.reads = np.concatenate([self.reads, np.array([looks + [[False] * 3] * (2 - arity)])])
            self.unit = np.concatenate([self.unit, np.array([unit + [False] * (2 - arity)])])
            self.tables = {t: np.append(table, [0] * KERNELS) for t, table in self.tables.items()}
            self.rules.append(rule)
            self[rule] = len(self.rules) - 1
            return self[rule]

    def table(self, dtype, kernels):
        """The addresses of all kernels, after compiling those of `kernels` that have not been compiled yet."""
        table = self.tables[dtype]
        missing = np.unique(kernels[table[kernels] == 0])
        if missing.size:
            with self.lock:
                table = self.tables[dtype].copy()
                for k in missing:
                    table[k] = made(self.rules[k // KERNELS], k % KERNELS, dtype)
                self.tables[dtype] = table
        return table


opcodes = Opcodes()
alive = []  # compiled kernels, which must outlive every table that holds their addresses


def made(rule, place, dtype):
    """The address of one kernel of a rule."""
    derivative, pattern = divmod(place, DERIVATIVE)
    steps = STEPS[pattern] if len(rule.derivatives) == 2 else (ONE, None)
    summed = derivative and steps[derivative - 1] == 0
    f = compilable(rule.derivatives[derivative - 1] if derivative else rule.value)
    if summed:
        kernel = summed_share_kernel(f, *steps, dtype.type(0))
    else:
        kernel = (share_kernel if derivative else forward_kernel)(f, *steps)
    stamp = hashlib.sha1((compiled.STAMP + fingerprint(f)).encode()).hexdigest()[:12]
    kernel.__qualname__ = f"{kernel.__qualname__}_{stamp}"
    if numba.config.DISABLE_JIT:
        alive.append(kernel)
        return len(alive)
    # A sum over samples may be taken in any order, which is what lets it be a vector instruction.
    fast = {"reassoc", "nsz"} if summed else False
    try:
        alive.append(numba.cfunc(KERNEL[dtype], cache=True, fastmath=fast, **NUMPY_ERRORS)(kernel))
    except numba.core.errors.NumbaError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"compile: Numba cannot compile the row {rule.name!r} of the calculus: {reason}") from error
    return alive[-1].address


KERNEL = {np.dtype(t.name): types.void(types.CPointer(t), types.CPointer(types.int32), types.uint64)
          for t in (types.float32, types.float64)}


def call(address, rows, line, n):
    """Run the kernel at an address with its instruction."""
    alive[address - 1](rows, line, n)


@overload(call)
def call_compiled(address, rows, line, n):
    return lambda address, rows, line, n: call_address(address, rows, line, np.uint64(n))


@intrinsic
def call_address(typing, address, rows, line, n):
    """The machine's call, with the addresses of both arrays."""

    def lower(context, builder, signature, arguments):
        address, rows, line, n = arguments
        rows, line = [context.make_array(t)(context, builder, x).data
                      for t, x in zip(signature.args[1:3], (rows, line))]
        kind = ir.FunctionType(ir.VoidType(), [rows.type, line.type, n.type])
        builder.call(builder.inttoptr(address, kind.as_pointer()), [rows, line, n])
        return context.get_dummy_value()

    return types.void(address, rows, line, n), lower


# ------------------------------------------------------------------------------------------------------- 2. the planner
# An instruction is a line of integers: (kernel, y, a, b) forward, (kernel, share, g, a, b, y, first) backward. Until
# the tile's width is known, a place r >= 0 means row r, and a place -1 - u means the number u. Numbers 0 … N - 1 are
# what all samples share (parameters first), and N … 2N - 1 are their gradients.


@numba.njit(cache=True)
def lifetimes(opcode, a, b, number, wanted, outputs, arity, reads, unit):
    """When each row is read for the last time, and which nodes share one row for their gradients.

    Node i is computed at time i, and its gradient is shared out at time 2n - 1 - i.

    Returns, for each node: `last`, when its value is read for the last time; `owner`, the node whose row holds its
    gradient; `end`, for an owner, the node at which that row is read for the last time (-1: kept for the caller).
    """
    n = len(opcode)
    last, owner, end = np.arange(n), np.arange(n), np.arange(n)
    uses = np.zeros(n, np.int64)  # how many shares a gradient is the sum of
    for i in range(n):
        if opcode[i] >= 0 and number[i] < 0:
            last[a[i]] = last[b[i]] = i
    for i in outputs:
        last[i] = n
    for i in range(n - 1, -1, -1):
        if opcode[i] >= 0 and number[i] < 0 and wanted[i]:
            for k in range(arity[opcode[i]]):
                x = b[i] if k else a[i]
                if wanted[x]:
                    uses[x] += 1
                    read = reads[opcode[i], k]
                    if read[0]:
                        last[a[i]] = 2 * n - 1 - i
                    if read[1]:
                        last[b[i]] = 2 * n - 1 - i
                    if read[2]:
                        last[i] = 2 * n - 1 - i
    for i in range(n - 1, -1, -1):
        if opcode[i] >= 0 and number[i] < 0 and wanted[i]:
            for k in range(arity[opcode[i]]):
                x = b[i] if k else a[i]
                # Where the derivative is 1 and there is no other share (all along a sum): the gradient of its user.
                if wanted[x] and number[x] < 0 and uses[x] == 1 and unit[opcode[i], k]:
                    owner[x] = owner[i]
        if opcode[i] < 0 and wanted[i]:
            end[owner[i]] = -1
        elif end[owner[i]] >= 0:
            end[owner[i]] = i
    return last, owner, end


@numba.njit(cache=True)
def release(free, r):
    """Row r may be given to another node. free[0] says how many such rows there are; the latest goes first."""
    free[0] += 1
    free[free[0] + 1] = r


@numba.njit(cache=True)
def take(free):
    """A free row, or a new one; free[1] says how many rows there are."""
    if free[0]:
        free[0] -= 1
        return free[free[0] + 2]
    free[1] += 1
    return free[1] - 1


@numba.njit(cache=True)
def pattern(a, b):
    """Which of STEPS, for operands with these numbers (-1: a row). Two numbers are two rows of one sample."""
    return 0 if (a < 0) == (b < 0) else 1 if a >= 0 else 2


@numba.njit(cache=True)
def plan_forward(opcode, a, b, number, last, once, code, row, free):
    """Write the forward instructions, and the place of each node's value into `row`; returns how many there are.

    A kernel never writes a row that it reads: a row is released after the result has got its own.
    """
    shared = count = 0
    for i in range(len(opcode)):
        if number[i] >= 0:
            row[i] = -1 - number[i]
        elif opcode[i] < 0:
            row[i] = take(free)  # all inputs are there before the first instruction runs
    for i in range(len(opcode)):
        if opcode[i] < 0:
            continue
        x, y = a[i], b[i]
        if number[i] >= 0:
            line = once[shared]
            line[0] = opcode[i] * KERNELS
            shared += 1
        else:
            row[i] = take(free)
            line = code[count]
            line[0] = opcode[i] * KERNELS + pattern(number[x], number[y])
            count += 1
            if number[x] < 0 and last[x] == i:
                release(free, row[x])
            if number[y] < 0 and last[y] == i and x != y:
                release(free, row[y])
        line[1], line[2], line[3] = row[i], row[x], row[y]
    return shared, count


@numba.njit(cache=True)
def plan_backward(opcode, a, b, number, numbers, wanted, last, owner, end, root, once, code, row, gradient, free,
                  arity):
    """Write the backward instructions, and the place of each node's gradient into `gradient`; returns how many."""
    n = len(opcode)
    shared = count = 0
    touched = np.zeros(n, np.int64)
    for i in range(n):
        gradient[i] = -1 - (numbers + number[i]) if number[i] >= 0 else ABSENT
    if number[root] < 0:
        gradient[root] = take(free)
    for i in range(n - 1, -1, -1):
        if opcode[i] < 0 or not wanted[i]:
            continue
        for k in range(arity[opcode[i]]):
            x = b[i] if k else a[i]
            if not wanted[x] or owner[x] != x:
                continue
            if number[i] >= 0:
                line = once[shared]
                shared += 1
            else:
                if gradient[x] == ABSENT:
                    gradient[x] = take(free)
                line = code[count]
                count += 1
            line[0] = opcode[i] * KERNELS + DERIVATIVE * (k + 1) + pattern(number[a[i]], number[b[i]])
            line[1], line[2] = gradient[x], gradient[owner[i]]
            line[3], line[4], line[5] = row[a[i]], row[b[i]], row[i]
            line[6] = 0 if touched[x] or number[i] >= 0 else 1
            touched[x] = 1
        if number[i] < 0:
            now = 2 * n - 1 - i
            if last[a[i]] == now and number[a[i]] < 0:
                release(free, row[a[i]])
            if last[b[i]] == now and number[b[i]] < 0 and a[i] != b[i]:
                release(free, row[b[i]])
            if last[i] == now:
                release(free, row[i])
            if end[owner[i]] == i:
                release(free, gradient[owner[i]])
    for i in range(n):
        gradient[i] = gradient[owner[i]]
    return shared, count


ABSENT = -(1 << 62)


@numba.njit(cache=True)
def number_shared(opcode, a, b, number, numbers, wanted, inputs):
    """Give a number to each node that is computed from numbers alone, and mark all nodes on the way to a wanted leaf.

    In a program without inputs that would be every node: there each runs in a row, of one sample, that is used again.
    """
    for i in range(len(opcode)):
        if opcode[i] >= 0:
            wanted[i] = wanted[a[i]] or wanted[b[i]]
            if inputs and number[a[i]] >= 0 and number[b[i]] >= 0:
                number[i] = numbers
                numbers += 1
    return numbers


@numba.njit(cache=True)
def located(instructions, numbers, width):
    """The instructions with places in `rows`: first the numbers and their gradients, then rows of `width` samples."""
    start = first_row(numbers)
    code = instructions.copy()
    for i in range(code.shape[0]):
        for j in range(1, min(code.shape[1], 6)):
            code[i, j] = located_place(code[i, j], start, width)
    return code


@numba.njit(cache=True)
def located_place(r, start, width):
    return start + r * width if r >= 0 else -1 - r


@numba.njit(cache=True)
def first_row(numbers):
    return (2 * numbers + 15) // 16 * 16


# ---------------------------------------------------------------------------------------------------------- 3. the loop


@numba.njit(cache=True)
def run_code(code, table, rows, n):
    """The interpreter: instruction after instruction, each for n samples."""
    for i in range(code.shape[0]):
        call(table[code[i, 0]], rows, code[i], n)


@numba.njit(cache=True, nogil=True)
def run_tiles(batch, begin, stop, width, lanes, rows, table, forward, backward, inputs, outputs, seed, kept,
              results, slopes, totals):
    """Run samples begin … stop - 1, a tile of `width` at a time.

    inputs, outputs, seed, kept   where the inputs, the outputs, the gradient of the loss and those of the inputs are
    results, slopes               (samples, outputs) and (samples, inputs): written
    totals                        the gradients of the numbers, summed over the samples: written
    """
    numbers = totals.size
    for u in range(numbers):
        rows[numbers + u] = 0
        totals[u] = 0
    for t in range(begin, stop, width):
        count = min(width, stop - t)
        n = min(width, (count + lanes - 1) // lanes * lanes)  # whole vectors; the last sample fills the rest
        for j in range(inputs.size):
            for s in range(n):
                rows[inputs[j] + s] = batch[t + min(s, count - 1), j]
        run_code(forward, table, rows, n)
        copy_columns(results, rows, outputs, t, count)
        if seed >= 0:
            for s in range(n):
                rows[seed + s] = 1 if s < count else 0  # what fills the rest adds nothing to the sums
            run_code(backward, table, rows, n)
            copy_columns(slopes, rows, kept, t, count)
            for u in range(numbers):
                totals[u] += rows[numbers + u]


@numba.njit(cache=True)
def copy_columns(results, rows, places, t, count):
    for j in range(places.size):
        for s in range(count):
            results[t + s, j] = rows[places[j] + s]


def run_lines(batch, width, lanes, rows, table, forward, backward, inputs, outputs, seed, kept,
              results, slopes, totals):
    """The same for the whole batch: one equal share of its tiles for each of the lines of `rows` and `totals`."""
    threads = rows.shape[0]
    tiles = (batch.shape[0] + width - 1) // width
    for k in compiled.prange(threads):
        begin, stop = np.int64(k) * tiles // threads * width, (np.int64(k) + 1) * tiles // threads * width
        run_tiles(batch, begin, min(stop, batch.shape[0]), width, lanes, rows[k], table, forward, backward, inputs,
                  outputs, seed, kept, results, slopes, totals[k])


run_threads = compiled.Launch(compiled.jit(run_lines, math=False, parallel=True, inline=False),
                              compiled.jit(run_lines, math=False, inline=False))

# ------------------------------------------------------------------------------------------------------ the public door

TILE_BYTES = 256 * 1024  # the rows of one tile stay within a core's second-level cache
WORTH_A_THREAD = 500_000  # instructions times samples for each thread: about 100 µs, what waking a thread can cost


@refusing
def compile(loss, inputs=(), parameters=None, dtype="float64"):
    """A program that runs the graph of `loss` on batches: `program(batch)`, `program.backward(batch)`.

    loss         a Value, or a list or array of them: (batch,) or (batch, …) comes out. `backward` needs one loss
    inputs       the leaves that a batch gives numbers to, in the order of its columns; lists and arrays are flattened
    parameters   the leaves whose numbers are read from their `.data` at each call, and whose `.grad` `backward` adds
                 to; any other leaf is a constant from now on. Without them: every leaf but the inputs and the constants
    dtype        "float64" (equal to the interpreted engine to 1e-12) or "float32" (twice as fast)

    The operations are those that ran when the graph was built: a Python `if` or `for` was decided then, once for all
    samples. `max`, `min`, `relu` and `abs` still choose for each sample. Numbers that were read then are constants: so
    is the shift of a softmax, which changes nothing but how large its logits may become before exp overflows.

    Numbers are those of IEEE arithmetic: 1/0 is inf, log(-1) is nan, for that sample only.

    Raises TypeError where something is not a Value, ValueError for an input that is not a leaf or that does not reach
    the loss.
    """
    return Program(loss, inputs, parameters, dtype)


@refusing
class Program:
    """A graph of Values as a program over a batch; see `compile`.

    print(program) lists its instructions, program.draw() is its picture.
    """

    def __init__(self, loss, inputs=(), parameters=None, dtype="float64"):
        if dtype not in ("float64", "float32", np.float64, np.float32):
            raise ValueError(f"compile: dtype: expected 'float64' or 'float32', got {dtype!r}")
        self.dtype = np.dtype(dtype)
        self.loss = loss
        self.outputs, self.shape = values(loss, "loss")
        self.inputs = leaves(inputs, "inputs")
        order = topological(*self.outputs)
        if parameters is None:
            given = set(self.inputs)
            parameters = [x for x in order if x.op is None and x not in given]
        self.parameters = leaves(parameters, "parameters")
        both = set(self.inputs)
        for i, x in enumerate(self.parameters):
            if x in both:
                raise ValueError(f"compile: {named('parameters', i, x)} is also an input")
        self.flatten(order)
        self.plans = {}
        self.latest = None
        self.lock = threading.Lock()

    def flatten(self, order):
        """The graph as arrays: each node's operation and operands; of each leaf, which number or input it is."""
        index = dict(zip(order, range(len(order))))
        for i, x in enumerate(self.inputs):
            if x not in index:
                raise ValueError(f"compile: {named('inputs', i, x)} does not reach the loss")
        self.opcode = np.array([opcodes[x.op] for x in order], np.int64)
        operands = np.array([index[x] for y in order for x in y.inputs] + [-1], np.int64)
        arity = np.where(self.opcode >= 0, np.append(opcodes.arity, 0)[self.opcode], 0)
        start = np.cumsum(arity) - arity
        self.first, self.second = operands[start], operands[start + np.maximum(arity, 1) - 1]
        self.ends = np.array([index[y] for y in self.outputs])
        self.columns = np.array([index[x] for x in self.inputs], np.int64)
        known = np.array([i for i, x in enumerate(self.parameters) if x in index], np.int64)
        self.taking = [self.parameters[i] for i in known.tolist()]  # those that backward gives a gradient
        self.weights = np.array([index[x] for x in self.taking], np.int64)

        constant = self.opcode < 0
        constant[self.columns] = constant[self.weights] = False
        constant = np.flatnonzero(constant)
        self.number = np.full(len(order), -1)  # the parameters first, then the constants
        self.reached = self.number[self.weights] = known
        self.number[constant] = len(self.parameters) + np.arange(len(constant))
        self.constants = np.array([order[i].data for i in constant.tolist()], np.float64)

    def __call__(self, batch=None):
        """The outputs for a (batch, inputs) array, as an array of the caller's own: (batch,) for one output."""
        batch = self.checked(batch)
        with self.lock:
            results = self.run(batch, self.plan(False, False))[0]
            self.latest = batch
        return results.reshape(len(batch), *self.shape)

    def backward(self, batch=None, inputs=False):
        """The mean loss over the batch; adds its gradient to the `.grad` of each parameter that the loss depends on.

        Without a batch it is that of the latest call. With `inputs=True` the answer is (mean loss, gradients), where
        gradients[s, i] = ∂(mean loss)/∂(input i of sample s).

        Raises ValueError where the program has several outputs, or the batch no samples.
        """
        if len(self.outputs) != 1:
            raise ValueError(f"backward: the program has {len(self.outputs)} outputs, expected one loss")
        if batch is None and self.latest is not None:
            batch = self.latest
        batch = self.checked(batch)
        if not len(batch):
            raise ValueError("backward: the batch has no samples, so the loss has no mean")
        with self.lock:
            results, slopes, gradients = self.run(batch, self.plan(True, bool(inputs)))
            gradients = (gradients[self.reached] / len(batch)).tolist()
            self.latest = batch
        for p, g in zip(self.taking, gradients):
            p.grad = g if p.grad is None else p.grad + g
        loss = float(results.sum()) / len(batch)
        return (loss, slopes / len(batch)) if inputs else loss

    def run(self, batch, plan):
        """Outputs (batch, outputs), gradients of their sum for the inputs (batch, inputs) and for the numbers."""
        width = plan.layout(len(batch))
        rows, totals, numbers = plan.rows, plan.totals, plan.numbers
        results = np.empty((len(batch), len(self.outputs)), self.dtype)
        slopes = np.empty((len(batch), len(plan.kept)), self.dtype)
        rows[0, :len(self.parameters)] = [p.data for p in self.parameters]
        rows[0, len(self.parameters):len(self.parameters) + len(self.constants)] = self.constants
        run_code(plan.once, plan.table, rows[0], 1)
        if len(rows) > 1:
            rows[1:, :numbers] = rows[0, :numbers]
        code = plan.table, plan.code_forward, plan.code_backward
        places = plan.inputs, plan.outputs, plan.seed, plan.kept
        if len(rows) > 1:
            run_threads(batch, width, plan.lanes, rows, *code, *places, results, slopes, totals)
        else:
            run_tiles(batch, 0, len(batch), width, plan.lanes, rows[0], *code, *places, results, slopes, totals[0])
        for j, u in plan.fixed:  # an output that depends on no input
            results[:, j] = rows[0, u]
        gradients = totals.sum(axis=0)
        if len(plan.last_once):
            rows[0, numbers:2 * numbers] = gradients
            run_code(plan.last_once, plan.table, rows[0], 1)
            gradients = rows[0, numbers:2 * numbers].astype(np.float64)
        return results, slopes, gradients

    def plan(self, training, inputs):
        """The instructions for this way of running, worked out the first time they are needed."""
        key = training, inputs
        if key not in self.plans:
            self.plans[key] = Plan(self, training, inputs)
        return self.plans[key]

    def checked(self, batch):
        """The batch as a (batch, inputs) array of the program's type."""
        if batch is None:
            if self.inputs:
                raise ValueError(f"program: expected a batch of shape (samples, {len(self.inputs)}), got none")
            batch = np.empty((1, 0))
        try:
            array = np.asarray(batch)
        except ValueError:
            raise ValueError("program: batch: its lines have different lengths") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(f"program: batch: expected numbers, got {str(batch)[:60]}")
        if array.ndim != 2 or array.shape[1] != len(self.inputs):
            raise ValueError(f"program: batch: expected shape (samples, {len(self.inputs)}), got {array.shape}")
        return np.ascontiguousarray(array, self.dtype)

    def draw(self, **options):
        """The picture of the graph that the program runs: `tinynet.draw` of its outputs."""
        from ..viz.drawings import draw

        return draw(self.loss, **options)

    def __repr__(self):
        return (f"Program({len(self.inputs)} inputs, {len(self.parameters)} parameters, {len(self.opcode)} nodes, "
                f"{self.dtype})")

    def __str__(self):
        if len(self.opcode) <= 1000:
            return self.listing()
        lines = self.listing().splitlines()
        return "\n".join(lines[:500] + [f"… {len(lines) - 1000} more lines: see program.listing()"] + lines[-500:])

    def listing(self):
        """All instructions, one a line, as an assembler would print them."""
        order = topological(*self.outputs)
        index = {x: i for i, x in enumerate(order)}
        inputs, parameters = set(self.inputs), set(self.parameters)
        lines = []
        for i, x in enumerate(order):
            if x.inputs:
                code = f"{ASSEMBLY.get(x.op.name, x.op.name)} {', '.join(f'%{index[a]}' for a in x.inputs)}"
                comment = formula(x, index)
            elif x in inputs or x in parameters:
                code, comment = f"{'input' if x in inputs else 'parameter'} {one_line(x.label)}".rstrip(), ""
            else:
                code, comment = f"constant {x.data!r}", one_line(x.label)
            lines.append((f"%{i} = {code}", comment))
        lines.append(("return " + ", ".join(f"%{index[y]}" for y in self.outputs), ""))
        return "\n".join(f"{code:31} # {comment}" if comment else code for code, comment in lines)


ASSEMBLY = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}


def formula(x, index):
    """How x was made: `w · x0`, `tanh(%7)`."""
    names = [one_line(a.label) or (f"{a.data:g}" if a.op is CONSTANT else f"%{index[a]}") for a in x.inputs]
    if x.op.name in ASSEMBLY:
        text = f" {'·' if x.op.name == '*' else x.op.name} ".join(names)
    else:
        text = f"{x.op.name}({', '.join(names)})"
    return f"{one_line(x.label)} = {text}" if x.label else text


class Plan:
    """The instructions for one way of running a program (with or without gradients), and the memory they run in."""

    def __init__(self, program, training, inputs):
        opcode, a, b, number = program.opcode, program.first, program.second, program.number.copy()
        n = len(opcode)
        wanted = np.zeros(n, bool)
        wanted[program.weights] = training
        wanted[program.columns] = inputs
        self.numbers = number_shared(opcode, a, b, number, len(program.parameters) + len(program.constants), wanted,
                                     len(program.inputs))
        last, owner, end = lifetimes(opcode, a, b, number, wanted, program.ends, opcodes.arity, opcodes.reads,
                                     opcodes.unit)
        once, forward = np.empty((2, n, 4), np.int32)
        row, gradient, free = np.empty(n, np.int64), np.full(n, -1), np.zeros(2 * n + 2, np.int64)
        shared, count = plan_forward(opcode, a, b, number, last, once, forward, row, free)
        self.once, self.forward = located(once[:shared], self.numbers, 1), forward[:count].copy()
        last_once, backward = np.empty((2, 2 * n if training else 0, 7), np.int32)
        shared = count = 0
        if training:
            shared, count = plan_backward(opcode, a, b, number, self.numbers, wanted, last, owner, end, program.ends[0],
                                          last_once, backward, row, gradient, free, opcodes.arity)
        self.last_once, self.backward = located(last_once[:shared], self.numbers, 1), backward[:count].copy()
        self.row, self.gradient, self.n_rows = row, gradient, int(free[1])
        self.fixed = [(j, int(-1 - row[i])) for j, i in enumerate(program.ends) if row[i] < 0]
        self.dtype = program.dtype
        self.ends, self.columns = program.ends, program.columns
        self.training, self.keep = training, inputs
        self.lanes = 128 // self.dtype.itemsize
        used = [code[:, 0] for code in (self.once, self.forward, self.backward, self.last_once)]
        self.table = opcodes.table(self.dtype, np.unique(np.concatenate(used)))
        self.cost = len(self.forward) + len(self.backward)
        self.width = self.threads = 0

    def layout(self, samples):
        """The width of a tile for so many samples; the instructions are moved to fit where it has changed."""
        threads = max(1, min(compiled.threads, self.cost * samples // WORTH_A_THREAD))
        width = TILE_BYTES // (self.dtype.itemsize * max(self.n_rows, 1))
        width = max(self.lanes, min(width, 256, -(-samples // threads))) if samples >= self.lanes else max(samples, 1)
        if width > self.lanes:
            width = -(-width // self.lanes) * self.lanes
        if not len(self.columns):
            width = 1
        threads = max(1, min(threads, -(-samples // width)))
        if (threads, width) != (self.threads, self.width):
            self.threads, self.width = threads, width
            start = first_row(self.numbers)
            size = -(-(start + self.n_rows * width) // 16) * 16
            if size >= 2**31:
                raise ValueError(f"program: {self.n_rows} rows of {width} samples do not fit into its memory")
            self.rows = aligned((threads, size), self.dtype)
            self.totals = np.zeros((threads, self.numbers))
            self.code_forward = located(self.forward, self.numbers, width)
            self.code_backward = located(self.backward, self.numbers, width)
            self.inputs = located_all(self.row[self.columns], start, width)
            self.outputs = located_all(self.row[self.ends], start, width)
            self.kept = located_all(self.gradient[self.columns[:len(self.columns) * self.keep]], start, width)
            self.seed = int(located_all(self.gradient[self.ends[:1]], start, width)[0]) if self.training else -1
        return width


def aligned(shape, dtype):
    """Zeros that begin at a multiple of 64 bytes, where a line of the cache begins."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:start + size].view(dtype).reshape(shape)


def located_all(places, start, width):
    return np.where(places >= 0, start + places * width, -1 - places)


def values(given, name):
    """The Values in a Value, a list or an array, and the shape they came in."""
    if isinstance(given, Value):
        return [given], ()
    try:
        array = np.array(given, dtype=object)
    except ValueError:
        raise ValueError(f"compile: {name}: its lines have different lengths") from None
    for i, x in enumerate(array.flat):
        if not isinstance(x, Value):
            place = f"{name}[{i}]" if array.ndim else name
            raise TypeError(f"compile: {place}: expected a Value, got {type(x).__name__} {str(x)[:40]!r}")
    if not array.size:
        raise ValueError(f"compile: {name}: expected at least one Value, got none")
    return list(array.flat), array.shape


def leaves(given, name):
    """The leaves in a list or array, each once."""
    if not hasattr(given, "__iter__"):
        given = [given]
        if not isinstance(given[0], Value):
            raise TypeError(f"compile: {name}: expected a list of Values, got {type(given[0]).__name__} "
                            f"{given[0]!r:.40}")
    flat, stack = [], [iter(given)]
    while stack:
        for x in stack[-1]:
            if isinstance(x, (list, tuple, np.ndarray)):
                stack.append(iter(x))
                break
            flat.append(x)
        else:
            stack.pop()
    seen = set()
    for i, x in enumerate(flat):
        if not isinstance(x, Value):
            raise TypeError(f"compile: {name}[{i}]: expected a Value, got {type(x).__name__} {str(x)[:40]!r}")
        if x.inputs:
            raise ValueError(f"compile: {named(name, i, x)} is the result of {x.op.name}, expected a leaf")
        if x in seen:
            raise ValueError(f"compile: {named(name, i, x)} is listed twice")
        seen.add(x)
    return flat


def named(name, i, x):
    return f"{name}[{i}]" + (f" ({x.label})" if x.label else "")

