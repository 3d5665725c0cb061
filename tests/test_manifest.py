"""The manifest: read only when it holds, written only when it changed, and never of a future version."""

import copy
import hashlib
import os
import random

import pytest
from faulty_disk import FaultyDisk, operations

from pipeline import graph, jsonl, manifest, schema, sealed
from pipeline.errors import DamagedArtifact, DiskTrouble, FutureVersion, UnreadableFile
from pipeline.fingerprints import Fingerprints
from pipeline.manifest import COMPLETED, Manifest, OlderManifest, Stage
from pipeline.trials import Trial

TRIAL = Trial(
    slug="m-default",
    model="lab/m",
    alias="m",
    prompt_set="default",
    prompts={"control": "c", "treatment": "t"},
    decoding={"top_p": 0.9},
    temperatures=(0.0, 0.7),
    samples=3,
)
PARSED = Stage(
    status=COMPLETED,
    updated_at="2026-01-01T00:00:00.000Z",
    artifacts={"predictions_csv": "m-default/results/predictions.csv", "row_count": 4},
    outputs={"m-default/results/predictions.csv": {"sha256": "a" * 64, "size": 100, "rows": 4}},
    inputs={"m-default/results/results_combined.jsonl": "b" * 64},
    settings={"format": 1},
    identity_version=7,
    config_sha256="c" * 64,
    tool_version="0.1.0",
    duration_s=0.25,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "trial_manifest.json"


@pytest.fixture
def saved(path):
    document = Manifest.new("r1", TRIAL)
    document.set_stage("parsed", PARSED)
    document.save(path)
    return path


def rewrite(path, change, *, seal=True):
    """Change the document on disk as an editor would; sealed again unless told otherwise."""
    document = jsonl.loads(path.read_bytes())
    change(document)
    path.write_bytes(jsonl.dumps_pretty(sealed.sealed(document) if seal else document))


# --- a round trip ---------------------------------------------------------------------------------


def test_a_new_manifest_names_the_trial_and_claims_nothing(path):
    Manifest.new("r1", TRIAL, "2026-01-01T00:00:00.000Z").save(path)
    document = manifest.load(path).document
    assert document["trial"] == {
        "slug": "m-default", "model_id": "lab/m", "prompt_set": "default", "top_p": 0.9, "top_k": None,
        "max_new_tokens": None,
    }  # fmt: skip
    assert document["timestamps"]["created_at"] == "2026-01-01T00:00:00.000Z"
    assert set(document["stage_status"]) == set(graph.STAGES)
    assert {stage["status"] for stage in document["stage_status"].values()} == {"pending"}
    assert document["schema_version"] == 2


def test_a_stage_reads_back_as_it_was_recorded(saved):
    opened = manifest.load(saved)
    assert opened.stage("parsed") == PARSED
    assert opened.stage("scored") == Stage()


def test_keys_of_other_versions_are_kept(saved):
    """An upgrade elsewhere once dropped unknown keys, data sets and registries."""

    def extend(document):
        document["their_key"] = {"deep": [1]}
        document["stage_status"]["parsed"]["their_note"] = "x"
        document["stage_status"]["submitted"] = {"status": "pending", "updated_at": None, "artifacts": {}}

    rewrite(saved, extend)
    opened = manifest.load(saved)
    opened.set_stage("parsed", Stage(status="failed", error="no"))
    opened.save(saved)
    document = manifest.load(saved).document
    assert document["their_key"] == {"deep": [1]}
    assert document["stage_status"]["parsed"]["their_note"] == "x"
    assert "outputs" not in document["stage_status"]["parsed"]
    assert document["stage_status"]["submitted"]["status"] == "pending"


def test_jobs_are_mirrored_as_a_copy(saved):
    opened = manifest.load(saved)
    jobs = {"jobs": {"t0_control": ["j1", None]}, "job_status": {"t0_control_p01": "running"}}
    opened.set_jobs(jobs)
    jobs["jobs"]["t0_control"].append("later")
    opened.save(saved)
    assert manifest.load(saved).document["jobs"] == {"t0_control": ["j1", None]}


# --- no change, no write --------------------------------------------------------------------------


def test_what_did_not_change_is_not_written(saved):
    before = saved.read_bytes(), saved.stat().st_mtime_ns
    opened = manifest.load(saved)
    opened.set_stage("parsed", PARSED)
    assert operations(lambda: opened.save(saved)) == []
    assert (saved.read_bytes(), saved.stat().st_mtime_ns) == before


def test_what_changed_is_written_whole_with_a_new_time(saved):
    opened = manifest.load(saved)
    before = copy.deepcopy(dict(opened.document))
    opened.set_stage("parsed", Stage(status="failed", error="no"))
    written = opened.save(saved)
    assert written.size == saved.stat().st_size
    after = manifest.load(saved).document
    assert after["timestamps"]["created_at"] == before["timestamps"]["created_at"]
    assert after["timestamps"]["updated_at"] >= before["timestamps"]["updated_at"]
    assert after["checksum"] != before["checksum"]


@pytest.mark.parametrize("key", ["checksum", "timestamps"])
def test_damage_that_says_the_same_is_mended(saved, key):
    """Rebuilt to the same content, it was once not written, and so found damaged for ever."""
    good = manifest.load(saved)
    if key == "checksum":
        rewrite(saved, lambda document: document.update(checksum="sha256:" + "0" * 64), seal=False)
    else:
        rewrite(saved, lambda document: document["timestamps"].update(updated_at="1999-01-01T00:00:00Z"), seal=False)
    with pytest.raises(DamagedArtifact):
        manifest.load(saved)
    assert good.save(saved) is not None
    manifest.load(saved)


def test_an_invalid_manifest_is_never_written(saved):
    before = saved.read_bytes()
    for wrong in (
        Stage(status="finished"),
        Stage(updated_at="yesterday"),
        Stage(outputs={"/etc/passwd": {"sha256": "a" * 64, "size": 1}}),
        Stage(outputs={"a/../../b": {"sha256": "a" * 64, "size": 1}}),
        Stage(outputs={"a": {"sha256": "A", "size": 1}}),
        Stage(outputs={"a": {"sha256": "a" * 64, "size": -1}}),
        Stage(inputs={"a\\b": "a" * 64}),
        Stage(duration_s=-1.0),
    ):
        opened = manifest.load(saved)
        opened.set_stage("parsed", wrong)
        with pytest.raises(ValueError, match="would write an invalid manifest"):
            opened.save(saved)
        assert saved.read_bytes() == before


def test_a_failing_disk_leaves_the_old_manifest(saved):
    before = saved.read_bytes()
    for fail_at in range(3):
        opened = manifest.load(saved)
        opened.set_stage("parsed", Stage())
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            opened.save(saved)
        assert faulty.fired
        assert saved.read_bytes() == before


def test_a_manifest_that_cannot_be_read_is_not_overwritten(path):
    path.mkdir(parents=True)
    with pytest.raises(UnreadableFile):
        Manifest.new("r1", TRIAL).save(path)


# --- what is read, and what is not ----------------------------------------------------------------


def test_reading_never_writes(saved):
    assert operations(lambda: manifest.load(saved)) == []
    with pytest.raises(FileNotFoundError):
        manifest.load(saved.with_name("none.json"))
    assert os.listdir(saved.parent) == ["trial_manifest.json"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\x00" * 100, "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"[]", "holds a JSON list, not an object"),
        (b"null", "holds a JSON NoneType, not an object"),
        (b'{"schema_version": 2, "schema_version": 2}', "stands there twice"),
        (b'{"schema_version": "2"}', "its schema_version is '2'"),
        (b'{"schema_version": 2.0}', "its schema_version is 2.0"),
        (b'{"schema_version": true}', "its schema_version is True"),
        (b'{"schema_version": 0}', "its schema_version is 0"),
        (b'{"schema_version": null}', "its schema_version is None"),
        (b'{"schema_version": 2, "checksum": "sha256:00"}', "its checksum does not fit its content"),
    ],
)
def test_damage_is_named_with_its_file(path, data, said):
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(DamagedArtifact) as damage:
        manifest.load(path)
    assert said in str(damage.value)
    assert str(path) in str(damage.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling"])
def test_what_is_no_file_is_damage_and_never_waited_for(path, kind):
    path.parent.mkdir()
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to(path.parent / "gone"),
    }[kind]()
    with pytest.raises(DamagedArtifact, match="stands in its place"):
        manifest.load(path)


def test_unreadable_is_not_damaged(path):
    path.parent.mkdir()
    path.symlink_to(path)
    with pytest.raises(UnreadableFile):
        manifest.load(path)


def test_the_schema_is_checked_on_every_read(saved):
    rewrite(saved, lambda document: document.pop("jobs"))
    with pytest.raises(DamagedArtifact, match="not a valid manifest: jobs: missing"):
        manifest.load(saved)


def test_only_the_very_bytes_that_were_found_valid_are_not_checked_again(saved):
    """A no-op on fifty trials would spend most of its time on it. Whatever else stands there is checked."""
    memory = Fingerprints(saved.parent)
    manifest.load(saved, memory)
    rewrite(saved, lambda document: document.pop("jobs"))
    with pytest.raises(DamagedArtifact, match="jobs: missing"):
        manifest.load(saved, memory)
    # A memory that is wrong on purpose, to see that it is believed.
    memory.vouch(saved, hashlib.sha256(schema.text(manifest.SCHEMA) + saved.read_bytes()).hexdigest())
    assert "jobs" not in manifest.load(saved, memory).document


def test_what_is_saved_need_not_be_checked_when_it_is_read(path):
    memory = Fingerprints(path.parent)
    Manifest.new("r1", TRIAL).save(path, memory)
    assert memory.vouches(path, hashlib.sha256(schema.text(manifest.SCHEMA) + path.read_bytes()).hexdigest())


def test_of_many_problems_the_first_are_shown_and_the_rest_counted(saved):
    def spoil(document):
        for number, stage in enumerate(document["stage_status"].values()):
            stage["status"] = f"odd{number}"

    rewrite(saved, spoil)
    with pytest.raises(DamagedArtifact, match=r"odd0.*odd1.*odd2.*\(and 4 more\)\.") as damage:
        manifest.load(saved)
    assert "odd3" not in str(damage.value)


@pytest.mark.parametrize("version", [3, 99, 2**60])
def test_a_manifest_of_the_future_is_refused_whatever_else_it_says(saved, version):
    rewrite(saved, lambda document: document.update(schema_version=version, jobs="other"), seal=False)
    before = saved.read_bytes()
    with pytest.raises(FutureVersion) as refused:
        manifest.load(saved)
    assert f"is a version {version} manifest; this tool knows versions up to 2" in str(refused.value)
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    "document", [{}, {"schema_version": 1}, {"created_utc": "x"}, {"schema_version": 2, "jobs": {}}]
)
def test_manifests_of_the_earlier_tool_are_told_apart_from_damage(path, document):
    path.parent.mkdir()
    path.write_bytes(jsonl.dumps(document))
    with pytest.raises(OlderManifest) as older:
        manifest.load(path)
    assert older.value.document == document


def test_cut_at_any_length_it_is_noticed(saved):
    data = saved.read_bytes()
    for length in range(0, len(data) - 1, 37):
        saved.write_bytes(data[:length])
        with pytest.raises(DamagedArtifact):
            manifest.load(saved)


def test_no_flipped_bit_is_taken_for_another_manifest(saved):
    """A flip in the name `checksum` or `schema_version` once made it the earlier tool's, to be believed and sealed."""
    data = saved.read_bytes()
    names = [data.index(b'"checksum"') + n for n in range(10)] + [
        data.index(b'"schema_version"') + n for n in range(19)
    ]
    places = [*names, *random.Random(3).sample(range(len(data)), 150)]
    flipped = set()
    for place in places:
        for bit in range(8) if place in names else [place % 8]:
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            saved.write_bytes(damaged)
            try:
                found = manifest.load(saved).document
            except (DamagedArtifact, FutureVersion) as refused:
                flipped.add(type(refused))
            else:
                assert found == jsonl.loads(data), f"bit {bit} of byte {place}"  # white space
    assert flipped == {DamagedArtifact, FutureVersion}
