"""The instructions of a program as text."""

from ..graph import one_line, topological
from ..value import CONSTANT

ASSEMBLY = {"+": "add", "-": "sub", "*": "mul", "/": "div", "**": "pow"}


def listing(program):
    """All instructions, one a line, as an assembler would print them."""
    order = topological(*program.outputs)
    index = {x: i for i, x in enumerate(order)}
    inputs, parameters = set(program.inputs), set(program.parameters)
    lines = []
    for i, x in enumerate(order):
        comment = ""
        if x.inputs:
            code = f"{ASSEMBLY.get(x.op.name, x.op.name)} {', '.join(f'%{index[a]}' for a in x.inputs)}"
            comment = formula(x, index)
        elif x in inputs or x in parameters:
            code = f"{'input' if x in inputs else 'parameter'} {one_line(x.label)}".rstrip()
        else:
            code, comment = f"constant {x.data!r}", one_line(x.label)
        lines.append((f"%{i} = {code}", comment))
    lines.append(("return " + ", ".join(f"%{index[y]}" for y in program.outputs), ""))
    return "\n".join(f"{code:31} # {comment}" if comment else code for code, comment in lines)


def formula(x, index):
    """How x is computed: `w · x0`, `tanh(%7)`."""
    names = [one_line(a.label) or (f"{a.data:g}" if a.op is CONSTANT else f"%{index[a]}") for a in x.inputs]
    if x.op.name in ASSEMBLY:
        text = f" {'·' if x.op.name == '*' else x.op.name} ".join(names)
    else:
        text = f"{x.op.name}({', '.join(names)})"
    return f"{one_line(x.label)} = {text}" if x.label else text
