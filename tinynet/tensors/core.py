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
is all that `capture` needs in order to record a step and to replay it.
"""

import collections
import ctypes
import functools
import math
import operator
import os
import sys
import threading
import weakref

import numpy as np

from .. import kernels
from ..errors import refusing, shown
from ..graph import ANOMALY, Scope, chain_rule, layer_path, mode, no_grad, report_anomaly, topological  # noqa: F401  (for below)
from ..kernels import launch
from ..value import RULES, Value

float32, float64, int64, bool_ = np.float32, np.float64, np.int64, np.bool_
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def keep_freed_memory():
    """Let the C library keep the memory of arrays that are gone for the next ones, up to a gigabyte. By its own rules
    it gives much of that back to the system after each step, and taking it again costs a page fault for every 4 KiB:
    more than all the arithmetic of a convolution. What the environment says about it (MALLOC_…) is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # GNU's library has it
    if mallopt is not None and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 1 << 25)  # older versions take no more


keep_freed_memory()


def empty_array(shape, dtype):
    """A new array for a kernel to write: the one place where memory for results comes from."""
    try:
        array = np.empty(shape, dtype)
    except MemoryError:
        raise ValueError(f"tensor: there is not enough memory for shape {shape}, {np.dtype(dtype)}") from None
    if mode.plan is not None:
        mode.plan.own_memory(array)
    return array


def contiguous(array):
    """The array itself where it lies in memory row by row, else a copy that does: kernels read no other."""
    if array.flags.c_contiguous:
        return array
    copy = empty_array(array.shape, array.dtype)
    launch(np.copyto, copy, array)
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
        recording = mode.grad_enabled
        if recording:
            if recording is ANOMALY:
                launch(watch, self.name, y.scope, y._data, [x._data for x in inputs])
            self.needs, self.made = [*map(needs_of, inputs)], changes.count
            if True in self.needs:
                y.requires_grad, y.op, y.inputs = True, self, inputs
                return y
        y.requires_grad, y.op, y.inputs = False, None, ()
        return y

    def vjp(self, g, y, *xs):
        return self.backward(g, y._data, *map(data_of, xs))


class Changes:
    """What was changed in place, and when: a gradient may need numbers as they were on the way forward."""

    def __init__(self):
        self.count = 0  # of changes so far
        self.last = {}  # id of an array that owns memory: (the number of its last change, a reference that forgets it)
        self.optimizers = weakref.WeakSet()  # each has the number of its last step

    def note(self, array):
        owner = owner_of(array)
        key, self.count = id(owner), self.count + 1
        self.last[key] = self.count, weakref.ref(owner, lambda _: self.last.pop(key, None))

    def note_step(self, optimizer):
        self.count = optimizer.stepped = self.count + 1

    def check(self, y):
        """ValueError where y, or one of its inputs, is not what it was when y was computed."""
        made = y.op.made
        for i, x in enumerate((y, *y.inputs)):
            when, _ = self.last.get(id(owner_of(x._data)), (0, None))
            if when > made or any(o.stepped > made and x in o.state for o in self.optimizers):
                what = f"input {i - 1}" if i else "the result"
                raise ValueError(f"backward: {what} of {y.op.name}{layer_path(y.scope)} was changed after it was used, and "
                                 "the gradient would be wrong; compute the loss again, or change a clone()")


def owner_of(array):
    """The array whose memory it is, of which others may be views."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


changes = Changes()


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
        report_anomaly(name, scope, found, f" at {first}" if first else "", before)


@refusing
class Numbers(np.ndarray):
    """What `data` and `grad` give: a NumPy array of the tensor's own memory, with PyTorch's words for changing it.

    >>> w = tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.data.add_(w.grad, alpha=-0.1)
    array([0.8, 1.6], dtype=float32)
    >>> w.grad.zero_()
    array([0., 0.], dtype=float32)
    """

    data = property(lambda self: self)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        """What is calculated from it is a plain array or number."""
        return array[()] if return_scalar else np.asarray(array)

    def __repr__(self):
        return repr(np.asarray(self))

    def norm(self):
        """√Σ x²"""
        return np.sqrt(np.square(self).sum())

    def clone(self):
        return self.copy()

    def numpy(self):
        return np.asarray(self)

    detach = cpu = lambda self: self

    def copy_(self, other):
        """Write the numbers of another array, which broadcasts to this one."""
        np.copyto(self, other, "same_kind")
        return self

    def fill_(self, value):
        """Write one number everywhere."""
        return self.copy_(value)

    def zero_(self):
        return self.copy_(0)

    def add_(self, other, alpha=1):
        """Add alpha · other."""
        np.add(self, other if alpha == 1 else alpha * np.asarray(other), out=self)
        return self

    def sub_(self, other, alpha=1):
        """Subtract alpha · other."""
        return self.add_(other, -alpha)

    def mul_(self, other):
        np.multiply(self, other, out=self)
        return self

    def div_(self, other):
        np.divide(self, other, out=self)
        return self

    def clamp_(self, min=None, max=None):
        """min where an element is below it, max where above."""
        np.clip(self, min, max, out=self)
        return self

    def normal_(self, mean=0.0, std=1.0):
        """Fill with normal numbers."""
        return self.copy_(Generator.stream.normal(float(mean), float(std), self.shape))

    def uniform_(self, low=0.0, high=1.0):
        """Fill with uniform numbers from [low, high)."""
        return self.copy_(Generator.stream.uniform(float(low), float(high), self.shape))


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
        """The numbers, as a NumPy array. Assigning writes into the same memory, so that captured steps see it, and
        what was computed from the tensor still fits it: the shape and the dtype stay."""
        forbid_in_capture("data")
        return self._data.view(Numbers)

    @data.setter
    def data(self, array):
        forbid_in_capture("data")
        array = as_array(array)
        if array.shape != self._data.shape:
            raise ValueError(f"data: expected shape {self.shape}, got {array.shape}; make a new tensor instead")
        if array.dtype != self._data.dtype or not same_memory(array, self._data):  # after p.data -= …, it is
            try:
                np.copyto(self._data, array, "same_kind")
            except TypeError:
                raise TypeError(f"data: expected {self.dtype}, got {array.dtype}; make a new tensor instead") from None

    @property
    def grad(self):
        """The gradient as a NumPy array, or None."""
        forbid_in_capture("grad")
        return self._grad if self._grad is None else self._grad.view(Numbers)

    @grad.setter
    def grad(self, array):
        if array is None:
            forget_gradient(self)
            return
        forbid_in_capture("grad")
        if self.dtype not in FLOATS:
            raise TypeError(f"grad: only float tensors take gradients, this one is {self.dtype}")
        try:
            array = np.asarray(array)
            if array.shape == self._data.shape and array.dtype.kind != "c":
                if self._grad is None or not same_memory(array, self._grad):
                    self._grad = np.require(array, self._data.dtype, ("C", "W"))  # kernels read it, and add to it
                return
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"grad: expected an array of {self.dtype} numbers, got {shown(array)}") from None
        raise ValueError(f"grad: expected shape {self.shape} of {self.dtype}, got {array.shape} of {array.dtype}")

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

    nelement = numel

    def __len__(self):
        if not self._data.ndim:
            raise TypeError("len: a tensor of one number has no length")
        return len(self._data)

    def __repr__(self):
        forbid_in_capture("repr")
        numbers = np.array2string(self._data, separator=", ", prefix="tensor(", precision=4)
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        return f"tensor({numbers}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def item(self):
        """The number of a tensor that holds just one."""
        forbid_in_capture("item()")
        if self._data.size != 1:
            raise ValueError(f"item: expected one number, this tensor has shape {self.shape}")
        return self._data.item()

    def __format__(self, form):
        return object.__format__(self, form) if self._data.ndim else format(self.item(), form)

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
        forbid_in_capture("tolist()")
        return self._data.tolist()

    def numpy(self):
        """The numbers as a NumPy array that shares this tensor's memory; detach first where gradients flow."""
        forbid_in_capture("numpy()")
        if self.requires_grad:
            raise ValueError("numpy: this tensor requires a gradient; call .detach().numpy()")
        return self._data

    def __array__(self, dtype=None, copy=None):
        forbid_in_capture("an array of it")
        return np.array(self._data, dtype=dtype, copy=copy)

    def detach(self):
        """The same memory as a leaf that takes no gradient."""
        y = Tensor.__new__(Tensor)
        y._data, y._grad, y.requires_grad, y.label, y.scope = self._data, None, False, self.label, mode.scope
        y.op, y.inputs, y.retains = None, (), False
        return y

    def clone(self):
        return Layout("clone", lambda x: copied(x), lambda g, x: g)(self)

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
        try:
            dtype = np.dtype(dtype)
        except TypeError:
            raise TypeError(f'to: expected a dtype, or "cpu" where all tensors are, got {shown(dtype)}') from None
        if dtype == self.dtype:
            return self
        return Cast(dtype)(self if dtype in FLOATS else self.detach())  # whole numbers take no gradients

    astype = type = to

    def float(self):
        return self.to(np.float32)

    def double(self):
        return self.to(np.float64)

    def long(self):
        return self.to(np.int64)

    def int(self):
        return self.to(np.int32)

    def bool(self):
        return self != 0

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
        return chain_rule(self, seed, add=added, create_graph=True)

    def backward(self, gradient=None, retain_graph=None):
        """Add d self / d leaf to the `grad` of every leaf that requires it. The graph is always retained."""
        given = None
        for node, g in self.gradients(gradient=gradient):
            if given is None:
                given = {id(g)}  # the seed is the caller's
            if node.inputs and getattr(node.op, "made", changes.count) != changes.count:
                changes.check(node)
            if node.requires_grad and (not node.inputs or node.retains):
                receive(node, g, given)

    def retain_grad(self):
        """Let `backward()` keep the gradient here too, though this is no leaf."""
        self.retains = True

    def _check_vjp(self, share):
        """See `detect_anomaly`: `share` is what the operation of this node gives to one of its inputs."""
        launch(watch, f"backward of {self.op.name}", self.scope, share, [])

    def zero_grad(self):
        """Forget the gradient."""
        forget_gradient(self)

    # ------------------------------------------------------------------------------------------------------- NumPy

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        """np.exp(x), np.add(array, x), …: reference definitions are written in NumPy's own names."""
        operation = UFUNCS.get(ufunc)
        if method == "__call__" and not options and operation is not None:
            return operation(*inputs)
        if any(isinstance(x, Tensor) for x in options.get("out", ())):
            return NotImplemented
        try:  # array -= tensor; np.isnan(x), np.floor(x), …, through which no gradient flows
            y = getattr(ufunc, method)(*map(without_tensors, inputs), **options)
        except ValueError as error:
            raise ValueError(f"{ufunc.__name__}: {error}") from None
        if "out" in options:
            return y
        return NotImplemented if takes_gradient(inputs) and np.asarray(y).dtype != bool else leaf(np.asarray(y))

    def __array_function__(self, function, types, args, options):
        """np.where(x > 0, x, 0), np.stack([x, y]), …: NumPy's functions that are written for tensors as well
        (`FUNCTIONS`) give tensors; all others give arrays, and take no tensor through which a gradient flows."""
        operation = FUNCTIONS.get(function)
        if operation is not None:
            return operation(*args, **options)
        if function not in PREDICATES and takes_gradient((*args, *options.values())):
            return NotImplemented
        return function(*without_tensors(args), **{name: without_tensors(x) for name, x in options.items()})

    __hash__ = object.__hash__

    def __iter__(self):
        if not self._data.ndim:
            raise TypeError("iteration over a tensor of one number")
        return (self[i] for i in range(len(self._data)))

    def __getitem__(self, key):
        return Index(key)(self)

    def __setitem__(self, key, value):
        of = mode.grad_enabled and isinstance(value, Tensor) and value.requires_grad
        if of or self.inputs or (self.requires_grad and mode.grad_enabled):
            raise ValueError(f"assignment {'of' if of else 'to a part of'} a tensor that takes gradients: build the "
                             "result with where, cat or stack instead, or assign under no_grad")
        key = plain(key)
        value = value._data if isinstance(value, Tensor) else np.asarray(value, dtype=self.dtype)
        if is_view(key):
            launch(np.copyto, part(self._data, key), value)
        else:
            launch(put, self._data, key, value)
        changes.note(self._data)


new = Tensor.__new__
ONE = {dtype: np.ones(1, dtype) for dtype in FLOATS}  # the gradient of a loss for itself; nobody writes into it


def without_tensors(x):
    """x, with arrays for the Tensors in it."""
    return type(x)(map(without_tensors, x)) if type(x) in (list, tuple) else np.asarray(x) if isinstance(x, Tensor) else x


def takes_gradient(x):
    """Whether x is a Tensor that requires a gradient, or holds one."""
    return any(map(takes_gradient, x)) if isinstance(x, (list, tuple)) else isinstance(x, Tensor) and x.requires_grad


def same_memory(a, b):
    """Whether two arrays of one shape and dtype are the same numbers in memory."""
    return a.strides == b.strides and a.__array_interface__["data"] == b.__array_interface__["data"]


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


def forbid_in_capture(what):
    """Refuse what a captured step would do once and then never again."""
    if mode.plan is not None:
        raise ValueError(f"capture: {what} inside a captured step would be read once, while it is recorded, and never "
                         "again; return the tensor and read it outside")


def forget_gradient(x):
    if mode.plan is not None:
        mode.plan.clear_gradient(x)
    x._grad = None


def receive(leaf, g, given):
    """Add g to the leaf's gradient, which is an array of its own: `given` are the arrays that another leaf has."""
    plan = mode.plan
    if plan is not None:
        plan.guard_gradient(leaf)
    if leaf._grad is not None:
        launch(np.add, leaf._grad, g, leaf._grad)
    else:
        leaf._grad = g if g.base is None and id(g) not in given else copied(g)
        given.add(id(g))
        if plan is not None:
            plan.record_gradient(leaf)


def added(a, b):
    out = empty_array(a.shape, a.dtype)
    launch(np.add, a, b, out)
    return out


def copied(x):
    out = empty_array(x.shape, x.dtype)
    launch(np.copyto, out, x)
    return out


def filled(shape, dtype, number):
    out = empty_array(shape, dtype)
    if out.dtype in FLOATS:
        launch(kernels.activations.fill, out.ravel(), number)
    else:
        launch(np.copyto, out, number)
    return out


def cast(array, dtype):
    """The array itself, or a copy of that dtype, which a replay copies again."""
    if array.dtype == dtype:
        return array
    copy = empty_array(array.shape, dtype)
    launch(np.copyto, copy, array)
    return copy


def unbroadcast(g, x):
    """The gradient of an operand x that was broadcast, or promoted to the dtype of the other one: the sum over the axes
    along which it was repeated, in its own dtype."""
    shape = x.shape
    if g.shape != shape:
        lead = g.ndim - len(shape)
        axes = tuple(i for i in range(g.ndim) if i < lead or (shape[i - lead] == 1 and g.shape[i] != 1))
        out = empty_array(tuple(1 if i in axes else n for i, n in enumerate(g.shape)), g.dtype)
        launch(np.sum, g, axes, None, out, True)
        g = out.reshape(shape)
    return g if g.dtype == x.dtype else cast(g, x.dtype)


# -------------------------------------------------------------------------------- operations: one number at a time

class Unary(Op):
    """A row of the page of calculus with one operand, applied to every element."""

    def __init__(self, rule):
        self.rule, self.name = rule, rule.name

    def forward(self, x):
        if x.dtype not in FLOATS:
            if self.name in ("neg", "abs") and x.dtype != bool:
                y = empty_array(x.shape, x.dtype)
                launch(getattr(np, {"neg": "negative", "abs": "absolute"}[self.name]), x, y)
                return y
            raise TypeError(f"{self.name}: expected float numbers, got {x.dtype}")
        self.x, y = contiguous(x).ravel(), empty_array(x.shape, x.dtype)
        launch(kernels.activations.unary(self.name), y.ravel(), self.x)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.activations.unary_backward(self.name), dx.ravel(), contiguous(g).ravel(), self.x, y.ravel())
        return (dx,)


def common_dtype(a, b):
    """The dtype of a result: beside whole numbers and bools, floats keep theirs, as in PyTorch."""
    return a if a in FLOATS and b.kind in "iub" else b if b in FLOATS and a.kind in "iub" else np.result_type(a, b)


def larger(a, b, out):
    np.maximum(a, b, out=out)


def smaller(a, b, out):
    np.minimum(a, b, out=out)


class Binary(Op):
    """A row of the page of calculus with two operands, with NumPy's broadcasting."""

    FORWARD = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power,
               "max": larger, "min": smaller}

    def __init__(self, rule):
        self.rule, self.name = rule, rule.name

    def forward(self, a, b):
        shape = a.shape if a.shape == b.shape else broadcast_shape(self.name, a.shape, b.shape)
        dtype = a.dtype if a.dtype == b.dtype else common_dtype(a.dtype, b.dtype)
        if self.name == "/" and dtype not in FLOATS:
            dtype = np.dtype(np.float32)
        if self.name == "**" and dtype.kind in "iu" and (b < 0).any():
            raise ValueError("**: whole numbers have no negative powers; convert them with .float()")
        y = empty_array(shape, dtype)
        launch(self.FORWARD[self.name], a, b, y)
        return y

    def backward(self, g, y, a, b):
        return [unbroadcast(self.share(i, g, a, b, y), x) if self.needs[i] else None
                for i, x in enumerate((a, b))]

    def share(self, i, g, a, b, y):
        """g · ∂y/∂(operand i), from the row itself: on whole arrays where it is plain arithmetic, else compiled."""
        if self.name not in ("+", "-", "*", "/"):
            out = empty_array(y.shape, y.dtype)
            launch(kernels.activations.binary_backward(self.name, i), g, a, b, y, out)
            return out
        with no_grad():
            d = self.rule.derivatives[i](leaf(a), leaf(b), leaf(y))
        if d.__class__ is float and d == 1.0:
            return g
        out = empty_array(y.shape, y.dtype)
        launch(np.multiply, g, d if d.__class__ is float else d._data, out)
        return out


class Cast(Op):
    name = "to"

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        self.before = x.dtype
        y = empty_array(x.shape, self.dtype)
        launch(np.copyto, y, x, "unsafe")
        return y

    def backward(self, g, y, x):
        dx = empty_array(g.shape, self.before)
        launch(np.copyto, dx, g)
        return (dx,)


class Where(Op):
    """where(condition, a, b): a's element where the condition holds, else b's."""

    name = "where"

    def __init__(self, condition):
        self.condition = condition

    def forward(self, a, b):
        shape = broadcast_shape("where", self.condition.shape, broadcast_shape("where", a.shape, b.shape))
        y = empty_array(shape, common_dtype(a.dtype, b.dtype))
        launch(np.copyto, y, b, "same_kind")
        launch(np.copyto, y, a, "same_kind", self.condition)
        return y

    def backward(self, g, y, a, b):
        da, db = filled(g.shape, g.dtype, 0.0), copied(g)
        launch(np.copyto, da, g, "same_kind", self.condition)
        launch(np.copyto, db, 0.0, "same_kind", self.condition)
        return [unbroadcast(share, x) if need else None for share, x, need in zip((da, db), (a, b), self.needs)]


class Clip(Op):
    """min(max(x, low), high); the gradient passes where low ≤ x ≤ high."""

    name = "clip"

    def __init__(self, low, high):
        self.low, self.high = low, high

    def forward(self, x):
        dtype = np.result_type(x, *[n for n in (self.low, self.high) if n is not None])
        y = empty_array(x.shape, np.float32 if dtype in FLOATS and x.dtype not in FLOATS else dtype)
        launch(np.clip, x, self.low, self.high, y)
        return y

    def backward(self, g, y, x):
        inside, dx = empty_array(x.shape, bool), empty_array(x.shape, x.dtype)
        launch(np.equal, x, y, inside)
        launch(np.multiply, g, inside, dx)
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
        da = unbroadcast(self.product(G, B.swapaxes(-1, -2)), A).reshape(a.shape) if self.needs[0] else None
        db = unbroadcast(self.product(A.swapaxes(-1, -2), G), B).reshape(b.shape) if self.needs[1] else None
        return da, db

    def product(self, a, b):
        dtype = common_dtype(a.dtype, b.dtype)
        if a.ndim < 2 or b.ndim < 2:
            y = self.product(a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None])
            rows, columns = y.shape[-2:-1] if a.ndim > 1 else (), y.shape[-1:] if b.ndim > 1 else ()
            return y.reshape(y.shape[:-2] + rows + columns)
        if b.ndim == 2 and a.ndim > 2:
            y = empty_array((*a.shape[:-1], b.shape[-1]), dtype)
            rows = math.prod(a.shape[:-1])
            launch(kernels.matmul, y.reshape(rows, b.shape[-1]), contiguous(a).reshape(rows, a.shape[-1]), b)
            return y
        y = empty_array((*broadcast_shape("@", a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), dtype)
        launch(kernels.matmul if y.ndim == 2 else kernels.batched, y, a, b)
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
        y = empty_array(shape, x.dtype if x.dtype in FLOATS else np.int64)
        launch(np.mean if self.name == "mean" else np.sum, x, axes, None, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        if self.name == "mean":
            scaled = empty_array(g.shape, g.dtype)
            launch(np.multiply, g, 1.0 / self.count, scaled)
            g = scaled
        return (np.broadcast_to(g.reshape(self.kept), x.shape),)


Pair = collections.namedtuple("Pair", "values indices")


class MaxMin(Op):
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
        launch(np.max if self.name == "max" else np.min, x, axis, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        launch(give_first, dx, g.reshape(self.kept), x, self.axis, self.name)
        return (dx,)


def give_first(dx, g, x, axis, name):
    first = np.argmax if name == "max" else np.argmin
    if axis is None:
        dx.reshape(-1)[first(x)] = g.reshape(())
    else:
        np.put_along_axis(dx, first(x, axis, keepdims=True), g, axis)


# ------------------------------------------------------------------------------------------ operations: arrangement

class Layout(Op):
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
            forbid_in_capture("a choice by a boolean mask, whose size depends on the numbers,")
        y = empty_array(like.shape, like.dtype)
        launch(take_into, y, x, self.key)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        if is_view(self.key):
            launch(np.copyto, part(dx, self.key), g)
        else:
            launch(np.add.at, dx, self.key, g)
        return (dx,)


def take_into(out, x, key):
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
        dtype = functools.reduce(common_dtype, [x.dtype for x in xs])
        y = empty_array((*xs[0].shape[:axis], start, *xs[0].shape[axis + 1:]), dtype)
        for x, there in zip(xs, self.places):
            launch(np.copyto, y[there], x)
        return y

    def backward(self, g, y, *xs):
        return [cast(g[there], x.dtype) if need else None for there, x, need in zip(self.places, xs, self.needs)]


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
            return Unary(rule)(self)
    else:
        def method(self, other):
            return NotImplemented if isinstance(other, Value) else Binary(rule)(self, as_tensor(other, self))
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
        launch(ufunc, self._data, other._data, y)
        return leaf(y)
    return described(method, ufunc.__name__)


def of_whole_numbers(ufunc, symbol):
    """The method of Tensor that divides whole numbers, through which no gradient flows."""
    def method(self, other):
        other = as_tensor(other, self)
        for x in (self, other):
            if x.dtype.kind not in "iu":
                raise TypeError(f"{symbol}: expected whole numbers, got {x.dtype}")
        if not other._data.all():
            raise ValueError(f"{symbol}: division by 0")
        y = empty_array(broadcast_shape(symbol, self.shape, other.shape), common_dtype(self.dtype, other.dtype))
        launch(ufunc, self._data, other._data, y)
        return leaf(y)
    return described(method, symbol)


def logical(ufunc, symbol):
    """The method of Tensor that joins two conditions."""
    join = comparison(ufunc)

    def method(self, other):
        for x in (self, other):
            if not isinstance(x, Tensor) or x.dtype.kind != "b":
                raise TypeError(f"{symbol}: expected tensors of bools, as comparisons give them, got "
                                f"{x.dtype if hasattr(x, 'dtype') else shown(x)}")
        return join(self, other)
    return described(method, symbol)


def reduction(kind, name):
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
        return kind(name, axis if dim is None else dim, keepdims or keepdim)(self)
    return described(method, name, f"The {name} over `axis` (all axes where none is named).")


def extreme(name):
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=None):
        if dim is None and keepdim is None:
            return MaxMin(name, axis, keepdims)(self)
        axis, kept = axis if dim is None else dim, keepdims or bool(keepdim)
        return Pair(MaxMin(name, axis, kept)(self), getattr(self, f"arg{name}")(axis, kept))
    return described(method, name, f"The {name}imum over `axis` (of all where none is named) in NumPy's words; in "
                     "PyTorch's, dim= and keepdim=, a pair (values, indices).")


def first_index(name):
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
        axis, keepdims = axis if dim is None else dim, keepdims or keepdim
        if axis is not None:
            axis, = axes_of(name, axis, self.ndim)
        if not self.numel():
            raise ValueError(f"{name}: there is nothing to compare in shape {self.shape}")
        kept = (1,) * self.ndim if axis is None else (*self.shape[:axis], 1, *self.shape[axis + 1:])
        y = empty_array(kept if keepdims else () if axis is None else kept[:axis] + kept[axis + 1:], np.int64)
        launch(positions, y, self._data, axis, name)
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


def norm(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
    """√Σ x² over `axis`; where it is 0, so is its gradient."""
    squares = (self * self).sum(axis, keepdims, dim=dim, keepdim=keepdim)
    nothing = squares == 0
    return (squares + nothing).sqrt() * ~nothing


def clip(self, min=None, max=None):
    """min where an element is below it, max where above."""
    if min is None and max is None:
        raise ValueError("clip: at least one of min and max is needed")
    return Clip(min, max)(self)


def log10(self):
    """The logarithm to base 10 of every element."""
    return self.log() * (1.0 / math.log(10.0))


def square(self):
    """x · x of every element."""
    return self * self


def round_(self, decimals=0):
    """Each element rounded, halves to the even number; no gradient flows through."""
    y = empty_array(self.shape, self.dtype)
    launch(np.round, self._data, decimals, y)
    return leaf(y)


def whether(ufunc, name):
    """The method of Tensor that asks a question of all elements along an axis; a tensor of bools."""
    def method(self, axis=None, keepdims=False, *, dim=None, keepdim=False):
        axes = axes_of(name, axis if dim is None else dim, self.ndim)
        kept = keepdims or keepdim
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape) if kept or i not in axes)
        y = empty_array(shape, np.dtype(bool))
        launch(ufunc.reduce, self._data, axes, np.dtype(bool), y, kept)
        return leaf(y)
    return described(method, name, f"Whether {name} of the elements along `axis` are true.")


def gather(self, dim, index):
    """The elements at places along `dim`, index shaped as self but there: y[i, j] = self[i, index[i, j]] for dim=1."""
    axis, = axes_of("gather", dim, self.ndim)
    index = as_tensor(index)._data
    if index.dtype.kind not in "iu":
        raise TypeError(f"gather: expected whole numbers as indices, got {index.dtype}")
    if index.ndim != self.ndim or any(i > n for k, (i, n) in enumerate(zip(index.shape, self.shape)) if k != axis):
        raise ValueError(f"gather: an index of shape {index.shape} does not fit {self.shape} along axis {axis}")
    places = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    places[axis] = index
    return self[tuple(places)]


def topk(self, k, dim=-1, largest=True):
    """The k largest elements along `dim` in falling order (or the smallest, rising): a pair (values, indices).

    >>> tensor([0.1, 0.7, 0.2]).topk(2).indices.tolist()
    [1, 2]
    """
    axis, = axes_of("topk", dim, self.ndim)
    if not self.ndim or not 0 <= k <= self.shape[axis]:
        raise ValueError(f"topk: there are no {k} elements along axis {dim} of shape {self.shape}")
    indices = empty_array((*self.shape[:axis], k, *self.shape[axis + 1:]), np.int64)
    launch(put_order, indices, self._data, axis, largest)
    return Pair(self.gather(axis, leaf(indices)), leaf(indices))


def put_order(out, x, axis, descending):
    order = np.argsort(x, axis, kind="stable")
    order = np.flip(order, axis) if descending else order
    out[...] = np.take(order, range(out.shape[axis]), axis)


def sort(self, dim=-1, descending=False):
    """The elements along `dim` in rising order (or falling): a pair (values, indices)."""
    return self.topk(self.shape[axes_of("sort", dim, self.ndim)[0]] if self.ndim else 0, dim, descending)


def masked_fill(self, mask, value):
    """`value` where the mask is true: masked_fill(mask, -math.inf) before a softmax."""
    return where(mask, value, self)


def triangle(name):
    """The method of Tensor that keeps the elements on one side of a diagonal of its last two axes; others become 0."""
    def method(self, diagonal=0):
        if self.ndim < 2:
            raise ValueError(f"{name}: expected a matrix, got shape {self.shape}")
        return where(Tensor(getattr(np, name)(np.ones(self.shape[-2:], bool), diagonal)), self, 0)
    return described(method, name, f"The {'lower' if name == 'tril' else 'upper'} triangle; the other elements are 0.")


def split(self, split_size, dim=0):
    """Parts of that length along `dim` (the last may be shorter), or of the lengths in a list: a tuple of views."""
    axis, = axes_of("split", dim, self.ndim)
    n = self.shape[axis] if self.ndim else 0
    if isinstance(split_size, int) and split_size > 0:
        split_size = [min(split_size, n - i) for i in range(0, n, split_size)]
    if isinstance(split_size, int) or sum(split_size) != n or min(split_size, default=0) < 0:
        raise ValueError(f"split: lengths {split_size} do not make up axis {dim} of shape {self.shape}")
    ends = np.cumsum([0, *split_size]).tolist()
    return tuple(self[(slice(None),) * axis + (slice(a, b),)] for a, b in zip(ends, ends[1:]))


def chunk(self, chunks, dim=0):
    """`chunks` parts of equal length along `dim`, the last one perhaps shorter; see `split`."""
    if not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunk: chunks is a whole number from 1 on, got {chunks!r}")
    axis, = axes_of("chunk", dim, self.ndim)
    return self.split(max(1, math.ceil(self.shape[axis] / chunks)) if self.ndim else 1, axis)


def view_as(self, other):
    """In the shape of another tensor."""
    return self.reshape(*other.shape)


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
    return Layout("reshape", lambda x: contiguous(x).reshape(shape), lambda g, x: contiguous(g).reshape(x.shape))(self)


def permute(self, *axes):
    """The axes in another order."""
    axes = shape_of("permute", axes)
    if sorted(i % self.ndim if self.ndim else i for i in axes) != list(range(self.ndim)):
        raise ValueError(f"permute: expected the axes 0 to {self.ndim - 1}, each once, got {axes}")
    back = tuple(np.argsort([i % self.ndim for i in axes]))
    return Layout("permute", lambda x: x.transpose(axes), lambda g, x: g.transpose(back))(self)


def transpose(self, *axes):
    """Two axes exchanged: transpose(0, 1), or all of them reversed: transpose()."""
    if not axes:
        return permute(self, *reversed(range(self.ndim))) if self.ndim else self
    if len(axes) != 2:
        return permute(self, *axes)
    for i in axes:
        axes_of("transpose", i, self.ndim)
    return Layout("transpose", lambda x: x.swapaxes(*axes), lambda g, x: g.swapaxes(*axes))(self)


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
    return Layout("expand", lambda x: np.broadcast_to(x, shape), lambda g, x: unbroadcast(g, x))(self)


def changeable(name, x):
    """Refuse to overwrite numbers through which a gradient is to flow."""
    if x.inputs or x.requires_grad and mode.grad_enabled:
        what = "the result of a graph" if x.inputs else "a leaf that takes gradients"
        how = "work on .detach().clone()" if x.inputs else "do it under no_grad()"
        raise ValueError(f"{name}: {what} is not changed in place, its gradient would be wrong; {how}, or make a new "
                         "tensor")
    if not x._data.flags.writeable:
        raise ValueError(f"{name}: this tensor repeats numbers that it shares (expand); call .clone() first")


def in_place(symbol, ufunc):
    """x += y and its kin: NumPy's change in place where no gradient flows, else x = x + y."""
    name = f"{symbol}="

    def method(self, other):
        if isinstance(other, Value):
            return NotImplemented
        other = as_tensor(other, self)
        if self.inputs or mode.grad_enabled and other.requires_grad and not self.requires_grad:
            return NotImplemented
        changeable(name, self)
        x, y = self._data, other._data
        if broadcast_shape(name, x.shape, y.shape) != x.shape:
            raise ValueError(f"{name}: shape {y.shape} does not fit into {x.shape}")
        if not np.can_cast(ufunc.resolve_dtypes((x.dtype, y.dtype, None))[2], x.dtype, "same_kind"):
            raise TypeError(f"{name}: the result is no {x.dtype}; convert the tensor with .float()")
        launch(ufunc, x, y, x)
        changes.note(x)
        return self
    return described(method, name)


def changing(name):
    """The method of Tensor that changes its numbers as that of Numbers does."""
    change = getattr(Numbers, name)

    @functools.wraps(change)
    def method(self, *args, **options):
        changeable(name, self)
        for x in args:
            if isinstance(x, Tensor) and x.requires_grad and mode.grad_enabled:
                raise ValueError(f"{name}: a tensor that takes gradients would lose them here; write x = x + y, or "
                                 "detach it")
        launch(applied, change, self._data, [plain(x) for x in args], {key: plain(x) for key, x in options.items()})
        changes.note(self._data)
        return self
    return method


def applied(change, array, args, options):
    change(array.view(Numbers), *args, **options)


for rule in RULES.values():
    symbol = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "**": "pow"}.get(rule.name)
    method = elementwise(rule)
    if symbol:
        setattr(Tensor, f"__{symbol}__", method)
        setattr(Tensor, f"__r{symbol}__", mirrored(method))
        if symbol != "pow":
            setattr(Tensor, f"__i{symbol}__", in_place(rule.name, Binary.FORWARD[rule.name]))
            setattr(Tensor, symbol.removeprefix("true"), method)
    elif rule.name not in ("max", "min"):
        setattr(Tensor, rule.name, method)
Tensor.__neg__, Tensor.__abs__, Tensor.pow = Tensor.neg, Tensor.abs, Tensor.__pow__
Tensor.maximum, Tensor.minimum = elementwise(RULES["max"]), elementwise(RULES["min"])
Tensor.__matmul__ = Tensor.matmul = described(lambda self, other: MatMul()(self, as_tensor(other, self)), "matmul")
Tensor.__rmatmul__ = mirrored(Tensor.matmul)
for ufunc, name in ((np.equal, "eq"), (np.not_equal, "ne"), (np.less, "lt"), (np.less_equal, "le"),
                    (np.greater, "gt"), (np.greater_equal, "ge")):
    setattr(Tensor, f"__{name}__", comparison(ufunc))
    setattr(Tensor, name, vars(Tensor)[f"__{name}__"])
for name in ("sum", "mean"):
    setattr(Tensor, name, reduction(Reduce, name))
for name in ("max", "min"):
    setattr(Tensor, name, extreme(name))
for name in ("argmax", "argmin"):
    setattr(Tensor, name, first_index(name))
Tensor.__mod__ = of_whole_numbers(np.remainder, "%")
Tensor.__floordiv__ = of_whole_numbers(np.floor_divide, "//")
for ufunc, name, symbol in ((np.logical_and, "and", "&"), (np.logical_or, "or", "|"), (np.logical_xor, "xor", "^")):
    setattr(Tensor, f"__{name}__", logical(ufunc, symbol))
Tensor.__invert__ = described(lambda self: self ^ Tensor(True), "~", "Whether not, of tensors of bools.")
for ufunc, name in ((np.logical_and, "all"), (np.logical_or, "any")):
    setattr(Tensor, name, whether(ufunc, name))
for name in ("tril", "triu"):
    setattr(Tensor, name, triangle(name))
for function in (square, log10, var, std, norm, clip, reshape, permute, transpose, flatten, squeeze, unsqueeze, expand, gather,
                 topk, sort, masked_fill, split, chunk, view_as):
    setattr(Tensor, function.__name__, function)
Tensor.round = described(round_, "round", round_.__doc__)
for name in "copy_ fill_ zero_ add_ sub_ mul_ div_ clamp_ normal_ uniform_".split():
    setattr(Tensor, name, changing(name))
Tensor.clamp, Tensor.view, Tensor.broadcast_to, Tensor.swapaxes = clip, reshape, expand, transpose
for name in ("sum mean max min argmax argmin var std clip clamp reshape view permute transpose swapaxes flatten "
             "squeeze unsqueeze expand broadcast_to to astype size item gradients backward any all norm tril "
             "triu log10 gather topk sort masked_fill split chunk view_as round requires_grad_ __getitem__ "
             "__setitem__ copy_ fill_ zero_ add_ sub_ mul_ div_ clamp_ normal_ uniform_").split():
    setattr(Tensor, name, refusing(vars(Tensor)[name], "" if name.startswith("_") else f".{name}"))
Tensor.T = property(lambda self: self.transpose())
Tensor.mT = property(lambda self: self.transpose(-1, -2))

UFUNCS = {np.matmul: lambda a, b: MatMul()(as_tensor(a, b), as_tensor(b, a))}
UFUNCS |= {ufunc: (lambda method: lambda x: method(x))(getattr(Tensor, name)) for ufunc, name in (
    (np.exp, "exp"), (np.log, "log"), (np.sqrt, "sqrt"), (np.square, "square"), (np.sin, "sin"), (np.cos, "cos"), (np.tanh, "tanh"),
    (np.absolute, "abs"), (np.negative, "neg"))}
UFUNCS |= {ufunc: (lambda method: lambda a, b: method(as_tensor(a, b), b))(getattr(Tensor, name)) for ufunc, name in (
    (np.add, "__add__"), (np.subtract, "__sub__"), (np.multiply, "__mul__"), (np.divide, "__truediv__"),
    (np.power, "__pow__"), (np.maximum, "maximum"), (np.minimum, "minimum"), (np.equal, "__eq__"),
    (np.not_equal, "__ne__"), (np.less, "__lt__"), (np.less_equal, "__le__"), (np.greater, "__gt__"),
    (np.greater_equal, "__ge__"))}


# ---------------------------------------------------------------------------------------------------------- creation

@refusing
class Stream:
    """Random numbers of one's own.

    >>> a, b = (randn(2, generator=Generator().manual_seed(1)) for _ in range(2))
    >>> (a == b).tolist()
    [True, True]
    """

    def __init__(self):
        self.stream = np.random.default_rng()

    def manual_seed(self, seed):
        """Begin anew with this seed."""
        self.stream = np.random.default_rng(checked_seed(seed))
        return self


def checked_seed(seed):
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"manual_seed: expected a whole number from 0 on, got {seed!r}")
    return int(seed)


class Streams(threading.local):
    """The random numbers of tinynet: one stream in each thread, so that threads do not take numbers from one another.
    It may be a part of a checkpoint. `Generator()` gives a stream of one's own, for functions that take a `generator`.

    A thread's stream begins where `manual_seed` in the main thread last began, or anywhere where it was never called.

    >>> before = Generator.state_dict(); a = rand(3)
    >>> Generator.load_state_dict(before); (a == rand(3)).tolist()
    [True, True, True]
    """

    seed = None

    def __init__(self):
        self.stream = np.random.default_rng(Streams.seed)

    def __call__(self):
        return Stream()

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
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
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
    seed = checked_seed(seed)
    if threading.current_thread() is threading.main_thread():
        Streams.seed = seed
    Generator.stream = np.random.default_rng(seed)
    return Generator.stream


def random_uniform(out, generator=Generator):
    """Fill an array with uniform numbers from [0, 1), now and at each replay of a captured step."""
    generator.stream.random(out=out, dtype=out.dtype)


def random_normal(out, generator=Generator):
    """Fill an array with standard normal numbers."""
    generator.stream.standard_normal(out=out, dtype=out.dtype)


@refusing
def device(name):
    """Where tensors are, under PyTorch's name: "cpu", and nowhere else.

    >>> zeros(2, device=device("cpu")).tolist()
    [0.0, 0.0]
    """
    if name not in (None, "cpu", "tensor"):
        raise ValueError(f'device: tensors are on the "cpu", got {shown(name)}')
    return "cpu"


@refusing
def tensor(data, dtype=None, requires_grad=False, label="", device=None):
    """A Tensor with a copy of the numbers in `data`: floats become float32, NumPy arrays keep their dtype.

    `device` may be "cpu" here and in all that follows, for scripts that say so.

    >>> tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    on(device)
    array = as_array(data)
    array = array.astype(as_dtype("tensor", dtype) if dtype is not None else array.dtype)  # always a copy
    return Tensor(array, requires_grad, label)


on = device  # for functions that have a parameter of this name


def as_dtype(name, dtype):
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name}: unknown dtype {dtype!r}") from None
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype not in FLOATS):
        raise TypeError(f"{name}: expected float32, float64, an integer or bool, got {dtype}")
    return dtype


def creation(name, fill):
    def function(*shape, dtype=np.float32, requires_grad=False, device=None, generator=None):
        on(device)
        shape = shape_of(name, shape)
        if min(shape, default=0) < 0:
            raise ValueError(f"{name}: a shape has no negative numbers, got {shape}")
        array = empty_array(shape, as_dtype(name, dtype))
        if fill is not None:
            if fill in (random_uniform, random_normal) and array.dtype not in FLOATS:
                raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
            if isinstance(fill, float):
                launch(np.copyto, array, array.dtype.type(fill))
            else:
                launch(fill, array, Generator if generator is None else generator)
        return Tensor(array, requires_grad)

    def like(x, dtype=None, requires_grad=False, device=None):
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise TypeError(f"{name}_like: expected a tensor or an array, got {type(x).__name__}")
        return function(*x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad, device=device)

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
def full(shape, fill_value, dtype=None, requires_grad=False, device=None):
    """A tensor of that shape with one number everywhere."""
    on(device)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return Tensor(np.full(shape, fill_value, dtype or as_array(fill_value).dtype), requires_grad)


@refusing
def full_like(x, fill_value, dtype=None, requires_grad=False, device=None):
    """One number everywhere, in the shape and dtype of x."""
    return full(x.shape, fill_value, dtype or x.dtype, requires_grad, device)


@refusing
def eye(n, m=None, dtype=np.float32, requires_grad=False, device=None):
    """The unit matrix: 1 where the row is the column, else 0."""
    on(device)
    return Tensor(np.eye(n, m, dtype=as_dtype("eye", dtype)), requires_grad)


@refusing
def arange(start, stop=None, step=1, dtype=None, requires_grad=False, device=None):
    """start, start + step, … below stop."""
    on(device)
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step is 0")
    array = np.arange(start, stop, step, dtype)
    return Tensor(array.astype(np.float32) if dtype is None and array.dtype == np.float64 else array, requires_grad)


@refusing
def linspace(start, end, steps, dtype=np.float32, requires_grad=False, device=None):
    """`steps` numbers from start to end, both included, at equal distances."""
    on(device)
    return Tensor(np.linspace(start, end, steps, dtype=dtype), requires_grad)


@refusing
def randint(low, high=None, size=None, dtype=np.int64, device=None, generator=None):
    """Whole numbers from [low, high), or [0, low) where one bound is given: randint(10, size=(3,))."""
    on(device)
    if size is None and isinstance(high, (tuple, list)):
        high, size = None, high
    low, high = (0, low) if high is None else (low, high)
    if high <= low:
        raise ValueError(f"randint: expected low < high, got {low} and {high}")
    forbid_in_capture("randint")
    stream = (generator or Generator).stream
    return Tensor(stream.integers(low, high, size if size is not None else (), dtype=np.dtype(dtype)))


@refusing
def randperm(n, generator=None):
    """The numbers 0 … n - 1 in random order."""
    forbid_in_capture("randperm")
    return Tensor((generator or Generator).stream.permutation(n))


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


def pad(x, width, mode="constant", constant_values=0.0):
    """A margin of one number: `width` is (before, after) for each axis, or one of both for all axes."""
    if mode != "constant":
        raise ValueError(f"pad: expected mode to be 'constant', got {mode!r}")
    widths = np.broadcast_to(width, (x.ndim, 2)).tolist()
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths))
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths))

    def there(a):
        y = filled(shape, a.dtype, constant_values)
        launch(np.copyto, y[inside], a)
        return y

    return Layout("pad", there, lambda g, a: g[inside])(x)


def sliding_window_view(x, window_shape, axis=None):
    """All windows of that shape, their axes last, as NumPy's function of this name gives them."""
    view = np.lib.stride_tricks.sliding_window_view

    def back(g, a):
        dx = filled(a.shape, a.dtype, 0.0)
        windows = view(dx, window_shape, axis, writeable=True)
        for i in np.ndindex(g.shape[a.ndim:]):  # windows overlap, the elements at one index of all windows do not
            launch(np.add, windows[..., *i], g[..., *i], windows[..., *i])
        return dx

    return Layout("windows", lambda a: view(a, window_shape, axis), back)(x)


class Einsum(Op):
    """Σ of products of two operands; the gradient of one is the einsum of g with the other, subscripts exchanged."""

    name = "einsum"

    def __init__(self, subscripts):
        self.first, self.second, self.result = subscripts.replace("->", ",").split(",")

    def forward(self, a, b):
        return self.product(self.first, a, self.second, b, self.result)

    def backward(self, g, y, a, b):
        return (self.product(self.result, g, self.second, b, self.first) if self.needs[0] else None,
                self.product(self.result, g, self.first, a, self.second) if self.needs[1] else None)

    def product(self, first, a, second, b, result):
        sizes = dict(zip(first + second, a.shape + b.shape))
        y = empty_array(tuple(sizes[letter] for letter in result), a.dtype)
        launch(into_einsum, y, f"{first},{second}->{result}", a, b)
        return y


def into_einsum(out, subscripts, a, b):
    np.einsum(subscripts, a, b, out=out)


@refusing
def einsum(subscripts, a, b):
    """Σ of the products over the subscripts that the result lacks: einsum("ij,jk->ik", a, b) is a @ b."""
    parts = subscripts.replace(" ", "").replace("->", ",").split(",")
    a, b = as_tensor(a, b), as_tensor(b, a)
    sizes = dict(zip("".join(parts[:2]), a.shape + b.shape))
    if (len(parts) != 3 or not "".join(parts).isalpha() or not set(parts[2]) <= set(sizes)
            or any(len(set(part)) != len(part) for part in parts) or a.dtype != b.dtype
            or any(tuple(map(sizes.get, part)) != x.shape for part, x in zip(parts, (a, b)))
            or any(set(x) - set(y) - set(parts[2]) for x, y in (parts[:2], parts[1::-1]))):
        raise ValueError(f"einsum: {subscripts!r} does not fit {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return Einsum(",".join(parts))(a, b)


def numpy_clip(x, a_min=None, a_max=None, *, min=None, max=None):
    return x.clip(a_min if min is None else min, a_max if max is None else max)


def moveaxis(x, source, destination):
    return x.permute(np.moveaxis(np.empty(range(x.ndim)), source, destination).shape)


# NumPy's functions that are written for tensors too; np.linalg, np.fft and the like are not among them
FUNCTIONS = {
    np.where: where, np.clip: numpy_clip, np.pad: pad, np.einsum: einsum, np.dot: lambda a, b: np.matmul(a, b),
    np.lib.stride_tricks.sliding_window_view: sliding_window_view,
    np.stack: stack, np.concatenate: cat, np.copy: Tensor.clone,
    np.sum: Tensor.sum, np.mean: Tensor.mean, np.max: Tensor.max, np.min: Tensor.min, np.all: Tensor.all,
    np.any: Tensor.any, np.argmax: Tensor.argmax, np.argmin: Tensor.argmin, np.round: Tensor.round,
    np.var: lambda x, axis=None, *, ddof=0, keepdims=False: x.var(axis, keepdims, ddof),
    np.std: lambda x, axis=None, *, ddof=0, keepdims=False: x.std(axis, keepdims, ddof),
    np.reshape: Tensor.reshape, np.ravel: lambda x: x.reshape(-1), np.squeeze: Tensor.squeeze,
    np.expand_dims: lambda x, axis: x.unsqueeze(axis), np.broadcast_to: lambda x, shape: x.expand(shape),
    np.transpose: lambda x, axes=None: x.transpose() if axes is None else x.permute(axes),
    np.swapaxes: Tensor.swapaxes, np.moveaxis: moveaxis, np.tril: Tensor.tril, np.triu: Tensor.triu,
    np.zeros_like: zeros_like, np.ones_like: ones_like, np.full_like: full_like, np.empty_like: empty_like,
    np.shape: lambda x: x.shape, np.ndim: lambda x: x.ndim, np.size: lambda x: x.numel(),
}
PREDICATES = {np.allclose, np.isclose, np.array_equal, np.array_equiv, np.argsort, np.nonzero, np.count_nonzero,
              np.array_repr, np.array_str, np.array2string, np.iscomplexobj, np.isrealobj, np.result_type, np.can_cast,
              np.may_share_memory, np.shares_memory}
