"""Checks of arguments: each raises TypeError or ValueError with one sentence, "function: expected X, got Y".

A public function checks what the code below relies on, where it is given; nothing rewrites an error on its way out.
"""

import functools
import operator
import os
import re
import reprlib
from types import FunctionType


def describe(x: object) -> str:
    """An argument in a few printable words, for an error message."""
    if isinstance(getattr(x, "shape", None), tuple) and hasattr(x, "dtype") and x.shape:
        return f"{type(x).__name__} of shape {x.shape}, {x.dtype}"
    if isinstance(x, int) and abs(x) >= 10**40:
        return "an integer of many digits"
    try:
        text = reprlib.repr(x) if isinstance(x, (str, bytes, list, tuple, dict, set)) else repr(x)
    except Exception:  # a repr of somebody else's
        text = f"a {type(x).__name__}"
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= 60 else text[:56] + " …"


def is_int(x):
    """Whether x is one integer (an int, a NumPy integer, a tensor that holds one), and no bool."""
    return hasattr(x, "__index__") and not isinstance(x, (bool, type)) and getattr(x, "shape", ()) == ()


def is_number(x):
    """Whether x is one real number, and no text or array."""
    return isinstance(x, (int, float)) or hasattr(x, "__float__") and getattr(x, "shape", ()) == ()


def is_finite(x):
    """Whether a number is finite as a float: 10**400 is not."""
    try:
        return abs(float(x)) < float("inf")
    except OverflowError:
        return False


def check_int(function, name, x, least=None, most=None):
    """x as an int; TypeError where it is no integer, ValueError where it is below `least` or above `most` or 2⁶³ - 1."""
    kind = {None: "an integer", 0: "a non-negative integer", 1: "a positive integer"}.get(least, f"an integer ≥ {least}")
    if not is_int(x):
        raise TypeError(f"{function}: expected {name} to be {kind}, got {describe(x)}")
    x = operator.index(x)
    bound = 2**63 - 1 if most is None else most
    if least is not None and x < least or x > bound or x < -bound - 1:
        kind += "" if most is None and abs(x) <= bound else f", at most {bound}"
        raise ValueError(f"{function}: expected {name} to be {kind}, got {describe(x)}")
    return x


def check_positive_int(function, name, x):
    """x as an int ≥ 1."""
    return check_int(function, name, x, 1)


def check_number(function, name, x, least=None, most=None):
    """x, one finite real number between `least` and `most`, both included; TypeError or ValueError where it is not."""
    if not is_number(x):
        raise TypeError(f"{function}: expected {name} to be a number, got {describe(x)}")
    if not is_finite(x) or least is not None and x < least or most is not None and x > most:
        kind = "a finite number" if least is None else "a non-negative number" if least == 0 else f"a number ≥ {least}"
        kind += f", at most {most}" if most is not None else ""
        raise ValueError(f"{function}: expected {name} to be {kind}, got {describe(x)}")
    return x


def check_bool(function: str, name: str, x: object) -> bool:
    """x as a bool; TypeError where it is neither a bool nor 0 or 1."""
    if not isinstance(x, (bool, int)) and type(x).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{function}: expected {name} to be True or False, got {describe(x)}")
    return bool(x)


def check_choice(function, name, x, choices):
    """x, one of `choices`; ValueError where it is not."""
    if not any(x is choice or type(x) is type(choice) and x == choice for choice in choices):
        raise ValueError(f"{function}: expected {name} to be {' or '.join(map(repr, choices))}, got {describe(x)}")
    return x


def check_path(function, name, x):
    """x, the name of a file: a str, bytes or os.PathLike."""
    if not isinstance(x, (str, bytes)) and not hasattr(x, "__fspath__"):
        raise TypeError(f"{function}: expected {name} to be a file name, got {describe(x)}")
    return x


# ---- to be removed: the decorator that rewrites exceptions, until every floor raises its errors where they are found


OURS = os.path.dirname(__file__) + os.sep
ABOUT_MODES = ("detect_anomaly: ", "capture: ")  # sentences about what goes on around the call
PASSED_ON = (ImportError, StopIteration, Warning, NotImplementedError)

# What the arguments of public calls are, by their names, where a name means the same everywhere.
whole = lambda x: hasattr(x, "__index__") and not isinstance(x, (bool, type)) and getattr(x, "shape", ()) == ()
number = lambda x: isinstance(x, (int, float)) or hasattr(x, "__float__") and getattr(x, "shape", ()) == ()
EXPECTED = {name: (fits, words) for names, fits, words in (
    ("dim axis start_dim end_dim",
     lambda x: x is None or whole(x) or isinstance(x, (tuple, list)) and all(map(whole, x)), "a whole number"),
    ("n num_classes context batch_size epochs step_size T_max patience steps top_k max_new_tokens", whole,
     "a whole number"),
    ("bias", lambda x: x is None or isinstance(x, (bool, int)) or hasattr(x, "shape"), "True, False, or an array"),
    ("keepdims keepdim requires_grad batch_first shuffle drop_last nesterov centered causal is_causal training "
     "progress need_weights norm_first create_graph", lambda x: isinstance(x, (bool, int)) or x is None,
     "True or False"),
    ("p lr eps momentum dampening weight_decay alpha noise factor test_size gamma turns temperature eta_min min_delta "
     "atol rtol scale", number, "a number"),
    ("seed", lambda x: x is None or whole(x) and x >= 0, "None or a whole number from 0 on"),
    ("path", lambda x: isinstance(x, (str, bytes)) or hasattr(x, "__fspath__"), "the name of a file"),
) for name in names.split()}


def refusing(thing, name=None):
    """The function, or the class with its methods, as one that refuses in its own name.

    `name` is set for methods: what follows the name of the object's class.
    """
    if isinstance(thing, type):
        for attribute, function in list(vars(thing).items()):
            public = attribute in SPECIAL or attribute[0] != "_" and attribute not in INNER
            if public and isinstance(function, FunctionType) and not hasattr(function, "refuses"):
                setattr(thing, attribute, refusing(function, "" if attribute in SPECIAL else f".{attribute}"))
        return thing

    @functools.wraps(thing)
    def function(*args, **options):
        try:
            return thing(*args, **options)
        except Exception as error:
            refuse(error, thing, name, args, options)

    return function


def refuse(error, thing, name, args, options):
    """What `refusing` does with an error; for functions that do it themselves, whose attribute `refuses` says so."""
    if isinstance(error, PASSED_ON):
        raise error
    owned = name is not None and bool(args)
    called = type(args[0]).__name__ + name if owned else name or thing.__name__
    said = refusal(called, thing, args, options, error)
    if said is None:
        raise error
    raise said from error


INNER = ("forward", "accept", "flatten")  # called by a method that refuses for them
SPECIAL = ("__init__", "__call__", "__getitem__", "__setitem__", "__len__")  # what is called in the name of the class


def refusal(name, function, args, options, error):
    """The error to raise instead, or None where this one will do."""
    sentence = str(error)
    kind = next((kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind)), None)
    if of_the_user(error) or sentence.startswith(ABOUT_MODES) or getattr(error, "filename", None) is not None:
        return None
    if isinstance(error, KeyError) and raised_by_us(error):  # a name that a History does not have
        return None
    given = bound(function, args, options)
    named = {plain(part) for part in (*name.split("."), *given) if len(part) > 1}
    if (kind or isinstance(error, OSError)) and named & {plain(word) for word in re.findall(r"\w+", sentence)}:
        return None
    for parameter, x in given.items():
        fits, words = EXPECTED.get(parameter, (None, None))
        if fits and not fits(x):
            return TypeError(f"{name}: {parameter} is {words}, got {shown(x)}")
    if isinstance(error, MemoryError):
        sentence = f"there is not enough memory ({sentence})"
    if isinstance(error, OSError):
        return OSError(f"{name}: {sentence}")
    if kind is None or not raised_by_us(error):
        sentence = f"cannot work with {', '.join(f'{p} = {shown(x)}' for p, x in given.items()) or 'that'} ({sentence})"
    return (kind or (TypeError if isinstance(error, AttributeError) else ValueError))(f"{name}: {sentence}")


def plain(word):
    """MSELoss and mse_loss are the same."""
    return word.lower().replace("_", "")


def bound(function, args, options):
    """{parameter: argument} of a call."""
    import inspect

    try:
        given = dict(inspect.signature(function).bind(*args, **options).arguments)
    except TypeError:  # the call itself was wrong, and the error says so
        return {}
    given.pop("self", None)
    return given


def frames(error):
    trace = error.__traceback__.tb_next  # without the frame of `refusing` itself
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename
        trace = trace.tb_next


@functools.cache
def libraries():
    """Where code lies that no user wrote."""
    import sysconfig

    return (OURS, *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}, "<frozen",
            "<__array_function__")


def of_the_user(error):
    """Whether it came out of a function that the user wrote and gave to us: then it is the user's own error."""
    known = libraries()
    return any(not file.startswith(known) for file in frames(error) if os.path.isabs(file) or file.startswith("<"))


def raised_by_us(error):
    """Whether the sentence is one of this package's."""
    return (list(frames(error)) or [""])[-1].startswith(OURS) and ": " in str(error)


shown = describe
