"""Lines of Python of each floor of tinynet/, and the longest file and function: `python -m tests.lines`."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main():
    floors, files, functions = Counter(), {}, {}
    for path in sorted((ROOT / "tinynet").rglob("*.py")):
        name, text = path.relative_to(ROOT / "tinynet"), path.read_text("utf-8")
        files[name] = len(text.splitlines())
        floors[name.parts[0]] += files[name]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions[f"{name}: {node.name}"] = node.end_lineno - node.lineno + 1
    for floor, lines in floors.most_common():
        print(f"{lines:7,} {floor}")
    print(f"{floors.total():7,} lines of Python in {len(files)} files")
    for kind, sizes in (("file", files), ("function", functions)):
        longest = max(sizes, key=sizes.get)
        print(f"{sizes[longest]:7,} in the longest {kind}, {longest}")


if __name__ == "__main__":
    main()
