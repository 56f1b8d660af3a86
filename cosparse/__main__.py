"""`python -m cosparse` and the `cosparse` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with its status. Without typer and rich: one sentence, status 2."""
    try:
        from cosparse.cli import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print(f"cosparse: the command line needs {error.name}; next step: pip install 'cosparse[cli]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
