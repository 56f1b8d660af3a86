"""The look of a picture: a PNG file of a width and type size that a phone shows well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DPI = 5.0, 200
"""Inches and dots an inch: 1000 pixels across, about what a phone has."""

FIRST, SECOND, GREY = "#1f5fa8", "#c4501b", "#6b7280"
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "text.parse_math": False,  # a layer may be called $x$
}


@contextmanager
def figure(path: Path, height: float, grid: bool = True) -> Iterator[Figure]:
    """A figure of WIDTH x height inches that is written to `path` in the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"axes.grid": grid}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)


def title(what: str, name: str) -> str:
    return f"{what}: {name}" if name else what


def short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
