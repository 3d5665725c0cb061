"""The list of parts: named without ambiguity, sealed, and the one thing completeness is judged against."""

import hashlib
import re
from dataclasses import asdict, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline import custom_id, jsonl, parts, schema, sealed
from pipeline.errors import DamagedArtifact, FutureVersion, UnreadableFile
from pipeline.fingerprints import Fingerprints
from pipeline.parts import IdsDigest, Index, Part

PART = Part("t0_control_p01", 0.0, "control", 2, 100, "a" * 64, "b" * 64)
INDEX = Index((PART, replace(PART, part="t0_control_p02", rows=3)), {"model": "m"}, 1, {"prepared/x.jsonl": "c" * 64})


@pytest.mark.parametrize(
    ("temperature", "label"),
    [(0, "t0"), (0.0, "t0"), (-0.0, "t0"), (0.7, "t07"), (1, "t10"), (0.2, "t02"), (0.25, "t025"), (2.5, "t25"),
     (5, "t50"), (1e-05, "t1e-05"), (1.5e-05, "t15e-05"), (0.05, "t005"), (1.25, "t125")],
)  # fmt: skip
def test_labels_of_temperatures(temperature, label):
    assert parts.temperature_label(temperature) == label


@given(st.floats(0, 5), st.floats(0, 5))
def test_two_temperatures_never_share_a_label(one, other):
    """Config refuses two temperatures that print alike with %g, so equal labels mean equal temperatures there."""
    assume(format(one, "g") != format(other, "g"))
    assert parts.temperature_label(one) != parts.temperature_label(other)


@pytest.mark.parametrize(
    ("count", "first", "last"),
    [(1, "p01", "p01"), (99, "p01", "p99"), (100, "p001", "p100"), (1000, "p0001", "p1000")],
)
def test_numbers_have_as_many_digits_as_the_count_needs(count, first, last):
    names = list(parts.names("t0", "control", count))
    assert (names[0], names[-1], len(set(names))) == (f"t0_control_{first}", f"t0_control_{last}", count)
    assert names == sorted(names)


def test_names_fit_the_schema_and_say_their_group():
    pattern = schema.load(parts.SCHEMA)["properties"]["parts"]["items"]["properties"]["part"]["pattern"]
    for temperature in (0, 0.25, 1e-05, 1.5e-05):
        [name] = parts.names(parts.temperature_label(temperature), "a_p01", 1)
        assert re.search(pattern, name)
        assert replace(PART, part=name).group == name[: -len("_p01")]


def test_ids_are_compared_in_order_without_being_held():
    digest = IdsDigest()
    for name in ("a", "b|é"):
        digest.add(name)
    assert digest.count == 2
    assert digest.hexdigest() == hashlib.sha256("a\nb|é\n".encode()).hexdigest()
    other = IdsDigest()
    other.add("b|é")
    other.add("a")
    assert other.hexdigest() != digest.hexdigest()
    at_once = IdsDigest()
    at_once.extend(["a", "b|é"])
    assert (at_once.hexdigest(), at_once.count) == (digest.hexdigest(), 2)


def test_what_is_written_reads_back(tmp_path):
    path = tmp_path / "batch_inputs" / "index.json"
    written = parts.write(path, INDEX)
    assert parts.read(path) == INDEX
    assert INDEX.rows == 5
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert parts.write(path, INDEX).sha256 == written.sha256
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "wrong",
    [{"rows": 0}, {"size": 0}, {"sha256": "x"}, {"part": "../x"}, {"part": "t0_control_p1"}, {"temp": -1}],
)
def test_an_invalid_list_is_never_written(tmp_path, wrong):
    path = tmp_path / "index.json"
    with pytest.raises(ValueError, match="would write an invalid index"):
        parts.write(path, replace(INDEX, parts=(replace(PART, **wrong),)))
    assert not path.exists()


def test_any_edit_makes_it_damaged(tmp_path):
    path = tmp_path / "index.json"
    parts.write(path, INDEX)
    good = path.read_bytes()
    for bad in (
        b"",
        good[:-5],
        good.replace(b"100", b"101", 1),
        b"[1]\n",
        b"null\n",
        good.replace(b'"temp"', b'"tmep"'),
    ):
        path.write_bytes(bad)
        with pytest.raises(DamagedArtifact, match=str(path)):
            parts.read(path)


def test_only_the_very_bytes_that_were_found_good_are_not_checked_again(tmp_path):
    path = tmp_path / "index.json"
    memory = Fingerprints(tmp_path)
    parts.write(path, INDEX)
    assert parts.read(path, memory) == parts.read(path, memory) == INDEX
    path.write_bytes(path.read_bytes().replace(b"100", b"101", 1))
    with pytest.raises(DamagedArtifact):
        parts.read(path, memory)
    # A memory that is wrong on purpose, to see that it is believed.
    memory.vouch(path, hashlib.sha256(b"%d" % parts.VERSION + path.read_bytes()).hexdigest())
    assert parts.read(path, memory) != INDEX


def test_another_sealed_document_in_its_place_is_damage(tmp_path):
    """run.json is sealed in the same way; put here by mistake it once ended in a KeyError."""
    path = tmp_path / "index.json"
    for document in ({"schema_version": 1, "rid": "r"}, {"schema_version": 1, "parts": [{"part": "x"}]}, {}):
        path.write_bytes(jsonl.dumps(sealed.sealed(document)))
        with pytest.raises(DamagedArtifact, match="not a list of parts"):
            parts.read(path)


def test_a_list_of_the_future_is_refused_and_not_rebuilt(tmp_path):
    path = tmp_path / "index.json"
    document = {"schema_version": 2, "settings": {}, "identity_version": 1, "inputs": {}, "parts": [asdict(PART)]}
    path.write_bytes(jsonl.dumps(sealed.sealed(document)))
    with pytest.raises(FutureVersion, match="version 2 list of parts; this tool knows 1"):
        parts.read(path)


def test_absent_and_unreadable_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        parts.read(tmp_path / "none")
    with pytest.raises(UnreadableFile):
        parts.read(tmp_path)


def test_labels_and_ids_agree_about_what_is_one_temperature():
    for temperature in (0.0, 0.1, 0.25, 1.0, 5.0):
        assert custom_id.temperature_text(temperature) == format(temperature, "g")
