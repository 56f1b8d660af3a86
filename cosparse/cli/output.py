"""What every command shares: where results go, and how progress is shown.

For people: tables on standard output, progress on standard error where that is a terminal. For machines: `--json -` puts one JSON value,
and nothing else, on standard output; `--json FILE` writes it beside the tables.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from cosparse.atomic import require_writable, write_text


def _standard_or_writable(target: str | None) -> str | None:
    """Asked before the work that the result is of, not after it."""
    if target is not None and target != "-":
        require_writable("--json", target, streams=True)
    return target


def writable(context: typer.Context, parameter: typer.CallbackParam, path: Path | None) -> Path | None:
    """The callback of an option that names a file of text to write: asked before the work, not after it."""
    if path is not None:
        require_writable(parameter.opts[0], path, streams=True)
    return path


JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="-|FILE", callback=_standard_or_writable, help="Write the result as JSON: - is standard output, alone."),
]
SPEED_PERIOD = 300.0  # seconds
UNBOUNDED = 1 << 14  # columns where there is no terminal: tables are then as wide as what they hold


def emit(result: Any, target: str | None, *shown: RenderableType) -> None:
    """Gives the result to whoever asked: `shown` to people unless JSON has standard output for itself, `result` as JSON to `target`."""
    if target == "-":
        _put(to_json(result) + "\n")
        return
    # Names from files are shown as they are: brackets are no markup, colons no emoji.
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else UNBOUNDED, highlight=False, markup=False, emoji=False)
    with console.capture() as text:
        for renderable in shown:
            console.print(renderable, soft_wrap=isinstance(renderable, str))
    _put(text.get() if terminal else "".join(line.rstrip() + "\n" for line in text.get().splitlines()))
    if target:
        write_text(target, to_json(result) + "\n")


def _put(text: str) -> None:
    """Writes to standard output. A reader that has left (head, less) is no error, nor may the interpreter flush into it at exit.

    What its encoding cannot hold, as the stray bytes of a file's name, stands as an escape.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error


def to_json(result: Any) -> str:
    """Strict JSON: a NaN or infinity in a result is an error of ours and raises ValueError."""
    return json.dumps(result, indent=2, allow_nan=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: Sequence[str] = ()) -> RenderableType:
    """A plain table under its title. Columns named in `left` are text, the others numbers."""
    made = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        text = column in left
        made.add_column(column, justify="left" if text else "right", overflow="fold" if text else "ellipsis", no_wrap=not text)
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return Group(Text(title, style="bold", no_wrap=True, overflow="ignore"), made)


@contextmanager
def progress(counted: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error, with the time gone and the time left; silent where that is no terminal.

    The time left is what remains at the mean rate of the last SPEED_PERIOD seconds: a phase whose steps take longer shows soon, and steps
    that take seconds each still give a rate.
    """
    count = [MofNCompleteColumn()] if counted else [TaskProgressColumn()]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), *count, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("left"))
    silent = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent, speed_estimate_period=SPEED_PERIOD) as bar:
        yield bar


def stage(bar: Progress, description: str, total: float | None = None) -> TaskID:
    """Replaces what the bar shows by a new piece of work, whose clock starts now."""
    for task in bar.task_ids:
        bar.remove_task(task)
    return bar.add_task(description, total=total)


class Phases:
    """One bar whose text is the phase: what the long jobs of cosparse.bench call with (phase, share done)."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=1.0)

    def __call__(self, phase: str, share: float) -> None:
        self._bar.update(self._task, description=phase, completed=share)
