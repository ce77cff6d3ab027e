"""The derivative table as it is written: its formulas as text for explanations, and as JavaScript for pages.

Nothing here restates a derivative: the source of each rule's functions is read, and written in another way. A formula
as text holds marks in place of its operands: ⟦a⟧ and ⟦b⟧, ⟦y⟧ for the result, ⟦g⟧ for the upstream gradient. ⟪a⟫ stands
alone in a call, as in exp(⟪a⟫), where a negative number needs no parentheses.

>>> written_case(RULES["tanh"].derivatives[0], (0.5, 0.46))
'⟦g⟧ * (1 - ⟦y⟧ * ⟦y⟧)'
>>> filled("exp(⟪a⟫) * ⟦b⟧", {"a": "(-2)", "b": "(-3)"})
'exp(-2) * (-3)'
>>> translated(RULES["tanh"].derivatives[0])
'(a, y) => (1.0 - (y * y))'
"""

import ast
import functools
import inspect
import json
import re

from ..value import OPERATORS, RULES

LETTERS = "abcdefgh"  # the marks of the operands, in order


@functools.cache
def source(function):
    """What a lambda of the derivative table returns, as a syntax tree; None where its source cannot be found."""
    try:
        tree = parsed("".join(inspect.findsource(function)[0]))
    except (OSError, TypeError, SyntaxError):
        return None
    spans = {(p[0::2], p[1::2]) for p in function.__code__.co_positions() if p[3]}  # where each instruction comes from
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            body = node.body
            first, last = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
            if spans and all(first <= start and end <= last for start, end in spans):
                return body
    return None


parsed = functools.cache(ast.parse)


def operands(function):
    """The names of a lambda's operands: ("a", "b", "y")."""
    return function.__code__.co_varnames[:function.__code__.co_argcount]


# --------------------------------------------------------------------------------------------------------------- text


def operation(name, texts):
    """An operation as one writes it: a + b, -a, tanh(a)."""
    if (name in OPERATORS or name == "@") and len(texts) == 2:
        return f"{texts[0]} {name} {texts[1]}"
    return f"-{texts[0]}" if name == "neg" else f"{name}({', '.join(texts)})"


def activation_of(op):
    """The activation that a fused layer ends in, a rule of the derivative table; None where there is none."""
    _, args, options = getattr(op, "definition", None) or (None, (), {})
    return next((x for x in (*args, *options.values()) if isinstance(x, str) and x in RULES), None)


def marked(text, variables):
    """A formula of these variables with marks in place of them: "⟦a⟧ + ⟦b⟧", "max(⟪a⟫, ⟪b⟫)"."""
    marks = {name: f"⟦{letter}⟧" for name, letter in zip(variables, LETTERS)} | {"y": "⟦y⟧"}
    text = re.sub(r"\b[^\W\d]\w*\b", lambda word: marks.get(word[0], word[0]), text)
    return re.sub(r"(?<=\w\(|, )⟦(\w)⟧(?=[,)])", r"⟪\1⟫", text)


@functools.cache
def written(rule):
    """The operation of a rule as text."""
    variables = operands(rule.value)
    return marked(operation(rule.name, variables), variables)


@functools.cache
def cases(derivative):
    """The cases of a derivative: [(condition, upstream gradient × formula as text), …]; the last has no condition."""
    tree, found = source(derivative), []
    while tree is not None:
        test, formula = (tree.test, tree.body) if isinstance(tree, ast.IfExp) else (None, tree)
        text = ast.unparse(ast.BinOp(ast.Name("g"), ast.Mult(), formula)).removeprefix("g").replace("math.", "")
        text = re.sub(r"(?<!e)-(\d[\w.]*)", r"(-\1)", re.sub(r"\b(\d+)\.0\b", r"\1", text))  # 1.0 is 1, −1 is (-1)
        found.append((test, "⟦g⟧" + marked(text, operands(derivative)[:-1])))
        tree = tree.orelse if test else None
    return found


def written_case(derivative, numbers):
    """Of the cases of a derivative, the one that holds at these numbers (the operands, and y); None without source."""
    named = dict(zip(operands(derivative), numbers))
    for test, text in cases(derivative):
        if test is None or eval(compile(ast.Expression(test), "the derivative table", "eval"), {}, named):
            return text
    return None


def filled(formula, texts):
    """A formula with texts in place of its marks."""
    def text_of(mark):
        text = texts[mark[1] or mark[2]]
        return text if mark[1] or not text.startswith("(-") else text[1:-1]

    return re.sub(r"⟦(\w)⟧|⟪(\w)⟫", text_of, formula)


# --------------------------------------------------------------------------------------------------------- JavaScript

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
         ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==", ast.Or: " || ", ast.And: " && "}


def translated(function):
    """A lambda of the derivative table as a JavaScript function; ValueError where its source cannot be found."""
    tree = source(function)
    if tree is None:
        raise ValueError("its source is not at hand")
    return f"({', '.join(operands(function))}) => {script(tree)}"


def script(tree):
    """A formula as JavaScript. Rules call each other as RULES; erf alone is unknown to JavaScript's Math."""
    match tree:
        case ast.Constant(value) if not isinstance(value, (bool, str, type(None))):
            return repr(value)
        case ast.Name(id):
            return id
        case ast.Attribute(ast.Name("math"), name):
            return {"nan": "NaN", "erf": "erf"}.get(name, f"Math.{name}")
        case ast.UnaryOp(ast.USub(), operand):
            return f"(-{script(operand)})"
        case ast.BinOp(a, ast.Pow(), b):
            return f"Math.pow({script(a)}, {script(b)})"
        case ast.BinOp(a, op, b) | ast.Compare(a, [op], [b]):
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


def rule_script(rule):
    """A rule as a JavaScript object: its arithmetic, and its formulas as text.

    value, derivatives   functions of the operands (and y)         written    the operation as one writes it
    formulas             for each derivative, g times its cases    which      functions that say which case holds
    """
    formulas, which = [], []
    for derivative in rule.derivatives:
        found = cases(derivative)
        formulas.append([text for _, text in found])
        choice = "".join(f"{script(test)} ? {i} : " for i, (test, _) in enumerate(found[:-1])) + str(len(found) - 1)
        which.append(f"({', '.join(operands(derivative))}) => {choice}")
    parts = {"value": translated(rule.value), "derivatives": f"[{', '.join(map(translated, rule.derivatives))}]",
             "written": quoted(written(rule)), "formulas": quoted(formulas), "which": f"[{', '.join(which)}]"}
    return "{ " + ", ".join(f"{key}: {text}" for key, text in parts.items()) + " }"


def rules_script(rules=()):
    """The derivative table and more rules as a JavaScript object; the table is whole: its rules use each other."""
    rows = {**RULES, **{rule.name: rule for rule in rules}}
    return "{\n" + "".join(f"  {quoted(name)}: {rule_script(rule)},\n" for name, rule in rows.items()) + "}"


def quoted(x):
    """Anything as JSON that can stand inside a <script>, whatever people call their numbers."""
    text = json.dumps(x, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace("\u2028", r"\u2028")
