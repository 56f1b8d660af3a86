"""The model repository as it lies on disk: NAME.cosparse, or NAME/VERSION/model.cosparse, or both.

    {(name, version): File}; a lone artifact NAME.cosparse is version 1 of NAME. Names match NAME, versions are whole numbers from 1.

Names of requests are only ever looked up in what was found here, never made into paths.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from cosparse.errors import ArtifactError, Error

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
SUFFIX = ".cosparse"
LONGEST_HEADER = 64 << 20  # bytes: the artifact's own limit (docs/artifact.md)
CHECKSUM = re.compile(rb"blake2b-256:[0-9a-f]{64}")
LONGEST_CHECKSUM = 76  # bytes
PIECE = 256 << 10  # bytes of a header that are searched at once, while the interpreter runs nothing else
GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # what says that nothing is there; any other error, that it cannot be seen now
Key = tuple[str, str]


@dataclass(frozen=True)
class File:
    """`stamp` changes whenever the file is written anew or exchanged."""

    path: Path
    stamp: tuple[int, int, int, int]


@dataclass
class Look:
    """`found`: what there is to serve; ignored: what was passed over, path -> why; unseen: of these, the files and folders that may well be
    there, as the error (a network that is away, too many open files) was of another kind."""

    found: dict[Key, File] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unseen: set[Path] = field(default_factory=set)

    def fail(self, path: Path, error: OSError) -> None:
        self.ignored[str(path)] = f"expected a file or a folder that can be read, got {error.strerror or error}"
        if error.errno not in GONE:
            self.ignored[str(path)] += "; what is served of it stays"
            self.unseen.add(path)


def scan(source: Path) -> Look:
    """Raises Error where `source` is neither file nor folder, OSError where it cannot be read; an entry that cannot be is passed over
    alone."""
    if source.is_file():
        if not NAME.fullmatch(source.stem):
            raise Error(str(source), f"a file name that matches {NAME.pattern}", repr(source.stem), "rename it")
        return Look({(source.stem, "1"): _file(source.stat(), source)})
    if not source.is_dir():
        raise Error(str(source), "an artifact or a folder of artifacts", "nothing there", "check the path")
    look = Look()
    for entry in sorted(source.iterdir()):
        if entry.name.startswith("."):
            continue  # editors, version control, and an artifact that is still being written
        try:
            _entry(entry, look)
        except OSError as error:  # a link to nothing or to itself, a folder that is closed to us, what vanished since it was listed
            look.fail(entry, error)
    return look


def deleted(source: Path) -> bool:
    """Whether a lone artifact is no longer there, while the folder in which it was still is. Raises OSError."""
    try:
        source.stat()
    except FileNotFoundError:
        return source.parent.is_dir()
    return False


def _entry(entry: Path, look: Look) -> None:
    """Enters one name of the folder. Raises OSError."""
    status = entry.stat()
    if stat.S_ISREG(status.st_mode) and not entry.name.endswith(SUFFIX):
        return  # a README or the like
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        look.ignored[str(entry)] = "expected a file or a folder, got neither"
        return
    name = entry.name.removesuffix(SUFFIX) if stat.S_ISREG(status.st_mode) else entry.name
    if not NAME.fullmatch(name):
        look.ignored[str(entry)] = f"expected a name that matches {NAME.pattern}, got {name!r}"
        return
    files = {"1": _file(status, entry)} if stat.S_ISREG(status.st_mode) else _versions(entry, look)
    for version, file in files.items():
        if (name, version) in look.found:
            look.ignored[str(file.path)] = f"expected version {version} of {name} once, got it twice"
        else:
            look.found[name, version] = file


def _versions(folder: Path, look: Look) -> dict[str, File]:
    files = {}
    for path in sorted(folder.iterdir()):
        if not VERSION.fullmatch(path.name):
            continue
        model = path / f"model{SUFFIX}"
        try:
            status = model.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or model.is_symlink():  # else there is none in this folder
                look.fail(model, error)
            continue
        if stat.S_ISREG(status.st_mode):
            files[path.name] = _file(status, model)
        else:
            look.ignored[str(model)] = "expected a file, got something else"
    return files


def _file(status: os.stat_result, path: Path) -> File:
    # The time of the change too: whoever writes a file can set the time at which it was written, but not this one.
    return File(path, (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))


def unchanged(file: File) -> bool:
    """Raises OSError."""
    return _file(file.path.stat(), file.path) == file


def checksum(path: Path) -> str:
    """The artifact's own checksum, as its header states it; the reader verifies it when it loads the file. A header that has several such
    texts gives its own digest, which tells files apart as well. Raises ArtifactError.

    The header is searched in pieces and not read as JSON: of a hostile one that would take seconds, for which nothing else runs.
    """
    found: set[bytes] = set()
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        left = int.from_bytes(file.read(8), "little")
        if not 0 < left <= min(os.stat(path).st_size, LONGEST_HEADER):
            raise ArtifactError(str(path), "an artifact with a checksum", f"a header of {left} bytes", "export it again")
        rest = b""
        while left > 0 and (piece := file.read(min(left, PIECE))):
            left -= len(piece)
            digest.update(piece)
            text = rest + piece
            if len(found) < 2:
                found.update(CHECKSUM.findall(text))
            rest = text[1 - LONGEST_CHECKSUM :]
    if not found:
        raise ArtifactError(str(path), "an artifact with a checksum", "none in its header", "export it again")
    return found.pop().decode() if len(found) == 1 else f"header-blake2b-256:{digest.hexdigest()}"
