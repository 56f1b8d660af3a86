"""What all claims share: a table with a bar in each row, the same as JSON and Markdown, and the exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

OutOption = Annotated[Path | None, typer.Option(file_okay=False, help="Folder for NAME.json and NAME.md; made if needed.")]


@dataclass(frozen=True)
class Bar:
    """One line of a claim: what was measured, and the bound that it has to keep. `measured` is None where it could not be."""

    what: str
    measured: float | None
    bound: float
    at_most: bool
    note: str = ""

    @property
    def passed(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound

    def cells(self) -> tuple[str, ...]:
        measured = "–" if self.measured is None else f"{self.measured:.3g}"
        return self.what, measured, f"{'<=' if self.at_most else '>='} {self.bound:.3g}", "pass" if self.passed else "FAIL", self.note


COLUMNS = ("claim", "measured", "bar", "verdict", "note")


def conclude(name: str, title: str, command: str, bars: Sequence[Bar], data: Any, out: Path | None) -> None:
    """Shows the bars, writes the files, and ends with status 1 if a bar is missed."""
    shown = Table(title=title, box=None, title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, justify="right" if column in ("measured", "bar") else "left")
    for bar in bars:
        shown.add_row(*bar.cells())
    Console(width=None if sys.stdout.isatty() else 140, markup=False).print(shown)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        content = {"title": title, "command": command, "bars": [asdict(bar) | {"passed": bar.passed} for bar in bars], "data": data}
        (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (out / f"{name}.md").write_text(markdown(title, command, bars), encoding="utf-8")
    if not all(bar.passed for bar in bars):
        raise typer.Exit(1)


def markdown(title: str, command: str, bars: Sequence[Bar]) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(bar.cells() for bar in bars)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return f"{title}\n\n```\n{command}\n```\n\n{table}\n"
