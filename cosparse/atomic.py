"""Files that are replaced as a whole: written beside the old one, brought to the disk, renamed. Where they may go is asked before the work.

A symbolic link is followed: its target is replaced, the link stays. Devices, pipes and sockets are never replaced: `write_bytes` writes
straight into them, `replacing` refuses them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from cosparse.errors import Error

_STREAMS = {stat.S_IFCHR: "a character device", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a block device", **_STREAMS}


def require_writable(about: str, path: str | os.PathLike[str], streams: bool = False) -> None:
    """Raises Error, which names `about`, where `replacing`, with `streams` `write_bytes`, cannot write to `path`: asked before the work."""
    kind = _kind(path, about)
    if streams and _standard(path) is not None:
        return
    if streams and kind in _STREAMS:
        if not os.access(path, os.W_OK):
            raise Error(about, "a file that can be written", os.fspath(path), "check its rights")
        return
    if kind in _KINDS:
        raise Error(about, "a file", f"{os.fspath(path)}, {_KINDS[kind]}", "give the name of a file")
    folder = Path(os.path.realpath(path)).parent
    if not os.path.isdir(folder):
        raise Error(about, f"an existing folder {folder if os.path.islink(path) else Path(path).parent}", "none", "make it first")
    _require_room(about, folder)


def require_folder(about: str, folder: str | os.PathLike[str]) -> None:
    """Raises Error, which names `about`, where no file could be put into `folder`, which need not be there yet."""
    here = Path(os.path.realpath(folder))
    while not os.path.exists(here):
        here = here.parent
    if not os.path.isdir(here):
        raise Error(about, "a folder, or nothing yet", "a file")
    _require_room(about, here)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path to write to, an empty file; behind the block it is at `path`. An exception or a kill inside leaves the old file whole.

    It is a hidden file beside the target, which only a killed process leaves behind, with the rights that the umask leaves. A full disk is
    an OSError that names `path`, also where safetensors meets it; a folder at `path` is one too, a device, pipe or socket an Error.
    """
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind in _KINDS:
        raise Error(os.fspath(path), "a regular file, or nothing yet", _KINDS[kind], "give the name of a file")
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        with _named(path, part):
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, target)
    except SafetensorError as error:
        raise OSError(f"{os.fspath(path)}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # it has its new name, or was never made
            part.unlink()
    _sync_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Writes the file whole or not at all; into a device, a pipe or what standard output or error is already, straight."""
    descriptor = _standard(path)
    if descriptor is not None or _kind(path) in _STREAMS:
        place = path if descriptor is None else os.dup(descriptor)  # which shares its position with whoever writes there too
        with _named(path), open(place, "wb") as stream:
            stream.write(content)
        return
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes` of the text in UTF-8. What that cannot hold, the stray bytes of a file's name, stands as an escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def _require_room(about: str, folder: Path) -> None:
    """A file without a name, made and closed: rights alone do not say it, of root or on a file system that may only be read."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        got = f"{folder} ({error.strerror})"
        raise Error(about, "a folder that can be written", got, "check its rights, or write elsewhere") from error


@contextlib.contextmanager
def _named(path: str | os.PathLike[str], part: Path | None = None) -> Iterator[None]:
    """A failing write names no file, or the hidden one: the OSError gets the name that was asked for."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = os.fspath(path)
        raise


def _kind(path: str | os.PathLike[str], about: str = "") -> int | None:
    """The type of the file, links followed; None where there is none yet."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):  # whoever creates it says so
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Error(about or repr(os.fspath(path)), "a path to write to", f"{os.fspath(path)!r} ({reason})", "check the path") from error


def _standard(path: str | os.PathLike[str]) -> int | None:
    """The descriptor of standard output or error where the path names the same file, as /dev/stdout does wherever it leads."""
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError):  # closed, or no file there
            if stream is not None and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                return stream.fileno()
    return None


def _sync_folder(folder: Path) -> None:
    """Makes a rename in the folder durable, where it may be read."""
    with contextlib.suppress(PermissionError):  # one may write into a folder that one may not read: the file is in its place
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
