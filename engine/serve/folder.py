"""The model repository as it lies on disk: NAME.cosparse, or NAME/VERSION/model.cosparse, or both.

    {(name, version): File}; a lone artifact NAME.cosparse is version 1 of NAME. Names match NAME, versions are whole numbers from 1.

Names of requests are only ever looked up in what was found here, never made into paths.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cosparse.errors import ArtifactError, Error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
SUFFIX = ".cosparse"
LONGEST_HEADER = 64 << 20  # bytes: the artifact's own limit (docs/artifact.md)
Key = tuple[str, str]


@dataclass(frozen=True)
class File:
    """`stamp` changes whenever the file is written anew or exchanged."""

    path: Path
    stamp: tuple[int, int, int]


def scan(source: Path) -> tuple[dict[Key, File], dict[str, str]]:
    """What there is to serve, and what was passed over: path -> why. Raises Error where `source` is neither file nor folder, OSError where
    the folder cannot be read; an entry of it that cannot be is passed over alone."""
    if source.is_file():
        if not NAME.fullmatch(source.stem):
            raise Error(str(source), f"a file name that matches {NAME.pattern}", repr(source.stem), "rename it")
        return {(source.stem, "1"): _file(source.stat(), source)}, {}
    if not source.is_dir():
        raise Error(str(source), "an artifact or a folder of artifacts", "nothing there", "check the path")
    found: dict[Key, File] = {}
    ignored: dict[str, str] = {}
    for entry in sorted(source.iterdir()):
        if entry.name.startswith("."):
            continue  # editors, version control, and an artifact that is still being written
        try:
            _entry(entry, found, ignored)
        except OSError as error:  # a link to nothing or to itself, a folder that is closed to us, what vanished since it was listed
            ignored[str(entry)] = f"expected a file or a folder that can be read, got {error.strerror or error}"
    return found, ignored


def _entry(entry: Path, found: dict[Key, File], ignored: dict[str, str]) -> None:
    """Enters one name of the folder. Raises OSError."""
    status = entry.stat()
    if stat.S_ISREG(status.st_mode) and not entry.name.endswith(SUFFIX):
        return  # a README or the like
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        ignored[str(entry)] = "expected a file or a folder, got neither"
        return
    name = entry.name.removesuffix(SUFFIX) if stat.S_ISREG(status.st_mode) else entry.name
    if not NAME.fullmatch(name):
        ignored[str(entry)] = f"expected a name that matches {NAME.pattern}, got {name!r}"
        return
    files = {"1": _file(status, entry)} if stat.S_ISREG(status.st_mode) else _versions(entry, ignored)
    for version, file in files.items():
        if (name, version) in found:
            ignored[str(file.path)] = f"expected version {version} of {name} once, got it twice"
        else:
            found[name, version] = file


def _versions(folder: Path, ignored: dict[str, str]) -> dict[str, File]:
    files = {}
    for path in sorted(folder.iterdir()):
        if not VERSION.fullmatch(path.name) or not os.path.lexists(model := path / f"model{SUFFIX}"):
            continue
        try:
            status = model.stat()
        except OSError as error:
            ignored[str(model)] = f"expected a file that can be read, got {error.strerror or error}"
            continue
        if stat.S_ISREG(status.st_mode):
            files[path.name] = _file(status, model)
        else:
            ignored[str(model)] = "expected a file, got something else"
    return files


def _file(status: os.stat_result, path: Path) -> File:
    return File(path, (status.st_mtime_ns, status.st_size, status.st_ino))


def checksum(path: Path) -> str:
    """The artifact's own checksum, as its header states it; the reader verifies it when it loads the file. Raises ArtifactError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(os.stat(path).st_size, LONGEST_HEADER):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        return str(json.loads(header["__metadata__"]["cosparse"])["checksum"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(str(path), "an artifact with a checksum", str(error), "export it again") from error
