"""An array that records its computation graph: the same graph and the same backward pass as `Value`, on whole batches.

>>> from tinynet import tensor
>>> x = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
>>> loss = (x * x).sum()
>>> loss.backward()
>>> x.grad.tolist()
[[2.0, 4.0], [6.0, 8.0]]

Here are an operation (`Op`), what it remembers of the memory that its backward pass reads, and the node of the graph
(`Node`). methods.py completes the node with NumPy's and PyTorch's methods: that is `Tensor`.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike

from ..errors import check_bool, describe, is_number
from ..graph import ANOMALY, Scope, chain_rule, layer_path, mode, report_anomaly
from ..kernels import launch
from ..value import Value
from .memory import FLOATS, added, copied, owner, same_memory

if TYPE_CHECKING:
    from .methods import Tensor

data_of, needs_of = operator.attrgetter("_data"), operator.attrgetter("requires_grad")
new = object.__new__


class Op:
    """An operation on arrays. `forward` computes the result and `backward` the inputs' gradients (None for an input
    that needs none).

    One object is made for each call, so what `forward` keeps for `backward` are plain attributes; `needs[i]` says
    whether input i wants a gradient. An operation that a fused kernel computes points to its reference implementation:
    `definition` is (function, arguments, options).
    """

    name: str = ""
    definition: tuple[Any, ...] | None = None
    is_view = False  # whether the result may share the memory of the input
    tensor: type[Tensor]  # the class of results, which methods.py sets where it is complete

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.node(self.forward(*map(data_of, inputs)), inputs)

    def node(self, data: np.ndarray, inputs: tuple[Tensor, ...]) -> Tensor:
        """The node of the graph that holds data, which this operation computed from the inputs."""
        y = new(self.tensor)
        y._data = data
        y._grad = None
        y._version = None
        y.label = ""
        y.scope = mode.scope
        y.retains = False
        if self.is_view and owner(data) is owner(inputs[0]._data):
            y._version = version_of(inputs[0])
        enabled = mode.grad_enabled
        if enabled:
            if enabled is ANOMALY:
                launch(check_finite, self.name, y.scope, data, [x._data for x in inputs])
            self.needs, self.made = [*map(needs_of, inputs)], clock.now
            if True in self.needs:
                y.requires_grad, y.op, y.inputs = True, self, inputs
                return y
        y.requires_grad, y.op, y.inputs = False, None, ()
        return y

    def forward(self, *xs: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def backward(self, g: np.ndarray, y: np.ndarray, *xs: np.ndarray) -> Sequence[np.ndarray | None]:
        raise NotImplementedError

    def saved(self, y: Tensor, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The tensors whose elements `backward` reads, of its result y, its inputs xs and what else it keeps."""
        return (y, *xs)

    def vjp(self, g: np.ndarray, y: Tensor, *xs: Tensor) -> Sequence[np.ndarray | None]:
        """The gradients of the inputs; ValueError where what they are made from is not what it was."""
        if self.made != clock.now:
            check_versions(self, y, xs)
        return self.backward(g, y._data, *map(data_of, xs))


# ------------------------------------------------------------------------------------------------------------ versions

class Version:
    """When a piece of memory was last changed in place. Views, `data` and `detach()` share the version of their memory.

    All versions count on one clock, so an operation remembers one number, the time at which it ran, for all that its
    backward pass reads.
    """

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = 0

    def __reduce__(self) -> tuple[type[Version], tuple[()]]:
        return Version, ()  # another process has another clock


class Clock:
    """How many changes in place there were."""

    now = 0


clock = Clock()


def version_of(x: Node) -> Version:
    """The version of a tensor's memory, which begins where somebody asks for it."""
    if x._version is None:
        x._version = Version()
    return x._version


def bump_version(*changed: Node) -> None:
    """Note that their memory was changed in place: what was computed from it before has no gradient any more."""
    clock.now = now = clock.now + 1
    for x in changed:
        if x._version is None:
            x._version = Version()
        x._version.changed = now


def check_versions(op: Op, y: Tensor, xs: Sequence[Tensor]) -> None:
    for x in op.saved(y, xs):
        if x._version is not None and x._version.changed > op.made:
            i = next((i for i, one in enumerate(xs) if one is x), None)
            what = "the result" if x is y else "what selects" if i is None else f"input {i}"
            raise ValueError(f"backward: {what} of {op.name}{layer_path(y.scope)} was changed after it was used, and "
                             "the gradient would be wrong; compute the loss again, or change a clone()")


# -------------------------------------------------------------------------------------------------------- anomaly mode

def kind(array: np.ndarray) -> str:
    """"nan", "inf" or "finite": the worst that an array holds."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return "finite"
    return "nan" if np.isnan(array).any() else "inf"


def check_finite(name: str, scope: Scope | None, y: np.ndarray, inputs: Sequence[np.ndarray]) -> None:
    """See `detect_anomaly`. It is launched as a kernel is, so that replays look too."""
    found = kind(y)
    if found == "finite":
        return
    before = min((kind(x) for x in inputs), key=("nan", "inf", "finite").index, default="finite")
    if found == "nan" or before == "finite":
        first = np.argwhere(np.isnan(y) if found == "nan" else np.isinf(y))[0].tolist()
        report_anomaly(name, scope, found, f" at {first}" if first else "", before)


# ------------------------------------------------------------------------------------------------------------ the node

class Node:
    """An array in a graph; see `Tensor`, which has all the methods."""

    __slots__ = ("_data", "_grad", "_grad_tensor", "_version", "requires_grad", "op", "inputs", "label", "scope",
                 "retains", "__weakref__")
    _data: np.ndarray
    _grad: np.ndarray | None
    _grad_tensor: weakref.ref[Tensor]  # what `grad` gave last
    _version: Version | None
    requires_grad: bool
    op: Op | None
    inputs: tuple[Tensor, ...]
    label: str
    scope: Scope | None
    retains: bool

    def __init__(self, data: Any, requires_grad: bool = False, label: str = "") -> None:
        self._data = as_array(data)
        if check_bool("tensor", "requires_grad", requires_grad) and self._data.dtype not in FLOATS:
            raise TypeError(f"requires_grad: only float tensors take gradients, this one is {self._data.dtype}")
        self._version = version_of(data) if isinstance(data, Node) else None
        self._grad, self.requires_grad, self.label = None, bool(requires_grad), label
        self.op, self.inputs, self.scope, self.retains = None, (), mode.scope, False

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        names = {*Node.__slots__} - {"_grad_tensor", "__weakref__"}
        return getattr(self, "__dict__", None), {name: getattr(self, name) for name in names}

    # ------------------------------------------------------------------------------------------------ data and grad

    @property
    def data(self) -> Tensor:
        """The same memory as a Tensor that takes no gradient. Assigning writes into that memory, so what holds the
        tensor, such as a captured step, sees it: the shape and the dtype stay."""
        forbid_in_capture("data")
        return self.detach()

    @data.setter
    def data(self, data: Any) -> None:
        forbid_in_capture("data")
        array = as_array(data)
        if array.shape != self._data.shape:
            raise ValueError(f"data: expected shape {self.shape}, got {array.shape}; make a new tensor instead")
        if array.dtype != self._data.dtype or not same_memory(array, self._data):  # after p.data -= …, it is
            try:
                np.copyto(self._data, array, "same_kind")
            except TypeError:
                raise TypeError(f"data: expected {self.dtype}, got {array.dtype}; make a new tensor instead") from None
            bump_version(self)

    @property
    def grad(self) -> Tensor | None:
        """d root / d this, after `backward()`: a Tensor without a graph, or None. On leaves it adds up over calls."""
        forbid_in_capture("grad")
        if self._grad is None:
            return None
        given = grad_tensor(self)
        if given is None:
            given = leaf(self._grad)
            self._grad_tensor = weakref.ref(given)
        return given

    @grad.setter
    def grad(self, grad: Any) -> None:
        if grad is None:
            self.zero_grad()
            return
        forbid_in_capture("grad")
        if self.dtype not in FLOATS:
            raise TypeError(f"grad: only float tensors take gradients, this one is {self.dtype}")
        array = as_array(grad)
        if array.shape != self._data.shape:
            raise ValueError(f"grad: expected shape {self.shape} of {self.dtype}, got {array.shape} of {array.dtype}")
        if self._grad is None or array.dtype != self._grad.dtype or not same_memory(array, self._grad):
            self._grad = np.require(array, self._data.dtype, ("C", "W"))  # kernels read it, and add to it

    def zero_grad(self) -> None:
        """Reset the gradient to None."""
        if mode.plan is not None:
            mode.plan.clear_gradient(self)
        self._grad = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def device(self) -> str:
        return "tensor"

    def dim(self) -> int:
        return self._data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self._data.size

    nelement = numel

    def __len__(self) -> int:
        if not self._data.ndim:
            raise TypeError("len: a tensor of one number has no length")
        return len(self._data)

    def __repr__(self) -> str:
        forbid_in_capture("repr")
        numbers = np.array2string(self._data, separator=", ", prefix="tensor(", precision=4)
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        return f"tensor({numbers}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    __hash__ = object.__hash__

    # ------------------------------------------------------------------------------------- as Python's and NumPy's

    def item(self) -> Any:
        """The only element, as a Python number."""
        forbid_in_capture("item()")
        if self._data.size != 1:
            raise ValueError(f"item: expected one number, this tensor has shape {self.shape}")
        return self._data.item()

    def __format__(self, form: str) -> str:
        return object.__format__(self, form) if self._data.ndim else format(self.item(), form)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iu":
            raise TypeError(f"index: expected an integer, this tensor is {self.dtype}")
        return int(self.item())

    def tolist(self) -> Any:
        """The elements as Python numbers, in nested lists."""
        forbid_in_capture("tolist()")
        return self._data.tolist()

    def numpy(self) -> np.ndarray:
        """The array, which shares this tensor's memory; detach first where gradients flow."""
        forbid_in_capture("numpy()")
        if self.requires_grad:
            raise ValueError("numpy: this tensor requires a gradient; call .detach().numpy()")
        return self._data

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        forbid_in_capture("an array of it")
        return np.array(self._data, dtype=dtype, copy=copy)

    def detach(self) -> Tensor:
        """The same memory as a leaf that takes no gradient."""
        return leaf(self._data, self.label, version_of(self))

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients, in place."""
        if check_bool("requires_grad_", "requires_grad", requires_grad) and self.dtype not in FLOATS:
            raise TypeError(f"requires_grad_: only float tensors take gradients, this one is {self.dtype}")
        self.requires_grad = bool(requires_grad)
        return self

    # -------------------------------------------------------------------------------------------- the backward pass

    def gradients(self, create_graph: bool = False, gradient: Any = None) -> Iterator[tuple[Tensor, np.ndarray]]:
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
            seed = as_array(gradient)
            if seed.shape != self.shape:
                raise ValueError(f"backward: gradient has shape {seed.shape}, this tensor {self.shape}")
            seed = seed.astype(self.dtype, copy=False)
        return chain_rule(self, seed, add=added, create_graph=True)  # type: ignore[arg-type]

    def backward(self, gradient: Any = None, retain_graph: Any = None) -> None:
        """Add d self / d leaf to the `grad` of every leaf that requires it. The graph is always retained."""
        given: set[int] | None = None
        for node, g in self.gradients(gradient=gradient):
            if given is None:
                given = {id(g)}  # the seed is the caller's
            if node.requires_grad and (not node.inputs or node.retains):
                accumulate(node, g, given)

    def retain_grad(self) -> None:
        """Let `backward()` keep the gradient here too, though this is no leaf."""
        self.retains = True

    def _check_vjp(self, g: np.ndarray) -> None:
        """See `detect_anomaly`: `g` is the gradient that this node's operation computes for one of its inputs."""
        name = self.op.name if self.op is not None else ""
        launch(check_finite, f"backward of {name}", self.scope, g, [])


ONE = {dtype: np.ones(1, dtype) for dtype in FLOATS}  # the gradient of a loss for itself; nobody writes into it


def accumulate(leaf: Tensor, g: np.ndarray, given: set[int]) -> None:
    """Add g to the leaf's gradient, an array of its own: `given` are the arrays that another leaf has."""
    plan = mode.plan
    if plan is not None:
        plan.guard_gradient(leaf)
    if leaf._grad is not None:
        launch(np.add, leaf._grad, g, leaf._grad)
        tensor = grad_tensor(leaf)
        if tensor is not None:
            bump_version(tensor)
    else:
        leaf._grad = g if g.base is None and id(g) not in given else copied(g)
        given.add(id(g))
        if plan is not None:
            plan.record_gradient(leaf)


def grad_tensor(x: Node) -> Tensor | None:
    """The Tensor of x's gradient that somebody holds, who shall see its changes."""
    reference = getattr(x, "_grad_tensor", None)
    given = reference and reference()
    return given if given is not None and given._data is x._grad else None


def leaf(array: np.ndarray, label: str = "", version: Version | None = None) -> Tensor:
    """The array as a Tensor that takes no gradient."""
    y = new(Op.tensor)
    y._data, y._grad, y._version, y.requires_grad, y.label, y.scope = array, None, version, False, label, mode.scope
    y.op, y.inputs, y.retains = None, (), False
    return y


def forbid_in_capture(what: str) -> None:
    """ValueError for what a captured step would do while it is recorded, and never again."""
    if mode.plan is not None:
        raise ValueError(f"capture: {what} inside a captured step would be read once, while it is recorded, and never "
                         "again; return the tensor and read it outside")


# ---------------------------------------------------------------------------------------------------------- conversion

def as_array(data: Any) -> np.ndarray:
    """data as an array: Python floats become float32, integers int64; NumPy arrays keep their dtype."""
    if isinstance(data, Node):
        return data._data
    if isinstance(data, (list, tuple)) and any(isinstance(x, Node) for x in data):
        data = [x.tolist() if isinstance(x, Node) else x for x in data]
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError, RuntimeError) as error:
        what = "the rows have different lengths" if "inhomogeneous" in str(error) else error
        raise ValueError(f"tensor: {what}") from None
    if not isinstance(data, (np.ndarray, np.generic)) and array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        what = "Values; call float() on them, or keep them in the scalar engine" if any(
            isinstance(x, Value) for x in array.flat) else describe(data)
        raise TypeError(f"tensor: expected numbers, got {what}")
    if array.dtype.kind == "f" and array.dtype not in FLOATS:
        array = array.astype(np.float32)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_tensor(x: Any, like: Any = None) -> Tensor:
    """x as a Tensor; a Python number takes the dtype of the tensor beside it."""
    if isinstance(x, Node):
        return x  # type: ignore[return-value]
    if isinstance(x, int) and not -(2**63) <= x < 2**63:
        x = float(x) if abs(x) < 2**1023 else math.inf
    if isinstance(x, (bool, int, float)) and isinstance(like, Node):
        if like._data.dtype in FLOATS or isinstance(x, int):
            try:
                return leaf(np.array(x, dtype=like._data.dtype if like._data.dtype != bool else None))
            except OverflowError as error:
                raise ValueError(f"tensor: {error}") from None
        return leaf(np.array(x, dtype=np.float32))
    if isinstance(x, (str, Value)) or x is None:
        raise TypeError(f"expected a tensor or a number, got {describe(x)}")
    return leaf(as_array(x))


def is_operand(x: Any) -> bool:
    """Whether x is a Tensor, or numbers that may become one."""
    return isinstance(x, (Node, np.ndarray, list, tuple)) or is_number(x) and not isinstance(x, Value)


def operand(name: str, x: Any, like: Any) -> Tensor:
    """x as a Tensor beside another one; TypeError where it is no number."""
    if not is_operand(x):
        raise TypeError(f"{name}: expected a tensor or a number, got {describe(x)}")
    return as_tensor(x, like)
