"""What finding out that nothing is to be done may cost: each file one look, and no reading but of the records.

`benchmarks/noop.py` measures the seconds. Here is counted what they go into, so that they stay where they are.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from quick_folder import quick_folder
from run_kit import RID, TRIAL, at, doit, tiny, two_trials, watched

OTHER = "other-default"
opened: Counter[str] | None = None


def note(event, arguments):
    if opened is not None and event == "open" and isinstance(arguments[0], str | os.PathLike):
        opened[os.fspath(arguments[0])] += 1


sys.addaudithook(note)  # for ever, but silent unless a test asks


@pytest.fixture(scope="module")
def run():
    """Two trials with their answers; the memory is warm."""
    with quick_folder() as folder:
        tiny(folder / "run", two_trials())
        assert doit(folder / "run", f"rid={RID}", "config=experiment.yaml", "to=download").code == 0
        yield folder / "run"


@pytest.fixture
def reads():
    """run -> how often each file of it is opened by `doit to=download`, by its name in the run's folder."""
    global opened

    def read(run):
        global opened
        opened = Counter()
        assert doit(run, "to=download").code == 0
        below = f"{Path('experiments', f'run_{RID}')}/"
        return {name.removeprefix(below): n for name, n in opened.items() if name.startswith(below)}

    yield read
    opened = None


def test_only_records_are_read_and_each_once(run, reads):
    expected = {"run.json", "experiment.yaml", "run.lock"}
    for trial in (TRIAL, OTHER):
        expected |= {f"{trial}/results/trial_manifest.json", f"{trial}/batch_inputs/index.json"}
    found = reads(run)
    assert found.keys() == expected
    assert all(found[name] == 1 for name in expected if name.startswith((TRIAL, OTHER)))


@pytest.fixture
def looks(monkeypatch):
    """path -> how often it was looked at."""
    counted, real = Counter(), os.lstat

    def lstat(path, **options):
        counted[str(path)] += 1
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    return counted


def artifacts(looks, trial):
    """How often each of the many files of *trial* was looked at."""
    found = [n for name, n in looks.items() if f"/{trial}/" in name and name.endswith((".jsonl", "attempts.json"))]
    assert len(found) > 9
    return found


def test_each_file_is_looked_at_once(run, looks):
    """Most phases ask after the files of others: each was looked at two to five times."""
    assert doit(run, "to=download").worked == []
    assert set(artifacts(looks, TRIAL) + artifacts(looks, OTHER)) == {1}


def test_a_file_that_changes_while_a_phase_works_is_seen_by_the_next(run):
    """One look for all decisions must end where something is done: here download mends what parse is to read."""
    combined = run / "experiments" / f"run_{RID}" / TRIAL / "results" / "results_combined.jsonl"
    good = combined.read_bytes()
    combined.write_bytes(b"")
    assert doit(run, "to=download").worked == ["download"]
    assert combined.read_bytes() == good
    assert doit(run, "to=download").worked == []


def test_one_damaged_part_is_repaired_without_the_ledgers_of_other_trials(run, reads):
    """The queue drives all trials; it read every ledger to learn that nothing was owed."""
    results, good = cut(run, TRIAL)
    found = reads(run)
    assert results.read_bytes() == good
    assert f"{TRIAL}/results/t0_control_p01/ledger.jsonl" in found
    read_of_the_other = {name for name in found if name.startswith(OTHER)}
    assert read_of_the_other == {f"{OTHER}/results/trial_manifest.json", f"{OTHER}/batch_inputs/index.json"}


def test_one_damaged_part_is_repaired_with_one_look_at_the_files_of_other_trials(run, looks):
    """After each phase all was looked at once more: with fifty trials that took as long as the repair."""
    cut(run, TRIAL)
    assert doit(run, "to=download").worked == ["download"]
    assert set(artifacts(looks, OTHER)) == {1}


def test_what_a_phase_mends_in_another_trial_is_looked_at_again(run):
    """The queue mends the parts of all trials in one pass, so the other trial's download finds nothing to do."""
    both = cut(run, TRIAL), cut(run, OTHER)
    found = doit(run, "to=download").decisions
    assert [(verb, trial) for (phase, trial), (verb, _) in found.items() if phase == "download"] == [
        ("repair", OTHER),
        ("skip", TRIAL),
    ]
    assert all(path.read_bytes() == good for path, good in both)


def test_an_input_edited_while_another_trial_was_at_work_is_not_used(run):
    """What was decided rested on a look of a moment ago; the phase that uses the file looks itself."""
    assert doit(run, "to=score").code == 0
    predictions = run / "experiments" / f"run_{RID}" / TRIAL / "results" / "predictions.csv"
    good = predictions.read_bytes()
    edit = at("rename", "per_item_scores.csv", lambda: predictions.write_bytes(good.replace(b"know", b"knew")))
    with watched(edit):
        ran = doit(run, "force=score", "to=score")
    assert predictions.read_bytes() != good
    assert ran.code == 2
    assert "predictions.csv is not what parse wrote, so it is not used" in ran.out
    assert doit(run, "to=score").code == 0
    assert predictions.read_bytes() == good


def cut(run, trial):
    """Damage one part's results; their path, and what they were."""
    results = run / "experiments" / f"run_{RID}" / trial / "results" / "t0_control_p01" / "results.jsonl"
    good = results.read_bytes()
    results.write_bytes(good[:-10])
    return results, good


# What resume.md says is not looked at, even with verify=deep, while results.jsonl is as recorded.
UNSEEN = ("ledger.jsonl", "OUTPUT_DATASET_ID.txt", "BIJOutputSet.jsonl", "error-data", "decisions.jsonl")


def test_deep_verification_reads_all_but_what_the_page_names(tmp_path):
    """The page promised certainty about every byte; raw files, ledgers and ids of datasets are not looked at."""
    global opened
    run = tiny(tmp_path / "run")
    assert doit(run, f"rid={RID}", "config=experiment.yaml").code == 0
    root = run / "experiments" / f"run_{RID}"
    for path in root.rglob("*"):
        if path.name in UNSEEN:
            path.write_bytes(path.read_bytes()[:-5] + b"wrong")
    opened = Counter()
    try:
        ran = doit(run, "verify=deep")
        read = {Path(name).name for name in opened}
    finally:
        opened = None
    assert (ran.code, ran.worked) == (0, [])
    files = {path.name for path in root.rglob("*") if path.is_file() and ".emulator" not in path.parts}
    assert files - read == {*UNSEEN, "queue.lock", ".doit.db"} & files
    page = (Path(__file__).parents[1] / "docs" / "resume.md").read_text()
    assert "certainty" not in page
    assert "damage to a ledger or to one of the service's files is not noticed" in page
    for name in UNSEEN[:2]:
        assert f"`{name}`" in page.partition("## What is looked at")[2].partition("## Submitting")[0]
