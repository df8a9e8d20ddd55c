"""Inline SVG by matplotlib: colours of the page, real text, and a text alternative.

Colours are drawn as stand-ins and become CSS variables, so one drawing serves light, dark and print. Identifiers get
the chart's name in front, as several drawings share a page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from kto_cli.evaluation.report.numbers import Grid

DESIRABLE, UNDESIRABLE, PLAIN, TEXT, LINE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
VARIABLES = {
    DESIRABLE: "var(--desirable)",
    UNDESIRABLE: "var(--undesirable)",
    PLAIN: "var(--plain)",
    TEXT: "var(--text)",
    LINE: "var(--line)",
}
WIDTH = 3.75
"""Inches of 96 CSS pixels: a phone shows a chart unscaled, so its text stays legible."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "font.size": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """A drawing with its caption and its numbers."""

    title: str
    caption: str
    """A caption for people who do not know the term."""
    svg: str
    table: Grid


def draw(name: str, title: str, description: str, paint: Callable[[Any], None], *, height: float = 2.35) -> str:
    """`paint` fills the axes; returns an <svg> element with title and description, without any outside reference."""
    return inline(drawn(name, paint, height), name, title, description)


def drawn(name: str, paint: Callable[[Any], None], height: float) -> str:
    """A whole SVG file of the axes that `paint` fills; in one pass, where `Figure.savefig` makes two."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            figure.legend(loc="outside upper left", ncols=3, borderaxespad=0.2, handlelength=2.4, columnspacing=1.2)
        raw = io.StringIO()
        for patch in (figure.patch, axes.patch):
            patch.set_facecolor("none")
        FigureCanvasSVG(figure).print_svg(raw, metadata={"Date": None})
    return raw.getvalue()


def inline(svg: str, name: str, title: str, description: str) -> str:
    """A whole SVG file as an element of an HTML page."""
    root = ElementTree.fromstring(svg)
    _drop(root, {"metadata", "style"})
    used = set(re.findall(r"#(m?[\w.-]+)[\")]", svg))
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        element.text = element.text if element.tag == "text" else None
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            if key != "id" or value in used:
                element.set(_local(key), _attribute(_local(key), value, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for kind, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(kind, {"id": f"{name}-{kind}"})
        element.text = text
        root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element, names: set[str]) -> None:
    """Removes elements: a style sheet would apply to the whole page, and metadata is about matplotlib."""
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in names:
                parent.remove(child)


def _local(name: str) -> str:
    """{http://www.w3.org/2000/svg}path -> path"""
    return name.rpartition("}")[2]


def _attribute(key: str, value: str, name: str) -> str:
    """An attribute's value, as it is on the page."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"font-family: [^;]*;?", "", value)
        value = re.sub(r"font: (?:\w+ )*([\d.]+px) [^;]*", r"font-size: \1", value)
        for stand_in, variable in VARIABLES.items():
            value = value.replace(stand_in, variable)
    if key in ("d", "x", "y", "transform", "points"):
        value = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", value.replace("\n", ""))
    return value
