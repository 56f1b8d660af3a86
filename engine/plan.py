"""What the engine does for each layer, as data and as the table that `str(engine.plan)` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class PlanRow:
    """One step of a plan.

    `flops` are the multiply-adds that the step executes on stored coefficients, `basis_flops` those of its basis step, `dense_flops`
    those of the same layer with all its weights; all for the plan's batch. A layer that runs by Winograd's tiles counts
    what its mask leaves, as if it ran in coefficients. `bytes` are the weights as the kernel reads them.
    """

    name: str
    op: str
    kernel: str
    density: float
    flops: float
    basis_flops: float
    dense_flops: float
    bytes: int
    why: str


@dataclass(frozen=True)
class Plan:
    """The steps of one network at one set of input shapes, in the order in which they run. `batch`: in how many parts of how many images,
    and which of these each thread runs by itself."""

    network: str
    shapes: tuple[tuple[int, ...], ...]
    isa: str
    threads: int
    rows: tuple[PlanRow, ...]
    batch: str = ""

    def __iter__(self) -> Iterator[PlanRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def flops(self) -> float:
        """Multiply-adds executed, basis steps included."""
        return sum(row.flops + row.basis_flops for row in self.rows)

    @property
    def dense_flops(self) -> float:
        return sum(row.dense_flops for row in self.rows)

    def __str__(self) -> str:
        inputs = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        lines = [
            f"{self.network}: input {inputs}, {self.isa}, {self.threads} threads" + (f"; {self.batch}" if self.batch else ""),
            f"{'layer':32} {'kernel':24} {'density':>7} {'MFLOP':>9} {'basis':>7} {'dense':>9} {'kB':>8}  why",
        ]
        for row in self.rows:
            counts = f"{row.flops / 1e6:9.3f} {row.basis_flops / 1e6:7.3f} {row.dense_flops / 1e6:9.3f} {row.bytes / 1e3:8.1f}"
            numbers = f"{row.density:7.3f} {counts}" if row.dense_flops else " " * (8 + len(counts))
            lines.append(f"{row.name:32} {row.kernel:24} {numbers}  {row.why}".rstrip())
        total = sum(row.bytes for row in self.rows)
        executed, basis = sum(row.flops for row in self.rows), sum(row.basis_flops for row in self.rows)
        density = executed / self.dense_flops if self.dense_flops else 1.0
        lines.append(
            f"{'total':32} {'':24} {density:7.3f} {executed / 1e6:9.3f} {basis / 1e6:7.3f} {self.dense_flops / 1e6:9.3f} {total / 1e3:8.1f}"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class ProfileRow:
    """Measured time of one step: median and best of the repeats.

    `gflops` counts what was executed (2 FLOP a multiply-add, basis step excluded), `dense_gflops` what a dense layer would have
    executed in this time. A step that runs in blocks with the one before it has zeros: that row has the time of both.
    """

    name: str
    op: str
    kernel: str
    us: float
    min_us: float
    share: float
    gflops: float
    dense_gflops: float
