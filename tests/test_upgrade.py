"""Every past shape of the manifest becomes version 2: no key is lost, and a second upgrade changes nothing."""

import copy
from pathlib import Path
from typing import Any

import pytest
from earlier_tool import CREATED, SLUG, Folder
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import jsonl, manifest, schema, sealed, upgrade
from pipeline.errors import DamagedArtifact

NOW = "2026-01-01T00:00:00.000Z"
FOLDERS = {age: Folder(Path("experiments/run_old"), age) for age in range(4)}


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(document)
    result = upgrade.upgrade(document, run_id="old", created_at=NOW)
    assert document == before, "a pure function changed what it was given"
    return result


@pytest.mark.parametrize("age", FOLDERS)
def test_every_age_becomes_a_valid_version_2(age: int) -> None:
    document = upgraded(FOLDERS[age].document())
    assert schema.problems(sealed.sealed(document), manifest.SCHEMA) == []
    assert document["run_id"] == "old"
    assert document["trial"]["model_id"].endswith("tiny-8b")
    assert document["timestamps"] == {"created_at": CREATED, "updated_at": CREATED}
    assert document["lab_note"] == {"by": "A. B.", "numbers": [1, 2.5, None]}
    assert document["trial"]["prompt_set"] == (None if age == 0 else "brief")


@pytest.mark.parametrize("block", ["temps", "prompts", "datasets", "jobs", "job_status"])
@pytest.mark.parametrize("age", FOLDERS)
def test_a_block_that_is_null_counts_as_absent(age: int, block: str) -> None:
    document = upgraded({**FOLDERS[age].document(), block: None})
    assert document["trial"]["model_id"].endswith("tiny-8b")
    assert document["timestamps"]["created_at"] == CREATED
    assert document.get(block) is not None or block in ("temps", "prompts")


@pytest.mark.parametrize("age", FOLDERS)
def test_every_job_keeps_its_place(age: int) -> None:
    folder = FOLDERS[age]
    document = upgraded(folder.document())
    parts = [upgrade.part_name(name, 1) for name in folder.names]
    placed = {
        part: name
        for group, names in document["jobs"].items()
        for part, name in zip(upgrade.part_names(group, names), names, strict=True)
    }
    assert placed == dict(zip(parts, map(folder.job, folder.names), strict=True))
    assert set(document["job_status"]) == set(parts)


@pytest.mark.parametrize(
    ("jobs", "status", "expected"),
    [
        ({"t0_control": "j"}, None, {"t0_control_p01": "submitted"}),
        ({"t0_control": ["j"]}, None, {"t0_control_p01": "submitted"}),
        ({"t0_control": ["j", None]}, None, {"t0_control_p01": "submitted", "t0_control_p02": "pending"}),
        ({"t0_control": None}, None, {"t0_control_p01": "pending"}),
        ({"t0_control": ["j"]}, {"t0_control": "running"}, {"t0_control_p01": "running"}),
        ({"t07_control": ["j"]}, {"t07_control_p01": "JOB_STATE_EXPIRED"}, {"t07_control_p01": "expired"}),
        ({"t0_control": ["j"]}, {"t0_control_p01": "some new word"}, {"t0_control_p01": "submitted"}),
        ({}, {"t0_control": "downloaded"}, {"t0_control_p01": "downloaded"}),
    ],
)
def test_names_and_states_of_all_kinds(jobs: Any, status: Any, expected: dict[str, str]) -> None:
    document = {**FOLDERS[1].document(), "jobs": jobs}
    if status is not None:
        document["job_status"] = status
    result = upgraded(document)
    assert result["job_status"] == expected
    assert result["jobs"] == {group: names if isinstance(names, list) else [names] for group, names in jobs.items()}


def test_more_than_99_parts() -> None:
    document = {**FOLDERS[2].document(), "jobs": {"t0_control": [f"j{n}" for n in range(1, 121)]}, "job_status": {}}
    status = upgraded(document)["job_status"]
    assert list(status)[98:101] == ["t0_control_p99", "t0_control_p100", "t0_control_p101"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024-03-05T06:07:08Z", "2024-03-05T06:07:08Z"),
        ("2024-03-05T06:07:08.250000+02:00", "2024-03-05T06:07:08.250000+02:00"),
        ("2024-03-05T06:07:08", "2024-03-05T06:07:08.000Z"),
        ("2024-03-05 06:07:08", "2024-03-05T06:07:08.000Z"),
        ("20240305T060708Z", "2024-03-05T06:07:08.000Z"),
        (1709618828, "2024-03-05T06:07:08.000Z"),
        ("the day before yesterday", NOW),
        (1e300, NOW),
        (None, NOW),
    ],
)
def test_the_time_of_creation_comes_from_the_record(written: Any, read: str) -> None:
    document = {**FOLDERS[1].document(), "created_utc": written}
    assert upgraded(document)["timestamps"]["created_at"] == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (f"{SLUG}/results/t0_control_p01/results.jsonl", f"{SLUG}/results/t0_control_p01/results.jsonl"),
        (f"/data/lab/experiments/run_old/{SLUG}/results/r.jsonl", f"{SLUG}/results/r.jsonl"),
        (rf"C:\lab\run_old\{SLUG}\results\r.jsonl", f"{SLUG}/results/r.jsonl"),
        ("../elsewhere/r.jsonl", "elsewhere/r.jsonl"),
    ],
)
def test_paths_become_relative_and_posix(written: str, read: str) -> None:
    document = FOLDERS[3].document()
    parts = [{"job_key": "t0_control_p01", "path": written, "size": 7, "note": 1}]
    document["stage_status"]["downloaded"]["artifacts"] = {"parts": parts}
    (part,) = upgraded(document)["stage_status"]["downloaded"]["artifacts"]["parts"]
    assert part == {"job_key": "t0_control_p01", "path": read, "size": 7, "note": 1}


def test_stages_of_other_backends_stay() -> None:
    document = FOLDERS[3].document()
    document["stage_status"]["submitted"] = {"status": "completed", "backend": "x", "provider_runs": [1]}
    stage = upgraded(document)["stage_status"]["submitted"]
    assert stage["backend"] == "x"
    assert stage["provider_runs"] == [1]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"hello": "world"},
        {"model_id": "m"},
        {"model_id": "m", "jobs": ["j"]},
        {"model_id": 3, "jobs": {}},
        {"trial": {"model_id": "m"}, "jobs": {"t0_control": 3}},
        {"trial": {"model_id": "m"}, "jobs": {}, "temps": "0.0"},
        {"schema_version": 2, "trial": {"model_id": "m"}, "jobs": 5},
        {"schema_version": 2, "trial": {"model_id": "m"}, "jobs": {}, "stage_status": ["completed"]},
        {"schema_version": 2, "trial": {"model_id": "m"}, "jobs": {}, "timestamps": 7},
    ],
)
def test_what_is_no_manifest_of_any_age_is_damage(document: dict[str, Any]) -> None:
    with pytest.raises(DamagedArtifact, match="no manifest of any age"):
        upgraded(document)


# --- all of it, by generated documents -----------------------------------------------------------------

_names = st.one_of(st.none(), st.text(max_size=8), st.lists(st.one_of(st.none(), st.text(max_size=8)), max_size=4))
_groups = st.sampled_from(["t0_control", "t07_treatment", "t0_control_p01", "t10_control", "odd"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_identity = st.fixed_dictionaries(
    {"model_id": st.text(max_size=8)},
    optional={"prompt_set": st.none() | st.text(max_size=5), "top_p": st.none() | st.floats(0, 1), "top_k": st.none()},
)
_common = st.fixed_dictionaries(
    {"jobs": st.dictionaries(_groups, _names, max_size=3)},
    optional={
        "created_utc": st.none()
        | st.text(max_size=20)
        | st.datetimes().map(str)
        | st.floats(allow_nan=False, allow_infinity=False),
        "run_id": st.none() | st.text(max_size=8),
        "datasets": st.dictionaries(_groups, _names, max_size=3),
        "job_status": st.dictionaries(_groups, st.none() | st.sampled_from(["running", "EXPIRED", "x"]), max_size=3),
        "temps": st.lists(st.floats(0, 2), max_size=3),
        "samples_per_item": st.none() | st.integers(0, 9),
    },
)
_unknown = st.dictionaries(st.text(min_size=1, max_size=6).map(lambda name: f"x_{name}"), _json, max_size=3)
_version_1 = st.one_of(
    st.builds(lambda a, b, c: {**c, **a, **b}, _identity, _common, _unknown),
    st.builds(lambda a, b, c: {**c, **b, "trial": a}, _identity, _common, _unknown),
)


@settings(deadline=None)
@given(_version_1)
def test_an_upgrade_is_complete_lossless_and_final(document: dict[str, Any]) -> None:
    result = upgraded(document)
    assert upgraded(result) == result
    assert {key: value for key, value in result.items() if key.startswith("x_")} == {
        key: value for key, value in document.items() if key.startswith("x_")
    }
    lists = {group: names if isinstance(names, list) else [names] for group, names in document["jobs"].items()}
    assert result["jobs"] == lists
    assert jsonl.loads(jsonl.dumps(result)) == result


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["schema_version", "jobs", "trial", "stage_status", "timestamps", "temps", "x"]), _json
    )
)
def test_anything_else_raises_only_our_error(document: dict[str, Any]) -> None:
    try:
        result = upgraded({**document, "schema_version": 2})
    except DamagedArtifact:
        return
    assert upgraded(result) == result
