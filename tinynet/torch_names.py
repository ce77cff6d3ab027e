"""What PyTorch also calls without a dot: tinynet.exp(x) is x.exp(), tinynet.max(x, dim=1) is x.max(dim=1), and so on.

>>> import tinynet as torch
>>> scores = torch.tensor([[0.1, 2.0], [3.0, 0.5]])
>>> values, predicted = torch.max(scores, 1)
>>> predicted.tolist()
[1, 0]

Many of these names are Python's own too (max, sum, float, …): call them with the dot, as in tinynet.max.
"""

from math import inf as inf
from math import nan as nan
from math import pi as pi

import numpy as np

from .errors import check_positive_int, describe
from .functional import as_operand, elementwise
from .graph import no_grad
from .tensors import Tensor, as_array, check_generator, forbid_in_capture, tensor
from .value import Value

float32, double, long, int, int32, bool = np.float32, np.float64, np.int64, np.int32, np.int32, np.bool_
float = float32
inference_mode = no_grad


def method_of(function, input, name):
    """The method of a Tensor, a Value, an array of Values, or of numbers as one of these."""
    found = getattr(input if isinstance(input, (Tensor, Value)) else as_operand(input), name, None)
    if found is None:
        raise TypeError(f"{function}: expected a tensor, got {describe(input)}")
    return found


def method(name, called=None):
    """The method of that name as a function of a Tensor, a Value, an array of Values, or numbers."""

    def function(input, *args, **options):
        return method_of(called or name, input, name)(*args, **options)

    function.__name__ = function.__qualname__ = called or name
    function.__doc__ = f"{called or name}(x, …) is x.{name}(…)."
    return function


exp, log, sqrt, sin, cos, abs = map(elementwise, ("exp", "log", "sqrt", "sin", "cos", "abs"))
add, sub, mul, div, pow, matmul = map(method, "add sub mul div pow matmul".split())
sum, mean, var, std, norm, argmax, argmin, any, all = map(method, "sum mean var std norm argmax argmin any all".split())
reshape, flatten, squeeze, unsqueeze, transpose, permute = map(
    method, "reshape flatten squeeze unsqueeze transpose permute".split())
clamp, round, tril, triu, gather, topk, sort, split, chunk = map(
    method, "clamp round tril triu gather topk sort split chunk".split())
dot, mm, bmm = (method("matmul", name) for name in ("dot", "mm", "bmm"))


def extreme(name, of_two):
    def function(input, dim=None, keepdim=False):
        if isinstance(dim, Tensor):
            return method_of(name, input, of_two)(dim)
        return method_of(name, input, name)(**({} if dim is None else {"dim": dim, "keepdim": keepdim}))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {name}imum of all, or along `dim` a pair (values, indices); of two tensors, one by one."
    return function


max, min = extreme("max", "maximum"), extreme("min", "minimum")


def is_tensor(x):
    return isinstance(x, Tensor)


def numel(x):
    """The number of elements of a tensor."""
    return np.size(x)


def allclose(a, b, rtol=1e-5, atol=1e-8):
    """Whether all elements are equal within atol + rtol |b|."""
    return np.allclose(as_array(a), as_array(b), rtol, atol)


def equal(a, b):
    """Whether shapes and all elements are the same."""
    return np.array_equal(as_array(a), as_array(b))


def multinomial(input, num_samples, replacement=False, generator=None):
    """Indices drawn with the probabilities (or weights) of each row: (…, classes) gives (…, num_samples).

    The exponential race: each class draws a time from the exponential distribution whose rate is its weight. The
    earliest class is a draw with the right probabilities, the first few are one without replacement (Efraimidis and
    Spirakis, 2006).

    >>> multinomial(tensor([0.0, 1.0, 0.0]), 3, replacement=True).tolist()
    [1, 1, 1]
    """
    forbid_in_capture("multinomial")
    p = as_array(input).astype(np.float64)
    if p.ndim not in (1, 2) or not (np.isfinite(p).all() and (p >= 0).all() and (p.sum(-1) > 0).all()):
        raise ValueError(f"multinomial: expected non-negative weights, in each row one above 0, got {describe(input)}")
    num_samples = check_positive_int("multinomial", "num_samples", num_samples)
    enough = (p > 0).sum(-1).min(initial=p.shape[-1])
    if num_samples > enough and not replacement:
        raise ValueError(f"multinomial: cannot draw {num_samples} of {enough} classes without replacement")
    draws = (*p.shape[:-1], num_samples if replacement else 1, p.shape[-1])
    with np.errstate(divide="ignore"):
        times = check_generator("multinomial", generator).stream.exponential(size=draws) / p[..., None, :]
    if replacement:
        return Tensor(times.argmin(-1))
    return Tensor(np.ascontiguousarray(times[..., 0, :].argsort(-1)[..., :num_samples]))


def FloatTensor(data):
    """tensor(data, dtype=float32), under PyTorch's old name."""
    return tensor(data, dtype=np.float32)


def LongTensor(data):
    """tensor(data, dtype=int64), under PyTorch's old name."""
    return tensor(data, dtype=np.int64)


class cuda:
    """There is none, and `device = "cuda" if torch.cuda.is_available() else "cpu"` finds out."""

    @staticmethod
    def is_available():
        return False


accelerator = cuda
