"""A sealed document notices every silent edit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import jsonl, sealed

DOCUMENT = sealed.sealed({"b": [1, 2.5, None], "a": {"x": "é", "y": True}})


def test_the_seal_is_the_digest_of_all_other_keys_whatever_their_order():
    assert DOCUMENT["checksum"].startswith("sha256:")
    assert sealed.is_intact(DOCUMENT)
    assert sealed.is_intact(dict(reversed(DOCUMENT.items())))
    assert sealed.sealed(DOCUMENT) == DOCUMENT
    assert sealed.sealed({**DOCUMENT, "checksum": "wrong"}) == DOCUMENT


@pytest.mark.parametrize(
    "change",
    [
        {"b": [2, 1, None]},
        {"b": [1, 2.5000001, None]},
        {"a": {"x": "e", "y": True}},
        {"a": {"x": "é", "y": 1}},
        {"c": None},
        {"checksum": None},
        {"checksum": DOCUMENT["checksum"].upper()},
        {"checksum": DOCUMENT["checksum"].removeprefix("sha256:")},
    ],
)
def test_any_edit_is_noticed(change):
    assert not sealed.is_intact({**DOCUMENT, **change})
    assert not sealed.is_intact({key: value for key, value in DOCUMENT.items() if key != "a"})
    assert not sealed.is_intact({key: value for key, value in DOCUMENT.items() if key != "checksum"})


@given(st.integers(0, 8 * len(jsonl.dumps(DOCUMENT)) - 1))
def test_a_flipped_bit_is_noticed(bit):
    """A third of them still parse and have the right keys."""
    data = bytearray(jsonl.dumps(DOCUMENT))
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = jsonl.loads_checked(bytes(data))
    except jsonl.BadJson:
        return
    assert not isinstance(found, dict) or not sealed.is_intact(found)
