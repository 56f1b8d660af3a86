"""The runs behind docs/results/ssr.md: every row is a `cosparse compress` command that anyone can repeat.

    python -m cosparse.bench.recipes.ssr --data ../shared/data --out out/ssr            all rows that have no result yet
    python -m cosparse.bench.recipes.ssr --data ../shared/data --out out/ssr ROW ...    these rows
    python -m cosparse.bench.recipes.ssr --list                                         the rows and their commands

A row's result is docs/results/ssr/ROW.json.
"""

from __future__ import annotations

from pathlib import Path

from cosparse.bench.recipes import rows
from cosparse.bench.recipes.ssr_rows import ROWS

RESULTS = Path("docs/results/ssr")


def main(arguments: list[str] | None = None) -> None:
    rows.main(ROWS, RESULTS, Path("out/ssr"), (__doc__ or "").partition("\n")[0], arguments)


if __name__ == "__main__":
    main()
