"""Options of commands that train, by group: the recipe, and what a run leaves beside its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosparse.atomic import require_folder, require_writable

if TYPE_CHECKING:
    from cosparse.compress.log import EpochLog
    from cosparse.compress.prune.report import PruneReport
    from cosparse.compress.recipe import Recipe

DataOption = Annotated[
    Path,
    typer.Option(help="Images: *_train.parquet and *_test.parquet, train/CLASS/* and val/CLASS/*, or annotations/instances_*.json."),
]
WorkersOption = Annotated[int | None, typer.Option(min=0, help="Processes that decode image files. Default: one a processor.")]
DeviceOption = Annotated[str, typer.Option(help="Where it trains: cpu, cuda, cuda:1, ...")]
LrOption = Annotated[float | None, typer.Option(help="Learning rate. Default: the recipe's.")]
OptimizerOption = Annotated[str | None, typer.Option(help="sgd, adamw. Default: sgd.")]
WeightDecayOption = Annotated[float | None, typer.Option(help="Weight decay of weights of two or more dimensions.")]
PrecisionOption = Annotated[str | None, typer.Option(help="What products are computed in: float32, bfloat16. Default: float32.")]
EmaOption = Annotated[float | None, typer.Option(help="Decay of a running mean of the weights that replaces them in the end.")]
DistillOption = Annotated[float | None, typer.Option(help="Share of the loss that compares with the dense network, 0 for none.")]
LogOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the log. Default: beside the artifact.")]
TensorboardOption = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard events beside the log.")]
PicturesOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for pictures of the training and the masks, PNG.")]


def recipe(seed: int, **settings: Any) -> Recipe:
    """The recipe with the settings that are not None; Error where one is out of range, before any data are read."""
    from cosparse.compress.recipe import Recipe

    return Recipe(seed=seed, **{name: value for name, value in settings.items() if value is not None})


@dataclass(frozen=True)
class RunFiles:
    """Where a run that makes `out` puts what it keeps: checkpoint and log, and if wanted TensorBoard events and pictures."""

    out: Path
    log: Path | None = None
    tensorboard: bool = False
    pictures: Path | None = None

    def require_writable(self) -> None:
        """Asked before the training, not after it."""
        require_writable("--out", self.out)
        for option, folder in (("--log", self.log), ("--pictures", self.pictures)):
            if folder is not None:
                require_folder(f"{option} {folder}", folder)

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".training.safetensors")

    @property
    def table(self) -> Path:
        return (self.log or self.out.parent) / f"{self.out.stem}.training.csv"

    def epoch_log(self) -> EpochLog:
        from cosparse.compress.log import EpochLog

        return EpochLog(self.table, self.table.with_suffix(".tensorboard") if self.tensorboard else None)

    def draw(self, model: Any, history: Sequence[dict[str, Any]], name: str, pruned: PruneReport | None = None) -> list[Path]:
        """The pictures, where they are wanted."""
        if self.pictures is None:
            return []
        from cosparse.compress import pictures
        from cosparse.compress.prune import pictures as of_filters

        drawn = pictures.draw_all(self.pictures, model, history, name)
        return drawn + (of_filters.draw_all(self.pictures, pruned, name) if pruned else [])

    def notes(self, pictures: Sequence[Path]) -> str:
        events = f", TensorBoard events: {self.table.with_suffix('.tensorboard')}" if self.tensorboard else ""
        drawn = f", {len(pictures)} pictures: {self.pictures}" if pictures else ""
        return f"Log: {self.table}{events}{drawn}"
