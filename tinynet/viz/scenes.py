"""What a picture of a graph shows: boxes and arrows, before anybody lays them out.

An open graph shows every number and every operation. Folding puts thousands of nodes into a few boxes, one for each
layer. Both end in a `Scene`, which `pictures` draws.
"""

import copy
import math
import re
import warnings

from ..graph import mode, textbook, topological
from ..value import Rule, Value
from .explanations import names, numeral, shape_text, takes_gradient

MINUS = "−"  # the typographic minus: wider than a hyphen, so that a sign is seen


class Box:
    """A number, an operation, or a folded group of both.

    kind    "number", "op" or "layer"          name    what it is called, "" where nobody named it
    role    "input", "parameter", "constant", "output" or ""
    fields  [(key, text), …], one line each    tone    the colour: "none", "zero", "positive1" … "negative4"
    title   one line of text that says it all, for those who do not see it
    """

    def __init__(self, id, kind, name="", role="", fields=(), tone="none", title=""):
        self.id, self.kind, self.name, self.role, self.fields = id, kind, name, role, list(fields)
        self.tone, self.title, self.badges = tone, title, []


class Arrow:
    """From box `tail` to box `head` (their ids); `title` says in words what `label` says in figures."""

    def __init__(self, tail, head, label="", title="", tone="none"):
        self.tail, self.head, self.label, self.title, self.tone = tail, head, label, title, tone


class Scene:
    """Boxes and arrows, and what is said beside them.

    roots       the nodes that the picture was asked for         where      {node: the box that shows it}
    headline    one line that says what the picture shows        notes      lines beneath it
    rows        boxes (their ids) that stand side by side, in that order: the neurons of a layer
    sentences   the picture's text alternative; what the boxes and arrows say, unless somebody says it better
    """

    def __init__(self, roots, boxes, arrows, home, notes=(), rows=()):
        self.roots, self.boxes, self.arrows, self.notes, self.rows = roots, boxes, arrows, list(notes), rows
        named = {box.id: box for box in boxes}
        self.where = {node: named[id] for node, id in home.items()}
        self.headline = headline_of(boxes, roots)
        self.folded = any(box.kind == "layer" for box in boxes)
        self.sentences = [box.title for box in boxes] + [arrow.title for arrow in arrows if arrow.title]

    def mark(self, mistakes, most=6):
        """Put a numbered badge on the box of each (node, sentence), and the sentence beneath the picture."""
        for number, (node, sentence) in enumerate(mistakes, 1):
            if node in self.where:
                badges = self.where[node].badges
                if len(badges) < most:
                    badges.append(number)
                self.where[node].title += f". Mistake {number}: {sentence}"
            if number <= most:
                self.notes.append(f"⚠ {number}  {sentence}")
        if len(mistakes) > most:
            self.notes.append(f"⚠ … and {len(mistakes) - most:,} more like these.")


# ------------------------------------------------------------------------------------------------------ numbers in text


def single(x):
    """The number in x, which is a number or an array of one."""
    return x.item() if hasattr(x, "item") else x


def figure(x):
    """A number as a picture writes it: as `explain` does, in four significant digits, but with a real minus sign.

    >>> figure(-0.123456), figure(2.0), figure(1e-9)
    ('−0.1235', '2', '1e−9')
    """
    return numeral(single(x)).replace("-", MINUS)


def signed(x):
    """The same with a plus sign: what a gradient's colour says must be readable without colours."""
    return f"+{figure(x)}" if x > 0 else figure(x)


def factor(x):
    """A number inside a product: negative ones in parentheses."""
    return f"({figure(x)})" if x < 0 else figure(x)


def tone_of(grad, largest):
    """The colour of a gradient: its sign, and its size beside the largest one: over 1/2, 1/10, 1/100, or less."""
    if grad is None or not math.isfinite(grad):
        return "none"
    if grad == 0.0 or not largest:
        return "zero"
    size = abs(grad) / largest
    level = 4 if size >= 0.5 else 3 if size >= 0.1 else 2 if size >= 0.01 else 1
    return ("positive" if grad > 0 else "negative") + str(level)


# ---------------------------------------------------------------------------------------------------- what a node shows


def is_array(x):
    """Whether x holds more than one number (a Tensor's data or gradient)."""
    return getattr(x, "size", 1) != 1


def known(x):
    """Whether x is a finite number: what colours and products can be made of."""
    return x is not None and not is_array(x) and math.isfinite(single(x))


def extent(numbers):
    """The least and the greatest of some numbers and arrays: "−1.2 … 3.4"; "nan" where one of them is no number."""
    ends = [(x.min(), x.max()) if is_array(x) else (single(x), single(x)) for x in numbers if getattr(x, "size", 1)]
    if not ends:
        return "empty"
    low, high = min(single(low) for low, _ in ends), max(single(high) for _, high in ends)
    if any(math.isnan(single(low)) for low, _ in ends):
        return "nan"
    return figure(low) if low == high else f"{figure(low)} … {figure(high)}"


def rms(numbers):
    """The root of the mean square of some numbers and arrays, the size of a typical one; None where there is none."""
    numbers = [x for x in numbers if x is not None]
    total = sum(float((x.astype("float64") ** 2).sum()) if is_array(x) else single(x) ** 2 for x in numbers)
    count = sum(getattr(x, "size", 1) for x in numbers)
    return math.sqrt(total / count) if count else None


def role_of(node, roots, parameters):
    """What part a node plays: it is told apart by its frame and by a word."""
    if not node.inputs:
        if node in parameters:
            return "parameter"
        return "input" if takes_gradient(node) or node.label or is_array(node.data) else "constant"
    return "output" if node in roots else ""


def places(node):
    """What stands before each operand's label: ① and ② where their order matters, as in a − b, else nothing."""
    if len(node.inputs) == 2 and node.op.name in ("-", "/", "**", "@", "matmul", "sub", "div", "pow"):
        return ["①", "②"]
    return [""] * len(node.inputs)


SYMBOLS = {"-": MINUS, "*": "×", "/": "÷", "**": "xʸ", "neg": f"{MINUS}x", "abs": "|x|", "sqrt": "√", "exp": "eˣ"}


def number_box(id, node, name, role, largest, shares, numbers=True, called="number"):
    """The box of one node: its name, data and gradient, and the shares that add up to it.

    `called` is how the text alternative speaks of a node without a name.
    """
    if role == "constant":
        text = figure(node.data)
        return Box(id, "number", node.label, role, [("", text)], "constant", f"constant {text}")
    fields = []
    if getattr(node.data, "shape", ()) or not numbers:
        fields.append(("shape", shape_text(node.data.shape)))
    if numbers:
        fields.append(("data", extent([node.data])))
    tone, total = "none", sum(share for _, _, share in shares)
    if not takes_gradient(node) or not numbers:
        pass
    elif node.grad is None:
        fields.append(("grad", "–"))
    elif is_array(node.grad):
        fields.append(("grad rms", figure(rms([node.grad]))))
    else:
        tone = tone_of(single(node.grad), largest)
        grad = signed(single(node.grad))
        if len(shares) > 1:
            terms = [f"{figure(local)}·{factor(incoming)}" for local, incoming, _ in shares]
            if len(terms) > 4:
                terms[3:] = [f"… ({len(shares)} shares)"]
            products = " + ".join(terms)
            if math.isclose(total, single(node.grad), rel_tol=1e-9, abs_tol=1e-300):
                grad = f"{products} = {grad}"
            else:  # gradients of an earlier step are still in it
                fields.append(("shares", f"{products} = {signed(total)}"))
        fields.append(("grad", grad))
    said = [f"{key} {text}" if text != "–" else "no gradient yet" for key, text in fields]
    title = ", ".join([f"{role} {name or called}".strip(), *said])
    return Box(id, "number", name, role, fields, tone, title)


def derivatives_of(node):
    """For each operand: (local derivative, incoming gradient, share); None where the operand takes no gradient.

    The incoming gradient and the share are None before `backward()`.
    """
    try:
        local = node.op.vjp(1.0, node.data, *[x.data for x in node.inputs])
    except ValueError:  # an infinite slope, as of √x at 0
        local = [math.nan] * len(node.inputs)
    g = node.grad
    return [(d, g, None if g is None else d * g) if takes_gradient(x) else None for x, d in zip(node.inputs, local)]


# ------------------------------------------------------------------------------------------------------------- folding


class Group:
    """Nodes that share one box: what a layer computed (in all its calls), one operation repeated, or a set of leaves.

    name     the layer's place in its model, the operation's name, or what the leaves are called
    role     the layer's class, the leaves' role, or "" for operations
    nodes    the numbers in it, constants and parameters apart
    calls    the layer calls that are folded into it
    """

    def __init__(self, index, name, role="", module=None):
        self.id, self.index, self.name, self.role, self.module = f"g{index}", index, name, role, module
        self.nodes, self.calls, self.parameters, self.key = [], {}, [], None


def calls_around(scope):
    """A layer call and the calls that it was made in, the outermost first."""
    chain = []
    while scope is not None:
        chain.append(scope)
        scope = scope.parent
    return chain[::-1]


class Folding:
    """Puts the nodes of a graph into groups: `self.group` is {node: Group}; nodes that stay open are not in it.

    A layer is a module that was called. Layers `depth` levels below the outermost call become one box each, whatever
    they hold and however often they were called; so do layers above that level that call no other layer. Constants go
    where they are used, parameters to their layer. What is computed between the layers is `loose`:

    "open"         stays open
    "structure"    one box for operations of one kind whose operands come from the same boxes, and for chains of one
                   operation: a sum over samples is one box
    "name"         one box for each kind of operation
    """

    def __init__(self, order, models, depth, loose, focus):
        self.order, self.models, self.depth, self.loose, self.focus = order, models, depth, loose, focus
        self.groups, self.group, self.layers, self.boxed, self.beyond = {}, {}, {}, {}, set()
        scopes = dict.fromkeys(node.scope for node in order)
        self.callers = {id(call.module) for scope in scopes for call in calls_around(scope)[:-1]}
        self.users = {node: [] for node in order}
        for node in order:
            for x in node.inputs:
                self.users[x].append(node)
        for node in order:
            if node.inputs and node not in focus.open:
                self.place(node)
        self.unwrap()
        for node in order:
            if not node.inputs and node not in focus.open:
                self.place_leaf(node)
        self.unwrap()

    def join(self, node, key, name, role="", module=None):
        """Put a node into the group of that key, which is made when it is first needed."""
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(len(self.groups), name, role, module)
            group.key = key
        group.nodes.append(node)
        self.group[node] = group
        return group

    def count(self):
        """How many boxes the picture has."""
        numbers = [node for node in self.order if node not in self.group]
        return len(numbers) + sum(bool(node.inputs) for node in numbers) + len(set(self.group.values()))

    def rows(self):
        """The boxes of the neurons of each layer, in order."""
        rows = {}
        for group in self.groups.values():
            if group.key[0] == "neuron":
                rows.setdefault(group.key[1], []).append(group)
        return [[group.id for group in sorted(row, key=lambda group: group.key[2])] for row in rows.values()]

    def unwrap(self):
        """A box with one number in it shows that number."""
        for group in self.groups.values():
            if group.module is None and len(group.nodes) == 1 and not group.calls:
                self.group.pop(group.nodes[0], None)

    def layer_of(self, scope):
        """(modules from the outermost to the layer, its call), or (modules around, None) where no layer folds it."""
        if scope not in self.layers:
            chain = calls_around(scope)
            folds = len(chain) > self.depth or (chain and id(scope.module) not in self.callers)
            chain = chain[:self.depth + 1]
            modules = tuple(call.module for call in chain)
            self.layers[scope] = modules, chain[-1] if folds else None
        return self.layers[scope]

    def place(self, node):
        """Find the group of a computed node."""
        if node in self.focus.apart:
            self.join(node, *self.focus.apart[node])
            return
        modules, call = self.layer_of(node.scope)
        around = tuple(map(id, modules))
        if node in self.focus.part:
            self.join(node, self.structure(node, self.focus.part[node]), node.op.name, self.focus.part[node])
        elif call is not None and any(self.follows(x, modules) for x in node.inputs):
            self.beyond.add(node)
            self.join(node, ("beyond", around), self.models.name(call), "after it")
        elif call is not None:
            group = self.join(node, around, self.models.name(call), type(call.module).__name__, call.module)
            group.calls[call] = None
            self.boxed[id(call.module)] = group
        elif self.loose != "open":
            key = self.structure(node, around) if self.loose == "structure" else ("operation", around, node.op.name)
            self.join(node, key, node.op.name)

    def follows(self, x, modules):
        """Whether x is what the focus opened in a layer, or follows from that: the layer's rest has a box of its own.

        In one box with what came before, arrows would run in a circle.
        """
        focus = self.focus
        opened = x in self.beyond or x in focus.open or x in focus.part or x in focus.apart
        return opened and bool(x.inputs) and self.layer_of(x.scope)[0] == modules

    def structure(self, node, around):
        """The key of operations of one kind on the same boxes; of a chain, the key of what it continues."""
        key = ("operation", around, node.op.name)
        operands = dict.fromkeys(self.group[x] for x in node.inputs if x in self.group)
        last = max((group.index for group in operands), default=0)
        chained = [group for group in operands if group.key[:3] == key and group.index == last]
        return chained[0].key if chained else (*key, *sorted(group.index for group in operands))

    def place_leaf(self, node):
        """Find the group of a leaf: a parameter's layer, the only user of a constant, or leaves of the same name."""
        homes = {self.group.get(user) for user in self.users[node]}
        owner = next((self.boxed[module] for module in self.models.owners.get(node, ()) if module in self.boxed), None)
        if owner is not None:
            owner.parameters.append(node)
            self.group[node] = owner
        elif None in homes and self.loose == "open" or not homes:
            return
        elif not node.label and not takes_gradient(node) and not is_array(node.data):
            if None not in homes and len(homes) == 1:
                self.group[node] = homes.pop()
            elif None not in homes:
                self.join(node, ("constants",), "constants")
        else:
            role = "parameter" if node in self.models.parameters else "input"
            name = self.models.parameters.get(node) or node.label
            stem = "" if self.loose == "name" else re.sub(r"\[[^][]*\]$|[ _]?\d+$", "", name)
            where = () if stem else sorted(home.index for home in homes if home)
            self.join(node, (role, stem, *where), stem or role, role)


class Focus:
    """What a focus opens: the nodes drawn one by one, and those that have boxes of their own in a folded picture.

    open     a set of nodes
    apart    {node: (key, name, role) of a box that belongs to one neuron or one layer call}
    part     {node: the role of boxes that hold operations of one kind}
    head     the attention head that arrays are cut down to, as (number, how many there are)
    """

    def __init__(self, open=(), apart=None, part=None, head=None):
        self.open, self.apart, self.part, self.head = set(open), apart or {}, part or {}, head


def focused(focus, order, roots, models, depth, limit):
    """What `focus` opens, as a `Focus`.

    a node               it, and what the layer that made it computed on the way to it
    "layers.1"           one call of that layer
    "layers.1[3]"        one neuron: output 3 of that layer, and what the layer computed on the way to it
    "layers.1[7, 3]"     the same where the layer was called on a batch: sample 7
    "attention[2]"       one head, where the layer has several (`num_heads`): what belongs to head 2 and to no other
    7                    one sample: all that depends on call 7 of the model (or on row 7, where it was called on a
                         batch) but on no other sample; by neuron, or by layer, where one by one would be too many
    (7, "layers.1[3]")   both: that neuron in that sample

    Samples, rows, outputs and heads count from 0. Raises ValueError where there is no such thing.
    """
    if hasattr(focus, "inputs"):
        if focus not in set(order):
            raise ValueError("draw: the node in focus is not part of this graph")
        return Focus(leading_to([focus], lambda x: x.scope is focus.scope and x.scope is not None))
    sample, path = focus if isinstance(focus, tuple) and len(focus) == 2 else (
        (focus, None) if isinstance(focus, int) else (None, focus))
    if not (sample is None or isinstance(sample, int)) or not (path is None or isinstance(path, str)):
        raise ValueError(f"draw: focus is a node, a sample's number, a layer's name such as 'layers.0', a neuron such "
                         f"as 'layers.0[3]', or a pair (sample, name); got {focus!r}")
    calls = Calls(order, roots, models.parameters)
    if path is None:
        return calls.sample(sample, models, depth, limit)
    name, _, index = path.partition("[")
    found = [call for call in calls.all if models.name(call) == name]
    if not found:
        names = ", ".join(dict.fromkeys(models.name(call) for call in calls.all)) or "none"
        raise ValueError(f"draw: focus names {name!r}; the layers that were called are: {names}")
    if sample is not None and len(found) > 1 and not 0 <= sample < len(found):
        raise ValueError(f"draw: focus asks for sample {sample}; {name} was called {len(found)} times")
    call = found[sample or 0] if len(found) > 1 else found[0]
    outputs = calls.outputs(call)
    if index:
        try:
            place = [int(i) for i in index.rstrip("]").split(",")]
        except ValueError:
            raise ValueError(f"draw: focus is a layer and whole numbers, such as 'layers.0[3]'; got {path!r}") from None
        if getattr(call.module, "num_heads", None):
            return calls.head(call, place[0], name, limit)
        if sample is not None and len(found) == 1:
            place.insert(0, sample)
        outputs = [calls.pick(outputs, call, place, name)]
    return Focus(leading_to(outputs, lambda x: call in calls.around(x)))


def leading_to(nodes, belongs):
    """These nodes, their operands, and so on from operand to operand as long as `belongs(operand)`."""
    found, stack = dict.fromkeys(nodes), list(nodes)
    while stack:
        for x in stack.pop().inputs:
            if x not in found:
                found[x] = None
                if belongs(x):
                    stack.append(x)
                elif x.inputs:
                    del found[x]
    return set(found)


class Calls:
    """The layer calls of a graph, in the order in which they happened."""

    def __init__(self, order, roots, parameters):
        self.order, self.parameters = order, parameters
        self.chains = {scope: calls_around(scope) for scope in {node.scope for node in order}}
        self.all = list(dict.fromkeys(call for node in order if node.inputs for call in self.around(node)))
        self.outward = {}
        for node in order:
            for x in node.inputs:
                for call in self.around(x):
                    if call not in self.around(node):
                        self.outward.setdefault(call, {})[x] = None
        for node in roots:
            for call in self.around(node):
                self.outward.setdefault(call, {})[node] = None
        self.position = {node: i for i, node in enumerate(order)}

    def around(self, node):
        return self.chains[node.scope]

    def outputs(self, call):
        """The nodes computed in a call that are used outside it, in the order of its output's elements.

        That is the order of writing, but for a loss that asks for its target's score first. So where each output takes
        one row of a weight, its row says which neuron it is.
        """
        found = sorted((x for x in self.outward.get(call, ()) if x.inputs), key=self.position.get)
        rows, count = [], {}
        for x in found:
            leaves = leading_to([x], lambda operand: call in self.around(operand))
            places = {re.match(r".*\[(\d+)", p.label)[1] for p in leaves if p in self.parameters and "[" in p.label}
            row = int(places.pop()) if len(places) == 1 else 0
            count[row] = count.get(row, 0) + 1
            rows.append((count[row], row))
        return [x for _, x in sorted(zip(rows, found), key=lambda pair: pair[0])]

    def pick(self, outputs, call, place, name):
        """The output of a call at a place: one number counts through all of them, more are an index."""
        flat = place[0]
        if len(place) > 1:
            shape = call.output_shape or ()
            if len(shape) != len(place) or any(not 0 <= i < n for i, n in zip(place, shape)):
                raise ValueError(f"draw: focus asks for {name}{place}; its output has shape {shape_text(shape)}")
            flat = 0
            for i, n in zip(place, shape):
                flat = flat * n + i
        if len(outputs) == 1 and is_array(outputs[0].data):
            raise ValueError(f"draw: {name} computes one array, of shape {shape_text(outputs[0].data.shape)}; single "
                             'neurons are there to open where the model was moved to("scalar")')
        if not 0 <= flat < len(outputs):
            raise ValueError(f"draw: focus asks for output {flat} of {name}, which has {len(outputs)}")
        return outputs[flat]

    def sample(self, number, models, depth, limit):
        """What belongs to one sample alone: as nodes, or as a box for each neuron, or for each layer."""
        outermost = [call for call in self.all if call.parent is None]
        outermost = [call for call in outermost if models.learns(call.module)] or outermost  # losses are modules too
        rows = outermost[0].output_shape if len(outermost) == 1 else None
        count = rows[0] if rows else len(outermost)
        if not 0 <= number < count:
            raise ValueError(f"draw: focus asks for sample {number}; the graph has {count}")
        if rows:
            outputs = self.outputs(outermost[0])
            width = len(outputs) // count
            own = leading_to(outputs[number * width:(number + 1) * width], lambda x: outermost[0] in self.around(x))
        else:
            own = {node for node in self.order if outermost[number] in self.around(node)}
        own = {node for node in own if node.inputs}
        loose = set()
        for node in self.order:
            operands = [x for x in node.inputs if x.inputs]
            within = set(self.around(node)) & set(outermost)
            if not within and operands and all(x in own or x in loose for x in operands):
                loose.add(node)
        data = {x for node in own for x in node.inputs if not x.inputs and x.label and x not in models.parameters}
        loose |= data
        if len(own) + len(loose) <= limit // 3:
            return Focus(own | loose)
        apart = {}
        for call in self.all:
            around = calls_around(call)
            if len(around) == depth + 1 and around[0] in outermost:
                mine = [x for x in self.outputs(call) if x in own]
                for i, output in enumerate(mine):
                    name = models.name(call)
                    for node in leading_to([output], lambda x, call=call: call in self.around(x)) & own:
                        apart.setdefault(node, (("neuron", call, i), f"{name}[{i}]", "neuron"))
        if len({key for key, _, _ in apart.values()}) > limit // 3:
            apart = {node: (("layer", key[1]), models.name(key[1]), "one sample") for node, (key, *_) in apart.items()}
        return Focus(loose | {node for node in own if node not in apart}, apart)

    def head(self, call, number, name, limit):
        """What belongs to one head of an attention layer.

        The rows of the projections to queries, keys and values belong to the heads in turn, head_dim rows to each.
        """
        module = call.module
        heads, width = module.num_heads, module.embed_dim // module.num_heads
        if not 0 <= number < heads:
            raise ValueError(f"draw: focus asks for head {number} of {name}, which has {heads}")
        inside = [node for node in self.order if node.inputs and call in self.around(node)]
        if any(is_array(node.data) for node in inside):
            return Focus(leading_to(self.outputs(call), lambda x: call in self.around(x)), head=(number, heads))
        belongs = {}
        for node in inside:
            mine = set()
            for x in node.inputs:
                row = re.search(r"\[(\d+)", x.label) if x in self.parameters and "out_proj" not in x.label else None
                mine |= {int(row[1]) % module.embed_dim // width} if row else belongs.get(x, set())
            belongs[node] = mine
        own = {node for node, mine in belongs.items() if mine == {number}}
        if len(own) <= limit // 3:
            return Focus(own)
        return Focus(part=dict.fromkeys(own, f"head {number}"))


class Models:
    """The modules whose calls made a graph.

    parameters    {parameter: its name in the outermost module}
    owners        {parameter: the ids of the modules it belongs to, the innermost first}
    """

    def __init__(self, order):
        self.parameters, self.owners, self.path = {}, {}, {}
        modules = {}
        for scope in dict.fromkeys(node.scope for node in order):
            for call in calls_around(scope)[:1]:
                modules[id(call.module)] = call.module
        for module in modules.values():
            layers = dict(module.named_modules())
            self.path.update((id(layer), path) for path, layer in layers.items())
            for name, p in module.named_parameters():
                places = name.split(".")[:-1]
                paths = [".".join(places[:n]) for n in range(len(places), -1, -1)]
                self.parameters[p] = name
                self.owners[p] = [id(layers[path]) for path in paths if path in layers]

    def learns(self, module):
        """Whether a module has parameters."""
        return any(id(module) in owners for owners in self.owners.values())

    def name(self, call):
        """What a layer is called: its place in the outermost module, or its class where it is that module."""
        return self.path.get(id(call.module)) or type(call.module).__name__


# ----------------------------------------------------------------------------------------------------- boxes and arrows


ALONE = ("neuron", "one sample", "after it")  # the roles of boxes that hold one thing, of whatever number of nodes
VERBS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power", "neg": "negate"}


def group_box(group, inside, leaving, roots, largest, numbers=True):
    """The box of a group: shapes, how often, the range of what it puts out and the size of the gradient there."""
    name, tone = VERBS.get(group.name, group.name), "layer"
    times = len(group.calls) if group.module is not None else 1 if group.role in ALONE else len(group.nodes)
    role = "" if group.role == name else group.role
    role = f"{role} ×{times:,}".strip() if times > 1 else role
    fields, said = [], [f"{name}, {role}".strip(" ,")]
    shapes = {(call.input_shape, call.output_shape) for call in group.calls}
    if len(shapes) == 1:
        came, went = shapes.pop()
        if came is not None and went is not None:
            fields.append(("shape", f"{shape_text(came)} → {shape_text(went)}"))
    grads = [node.grad for node in leaving]
    if numbers:
        fields.append(("data", extent([node.data for node in leaving])))
        if len(grads) == 1 and known(grads[0]):
            fields.append(("grad", signed(single(grads[0]))))
            tone = tone_of(single(grads[0]), largest) if group.role in ALONE else tone
        elif any(map(takes_gradient, leaving)):
            fields.append(("grad rms", size_text(rms(grads))))
    outputs = [node.label for node in leaving if node in roots and node.label]
    if outputs:
        fields.append(("output", ", ".join(outputs[:3]) + ("" if len(outputs) < 4 else ", …")))
    if group.parameters:
        count = sum(getattr(p.data, "size", 1) for p in group.parameters)
        fields.append(("parameters", f"{count:,}"))
        if numbers:
            fields.append(("their grad rms", size_text(rms([p.grad for p in group.parameters]))))
    said.append(f"{len(inside):,} numbers")
    said += [f"{key} {text}" if text != "–" else "no gradient yet" for key, text in fields]
    return Box(group.id, "layer", name, role, fields, tone, ", ".join(said))


def size_text(x):
    return "–" if x is None else figure(x)


def boxes_and_arrows(order, roots, parameters, group, derivatives=False, numbers=True):
    """The picture of a graph. A node that `group` puts into a `Group` shares that group's box; the others stay open.

    An open node is a box, the operation that made it is another one, and each operand has its own arrow, in the order
    of writing: a + a has two. Arrows between the same two groups are drawn once; those of a parameter in focus, or of a
    neuron's parameters, to the rest of the picture are left out. The third result is {node: the id of its box}.
    """
    home = {node: group[node].id if node in group else f"n{i}" for i, node in enumerate(order)}
    largest = max((abs(single(node.grad)) for node in order if node not in group and known(node.grad)), default=0.0)
    shares = {node: [] for node in order}
    called = {} if group else names(order)
    arrows, bundles = [], {}
    for node in order:
        if not node.inputs:
            continue
        slopes = derivatives_of(node) if derivatives and isinstance(node.op, Rule) and node not in group else None
        if node in group:
            for x in node.inputs:
                if home[x] != home[node] and not (x in parameters and (x not in group or group[node].role in ALONE)):
                    bundles.setdefault((home[x], home[node]), {})[x] = None
            continue
        op, name = "op-" + home[node], node.op.name
        for i, (x, place) in enumerate(zip(node.inputs, places(node))):
            arrow = Arrow(home[x], op, place, f"operand {i + 1} of {name}: {called.get(x) or x.label or short(x)}")
            if slopes and slopes[i]:
                local, incoming, share = slopes[i]
                if share is None:
                    text = f"slope {figure(local)}"
                else:
                    text = f"{figure(local)} × {figure(incoming)} = {figure(share)}"
                    shares[x].append(slopes[i])
                    arrow.tone = tone_of(share, largest)
                arrow.label = f"{place} {text}".strip()
                arrow.title += f"; {text}"
            elif getattr(x.data, "shape", ()):
                arrow.label = f"{place} {shape_text(x.data.shape)}".strip()
            arrows.append(arrow)
        arrows.append(Arrow(op, home[node], title=f"{name} gives {called.get(node) or node.label or short(node)}"))
    for (tail, head), nodes in bundles.items():
        first, count = next(iter(nodes)), len(nodes)
        label = shape_text(first.data.shape) if is_array(first.data) else "values" if count > 1 else ""
        label = f"{count:,} {label}" if count > 1 else label
        arrows.append(Arrow(tail, head, label, label or f"one value, {short(first)}"))
    inside, leaving = {}, {}
    for node in order:
        inside.setdefault(home[node], []).append(node)
        for x in (node, *node.inputs) if node in roots else node.inputs:
            if x in group and (home[x] != home[node] or x in roots):
                leaving.setdefault(home[x], {})[x] = None
    boxes, drawn = [], set()
    for node in order:
        if node in group:
            if home[node] not in drawn:
                drawn.add(home[node])
                own = set(group[node].parameters)
                out = [x for x in leaving.get(home[node], ()) if x not in own] or group[node].nodes
                boxes.append(group_box(group[node], inside[home[node]], out, roots, largest, numbers))
            continue
        if node.inputs:
            name = node.op.name
            if getattr(node.op, "activation", None):  # a fused layer names the function that it ends in
                name += f" · {node.op.activation}"
            boxes.append(Box("op-" + home[node], "op", SYMBOLS.get(name, name), title=f"operation {name}"))
        name, role = node.label or parameters.get(node, ""), role_of(node, roots, parameters)
        boxes.append(number_box(home[node], node, name, role, largest, shares[node], numbers,
                                called.get(node, "number")))
    return boxes, arrows, home


def short(node):
    return shape_text(node.data.shape) if is_array(node.data) else figure(node.data)


# ------------------------------------------------------------------------------------------------- arrays, and models


def twins_of(roots, opens):
    """The nodes of a Tensor graph as a picture shows them: ({node: its twin}, the nodes of opened operations).

    `backward()` leaves gradients on leaves alone; where these are the gradients of this graph, the twins between them
    have theirs. A fused operation for which `opens(node)` is true is replaced by its textbook definition, node by node.
    The graph itself is left as it is.
    """
    order = topological(*roots)
    known, twins, opened = set(order), {}, set()
    for node in order:
        if not node.inputs:
            continue
        if getattr(node.op, "definition", None) and node.op.name != "dropout" and opens(node):  # dropout draws anew
            twin = defined(node)
            inside = leading_to([twin], lambda x: x not in known) - known
            opened |= inside
        else:
            twin = copy.copy(node)
            inside = [twin]
        for x in inside:
            x.inputs = tuple(twins.get(operand, operand) for operand in x.inputs)
        twin.label = node.label
        twins[node] = twin
    if len(roots) == 1 and roots[0].requires_grad and not is_array(roots[0].data):
        found = dict(twins.get(roots[0], roots[0]).gradients())
        told = [(node.grad, g) for node, g in found.items() if not node.inputs and node.grad is not None]
        if told and all(close(kept, g) for kept, g in told):  # else they belong to another moment than the graph
            for node, g in found.items():
                if node.inputs:
                    node.grad = g
    return twins, opened


def defined(node):
    """The result of a fused operation, computed anew by its textbook definition: a graph that shows how."""
    before = mode.scope, mode.grad_enabled
    mode.scope, mode.grad_enabled = node.scope, True
    try:
        with textbook():
            function, args, options = node.op.definition
            return function(*args, **options)
    finally:
        mode.scope, mode.grad_enabled = before


def close(a, b):
    """Whether two gradients are the same but for rounding."""
    return a.shape == b.shape and float(abs(a - b).max(initial=0.0)) <= 1e-4 * float(abs(b).max(initial=0.0)) + 1e-12


def cut_to_head(nodes, number, heads):
    """Leave of arrays (batch, heads, …) the part of one head; the nodes are twins, so that no graph is changed."""
    for x in nodes:
        if x.inputs and x.data.ndim == 4 and x.data.shape[1] == heads:
            grad, x.label = x.grad, x.label or f"head {number}"
            x.grad = None
            x._data = x._data[:, number:number + 1]  # another shape: the twin is there to be drawn, not to be used
            x.grad = None if grad is None else grad[:, number:number + 1]


def roots_of(what, input_shape=None):
    """The nodes that `draw` was given, as a list. A model is run on zeros of `input_shape`."""
    if hasattr(what, "named_modules"):
        return untrained(what, input_shape)
    if input_shape is not None:
        raise TypeError(f"draw: input_shape is for a model, not for a {type(what).__name__}")
    if isinstance(what, (list, tuple)) or hasattr(what, "tolist") and not hasattr(what, "inputs"):
        items = list(what.flat) if hasattr(what, "flat") else list(what)
        if not items:
            raise ValueError("draw: there is nothing in the list")
        return [root for item in items for root in roots_of(item)]
    if hasattr(what, "inputs") and hasattr(what, "op"):
        return [what]
    raise TypeError(f"draw: expected a Value, a Tensor, a list or an array of them, or a Module; "
                    f"got {type(what).__name__} {str(what)[:40]!r}")


def untrained(model, input_shape):
    """What a model makes of zeros: the graph of a model through which no data has passed."""
    if input_shape is None:
        raise ValueError(f"draw: a model needs the shape of its input, as in draw(model, (1, 2)); it is a "
                         f"{type(model).__name__}")
    if not isinstance(input_shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(f"draw: input_shape is a tuple of whole numbers, got {input_shape!r}")
    import numpy as np

    from ..tensors import Tensor

    training = [(module, module.training) for _, module in model.named_modules()]
    first = next(iter(model.parameters()), None)
    dtype = first.dtype if isinstance(first, Tensor) else np.float32
    before = mode.grad_enabled
    mode.grad_enabled = True
    model.eval()
    try:
        try:
            output = model(Tensor(np.zeros(input_shape, dtype), label="input"))
        except TypeError:  # a model of words or letters wants whole numbers
            output = model(Tensor(np.zeros(input_shape, np.int64), label="input"))
    finally:
        mode.grad_enabled = before
        for module, was in training:
            module.training = was
    return roots_of(output[0] if isinstance(output, tuple) else output)


# ------------------------------------------------------------------------------------------------------------ the scene


def scene(what, input_shape=None, derivatives=False, depth=None, focus=None, limit=300, fused=True):
    """The scene of the graph behind `what`; see `drawings.draw` for what the arguments mean."""
    roots, twins, stay, notes = roots_of(what, input_shape), {}, set(), []
    given = roots
    if not isinstance(roots[0], Value):
        twins, stay = twins_of(roots, lambda node: not fused or in_focus(node, focus))
        roots = [twins.get(root, root) for root in roots]
        focus = twins.get(focus, focus) if hasattr(focus, "inputs") else focus
    if depth is None and input_shape is not None:
        depth = 1
    order = topological(*roots)
    models = Models(order)

    def drawn(group, rows=()):
        found = boxes_and_arrows(order, set(roots), models.parameters, group, derivatives, input_shape is None)
        boxes, arrows, home = found
        home.update((node, home[twin]) for node, twin in twins.items() if twin in home)
        return Scene(given, boxes, arrows, home, notes, rows)

    if depth is None and focus is None and len(order) <= limit:
        return drawn({})
    if depth is None and focus is None:
        notes.append(f"Folded by layer: the graph has {len(order):,} nodes, and more than {limit:,} are not drawn one "
                     "by one. depth= looks into layers, focus= opens a part, limit= draws more.")
        warnings.warn(notes[0], stacklevel=4)
    depth = 1 if depth is None else depth
    focus_on = Focus() if focus is None else focused(focus, order, roots, models, depth, limit)
    focus_on.open |= stay
    if len(focus_on.open) > limit:
        raise ValueError(f"draw: focus={focus!r} opens {len(focus_on.open):,} nodes, more than limit={limit:,}")
    if focus_on.head:
        cut_to_head(focus_on.open, *focus_on.head)
    folding = tightened(order, models, depth, focus_on, limit)
    if folding.depth < depth:
        notes.append(f"Folded to depth {folding.depth}: deeper there would be more than {limit:,} boxes.")
    return drawn(folding.group, folding.rows())


BOXES = 40  # what is folded away has at most this many boxes, unless there are more layers than that


def tightened(order, models, depth, focus, limit):
    """The loosest folding that is small enough, and that leaves nothing of a layer's many calls lying around."""
    most = BOXES + 2 * len(focus.open) + len({look[0] for look in focus.apart.values()})
    between = sum(node.scope is None and bool(node.inputs) for node in order)
    for loose in ("open", "structure", "name") if between <= most else ("structure", "name"):
        folding = Folding(order, models, depth, loose, focus)
        repeated = any(len(group.calls) > 1 for group in folding.groups.values())
        if folding.count() <= most and not (loose == "open" and repeated):
            return folding
    while folding.count() > limit and folding.depth:
        folding = Folding(order, models, folding.depth - 1, "name", focus)
    return folding


def in_focus(node, focus):
    """Whether a node is what `focus` names: itself, or computed in the layer of that name."""
    path = focus[-1] if isinstance(focus, tuple) else focus
    if not isinstance(path, str):
        return node is focus
    around = calls_around(node.scope)
    layers = dict(around[0].module.named_modules()) if around else {}
    return layers.get(path.partition("[")[0]) in [call.module for call in around]


def headline_of(boxes, roots):
    """One line that says what the picture shows."""
    kinds = [box.kind for box in boxes]
    counts = {"folded group": kinds.count("layer"), "number": kinds.count("number"), "operation": kinds.count("op")}
    parts = [f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n]
    names = ", ".join(root.label for root in roots if root.label)
    return "Graph of " + " and ".join(parts) + (f", which compute {names}" if names else "")


