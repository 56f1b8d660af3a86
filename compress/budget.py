"""What compression has to take from a network: shares of multiply-adds and parameters, time on the engine, or one density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cosparse.compress.latency import Latency
from cosparse.errors import Error

FLOOR = 0.02
"""Share of its blocks that every layer keeps unless a budget says otherwise, so that no layer is cut in two."""

BOUNDS = ("flops", "params", "latency")


@dataclass(frozen=True)
class Budget:
    """Shares of the dense network's totals (as `count` reports them) to remove: 0.6 removes at least 60 %. None: no bound.

    `flops` includes the basis step of the transform. `latency` bounds the time on the engine by measured tables. The three combine: all
    that are given are met. `density`, alone, is the share to keep: of the blocks of every layer that can carry a mask, the same in each.
    `floor`: share of its blocks that every masked layer keeps whatever the other bounds say; a density needs none.
    """

    flops: float | None = None
    params: float | None = None
    latency: Latency | None = None
    density: float | None = None
    floor: float = FLOOR

    def __post_init__(self) -> None:
        for name in ("flops", "params"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise Error(f"Budget.{name}", "a share in [0, 1)", repr(share), "0.6 removes 60 %")
        if self.latency is not None and not isinstance(self.latency, Latency):
            raise Error("Budget.latency", "Latency(table=..., ms=...) or Latency(table=..., share=...)", repr(self.latency))
        if not 0 <= self.floor < 1:
            raise Error("Budget.floor", "a share in [0, 1)", repr(self.floor), "0.02 keeps at least 2 % of every layer")
        given = [name for name in BOUNDS if getattr(self, name) is not None]
        if self.density is not None:
            if not 0 < self.density <= 1:
                raise Error("Budget.density", "a share in (0, 1]", repr(self.density), "0.2 keeps 20 %")
            if given:
                raise Error("Budget", "density alone, or flops, params and latency", "both", "density decides every layer by itself")
        elif not given:
            raise Error("Budget", "flops, params, latency or density", "none", "Budget(flops=0.6) removes 60 % of the multiply-adds")

    def settings(self) -> dict[str, Any]:
        """The budget as plain data: what was given, and the floor where it is not the usual one."""
        plain: dict[str, Any] = {name: value for name in ("flops", "params", "density") if (value := getattr(self, name)) is not None}
        if self.latency is not None:
            plain["latency"] = self.latency.settings()
        return plain if self.floor == FLOOR else plain | {"floor": self.floor}
