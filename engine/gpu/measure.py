"""Times of launches on the device, and the cache in which they are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

KERNELS = "4"
"""Changes when kernels change so much that old measurements mislead."""

ENOUGH_US = 300.0
"""Device time that one measurement should cover, so that events' resolution does not matter."""


def microseconds(launch: Callable[[], None], most: int = 20) -> float:
    """Device time of one launch in us: several of them in a CUDA graph, which is replayed, so that the host's time does not count.

    What the launches read and write stays in the L2 cache where it fits, as it does between the layers of a network.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        launch()  # compiles
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(stream)
        launch()
        stop.record(stream)
        stop.synchronize()
        count = max(1, min(most, int(ENOUGH_US / max(1.0, 1e3 * start.elapsed_time(stop) / 4)) + 1))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(count):
                launch()
        times = []
        for _ in range(4):
            start.record(stream)
            graph.replay()
            stop.record(stream)
            stop.synchronize()
            times.append(1e3 * start.elapsed_time(stop) / count)
    return min(times[1:])


def replay_us(replay: Callable[[], None], times: int = 9) -> float:
    """Median device time of one call in us, of a function that queues its work on the current stream and has run before."""
    taken = []
    for _ in range(times):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        replay()
        stop.record()
        stop.synchronize()
        taken.append(1e3 * start.elapsed_time(stop))
    return sorted(taken)[times // 2]


class Cache:
    """Signature of a layer at a shape -> form -> us, None where it cannot run. One readable JSON file for each device and dtype, in
    COSPARSE_CACHE; one of other versions counts as empty."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.what = {
            "format": 1,
            "kernels": KERNELS,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter",
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": dtype,
        }
        folder = _folder()
        self.path = folder / f"gpu-{_word(self.what['device'])}-{dtype}.json" if folder else None
        self.layers: dict[str, dict[str, float | None]] = self._read()

    def _read(self) -> dict[str, dict[str, float | None]]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            fits = all(content.get(key) == value for key, value in self.what.items())
            kept = content["layers"] if fits else {}
            return {sign: {form: None if us is None else float(us) for form, us in times.items()} for sign, times in kept.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return {}  # a damaged cache costs a measurement, no more

    def save(self) -> None:
        """Takes over what other processes have added, writes beside, renames; a folder that cannot be written keeps nothing."""
        if self.path is None:
            return
        self.layers = self._read() | self.layers
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({**self.what, "layers": self.layers}, indent=1), encoding="utf-8")
            os.replace(part, self.path)
        except OSError:
            part.unlink(missing_ok=True)


def _folder() -> Path | None:
    """COSPARSE_CACHE, else the user's cache folder; an empty variable keeps nothing, as for the CPU's cache."""
    if "COSPARSE_CACHE" in os.environ:
        return Path(os.environ["COSPARSE_CACHE"]) if os.environ["COSPARSE_CACHE"] else None
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("HOME", "") and os.path.join(os.environ["HOME"], ".cache"))
    return Path(home) / "cosparse" if home else None


def _word(text: object) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(text)).lower()
