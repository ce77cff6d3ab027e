"""Graph traversal: the topological order of a graph's nodes, and the backward pass through it.

A node is anything with these six attributes; `Value` (a scalar) and `Tensor` (an array) are the two kinds there are.

    data     the number, or the array
    grad     d(root)/d(this node), once `backward()` has reached it; None before
    op       the operation that made it, or None for a leaf
    inputs   the nodes it was made from, in the order of the operands
    label    a name for people, "" where there is none
    scope    the layer call that made it (a `Scope`), or None

An operation is anything with a `name` and a method `vjp(g, y, *xs)`: the vector-Jacobian products. Given the gradient g
of its output y, it returns g · ∂y/∂x for each of its inputs xs, in their order (None for zero).

Source: reverse-mode differentiation, Linnainmaa (1970); backpropagation, Rumelhart, Hinton and Williams (1986).
"""

from __future__ import annotations

import functools
import operator
import threading

from .errors import check_bool, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, NoReturn, TypeVar

    Node = TypeVar("Node")
    Function = TypeVar("Function", bound=Callable[..., Any])


class Scope:
    """The layer call in which nodes are made (see `layer_path`); `str(scope)` names the layer in error messages."""

    __slots__ = ()


class Mode(threading.local):
    """The modes of the current thread."""

    grad_enabled: bool | str = True  # grad mode: False inside `no_grad`, ANOMALY inside `detect_anomaly`
    scope: Scope | None = None  # the layer call that is running
    plan: Any = None  # the plan that a step is being captured into (see train/plans.py)
    reference: bool = False  # tensors run the reference implementations, not the fused kernels (see `textbook`)


class Structure:
    """How many changes there were that a captured step cannot see: attributes of layers, `requires_grad`, settings."""

    changes = 0


mode, structure = Mode(), Structure()
ANOMALY = "anomaly"


class switch:
    """A `with` block, or a decorator for a function, that sets one attribute of `mode` and restores it."""

    attribute: str = ""
    value: object = None

    def __enter__(self) -> None:
        self.before = getattr(mode, self.attribute)
        setattr(mode, self.attribute, self.value)

    def __exit__(self, *exception: object) -> None:
        setattr(mode, self.attribute, self.before)

    def __call__(self, function: Function) -> Function:
        if not callable(function):
            raise TypeError(f"{type(self).__name__}: expected a function to decorate, got {describe(function)}")

        @functools.wraps(function)
        def switched(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return switched  # type: ignore[return-value]


class no_grad(switch):
    """Inside `with no_grad():`, or in a function decorated with `@no_grad()`, results record no graph.

    >>> from tinynet import Value, no_grad
    >>> x = Value(3.0)
    >>> with no_grad():
    ...     y = x * 2
    >>> y.inputs
    ()
    """

    attribute, value = "grad_enabled", False


class textbook(switch):
    """Inside `with textbook():` tensors run the reference implementations of `functional`, not the fused kernels."""

    attribute, value = "reference", True


class detect_anomaly(switch):
    """Inside `with detect_anomaly():` the first nan or infinity, forward or backward, raises a ValueError that names
    the operation and the layer.

    An infinity in a leaf (as in a mask) is no anomaly, and neither is an infinite result of infinite inputs. A nan
    always is, and so is an infinite gradient. Captured steps check each replay. Results under `no_grad` are not
    checked.

    >>> from tinynet import Value, detect_anomaly
    >>> with detect_anomaly():
    ...     Value(1e200) * Value(1e200)
    Traceback (most recent call last):
    ValueError: detect_anomaly: * gives inf from finite numbers
    """

    attribute, value = "grad_enabled", ANOMALY

    def __enter__(self) -> None:
        super().__enter__()
        mode.grad_enabled = self.before and ANOMALY


def layer_path(scope: Scope | None) -> str:
    """" in layers.0 (Linear)": the layer call, for an error message; "" outside of all layers."""
    return "" if scope is None else f" in {scope}"


def one_line(text: object) -> str:
    """A user's label on one printable line: a space for whatever would break the line or control a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def report_anomaly(name: str, scope: Scope | None, result: str, where: str, inputs: str) -> NoReturn:
    """Raise the ValueError for a `result` "nan" or "inf" of `inputs` that are "nan", "inf" or "finite"."""
    operands = "finite numbers" if inputs == "finite" else f"inputs that hold {inputs}"
    raise ValueError(f"detect_anomaly: {name}{layer_path(scope)} gives {result}{where} from {operands}")


def topological(*roots: Node) -> list[Node]:
    """The roots and all nodes that they depend on, each node after its inputs, in order of creation."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Any] = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node is None:  # the inputs of the node below are in the order, so the node follows
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            if node.inputs:
                stack += (node, None, *reversed(node.inputs))
            else:
                order.append(node)
    return order


def chain_rule(root: Node, seed: Any, add: Callable[[Any, Any], Any] = operator.add,
               create_graph: bool = False) -> Iterator[tuple[Node, Any]]:
    """Yield (node, d root / d node) for each node that the root depends on, from the root back to the leaves.

    A node's gradient is the sum of the contributions of all its uses. It is complete when the node is reached, since
    all its users come later in the topological order. With `create_graph` the rules get the nodes instead of their
    data, so that the gradients are nodes as well.
    """
    gradients: dict[Any, Any] = {root: seed}
    anomaly_mode = mode.grad_enabled is ANOMALY
    node: Any
    for node in reversed(topological(root)):
        g = gradients.pop(node, None)
        if g is None:  # the root's gradient does not flow here
            continue
        yield node, g
        inputs = node.inputs
        if inputs:
            if create_graph:
                products = node.op.vjp(g, node, *inputs)
            else:
                products = node.op.vjp(g, node.data, *[x.data for x in inputs])
            for x, product in zip(inputs, products):
                if product is not None:
                    if anomaly_mode:
                        node._check_vjp(product)
                    gradients[x] = add(gradients[x], product) if x in gradients else product


def grad(output: Any, inputs: Any, create_graph: bool = False) -> tuple[Any, ...]:
    """d output / d x for each x of `inputs`, as a tuple; no `.grad` attribute changes.

    With `create_graph=True` the gradients are nodes themselves, which can be drawn and differentiated again.

    >>> from tinynet import Value, grad
    >>> x = Value(2.0)
    >>> first, = grad(x ** 3, [x], create_graph=True)   # 3x²
    >>> second, = grad(first, [x])                      # 6x
    >>> first.data, second
    (12.0, 12.0)

    Raises ValueError where `output` does not depend on one of the inputs.
    """
    wanted: Sequence[Any] = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    for name, x in [("output", output), *((f"inputs[{i}]", x) for i, x in enumerate(wanted))]:
        if not hasattr(x, "gradients"):
            raise TypeError(f"grad: expected {name} to be a Value or a Tensor, got {describe(x)}")
    nodes = set(wanted)
    found = {node: g for node, g in output.gradients(check_bool("grad", "create_graph", create_graph)) if node in nodes}
    for i, x in enumerate(wanted):
        if x not in found:
            name = f" ({x.label})" if x.label else ""
            raise ValueError(f"grad: the output does not depend on input {i}{name}")
    return tuple(found[x] for x in wanted)
