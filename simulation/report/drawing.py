"""From a matplotlib figure to SVG inside the page, in the page's own colours, light or dark.

A figure is drawn in the light theme's colours. In the SVG each becomes the CSS variable of the same role, so the
page restyles its figures when the reader's screen is dark; text stays text. The same figure can be saved as PNG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

COLOURS: Mapping[str, str] = {
    "ink": "#1b2420",
    "muted": "#5a655f",
    "line": "#d9ddd6",
    "paper": "#fbfbf8",
    "first": "#0b6e5a",
    "second": "#b3541e",
    "third": "#4557a3",
}
"""Roles of the light theme; style.css gives both themes the same names."""

_STYLE: dict[Any, Any] = {
    "font.size": 11.5,
    "font.family": "sans-serif",
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlepad": 12,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from data: a dollar sign is a dollar sign
}
_PIXELS_PER_INCH = 160


@dataclass(frozen=True)
class Chart:
    """A figure for the page.

    Attributes
    ----------
    title
        What it shows.
    caption
        How to read it, one sentence.
    svg
        The drawing, with a title and a description for screen readers.
    """

    title: str
    caption: str
    svg: Markup


@contextmanager
def house_style() -> Iterator[None]:
    """Draw inside this: the page's type sizes, lines and colours."""
    with mpl.rc_context(_STYLE):
        yield


def to_svg(figure: Figure, *, name: str, title: str, description: str) -> Markup:
    """Render a figure as an SVG element that inherits the page's theme.

    Parameters
    ----------
    figure
        Drawn inside `house_style`.
    name
        Unique in the page: keeps the identifiers of two figures apart, and makes them the same on every machine.
    title, description
        Alternative text: what it is and what it shows.
    """
    buffer = io.StringIO()
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # A style element or metadata inside would reach the whole page.
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<(defs>\s*<style|metadata).*?</(style>\s*</defs|metadata)>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    # Which font there is depends on the reader's machine, so the page chooses.
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    for role, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    view_box = re.search(r'viewBox="[^"]+"', svg)
    body = svg[svg.index(">") + 1 :]
    head = (
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f"{view_box.group() if view_box else ''}>"
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + body.rstrip())


def to_file(figure: Figure, path: Path) -> None:
    """Save a figure as PNG or SVG, by the path's suffix, on the light theme's paper; the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, None] = dict.fromkeys(["Software"] if path.suffix.lower() == ".png" else ["Date", "Creator"])
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": "palate"}
    with mpl.rc_context(style):
        figure.savefig(path, dpi=_PIXELS_PER_INCH, facecolor=COLOURS["paper"], metadata=metadata)


def blank(width: float, height: float, *, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make an empty figure of some inches with panels side by side; belongs to no window and no global state."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])
