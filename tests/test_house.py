"""The floors of the package, the lowest first: a file imports from its own floor and from lower ones; no cycles."""

import ast
import re
from pathlib import Path

import pytest

import tinynet

PACKAGE = Path(tinynet.__file__).parent
FLOORS = ("errors graph value datasets kernels tensors functional data optim nn viz program train "
          "torch_names utils gradient_checks __init__").split()
FILES = {"/".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(node):
    """The import statements of a file, those inside functions too, but for those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield from imports(child)


def file_of(parts):
    """The file that an import of tinynet.a.b reads, as a key of FILES, or None where there is no such module."""
    return next((name for name in ("/".join(parts), "/".join([*parts, "__init__"])) if name in FILES), None)


def imported(name):
    """The files of the package that a file imports."""
    for statement in imports(ast.parse(FILES[name].read_text("utf-8"))):
        if isinstance(statement, ast.Import):
            modules = [(alias.name.split("."), None) for alias in statement.names]
        else:
            base = ["tinynet", *name.split("/")[:-statement.level]] if statement.level else []
            modules = [([*base, *(statement.module or "").split(".")], alias.name) for alias in statement.names]
        for parts, attribute in modules:
            if parts[0] == "tinynet":
                parts = [part for part in parts[1:] if part]
                yield attribute and file_of([*parts, attribute]) or file_of(parts)


GRAPH = {name: sorted({*imported(name)} - {name}) for name in FILES}


def floor(name):
    return FLOORS.index(name.split("/")[0])


def cycles(graph):
    """The groups of nodes that reach each other."""
    reached = {}
    for start in graph:
        seen, pending = set(), [*graph[start]]
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                pending += graph[node]
        reached[start] = seen
    return {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}


def test_every_file_belongs_to_a_floor():
    assert {name.split("/")[0] for name in FILES} <= set(FLOORS)
    assert all(names for name, names in GRAPH.items() if name.endswith("nn/__init__"))  # imports are found


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_imported_from_a_higher_floor(name):
    assert [other for other in GRAPH[name] if floor(other) > floor(name)] == []


def test_imports_have_no_cycle():
    assert [sorted(group) for group in cycles(GRAPH)] == []


def test_no_module_is_named_as_a_public_function_is():
    """Importing `tinynet.draw` the module would replace `tinynet.draw` the function."""
    assert not set(FLOORS) & set(tinynet.HOME)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_floors_are_documented_in_their_order(document):
    rows = re.findall(r"^\| (.*?) \|", (PACKAGE.parent / document).read_text("utf-8"), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`?\b(\w+)(?:\.py|/)[`\]]", row) if name in FLOORS]
    floors = [name for name in FLOORS if name in {file.split("/")[0] for file in FILES}]
    assert [name for name in dict.fromkeys(names) if name != "__init__"] == floors[:-1]


@pytest.mark.parametrize("files, words", [
    ("graph", r"\bModules?\b|\bnn\b"), ("tensors", r"\b(optimi[sz]ers?|optim|Adam|SGD)\b"),
    ("value", r"\bimport (numpy|numba)\b"),
])
def test_a_floor_does_not_mention_higher_ones(files, words):
    lines = [f"{name}: {line}" for name, path in FILES.items() if name.split("/")[0] == files
             for line in path.read_text("utf-8").splitlines() if re.search(words, line)]
    assert not lines
