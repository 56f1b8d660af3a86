"""From a matplotlib figure to an SVG element that can stand in a page beside others and follows the page's colours, or to a file.

Colours in figures are the tokens of INK; in the page they become CSS variables, so one picture serves light and dark. A file brings the
page's colours along, its own ground among them, since nobody knows what it will lie on.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = {"ink": "#0a0b01", "muted": "#0a0b02", "grid": "#0a0b03"} | {f"s{i}": f"#0a0c{i:02d}" for i in range(8)}
"""CSS variable -> the colour that stands for it until the page is made; s0 is the engine, the others are peers."""

STYLE: Any = {
    "svg.hashsalt": "cosparse",  # the same picture is the same file
    "svg.fonttype": "none",  # text stays text: selectable, in the page's font
    "text.parse_math": False,  # a layer may be called $x$
    "font.size": 10,
    "text.color": INK["ink"],
    "axes.labelcolor": INK["muted"],
    "axes.edgecolor": INK["grid"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2,
}


COLOURS = Path(__file__).parent / "templates" / "report.css"
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
TITLE, SCALE = 20, 2.0
"""Of a file: height of its title in the picture's units, and pixels a unit."""


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of this size in inches, drawn in the page's style. One inch is about 72 px on a phone."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def element(made: Figure, name: str, label: str) -> str:
    """The figure as `<svg>` without namespaces, metadata and fixed size.

    `name` keeps its ids apart from those of other pictures in the page; `label` is what a screen reader says.
    """
    text = io.StringIO()
    made.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(text.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for node in root.iter():
        node.tag = _plain(node.tag)
        node.attrib = {_plain(key): _attribute(_plain(key), value, name) for key, value in node.attrib.items()}
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def document(picture: str, title: str) -> str:
    """An `element` as a file of its own under `title`: namespace, size, fonts, and the page's colours for light and dark."""
    root = ElementTree.fromstring(picture)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    top, height = top - TITLE, height + TITLE
    box = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{width:g}", "height": f"{height:g}"}
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"{left:g} {top:g} {width:g} {height:g}"}
    root.attrib |= {"width": f"{SCALE * width:g}", "height": f"{SCALE * height:g}"}
    light, dark = re.findall(r":root \{([^}]*)\}", COLOURS.read_text(encoding="utf-8"))
    style = ElementTree.Element("style")
    style.text = f"svg {{{light}}} @media (prefers-color-scheme: dark) {{ svg {{{dark}}} }} text {{ font-family: {FONTS}; }}"
    ground = ElementTree.Element("rect", box | {"rx": "6", "style": "fill: var(--card)"})
    heading = {"x": f"{left + 8:g}", "y": f"{top + 0.75 * TITLE:g}", "style": "fill: var(--ink); font-size: 11px; font-weight: 600"}
    text = ElementTree.Element("text", heading)
    text.text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in title)
    root[:0] = [style, ground, text]
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def printable(text: str, limit: int = 30) -> str:
    """A name for a label: what no XML may contain replaced, the middle of a long one left out."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= limit else f"{clean[: limit // 2 - 1]}…{clean[-(limit // 2) :]}"


def _plain(name: str) -> str:
    return name.rpartition("}")[2]


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    if key == "style":
        value = re.sub(r"font: (?:(\w+) )?([\d.]+px) [^;]*", r"font-size: \2", value)
        for variable, colour in INK.items():
            value = value.replace(colour, f"var(--{variable})")
    return value
