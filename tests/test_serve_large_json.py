"""Large JSON: read in pieces, with the arrays and the refusals of JSON that is parsed as a whole."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from cosparse.engine.engine import ValueSpec
from cosparse.engine.serve import Refused, http_infer, large_json

IMAGE = ValueSpec("x", (None, 2, 3, 4), "float32")
ROW = ValueSpec("x", (None, 4), "float32")


def parse(body: bytes, spec: ValueSpec = ROW) -> np.ndarray:
    return http_infer.parse(body, None, SimpleNamespace(name="small", inputs=(spec,), outputs=(spec,)), None).arrays[0]


def body(data: bytes, shape: list[int], more: bytes = b"") -> bytes:
    return b'{"id":"\\"[\\\\","inputs":[{"name":"x","shape":%b,"datatype":"FP32","data":%b}]%b}' % (orjson.dumps(shape), data, more)


def refused(text: bytes, spec: ValueSpec = ROW) -> str:
    with pytest.raises(Refused) as info:
        parse(text, spec)
    assert info.value.kind.reason == "invalid"
    return str(info.value)


def rows(count: int, row: bytes = b"[0,1,2,3]") -> bytes:
    return b"[%b]" % b",".join([row] * count)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts that are parsed: Python stands still for each of them."""
    lengths: list[int] = []
    loads = orjson.loads

    def counting(text: bytes) -> Any:
        lengths.append(len(text))
        return loads(text)

    monkeypatch.setattr(large_json, "orjson", SimpleNamespace(loads=counting, JSONDecodeError=orjson.JSONDecodeError))
    return lengths


@pytest.mark.parametrize("style", ["flat", "nested", "indented"])
def test_numbers_come_in_pieces(parsed: list[int], style: str) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 2, 3, 4))
    data = json.dumps(x.ravel().tolist() if style == "flat" else x.tolist(), indent=2 if style == "indented" else None)
    np.testing.assert_array_equal(parse(body(data.encode(), [2000, 2, 3, 4]), IMAGE), x.astype(np.float32))
    assert len(parsed) > len(data) // (large_json.PIECE + large_json.LONGEST)
    assert max(parsed) <= large_json.PIECE + large_json.LONGEST + 2


def small_pieces(patch: pytest.MonkeyPatch, whole: bool) -> None:
    for name, value in (("PIECE", 24), ("LONG", 14), ("LONGEST", 16), ("PAUSE", 0)):
        patch.setattr(large_json, name, value)
    patch.setattr(http_infer, "LARGE", 1 << 30 if whole else 0)


def damaged(rnd: random.Random, text: bytes) -> bytes:
    made = bytearray(text)
    for _ in range(rnd.choice((0, 0, 1, 1, 2, 3))):
        place, how, byte = rnd.randrange(len(made)), rnd.random(), rnd.choice(b'[],{}":0123456789.eE-+ \\tn')
        if how < 0.35:
            made[place] = byte
        elif how < 0.6:
            del made[place]
        elif how < 0.9:
            made.insert(place, byte)
        else:
            other = rnd.randrange(len(made))
            made[place], made[other] = made[other], made[place]
    return bytes(made)


def test_whatever_the_bytes_it_is_read_as_json_that_is_parsed_as_a_whole() -> None:
    rnd, taken, refusals = random.Random(5), 0, 0
    for turn in range(6000):
        spec = rnd.choice((IMAGE, ROW))
        x = np.random.default_rng(turn).normal(size=(rnd.choice((1, 2, 3)), *spec.shape[1:])).round(rnd.choice((0, 1, 3)))
        data = orjson.dumps(x if rnd.random() < 0.7 else x.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
        data = data.replace(b",", rnd.choice((b",", b",", b", ", b" ,", b",\n ")))
        text = damaged(rnd, body(data, list(x.shape)))
        found: list[np.ndarray | Refused] = []
        for whole in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                small_pieces(patch, whole)
                try:
                    found.append(parse(text, spec))
                except Refused as error:
                    found.append(error)
        one, other = found
        assert type(one) is type(other), (text, found)
        if isinstance(one, Refused):
            assert one.kind is other.kind
            refusals += 1
        else:
            np.testing.assert_array_equal(one, other)
            taken += 1
    assert min(taken, refusals) > 1000


N = 100_000
HOSTILE = {
    "brackets alone": (b"[" * 400_000, "at most 1048576 bytes beside lists|body: expected JSON"),
    "many brackets": (b"[" * 2_000_000, "body: expected at most 1048576 bytes beside lists of numbers in large JSON, got 2000"),
    "a long number": (b"1" * 2_000_000, "bytes beside lists of numbers in large JSON, got 2000"),
    "a long number in a list": (b"[" + b"0," * 399_999 + b"1" * 2_000_000 + b"]", "numbers of less than 4096 bytes, got more near byte"),
    "space in a list": (b"[" + b"0," * 399_999 + b" " * 2_000_000 + b"4]", "numbers of less than 4096 bytes, got more near byte"),
    "a long text": (b'"' + b"a" * 2_000_000 + b'"', "bytes beside lists of numbers in large JSON, got 2000"),
    "a long text of escapes": (b'"' + b"\\\\" * 1_000_000 + b'"', "bytes beside lists of numbers in large JSON, got 2000"),
    "texts": (rows(N, b'""'), "body: expected at most 65536 quotation marks in large JSON, got 200"),
    "escaped quotation marks": (b'"' + b'\\"' * N * 2 + b'"', "body: expected at most 65536 quotation marks in large JSON, got 200"),
    "empty lists": (b"[" + b"[]," * 399_999 + b"[]]", "body: expected JSON"),
    "empty lists at the ends": (b"[[],[]," + b"0,0,0,0," * (N - 1) + b"[],[]]", "body: expected JSON|got numbers of shape"),
    "objects": (b"[" + b"{}," * 399_999 + b"{}]", "flat or nested evenly, got dict values"),
    "null": (b"[" + b"null," * 399_999 + b"null]", "flat or nested evenly, got NoneType values"),
    "not a number": (b"[" + b"NaN," * 399_999 + b"NaN]", "body: expected JSON, got unexpected character"),
    "beyond double precision": (b"[" + b"1e999," * 399_999 + b"1]", "body: expected JSON, got number is infinity"),
    "beyond float32": (b"[" + b"1e300," * 399_999 + b"1]", "input 'x': expected numbers that float32 can hold, got larger ones"),
    "beyond 64 bits": (b"[" + b"9" * 60 + b",0" * 399_999 + b"]", "numbers that float32 can hold, got larger ones"),
    "too few": (rows(N - 1), "expected 400000 numbers for shape [100000, 4], got numbers of shape [399996]"),
    "flat and nested": (b"[" + b"0," * 399_996 + b"[0,1,2,3]]", "flat or nested evenly, got list values|body: expected JSON"),
    "nested otherwise": (rows(N * 2, b"[0,1]"), "nested evenly as [100000, 4], got other lists"),
    "deeper": (rows(N, b"[[0,1,2,3]]"), "nested evenly as [100000, 4], got other lists"),
    "a number outside": (b"[[0,1,2,]3," + rows(N - 1)[1:], "nested evenly as [100000, 4], got other lists"),
    "a number before": (b"[[0,1,2,3],0[,1,2,3]," + rows(N - 2)[1:], "body: expected JSON|got other lists"),
    "cut short": (rows(N)[:-1], "bytes beside lists of numbers|body: expected JSON"),
    "a comma at the end": (rows(N)[:-1] + b",]", "got numbers of shape [400001]"),
    "a comma at the end, counted": (b"[" + b"0," * 399_999 + b"]", "body: expected JSON"),
    "two commas": (b"[0,," + b"0," * 399_997 + b"0]", "body: expected JSON"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_what_is_hostile_is_refused_in_pieces(parsed: list[int], case: str) -> None:
    data, words = HOSTILE[case]
    text = refused(body(data, [N, 4]))
    assert any(word in text for word in words.split("|")), text
    assert len(text) < 400
    assert max(parsed, default=0) <= large_json.MOST_REST


def test_the_refusal_says_where(parsed: list[int]) -> None:
    data = rows(N)
    text = body(data[:500_002] + b"x" + data[500_003:], [N, 4])
    place = int(refused(text).rpartition("near byte ")[2])
    assert abs(place - text.index(b"x", 100)) < 3


def test_long_lists_elsewhere_are_refused() -> None:
    for other in (b',"more":' + rows(N), b',"inputs":[],"parameters":{"data":' + rows(N) + b"}"):
        assert "body: expected lists of more than 4096 bytes as data of inputs alone, got another at byte" in refused(
            body(rows(N), [N, 4], other)
        )
    twice = body(rows(N), [N, 4]).replace(b'"datatype"', b'"data":' + rows(2000) + b',"datatype"')
    assert "got another at byte" in refused(twice)
    assert refused(rows(N)) == "body: expected a JSON object, got list"


def test_a_shape_costs_nothing_before_the_numbers_are_counted() -> None:
    assert "numbers of shape [400000]" in refused(body(rows(N), [2**31 - 1, 4]))


def test_brackets_that_cannot_be_there_are_not_made() -> None:
    text = body(b"[[" + b"0," * (4 * N - 1) + b"0]]", [4 * N, 1, 1, 1])
    assert "nested evenly as [400000, 1, 1, 1], got fewer brackets" in refused(text, ValueSpec("x", (None, 1, 1, 1), "float32"))


def test_what_stands_beside_long_lists_is_read_as_ever() -> None:
    for name, text in (("a mark", '"id":"%s 0"'), ("escapes", '"id":"\\\\\\"[1,2]"')):
        more = b"," + text.replace("%s", "0" * 32).encode()
        assert parse(body(rows(N), [N, 4], more)).shape == (N, 4), name


def test_long_answers_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).normal(size=(5, 7, 1000)).astype(np.float32)
    x[0, 0, 0], x[1, 1, 1] = np.nan, np.inf
    model = SimpleNamespace(name="small", version="1", digest="d", outputs=(SimpleNamespace(name="y"),))
    request = http_infer.Request("", (), ((0, False),), None)
    assert http_infer.long(request, (x,))
    assert not http_infer.long(http_infer.Request("", (), ((0, True),), None), (x,))
    assert not http_infer.long(request, (x[0],))
    text, length = http_infer.answer(model, request, (x,))
    monkeypatch.setattr(http_infer, "AT_ONCE", 1 << 30)
    assert (text, length) == http_infer.answer(model, request, (x,))
    assert json.loads(text)["outputs"][0]["shape"] == [5, 7, 1000]
