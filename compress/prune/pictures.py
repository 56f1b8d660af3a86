"""Pictures of a pruning, as PNG files: what every layer kept, and how the search went."""

from __future__ import annotations

from pathlib import Path

from cosparse.compress.figure import FIRST, GREY, SECOND, figure, short, title
from cosparse.compress.prune.report import PruneReport

MOST_BARS = 60


def draw_all(folder: str | Path, report: PruneReport, name: str = "") -> list[Path]:
    """Writes widths.png and search.png into the folder, which is made; returns the paths."""
    folder = Path(folder)
    written = [draw_widths(folder / "widths.png", report, name)]
    if len(report.search.get("history", ())) > 1:
        written.append(draw_search(folder / "search.png", report, name))
    return written


def draw_widths(path: Path, report: PruneReport, name: str = "") -> Path:
    """Filters of each layer as a bar, after in colour over before in grey; of more than MOST_BARS layers the thinned-out names."""
    layers = [layer for layer in report.layers if layer.before != (0, 0)]
    every = -(-len(layers) // MOST_BARS)
    with figure(path, 1.4 + 0.22 * len(layers) / every) as made:
        axis = made.subplots()
        places, height = range(len(layers)), 0.7 if every == 1 else 1.0
        axis.barh(places, [layer.before[1] for layer in layers], height=height, color="#e5e7eb", label="before")
        axis.barh(places, [layer.after[1] for layer in layers], height=height, color=FIRST, label="after")
        axis.set_yticks(list(places)[::every], [short(layer.name) for layer in layers[::every]], fontsize=8)
        axis.set_ylim(len(layers) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        if every == 1:
            for place, layer in enumerate(layers):
                text = f"{layer.after[1] / layer.before[1]:.0%}"
                axis.annotate(text, (layer.before[1], place), (3, 0), textcoords="offset points", va="center", fontsize=8, color=GREY)
        axis.set_xlim(0, 1.12 * max(layer.before[1] for layer in layers))
        axis.set_xlabel("filters")
        axis.set_title(
            f"{title('Filters of each layer', name)}\nFLOPs -{report.flops_reduction:.1%}, parameters -{report.params_reduction:.1%}"
        )
        axis.legend(fontsize=9)
    return path


def draw_search(path: Path, report: PruneReport, name: str = "") -> Path:
    """The best loss after each round of the search."""
    from matplotlib.ticker import MaxNLocator

    history = report.search["history"]
    with figure(path, 3.0) as made:
        axis = made.subplots()
        axis.plot(range(len(history)), history, color=SECOND, marker="o" if len(history) <= 40 else "", markersize=4)
        axis.set_xlabel("round")
        axis.set_ylabel("best loss, held-out images")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(f"{title('Search', name)}: {report.search['search']}, {report.search['evaluated']} networks scored")
    return path
