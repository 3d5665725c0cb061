"""An opened run: whole or not there, known by its record, and nothing written by looking."""

import os
import random
import shutil

import pytest
from faulty_disk import ERRORS, FaultyDisk, operations
from small_trial import SmallTrial

from pipeline import jsonl, ledger, runs, sealed, workspace
from pipeline.errors import (
    ConfigError,
    DamagedArtifact,
    DiskTrouble,
    FutureVersion,
    Refused,
    UnknownRun,
    UnreadableFile,
)
from pipeline.manifest import COMPLETED, Stage
from pipeline.paths import RunPaths
from pipeline.providers.base import Binding, Submission
from pipeline.record import read_record

NOW = "2026-01-01T00:00:00.000Z"
PREPARED = Stage(
    status=COMPLETED, updated_at=NOW, outputs={"prepared/open_book.jsonl": {"sha256": "a" * 64, "size": 1}}
)


@pytest.fixture
def small(quick_path):
    return SmallTrial(quick_path)


@pytest.fixture
def run(small):
    runs.create(small.run, small.config, NOW)
    return small.run


def opened(run, *, readonly=False, **options):
    return workspace.open_run(run, read_record(run.record), readonly=readonly, **options)


def rewrite(path, change, *, seal=True):
    document = jsonl.loads(path.read_bytes())
    change(document)
    path.write_bytes(jsonl.dumps_pretty(sealed.sealed(document) if seal else document))


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- creating -------------------------------------------------------------------------------------


def test_a_new_run_is_its_frozen_config_and_its_record(small, run):
    assert sorted(tree(run.root)) == ["experiment.yaml", "run.json"]
    record = read_record(run.record)
    assert (record.rid, record.created_at, record.trials, dict(record.stages)) == ("r1", NOW, ("small-default",), {})
    assert record.config == small.config.values
    assert record.sources_base == "../.."
    work = opened(run)
    assert work.config.values == small.config.values
    assert work.config.trials == small.config.trials
    assert work.config_changes == []
    assert work.config.path("quiz.jsonl").resolve() == small.questions.resolve()


@pytest.mark.parametrize("error", ERRORS)
def test_a_run_is_whole_or_not_there(quick_path, error):
    """The record comes last: what has none is not a run."""
    (quick_path / "healthy").mkdir()
    healthy = SmallTrial(quick_path / "healthy")
    steps = operations(lambda: runs.create(healthy.run, healthy.config, NOW))
    record = steps.index("rename run.json")
    assert steps.index("rename experiment.yaml") < record
    for fail_at in range(len(steps)):
        (folder := quick_path / str(fail_at)).mkdir()
        small = SmallTrial(folder)
        with FaultyDisk(fail_at, error) as faulty, pytest.raises(DiskTrouble):
            runs.create(small.run, small.config, NOW)
        assert faulty.fired
        assert runs.exists(small.run) is (fail_at > record)
        runs.create(small.run, small.config, NOW)
        assert opened(small.run).config.values == small.config.values


# --- the record -----------------------------------------------------------------------------------


def test_stages_of_the_run_stand_in_its_record(run):
    work = opened(run)
    work.set_run_stage("prepare", PREPARED)
    assert opened(run).record.stages == {"prepare": PREPARED}
    assert operations(lambda: work.set_run_stage("prepare", PREPARED)) == []


def test_an_invalid_record_is_never_written(run):
    before = run.record.read_bytes()
    work = opened(run)
    for name, stage in (("parse", PREPARED), ("prepare", Stage(status="done"))):
        with pytest.raises(ValueError, match="would write an invalid run record"):
            work.set_run_stage(name, stage)
        assert run.record.read_bytes() == before
        work = opened(run)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\x00" * 40, b'{"rid": "r1"}', b'{"schema_version": 1}'])
def test_a_damaged_record_is_named(run, data):
    run.record.write_bytes(data)
    with pytest.raises(DamagedArtifact, match=r"run\.json"):
        read_record(run.record)


def test_a_sealed_document_of_another_kind_is_no_record(run):
    run.record.write_bytes(jsonl.dumps(sealed.sealed({"schema_version": 1, "parts": []})))
    with pytest.raises(DamagedArtifact):
        read_record(run.record)


def test_a_folder_in_its_place_is_damage_and_what_cannot_be_read_is_not(run):
    run.record.unlink()
    with pytest.raises(FileNotFoundError):
        read_record(run.record)
    run.record.symlink_to(run.record)
    with pytest.raises(UnreadableFile):
        read_record(run.record)
    run.record.unlink()
    run.record.mkdir()
    with pytest.raises(DamagedArtifact):
        read_record(run.record)


def test_where_one_run_cannot_be_read_the_latest_is_not_known_but_another_can_be_named(run):
    experiments = run.root.parent
    other = RunPaths.of("other", experiments)
    other.root.mkdir()
    other.record.symlink_to(other.record)
    with pytest.raises(UnreadableFile) as told:
        runs.known_runs(experiments)
    assert told.value.hint.endswith("or name the run you mean, as in doit resume rid=RID")
    assert f"other, {run.rid}" in str(runs.unknown_run("nobody", experiments))


def test_a_record_of_the_future_is_refused_whatever_else_it_says(run):
    rewrite(run.record, lambda document: document.update(schema_version=2, trials=None), seal=False)
    with pytest.raises(FutureVersion, match="is of version 2; this tool knows versions up to 1"):
        read_record(run.record)


def test_no_flipped_bit_is_taken_for_another_record(run):
    good = read_record(run.record)
    data = run.record.read_bytes()
    for place in random.Random(2).sample(range(len(data)), 200):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        run.record.write_bytes(damaged)
        try:
            found = read_record(run.record)
        except (DamagedArtifact, FutureVersion):
            continue
        assert found == good  # white space


# --- which runs there are -------------------------------------------------------------------------


def make(small, rid, created_at):
    other = RunPaths.of(rid, small.run.root.parent)
    runs.create(other, small.config, created_at)
    return other


def test_runs_are_known_by_when_they_were_created(small, run):
    """Not by name and not by the time of a file: a copied folder keeps its place."""
    make(small, "a", "2026-03-01T00:00:00.000Z")
    make(small, "z", "2025-01-01T00:00:00.000Z")
    (small.run.root.parent / "run_half").mkdir()
    (small.run.root.parent / "notes").mkdir()
    assert [found.rid for _, found in runs.known_runs(small.run.root.parent)] == ["z", "r1", "a"]


def test_a_run_without_its_record_is_one_if_parts_were_built(small, run):
    small.ready()
    run.record.unlink()
    assert runs.exists(run)
    assert [found.rid for _, found in runs.known_runs(run.root.parent)] == ["r1"]
    small.paths.index.unlink()
    assert not runs.exists(run)


def test_when_a_run_was_created_its_manifests_know_too(small, run):
    """Without its record it must not become the latest run, or the oldest."""
    work = opened(run)
    work.manifest("small-default").document["timestamps"]["created_at"] = "2026-02-02T00:00:00.000Z"
    work.save_manifest("small-default")
    small.ready()
    make(small, "a", "2026-03-01T00:00:00.000Z")
    make(small, "b", "2026-02-01T00:00:00.000Z")
    run.record.write_bytes(b"{}")
    assert [found.rid for _, found in runs.known_runs(run.root.parent)] == ["b", "r1", "a"]
    run.trial("small-default").manifest.write_bytes(b"{}")
    os.utime(run.config, (0, 0))
    assert runs.creation_of(run) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("put", "kind"),
    [(lambda path: path.write_text("notes"), "file"), (lambda path: path.symlink_to("gone"), "symlink")],
)
def test_what_stands_in_place_of_all_runs_is_named(quick_path, put, kind):
    """History: the advice was to start the run, which could not be made there."""
    put(quick_path / "experiments")
    error = runs.unknown_run("r1", quick_path / "experiments")
    assert isinstance(error, UnknownRun)
    assert error.what == f"there is no run 'r1': a {kind} stands where the folder of the runs belongs."
    assert error.where == str(quick_path / "experiments")
    assert error.hint.startswith(f"move {quick_path / 'experiments'} away")


def test_an_unknown_run_names_those_there_are(small, run):
    make(small, "newer", "2026-03-01T00:00:00.000Z")
    error = runs.unknown_run("nope", run.root.parent)
    assert isinstance(error, UnknownRun)
    assert "there is no run 'nope'" in str(error)
    assert "Runs there are: newer, r1." in str(error)
    assert "none yet" in str(runs.unknown_run("nope", small.folder / "empty"))


def test_a_run_of_a_newer_tool_does_not_hide_that_another_is_unknown(small, run):
    other = make(small, "newer", "2026-03-01T00:00:00.000Z")
    rewrite(other.record, lambda document: document.update(schema_version=2), seal=False)
    assert "Runs there are: newer, r1." in str(runs.unknown_run("nope", run.root.parent))


# --- opening --------------------------------------------------------------------------------------


def test_looking_writes_nothing(small, run):
    small.ready()
    before = tree(small.folder)

    def look():
        work = opened(run, readonly=True)
        work.manifest("small-default")
        work.index("small-default")
        work.ledger("small-default", "t0_control_p01")
        work.submitted("small-default")
        work.damage("experiment.yaml", None, 1)
        runs.known_runs(run.root.parent)

    assert operations(look) == []
    assert tree(small.folder) == before


def test_a_workspace_for_reading_refuses_to_write(run):
    work = opened(run, readonly=True)
    for write in (
        lambda: work.save_manifest("small-default"),
        lambda: work.set_run_stage("prepare", PREPARED),
        work.accept_config,
    ):
        with pytest.raises(AssertionError):
            write()


def test_a_renamed_folder_is_refused(run):
    """Job ids are made from the run's id: under another name its jobs would be submitted again."""
    other = RunPaths(run.root.rename(run.root.with_name("run_r2")))
    with pytest.raises(Refused) as refused:
        opened(other)
    assert "belongs to the run 'r1', but its folder is called 'run_r2'" in str(refused.value)
    assert "rename the folder back to run_r1" in str(refused.value)


def test_a_run_moves_with_its_sources(small, run, tmp_path):
    shutil.copytree(small.folder, tmp_path / "copy")
    work = opened(RunPaths.of("r1", tmp_path / "copy" / "experiments"))
    assert work.config.path("quiz.jsonl").resolve() == (tmp_path / "copy" / "quiz.jsonl").resolve()


def test_an_edit_of_the_frozen_config_is_seen_and_can_be_accepted(run):
    text = run.config.read_text()
    assert "samples_per_item: 1" in text
    run.config.write_text(text.replace("samples_per_item: 1", "samples_per_item: 2") + "# a comment\n")
    work = opened(run)
    assert work.config_changes == ["samples_per_item: 1 -> 2"]
    assert work.config.trials[0].samples == 2
    work.accept_config()
    assert opened(run).config_changes == []
    assert operations(opened(run).accept_config) == []


def test_an_edit_that_changes_no_value_is_no_change(run):
    run.config.write_text("# a comment\n" + run.config.read_text())
    assert opened(run).config_changes == []


def test_a_wrong_edit_is_a_config_error(run):
    run.config.write_text(run.config.read_text().replace("samples_per_item: 1", "samples_per_itm: 1"))
    with pytest.raises(ConfigError, match="samples_per_itm: unknown key; did you mean 'samples_per_item'"):
        opened(run)


def test_without_its_frozen_config_the_record_holds_the_values(small, run):
    run.config.unlink()
    work = opened(run, readonly=True)
    assert work.config.values == small.config.values
    assert work.config_changes == []


# --- what it knows of its trials ------------------------------------------------------------------


def test_a_trial_that_did_nothing_has_a_manifest_in_memory_only(run):
    work = opened(run)
    assert work.manifest("small-default").stage("parsed") == Stage()
    assert not run.trial("small-default").manifest.exists()
    work.save_manifest("small-default")
    assert run.trial("small-default").manifest.exists()


def test_what_another_process_recorded_is_seen_after_a_refresh(run):
    ours, theirs = opened(run), opened(run)
    ours.manifest("small-default")
    theirs.manifest("small-default").set_stage("parsed", Stage(status=COMPLETED, updated_at=NOW))
    theirs.save_manifest("small-default")
    theirs.set_run_stage("prepare", PREPARED)
    assert ours.manifest("small-default").stage("parsed") == Stage()
    ours.refresh()
    assert ours.manifest("small-default").stage("parsed").status == COMPLETED
    assert ours.record.stages == {"prepare": PREPARED}


def test_the_list_of_parts_is_read_again_when_it_changed(small, run):
    work = opened(run)
    assert work.index("small-default") is None
    small.ready()
    first = work.index("small-default")
    assert first.rows == 6
    assert work.index("small-default") is first
    small.ask({"id": "x", "question": "q", "answers": ["ans"]})
    small.ready()
    assert work.index("small-default").rows == 2
    small.paths.index.write_bytes(b"{}")
    with pytest.raises(DamagedArtifact):
        work.index("small-default")


def test_an_intent_is_enough_to_count_as_submitted(small, run):
    """Its outcome is not known before the provider is asked."""
    work = opened(run)
    assert not work.submitted("small-default")
    small.paths.part("t0_control_p01").root.mkdir(parents=True)
    assert not work.submitted("small-default")
    ledger.intend(
        small.paths.part("t0_control_p01").ledger,
        1,
        Submission("j", "j-in", "j-out", small.questions, 1, "m", "d"),
        "a" * 64,
        Binding("f", "a", "e"),
        {"input_tokens": 1, "output_tokens": 1, "usd": None},
    )
    assert work.submitted("small-default")
    assert work.ledger("small-default", "t0_control_p01").last.job_id == "j"


@pytest.mark.parametrize("left", ["OUTPUT_DATASET_ID.txt", "results.jsonl", "a2/BIJOutputSet.jsonl", "a1/error-data"])
def test_whatever_a_submission_leaves_shows_it_where_the_ledger_is_lost(small, run, left):
    work = opened(run)
    path = small.paths.part("t0_control_p01").root / left
    path.parent.mkdir(parents=True)
    path.with_name(".DS_Store").touch()
    assert not work.submitted("small-default")
    path.touch()
    assert work.submitted("small-default")


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda path: None, None),
        (os.unlink, "f.csv: missing"),
        (lambda path: path.write_bytes(b""), "f.csv: empty, was 8 bytes when it was written"),
        (lambda path: path.write_bytes(b"1,234"), "f.csv: 5 bytes, was 8 bytes when it was written"),
        (lambda path: path.write_bytes(b"contenT\n"), "f.csv: its content is not what was written"),
        (lambda path: (path.unlink(), path.mkdir()), "f.csv: a folder stands in its place"),
        (lambda path: (path.rename(path.with_name("g")), path.symlink_to("g")), "f.csv: a symlink stands in its place"),
        (lambda path: os.utime(path, (1, 1)), None),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_its_content(run, action, said):
    path = run.root / "f.csv"
    path.write_bytes(b"content\n")
    work = opened(run)
    sha256 = work.fingerprints.sha256(path)
    action(path)
    found = work.damage("f.csv", sha256, 8)
    assert found is None if said is None else found.startswith(said)
    if said is None or "content" not in said:
        assert (work.damage("f.csv", None, 8) is None) is (said is None)
