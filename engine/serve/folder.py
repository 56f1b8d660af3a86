"""The model repository as it lies on disk: NAME.cosparse, or NAME/VERSION/model.cosparse, or both.

    {(name, version): File}; a lone artifact NAME.cosparse is version 1 of NAME. Names match NAME, versions are whole numbers from 1.

Names of requests are only ever looked up in what was found here, never made into paths.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cosparse.errors import ArtifactError, Error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
SUFFIX = ".cosparse"
Key = tuple[str, str]


@dataclass(frozen=True)
class File:
    """`stamp` changes whenever the file is written anew or exchanged."""

    path: Path
    stamp: tuple[int, int, int]


def scan(source: Path) -> tuple[dict[Key, File], dict[str, str]]:
    """What there is to serve, and what was passed over: path -> why. Raises Error where `source` is neither file nor folder."""
    if source.is_file():
        if not NAME.fullmatch(source.stem):
            raise Error(str(source), f"a file name that matches {NAME.pattern}", repr(source.stem), "rename it")
        return {(source.stem, "1"): _file(source)}, {}
    if not source.is_dir():
        raise Error(str(source), "an artifact or a folder of artifacts", "nothing there", "check the path")
    found: dict[Key, File] = {}
    ignored: dict[str, str] = {}
    for entry in sorted(source.iterdir()):
        if entry.name.startswith("."):
            continue  # editors, version control, and an artifact that is still being written
        name = entry.name.removesuffix(SUFFIX) if entry.name.endswith(SUFFIX) and entry.is_file() else entry.name
        if entry.is_file() and name == entry.name:
            continue  # a README or the like
        if not NAME.fullmatch(name):
            ignored[str(entry)] = f"expected a name that matches {NAME.pattern}, got {name!r}"
            continue
        versions = {"1": entry} if entry.is_file() else _versions(entry)
        for version, path in versions.items():
            if (name, version) in found:
                ignored[str(path)] = f"expected version {version} of {name} once, got it twice"
                continue
            try:
                found[name, version] = _file(path)
            except OSError as error:
                ignored[str(path)] = str(error)
    return found, ignored


def _versions(folder: Path) -> dict[str, Path]:
    paths = {path.name: path / f"model{SUFFIX}" for path in folder.iterdir() if VERSION.fullmatch(path.name)}
    return {version: path for version, path in paths.items() if path.is_file()}


def _file(path: Path) -> File:
    status = os.stat(path)
    return File(path, (status.st_mtime_ns, status.st_size, status.st_ino))


def checksum(path: Path) -> str:
    """The artifact's own checksum, as its header states it; the reader verifies it when it loads the file. Raises ArtifactError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= os.stat(path).st_size:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return str(json.loads(header["__metadata__"]["cosparse"])["checksum"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(str(path), "an artifact with a checksum", str(error), "export it again") from error
