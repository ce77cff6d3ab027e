"""An array that remembers how it was made: the same graph and the same walk as `Value`, on whole batches.

>>> x = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
>>> loss = (x * x).sum()
>>> loss.backward()
>>> x.grad.tolist()
[[2.0, 4.0], [6.0, 8.0]]

A Tensor speaks NumPy's dialect (broadcasting, `@`, indexing, `sum(axis=, keepdims=)`; also `dim=` and `keepdim=`) and
bears PyTorch's names. `data` and `grad` are plain NumPy arrays. The file reads downward: the Tensor, the operations in
the order in which a course meets them (forward and backward side by side), then the functions that create Tensors.

Every number is written by a kernel that is called through one door, `run`, into an array that `empty` allocated: that
is all that `plan.capture` needs in order to record a step and to replay it.
"""

import functools
import math
import operator
import threading

import numpy as np

from . import kernels
from .graph import WATCHED, Scope, blame, chain_rule, mode, no_grad, topological  # noqa: F401  (for readers below)
from .kernels import run
from .refusals import refusing, shown
from .value import RULES, Value

float32, float64, int64, bool_ = np.float32, np.float64, np.int64, np.bool_
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def empty_array(shape, dtype):
    """A new array for a kernel to write: the one place where memory for results comes from."""
    try:
        array = np.empty(shape, dtype)
    except MemoryError:
        raise ValueError(f"tensor: there is not enough memory for shape {shape}, {np.dtype(dtype)}") from None
    if mode.plan is not None:
        mode.plan.own(array)
    return array


def contiguous(array):
    """The array itself where it lies in memory row by row, else a copy that does: kernels read no other."""
    if array.flags.c_contiguous:
        return array
    copy = empty_array(array.shape, array.dtype)
    run(np.copyto, copy, array)
    return copy


data_of, needs_of = operator.attrgetter("_data"), operator.attrgetter("requires_grad")


class Op:
    """An operation on arrays. `forward` computes the result and `backward` the shares of the inputs' gradients.

    One object is made for each call, so what `forward` keeps for `backward` are plain attributes. `needs[i]` says
    whether input i wants a gradient; `backward` may return None for one that does not. An operation that a fused
    kernel computes points to its textbook form: `definition` is (function, arguments, options).
    """

    name = ""
    definition = None

    def __call__(self, *inputs):
        y = new(Tensor)
        y._data = self.forward(*map(data_of, inputs))
        y._grad = None
        y.label = ""
        y.scope = mode.scope
        y.retains = False
        recording = mode.recording
        if recording:
            if recording is WATCHED:
                run(watch, self.name, y.scope, y._data, [x._data for x in inputs])
            self.needs = [*map(needs_of, inputs)]
            if True in self.needs:
                y.requires_grad, y.op, y.inputs = True, self, inputs
                return y
        y.requires_grad, y.op, y.inputs = False, None, ()
        return y

    def shares(self, g, y, *xs):
        return self.backward(g, y._data, *map(data_of, xs))


def kind(array):
    """"nan", "inf" or "finite": the worst that an array holds."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return "finite"
    return "nan" if np.isnan(array).any() else "inf"


def watch(name, scope, y, inputs):
    """See `detect_anomaly`. It is called as a kernel is, so that replays look too."""
    found = kind(y)
    if found == "finite":
        return
    before = min((kind(x) for x in inputs), key=("nan", "inf", "finite").index, default="finite")
    if found == "nan" or before == "finite":
        first = np.argwhere(np.isnan(y) if found == "nan" else np.isinf(y))[0].tolist()
        blame(name, scope, found, f" at {first}" if first else "", before)


class Tensor:
    """An array in a graph. Make one with `tensor`, `zeros`, `randn`, …

    data           the numbers, a NumPy array (float32 unless asked otherwise)
    grad           d(root)/d(this), an array of the same shape, after `backward()`; on leaves it adds up over calls
    requires_grad  whether gradients flow here
    """

    __slots__ = ("_data", "_grad", "requires_grad", "op", "inputs", "label", "scope", "retains", "__weakref__")

    def __init__(self, data, requires_grad=False, label=""):
        self._data = as_array(data)
        if not isinstance(requires_grad, (bool, int)):
            raise TypeError(f"requires_grad: expected True or False, got {shown(requires_grad)}")
        if requires_grad and self._data.dtype not in FLOATS:
            raise TypeError(f"requires_grad: only float tensors take gradients, this one is {self._data.dtype}")
        self._grad = None
        self.requires_grad = bool(requires_grad)
        self.op, self.inputs, self.label, self.scope, self.retains = None, (), label, mode.scope, False

    # ---------------------------------------------------------------------------------------------- what it holds

    @property
    def data(self):
        """The numbers, as a NumPy array. Assigning writes into the same memory, so that captured steps see it."""
        unrecorded("data")
        return self._data

    @data.setter
    def data(self, array):
        unrecorded("data")
        if array is not self._data:
            array = as_array(array)
            if array.shape == self._data.shape and array.dtype == self._data.dtype:
                np.copyto(self._data, array)
            else:
                self._data = array

    @property
    def grad(self):
        """The gradient as a NumPy array, or None."""
        unrecorded("grad")
        return self._grad

    @grad.setter
    def grad(self, array):
        if array is None:
            forget_gradient(self)
            return
        unrecorded("grad")
        try:
            array = np.asarray(array)
            if array.shape == self._data.shape:
                self._grad = array.astype(self._data.dtype, copy=False)
                return
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"grad: expected an array of {self.dtype} numbers, got {shown(array)}") from None
        raise ValueError(f"grad: expected shape {self.shape}, got {array.shape}")

    shape = property(operator.attrgetter("_data.shape"))
    dtype = property(operator.attrgetter("_data.dtype"))
    ndim = property(operator.attrgetter("_data.ndim"))
    device = property(lambda self: "tensor")

    def dim(self):
        return self._data.ndim

    def size(self, dim=None):
        return self._data.shape if dim is None else self._data.shape[dim]

    def numel(self):
        return self._data.size

    def __len__(self):
        if not self._data.ndim:
            raise TypeError("len: a tensor of one number has no length")
        return len(self._data)

    def __repr__(self):
        unrecorded("repr")
        numbers = np.array2string(self._data, separator=", ", prefix="tensor(", precision=4)
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        return f"tensor({numbers}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def item(self):
        """The number of a tensor that holds just one."""
        unrecorded("item()")
        if self._data.size != 1:
            raise ValueError(f"item: expected one number, this tensor has shape {self.shape}")
        return self._data.item()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def __index__(self):
        if self._data.dtype.kind not in "iu":
            raise TypeError(f"index: expected a whole number, this tensor is {self.dtype}")
        return int(self.item())

    def tolist(self):
        unrecorded("tolist()")
        return self._data.tolist()

    def numpy(self):
        """The numbers as a NumPy array that shares this tensor's memory; detach first where gradients flow."""
        unrecorded("numpy()")
        if self.requires_grad:
            raise ValueError("numpy: this tensor requires a gradient; call .detach().numpy()")
        return self._data

    def __array__(self, dtype=None, copy=None):
        unrecorded("an array of it")
        return np.array(self._data, dtype=dtype, copy=copy)

    def detach(self):
        """The same memory as a leaf that takes no gradient."""
        y = Tensor.__new__(Tensor)
        y._data, y._grad, y.requires_grad, y.label, y.scope = self._data, None, False, self.label, mode.scope
        y.op, y.inputs, y.retains = None, (), False
        return y

    def clone(self):
        return Move("clone", lambda x: copied(x), lambda g, x: g)(self)

    def requires_grad_(self, requires_grad=True):
        """Ask for gradients, in place."""
        if requires_grad and self.dtype not in FLOATS:
            raise TypeError(f"requires_grad_: only float tensors take gradients, this one is {self.dtype}")
        self.requires_grad = requires_grad
        return self

    def to(self, dtype):
        """The same numbers in another dtype ("tensor" and "cpu" name where they already are)."""
        if isinstance(dtype, str) and dtype in ("tensor", "cpu"):
            return self
        if isinstance(dtype, str) and dtype == "scalar":
            raise ValueError('to("scalar"): models move between engines; for one array use np.vectorize(Value)')
        dtype = np.dtype(dtype)
        return self if dtype == self.dtype else Cast(dtype)(self)

    astype = to

    def float(self):
        return self.to(np.float32)

    def double(self):
        return self.to(np.float64)

    def long(self):
        return self.to(np.int64)

    def cpu(self):
        return self

    def contiguous(self):
        return self

    # ------------------------------------------------------------------------------------------------- the gradient

    def gradients(self, create_graph=False, gradient=None):
        """Yield (node, d self / d node) from here back to the leaves."""
        if create_graph:
            raise ValueError("create_graph: second derivatives are for Values; a Tensor gives first derivatives only")
        if not self.requires_grad:
            raise ValueError("backward: nothing that this tensor was made from requires a gradient")
        if gradient is None:
            if self._data.size != 1:
                raise ValueError(f"backward: expected one number, this tensor has shape {self.shape}; "
                                 "reduce it (sum, mean) or pass gradient=")
            seed = ONE[self.dtype].reshape(self.shape)
        else:
            seed = np.asarray(gradient._data if isinstance(gradient, Tensor) else gradient, dtype=self.dtype)
            if seed.shape != self.shape:
                raise ValueError(f"backward: gradient has shape {seed.shape}, this tensor {self.shape}")
        return chain_rule(self, seed, add=added, lift=True)

    def backward(self, gradient=None):
        """Add d self / d leaf to the `grad` of every leaf that requires it."""
        given = None
        for node, g in self.gradients(gradient=gradient):
            if given is None:
                given = {id(g)}  # the seed is the caller's
            if node.requires_grad and (not node.inputs or node.retains):
                receive(node, g, given)

    def retain_grad(self):
        """Let `backward()` keep the gradient here too, though this is no leaf."""
        self.retains = True

    def _watch_share(self, share):
        """See `detect_anomaly`: `share` is what the operation of this node gives to one of its inputs."""
        run(watch, f"backward of {self.op.name}", self.scope, share, [])

    def zero_grad(self):
        """Forget the gradient."""
        forget_gradient(self)

    # ------------------------------------------------------------------------------------------------------- NumPy

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        """np.exp(x), np.add(array, x), …: the textbook definitions are written in NumPy's own names."""
        operation = UFUNCS.get(ufunc)
        if method != "__call__" or options or operation is None:
            return NotImplemented
        return operation(*inputs)

    __hash__ = object.__hash__

    def __iter__(self):
        if not self._data.ndim:
            raise TypeError("iteration over a tensor of one number")
        return (self[i] for i in range(len(self._data)))

    def __getitem__(self, key):
        return Index(key)(self)

    def __setitem__(self, key, value):
        if self.inputs or (self.requires_grad and mode.recording):
            raise ValueError("assignment to a part of a tensor that takes gradients: build the result with where, cat "
                             "or stack instead, or assign under no_grad")
        key = plain(key)
        value = value._data if isinstance(value, Tensor) else np.asarray(value, dtype=self.dtype)
        if is_view(key):
            run(np.copyto, part(self._data, key), value)
        else:
            run(put, self._data, key, value)


new = Tensor.__new__
ONE = {dtype: np.ones(1, dtype) for dtype in FLOATS}  # the gradient of a loss for itself; nobody writes into it


def as_tuple(key):
    return key if isinstance(key, tuple) else (key,)


def part(array, key):
    """array[key] for a key of slices and numbers: a view, also where it is a single element."""
    key = as_tuple(key)
    return array[key] if Ellipsis in key else array[(*key, ...)]


def put(array, key, value):
    array[key] = value


def as_array(data):
    """data as an array: Python floats become float32, whole numbers int64; NumPy arrays keep their dtype."""
    if isinstance(data, Tensor):
        return data._data
    if isinstance(data, (list, tuple)) and any(isinstance(x, Tensor) for x in data):
        data = [x.tolist() if isinstance(x, Tensor) else x for x in data]
    try:
        array = np.asarray(data)
    except ValueError as error:
        what = "the rows have different lengths" if "inhomogeneous" in str(error) else error
        raise ValueError(f"tensor: {what}") from None
    if not isinstance(data, (np.ndarray, np.generic)) and array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind == "O" or array.dtype.kind not in "fiub":
        what = "Values; call float() on them, or keep them in the scalar engine" if any(
            isinstance(x, Value) for x in array.flat) else array.dtype
        raise TypeError(f"tensor: expected numbers, got {what}")
    if array.dtype.kind == "f" and array.dtype not in FLOATS:
        array = array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_tensor(x, like=None):
    """x as a Tensor; a plain number takes the dtype of the tensor beside it."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, int) and not -(2**63) <= x < 2**63:
        x = float(x) if abs(x) < 2**1023 else math.inf
    if isinstance(x, (bool, int, float)) and isinstance(like, Tensor):
        if like._data.dtype in FLOATS or isinstance(x, int):
            return Tensor(np.array(x, dtype=like._data.dtype if like._data.dtype != bool else None))
        return Tensor(np.array(x, dtype=np.float32))
    if isinstance(x, (str, Value)) or x is None:
        raise TypeError(f"expected a tensor or a number, got {type(x).__name__} {str(x)[:40]!r}")
    return Tensor(x)


def unrecorded(what):
    """Refuse what a captured step would do once and then never again."""
    if mode.plan is not None:
        raise ValueError(f"capture: {what} inside a captured step would be read once, while it is recorded, and never "
                         "again; return the tensor and read it outside")


def forget_gradient(x):
    if mode.plan is not None:
        mode.plan.forgets(x)
    x._grad = None


def receive(leaf, g, given):
    """Add g to the leaf's gradient, which is an array of its own: `given` are the arrays that another leaf has."""
    plan = mode.plan
    if plan is not None:
        plan.touches(leaf)
    if leaf._grad is not None:
        run(np.add, leaf._grad, g, leaf._grad)
    else:
        leaf._grad = g if g.base is None and id(g) not in given else copied(g)
        given.add(id(g))
        if plan is not None:
            plan.keeps(leaf)


def added(a, b):
    out = empty_array(a.shape, a.dtype)
    run(np.add, a, b, out)
    return out


def copied(x):
    out = empty_array(x.shape, x.dtype)
    run(np.copyto, out, x)
    return out


def filled(shape, dtype, number):
    out = empty_array(shape, dtype)
    if out.dtype in FLOATS:
        run(kernels.elementwise.fill, out.reshape(-1), number)
    else:
        run(np.copyto, out, number)
    return out


def unbroadcast(g, shape):
    """The gradient of an operand that was broadcast: the sum over the axes along which it was repeated."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < lead or (shape[i - lead] == 1 and g.shape[i] != 1))
    out = empty_array(tuple(1 if i in axes else n for i, n in enumerate(g.shape)), g.dtype)
    run(np.sum, g, axes, None, out, True)
    return out.reshape(shape)


# -------------------------------------------------------------------------------- operations: one number at a time

class Elementwise(Op):
    """A row of the page of calculus with one operand, applied to every element."""

    def __init__(self, rule):
        self.rule, self.name = rule, rule.name

    def forward(self, x):
        if x.dtype not in FLOATS:
            if self.name in ("neg", "abs"):
                y = empty_array(x.shape, x.dtype)
                run(getattr(np, {"neg": "negative", "abs": "absolute"}[self.name]), x, y)
                return y
            raise TypeError(f"{self.name}: expected float numbers, got {x.dtype}")
        x = contiguous(x)
        y = empty_array(x.shape, x.dtype)
        run(kernels.elementwise.unary(self.name), y.reshape(-1), x.reshape(-1))
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        run(kernels.elementwise.unary_backward(self.name), dx.reshape(-1), contiguous(g).reshape(-1),
            contiguous(x).reshape(-1), y.reshape(-1))
        return (dx,)


def larger(a, b, out):
    np.maximum(a, b, out=out)


def smaller(a, b, out):
    np.minimum(a, b, out=out)


class Pairwise(Op):
    """A row of the page of calculus with two operands, with NumPy's broadcasting."""

    FORWARD = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power,
               "max": larger, "min": smaller}

    def __init__(self, rule):
        self.rule, self.name = rule, rule.name

    def forward(self, a, b):
        shape = a.shape if a.shape == b.shape else broadcast_shape(self.name, a.shape, b.shape)
        dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
        if self.name == "/" and dtype not in FLOATS:
            dtype = np.dtype(np.float32)
        if self.name == "**" and dtype.kind in "iu" and (b < 0).any():
            raise ValueError("**: whole numbers have no negative powers; convert them with .float()")
        y = empty_array(shape, dtype)
        run(self.FORWARD[self.name], a, b, y)
        return y

    def backward(self, g, y, a, b):
        return [unbroadcast(self.share(i, g, a, b, y), x.shape) if self.needs[i] else None
                for i, x in enumerate((a, b))]

    def share(self, i, g, a, b, y):
        """g · ∂y/∂(operand i), from the row itself: on whole arrays where it is plain arithmetic, else compiled."""
        if self.name not in ("+", "-", "*", "/"):
            out = empty_array(y.shape, y.dtype)
            run(kernels.elementwise.binary_backward(self.name, i), g, a, b, y, out)
            return out
        with no_grad():
            d = self.rule.derivatives[i](leaf(a), leaf(b), leaf(y))
        if d.__class__ is float and d == 1.0:
            return g
        out = empty_array(y.shape, y.dtype)
        run(np.multiply, g, d if d.__class__ is float else d._data, out)
        return out


class Cast(Op):
    name = "to"

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        self.before = x.dtype
        y = empty_array(x.shape, self.dtype)
        run(np.copyto, y, x, "unsafe")
        return y

    def backward(self, g, y, x):
        dx = empty_array(g.shape, self.before)
        run(np.copyto, dx, g)
        return (dx,)


class Where(Op):
    """where(condition, a, b): a's element where the condition holds, else b's."""

    name = "where"

    def __init__(self, condition):
        self.condition = condition

    def forward(self, a, b):
        shape = broadcast_shape("where", self.condition.shape, broadcast_shape("where", a.shape, b.shape))
        y = empty_array(shape, np.result_type(a.dtype, b.dtype))
        run(np.copyto, y, b)
        run(np.copyto, y, a, "same_kind", self.condition)
        return y

    def backward(self, g, y, a, b):
        da, db = filled(g.shape, g.dtype, 0.0), copied(g)
        run(np.copyto, da, g, "same_kind", self.condition)
        run(np.copyto, db, 0.0, "same_kind", self.condition)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)


class Clip(Op):
    """min(max(x, low), high); the gradient passes where low ≤ x ≤ high."""

    name = "clip"

    def __init__(self, low, high):
        self.low, self.high = low, high

    def forward(self, x):
        y = empty_array(x.shape, x.dtype)
        run(np.clip, x, self.low, self.high, y)
        return y

    def backward(self, g, y, x):
        inside, dx = empty_array(x.shape, bool), empty_array(x.shape, x.dtype)
        run(np.equal, x, y, inside)
        run(np.multiply, g, inside, dx)
        return (dx,)


# ----------------------------------------------------------------------------------- operations: products and sums

class MatMul(Op):
    """a @ b, rows of a times columns of b, with NumPy's batch axes. ∂/∂a = g bᵀ, ∂/∂b = aᵀ g."""

    name = "@"

    def forward(self, a, b):
        if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            which = "first" if b.ndim < 2 else "second last"
            raise ValueError(f"@: the last axis of {a.shape} and the {which} axis of {b.shape} differ")
        return self.product(a, b)

    def backward(self, g, y, a, b):
        rows, columns = a.ndim > 1, b.ndim > 1
        A, B = a if rows else a[None, :], b if columns else b[:, None]
        G = g if rows and columns else g[..., None, :] if columns else g[..., None] if rows else g.reshape(1, 1)
        da = unbroadcast(self.product(G, B.swapaxes(-1, -2)), A.shape).reshape(a.shape) if self.needs[0] else None
        db = unbroadcast(self.product(A.swapaxes(-1, -2), G), B.shape).reshape(b.shape) if self.needs[1] else None
        return da, db

    def product(self, a, b):
        dtype = np.result_type(a.dtype, b.dtype)
        if a.ndim < 2 or b.ndim < 2:
            y = self.product(a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None])
            rows, columns = y.shape[-2:-1] if a.ndim > 1 else (), y.shape[-1:] if b.ndim > 1 else ()
            return y.reshape(y.shape[:-2] + rows + columns)
        if b.ndim == 2 and a.ndim > 2:
            y = empty_array((*a.shape[:-1], b.shape[-1]), dtype)
            run(kernels.matmul, y.reshape(-1, b.shape[-1]), contiguous(a).reshape(-1, a.shape[-1]), b)
            return y
        y = empty_array((*broadcast_shape("@", a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), dtype)
        run(kernels.matmul if y.ndim == 2 else kernels.batched, y, a, b)
        return y


class Reduce(Op):
    """A sum or a mean over some axes: each element's share is the gradient (times 1/n for the mean)."""

    def __init__(self, name, axis, keepdims):
        self.name, self.axis, self.keepdims = name, axis, keepdims

    def forward(self, x):
        axes = axes_of(self.name, self.axis, x.ndim)
        self.kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        shape = self.kept if self.keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        self.count = math.prod(x.shape[i] for i in axes)
        if self.name == "mean" and (self.count == 0 or x.dtype not in FLOATS):
            raise (ValueError("mean: there is nothing to average") if self.count == 0 else
                   TypeError(f"mean: expected float numbers, got {x.dtype}; convert with .float()"))
        y = empty_array(shape, np.int64 if x.dtype == bool else x.dtype)
        run(np.mean if self.name == "mean" else np.sum, x, axes, None, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        if self.name == "mean":
            scaled = empty_array(g.shape, g.dtype)
            run(np.multiply, g, 1.0 / self.count, scaled)
            g = scaled
        return (np.broadcast_to(g.reshape(self.kept), x.shape),)


class Extreme(Op):
    """The largest (or smallest) element along an axis; the gradient goes to the first one of that size."""

    def __init__(self, name, axis, keepdims):
        self.name, self.axis, self.keepdims = name, axis, keepdims

    def forward(self, x):
        axis = self.axis
        if axis is not None:
            axis, = axes_of(self.name, axis, x.ndim)
        if 0 in (x.shape if axis is None else x.shape[axis:axis + 1]):
            raise ValueError(f"{self.name}: there is nothing to compare in shape {x.shape}")
        self.kept = (1,) * x.ndim if axis is None else (*x.shape[:axis], 1, *x.shape[axis + 1:])
        shape = self.kept if self.keepdims else () if axis is None else (*x.shape[:axis], *x.shape[axis + 1:])
        y = empty_array(shape, x.dtype)
        run(np.max if self.name == "max" else np.min, x, axis, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        run(give_first, dx, g.reshape(self.kept), x, self.axis, self.name)
        return (dx,)


def give_first(dx, g, x, axis, name):
    first = np.argmax if name == "max" else np.argmin
    if axis is None:
        dx.reshape(-1)[first(x)] = g.reshape(())
    else:
        np.put_along_axis(dx, first(x, axis, keepdims=True), g, axis)


# ------------------------------------------------------------------------------------------ operations: arrangement

class Move(Op):
    """The same elements in another arrangement; `there` and `back` are functions on arrays, usually views."""

    def __init__(self, name, there, back):
        self.name, self.there, self.back = name, there, back

    def forward(self, x):
        return self.there(x)

    def backward(self, g, y, x):
        return (self.back(g, x),)


class Index(Op):
    """x[key]: slices are views, arrays of indices gather; the gradient is scattered back to where it came from."""

    name = "[]"

    def __init__(self, key):
        self.key = plain(key)

    def forward(self, x):
        try:
            if is_view(self.key):
                return part(x, self.key)
            like = x[self.key]
        except IndexError as error:
            raise IndexError(f"index: {error}; the tensor has shape {x.shape}") from None
        if mode.plan is None:
            return like
        if any(isinstance(k, np.ndarray) and k.dtype == bool for k in as_tuple(self.key)):
            unrecorded("a choice by a boolean mask, whose size depends on the numbers,")
        y = empty_array(like.shape, like.dtype)
        run(gather, y, x, self.key)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        if is_view(self.key):
            run(np.copyto, part(dx, self.key), g)
        else:
            run(np.add.at, dx, self.key, g)
        return (dx,)


def gather(out, x, key):
    out[...] = x[key]


def plain(key):
    """A key without Tensors: their arrays instead."""
    if isinstance(key, tuple):
        return tuple(plain(k) for k in key)
    return key._data if isinstance(key, Tensor) else np.asarray(key) if isinstance(key, list) else key


def is_view(key):
    return all(k is None or k is Ellipsis or isinstance(k, (slice, int, np.integer)) and not isinstance(k, bool)
               for k in as_tuple(key))


class Cat(Op):
    """Arrays one after the other along an axis that they have."""

    name = "cat"

    def __init__(self, axis):
        self.axis = axis

    def forward(self, *xs):
        axis, = axes_of("cat", self.axis, xs[0].ndim)
        self.places, start = [], 0
        for x in xs:
            others = [a.shape[:axis] + a.shape[axis + 1:] for a in (x, xs[0])]
            if x.ndim != xs[0].ndim or others[0] != others[1]:
                raise ValueError(f"cat: shapes {xs[0].shape} and {x.shape} differ beyond axis {axis}")
            self.places.append((slice(None),) * axis + (slice(start, start + x.shape[axis]),))
            start += x.shape[axis]
        y = empty_array((*xs[0].shape[:axis], start, *xs[0].shape[axis + 1:]), np.result_type(*[x.dtype for x in xs]))
        for x, place in zip(xs, self.places):
            run(np.copyto, y[place], x)
        return y

    def backward(self, g, y, *xs):
        return [g[place] for place in self.places]


def broadcast_shape(name, a, b):
    try:
        return np.broadcast_shapes(a, b)
    except (ValueError, RuntimeError):  # RuntimeError: more axes than NumPy can broadcast
        raise ValueError(f"{name}: shapes {a} and {b} do not broadcast") from None


def axes_of(name, axis, ndim):
    """An axis, several, or None for all, as non-negative numbers."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    for i in axes:
        if not isinstance(i, (int, np.integer)) or not -ndim <= i < max(ndim, 1):
            raise IndexError(f"{name}: axis {i} does not exist in a tensor of {ndim} axes")
    return tuple(sorted({int(i) % ndim if ndim else 0 for i in axes})) if ndim else ()


def leaf(array):
    """The array as a Tensor that takes no gradient."""
    return Tensor(array)


# ------------------------------------------------------------------------------------- the methods, in NumPy's dialect

def elementwise(rule):
    """The method of Tensor for a row of the page of calculus."""
    if len(rule.derivatives) == 1:
        def method(self):
            return Elementwise(rule)(self)
    else:
        def method(self, other):
            return NotImplemented if isinstance(other, Value) else Pairwise(rule)(self, as_tensor(other, self))
    return described(method, rule.name, f"{rule.name} of every element, a row of the page of calculus.")


def described(method, name, doc=None):
    method.__name__, method.__qualname__, method.__doc__ = name, f"Tensor.{name}", doc
    return method


def mirrored(method):
    return described(lambda self, other: method(as_tensor(other, self), self), method.__name__)


def comparison(ufunc):
    """The method of Tensor that compares element by element and gives a tensor of bools."""
    def method(self, other):
        if other is None or isinstance(other, str):
            return NotImplemented
        other = as_tensor(other, self)
        y = empty_array(broadcast_shape(ufunc.__name__, self.shape, other.shape), np.dtype(bool))
        run(ufunc, self._data, other._data, y)
        return leaf(y)
    return described(method, ufunc.__name__)


def reduction(kind, name):
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
        return kind(name, axis if dim is None else dim, keepdims or keepdim)(self)
    return described(method, name, f"The {name} over `axis` (all axes where none is named).")


def first_index(name):
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
        axis, keepdims = axis if dim is None else dim, keepdims or keepdim
        if axis is not None:
            axis, = axes_of(name, axis, self.ndim)
        if not self.numel():
            raise ValueError(f"{name}: there is nothing to compare in shape {self.shape}")
        kept = (1,) * self.ndim if axis is None else (*self.shape[:axis], 1, *self.shape[axis + 1:])
        y = empty_array(kept if keepdims else () if axis is None else kept[:axis] + kept[axis + 1:], np.int64)
        run(positions, y, self._data, axis, name)
        return leaf(y)
    return described(method, name, f"The index of the first {name[3:]}imum along `axis`.")


def positions(out, x, axis, name):
    found = (np.argmax if name == "argmax" else np.argmin)(x, axis)
    out[...] = np.reshape(found, out.shape)


def var(self, axis=None, keepdims=False, correction=1, *, dim=None, keepdim=False):
    """The variance Σ(x - mean)² / (n - correction) over `axis`."""
    axis, keepdims = axis if dim is None else dim, keepdims or keepdim
    n = math.prod(self.shape[i] for i in axes_of("var", axis, self.ndim))
    if n <= correction:
        raise ValueError(f"var: {n} numbers are too few for correction={correction}")
    d = self - self.mean(axis, keepdims=True)
    return (d * d).sum(axis, keepdims=keepdims) * (1.0 / (n - correction))


def std(self, axis=None, keepdims=False, correction=1, *, dim=None, keepdim=False):
    """The standard deviation √var over `axis`."""
    return self.var(axis, keepdims, correction, dim=dim, keepdim=keepdim).sqrt()


def clip(self, min=None, max=None):
    """min where an element is below it, max where above."""
    if min is None and max is None:
        raise ValueError("clip: at least one of min and max is needed")
    return Clip(min, max)(self)


def shape_of(name, shape):
    """reshape(2, 3), reshape((2, 3)) and reshape([2, 3]) are one call."""
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(isinstance(n, (int, np.integer)) for n in shape):
        raise TypeError(f"{name}: expected whole numbers, got {shape}")
    return tuple(int(n) for n in shape)


def reshape(self, *shape):
    """The same elements, row by row, in another shape; one -1 stands for what is left."""
    shape = shape_of("reshape", shape)
    rest = math.prod(n for n in shape if n != -1)
    if shape.count(-1) > 1 or min(shape, default=0) < -1 or (rest and self.numel() % rest or not rest and self.numel()
                                                           if -1 in shape else rest != self.numel()):
        raise ValueError(f"reshape: {self.numel()} elements of shape {self.shape} do not fit {shape}")
    shape = tuple((self.numel() // rest if rest else 0) if n == -1 else n for n in shape)
    return Move("reshape", lambda x: contiguous(x).reshape(shape), lambda g, x: contiguous(g).reshape(x.shape))(self)


def permute(self, *axes):
    """The axes in another order."""
    axes = shape_of("permute", axes)
    if sorted(i % self.ndim if self.ndim else i for i in axes) != list(range(self.ndim)):
        raise ValueError(f"permute: expected the axes 0 to {self.ndim - 1}, each once, got {axes}")
    back = tuple(np.argsort([i % self.ndim for i in axes]))
    return Move("permute", lambda x: x.transpose(axes), lambda g, x: g.transpose(back))(self)


def transpose(self, *axes):
    """Two axes exchanged: transpose(0, 1), or all of them reversed: transpose()."""
    if not axes:
        return permute(self, *reversed(range(self.ndim))) if self.ndim else self
    if len(axes) != 2:
        return permute(self, *axes)
    for i in axes:
        axes_of("transpose", i, self.ndim)
    return Move("transpose", lambda x: x.swapaxes(*axes), lambda g, x: g.swapaxes(*axes))(self)


def flatten(self, start_dim=0, end_dim=-1):
    """The axes from start_dim to end_dim as one."""
    if not self.ndim:
        return self.reshape(1)
    start, = axes_of("flatten", start_dim, self.ndim)
    end, = axes_of("flatten", end_dim, self.ndim)
    return self.reshape(*self.shape[:start], math.prod(self.shape[start:end + 1]), *self.shape[end + 1:])


def squeeze(self, axis=None, *, dim=None):
    """Without the axes of length one (or without that one)."""
    axes = axes_of("squeeze", axis if dim is None else dim, self.ndim)
    return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in axes or n != 1))


def unsqueeze(self, axis):
    """With a new axis of length one."""
    axis, = axes_of("unsqueeze", axis, self.ndim + 1)
    return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])


def expand(self, *shape):
    """Repeated along axes of length one, without copying; -1 keeps an axis."""
    shape = shape_of("expand", shape)
    lead = len(shape) - self.ndim
    if lead < 0:
        raise ValueError(f"expand: {shape} has fewer axes than {self.shape}")
    shape = tuple(self.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(shape))
    if broadcast_shape("expand", self.shape, shape) != shape:
        raise ValueError(f"expand: {self.shape} does not broadcast to {shape}")
    return Move("expand", lambda x: np.broadcast_to(x, shape), lambda g, x: unbroadcast(g, x.shape))(self)


for rule in RULES.values():
    symbol = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "**": "pow"}.get(rule.name)
    method = elementwise(rule)
    if symbol:
        setattr(Tensor, f"__{symbol}__", method)
        setattr(Tensor, f"__r{symbol}__", mirrored(method))
    elif rule.name not in ("max", "min"):
        setattr(Tensor, rule.name, method)
Tensor.__neg__, Tensor.__abs__, Tensor.pow = Tensor.neg, Tensor.abs, Tensor.__pow__
Tensor.maximum, Tensor.minimum = elementwise(RULES["max"]), elementwise(RULES["min"])
Tensor.__matmul__ = Tensor.matmul = described(lambda self, other: MatMul()(self, as_tensor(other, self)), "matmul")
Tensor.__rmatmul__ = mirrored(Tensor.matmul)
for ufunc, name in ((np.equal, "eq"), (np.not_equal, "ne"), (np.less, "lt"), (np.less_equal, "le"),
                    (np.greater, "gt"), (np.greater_equal, "ge")):
    setattr(Tensor, f"__{name}__", comparison(ufunc))
for name in ("sum", "mean"):
    setattr(Tensor, name, reduction(Reduce, name))
for name in ("max", "min"):
    setattr(Tensor, name, reduction(Extreme, name))
for name in ("argmax", "argmin"):
    setattr(Tensor, name, first_index(name))
for function in (var, std, clip, reshape, permute, transpose, flatten, squeeze, unsqueeze, expand):
    setattr(Tensor, function.__name__, function)
Tensor.clamp, Tensor.view, Tensor.broadcast_to, Tensor.swapaxes = clip, reshape, expand, transpose
for name in ("sum mean max min argmax argmin var std clip clamp reshape view permute transpose swapaxes flatten "
             "squeeze unsqueeze expand broadcast_to to astype size item gradients backward "
             "requires_grad_ __getitem__ __setitem__").split():
    setattr(Tensor, name, refusing(vars(Tensor)[name], "" if name.startswith("_") else f".{name}"))
Tensor.T = property(lambda self: self.transpose())
Tensor.mT = property(lambda self: self.transpose(-1, -2))

UFUNCS = {np.matmul: lambda a, b: MatMul()(as_tensor(a, b), as_tensor(b, a))}
UFUNCS |= {ufunc: (lambda method: lambda x: method(x))(getattr(Tensor, name)) for ufunc, name in (
    (np.exp, "exp"), (np.log, "log"), (np.sqrt, "sqrt"), (np.sin, "sin"), (np.cos, "cos"), (np.tanh, "tanh"),
    (np.absolute, "abs"), (np.negative, "neg"))}
UFUNCS |= {ufunc: (lambda method: lambda a, b: method(as_tensor(a, b), b))(getattr(Tensor, name)) for ufunc, name in (
    (np.add, "__add__"), (np.subtract, "__sub__"), (np.multiply, "__mul__"), (np.divide, "__truediv__"),
    (np.power, "__pow__"), (np.maximum, "maximum"), (np.minimum, "minimum"), (np.equal, "__eq__"),
    (np.not_equal, "__ne__"), (np.less, "__lt__"), (np.less_equal, "__le__"), (np.greater, "__gt__"),
    (np.greater_equal, "__ge__"))}


# ---------------------------------------------------------------------------------------------------------- creation

class Streams(threading.local):
    """The random numbers of tinynet: one stream in each thread, so that threads do not take numbers from one another.
    It may be a part of a checkpoint.

    A thread's stream begins where `manual_seed` in the main thread last began, or anywhere where it was never called.

    >>> before = Generator.state_dict(); a = rand(3)
    >>> Generator.load_state_dict(before); (a == rand(3)).tolist()
    [True, True, True]
    """

    seed = None

    def __init__(self):
        self.stream = np.random.default_rng(Streams.seed)

    def state_dict(self):
        """Where this thread's stream is, as plain numbers."""
        return self.stream.bit_generator.state

    def load_state_dict(self, state):
        """Go on from there; ValueError where this is no state of a stream."""
        self.accept(state)()

    def accept(self, state):
        """Check a state, and return the function that takes it over."""
        return functools.partial(setattr, self, "stream", stream_from("Generator", state))


Generator = Streams()


def stream_from(name, state):
    """A stream of random numbers that is where `state` says."""
    stream = np.random.default_rng(0)
    try:
        stream.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ValueError(f"{name}.load_state_dict: expected the state of a stream of random numbers (PCG64), got "
                         f"{str(state)[:60]}") from None
    return stream


@refusing
def manual_seed(seed):
    """Start the random numbers of this thread anew, so that a run can be repeated.

    Called in the main thread, it also says where the streams of threads begin that have not drawn a number yet.

    >>> _ = manual_seed(0); a = rand(3)
    >>> _ = manual_seed(0); (a == rand(3)).tolist()
    [True, True, True]
    """
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"manual_seed: expected a whole number from 0 on, got {seed!r}")
    if threading.current_thread() is threading.main_thread():
        Streams.seed = int(seed)
    Generator.stream = np.random.default_rng(int(seed))
    return Generator.stream


def random_uniform(out):
    """Fill an array with uniform numbers from [0, 1), now and at each replay of a captured step."""
    Generator.stream.random(out=out, dtype=out.dtype)


def random_normal(out):
    """Fill an array with standard normal numbers."""
    Generator.stream.standard_normal(out=out, dtype=out.dtype)


@refusing
def tensor(data, dtype=None, requires_grad=False, label=""):
    """A Tensor with a copy of the numbers in `data`: floats become float32, NumPy arrays keep their dtype.

    >>> tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    array = as_array(data)
    array = array.astype(as_dtype("tensor", dtype) if dtype is not None else array.dtype)  # always a copy
    return Tensor(array, requires_grad, label)


def as_dtype(name, dtype):
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name}: unknown dtype {dtype!r}") from None
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype not in FLOATS):
        raise TypeError(f"{name}: expected float32, float64, an integer or bool, got {dtype}")
    return dtype


def creation(name, fill):
    def function(*shape, dtype=np.float32, requires_grad=False):
        shape = shape_of(name, shape)
        if min(shape, default=0) < 0:
            raise ValueError(f"{name}: a shape has no negative numbers, got {shape}")
        array = empty_array(shape, as_dtype(name, dtype))
        if fill is not None:
            if fill in (random_uniform, random_normal) and array.dtype not in FLOATS:
                raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
            run(np.copyto, array, array.dtype.type(fill)) if isinstance(fill, float) else run(fill, array)
        return Tensor(array, requires_grad)

    def like(x, dtype=None, requires_grad=False):
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise TypeError(f"{name}_like: expected a tensor or an array, got {type(x).__name__}")
        return function(*x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad)

    function.__name__ = function.__qualname__ = name
    like.__name__ = like.__qualname__ = f"{name}_like"
    function.__doc__ = f"A tensor of that shape: {name}(2, 3) or {name}((2, 3))."
    like.__doc__ = f"{name} in the shape and dtype of x."
    return refusing(function), refusing(like)


zeros, zeros_like = creation("zeros", 0.0)
ones, ones_like = creation("ones", 1.0)
empty, empty_like = creation("empty", None)
rand, rand_like = creation("rand", random_uniform)
randn, randn_like = creation("randn", random_normal)


@refusing
def full(shape, fill_value, dtype=None, requires_grad=False):
    """A tensor of that shape with one number everywhere."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Tensor(np.full(shape, fill_value, dtype or as_array(fill_value).dtype), requires_grad)


@refusing
def full_like(x, fill_value, dtype=None, requires_grad=False):
    """One number everywhere, in the shape and dtype of x."""
    return full(x.shape, fill_value, dtype or x.dtype, requires_grad)


@refusing
def arange(start, stop=None, step=1, dtype=None, requires_grad=False):
    """start, start + step, … below stop."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step is 0")
    array = np.arange(start, stop, step, dtype)
    return Tensor(array.astype(np.float32) if dtype is None and array.dtype == np.float64 else array, requires_grad)


@refusing
def linspace(start, end, steps, dtype=np.float32, requires_grad=False):
    """`steps` numbers from start to end, both included, at equal distances."""
    return Tensor(np.linspace(start, end, steps, dtype=dtype), requires_grad)


@refusing
def randint(low, high=None, size=None, dtype=np.int64):
    """Whole numbers from [low, high), or [0, low) where one bound is given: randint(10, size=(3,))."""
    if size is None and isinstance(high, (tuple, list)):
        high, size = None, high
    low, high = (0, low) if high is None else (low, high)
    if high <= low:
        raise ValueError(f"randint: expected low < high, got {low} and {high}")
    unrecorded("randint")
    return Tensor(Generator.stream.integers(low, high, size if size is not None else (), dtype=np.dtype(dtype)))


@refusing
def randperm(n):
    """The numbers 0 … n - 1 in random order."""
    unrecorded("randperm")
    return Tensor(Generator.stream.permutation(n))


@refusing
def cat(tensors, axis=0, *, dim=None):
    """Tensors one after the other along an axis.

    >>> cat([ones(2), zeros(1)]).tolist()
    [1.0, 1.0, 0.0]
    """
    tensors = [as_tensor(x) for x in tensors]
    if not tensors:
        raise ValueError("cat: expected at least one tensor, got none")
    if not tensors[0].ndim:
        raise ValueError("cat: tensors of one number have no axis; use stack")
    return Cat(axis if dim is None else dim)(*tensors)


@refusing
def stack(tensors, axis=0, *, dim=None):
    """Tensors of one shape beside each other along a new axis."""
    axis, tensors = axis if dim is None else dim, [as_tensor(x) for x in tensors]
    for x in tensors:
        if x.shape != tensors[0].shape:
            raise ValueError(f"stack: shapes {tensors[0].shape} and {x.shape} differ")
    return cat([x.unsqueeze(axis) for x in tensors], axis % (tensors[0].ndim + 1) if tensors else 0)


@refusing
def where(condition, a, b):
    """a's element where the condition holds, else b's; all three broadcast.

    >>> where(tensor([True, False]), 1.0, tensor([5.0, 6.0])).tolist()
    [1.0, 6.0]
    """
    condition = as_tensor(condition)
    if condition.dtype != bool:
        raise TypeError(f"where: expected a condition of bools, got {condition.dtype}")
    a, b = as_tensor(a, b if isinstance(b, Tensor) else None), as_tensor(b, a if isinstance(a, Tensor) else None)
    return Where(condition._data)(a, b)


@refusing
def maximum(a, b):
    """The larger of two tensors, element by element."""
    return as_tensor(a, b).maximum(b)


@refusing
def minimum(a, b):
    """The smaller of two tensors, element by element."""
    return as_tensor(a, b).minimum(b)


@refusing
def from_numpy(array):
    """A Tensor that shares the array's memory."""
    return Tensor(array)
