"""torch.export without what it says on the side, and what its errors mean."""

from __future__ import annotations

import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from cosparse.compress import given
from cosparse.compress.importer.names import LIBRARY

LOGS = {
    "torch.fx.experimental.symbolic_shapes": logging.ERROR,  # inequalities that sympy could not solve: they then count as unknown
    "torch.export._trace": logging.CRITICAL,  # a link to examples of what it cannot follow
}

WARNINGS = (
    r".*LeafSpec.* is deprecated",  # torch about its own code
    r"The tensor attributes? .* assigned during export",  # weights that hooks compute (weight_norm, prune): they are taken as computed
)


@contextmanager
def quiet() -> Iterator[None]:
    """Without these logs and warnings, and without the graph that torch.export prints where it gives up."""
    levels = {name: logging.getLogger(name).level for name in LOGS}
    for name, level in LOGS.items():
        logging.getLogger(name).setLevel(level)
    printed, done = io.StringIO(), False
    try:
        with warnings.catch_warnings(), redirect_stderr(printed):
            for message in WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
        done = True
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if done and sys.stderr is not None:
            sys.stderr.write(printed.getvalue())


def why(error: Exception) -> str:
    """An error of torch.export in a line: where in the model's code it was met, and no names of symbols."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((LIBRARY, PACKAGE, "<"))]
    line = f", {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    if "data-dependent" in str(error):
        return "code that decides by computed values" + line
    return re.sub(r"\b[su]\d+\b", "a size", given.first_line(error)) + line


PACKAGE = str(Path(given.__file__).parent)
