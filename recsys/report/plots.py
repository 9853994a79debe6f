"""Curves as inline SVG, drawn by matplotlib, coloured by the page.

Colours are named by CSS variables, so that a plot follows the page into the dark and onto paper. All text but that of
the axes is in the page around it: it wraps on a phone and can be read aloud.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.report.markup import Html, join, tag
from secagg.printable import printable

INK, SOFT = "#010101", "#020202"
CURVES = [f"#0300{number:02x}" for number in range(6)]
COLOURS = {
    INK: "var(--ink)",
    SOFT: "var(--line)",
    **{colour: f"var(--curve-{number})" for number, colour in enumerate(CURVES)},
}
"""What matplotlib is told -> what the page understands. There are no other colours."""

_INCHES = (5.0, 3.1)
_MANY = 40
"""Points on a line that are not marked one by one any more."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points, joined or alone; or, with one value and no place for it, a horizontal line."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    """A number, the same for the same thing in all plots."""
    joined: bool = True

    @property
    def reference(self) -> bool:
        return not self.x


def plot(title: str, x_label: str, y_label: str, curves: Sequence[Curve], *, whole_x: bool) -> Html:
    """An <svg> and its legend. ``whole_x``: only whole numbers below."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 11,
        "axes.formatter.useoffset": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), SOFT),
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=_INCHES, layout="constrained", frameon=False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        for curve in curves:
            _draw(axes, curve)
        axes.set_xlabel(x_label)
        axes.set_ylabel(_shown(y_label), parse_math=False)
        if min(min(curve.y) for curve in curves) >= 0:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole_x))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(True, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        out = StringIO()
        canvas: Any = FigureCanvasSVG(figure)  # savefig would draw everything twice, to the same end
        canvas.print_svg(out, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    label = f"{title}: {', '.join(curve.label for curve in curves)}. The figures are in the table below it."
    return join([_inline(out.getvalue(), printable(label)), _legend(curves)])


def _draw(axes: Axes, curve: Curve) -> None:
    colour = CURVES[curve.colour % len(CURVES)]
    if curve.reference:
        axes.axhline(curve.y[0], color=colour, linewidth=1.6, linestyle="--")
    elif curve.joined:
        mark = "o" if len(curve.x) <= _MANY else None
        axes.plot(curve.x, curve.y, color=colour, linewidth=2, marker=mark, markersize=4, clip_on=False)
    else:
        alone: Any = {"linestyle": "none", "marker": "D", "fillstyle": "none", "markersize": 6, "clip_on": False}
        axes.plot(curve.x, curve.y, color=colour, **alone)


def _inline(svg: str, label: str) -> Html:
    """Fit for a page of HTML, in its colours and fonts, and with a name for those who do not see it."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    for child in list(root):
        if _local(child.tag) == "metadata" or child.find("{*}style") is not None:
            root.remove(child)
    for element in root.iter():
        element.tag, element.tail = _local(element.tag), None
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
        if element.tag == "g":  # numbered anew in each plot; the ids of others are salted with its title
            element.attrib.pop("id", None)
        if style := element.get("style"):
            style = re.sub(r"font-family: [^;]*; ", "", style)
            element.set("style", re.sub(r"#[0-9a-f]{6}", lambda colour: COLOURS[colour[0]], style))
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.attrib |= {"class": "plot", "role": "img", "aria-label": printable(label)}
    return Html(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _shown(name: str) -> str:
    """What matplotlib's fonts have: an axis says which metric it is, and the page around it says it whole."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in name[:40])


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _legend(curves: Sequence[Curve]) -> Html:
    entries = []
    for curve in curves:
        kind = "reference" if curve.reference else "joined" if curve.joined else "alone"
        key = tag("span", class_=f"key {kind}", style=f"color: {COLOURS[CURVES[curve.colour % len(CURVES)]]}")
        entries.append(tag("li", key, curve.label))
    return tag("ul", *entries, class_="legend")
