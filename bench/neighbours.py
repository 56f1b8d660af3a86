"""Who else uses the processors: a time measured beside a busy neighbour says little, so every result carries this figure."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cosparse.bench.environment import processors

# Above this many processors kept busy by others (per processor of ours), times are called unstable.
LIMIT = 0.10


@dataclass(frozen=True)
class Usage:
    """Processor seconds spent so far: `total` by everybody on our processors, `own` by this process; `wall` is the clock."""

    wall: float
    total: float
    own: float


def usage() -> Usage | None:
    """Reading of /proc/stat for the processors this process may use; None where the system has no such count."""
    mine = {f"cpu{number}" for number in processors()}
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
    except OSError:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal: all but idle and iowait is work that is not ours to have.
    ticks = [[int(field) for field in row[1:9]] for row in rows if row[0] in mine]
    if not ticks or not any(map(any, ticks)):
        return None
    busy = sum(sum(row) - sum(row[3:5]) for row in ticks) / os.sysconf("SC_CLK_TCK")
    spent = os.times()
    return Usage(time.perf_counter(), busy, sum(spent[:4]))


def others(before: Usage | None, after: Usage | None) -> float | None:
    """Processors that others kept busy between two readings, 0 .. number of processors; None where it cannot be known."""
    if before is None or after is None or after.wall - before.wall < 0.1:
        return None
    busy = (after.total - before.total) - (after.own - before.own)
    return round(max(0.0, busy / (after.wall - before.wall)), 3)


def sample(seconds: float = 0.5) -> float | None:
    """Processors that others keep busy while this process sleeps."""
    before = usage()
    time.sleep(seconds)
    return others(before, usage())


def quiet(busy: float | None) -> bool:
    """Whether that few neighbours leave the measurement alone. Unknown counts as quiet: the spread of the times still tells."""
    return busy is None or busy <= LIMIT * len(processors())
