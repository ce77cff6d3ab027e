"""Which nodes share a box: folding puts thousands of nodes into a few groups, one a layer; a focus stays open."""

import math
import re
from collections import namedtuple

from ..errors import describe
from .labels import calls_around, data_of, is_array, shape_text

BOXES = 40  # what is folded away has at most this many boxes, unless there are more layers than that
ALONE = ("neuron", "one sample", "after it")  # the roles of boxes that hold one thing, of whatever number of nodes


class Group:
    """Nodes that share one box: what a layer computed (in all its calls), one operation repeated, or a set of leaves.

    name     the layer's path in its model, the operation's name, or what the leaves are called
    role     the layer's class, the leaves' role, or "" for operations
    nodes    the numbers in it, constants and parameters apart
    calls    the layer calls that are folded into it
    """

    def __init__(self, index, key, name, role="", module=None):
        self.id, self.index, self.key, self.name, self.role, self.module = f"g{index}", index, key, name, role, module
        self.nodes, self.calls, self.parameters = [], {}, []


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
        for leaves in (False, True):
            for node in order:
                if leaves != bool(node.inputs) and node not in focus.open:
                    (self.place_leaf if leaves else self.place)(node)
            self.unwrap()

    def join(self, node, key, name, role="", module=None):
        """Put a node into the group of that key, which is made when it is first needed."""
        if key not in self.groups:
            self.groups[key] = Group(len(self.groups), key, name, role, module)
        group = self.group[node] = self.groups[key]
        group.nodes.append(node)
        return group

    def count(self):
        """How many boxes the picture has."""
        open_nodes = [node for node in self.order if node not in self.group]
        return len(open_nodes) + sum(bool(node.inputs) for node in open_nodes) + len(set(self.group.values()))

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
            self.layers[scope] = tuple(call.module for call in chain), chain[-1] if folds else None
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
        elif not node.label and not node.requires_grad and not is_array(data_of(node)):
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


def tightest(order, models, depth, focus, limit):
    """The loosest folding that is small enough, and that leaves nothing of a layer's many calls open."""
    most = BOXES + 2 * len(focus.open) + len({key for key, *_ in focus.apart.values()})
    between = sum(node.scope is None and bool(node.inputs) for node in order)
    for loose in ("open", "structure", "name") if between <= most else ("structure", "name"):
        folding = Folding(order, models, depth, loose, focus)
        repeated = any(len(group.calls) > 1 for group in folding.groups.values())
        if folding.count() <= most and not (loose == "open" and repeated):
            return folding
    while folding.count() > limit and folding.depth:
        folding = Folding(order, models, folding.depth - 1, "name", focus)
    return folding


# -------------------------------------------------------------------------------------------------------------- focus


# What a focus opens: the nodes drawn one by one, and those that have boxes of their own in a folded picture.
#   open     a set of nodes
#   apart    {node: (key, name, role) of a box that belongs to one neuron or one layer call}
#   part     {node: the role of boxes that hold operations of one kind}
#   head     the attention head that arrays are cut down to, as (number, how many there are)
Focus = namedtuple("Focus", "open apart part head", defaults=({}, {}, None))


def focused(focus, order, roots, models, depth, limit):
    """What `focus` opens, as a `Focus`; see `drawings.draw`. Raises ValueError where there is no such thing."""
    if hasattr(focus, "inputs"):
        if focus not in set(order):
            raise ValueError("draw: the node in focus is not part of this graph")
        return Focus(leading_to([focus], lambda x: x.scope is focus.scope and x.scope is not None))
    sample, path = focus if isinstance(focus, tuple) and len(focus) == 2 else (
        (focus, None) if isinstance(focus, int) else (None, focus))
    if not isinstance(sample, (int, type(None))) or not isinstance(path, (str, type(None))):
        raise ValueError("draw: expected focus to be a node, a sample's number, a layer's path such as 'layers.0', a "
                         f"neuron such as 'layers.0[3]', or a pair (sample, path), got {describe(focus)}")
    calls = Calls(order, roots, models)
    if path is None:
        return calls.sample(sample, depth, limit)
    name, _, index = path.partition("[")
    found = [call for call in calls.all if models.name(call) == name]
    if not found:
        known = ", ".join(dict.fromkeys(map(models.name, calls.all))) or "none"
        raise ValueError(f"draw: focus names {name!r}; the layers that were called are: {known}")
    if sample is not None and len(found) > 1 and not 0 <= sample < len(found):
        raise ValueError(f"draw: focus asks for sample {sample}; {name} was called {len(found)} times")
    call = found[sample or 0] if len(found) > 1 else found[0]
    outputs = calls.outputs(call)
    if index:
        try:
            index = [int(i) for i in index.rstrip("]").split(",")]
        except ValueError:
            raise ValueError(f"draw: expected focus to be a layer and integers, such as 'layers.0[3]', got {path!r}"
                             ) from None
        if getattr(call.module, "num_heads", None):
            return calls.head(call, index[0], name, limit)
        batch = [sample] if sample is not None and len(found) == 1 else []
        outputs = [pick(outputs, call, [*batch, *index], name)]
    return Focus(leading_to(outputs, lambda x: call in calls.around(x)))


def in_focus(node, focus):
    """Whether a node is what `focus` names: itself, or computed in the layer of that path."""
    path = focus[-1] if isinstance(focus, tuple) and focus else focus
    if not isinstance(path, str):
        return node is focus
    around = calls_around(node.scope)
    layers = dict(around[0].module.named_modules()) if around else {}
    return layers.get(path.partition("[")[0]) in [call.module for call in around]


def leading_to(nodes, belongs):
    """These nodes, their operands, and so on from operand to operand as long as `belongs(operand)`; and leaves."""
    found, stack = set(nodes), list(nodes)
    while stack:
        for x in stack.pop().inputs:
            if x not in found and (not x.inputs or belongs(x)):
                found.add(x)
                stack.append(x)
    return found


def pick(outputs, call, index, name):
    """The output of a call at an index: one number counts through all of them."""
    flat = index[0]
    if len(index) > 1:
        shape = call.output_shape or ()
        if len(shape) != len(index) or any(not 0 <= i < n for i, n in zip(index, shape)):
            raise ValueError(f"draw: focus asks for {name}{index}; its output has shape {shape_text(shape)}")
        flat = sum(i * math.prod(shape[axis + 1:]) for axis, i in enumerate(index))
    if len(outputs) == 1 and is_array(data_of(outputs[0])):
        raise ValueError(f"draw: {name} computes one array, of shape {shape_text(outputs[0].shape)}; single neurons "
                         'can be opened in a model on the scalar engine, model.to("scalar")')
    if not 0 <= flat < len(outputs):
        raise ValueError(f"draw: focus asks for output {flat} of {name}, which has {len(outputs)}")
    return outputs[flat]


class Calls:
    """The layer calls of a graph, in the order in which they happened."""

    def __init__(self, order, roots, models):
        self.order, self.models = order, models
        self.chains = {scope: calls_around(scope) for scope in {node.scope for node in order}}
        self.all = list(dict.fromkeys(call for node in order if node.inputs for call in self.around(node)))
        self.outward = {}  # {call: the nodes computed in it that are used outside of it}
        for x, users in [*((x, self.around(node)) for node in order for x in node.inputs), *((x, ()) for x in roots)]:
            for call in self.around(x):
                if call not in users:
                    self.outward.setdefault(call, {})[x] = None
        self.position = {node: i for i, node in enumerate(order)}

    def around(self, node):
        return self.chains[node.scope]

    def outputs(self, call):
        """The nodes computed in a call that are used outside it, in the order of its output's elements.

        That is the order of writing, but for a loss that asks for its target's score first. So where each output takes
        one row of a weight, its row says which neuron it is.
        """
        found = sorted((x for x in self.outward.get(call, ()) if x.inputs), key=self.position.get)
        keys, count = {}, {}
        for x in found:
            leaves = leading_to([x], lambda operand: call in self.around(operand))
            rows = {re.match(r".*\[(\d+)", p.label)[1] for p in leaves
                    if p in self.models.parameters and "[" in p.label}
            row = int(rows.pop()) if len(rows) == 1 else 0
            count[row] = count.get(row, 0) + 1
            keys[x] = count[row], row
        return sorted(found, key=keys.get)

    def sample(self, number, depth, limit):
        """What belongs to one sample alone: as nodes, or as a box for each neuron, or for each layer."""
        outermost = [call for call in self.all if call.parent is None]  # losses are modules too
        outermost = [call for call in outermost if list(call.module.parameters())] or outermost
        rows = outermost[0].output_shape if len(outermost) == 1 else None
        count = rows[0] if rows else len(outermost)
        if not 0 <= number < count:
            raise ValueError(f"draw: focus asks for sample {number}; the graph has {count}")
        call = outermost[0] if rows else outermost[number]
        inside = {node for node in self.order if call in self.around(node)}
        if rows:
            outputs = self.outputs(call)
            width = len(outputs) // count
            inside = leading_to(outputs[number * width:(number + 1) * width], inside.__contains__)
        own = {node for node in inside if node.inputs}
        loose = {x for node in own for x in node.inputs
                 if not x.inputs and x.label and x not in self.models.parameters}
        for node in self.order:
            operands = [x for x in node.inputs if x.inputs]
            between = operands and not set(self.around(node)) & set(outermost)
            if between and all(x in own or x in loose for x in operands):
                loose.add(node)
        if len(own) + len(loose) <= limit // 3:
            return Focus(own | loose)
        apart = {}
        for call in self.all:
            around = calls_around(call)
            if len(around) == depth + 1 and around[0] in outermost:
                name = self.models.name(call)
                for i, output in enumerate(x for x in self.outputs(call) if x in own):
                    for node in leading_to([output], lambda x, call=call: call in self.around(x)) & own:
                        apart.setdefault(node, (("neuron", call, i), f"{name}[{i}]", "neuron"))
        if len({key for key, *_ in apart.values()}) > limit // 3:
            apart = {node: (("layer", key[1]), self.models.name(key[1]), "one sample")
                     for node, (key, *_) in apart.items()}
        return Focus(loose | (own - set(apart)), apart)

    def head(self, call, number, name, limit):
        """What belongs to one head of an attention layer.

        The rows of the projections to queries, keys and values belong to the heads in turn, head_dim rows to each.
        """
        heads, width = call.module.num_heads, call.module.embed_dim // call.module.num_heads
        if not 0 <= number < heads:
            raise ValueError(f"draw: focus asks for head {number} of {name}, which has {heads}")
        inside = [node for node in self.order if node.inputs and call in self.around(node)]
        if any(is_array(data_of(node)) for node in inside):
            return Focus(leading_to(self.outputs(call), lambda x: call in self.around(x)), head=(number, heads))
        belongs = {}  # {node: the heads that it depends on}
        for node in inside:
            belongs[node] = set()
            for x in node.inputs:
                projects = x in self.models.parameters and "out_proj" not in x.label
                row = re.search(r"\[(\d+)", x.label) if projects else None
                belongs[node] |= {int(row[1]) % call.module.embed_dim // width} if row else belongs.get(x, set())
        own = {node for node, mine in belongs.items() if mine == {number}}
        return Focus(own) if len(own) <= limit // 3 else Focus(set(), part=dict.fromkeys(own, f"head {number}"))
