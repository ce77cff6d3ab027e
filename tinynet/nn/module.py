"""Module: what every layer is, on whichever engine. A layer writes `forward`, and its attributes are its parameters.

A parameter is a `Parameter` (a Tensor) on the tensor engine, and a NumPy array of labelled Values on the scalar engine.
`parameters()` yields the leaves of the graph: Tensors there, single Values here. So `p.data -= lr * p.grad` and every
optimiser are the same lines for both.
"""

import numpy as np

from ..errors import refuse, refusing, shown
from ..graph import Scope, mode
from ..tensors import FLOATS, Generator, Tensor, as_dtype, tensor
from ..value import Value


@refusing
class Parameter(Tensor):
    """A Tensor that a Module learns."""

    __slots__ = ()

    def __init__(self, data, requires_grad=True, label=""):
        super().__init__(tensor(data), requires_grad, label)


def uniform(shape, bound):
    """A Parameter of numbers drawn evenly from [-bound, bound)."""
    return Parameter(Generator.stream.uniform(-bound, bound, shape).astype(np.float32))


def is_values(x):
    return isinstance(x, np.ndarray) and x.dtype == object


@refusing
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
        outer, plan = mode.scope, mode.plan
        mode.scope = scope = Scope(self, outer)
        if plan is not None:
            plan.record_guard(self, "training", self.training)
        try:
            output = self.forward(*inputs, **options)
        except Exception as error:
            refuse(error, Module.__call__, "", (self, *inputs), options)
        finally:
            mode.scope = outer
        scope.input_shape = shape_of(inputs[0]) if inputs else None
        scope.output_shape = shape_of(output)
        return output

    __call__.refuses = True

    # ------------------------------------------------------------------------------------------- what it is made of

    def named_children(self):
        """(name, module) for the modules directly inside."""
        return [(name, x) for name, x in vars(self).items() if isinstance(x, Module)]

    def children(self):
        return [x for x in vars(self).values() if isinstance(x, Module)]

    def named_modules(self, prefix=""):
        """(path, module) for this module, "" itself, and all inside; each once."""
        seen = set()

        def walk(module, path):
            if module not in seen:
                seen.add(module)
                yield path, module
                for name, child in module.named_children():
                    yield from walk(child, f"{path}.{name}" if path else name)

        yield from walk(self, prefix)

    def modules(self):
        return [module for _, module in self.named_modules()]

    def register_buffer(self, name, array, persistent=True):
        """Keep an array that is part of the state but not learned; on either engine it is found under `self.name`."""
        names = vars(self).setdefault("buffer_names", {})
        if not isinstance(name, str) or not name or "." in name:
            raise TypeError(f"register_buffer: name is a text without a full stop, got {shown(name)}")
        if hasattr(self, name) and name not in names:
            raise ValueError(f"register_buffer: {type(self).__name__} already has something else named {name!r}")
        if array is not None and (not isinstance(array, (np.ndarray, Tensor)) or array.dtype.kind not in "fiub"):
            raise TypeError(f"register_buffer: expected an array of numbers or None, got {shown(array)}")
        if not isinstance(persistent, (bool, int)):
            raise TypeError(f"register_buffer: persistent is True or False, got {shown(persistent)}")
        names[name] = persistent
        setattr(self, name, array)

    def slots(self, buffers=False):
        """Yield (path, module, name, array) for every parameter, or for every buffer; each array once."""
        seen = set()
        for path, module in self.named_modules():
            names = vars(module).get("buffer_names", {})
            for name, x in vars(module).items():
                wanted = names.get(name) and x is not None if buffers else (
                    isinstance(x, (Parameter, Value)) or (is_values(x) and name not in names))
                if wanted and id(x) not in seen:
                    seen.add(id(x))
                    yield (f"{path}.{name}" if path else name), module, name, x

    def named_parameters(self):
        """(name, parameter) for all that is learned: "0.weight" a Tensor, or "0.weight[1,2]" a Value."""
        for path, _, _, x in self.slots():
            if is_values(x):
                yield from ((label(path, place), v) for place, v in np.ndenumerate(x))
            else:
                yield path, x

    def parameters(self):
        """All that is learned, as a list of the graph's leaves: Tensors, or single Values."""
        return [p for _, _, _, x in self.slots() for p in (x.ravel().tolist() if is_values(x) else [x])]

    def zero_grad(self, set_to_none=True):
        """Forget all gradients."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, requires_grad=True):
        """Whether the parameters learn; frozen ones keep their values."""
        if not isinstance(requires_grad, (bool, np.bool_, int)):
            raise TypeError(f"requires_grad_: expected True or False, got {shown(requires_grad)}")
        for _, _, _, x in list(self.slots()):
            if isinstance(x, Tensor):
                x.requires_grad = requires_grad
            else:
                for place, v in np.ndenumerate(x):
                    x[place] = Value(v.data, v.label, requires_grad)
        return self

    # ------------------------------------------------------------------------------------------------- training, eval

    def train(self, mode=True):
        """Training mode: Dropout drops, BatchNorm takes its statistics from the batch."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Evaluation mode."""
        return self.train(False)

    def apply(self, function):
        """function(module) for every module inside, and for this one last."""
        for module in reversed(self.modules()):
            function(module)
        return self

    # ---------------------------------------------------------------------------------------------------- the engine

    def to(self, engine):
        """Convert in place: to("scalar") makes every parameter an array of Values, to("tensor") a Tensor.

        The numbers stay what they are. Like a device in PyTorch, the engine is chosen before the optimiser is made. A
        dtype (np.float64, "float64") converts a model of tensors.
        """
        if isinstance(engine, str) and engine == "scalar":
            self.convert(lambda x, path: scalars(x, path))
        elif isinstance(engine, str) and engine in ("tensor", "cpu"):
            self.convert(lambda x, path: x if isinstance(x, Tensor) else gathered(x))
        else:
            try:
                dtype = as_dtype("to", engine)
            except TypeError:
                raise ValueError(f'to: expected "scalar", "tensor" or a float dtype, got {engine!r}') from None
            if dtype not in FLOATS:
                raise TypeError(f"to: parameters are float32 or float64, got {dtype}")
            self.convert(lambda x, path: cast(x, dtype))
            for _, module, name, x in list(self.slots(buffers=True)):
                if x.dtype in FLOATS:
                    setattr(module, name, x.astype(dtype))
        return self

    def convert(self, change):
        """Replace every parameter and buffer x by change(x, path); what was one array stays one."""
        done = {}
        for path, module in self.named_modules():
            for name, x in list(vars(module).items()):
                if isinstance(x, (Parameter, Value)) or is_values(x):
                    if id(x) not in done:
                        done[id(x)] = (x, change(x, f"{path}.{name}" if path else name))
                    setattr(module, name, done[id(x)][1])

    def double(self):
        return self.to(np.float64)

    def float(self):
        return self.to(np.float32)

    # ----------------------------------------------------------------------------------------------------- the state

    def state_dict(self):
        """{name: NumPy array} of all parameters and buffers, under PyTorch's names and in its shapes; copies."""
        both = [*self.slots(), *self.slots(buffers=True)]
        return {path: plain(x) for path, _, _, x in in_order(self, both)}

    def load_state_dict(self, state, strict=True):
        """Take over the numbers of a state_dict, from here or from PyTorch.

        Raises ValueError, and changes nothing, where a name is missing or unknown or a shape differs.
        """
        self.accept(state, strict)()

    def accept(self, state, strict=True):
        """Check a state_dict, and return the function that takes its numbers over."""
        slots = {path: x for path, _, _, x in [*self.slots(), *self.slots(buffers=True)]}
        missing, unknown = [n for n in slots if n not in state], [n for n in state if n not in slots]
        if strict and (missing or unknown):
            raise ValueError(f"load_state_dict: {type(self).__name__} " + " and ".join(
                f"{what} {', '.join(map(repr, names[:5]))}{' …' if len(names) > 5 else ''}"
                for what, names in (("misses", missing), ("does not know", unknown)) if names))
        arrays = {}
        for path, x in slots.items():
            if path in state:
                try:
                    arrays[path] = np.asarray(plain(state[path]), dtype=float if is_values(x) else plain(x).dtype)
                except (TypeError, ValueError):
                    raise TypeError(f"load_state_dict: {path} is not an array of numbers") from None
                if arrays[path].shape != np.shape(plain(x)):
                    raise ValueError(f"load_state_dict: {path} has shape {arrays[path].shape}, "
                                     f"expected {np.shape(plain(x))}")

        def take_over():
            for path, array in arrays.items():
                write(slots[path], array)

        return take_over

    # -------------------------------------------------------------------------------------------------------- its looks

    def extra_repr(self):
        return ""

    def __repr__(self):
        children = self.named_children()
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


def in_order(module, slots):
    """PyTorch's order: module by module, its parameters before its buffers."""
    places = {path: i for i, (path, _) in enumerate(module.named_modules())}
    return sorted(slots, key=lambda slot: places[slot[0].rpartition(".")[0]])


def shape_of(x):
    """The shape of a tensor, an array or nested lists; that of the first of several outputs."""
    if isinstance(x, Tensor):
        return x._data.shape
    if isinstance(x, tuple):
        return shape_of(x[0]) if x else None
    if isinstance(x, (Value, int, float)):
        return ()
    try:
        return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)
    except ValueError:
        return None


def label(path, place):
    return f"{path}[{','.join(map(str, place))}]" if place else path


def scalars(x, path):
    """A Parameter as an array of Values, each labelled by its place."""
    if not isinstance(x, Tensor):
        return x
    values = np.empty(x.shape, dtype=object)
    for place, number in np.ndenumerate(x._data):
        values[place] = Value(number, label(path, place), x.requires_grad)
        if x._grad is not None:
            values[place].grad = float(x._grad[place])
    return values


def gathered(values):
    """An array of Values as a Parameter: float32 where that holds the numbers exactly, else float64."""
    numbers = np.vectorize(float, otypes=[np.float64])(values)
    exact = np.array_equal(numbers, numbers.astype(np.float32), equal_nan=True)
    return Parameter(numbers.astype(np.float32) if exact else numbers,
                     requires_grad=all(v.requires_grad for v in np.ravel(values)))


def cast(x, dtype):
    if not isinstance(x, Tensor):
        raise ValueError(f'to: Values are Python floats; call to("tensor") before to({dtype.name!r})')
    return Parameter(x._data.astype(dtype), x.requires_grad)


def plain(x):
    """A copy of the numbers in a Parameter, a buffer, or an array of Values."""
    if isinstance(x, Tensor):
        return x._data.copy()
    if hasattr(x, "detach") and not isinstance(x, Value):  # PyTorch's tensors
        x = x.detach().cpu().numpy()
    array = np.array(x)
    return np.vectorize(float, otypes=[float])(array) if array.dtype == object else array


def write(x, array):
    """Write the numbers of an array into a Parameter, a buffer, or the Values of an array."""
    if is_values(x):
        for place, v in np.ndenumerate(x):
            v.data = float(array[place])
    else:
        np.copyto(x._data if isinstance(x, Tensor) else x, array)


@refusing
class Sequential(Module):
    """Modules one after the other: Sequential(a, b)(x) = b(a(x)). A single dict of modules gives them names."""

    def __init__(self, *modules):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], dict) else dict(enumerate(modules))
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: expected modules, argument {name} is a "
                                f"{type(module).__name__}")
            setattr(self, str(name), module)

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x

    def __len__(self):
        return len(self.children())

    def __iter__(self):
        return iter(self.children())

    def __getitem__(self, i):
        chosen = self.children()[i]
        return type(self)(*chosen) if isinstance(i, slice) else chosen


@refusing
class ModuleList(Sequential):
    """A list of modules whose parameters are found; it is iterated, not called."""

    def __init__(self, modules=()):
        super().__init__(*modules)

    def append(self, module):
        setattr(self, str(len(self)), module)
        return self

    def __getitem__(self, i):
        chosen = self.children()[i]
        return ModuleList(chosen) if isinstance(i, slice) else chosen

    def forward(self, *inputs):
        raise TypeError("ModuleList: a list of modules is not called; call its modules")


@refusing
class ModuleDict(Module):
    """Modules by their names, whose parameters are found: ModuleDict({"a": …})["a"], or `.a`."""

    def __init__(self, modules=()):
        self.update(modules)

    def update(self, modules):
        for name, module in dict(modules).items():
            self[name] = module

    def __setitem__(self, name, module):
        if not isinstance(module, Module) or not isinstance(name, str) or hasattr(type(self), name):
            raise TypeError(f"ModuleDict: expected a name that is free and a module, got {name!r} and "
                            f"{type(module).__name__}")
        setattr(self, name, module)

    def __getitem__(self, name):
        modules = self.modules_by_name()
        if name not in modules:
            raise KeyError(f"ModuleDict: there is no {name!r}; it has {', '.join(modules) or 'nothing'}")
        return modules[name]

    def modules_by_name(self):
        return dict(self.named_children())

    def keys(self):
        return self.modules_by_name().keys()

    def values(self):
        return self.modules_by_name().values()

    def items(self):
        return self.modules_by_name().items()

    def __len__(self):
        return len(self.children())

    def __iter__(self):
        return iter(self.modules_by_name())

    def forward(self, *inputs):
        raise TypeError("ModuleDict: a dict of modules is not called; call its modules")
