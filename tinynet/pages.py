"""Pages to open in a browser: `walkthrough(f)` steps through the chain rule, `film(history)` through a training run.

>>> from tinynet import Value
>>> a, b = Value(-2, label="a"), Value(3, label="b")
>>> f = (a * b) * (a + b)
>>> walkthrough(f).save("f.html")  # doctest: +SKIP

A page is one file: no network, no framework. What stands still is written here; what moves is in `walkthrough.js` and
`film.js`, and the looks are in `pages.css`. No derivative is typed again: the page of calculus in `value` is translated
from Python to JavaScript when a page is made.
"""

import ast
import html
import json
import math
from importlib import resources

from . import pictures, scenes, words
from .graph import topological
from .value import CONSTANT, RULES, Rule, Value

# ------------------------------------------------------------------------------------- the page of calculus, translated

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
         ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==", ast.Or: " || ", ast.And: " && "}


def translated(function):
    """A lambda of the page of calculus as a JavaScript function; ValueError where nobody can read its source.

    >>> translated(RULES["tanh"].derivatives[0])
    '(a, y) => (1.0 - (y * y))'
    """
    tree = words.written(function)
    if tree is None:
        raise ValueError("its source is not at hand")
    return f"({', '.join(words.operands(function))}) => {script(tree)}"


def script(tree):
    """A formula as JavaScript. Rows of the page call each other as RULES; erf alone is unknown to JavaScript's Math."""
    match tree:
        case ast.Constant(value=bool() | str() | None):
            raise ValueError(f"a page cannot write {ast.unparse(tree)}")
        case ast.Constant(value):
            return repr(value)
        case ast.Name(id):
            return id
        case ast.Attribute(ast.Name("math"), "nan"):
            return "NaN"
        case ast.Attribute(ast.Name("math"), name):
            return "erf" if name == "erf" else f"Math.{name}"
        case ast.UnaryOp(ast.USub(), operand):
            return f"(-{script(operand)})"
        case ast.BinOp(a, ast.Pow(), b):
            return f"Math.pow({script(a)}, {script(b)})"
        case ast.BinOp(a, op, b):
            return f"({script(a)} {SIGNS[type(op)]} {script(b)})"
        case ast.Compare(a, [op], [b]):
            return f"({script(a)} {SIGNS[type(op)]} {script(b)})"
        case ast.BoolOp(op, values):
            return f"({SIGNS[type(op)].join(map(script, values))})"
        case ast.IfExp(test, yes, no):
            return f"({script(test)} ? {script(yes)} : {script(no)})"
        case ast.Call(ast.Name("abs"), [x]):
            return f"Math.abs({script(x)})"
        case ast.Call(ast.Name(name), [x]) if name in RULES:
            return f"RULES[{json.dumps(name)}].value({script(x)})"
        case ast.Call(function, arguments):
            return f"{script(function)}({', '.join(map(script, arguments))})"
    raise ValueError(f"a page cannot write {ast.unparse(tree)}")
