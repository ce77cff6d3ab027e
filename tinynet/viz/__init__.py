"""Everything that is seen. Each name is loaded on first use: an explanation needs neither NumPy nor Graphviz."""

import importlib

HOMES = {"explain": "explanations", "diagnose": "diagnostics", "draw": "drawings", "walkthrough": "walkthroughs",
         "film": "films", "Recorder": "films"}


def __getattr__(name):
    if name in HOMES:
        return getattr(importlib.import_module(f".{HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
