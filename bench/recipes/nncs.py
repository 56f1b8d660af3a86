"""The runs behind docs/results/nncs.md: every row is a `cosparse compress` command that anyone can repeat.

    python -m cosparse.bench.recipes.nncs --data ../shared/data --out out/nncs            all rows that have no result yet
    python -m cosparse.bench.recipes.nncs --data ../shared/data --out out/nncs ROW ...    these rows
    python -m cosparse.bench.recipes.nncs --list                                          the rows and their commands

A row's result is docs/results/nncs/ROW.json: the command and what it printed, epoch by epoch; the artifact stays in --out. A row that was
interrupted goes on from its checkpoint. `python -m cosparse.bench.recipes.nncs_page` makes the page of the results.
"""

from __future__ import annotations

from pathlib import Path

from cosparse.bench.recipes import rows
from cosparse.bench.recipes.nncs_rows import ROWS

RESULTS = Path("docs/results/nncs")


def main(arguments: list[str] | None = None) -> None:
    rows.main(ROWS, RESULTS, Path("out/nncs"), (__doc__ or "").partition("\n")[0], arguments)


if __name__ == "__main__":
    main()
