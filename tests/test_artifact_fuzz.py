"""Whatever bytes come in, the reader accepts them or refuses them by its own errors."""

import json

import pytest
from artifact_parts import take_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_graphs import every_op

from cosparse import _C
from cosparse.engine import artifact
from cosparse.errors import ArtifactError, ShapeError, UnsupportedError

VALID = artifact.to_bytes(every_op())
PLACES = st.integers(0, len(VALID) - 1)


def refused(content: bytes) -> bool:
    try:
        _C.parse_artifact(content)
    except (ArtifactError, UnsupportedError, ShapeError) as error:
        return bool(error.expected and error.got)
    return False


def test_truncated_at_every_byte():
    """The first 2 KiB byte by byte, the rest in steps of a prime; the last byte too."""
    places = [*range(2048), *range(2048, len(VALID), 37), len(VALID) - 1]
    assert [at for at in places if not refused(VALID[:at])] == []
    assert not refused(VALID)


@settings(max_examples=400, deadline=None)
@given(PLACES, st.integers(1, 255))
def test_one_byte_flipped_is_found(place, by):
    """The checksum covers every byte but its own digits, and those are compared."""
    assert refused(VALID[:place] + bytes([VALID[place] ^ by]) + VALID[place + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    assert refused(content)
    assert refused(len(content).to_bytes(8, "little") + content)


def test_every_field_of_the_header_and_the_network_is_needed():
    """Without any one field, at whatever depth, the file is refused."""
    paths = [p for p in _paths(take_apart(every_op()).network) if isinstance(p[-1], str) and p != ("provenance", "seed")]
    paths = [p for p in paths if p[0] != "preprocessing" or len(p) == 1]
    assert len(paths) > 200
    accepted = []
    for path in paths:
        parts = take_apart(every_op())
        _delete(parts.network, path)
        if not refused(parts.to_bytes()):
            accepted.append(path)
    assert accepted == []


STRANGE = [None, True, -1, 0, 2**31, 2**63 - 1, 0.5, 1e308, "", "\u0000", "x", [], [[]], {}, {"a": {}}, [0] * 100]


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_strange_values_anywhere(strange):
    """A strange value in every place of the network: accepted or refused, never anything else; and never read as what was there."""
    for path in _paths(take_apart(every_op()).network):
        parts = take_apart(every_op())
        target = parts.network
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = strange
        try:
            network = json.loads(_C.parse_artifact(parts.to_bytes()).json)
        except (ArtifactError, UnsupportedError, ShapeError):
            continue
        for key in path:
            network = network[key]
        assert network == strange


def _paths(value, prefix=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from _paths(inner, (*prefix, key))


def _delete(target, path):
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
