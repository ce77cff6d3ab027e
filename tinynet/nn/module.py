"""Module: the base of all layers, on either engine. A layer defines `forward`; its attributes hold its parameters.

A parameter is a `Parameter` (a Tensor) on the tensor engine, and a NumPy array of labelled Values on the scalar engine.
`parameters()` returns the leaves of the graph: Tensors there, single Values here. So `p.data -= lr * p.grad` and every
optimizer are the same lines for both.
"""

from collections.abc import Mapping

import numpy as np

from .. import functional as F
from ..errors import check_bool, check_positive_int, describe, is_number
from ..graph import Scope, mode
from ..tensors import FLOATS, Generator, Tensor, as_dtype, cat, tensor
from ..value import Value


class Parameter(Tensor):
    """A Tensor that is a parameter of the Module it is an attribute of."""

    __slots__ = ()

    def __init__(self, data, requires_grad=True, label=""):
        super().__init__(tensor(data), requires_grad, label)


class LayerCall(Scope):
    """One call of one layer: which `module`, inside which other call (`parent`), and on what shapes."""

    __slots__ = ("module", "parent", "input_shape", "output_shape")

    def __init__(self, module, parent=None):
        self.module, self.parent = module, parent
        self.input_shape = self.output_shape = None

    def __str__(self):
        """The layer and its path: "layers.0 (Linear(784 -> 128))", or "Linear(784 -> 128)" outside of all others."""
        outer, layer = self, self.module
        while outer.parent is not None:
            outer = outer.parent
        path = next((path for path, module in outer.module.named_modules() if module is layer), "")
        return f"{path} ({layer.short_repr()})" if path else layer.short_repr()


class Module:
    """The base of all layers and models.

    >>> from tinynet import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc1, self.fc2 = nn.Linear(2, 3), nn.Linear(3, 1)
    ...     def forward(self, x):
    ...         return self.fc2(self.fc1(x).relu())
    >>> Net()([[1.0, 2.0]]).shape
    (1, 1)
    """

    training = True

    def __init__(self):
        pass

    def forward(self, *inputs):
        raise TypeError(f"{type(self).__name__}: a Module needs a method forward(self, …)")

    def __call__(self, *inputs, **options):
        """forward(*inputs); an exception that passes through gets a note with the path of the innermost layer."""
        outer, plan = mode.scope, mode.plan
        mode.scope = scope = LayerCall(self, outer)
        if plan is not None:
            plan.record_guard(self, "training", self.training)
        try:
            output = self.forward(*inputs, **options)
        except Exception as error:
            if not any(note.startswith("in ") for note in getattr(error, "__notes__", ())):
                error.add_note(f"in {scope}")
            raise
        finally:
            mode.scope = outer
        scope.input_shape = shape_of(inputs[0]) if inputs else None
        scope.output_shape = shape_of(output)
        return output

    # ------------------------------------------------------------------------------- submodules, parameters, buffers

    def named_children(self):
        """(name, module) for the modules directly inside."""
        return [(name, x) for name, x in vars(self).items() if isinstance(x, Module)]

    def children(self):
        return [x for x in vars(self).values() if isinstance(x, Module)]

    def named_modules(self, prefix=""):
        """Yield (path, module) for this module (path "") and all inside, each once."""
        seen = set()

        def visit(module, path):
            if module not in seen:
                seen.add(module)
                yield path, module
                for name, child in module.named_children():
                    yield from visit(child, f"{path}.{name}" if path else name)

        yield from visit(self, prefix)

    def modules(self):
        return [module for _, module in self.named_modules()]

    def add_module(self, name, module):
        """Register a module under a name: the same as `self.name = module`."""
        if not isinstance(module, Module) or not isinstance(name, str) or hasattr(type(self), name):
            raise TypeError(f"{type(self).__name__}: expected an unused name and a Module, got {describe(name)} and "
                            f"{describe(module)}")
        setattr(self, name, module)

    def register_buffer(self, name, array, persistent=True):
        """Register an array that is part of the state but not trained, as `self.name` on either engine."""
        if not isinstance(name, str) or not name or "." in name:
            raise TypeError(f"register_buffer: expected name to be a string without a dot, got {describe(name)}")
        names = vars(self).setdefault("buffer_names", {})
        if hasattr(self, name) and name not in names:
            raise ValueError(f"register_buffer: {type(self).__name__} already has an attribute {name!r}")
        if array is not None and (not isinstance(array, (np.ndarray, Tensor)) or array.dtype.kind not in "fiub"):
            raise TypeError(f"register_buffer: expected an array of numbers or None, got {describe(array)}")
        names[name] = check_bool("register_buffer", "persistent", persistent)
        setattr(self, name, array)

    def named_arrays(self, parameters=True, buffers=False):
        """Yield (path, module, name, array) for each parameter and persistent buffer, each array once.

        The order is PyTorch's: module by module, its parameters before its buffers.
        """
        seen = set()
        for path, module in self.named_modules():
            names, own = vars(module).get("buffer_names", {}), vars(module).items()
            found = [(name, x) for name, x in own if parameters and is_parameter(x) and name not in names]
            found += [(name, x) for name, x in own if buffers and names.get(name) and x is not None]
            for name, x in found:
                if id(x) not in seen:
                    seen.add(id(x))
                    yield (f"{path}.{name}" if path else name), module, name, x

    def named_parameters(self):
        """Yield (name, parameter): "0.weight" and a Tensor, or "0.weight[1,2]" and a Value."""
        for path, _, _, x in self.named_arrays():
            if is_values(x):
                yield from ((element_label(path, index), v) for index, v in np.ndenumerate(x))
            else:
                yield path, x

    def parameters(self):
        """All parameters, as a list of the graph's leaves: Tensors, or single Values."""
        return [p for _, _, _, x in self.named_arrays() for p in (x.ravel().tolist() if is_values(x) else [x])]

    def zero_grad(self, set_to_none=True):
        """Reset the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, requires_grad=True):
        """Whether the parameters are trainable; frozen ones keep their values."""
        requires_grad = check_bool("requires_grad_", "requires_grad", requires_grad)
        for _, _, _, x in list(self.named_arrays()):
            if isinstance(x, Tensor):
                x.requires_grad = requires_grad
            else:
                for index, v in np.ndenumerate(x):
                    x[index] = Value(v.data, v.label, requires_grad)
        return self

    def apply(self, function):
        """function(module) for every module inside, and for this one last."""
        for module in reversed(self.modules()):
            function(module)
        return self

    # -------------------------------------------------------------------------------------- training mode, the engine

    def train(self, mode=True):
        """Training mode: Dropout drops, BatchNorm takes its statistics from the batch."""
        mode = check_bool("train", "mode", mode)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Evaluation mode."""
        return self.train(False)

    def to(self, engine):
        """Convert in place: to("scalar") makes every parameter an array of Values, to("tensor") a Tensor.

        The numbers stay the same. Like a device in PyTorch, the engine is chosen before the optimizer is made. A dtype
        (np.float64, "float64") converts a model of tensors.
        """
        if isinstance(engine, str) and engine == "scalar":
            self.convert(lambda x, path: as_labelled_values(x, path) if isinstance(x, Tensor) else x)
        elif isinstance(engine, str) and engine in ("tensor", "cpu"):
            self.convert(lambda x, path: x if isinstance(x, Tensor) else as_parameter(x))
        else:
            try:
                dtype = as_dtype("to", engine)
            except TypeError:
                raise ValueError(f'to: expected "scalar", "tensor" or a float dtype, got {describe(engine)}') from None
            if dtype not in FLOATS:
                raise TypeError(f"to: expected float32 or float64 for parameters, got {dtype}")
            self.convert(lambda x, path: cast_parameter(x, dtype))
            for _, module, name, x in list(self.named_arrays(parameters=False, buffers=True)):
                if x.dtype in FLOATS:
                    setattr(module, name, x.astype(dtype))
        return self

    def convert(self, change):
        """Replace every parameter x by change(x, path); parameters that modules share stay shared."""
        done = {}
        for path, module in self.named_modules():
            for name, x in list(vars(module).items()):
                if is_parameter(x):
                    if id(x) not in done:
                        done[id(x)] = (x, change(x, f"{path}.{name}" if path else name))
                    setattr(module, name, done[id(x)][1])

    def double(self):
        return self.to(np.float64)

    def float(self):
        return self.to(np.float32)

    # ----------------------------------------------------------------------------------------------------- the state

    def state_dict(self):
        """{name: NumPy array} of all parameters and persistent buffers, PyTorch's names and shapes; copies."""
        return {path: copy_array(x) for path, _, _, x in self.named_arrays(buffers=True)}

    def load_state_dict(self, state, strict=True):
        """Load a state_dict, from here or from PyTorch.

        Raises ValueError, and changes nothing, where a name is missing or unexpected or a shape differs.
        """
        self.validate_state_dict(state, strict)()

    def validate_state_dict(self, state, strict=True):
        """Validate a state_dict, and return the function that loads it."""
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: expected a dict of arrays, got {describe(state)}")
        own, arrays = {path: x for path, _, _, x in self.named_arrays(buffers=True)}, {}
        missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
        if strict and (missing or unknown):
            raise ValueError(f"load_state_dict: {type(self).__name__} " + " and ".join(
                f"{what} {', '.join(map(repr, names[:5]))}{' …' if len(names) > 5 else ''}"
                for what, names in (("lacks", missing), ("does not have", unknown)) if names))
        for path, x in own.items():
            if path in state:
                expected = copy_array(x)
                try:
                    arrays[path] = np.asarray(copy_array(state[path]), dtype=expected.dtype)
                except (TypeError, ValueError, OverflowError):
                    raise TypeError(f"load_state_dict: expected {path} to be an array of numbers, got "
                                    f"{describe(state[path])}") from None
                if arrays[path].shape != expected.shape:
                    raise ValueError(f"load_state_dict: {path} has shape {arrays[path].shape}, expected "
                                     f"{expected.shape}")

        def load():
            for path, array in arrays.items():
                assign(own[path], array)

        return load

    # ---------------------------------------------------------------------------------------------- representations

    def extra_repr(self):
        """The layer's settings, for `repr`."""
        return ""

    def short_repr(self):
        """The layer in a few words, for error messages: "Linear(784 -> 128)"."""
        settings = self.extra_repr()
        return f"{type(self).__name__}({settings})" if settings else type(self).__name__

    def __repr__(self):
        children = self.named_children()
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


# ------------------------------------------------------------------------------------------- inputs and settings

def shape_of(x):
    """The shape of a tensor, an array or nested lists, of the first of several outputs; None for ragged lists."""
    if isinstance(x, Tensor):
        return x._data.shape
    if isinstance(x, tuple):
        return shape_of(x[0]) if x else None
    shape = getattr(x, "shape", None)
    if isinstance(shape, tuple):
        return tuple(shape)
    try:
        return () if isinstance(x, Value) else np.shape(x)
    except (TypeError, ValueError):
        return None


def as_input(layer, x, features, weight):
    """x on the engine of the layer's weight, with so many features in its last axis."""
    name, shape = layer.short_repr(), shape_of(x)
    if shape is None:
        raise ValueError(f"{name}: the rows of the input have different lengths")
    array = x if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind not in "fiubO" or array.dtype == object and not all(map(is_number, array.flat)):
        raise TypeError(f"{name}: expected numbers as input, got {describe(x)}")
    if not shape or shape[-1] != features:
        got = f"has {shape[-1]} features in its last axis" if shape else f"is {describe(x)}"
        raise ValueError(f"{name}: input {got}, expected {features}")
    return F.as_operand(array, weight)


def check_sizes(layer, **sizes):
    """The sizes, each a positive integer, as a list."""
    checked = [check_positive_int(type(layer).__name__, name, n) for name, n in sizes.items()]
    if max(checked) >= 2**31:
        raise ValueError(f"{type(layer).__name__}: expected sizes below 2**31, got {describe(max(checked))}")
    return checked


def check_probability(layer, name, p):
    """p, a probability below 1."""
    if not is_number(p) or not 0 <= p < 1:
        raise (ValueError if is_number(p) else TypeError)(
            f"{type(layer).__name__}: expected {name} to be a probability below 1, got {describe(p)}")
    return p


# --------------------------------------------------------------------- parameters on the two engines, and as arrays

def is_values(x):
    """Whether x is an array of Values: a parameter on the scalar engine."""
    return isinstance(x, np.ndarray) and x.dtype == object


def is_parameter(x):
    return isinstance(x, (Parameter, Value)) or is_values(x)


def concatenate(arrays, axis):
    return np.concatenate(arrays, axis) if is_values(arrays[0]) else cat(arrays, axis)


def uniform(shape, bound):
    """A Parameter drawn uniformly from [-bound, bound)."""
    return Parameter(Generator.stream.uniform(-bound, bound, shape).astype(np.float32))


def element_label(path, index):
    return f"{path}[{','.join(map(str, index))}]" if index else path


def as_labelled_values(x, path):
    """A Parameter as an array of Values, each labelled by its index."""
    values = np.empty(x.shape, dtype=object)
    for index, number in np.ndenumerate(x._data):
        values[index] = Value(number, element_label(path, index), x.requires_grad)
        if x._grad is not None:
            values[index].grad = float(np.asarray(x._grad)[index])
    return values


def as_parameter(values):
    """An array of Values as a Parameter: float32 where that holds the numbers exactly, else float64."""
    numbers = copy_array(values)
    exact = np.array_equal(numbers, numbers.astype(np.float32), equal_nan=True)
    return Parameter(numbers.astype(np.float32) if exact else numbers,
                     requires_grad=all(v.requires_grad for v in np.ravel(values)))


def cast_parameter(x, dtype):
    if not isinstance(x, Tensor):
        raise ValueError(f'to: Values are Python floats; call to("tensor") before to({dtype.name!r})')
    return Parameter(x._data.astype(dtype), x.requires_grad)


def copy_array(x):
    """A copy of the numbers in a Parameter, a buffer, an array of Values, or a PyTorch tensor."""
    if isinstance(x, Tensor):
        return x._data.copy()
    if hasattr(x, "detach") and not isinstance(x, Value):
        x = x.detach().cpu().numpy()
    array = np.array(x)
    return np.vectorize(float, otypes=[float])(array) if array.dtype == object else array


def assign(x, array):
    """Write an array into a Parameter, a buffer, or the Values of an array, in place."""
    if is_values(x):
        for index, v in np.ndenumerate(x):
            v.data = float(array[index])
    else:
        np.copyto(x._data if isinstance(x, Tensor) else x, array)


# ------------------------------------------------------------------------------------------- containers of modules

class Sequential(Module):
    """Modules one after the other: Sequential(a, b)(x) = b(a(x)). A single dict of modules gives them names."""

    def __init__(self, *modules):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], dict) else dict(enumerate(modules))
        for name, module in named.items():
            self.add_module(str(name), module)

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x

    def append(self, module):
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules):
        for module in modules:
            self.append(module)
        return self

    def __len__(self):
        return len(self.children())

    def __iter__(self):
        return iter(self.children())

    def __getitem__(self, i):
        chosen = self.children()[i]
        return type(self)().extend(chosen) if isinstance(i, slice) else chosen


class ModuleList(Sequential):
    """A list of modules whose parameters are registered; it is iterated, not called."""

    def __init__(self, modules=()):
        self.extend(modules)

    def forward(self, *inputs):
        raise TypeError("ModuleList: a list of modules cannot be called; call its modules")


class ModuleDict(Module, Mapping):
    """Modules by name, whose parameters are registered: ModuleDict({"a": …})["a"], or `.a`."""

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __init__(self, modules=()):
        self.update(modules)

    def update(self, modules):
        for name, module in dict(modules).items():
            self.add_module(name, module)

    def __setitem__(self, name, module):
        self.add_module(name, module)

    def __getitem__(self, name):
        modules = dict(self.named_children())
        if name not in modules:
            raise KeyError(f"ModuleDict: there is no {describe(name)}; it has {', '.join(modules) or 'no modules'}")
        return modules[name]

    def __len__(self):
        return len(self.children())

    def __iter__(self):
        return iter(dict(self.named_children()))

    def forward(self, *inputs):
        raise TypeError("ModuleDict: a dict of modules cannot be called; call its modules")
