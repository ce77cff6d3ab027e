"""What texts and pictures call things: names of nodes and layers, numerals, shapes. Pure Python."""

import unicodedata
from collections import Counter

from ..value import CONSTANT, Value

MINUS = "−"  # the typographic minus, as wide as a plus
DIGITS = (4, 5, 6, 7, 8, 10, 12, 14, 17)  # significant digits: the first of these that makes a line come out right


def is_node(x):
    """Whether x is a node of a graph: a Value or a Tensor."""
    return hasattr(x, "inputs") and hasattr(x, "op") and not isinstance(x, type)


def data_of(node):
    """The float of a Value, the array of a Tensor."""
    return node.data if isinstance(node, Value) else node._data


def grad_of(node):
    """Its gradient, or None."""
    return node.grad if isinstance(node, Value) else node._grad


def numeral(x, digits=4):
    """A number with so many significant digits, as Python reads it: -0.5, 1e-9, nan. Integers keep all of theirs.

    >>> numeral(2.0), numeral(-1 / 3), numeral(1e-9), numeral(66018.0), numeral(2 / 3, 9)
    ('2', '-0.3333', '1e-9', '66018', '0.666666667')
    """
    if abs(x) < 1e6 and x == int(x):  # never so for nan
        return str(int(x))
    text, _, exponent = f"{x:.{digits}g}".partition("e")
    return f"{text}e{int(exponent)}" if exponent else text


def atom(text):
    """A number inside a formula: negative ones in parentheses."""
    return f"({text})" if text.startswith(("-", MINUS)) else text


def figure(x):
    """A number as a picture shows it: four significant digits and a typographic minus.

    >>> figure(-0.123456), figure(2.0), figure(1e-9)
    ('−0.1235', '2', '1e−9')
    """
    return numeral(x).replace("-", MINUS)


def signed(x):
    """The same with a plus sign: what a gradient's colour says must be readable without colours."""
    return f"+{figure(x)}" if x > 0 else figure(x)


def is_array(x):
    """Whether x holds more than one number (a Tensor's data or gradient)."""
    return getattr(x, "size", 1) != 1


def single(x):
    """The number in x, which is a number or an array of one."""
    return x.item() if hasattr(x, "item") else x


def extent(numbers, text=figure):
    """The minimum and the maximum of some numbers and arrays: "−1.2 … 3.4"; "nan" where one of them is NaN."""
    ends = [(single(x.min()), single(x.max())) if is_array(x) else (single(x), single(x)) for x in numbers
            if getattr(x, "size", 1)]
    if not ends or any(low != low for low, _ in ends):
        return "nan" if ends else "empty"
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return text(low) if low == high else f"{text(low)} … {text(high)}"


def shape_text(shape):
    return str(tuple(int(n) for n in shape))


def clean(text):
    """The text as Unicode that XML can hold: control characters as their pictures, half surrogate pairs as �."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\r\n", "\n")
    return "".join(chr(0x2400 + ord(c)) if c < " " and c != "\n" else
                   "�" if "\x7f" <= c <= "\x9f" or ord(c) & 0xfffe == 0xfffe else c for c in text)


RIGHT_TO_LEFT = {"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "PDF", "PDI", "FSI"}


def one_line(label):
    """A label on one line; right-to-left text is isolated from what surrounds it."""
    label = clean(label).replace("\n", "\u240a").replace("\u2028", " ").replace("\u2029", " ")
    if any(unicodedata.bidirectional(c) in RIGHT_TO_LEFT for c in label):
        opened = sum(c in "\u2066\u2067\u2068" for c in label) - label.count("\u2069")
        return f"\u2068{label}{chr(0x2069) * max(opened, 0)}\u2069"
    return label


def names(order):
    """{node: its name in a text}: its label, the number of an unnamed constant, else v1, v2, … in order.

    Of two nodes with the same label the second is called label#2.
    """
    labels = Models(order).parameters
    taken = Counter(one_line(node.label) for node in order if node.label)
    found, seen, count = {}, Counter(), 0
    for node in order:
        label = one_line(node.label or labels.get(node, ""))
        if label:
            seen[label] += 1
            found[node] = label if seen[label] == 1 else f"{label}#{seen[label]}"
        elif is_plain(node):
            number = float(data_of(node))
            found[node] = next((text for n in DIGITS if float(text := numeral(number, n)) == number), "nan")
        else:
            count += 1
            while f"v{count}" in taken:
                count += 1
            found[node] = f"v{count}"
    return found


def is_plain(node):
    """Whether a node is a plain number in an expression."""
    if isinstance(node, Value):
        return node.op is CONSTANT
    return not node.inputs and node._data.size == 1 and not node.requires_grad


def calls_around(scope):
    """A layer call and the calls that it was made in, the outermost first."""
    chain = []
    while scope is not None:
        chain.append(scope)
        scope = scope.parent
    return chain[::-1]


class Models:
    """The modules whose calls made a graph.

    parameters    {parameter: its name in the outermost module}
    owners        {parameter: the ids of the modules it belongs to, the innermost first}
    """

    def __init__(self, order):
        self.parameters, self.owners, self.paths = {}, {}, {}
        scopes = dict.fromkeys(node.scope for node in order)
        for module in {id(call.module): call.module for scope in scopes for call in calls_around(scope)[:1]}.values():
            layers = dict(module.named_modules())
            self.paths.update((id(layer), path) for path, layer in layers.items())
            for name, p in module.named_parameters():
                steps = name.split(".")[:-1]
                paths = [".".join(steps[:n]) for n in range(len(steps), -1, -1)]
                self.parameters[p] = name
                self.owners[p] = [id(layers[path]) for path in paths if path in layers]

    def name(self, call):
        """What a layer is called: its path in the outermost module, or its class where it is that module."""
        return self.paths.get(id(call.module)) or type(call.module).__name__
