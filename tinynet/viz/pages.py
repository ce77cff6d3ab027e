"""Pages to open in a browser: one file each, with no network and no framework, made of the templates in assets/."""

import html
from importlib import resources
from string import Template

from . import drawings
from .labels import clean


class Page:
    """A finished page: `html` is its text; a notebook shows it in a frame."""

    def __init__(self, title, html):
        self.title, self.html = title, html

    def __repr__(self):
        return f"Page({self.title!r}, {len(self.html.encode()) / 1000:.0f} kB)"

    def _repr_html_(self):
        return (f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="760" style="border:0" '
                f'title="{escaped(self.title)}"></iframe>')

    def save(self, path):
        """Write the page, atomically. ValueError for a name that does not end in .html."""
        drawings.extension_of(path, (".html", ".htm"))
        drawings.write(path, self.html.encode())


def page_text(name, title, **parts):
    """A page of assets/{name}.html, .css and .js, with `parts` in place of the $names in the first."""
    return asset("page.html", title=escaped(title), style=palette() + asset(f"{name}.css"),
                 body=asset(f"{name}.html", **parts), script=asset(f"{name}.js"))


def asset(name, **parts):
    """A file of assets/, with `parts` in place of their $names."""
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return Template(text).substitute(parts) if parts else text


def escaped(text):
    return html.escape(clean(text))


def palette():
    """The colours of the pictures as style sheet variables of every page, for light and for dark."""
    def colours(side):
        named = {"paper": drawings.PAPER, "ink": drawings.INK, "faint": drawings.FAINT}
        lines = [f"--{name}: {both[side]};" for name, both in named.items()]
        for tone, pairs in drawings.PALETTE.items():
            lines.append(f"--{tone}-fill: {pairs[2 * side]}; --{tone}: {pairs[2 * side + 1]};")
        return " ".join(lines)

    tones = "\n".join(f".{tone} {{ --fill: var(--{tone}-fill); --line: var(--{tone}) }}" for tone in drawings.PALETTE)
    return (f":root {{ {colours(0)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {colours(1)} }} }}\n{tones}\n")
