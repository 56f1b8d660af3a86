"""The network to work on: `zoo:NAME`, or `path/file.py:factory`, a function that returns it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosparse.errors import Error

if TYPE_CHECKING:
    import torch

HELP = """zoo:NAME, or path/file.py:factory. The factory takes no arguments and returns a torch module, or a tuple (module, example), or
(module, example, preprocessing)."""


@dataclass(frozen=True)
class Source:
    """A network with an example input (batch 1) and, where known, how pixels become the input."""

    name: str
    model: torch.nn.Module
    example: torch.Tensor | tuple[torch.Tensor, ...]
    preprocessing: dict[str, Any]


def load(spec: str, weights: Path | None = None, size: Sequence[int] | None = None, classes: int | None = None) -> Source:
    """The network that `spec` names, in eval mode, with its weights; Error that says what is wrong with spec, file or weights.

    `size` is (C, H, W); `classes` is of networks of the zoo alone, which are made for any number of them.
    """
    kind, _, rest = spec.partition(":")
    if kind == "zoo":
        source = _from_zoo(rest, classes)
    elif kind.endswith(".py"):
        if classes is not None:
            raise Error("--classes", "a network of the zoo", spec, "let the factory return the network with its classes")
        source = _from_file(Path(kind), rest, size)
    else:
        raise Error("network", "zoo:NAME or path/file.py:factory", repr(spec))
    if size is not None:
        import torch

        example = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
        resized = source.preprocessing | {"size": list(example.shape[-2:])} if source.preprocessing else {}
        source = Source(source.name, source.model, example, resized)
    if weights is not None:
        from cosparse.bench.zoo import load_weights

        if weights.suffix != ".safetensors":
            raise Error(str(weights), "a .safetensors file", repr(weights.suffix), "pickled checkpoints are never opened: convert it first")
        load_weights(source.model, weights)
    source.model.eval()
    return source


def _from_zoo(name: str, classes: int | None) -> Source:
    from cosparse.bench import zoo

    return Source(name, zoo.build(name, classes), zoo.example(name), zoo.preprocessing(name))


def _from_file(path: Path, function: str, size: Sequence[int] | None) -> Source:
    if not path.is_file():
        raise Error(str(path), "a Python file", "nothing there")
    spec = util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Error(str(path), "a Python file", "one that cannot be imported")
    module = util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickled references of the user's file look their module up here
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, function, None)
        made = factory() if callable(factory) else None
    except Exception as error:
        raise Error(f"{path}:{function}", "to run", f"{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if made is None:
        raise Error(f"{path}:{function}", "a function that returns a torch module", "none" if factory is None else repr(factory))
    return _unfold(f"{path}:{function}", function, made, size)


def _unfold(about: str, name: str, made: Any, size: Sequence[int] | None) -> Source:
    import torch

    model, example, preprocessing = (*made, None, None)[:3] if isinstance(made, tuple) else (made, None, None)
    if not isinstance(model, torch.nn.Module):
        raise Error(about, "a torch module, alone or first in a tuple", type(model).__name__)
    if example is None and size is None:
        raise Error(about, "an example input", "the module alone", "return (module, example), or give --size C,H,W if it takes that")
    return Source(name, model, example, dict(preprocessing or {}))
