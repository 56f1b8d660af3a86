"""A valid artifact taken apart, so that a test can bend one part and put it together again, checksum included."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from cosparse.engine import artifact
from cosparse.engine.graph import Graph

NO_DIGITS = "0" * 64
DTYPES = {"F32": "<f4", "U16": "<u2", "U32": "<u4"}


@dataclass
class Parts:
    """`header` and `network` are JSON objects, `data` the tensors' bytes. The edits run on what is made of them."""

    header: dict[str, Any]
    network: dict[str, Any]
    data: bytearray
    edit_network: Callable[[str], str] = field(default=lambda text: text)
    edit_header: Callable[[str], str] = field(default=lambda text: text)
    edit_file: Callable[[bytes], bytes] = field(default=lambda content: content)  # after the checksum

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.network["nodes"] if node["name"] == name)

    def array(self, name: str) -> numpy.ndarray:
        """The tensor as a view to write to."""
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        return numpy.frombuffer(memoryview(self.data)[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])

    def exchange(self, name: str, array: numpy.ndarray) -> None:
        """Another tensor of that name; those behind it move."""
        begin, end = self.header[name]["data_offsets"]
        self.data[begin:end] = array.tobytes()
        moved = array.nbytes - (end - begin)
        for other, entry in self.header.items():
            if other not in ("__metadata__", name) and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at + moved for at in entry["data_offsets"]]
        dtype = next(key for key, value in DTYPES.items() if numpy.dtype(value) == array.dtype)
        self.header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, begin + array.nbytes]}

    def to_bytes(self) -> bytes:
        if self.header.get("__metadata__") == {"cosparse": None}:
            self.header["__metadata__"]["cosparse"] = self.edit_network(json.dumps(self.network))
        return self.edit_file(_assemble(self.edit_header(json.dumps(self.header)), bytes(self.data)))


def take_apart(graph: Graph) -> Parts:
    content = artifact.to_bytes(graph)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    network = json.loads(header["__metadata__"]["cosparse"])
    network["checksum"] = artifact.CHECKSUM_PREFIX + NO_DIGITS
    header["__metadata__"]["cosparse"] = None  # filled from `network` at the end
    return Parts(header, network, bytearray(content[8 + length :]))


def _assemble(header: str, data: bytes) -> bytes:
    raw = header.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return _fix_checksum(struct.pack("<Q", len(raw)) + raw + data)


def _fix_checksum(content: bytes) -> bytes:
    """Fills in the digits where the placeholder stands; by hashlib, independent of the runtime's own BLAKE2b."""
    placeholder = (artifact.CHECKSUM_PREFIX + NO_DIGITS).encode()
    digits = hashlib.blake2b(content, digest_size=32).hexdigest()
    return content.replace(placeholder, (artifact.CHECKSUM_PREFIX + digits).encode(), 1)
