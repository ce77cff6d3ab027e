"""Writes tinynet/__init__.pyi, where editors and type checkers find the public names: `python -m tests.stub`.

At run time `tinynet/__init__.py` loads a name on first use, from the module that its table HOMES gives.
"""

from pathlib import Path

import tinynet

PATH = Path(tinynet.__file__).with_suffix(".pyi")


def stub():
    """The text of the stub."""
    names = sorted((home, name) for name, home in tinynet.HOME.items())
    return "\n".join([
        '"""Where each public name lives. Written by `python -m tests.stub` from HOMES in __init__.py."""', "",
        *[f"from . import {name} as {name}" for name in sorted({*tinynet.MODULES})],
        *[f"from .{home} import {name} as {name}" for home, name in names],
        "", "__version__: str", "__all__: list[str]", "", "def __dir__() -> list[str]: ...", ""])


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
