"""Pages of results: text by hand; between `<!-- table NAME -->` and `<!-- end -->` tables that are made of the results beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosparse.bench.recipes.rows import Row

Results = Mapping[str, Mapping[str, Any]]
"""Row name -> what `rows.run` wrote for it."""


def results(rows: Mapping[str, Row], folder: Path) -> dict[str, dict[str, Any]]:
    """What the rows gave, in their order; rows that have not been run are left out."""
    files = {name: folder / f"{name}.json" for name in rows}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def filled(page: str, tables: Mapping[str, Callable[[Results], str]], done: Results) -> str:
    """The page with every table made anew; what is outside the marks stays."""

    def put(mark: re.Match[str]) -> str:
        return f"<!-- table {mark[1]} -->\n\n{tables[mark[1]](done)}\n\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def option(row: Row, name: str) -> str:
    """The value of an option of the row's command, "" where it is not there."""
    return row.options[row.options.index(name) + 1] if name in row.options else ""


def drop(result: Mapping[str, Any], score: str = "top1") -> str:
    """Points lost against the dense network."""
    return f"{result[f'dense_{score}'] - result[score]:+.2f}"


def shares(result: Mapping[str, Any]) -> list[str]:
    return [f"-{result['flops_reduction']:.1%}", f"-{result['params_reduction']:.1%}"]


def speed(timed: Mapping[str, Any] | None) -> list[str]:
    """Engine, fastest dense peer, ratio."""
    if timed is None:
        return ["–"] * 3
    return [f"{timed['engine_ms']:.3g}", f"{timed['peer_ms']:.3g} ({timed['peer']})", f"{timed['speedup']:.2f}"]
