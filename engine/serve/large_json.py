"""Large JSON, read in pieces: Python stands still while one text is parsed, so none that is parsed at once is long.

Long lists, flat or nested, are cut out of the text unread and an agreed word stands in their place; what is left is parsed as a whole and
is short, or refused. A list is parsed where it is asked for, PIECE bytes at a time, straight into an array: of a nested one the brackets
are compared with those that its shape asks for, and the numbers between them read as of a flat one. orjson parses every number.
"""

from __future__ import annotations

import gc
import math
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy
import orjson

from cosparse.engine.serve import tensors

PIECE = 64 << 10  # bytes that are parsed at once
LONG = 4 << 10  # bytes of a list that is cut out
MOST_REST = 1 << 20  # bytes beside the long lists
MOST_QUOTES = 1 << 16
LONGEST = 4 << 10  # bytes of one number, with the space and brackets around it
PAUSE = 5e-5  # seconds between two pieces: the lock is given back, and whoever waits for it has it before it is asked for again

_NUMERIC = b"0123456789+-.eE"
_SPACE = b" \t\r\n"
_NESTED = re.compile(rb"\[[ \t\r\n]*\[")
_BLANK = bytes.maketrans(b"[]", b"  ")
_DIGIT = bytes.maketrans(_NUMERIC, b"0" * len(_NUMERIC))


@dataclass(frozen=True)
class LongList:
    """The list that is body[start:end], its brackets included."""

    body: bytes | bytearray
    start: int
    end: int

    def array(self, about: str, shape: tuple[int, ...]) -> numpy.ndarray:
        """As `tensors.from_numbers`. Raises Refused. Commas are counted first, so that the cost is that of the numbers that were sent."""
        body, wanted = self.body, math.prod(shape)
        found = _count(body, b",", self.start, self.end) + 1
        if found != wanted:
            raise tensors.invalid(about, f"{wanted} numbers for shape {list(shape)}", f"numbers of shape [{found}]")
        nested = _NESTED.match(body, self.start, min(self.end, self.start + LONGEST)) is not None
        brackets = Brackets(about, shape, self.end - self.start) if nested else None
        start, end = (self.start, self.end) if nested else (self.start + 1, self.end - 1)
        array, at = numpy.empty(wanted, numpy.float32), 0
        while start <= end and at < wanted:
            stop = self._comma(about, start, end)
            text = body[start:stop]
            numbers = _parse(text.translate(_BLANK) if brackets else text, start)
            if not numbers or at + len(numbers) > wanted:
                raise tensors.invalid("body", "JSON", f"a list with an empty place near byte {start}")
            array[at : at + len(numbers)] = tensors.numbers(about, numbers)
            if brackets:
                brackets.compare(text)
            at += len(numbers)
            start = stop + 1
            time.sleep(PAUSE)
        if at != wanted or (brackets and not brackets.over):
            raise tensors.invalid(about, f"{wanted} numbers for shape {list(shape)}", f"numbers of shape [{at}]")
        return array.reshape(shape)

    def _comma(self, about: str, start: int, end: int) -> int:
        """Where the piece ends that begins here: at a comma, or the list's end."""
        if end - start <= PIECE:
            return end
        stop = self.body.find(b",", start + PIECE, min(end, start + PIECE + LONGEST))
        if stop < 0 and end - start > PIECE + LONGEST:
            raise tensors.invalid(about, f"numbers of less than {LONGEST} bytes", f"more near byte {start + PIECE}")
        return stop if stop >= 0 else end


class Brackets:
    """The brackets and commas of lists nested as a shape of two or more sizes, compared with those of a text as its pieces come."""

    def __init__(self, about: str, shape: tuple[int, ...], most: int) -> None:
        """Raises Refused where they are more than `most` bytes, before they are made."""
        self._about, self._shape, self._at = about, shape, 0
        self._size = 2 * sum(math.prod(shape[:axis]) for axis in range(len(shape))) + math.prod(shape) - 1
        if self._size > most:
            raise self._uneven("fewer brackets")
        image = b"," * (shape[-1] - 1)
        for size in reversed(shape[1:-1]):
            image = b"[%b]," % image * (size - 1) + b"[%b]" % image
        image = b"[%b]," % image
        self._period, self._images = len(image), image * (2 + (PIECE + LONGEST) // len(image))

    @property
    def over(self) -> bool:
        return self._at == self._size

    def compare(self, text: bytes | bytearray) -> None:
        """The next piece; the comma between two of them is in neither. Raises Refused where it has others, or a number stands behind a
        closing or before an opening one: then it is in none of the innermost lists."""
        flat = text.translate(_DIGIT, _SPACE)
        own = (b"," if self._at else b"") + flat.translate(None, b"0")
        start = (self._at - 1) % self._period if self._at else 0
        wanted = (b"" if self._at else b"[") + self._images[start : start + len(own)]
        left = self._size - 1 - self._at  # before the last bracket of all
        wanted = wanted[: len(own)] if len(own) <= left else wanted[:left] + b"]"
        if own != wanted or b"]0" in flat or b"0[" in flat:
            raise self._uneven("other lists")
        self._at += len(own)

    def _uneven(self, got: str) -> Exception:
        return tensors.invalid(self._about, f"data, a list of numbers, flat or nested evenly as {list(self._shape)}", got)


def loads(body: bytes | bytearray, length: int) -> Any:
    """The JSON of the first `length` bytes; long `data` of entries of `inputs` are LongList. Raises Refused, and what orjson raises."""
    quotes = _count(body, b'"', 0, length)
    if quotes > MOST_QUOTES:
        raise tensors.invalid("body", f"at most {MOST_QUOTES} quotation marks in large JSON", str(quotes), "data are numbers")
    word, at = secrets.token_hex(16), 0
    lists: dict[str, LongList] = {}
    parts: list[bytes | bytearray] = []
    for found in _long_lists(body, length):
        mark = f"{word} {len(lists)}"
        parts += [body[at : found.start], f'"{mark}"'.encode()]
        lists[mark], at = found, found.end
    left = sum(map(len, parts)) + length - at
    if left > MOST_REST:
        wanted = f"at most {MOST_REST} bytes beside lists of numbers in large JSON"
        raise tensors.invalid("body", wanted, str(left), "data are lists of numbers, or binary")
    parts.append(body[at:length])
    message = _whole(b"".join(parts))
    if isinstance(message, str) and message in lists:
        return []
    _put(message, lists)
    if lists:
        first = min(found.start for found in lists.values())
        raise tensors.invalid("body", f"lists of more than {LONG} bytes as data of inputs alone", f"another at byte {first}")
    return message


def _put(message: Any, lists: dict[str, LongList]) -> None:
    """Puts the lists that are data of inputs back; leaves the others in `lists`."""
    entries = message.get("inputs") if isinstance(message, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        data = entry.get("data") if isinstance(entry, dict) else None
        if isinstance(data, str) and data in lists:
            entry["data"] = lists.pop(data)


def _whole(text: bytes) -> Any:
    """Without the collector, which would look at all the new lists again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(text)
    finally:
        if collecting:
            gc.enable()


def _parse(text: bytes | bytearray, start: int) -> list[Any]:
    try:
        return orjson.loads(b"".join((b"[", text, b"]")))
    except orjson.JSONDecodeError as error:
        raise tensors.invalid("body", "JSON", f"{error.msg}, near byte {start + error.pos - 1}") from None


def _long_lists(body: bytes | bytearray, length: int) -> list[LongList]:
    """At most one between two texts: another would be no value of an object's key, and no request has such."""
    found, at = [], 0
    while at < length:
        quote = body.find(b'"', at, length)
        end = quote if quote >= 0 else length
        if end - at >= LONG and (start := body.find(b"[", at, end)) >= 0:
            stop = _list_end(body, start, end)
            if stop - start >= LONG:
                found.append(LongList(body, start, stop))
        at = _text_end(body, quote + 1, length) if quote >= 0 else length
    return found


def _list_end(body: bytes | bytearray, start: int, end: int) -> int:
    """Behind the bracket that closes the list; `start` where none does before `end`. Brackets of the last piece alone are looked at one by
    one."""
    depth = 0
    for at, stop in _pieces(start, end, PIECE):
        after = depth + body.count(b"[", at, stop) - body.count(b"]", at, stop)
        if after <= 0:
            for bracket in re.finditer(rb"[\[\]]", memoryview(body)[at:stop]):
                depth += 1 if bracket[0] == b"[" else -1
                if depth == 0:
                    return at + bracket.end()
        depth = after
    return start


def _text_end(body: bytes | bytearray, at: int, length: int) -> int:
    """Behind the quotation mark that ends the text that begins here; one behind an odd number of backslashes is part of the text."""
    while (quote := body.find(b'"', at, length)) >= 0:
        if body[quote - 1] != 0x5C:
            return quote + 1
        if _backslashes(body, at, quote) % 2 == 0:
            return quote + 1
        at = quote + 1
    return length


def _backslashes(body: bytes | bytearray, start: int, end: int) -> int:
    """How many end body[start:end]."""
    at = end
    while at > start:
        part = body[max(start, at - PIECE) : at]
        others = len(part.rstrip(b"\\"))
        at -= len(part) - others
        if others:
            break
    return end - at


def _count(body: bytes | bytearray, what: bytes, start: int, end: int) -> int:
    return sum(body.count(what, at, stop) for at, stop in _pieces(start, end, 16 * PIECE))


def _pieces(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, size):
        yield at, min(at + size, end)
        time.sleep(PAUSE)
