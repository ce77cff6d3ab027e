"""Checks of arguments: each raises TypeError or ValueError with one sentence, "function: expected X, got Y".

A public function checks what the code below relies on, where it is given; nothing rewrites an error on its way out.
"""

import operator
import reprlib


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


def is_int(x: object) -> bool:
    """Whether x is one integer (an int, a NumPy integer, a tensor that holds one), and no bool."""
    return hasattr(x, "__index__") and not isinstance(x, (bool, type)) and getattr(x, "shape", ()) == ()


def is_number(x: object) -> bool:
    """Whether x is one real number, and no text or array."""
    return isinstance(x, (int, float)) or hasattr(x, "__float__") and getattr(x, "shape", ()) == ()


def is_finite(x) -> bool:
    """Whether a number is neither nan nor infinite, nor an int beyond float64."""
    try:
        return abs(float(x)) < float("inf")
    except OverflowError:
        return False


def check_int(function, name, x, least=None, most=None):
    """x as an int; TypeError where it is no integer, ValueError where it is not from `least` to `most`, or 64 bits."""
    names = {None: "an integer", 0: "a non-negative integer", 1: "a positive integer"}
    kind = names.get(least, f"an integer ≥ {least}")
    if not is_int(x):
        raise TypeError(f"{function}: expected {name} to be {kind}, got {describe(x)}")
    x = operator.index(x)
    lowest, highest = -(2**63) if least is None else least, 2**63 - 1 if most is None else most
    if not lowest <= x <= highest:
        kind += f", at most {highest}" if most is not None or x > highest else ""
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
    for choice in choices:
        if x is choice or type(x) is type(choice) and x == choice:
            return x
    raise ValueError(f"{function}: expected {name} to be {' or '.join(map(repr, choices))}, got {describe(x)}")


def check_path(function, name, x):
    """x, the name of a file: a str, bytes or os.PathLike."""
    if not isinstance(x, (str, bytes)) and not hasattr(x, "__fspath__"):
        raise TypeError(f"{function}: expected {name} to be a file name, got {describe(x)}")
    return x
