"""The server as a process of its own, and what it takes of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cosparse.errors import Error


@dataclass(frozen=True)
class Place:
    pid: int
    port: int

    @property
    def rss_mb(self) -> float:
        """Resident memory, from /proc."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def server(source: Path, *options: str) -> Iterator[Place]:
    """Ready when the block begins, ended when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        told, log = Path(folder) / "started.json", Path(folder) / "log"
        command = [sys.executable, "-m", "cosparse", "serve", str(source), "--http-port", "0", "--grpc-port", "-1", "--json", str(told)]
        with log.open("w") as file:
            process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=file)
        try:
            end = time.monotonic() + 120
            while not told.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise Error("cosparse serve", "a server that starts", log.read_text()[-2000:])
                time.sleep(0.02)
            started = json.loads(told.read_text())
            yield Place(process.pid, int(started["http"].rsplit(":", 1)[1]))
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
