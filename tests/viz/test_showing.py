"""The drawings in the README are what the code draws."""

from xml.etree import ElementTree

import pytest


def texts(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", ["graph.svg", "folded.svg"])
def test_a_drawing_shows_what_is_drawn_today(name):
    pytest.importorskip("numba")
    from . import showing

    kept = (showing.FOLDER / name).read_text(encoding="utf-8")
    assert texts(kept) == texts(showing.DRAWINGS[name]().svg), "draw them anew: make showing"
