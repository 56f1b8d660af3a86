"""The log of a training run: one CSV row an epoch, and TensorBoard events where they are asked for.

Rows are whatever the history says, so a resumed run goes on in the same file: no epoch twice, none missing. A row is one write to the end
of the file, so a killed run leaves whole rows.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosparse.atomic import replacing
from cosparse.errors import Error

COLUMNS = ("epoch", "phase", "lr", "train_loss", "accuracy", "loss", "density", "flops_share", "seconds")
"""Of the CSV. accuracy (a share) and loss are of the held-out images; an entry that lacks one leaves it empty."""

DRAWN = tuple(name for name in COLUMNS if name != "epoch")


class EpochLog:
    """An `on_epoch` callback that keeps `path` (CSV) equal to the history, and `events`, a folder of TensorBoard events, if given.

    The first call starts the file anew with the epochs that the history has; later calls append. Raises Error where `path` cannot be
    written, ModuleNotFoundError where TensorBoard is not installed.
    """

    def __init__(self, path: str | Path, events: str | Path | None = None) -> None:
        self.path, self.events = Path(path), Path(events) if events is not None else None
        self.written = 0
        self._started = False
        self._writer: Any = None
        if self.events is not None:
            import tensorboard  # noqa: F401  asked for here: before the training, not after its first epoch

    def __call__(self, history: Sequence[Mapping[str, Any]]) -> None:
        if not self._started:
            self._start(history)
        for entry in history[self.written :]:
            self._append(_line([_cell(entry.get(name)) for name in COLUMNS]))
            self._draw(entry)
            self.written += 1

    def _start(self, history: Sequence[Mapping[str, Any]]) -> None:
        lines = [_line(COLUMNS), *(_line([_cell(entry.get(name)) for name in COLUMNS]) for entry in history)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part:
                part.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise Error(str(self.path), "a log that can be written", str(error.strerror)) from error
        self.written, self._started = len(history), True

    def _append(self, line: str) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def _draw(self, entry: Mapping[str, Any]) -> None:
        if self.events is None:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Events of an earlier run from this epoch on are hidden: those of a killed epoch, and of a run that was started anew.
            self._writer = SummaryWriter(str(self.events), purge_step=entry["epoch"])
        for name in DRAWN:
            if entry.get(name) is not None:
                self._writer.add_scalar(name, entry[name], entry["epoch"])
        self._writer.flush()


def read_log(path: str | Path) -> list[dict[str, float]]:
    """The rows of a CSV that `EpochLog` wrote, empty cells left out; Error where it is none."""
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                got = ", ".join(reader.fieldnames or ()) or "none"
                raise Error(str(path), f"a training log with the columns {', '.join(COLUMNS)}", got)
            return [{name: float(cell) for name, cell in row.items() if cell} for row in reader]
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, Error):
            raise
        raise Error(str(path), "a training log", str(error)) from error


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    return "" if value is None else repr(value)
