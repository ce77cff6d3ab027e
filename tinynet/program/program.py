"""compile: a graph of Values as a Program, which runs it over a batch, forward and backward."""

import threading

import numpy as np

from ..errors import check_bool, check_choice, describe
from ..graph import topological
from ..kernels.backend import compiled
from ..value import Value
from . import planner
from .interpreter import run_code, run_threads
from .listing import listing
from .planner import Graph
from .rules import opcodes

TILE_BYTES = 256 * 1024  # the registers of a tile stay within a core's second-level cache
WORTH_A_THREAD = 500_000  # instructions times samples for each thread: about 100 µs, what waking a thread can cost


def compile(loss, inputs=(), parameters=None, dtype="float64"):
    """A program that runs the graph of `loss` on batches: `program(batch)`, `program.backward(batch)`.

    loss         a Value, or a list or array of them; the outputs have shape (batch,) or (batch, …). `backward` needs
                 one loss
    inputs       the leaves that take the columns of a batch, in order; lists and arrays are flattened
    parameters   the leaves whose numbers are read from their `.data` at each call, and to whose `.grad` `backward`
                 adds; any other leaf is a constant from now on. The default: every leaf but inputs and constants
    dtype        "float64" (equal to the interpreted engine to 1e-12) or "float32" (twice as fast)

    The operations are those that ran when the graph was built: a Python `if` or `for` was decided then, once for all
    samples. `max`, `min`, `relu` and `abs` still choose for each sample. Numbers that were read then are constants: so
    is the shift of a softmax, which only bounds how large its logits may become before exp overflows.

    Arithmetic is that of IEEE 754: 1/0 is inf, log(-1) is nan, for that sample only.

    Raises TypeError where something is not a Value, ValueError for an input that is not a leaf or that the loss does
    not depend on.
    """
    return Program(loss, inputs, parameters, dtype)


class Program:
    """A graph of Values as a program over a batch; see `compile`.

    print(program) lists its instructions, program.draw() draws its graph.
    """

    def __init__(self, loss, inputs=(), parameters=None, dtype="float64"):
        dtype = getattr(dtype, "__name__", getattr(dtype, "name", dtype))
        self.dtype = np.dtype(check_choice("compile", "dtype", dtype, ("float64", "float32")))
        self.loss = loss
        self.outputs, self.shape = as_outputs(loss)
        self.inputs = as_leaves(inputs, "inputs")
        order = topological(*self.outputs)
        given = set(self.inputs)
        if parameters is None:
            parameters = [x for x in order if x.op is None and x not in given]
        self.parameters = as_leaves(parameters, "parameters")
        for i, x in enumerate(self.parameters):
            if x in given:
                raise ValueError(f"compile: {named('parameters', i, x)} is also an input")
        self._flatten(order)
        self.plans = {}
        self.latest = None
        self.lock = threading.Lock()

    def _flatten(self, order):
        """The graph as arrays, and the index there of each output, input and parameter."""
        index = dict(zip(order, range(len(order))))
        for i, x in enumerate(self.inputs):
            if x not in index:
                raise ValueError(f"compile: the loss does not depend on {named('inputs', i, x)}")
        opcode = np.array([opcodes[x.op] for x in order], np.int64)
        arity = opcodes.arity[opcode]
        operands = np.array([index[x] for y in order for x in y.inputs] + [-1], np.int64)
        first = np.cumsum(arity) - arity
        self.ends = np.array([index[y] for y in self.outputs])
        self.columns = np.array([index[x] for x in self.inputs], np.int64)
        self.reached = np.array([i for i, x in enumerate(self.parameters) if x in index], np.int64)
        self.trained = [self.parameters[i] for i in self.reached.tolist()]  # those that get a gradient
        self.weights = np.array([index[x] for x in self.trained], np.int64)

        constant = opcode < 0
        constant[self.columns] = constant[self.weights] = False
        constant = np.flatnonzero(constant)
        self.constants = np.array([order[i].data for i in constant.tolist()])
        scalar = np.full(len(order), -1)  # the parameters first, then the constants
        scalar[self.weights] = self.reached
        scalar[constant] = len(self.parameters) + np.arange(len(constant))
        self.graph = Graph(opcode, arity, operands[np.stack([first, first + np.maximum(arity, 1) - 1], 1)],
                           opcodes.reads[opcode], opcodes.is_one[opcode], scalar, np.zeros(len(order), bool))

    def __call__(self, batch=None):
        """The outputs for a (batch, inputs) array, as a new array: (batch,) for one output."""
        batch = self._checked(batch)
        with self.lock:
            results = self._plan(False, False).run(self, batch)[0]
            self.latest = batch
        return results.reshape(len(batch), *self.shape)

    def backward(self, batch=None, inputs=False):
        """The mean loss over the batch; adds its gradient to the `.grad` of each parameter that the loss depends on.

        Without a batch it is that of the latest call. With `inputs=True` the result is (mean loss, gradients), where
        gradients[s, i] = ∂(mean loss)/∂(input i of sample s).

        Raises ValueError where the program has several outputs, or the batch no samples.
        """
        inputs = check_bool("backward", "inputs", inputs)
        if len(self.outputs) != 1:
            raise ValueError(f"backward: the program has {len(self.outputs)} outputs, expected one loss")
        batch = self._checked(self.latest if batch is None else batch)
        if not len(batch):
            raise ValueError("backward: expected a batch with samples, got none")
        with self.lock:
            results, input_gradients, gradients = self._plan(True, inputs).run(self, batch)
            self.latest = batch
        for p, g in zip(self.trained, (gradients[self.reached] / len(batch)).tolist()):
            p.grad = g if p.grad is None else p.grad + g
        loss = float(results.sum()) / len(batch)
        return (loss, input_gradients / len(batch)) if inputs else loss

    def _plan(self, training, input_gradients):
        """The plan for this way of running, made on first use."""
        key = training, input_gradients
        if key not in self.plans:
            self.plans[key] = Plan(self, training, input_gradients)
        return self.plans[key]

    def _checked(self, batch):
        """The batch as a (batch, inputs) array of the program's dtype."""
        expected = f"program: expected a batch of shape (samples, {len(self.inputs)})"
        if batch is None:
            if self.inputs:
                raise ValueError(f"{expected}, got None")
            batch = np.empty((1, 0))
        try:
            array = np.asarray(batch)
        except ValueError:
            raise ValueError(f"{expected}, got lists of different lengths") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(f"program: expected a batch of numbers, got {describe(batch)}")
        if array.ndim != 2 or array.shape[1] != len(self.inputs):
            raise ValueError(f"{expected}, got {array.shape}")
        return np.ascontiguousarray(array, self.dtype)

    def draw(self, **options):
        """The picture of the graph that the program runs: `tinynet.draw` of its outputs."""
        from ..viz import draw

        return draw(self.loss, **options)

    def __repr__(self):
        sizes = f"{len(self.inputs)} inputs, {len(self.parameters)} parameters, {len(self.graph.opcode)} nodes"
        return f"Program({sizes}, {self.dtype})"

    def __str__(self):
        lines = self.listing().splitlines()
        if len(lines) > 1001:
            lines[500:-500] = [f"… {len(lines) - 1000} more lines: see program.listing()"]
        return "\n".join(lines)

    def listing(self):
        """All instructions, one a line, as an assembler would print them."""
        return listing(self)


class Plan:
    """The instructions for one way of running a program (with or without gradients), and the memory they run in."""

    def __init__(self, program, training, input_gradients):
        n = len(program.graph.opcode)
        graph = program.graph._replace(scalar=program.graph.scalar.copy(), requires_grad=np.zeros(n, bool))
        graph.requires_grad[program.weights] = training
        graph.requires_grad[program.columns] = input_gradients
        leaves = len(program.parameters) + len(program.constants)
        self.scalars = planner.share_scalars(graph, leaves, len(program.inputs) > 0)
        last, alias, end = planner.lifetimes(graph, program.ends)
        register, gradient, free = np.empty(n, np.int64), np.full(n, -1), np.zeros(2 * n + 2, np.int64)
        once, forward = np.empty((2, n, 4), np.int32)
        scalars, vectors = planner.plan_forward(graph, last, once, forward, register, free)
        once, self.forward = once[:scalars], forward[:vectors].copy()
        once_backward, backward = np.empty((2, 2 * n if training else 0, 7), np.int32)
        scalars = vectors = 0
        if training:
            scalars, vectors = planner.plan_backward(graph, self.scalars, last, alias, end, program.ends[0],
                                                     once_backward, backward, register, gradient, free)
        once_backward, self.backward = once_backward[:scalars], backward[:vectors].copy()
        self.start = (2 * self.scalars + 15) // 16 * 16  # the vector registers follow the scalars and their gradients
        self.once, self.once_backward = self.located(once, 0), self.located(once_backward, 0)
        self.inputs, self.outputs = register[program.columns], register[program.ends]
        self.fixed = [(j, -1 - r) for j, r in enumerate(self.outputs.tolist()) if r < 0]  # outputs without inputs
        self.input_gradients = gradient[program.columns[:len(program.columns) * input_gradients]]
        self.seed = gradient[program.ends[:training]]
        self.registers = int(free[1])
        self.dtype, self.lanes = program.dtype, 128 // program.dtype.itemsize
        used = [code[:, 0] for code in (once, self.forward, self.backward, once_backward)]
        self.table = opcodes.table(self.dtype, np.unique(np.concatenate(used)))
        self.width = self.threads = 0

    def layout(self, samples):
        """Choose the width of a tile for so many samples; memory and instructions follow where it has changed."""
        threads = max(1, min(compiled.threads, (len(self.forward) + len(self.backward)) * samples // WORTH_A_THREAD))
        width = TILE_BYTES // (self.dtype.itemsize * max(self.registers, 1))
        width = max(self.lanes, min(width, 256, -(-samples // threads))) if samples >= self.lanes else max(samples, 1)
        if width > self.lanes:
            width = -(-width // self.lanes) * self.lanes
        if not len(self.inputs):
            width = 1
        threads = max(1, min(threads, -(-samples // width)))
        if (threads, width) != (self.threads, self.width):
            size = -(-(self.start + self.registers * width) // 16) * 16
            if size >= 2**31:
                raise ValueError(f"program: {self.registers} registers of {width} samples exceed its memory")
            self.threads, self.width = threads, width
            self.memory = aligned((threads, size), self.dtype)
            self.totals = np.zeros((threads, self.scalars))
            seed = self.located(self.seed, width)
            self.code = (
                self.table, self.located(self.forward, width), self.located(self.backward, width),
                self.located(self.inputs, width), self.located(self.outputs, width),
                int(seed[0]) if len(seed) else -1, self.located(self.input_gradients, width))

    def located(self, registers, width):
        """Registers, or instructions with registers in columns 1 to 5, as addresses in memory."""
        if registers.ndim == 2:
            code = registers.copy()
            code[:, 1:6] = np.where(code[:, 1:6] >= 0, self.start + code[:, 1:6] * width, -1 - code[:, 1:6])
            return code
        return np.where(registers >= 0, self.start + registers * width, -1 - registers)

    def run(self, program, batch):
        """Outputs (batch, outputs), and the gradients of their sum: (batch, inputs), and (scalars,)."""
        self.layout(len(batch))
        memory, n = self.memory, self.scalars
        results = np.empty((len(batch), len(self.outputs)), self.dtype)
        input_gradients = np.empty((len(batch), len(self.input_gradients)), self.dtype)
        weights, leaves = len(program.parameters), len(program.parameters) + len(program.constants)
        memory[0, :weights] = [p.data for p in program.parameters]
        memory[0, weights:leaves] = program.constants
        run_code(self.once, self.table, memory[0], 1)
        run = run_threads.serial
        if len(memory) > 1:
            run, memory[1:, :n] = run_threads, memory[0, :n]
        run(batch, self.width, self.lanes, memory, *self.code, results, input_gradients, self.totals)
        for j, u in self.fixed:
            results[:, j] = memory[0, u]
        gradients = self.totals.sum(axis=0)
        if len(self.once_backward):
            memory[0, n:2 * n] = gradients
            run_code(self.once_backward, self.table, memory[0], 1)
            gradients = memory[0, n:2 * n].astype(np.float64)
        return results, input_gradients, gradients


def aligned(shape, dtype):
    """Zeros that begin at a multiple of 64 bytes, where a cache line begins."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start:start + size].view(dtype).reshape(shape)


def as_outputs(loss):
    """The Values in a Value, a list or an array, and their shape."""
    if isinstance(loss, Value):
        return [loss], ()
    try:
        array = np.array(loss, dtype=object)
    except ValueError:
        raise ValueError("compile: expected loss to be a regular array, got lists of different lengths") from None
    if not array.size:
        raise ValueError("compile: expected loss to hold a Value, got none")
    for i, x in enumerate(array.flat):
        check_value(f"loss[{i}]" if array.ndim else "loss", x)
    return list(array.flat), array.shape


def as_leaves(given, name):
    """The leaves in a list or array, nested to any depth, each once."""
    if not isinstance(given, (list, tuple, np.ndarray, Value)) and hasattr(given, "__iter__"):
        given = list(given)
    if not isinstance(given, (list, tuple, np.ndarray, Value)):
        raise TypeError(f"compile: expected {name} to be a list of Values, got {describe(given)}")
    leaves, stack = {}, [given]
    while stack:
        x = stack.pop()
        if isinstance(x, (list, tuple, np.ndarray)):
            stack += reversed(x.ravel().tolist() if isinstance(x, np.ndarray) else x)
            continue
        i = len(leaves)
        check_value(f"{name}[{i}]", x)
        if x.inputs:
            raise ValueError(f"compile: {named(name, i, x)} is the result of {x.op.name}, expected a leaf")
        if x in leaves:
            raise ValueError(f"compile: {named(name, i, x)} is listed twice")
        leaves[x] = None
    return list(leaves)


def check_value(name, x):
    if not isinstance(x, Value):
        raise TypeError(f"compile: expected {name} to be a Value, got {describe(x)}")


def named(name, i, x):
    return f"{name}[{i}]" + (f" ({x.label})" if x.label else "")
