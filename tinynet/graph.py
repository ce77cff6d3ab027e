"""The walk: how a graph of nodes is put in order, and how the chain rule runs through it.

A node is anything with these six attributes; `Value` (one number) and `Tensor` (an array) are the two kinds there are.

    data     the number, or the array
    grad     d(root)/d(this node), once `backward()` has reached it; None before
    op       the operation that made it, or None for a leaf that somebody wrote down
    inputs   the nodes it was made from, in the order in which they were written
    label    a name for people, "" where nobody gave one
    scope    the layer call that made it (a `Scope`), or None

An operation is anything with a `name` and a method `vjp(g, y, *xs)`: given the gradient g of its output y, it
returns what each input xs receives, g · ∂y/∂x, in the order of the inputs (None for "nothing").

Source: reverse-mode differentiation, Linnainmaa (1970); backpropagation, Rumelhart, Hinton and Williams (1986).
"""

import functools
import operator
import threading

from .errors import refusing


class Mode(threading.local):
    """What the thread is doing now."""

    grad_enabled = True  # results remember how they were made (see `no_grad`), and are watched (see `detect_anomaly`)
    scope = None  # the layer call that is running, a `Scope`
    plan = None  # the plan that a step is being captured into (see train/plans.py)
    reference = False  # tensors compute the textbook definitions instead of their fused kernels (see `textbook`)


mode = Mode()


class Scope:
    """One call of one layer: which `module` was called, inside which other call (`parent`), and on what shapes."""

    __slots__ = ("module", "parent", "input_shape", "output_shape")

    def __init__(self, module, parent=None):
        self.module, self.parent = module, parent
        self.input_shape = self.output_shape = None


class switch:
    """A `with` block, or a decorator for a function, that sets one attribute of `mode` and puts it back."""

    attribute: str = ""
    value: object = None

    def __enter__(self):
        self.before = getattr(mode, self.attribute)
        setattr(mode, self.attribute, self.value)

    def __exit__(self, *exception):
        setattr(mode, self.attribute, self.before)

    def __call__(self, function):
        @functools.wraps(function)
        def switched(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)

        return switched


class no_grad(switch):
    """Inside `with no_grad():`, or in a function decorated with `@no_grad()`, results do not remember their making.

    >>> from tinynet import Value, no_grad
    >>> x = Value(3.0)
    >>> with no_grad():
    ...     y = x * 2
    >>> y.inputs
    ()
    """

    attribute, value = "grad_enabled", False


class textbook(switch):
    """Inside `with textbook():` tensors run the textbook definitions of `functional` instead of the fused kernels."""

    attribute, value = "reference", True


ANOMALY = "watched"  # what `mode.grad_enabled` is inside `detect_anomaly`


class detect_anomaly(switch):
    """Inside `with detect_anomaly():` the first nan or infinity raises ValueError, forward or backward, and the
    sentence names the operation and the layer that made it.

    An infinity in a leaf (as in a mask) is no error, and neither is what it makes infinite; a nan always is, and so is
    an infinite gradient. Captured steps look again at each replay. What runs under `no_grad` is not watched.

    >>> from tinynet import Value, detect_anomaly
    >>> with detect_anomaly():
    ...     Value(1e200) * Value(1e200)
    Traceback (most recent call last):
    ValueError: detect_anomaly: * gives inf from finite numbers
    """

    attribute, value = "grad_enabled", ANOMALY

    def __enter__(self):
        super().__enter__()
        mode.grad_enabled = self.before and ANOMALY


def layer_path(scope):
    """" in layers.0 (Linear)": which layer call, for a sentence; "" outside of all layers."""
    if scope is None:
        return ""
    outer = scope
    while outer.parent is not None:
        outer = outer.parent
    path = next((path for path, module in outer.module.named_modules() if module is scope.module), "")
    return f" in {path} ({type(scope.module).__name__})" if path else f" in {type(scope.module).__name__}"


def one_line(text):
    """A name that somebody gave, for a line of a listing: what would break the line or steer a terminal is a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def report_anomaly(name, scope, kind, where, inputs):
    """Raise the ValueError for a result of `kind` "nan" or "inf", made from `inputs`: "nan", "inf" or "finite"."""
    made = f"gives {kind}{where} from {'finite numbers' if inputs == 'finite' else f'inputs that hold {inputs}'}"
    raise ValueError(f"detect_anomaly: {name}{layer_path(scope)} {made}")


def topological(*roots):
    """All nodes that the roots were made from, and the roots: every node after its inputs, in the order of writing."""
    order, seen, stack = [], set(), list(reversed(roots))
    while stack:
        node = stack.pop()
        if node is None:  # the inputs of the node below have been placed, so it is its turn
            order.append(stack.pop())
        elif node not in seen:
            seen.add(node)
            if node.inputs:
                stack += (node, None, *reversed(node.inputs))
            else:
                order.append(node)
    return order


def chain_rule(root, seed, add=operator.add, create_graph=False):
    """Yield (node, d root / d node) for each node that the root depends on, from the root back to the leaves.

    A node's gradient is the sum of its shares over all its uses, so it is complete when the walk arrives there. With
    `create_graph` the rules are given the nodes themselves instead of their numbers: the gradients are then nodes too.
    """
    gradients, watched = {root: seed}, mode.grad_enabled is ANOMALY
    for node in reversed(topological(root)):
        g = gradients.pop(node, None)
        if g is None:  # nothing of the root's gradient flows here
            continue
        yield node, g
        inputs = node.inputs
        if inputs:
            if create_graph:
                shares = node.op.vjp(g, node, *inputs)
            else:
                shares = node.op.vjp(g, node.data, *[x.data for x in inputs])
            for x, share in zip(inputs, shares):
                if share is not None:
                    if watched:
                        node._check_vjp(share)
                    gradients[x] = add(gradients[x], share) if x in gradients else share


@refusing
def grad(output, inputs, create_graph=False):
    """d output / d x for each x of `inputs`, as a tuple; nobody's `.grad` is touched.

    With `create_graph=True` the derivatives are nodes themselves, which can be drawn and differentiated again.

    >>> from tinynet import Value, grad
    >>> x = Value(2.0)
    >>> first, = grad(x ** 3, [x], create_graph=True)   # 3x²
    >>> second, = grad(first, [x])                      # 6x
    >>> first.data, second
    (12.0, 12.0)

    Raises ValueError where `output` does not depend on one of the inputs.
    """
    wanted = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    found = {node: g for node, g in output.gradients(create_graph) if node in set(wanted)}
    for i, x in enumerate(wanted):
        if x not in found:
            name = f" ({x.label})" if getattr(x, "label", "") else ""
            raise ValueError(f"grad: the output does not depend on input {i}{name}")
    return tuple(found[x] for x in wanted)
