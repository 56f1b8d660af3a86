"""The errors that cosparse raises: each names the thing, what was expected, what was got and the next step."""

from __future__ import annotations


class Error(ValueError):
    """Base of all cosparse errors.

    Attributes: `about` (file, tensor, node, input or option), `expected`, `got`, `next_step` (may be empty).
    """

    def __init__(self, about: str, expected: str = "", got: str = "", next_step: str = "") -> None:
        self.about, self.expected, self.got, self.next_step = about, expected, got, next_step
        text = about if not expected else f"{about}: expected {expected}, got {got}"
        super().__init__(text + (f"; {next_step}" if next_step else ""))


class ArtifactError(Error):
    """A file that is no valid artifact (docs/artifact.md, docs/errors.md)."""


class UnsupportedError(Error):
    """An operator, dtype, device or version that this build cannot run."""


class MemoryLimitError(Error, MemoryError):
    """A network whose weights or activations take more memory than it was allowed, or than the machine has left."""


class ShapeError(Error):
    """An input or an intermediate value whose shape does not fit the network."""
