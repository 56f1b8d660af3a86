"""Malformed containers: length, JSON, tensor entries, byte ranges, checksum."""

import struct

from artifact_parts import NO_DIGITS, Parts
from malformed_case import Case, Mutation, case, entry, file_bytes, header_text, network, network_text, poke

MANY = 4194304


def length(value: int) -> Mutation:
    return file_bytes(lambda content: struct.pack("<Q", value) + content[8:])


def raw_header(header: bytes) -> Mutation:
    header = header.ljust(16)
    return file_bytes(lambda content: struct.pack("<Q", len(header)) + header)


def shift(tensor: str, by: int) -> Mutation:
    """Moves a tensor's byte range."""

    def mutate(parts: Parts) -> None:
        fields = parts.header[tensor]
        fields["data_offsets"] = [at + by for at in fields["data_offsets"]]

    return mutate


def add_tensor(name: str, **fields: object) -> Mutation:
    """An empty tensor at the start of the data."""

    def mutate(parts: Parts) -> None:
        parts.header[name] = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0], **fields}

    return mutate


def in_preprocessing(text: str) -> Mutation:
    """Raw JSON text where nothing else of the network is touched."""
    return network_text(lambda network: network.replace('"preprocessing": {', '"preprocessing": {"raw": ' + text + ", ", 1))


def stored_twice(parts: Parts) -> None:
    parts.network["provenance"]["copy"] = "blake2b-256:" + NO_DIGITS
    parts.edit_file = lambda content: content.replace(NO_DIGITS.encode(), content.split(b"blake2b-256:")[1][:64])


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def misaligned(parts: Parts) -> None:
    """U16 columns first, so that the F32 tensors behind start at a multiple of 2 only."""
    begin, end = parts.header["block.columns"]["data_offsets"]
    parts.data[:] = parts.data[begin:end] + parts.data[:begin] + parts.data[end:]
    for name, fields in parts.header.items():
        if name != "__metadata__" and fields["data_offsets"][0] < begin:
            fields["data_offsets"] = [at + end - begin for at in fields["data_offsets"]]
    parts.header["block.columns"]["data_offsets"] = [0, end - begin]


DENSE = "tensor 'dense.values'"
CASES: list[Case] = [
    case("empty file", file_bytes(lambda content: b""), "at least 8 bytes", "got 0"),
    case("seven bytes", file_bytes(lambda content: content[:7]), "at least 8 bytes", "got 7"),
    case("eight bytes", file_bytes(lambda content: content[:8]), "header: expected a length within the file's 8 bytes"),
    case(
        "text file",
        file_bytes(lambda content: b"not a network, just some words\n"),
        "header: expected a length of at most 64 MiB",
        "is this a .cosparse",
    ),
    case("header length 2^64 - 1", length(2**64 - 1), "at most 64 MiB", "18446744073709551615"),
    case("header length 64 MiB + 8", length(2**26 + 8), "at most 64 MiB", "67108872"),
    case("header length beyond the file", length(2**20), "header: expected a length within the file's", "got 1048576"),
    case("header length no multiple of 8", length(1001), "multiple of 8", "1001"),
    case("header length 0", length(0), "header: expected JSON that starts with '{'", "no header"),
    case("header length too short", length(808), "header: expected", "at byte 808", "damaged"),
    case("header a list", raw_header(b"[]"), "header: expected JSON that starts with '{'"),
    case("header not UTF-8", raw_header(b'{"\xff": 1}'), "header: expected UTF-8, got the byte 255 at byte 2"),
    case("header overlong UTF-8", raw_header(b'{"\xc0\xaf": 1}'), "header: expected UTF-8", "the byte 192"),
    case("header raw surrogate", header_text(lambda text: text.replace("every_op", "\ud800")), "header: expected UTF-8", "the byte 237"),
    case("header and more", header_text(lambda text: text + " {}"), "header: expected the end of the JSON text, got '{'"),
    case("header cut", header_text(lambda text: text[:-1]), "header: expected ',' or '}'", "the end of the text"),
    case("header with a NUL", header_text(lambda text: text + "\0"), "header: expected the end of the JSON text, got '\\x00'"),
    case("header comma too many", header_text(lambda text: text[:-1] + ",}"), "a key in double quotes, got '}'"),
    case(
        "duplicate tensor",
        header_text(lambda text: text.replace('"affine.shift"', '"affine.scale"').replace("{", '{"affine.scale": 1, ', 1)),
        "each key once",
        "'affine.scale' twice",
    ),
    case("no metadata", lambda parts: parts.header.pop("__metadata__"), "'__metadata__' with the network", "no cosparse artifact"),
    case(
        "metadata a string", lambda parts: parts.header.update(__metadata__="pt"), "'__metadata__': expected an object, got the string 'pt'"
    ),
    case(
        "metadata of another writer",
        lambda parts: parts.header.update(__metadata__={"format": "pt"}),
        "'__metadata__': expected the field 'cosparse', got none",
    ),
    case("metadata and more", lambda parts: parts.header["__metadata__"].update(format="pt"), "no field but cosparse, got 'format'"),
    case(
        "network no string",
        lambda parts: parts.header["__metadata__"].update(cosparse={}),
        "the network's JSON as a string",
        "an object of 0",
    ),
    case("network no JSON", network_text(lambda text: "resnet"), "graph: expected a JSON value, got 'r' at byte 0"),
    case("network empty", network_text(lambda text: ""), "graph: expected a JSON value, got the end of the text"),
    case("network a list", network_text(lambda text: "[]"), "graph: expected an object, got a list of 0"),
    case(
        "duplicate key in network",
        network_text(lambda text: text.replace("{", '{"name": "a", ', 1)),
        "graph: expected each key once",
        "'name' twice",
    ),
    case("depth 33", in_preprocessing("[" * 31 + "]" * 31), "graph: expected JSON at most 32 levels deep"),
    case("depth 500,000", in_preprocessing("[" * 500000 + "]" * 500000), "graph: expected JSON at most 32 levels deep"),
    case("too many JSON values", in_preprocessing("[" + "0," * MANY + "0]"), "graph: expected at most 4194304 JSON values"),
    case("number NaN", in_preprocessing("NaN"), "graph: expected a JSON value, got 'N'"),
    case("number Infinity", in_preprocessing("-Infinity"), "graph: expected a JSON value, got 'I'"),
    case("number 1e400", in_preprocessing("1e400"), "a number that a double can hold, got '1e400'"),
    case("integer of 65 bits", in_preprocessing("18446744073709551616"), "an integer of 64 bits, got '18446744073709551616'"),
    case("leading zero", in_preprocessing("007"), "no leading zero"),
    case("number ends at the point", in_preprocessing("1."), "expected a digit, got ','"),
    case("hexadecimal", in_preprocessing("0x10"), "graph: expected ',' or '}', got 'x'"),
    case("lone surrogate", in_preprocessing('"\\ud800"'), "a low surrogate after a high one"),
    case("lone low surrogate", in_preprocessing('"\\udc00"'), "a high surrogate before a low one"),
    case("bad escape", in_preprocessing('"\\x41"'), "after a backslash, got 'x'"),
    case("short unicode escape", in_preprocessing('"\\u12"'), "four hexadecimal digits"),
    case("raw control character", in_preprocessing('"a\nb"'), "no raw control character", "'\\x0a'"),
    case("single quotes", in_preprocessing("'a'"), "a JSON value, got '''"),
    case("half a word", in_preprocessing("tru"), "a JSON value, got 't'"),
    case("dtype F64", entry("dense.values", dtype="F64"), DENSE, "dtype F32, U16 or U32, got 'F64'"),
    case("dtype a number", entry("dense.values", dtype=32), DENSE, "a dtype, got the integer 32"),
    case("dtype missing", entry("dense.values", dtype=None), DENSE, "the field 'dtype', got none"),
    case("tensor field unknown", entry("dense.values", strides=[1]), DENSE, "no field but dtype, shape, data_offsets, got 'strides'"),
    case("tensor a list", lambda parts: parts.header.update({"dense.values": [1]}), DENSE, "an object, got a list of 1"),
    case("shape negative", entry("dense.values", shape=[-6, 5, 3, 1]), DENSE, "sizes from 0 to 2147483647", "-6"),
    case("shape of reals", entry("dense.values", shape=[6.0, 5, 3, 1]), DENSE, "integers in its shape, got the number 6"),
    case("shape of truths", entry("dense.values", shape=[6, 5, 3, True]), DENSE, "integers in its shape, got true"),
    case("shape a number", entry("dense.values", shape=90), DENSE, "a shape, got the integer 90"),
    case("rank 0", entry("dense.values", shape=[]), DENSE, "rank 1 to 5", "[]"),
    case("rank 6", entry("dense.values", shape=[1, 1, 6, 5, 3, 1]), DENSE, "rank 1 to 5", "[1, 1, 6, 5, 3, 1]"),
    case("elements overflow", entry("dense.values", shape=[2**31 - 1] * 5), DENSE, "at most 2147483647 elements"),
    case("size beyond 31 bits", entry("dense.values", shape=[2**62, 4]), DENSE, "sizes from 0 to 2147483647", str(2**62)),
    case("bytes against shape", entry("dense.values", shape=[6, 5, 3, 2]), DENSE, "720 bytes for shape [6, 5, 3, 2], got 360"),
    case("offsets reversed", entry("dense.values", data_offsets=[400, 40]), DENSE, "data_offsets within", "[400, 40]"),
    case("offsets negative", entry("dense.values", data_offsets=[-360, 0]), DENSE, "data_offsets within", "[-360, 0]"),
    case("offsets beyond the data", entry("dense.values", data_offsets=[2**40, 2**40 + 360]), DENSE, "data_offsets within", "truncated"),
    case("offsets of 64 bits", entry("dense.values", data_offsets=[0, 2**63 - 1]), DENSE, "data_offsets within", str(2**63 - 1)),
    case("three offsets", entry("dense.values", data_offsets=[0, 1, 2]), DENSE, "data_offsets [begin, end], got a list of 3"),
    case("offsets real", entry("dense.values", data_offsets=[0.5, 360.5]), DENSE, "integers in data_offsets", "0.5"),
    case("overlap", shift("dense.values", -4), "data of its own", "for a start, which overlaps with tensor"),
    case("gap at the end", lambda parts: parts.data.extend(b"\0" * 8), "the tensors to fill the", "an end at byte"),
    case("gap at the start", lambda parts: _prepend(parts), "data that start at byte 0, got a gap: they start at byte 8"),
    case("misaligned", misaligned, "data_offsets that start at a multiple of 4, got 10"),
    case("tensor name empty", add_tensor(""), "tensor '': expected a name of 1 to 1024 bytes, got 0 bytes"),
    case("tensor name long", add_tensor("n" * 1025), "a name of 1 to 1024 bytes, got 1025 bytes", "nnn...'"),
    case(
        "tensor name with a newline", add_tensor("a\nb"), "tensor 'a\\x0ab': expected a name without control characters, got one at byte 1"
    ),
    case("tensor name with a C1 control", add_tensor("a\x85"), "a name without control characters"),
    case("tensor unused", add_tensor("extra"), "tensor 'extra': expected a node that uses it, got none"),
    case("data cut", file_bytes(lambda content: content[:-2]), "data_offsets within the", "the file may be truncated"),
    case("data grown", file_bytes(lambda content: content + b"\0"), "the tensors to fill the"),
    case("data flipped", file_bytes(flip_last_byte), "graph: checksum: expected", "the file is damaged"),
    case("checksum missing", network(checksum=None), "graph: expected the field 'checksum', got none"),
    case("checksum a number", network(checksum=0), "graph: checksum: expected a string, got the integer 0"),
    case(
        "checksum of another kind", network(checksum="sha256:" + NO_DIGITS), "graph: checksum: expected 'blake2b-256:' and 64", "'sha256:"
    ),
    case("checksum short", network(checksum="blake2b-256:" + "0" * 63), "graph: checksum: expected 'blake2b-256:' and 64"),
    case("checksum upper case", network(checksum="blake2b-256:" + "A" * 64), "64 lower-case hexadecimal digits"),
    case("checksum left at zero", file_bytes(lambda content: _unfix(content)), "graph: checksum: expected " + NO_DIGITS),
    case(
        "checksum escaped",
        network_text(lambda text: text.replace("256:0", "256:\\u0030")),
        "the checksum's text once",
        "an escaped form of it",
    ),
    case("checksum twice", stored_twice, "the checksum's text once in the header, got it twice"),
    case("NaN", poke("dense.values", 7, float("nan")), DENSE, "finite values, got NaN at element 7"),
    case("infinity", poke("affine.scale", 9, float("-inf")), "tensor 'affine.scale'", "finite values, got infinity at element 9"),
]


def _prepend(parts: Parts) -> None:
    parts.data[:0] = b"\0" * 8
    for name, fields in parts.header.items():
        if name != "__metadata__":
            fields["data_offsets"] = [at + 8 for at in fields["data_offsets"]]


def _unfix(content: bytes) -> bytes:
    digits = content.split(b"blake2b-256:")[1][:64]
    return content.replace(digits, NO_DIGITS.encode())
