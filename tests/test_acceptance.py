"""The acceptance list for manifests and decisions, one test each; the tables and stories are in other files.

every damage to every file              test_resume_table.py
every setting                           test_config_edits.py
old, damaged and missing manifests      test_legacy.py, test_repair.py, test_upgrade.py
signals, kills, pipes                   test_doit_stops.py
"""

import json
import shutil

import earlier_tool
import pytest
from quick_folder import quick_folder
from run_kit import RID, TRIAL, artifacts, doit, leftovers, tiny

from pipeline import manifest, schema
from pipeline.emulator import history

PART = "t0_control_p01"


@pytest.fixture(scope="module")
def finished():
    with quick_folder() as base:
        assert doit(tiny(base / "run"), f"rid={RID}", "config=experiment.yaml", "to=costs").code == 0
        yield base


@pytest.fixture
def run(finished):
    folder = finished / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(finished / "run", folder, symlinks=True)


def trial(folder):
    return folder / "experiments" / f"run_{RID}" / TRIAL


def manifest_of(folder):
    return trial(folder) / "results" / "trial_manifest.json"


def calls(folder):
    return len(history.calls(folder / "experiments" / f"run_{RID}" / ".emulator"))


def test_new_trials_are_v2(run):
    document = json.loads(manifest_of(run).read_text())
    assert document["schema_version"] == 2
    assert schema.problems(document, manifest.SCHEMA) == []
    assert {stage["status"] for stage in document["stage_status"].values()} == {"completed", "pending"}
    assert manifest.load(manifest_of(run)).document == document, "its checksum holds"


def test_v1_upgrades_with_backup(quick_path):
    folder = tiny(quick_path / "old")
    old = earlier_tool.Folder(folder / "experiments" / "run_old").build()
    original = old.manifest.read_bytes()
    assert "schema_version" not in json.loads(original)
    resumed = doit(folder, "resume", "rid=old", "to=costs")
    assert resumed.code == 0, resumed.out + resumed.err
    assert json.loads(old.manifest.read_text())["schema_version"] == 2
    (backup,) = old.manifest.parent.glob("trial_manifest.json.backup.*.json")
    assert backup.read_bytes() == original


def test_corrupt_is_set_aside_and_rebuilt_from_artifacts(run):
    damaged = manifest_of(run).read_bytes()[:700]
    manifest_of(run).write_bytes(damaged)
    before, asked = artifacts(run), calls(run)
    resumed = doit(run, "to=costs")
    assert resumed.code == 0
    (aside,) = manifest_of(run).parent.glob("trial_manifest.json.corrupt.*")
    assert aside.read_bytes() == damaged
    jobs = manifest.load(manifest_of(run)).document["jobs"]
    assert sorted(job.id for job in history.jobs(run / "experiments" / f"run_{RID}" / ".emulator")) == sorted(
        name for names in jobs.values() for name in names
    )
    aside.unlink()
    assert (artifacts(run), calls(run)) == (before, asked)


def test_resume_skips_completed_phases_and_rebuilds_only_what_is_missing_or_stale(run):
    before, asked = artifacts(run), calls(run)
    (trial(run) / "results" / "per_item_scores.csv").unlink()
    resumed = doit(run, "resume", f"rid={RID}", "to=costs")
    assert resumed.worked == ["score"]
    assert {verb for (phase, _), (verb, _) in resumed.decisions.items() if phase != "score"} == {"skip"}
    assert (artifacts(run), calls(run)) == (before, asked)


def test_parse_counts_match(run):
    results = trial(run) / "results"
    ids = [json.loads(line)["custom_id"] for line in (results / "results_combined.jsonl").read_text().splitlines()]
    rows = (results / "predictions.csv").read_bytes().count(b"\r\n") - 1
    asked = sum(len(path.read_text().splitlines()) for path in (trial(run) / "batch_inputs").glob("t*.jsonl"))
    assert rows == len(ids) == len(set(ids)) == asked == 40
    assert json.loads(manifest_of(run).read_text())["stage_status"]["parsed"]["artifacts"]["row_count"] == 40


def test_parse_mismatch_errors_and_reparses(run):
    before = artifacts(run)
    combined = trial(run) / "results" / "results_combined.jsonl"
    lines = combined.read_text().splitlines(keepends=True)
    lost = json.loads(lines[3])["custom_id"]
    combined.write_text("".join(lines[:3] + lines[4:]))
    refused = doit(run, "only=parse")
    assert refused.code == 1
    assert "report: " not in refused.out  # the one that lies there is not of these answers
    assert "39 rows with 39 unique custom_ids, 40 were asked for; 1 missing, e.g. " + lost in refused.out
    stage = json.loads(manifest_of(run).read_text())["stage_status"]["parsed"]
    assert (stage["status"], "39 rows" in stage["error"]) == ("failed", True)
    assert leftovers(run) == []
    resumed = doit(run, "resume", f"rid={RID}", "to=costs")
    assert (resumed.code, resumed.worked) == (0, ["download", "parse"])
    assert resumed.decisions["parse", TRIAL][1].startswith("failed last time: ")
    for aside in combined.parent.glob("*.damaged.*"):
        aside.unlink()
    assert artifacts(run) == before


@pytest.mark.parametrize("raw", [True, False], ids=["from the raw rows", "by download"])
def test_deleted_part_file_is_repaired(run, raw):
    before, asked = artifacts(run), calls(run)
    (trial(run) / "results" / PART / "results.jsonl").unlink()
    if not raw:
        shutil.rmtree(trial(run) / "results" / PART / "a1")
    resumed = doit(run, "to=costs")
    assert (resumed.code, resumed.worked) == (0, ["download"])
    assert resumed.decisions["download", TRIAL] == ("repair", f"{PART}/results.jsonl: missing")
    assert artifacts(run) == before
    since = history.calls(run / "experiments" / f"run_{RID}" / ".emulator")[asked:]
    assert {call["method"] for call in since} == (set() if raw else {"GET"})


def test_decisions_are_logged_with_reasons(run):
    log = run / "experiments" / f"run_{RID}" / "logs" / "decisions.jsonl"
    log.unlink()
    (trial(run) / "results" / "costs.json").write_text("{}")
    resumed = doit(run, "to=costs")
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(line["phase"], line["trial"]): (line["decision"], line["reason"]) for line in logged} == resumed.decisions
    assert all(line["reason"] and line["at"] for line in logged)
    assert resumed.decisions["costs", TRIAL][0] == "repair"
