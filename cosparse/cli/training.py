"""What commands that train do before torch is loaded."""

from __future__ import annotations

import os


def share_processors() -> None:
    """Lets torch's threads sleep at a barrier instead of spinning, unless OMP_WAIT_POLICY says otherwise.

    Beside another busy process, spinning threads take each other's processors and training becomes ten times slower; alone, the
    difference is small. OpenMP reads the variable when torch is imported. Benchmarks never set it: peers are timed as they come.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
