"""Whatever became of a run's records, opening it loses no job, believes nothing unseen, stops where it would guess.

The run is finished and its provider is gone: whoever tried to ask it would fail.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import session_kit
from earlier_tool import lines, snapshot
from faulty_disk import ERRORS, FaultyDisk, operations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import jsonl, manifest, opening, repair, runs, sealed, workspace
from pipeline import request as words
from pipeline.emulator.config import Config
from pipeline.emulator.server import Emulator
from pipeline.errors import (
    DamagedArtifact,
    DiskTrouble,
    FutureVersion,
    RunLocked,
    TrialmakeError,
    UnreadableFile,
    UsageError,
)
from pipeline.paths import RunPaths, TrialPaths
from pipeline.record import read_record

RID = "r1"
SLUG = "m-default"
CONFIG = {
    "provider": "fireworks",
    "models": [{"id": "accounts/fireworks/models/m"}],
    "prompt_sets": {
        "default": {"control": {"text": "Answer."}, "treatment": {"text": "Answer, or say: I don't know."}}
    },
    "sources": [{"dataset": "d", "format": "jsonl", "path": "questions.jsonl"}],
    "part_size": 2,
    "statistics": {"bootstrap_samples": 1000, "permutation_samples": 1000},
}
QUESTIONS = [
    {"id": f"q{n}", "question": f"Who is {n}?", "answers": ["Ada"], "context": f"Ada is {n}.", "is_unanswerable": False}
    for n in range(4)
]
AFTER_DOWNLOAD = ("parse", "score", "stats", "costs")
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Lab:
    """A folder with one finished run."""

    root: Path

    @property
    def run(self) -> RunPaths:
        return RunPaths(self.root / "experiments" / f"run_{RID}")

    @property
    def trial(self) -> TrialPaths:
        return self.run.trial(SLUG)

    def resume(self, *phases: str) -> session_kit.Ending:
        return session_kit.resume(RID, *phases)

    def document(self) -> dict[str, Any]:
        return dict(manifest.load(self.trial.manifest).document)

    def artifacts(self) -> dict[str, bytes]:
        names = ("prepared", "batch_inputs", "results")
        return {
            name: data
            for name, data in snapshot(self.run.root).items()
            if any(part in name for part in names) and "manifest" not in name
        }


@pytest.fixture(scope="module")
def finished() -> Iterator[Path]:
    """A run from prepare to costs, built once."""
    with tempfile.TemporaryDirectory(dir=FAST_DISK) as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name) / "lab"
        root.mkdir()
        patch.chdir(root)
        patch.setenv("FIREWORKS_API_KEY", "emulator-key")
        lines(root / "questions.jsonl", QUESTIONS)
        settings = Config(account_id="lab", job_seconds=0.01, ready_seconds=0.0)
        with Emulator(Path(name) / "store", settings) as emulator:
            config = {**CONFIG, "fireworks": {"base_url": emulator.url, "account_id": "lab"}}
            (root / "one.yaml").write_text(json.dumps(config))
            ending = session_kit.go(RID, session_kit.TO_COSTS, may_create=True, config="one.yaml")
        assert ending.errors == {}
        yield root


@pytest.fixture
def lab(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(dir=FAST_DISK) as name:
        root = Path(name) / "lab"
        shutil.copytree(finished, root)
        monkeypatch.chdir(root)
        yield Lab(root)
        monkeypatch.undo()


def kept(lab: Lab, tag: str, path: Path | None = None) -> list[Path]:
    path = path or lab.trial.manifest
    return sorted(path.parent.glob(f"{path.name}.{tag}.*"))


# --- a damaged manifest ------------------------------------------------------------------------------


def put(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def change(edit: Callable[[dict[str, Any]], object], *, seal: bool = False) -> Callable[[Path], None]:
    """Edit the document; *seal*: with the checksum that belongs to it."""

    def damage(path: Path) -> None:
        document = jsonl.loads(path.read_bytes())
        edit(document)
        path.write_bytes(jsonl.dumps_pretty(sealed.sealed(document) if seal else document))

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, 700),
    "empty": put(b""),
    "array": put(b"[1, 2]"),
    "NUL bytes": put(b"\0" * 512),
    "not UTF-8": put(b'{"jobs": "\xff\xfe"}'),
    "a key twice": put(b'{"schema_version": 2, "schema_version": 2}'),
    "nested too deep": put(b"[" * 500 + b"]" * 500),
    "another document": put(b'{"hello": "world"}'),
    "a job edited": change(lambda d: d["jobs"]["t0_control"].__setitem__(0, "mine")),
    "claims more": change(lambda d: d["stage_status"]["report"].update(status="completed")),
    "wrong types, well sealed": change(lambda d: d.update(jobs=["a"]), seal=True),
    "another run's": change(lambda d: d.update(run_id="other", jobs={"t0_control": ["theirs"]}), seal=True),
    "another trial's": change(lambda d: d["trial"].update(slug="other"), seal=True),
    "version below one": change(lambda d: d.update(schema_version=0), seal=True),
    "version is text": change(lambda d: d.update(schema_version="2"), seal=True),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_manifest_is_kept_byte_for_byte_and_rebuilt(lab: Lab, damage: Callable[[Path], None]) -> None:
    good, artifacts = lab.document(), lab.artifacts()
    damage(lab.trial.manifest)
    broken = lab.trial.manifest.read_bytes()
    ending = lab.resume("prepare")
    (copy,) = kept(lab, "corrupt")
    assert copy.read_bytes() == broken
    rebuilt = lab.document()
    for block in ("jobs", "datasets", "job_status", "job_counts", "trial", "run_id", "prompts", "temps"):
        assert rebuilt[block] == good[block], block
    assert rebuilt["timestamps"]["created_at"] == jsonl.loads(lab.run.record.read_bytes())["created_at"]
    done = {name for name, stage in rebuilt["stage_status"].items() if stage["status"] == "completed"}
    assert done == {"downloaded"}, "only the download can be read off the files"
    assert any("rebuilt" in line for line in ending.said)
    again = lab.resume()
    assert {name: verb for name, verb in again.verbs.items() if verb != "skip"} == dict.fromkeys(AFTER_DOWNLOAD, "run")
    assert again.errors == {}
    assert lab.artifacts() == artifacts
    assert set(lab.resume().verbs.values()) == {"skip"}


def test_a_manifest_of_another_run_is_named_as_such(lab: Lab) -> None:
    """History: it was valid, so a copy of a colleague's was taken for this trial's."""
    change(lambda d: d.update(run_id="theirs"), seal=True)(lab.trial.manifest)
    before = snapshot(lab.root)
    said = repair.check(lab.trial.manifest)
    assert f"is that of trial '{SLUG}' of run 'theirs', not of '{SLUG}' of '{RID}'; rebuilt" in said[0]
    assert "The original is kept as corrupt" in said[0]
    assert snapshot(lab.root) == before


@pytest.mark.parametrize("whose", [{"run_id": "theirs"}, {"trial": "n-default"}], ids=["run", "trial"])
@pytest.mark.parametrize("older", [False, True], ids=["sealed", "without checksum"])
def test_a_copied_manifest_brings_no_jobs_along(lab: Lab, whose: dict[str, str], older: bool) -> None:
    """History: one without a checksum was upgraded with the jobs of the other run in it."""
    good, artifacts = lab.document(), lab.artifacts()

    def copied(document: dict[str, Any]) -> None:
        document["run_id"] = whose.get("run_id", RID)
        document["trial"]["slug"] = whose.get("trial", SLUG)
        document["jobs"] = {group: ["theirs" for _ in names] for group, names in document["jobs"].items()}
        if older:
            del document["checksum"]

    change(copied, seal=not older)(lab.trial.manifest)
    original = lab.trial.manifest.read_bytes()
    ending = lab.resume()
    assert ending.errors == {}
    assert [ending.verbs[name] for name in ("build", "submit", "download")] == ["skip"] * 3
    (copy,) = kept(lab, "corrupt")
    assert copy.read_bytes() == original
    assert kept(lab, "backup") == []
    assert {name: lab.document()[name] for name in ("run_id", "trial", "jobs")} == {
        name: good[name] for name in ("run_id", "trial", "jobs")
    }
    assert lab.artifacts() == artifacts
    assert set(lab.resume().verbs.values()) == {"skip"}


def test_a_run_that_was_copied_whole_is_not_rebuilt(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = lab.root / "elsewhere"
    shutil.copytree(lab.run.root, elsewhere / "experiments" / lab.run.root.name)
    monkeypatch.chdir(elsewhere)
    copy = Lab(elsewhere)
    before = copy.trial.manifest.read_bytes()
    assert "changes nothing" in repair.check(copy.trial.manifest)[0]
    assert set(copy.resume().verbs.values()) == {"skip"}
    assert copy.trial.manifest.read_bytes() == before
    assert kept(copy, "corrupt") == []


def test_a_folder_in_its_place_is_kept_whole(lab: Lab) -> None:
    lab.trial.manifest.unlink()
    lab.trial.manifest.mkdir()
    (lab.trial.manifest / "note.txt").write_text("mine")
    lab.resume("prepare")
    (copy,) = kept(lab, "corrupt")
    assert (copy / "note.txt").read_text() == "mine"
    assert lab.document()["stage_status"]["downloaded"]["status"] == "completed"


def test_a_link_to_nothing_is_kept(lab: Lab) -> None:
    lab.trial.manifest.unlink()
    lab.trial.manifest.symlink_to("elsewhere.json")
    lab.resume("prepare")
    assert [path.is_symlink() for path in kept(lab, "corrupt")] == [True]


def test_a_manifest_that_is_gone_is_rebuilt(lab: Lab) -> None:
    good = lab.document()
    lab.trial.manifest.unlink()
    ending = lab.resume("prepare")
    assert lab.document()["jobs"] == good["jobs"]
    assert any("is gone" in line for line in ending.said)


HARM: dict[str, Callable[[TrialPaths], None]] = {
    "a part lacks a row": lambda trial: cut_last_line(trial.part("t0_control_p01").results),
    "a part is gone": lambda trial: trial.part("t0_control_p01").results.unlink(),
    "an answer was edited": lambda trial: replace(trial.part("t0_control_p01").results, b"Ada", b"Eve"),
    "combined was edited": lambda trial: replace(trial.combined, b"Ada", b"Eve"),
    "attempts.json was edited": lambda trial: replace(trial.attempts, b'"failed": 0', b'"failed": 1'),
    "the list of parts is damaged": lambda trial: cut_last_line(trial.index),
    "a folder for a part": lambda trial: folder_instead(trial.part("t0_control_p01").results),
    "a folder for combined": lambda trial: folder_instead(trial.combined),
    "a folder for attempts.json": lambda trial: folder_instead(trial.attempts),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=list(HARM))
def test_a_download_that_does_not_hold_is_not_claimed(lab: Lab, harm: Callable[[TrialPaths], None]) -> None:
    artifacts = lab.artifacts()
    lab.trial.manifest.write_bytes(b"")
    harm(lab.trial)
    lab.resume("prepare")
    assert lab.document()["stage_status"]["downloaded"]["status"] == "pending"
    again = lab.resume()
    assert again.errors == {}
    assert {name: data for name, data in lab.artifacts().items() if name in artifacts} == artifacts


def test_a_file_that_no_record_speaks_of_is_not_said_to_differ_from_one(lab: Lab) -> None:
    lab.trial.manifest.unlink()
    replace(lab.trial.predictions, b"Ada", b"Eve")
    ending = lab.resume()
    assert ending.errors == {}
    [kept] = [line for line in ending.said if "predictions.csv" in line]
    assert "predictions.csv stood in no record; kept as predictions.csv.damaged." in kept


def replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_reader_gets_the_same_in_memory_and_writes_nothing(lab: Lab) -> None:
    lab.trial.manifest.write_bytes(b"{")
    lab.run.config.unlink()
    before = snapshot(lab.root)
    said: list[str] = []
    opened = opening.for_reading(words.parse({"rid": RID}), said.append)
    looked = dict(opened.workspace.manifest(SLUG).document)
    opened.close()
    assert snapshot(lab.root) == before
    lab.resume("prepare")
    written = lab.document()
    assert looked["jobs"] == written["jobs"]
    assert looked["stage_status"].keys() == written["stage_status"].keys()
    assert any("rebuilt" in line for line in said)


# --- not damaged: unreadable, of the future, of the past ---------------------------------------------


def test_what_cannot_be_read_is_not_taken_for_damage(lab: Lab) -> None:
    """A file that opens and then fails with an I/O error."""
    lab.trial.manifest.unlink()
    lab.trial.manifest.symlink_to("/proc/self/mem")
    before = sorted(path.name for path in lab.trial.results.iterdir())
    with pytest.raises(UnreadableFile):
        lab.resume()
    assert sorted(path.name for path in lab.trial.results.iterdir()) == before


@pytest.mark.parametrize("path", ["manifest", "record"])
def test_a_version_of_the_future_is_refused_untouched(lab: Lab, path: str) -> None:
    target = lab.trial.manifest if path == "manifest" else lab.run.record
    change(lambda d: d.update(schema_version=9, new_key=[1]), seal=True)(target)
    before = snapshot(lab.root)
    with pytest.raises(FutureVersion, match="version"):
        lab.resume()
    assert {name: data for name, data in snapshot(lab.root).items() if not name.endswith("run.lock")} == {
        name: data for name, data in before.items() if not name.endswith("run.lock")
    }


def without_checksum(document: dict[str, Any]) -> None:
    del document["checksum"]
    document["notes"] = ["by hand"]


def test_a_version_2_without_a_checksum_is_kept_and_sealed(lab: Lab) -> None:
    """It is the earlier tool's by the design; its records are checked like any others, and here they hold."""
    change(without_checksum)(lab.trial.manifest)
    original = lab.trial.manifest.read_bytes()
    assert set(lab.resume().verbs.values()) == {"skip"}
    (backup,) = kept(lab, "backup")
    assert backup.name.endswith(".json")
    assert backup.read_bytes() == original
    document = lab.document()
    assert document["notes"] == ["by hand"]
    assert {**document, "checksum": 0, "timestamps": 0} == {**jsonl.loads(original), "checksum": 0, "timestamps": 0}


def version_1(document: dict[str, Any]) -> None:
    identity = {key: value for key, value in document["trial"].items() if key != "slug"}
    older = {key: document[key] for key in ("run_id", "temps", "samples_per_item", "prompts", "datasets", "jobs")}
    created = document["timestamps"]["created_at"]
    document.clear()
    document.update(older, trial=identity, created_utc=created, lab_note={"kept": True})


def test_a_version_1_in_a_run_of_ours_is_upgraded(lab: Lab) -> None:
    good = lab.document()
    change(version_1)(lab.trial.manifest)
    original = lab.trial.manifest.read_bytes()
    ending = lab.resume()
    (backup,) = kept(lab, "backup")
    assert backup.read_bytes() == original
    assert lab.document()["lab_note"] == {"kept": True}
    assert lab.document()["jobs"] == good["jobs"]
    assert [ending.verbs[name] for name in ("build", "submit", "download")] == ["skip"] * 3


@pytest.mark.parametrize("error", ERRORS)
def test_nothing_changes_when_the_original_cannot_be_kept(lab: Lab, error: int) -> None:
    for harm in (change(version_1), put(b"{}")):
        harm(lab.trial.manifest)
        before = lab.trial.manifest.read_bytes()
        said: list[str] = []
        with FaultyDisk(0, error) as disk, pytest.raises(DiskTrouble):
            opening.for_writing(words.parse({"rid": RID}), said.append, may_create=False)
        assert disk.fired
        assert said == [], "it was told that the original is kept before it was"
        assert lab.trial.manifest.read_bytes() == before
        assert kept(lab, "backup") + kept(lab, "corrupt") == []


def test_a_kill_at_any_step_of_an_upgrade_ends_in_one_backup(lab: Lab) -> None:
    change(version_1)(lab.trial.manifest)
    original = lab.trial.manifest.read_bytes()
    steps = operations(lambda: lab.resume("prepare"))
    (backup,) = kept(lab, "backup")
    expected = lab.document()
    for number in range(len(steps)):
        backup.unlink(missing_ok=True)
        for copy in kept(lab, "backup"):
            copy.unlink()
        lab.trial.manifest.write_bytes(original)
        with FaultyDisk(number) as disk, pytest.raises(DiskTrouble):
            lab.resume("prepare")
        assert disk.fired, steps[number]
        lab.resume("prepare")
        assert [copy.read_bytes() for copy in kept(lab, "backup")] == [original]
        assert {**lab.document(), "timestamps": 0, "checksum": 0, "stage_status": 0} == {
            **expected,
            "timestamps": 0,
            "checksum": 0,
            "stage_status": 0,
        }


# --- run.json and experiment.yaml --------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "empty", "array", "gone", "folder", "edited"])
def test_a_damaged_run_record_is_rebuilt_from_config_and_manifests(lab: Lab, damage: str) -> None:
    record = lab.run.record
    good = jsonl.loads(record.read_bytes())
    if damage == "gone":
        record.unlink()
    elif damage == "folder":
        record.unlink()
        record.mkdir()
    elif damage == "edited":
        change(lambda d: d.update(created_at="2001-01-01T00:00:00.000Z"))(record)
    else:
        DAMAGE[damage](record)
    ending = lab.resume("prepare")
    assert len(kept(lab, "corrupt", record)) == (damage != "gone")
    rebuilt = read_record(record)
    assert rebuilt.created_at == lab.document()["timestamps"]["created_at"]
    assert (rebuilt.rid, rebuilt.origin, list(rebuilt.trials)) == (RID, None, good["trials"])
    assert dict(rebuilt.config) == good["config"]
    assert any("run.json" in line and "rebuilt" in line for line in ending.said)
    again = lab.resume()
    assert again.errors == {}
    assert set(again.verbs.values()) == {"skip"}


def test_a_run_whose_record_is_damaged_is_still_the_latest(lab: Lab) -> None:
    lab.run.record.write_bytes(b"{")
    assert [run.rid for _, run in runs.known_runs()] == [RID]


def test_without_questions_the_prepared_items_prove_themselves(lab: Lab) -> None:
    """Where the config lay is known to run.json only; with it gone, so may be the questions."""
    (lab.root / "questions.jsonl").unlink()
    lab.run.record.write_bytes(b"")
    assert set(lab.resume().verbs.values()) == {"skip"}


def test_a_config_that_is_gone_comes_back_byte_for_byte(lab: Lab) -> None:
    text = lab.run.config.read_bytes()
    lab.run.config.unlink()
    assert set(lab.resume().verbs.values()) == {"skip"}
    assert lab.run.config.read_bytes() == text


def test_with_both_gone_it_stops_and_says_what_to_bring(lab: Lab) -> None:
    lab.run.config.unlink()
    lab.run.record.write_bytes(b"{}")
    before = lab.artifacts()
    with pytest.raises(DamagedArtifact, match=r"experiment\.yaml"):
        lab.resume()
    assert lab.artifacts() == before
    assert lab.run.record.read_bytes() == b"{}"


# --- manifests by themselves -------------------------------------------------------------------------


def test_check_says_what_opening_would_do_and_writes_nothing(lab: Lab) -> None:
    path = lab.trial.manifest
    assert "changes nothing" in repair.check(path)[0]
    change(version_1)(path)
    before = snapshot(lab.root)
    first, second = repair.check(path)
    assert "version 1" in first
    assert "backup" in first
    assert second == "stages that the files bear out: downloaded."
    path.write_bytes(b"\0")
    assert "rebuilt" in repair.check(path)[0]
    path.write_bytes(before[path.relative_to(lab.root).as_posix()])
    assert snapshot(lab.root) == before


def test_migrate_does_what_check_said(lab: Lab) -> None:
    change(version_1)(lab.trial.manifest)
    said = repair.check(lab.trial.manifest)
    done = repair.migrate(lab.trial.manifest)
    assert done[: len(said)] == said
    assert done[-1] == f"the original is {kept(lab, 'backup')[0].name}."
    assert "nothing was changed" in repair.migrate(lab.trial.manifest)[0]


def test_migrate_respects_the_one_writer(lab: Lab) -> None:
    opened = opening.for_writing(words.parse({"rid": RID}), print, may_create=False)
    try:
        with pytest.raises(RunLocked):
            repair.migrate(lab.trial.manifest)
    finally:
        opened.close()


def test_a_manifest_without_its_run_is_migrated_too(tmp_path: Path, lab: Lab) -> None:
    path = tmp_path / "lone" / "results" / "trial_manifest.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"broken")
    (path.parent / "t0_control_p01_job.json").write_text('{"name": "accounts/a/batchInferenceJobs/j1", "model": "m"}')
    (path.parent / "t0_control_p02_OUTPUT_DATASET_ID.txt").write_text("out-2\n")
    repair.migrate(path)
    document = manifest.load(path).document
    assert document["jobs"] == {"t0_control": ["j1", None]}
    assert document["job_status"] == {"t0_control_p01": "submitted", "t0_control_p02": "submitted"}
    assert document["trial"]["model_id"] == "m"


def test_jobs_that_a_torn_text_still_shows_are_kept(tmp_path: Path) -> None:
    """The earlier tool may have written them nowhere else."""
    path = tmp_path / "lone" / "trial_manifest.json"
    path.parent.mkdir()
    path.write_text(
        '{"model_id": "m", "jobs": {"t0_control": ["j1", null, "accounts/a/b/j3"], "t0_treatment": ["j4", "j'
    )
    repair.migrate(path)
    assert manifest.load(path).document["jobs"] == {"t0_control": ["j1", None, "j3"], "t0_treatment": ["j4"]}


@pytest.mark.parametrize(
    ("key", "jobs"),
    {
        "t0_control_p00003": {"t0_control": [None, None, "j"]},
        # once a list of as many entries
        "t0_control_p900000000": {"t0_control_p900000000": ["j"]},
        # once a traceback
        "t0_control_p" + "9" * 5000: {},
        "t0_control\0": {},
        "t0_" + "x" * 300: {},
        # once a ledger that was looked for outside the run
        "../../../t0_control": {},
    }.items(),
    ids=range(6),
)
def test_a_damaged_manifest_may_name_anything_a_part(tmp_path: Path, key: str, jobs: dict[str, Any]) -> None:
    path = tmp_path / "run_x" / "trial" / "results" / "trial_manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text(f'{{"jobs": {{"{key}": ["j"]')
    repair.migrate(path)
    assert manifest.load(path).document["jobs"] == jobs


ASKING = pytest.mark.parametrize("ask", [repair.check, repair.migrate])


@ASKING
def test_no_manifest_is_a_wrong_path(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="there is no manifest"):
        ask(tmp_path / "trial_manifest.json")


@ASKING
@pytest.mark.parametrize("above", [1, 2, 3, 4])
def test_a_folder_is_not_taken_for_a_damaged_manifest(lab: Lab, above: int, ask: Callable[[Path], object]) -> None:
    """History: the folder of a run, or of all runs, was renamed and a manifest written in its place."""
    folder = lab.trial.manifest.relative_to(lab.root).parents[above - 1]
    before = snapshot(lab.root)
    with pytest.raises(UsageError, match="is a folder") as refused:
        ask(folder)
    assert refused.value.hint == f"name the file: experiments/run_{RID}/{SLUG}/results/trial_manifest.json"
    assert snapshot(lab.root) == before


@ASKING
def test_a_folder_without_manifests_is_told_where_one_would_be(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError) as refused:
        ask(tmp_path)
    assert refused.value.hint == f"name the file: {tmp_path}/<trial>/results/trial_manifest.json"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_manifest_of_a_run_is_still_migrated(lab: Lab) -> None:
    lab.trial.manifest.unlink()
    lab.trial.manifest.mkdir()
    assert "a folder stands in its place; rebuilt" in repair.check(lab.trial.manifest)[0]
    assert repair.migrate(lab.trial.manifest)[-1] == f"the original is {kept(lab, 'corrupt')[0].name}."
    assert lab.document()["stage_status"]["downloaded"]["status"] == "completed"


@ASKING
@pytest.mark.parametrize("name", ["run.json", "experiment.yaml", f"{SLUG}/results/predictions.csv"])
def test_another_file_is_not_replaced_by_a_manifest(lab: Lab, name: str, ask: Callable[[Path], object]) -> None:
    """History: it was kept under another name, and a manifest stood in its place: the run had lost its config."""
    before = snapshot(lab.root)
    with pytest.raises(UsageError, match="is no manifest, and not called like one"):
        ask(lab.run.root / name)
    after = snapshot(lab.root)
    assert {name: after[name] for name in before} == before


def test_a_copy_of_an_older_manifest_is_known_under_any_name(lab: Lab) -> None:
    change(version_1)(lab.trial.manifest)
    copy = lab.root / "copied.json"
    shutil.copy(lab.trial.manifest, copy)
    assert "version 1" in repair.check(copy)[0]


@ASKING
def test_a_file_where_the_folder_of_results_belongs_is_named(lab: Lab, ask: Callable[[Path], object]) -> None:
    shutil.rmtree(lab.trial.results)
    lab.trial.results.write_text("mine")
    with pytest.raises(UsageError, match=f"{SLUG}/results is a file and stands where its folder belongs") as refused:
        ask(lab.trial.manifest)
    assert "move " in str(refused.value.hint)
    assert lab.trial.results.read_text() == "mine"


def test_a_step_too_far_below_a_manifest_is_not_told_to_move_it(lab: Lab) -> None:
    with pytest.raises(UsageError) as refused:
        repair.check(lab.trial.manifest / "jobs")
    assert refused.value.hint == f"name {lab.trial.manifest}"


# --- every cut, every bit, any document --------------------------------------------------------------


def opens_safely(lab: Lab, data: bytes, good: dict[str, Any]) -> str:
    """What opening the run with *data* as its manifest comes to, for a reader; nothing may be silently other."""
    lab.trial.manifest.write_bytes(data)
    run = lab.run
    said: list[str] = []
    work = workspace.open_run(run, read_record(run.record), readonly=True)
    try:
        repair.open_manifest(work, SLUG, say=said.append)
    except FutureVersion:
        return "refused"
    document = work.manifest(SLUG).document
    for block in ("jobs", "datasets", "job_status", "job_counts", "trial", "run_id", "temps", "prompts"):
        assert document[block] == good[block], block
    for name, stage in document["stage_status"].items():
        if stage["status"] == "completed":
            assert stage["outputs"] == good["stage_status"][name]["outputs"], name
    if said:
        return "repaired"
    assert document == good
    return "as it was"


def flips(data: bytes) -> list[tuple[int, int]]:
    return [(place, bit) for place in range(len(data)) for bit in range(8)]


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def test_cuts_and_flipped_bits_are_repaired_or_refused(lab: Lab) -> None:
    data, good = lab.trial.manifest.read_bytes(), lab.document()
    chosen = random.Random(20261122)
    for length in chosen.sample(range(len(data) - 1), 60):
        assert opens_safely(lab, data[:length], good) == "repaired"
    ends = [opens_safely(lab, flipped(data, *where), good) for where in chosen.sample(flips(data), 240)]
    assert ends.count("as it was") == 0


@pytest.mark.heavy
def test_every_cut_and_every_flipped_bit_is_repaired_or_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    data, good = lab.trial.manifest.read_bytes(), lab.document()
    for length in range(len(data)):
        assert opens_safely(lab, data[:length], good) in ("repaired", "as it was")
    ends = [opens_safely(lab, flipped(data, *where), good) for where in flips(data)]
    assert ends.count("as it was") == 0
    assert ends.count("refused") < 10
    with capsys.disabled():
        print(f"\n{len(data):,} cuts and {len(ends):,} flipped bits, {ends.count('refused')} of them refused")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(
    [
        "schema_version",
        "jobs",
        "trial",
        "model_id",
        "stage_status",
        "timestamps",
        "checksum",
        "job_status",
        "temps",
        "x",
    ]
)
_near = st.dictionaries(
    _keys,
    st.sampled_from([1, 2, 3, {"model_id": "m"}, {"t0_control": ["j", None]}, {"t0_control": "j"}, "j", []]) | _json,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_near | _json | st.binary(max_size=40))
def test_any_document_raises_only_our_errors_and_ends_well(tmp_path: Path, document: Any) -> None:
    folder = Path(tempfile.mkdtemp(dir=FAST_DISK))
    try:
        path = folder / "t" / "results" / "trial_manifest.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        try:
            repair.check(path)
            repair.migrate(path)
        except TrialmakeError:
            return
        manifest.load(path)
        assert "changes nothing" in repair.check(path)[0]
    finally:
        shutil.rmtree(folder)
