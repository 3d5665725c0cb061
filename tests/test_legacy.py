"""A run folder of the earlier tool is gone on with: what it finished stands, what it paid for is never paid for again.

Every case states how many jobs were created at the provider, an emulator in this process.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import earlier_tool
import pytest
import session_kit
from earlier_tool import (
    ACCOUNT,
    CREATED,
    MODEL,
    Folder,
    custom_id,
    items,
    lines,
    request,
    result,
    snapshot,
)
from emulator_kit import Api
from session_kit import TO_COSTS, Ending

from pipeline import actions, disk, jsonl, ledger, opening, plan, repair, yaml_text
from pipeline import request as words
from pipeline.emulator.config import Config
from pipeline.emulator.server import Emulator
from pipeline.errors import ConfigError, DiskTrouble, FutureVersion, Refused
from pipeline.paths import RunPaths

AGES = (0, 1, 2, 3)
ANALYSIS = ("predictions.csv", "per_item_scores.csv", "significance.json", "costs.json")


@dataclass
class Lab:
    """A folder with experiments/, and an account at an emulator."""

    root: Path
    api: Api
    own: int = 0  # jobs that stand for the earlier tool's

    def folder(self, age: int = 2, **size: int) -> Folder:
        return Folder(self.root / "experiments" / "run_old", age, **size).build()

    def resume(self, *phases: str, **variables: str) -> Ending:
        """`doit resume rid=old` for *phases*; all up to costs when none are named."""
        return session_kit.resume("old", *phases, **variables)

    def jobs_created(self) -> int:
        """How many jobs were created beside those that stand for the earlier tool's."""
        posted = [call for call in self.api.calls() if call["method"] == "POST"]
        return sum(call["path"].endswith("batchInferenceJobs") for call in posted) - self.own

    def submit(self, folder: Folder, name: str) -> None:
        """Make the job that the earlier tool made for the part *name*."""
        condition, shard = folder.shard(name)
        self.own += 1
        job, output = folder.job(name), f"out-{name.replace('_', '-')}"
        self.api.dataset(f"ex-{name.replace('_', '-')}", [request(item, condition) for item in shard])
        assert self.api.create_job(job, f"ex-{name.replace('_', '-')}", output, model=MODEL).status_code == 200
        self.api.advance(10)

    def manifest(self, slug: str = earlier_tool.SLUG) -> dict[str, Any]:
        return jsonl.read_document(RunPaths(self.root / "experiments" / "run_old").trial(slug).manifest)


# Memory where there is some: hundreds of small files with an fsync each would wait for a disk.
_FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(dir=_FAST_DISK) as name:
        root = Path(name)
        monkeypatch.chdir(root)
        monkeypatch.setenv("FIREWORKS_API_KEY", "emulator-key")
        monkeypatch.setattr(actions, "_SERVICE_SECOND_LOOK", 0.0)  # the emulator's steps come on no ticks of a minute
        settings = Config(account_id=ACCOUNT, job_seconds=0.02, ready_seconds=0.0)
        with Emulator(root / "store", settings) as emulator, Api(emulator.url, account=ACCOUNT) as api:
            monkeypatch.setenv("TRIALMAKE_FIREWORKS__BASE_URL", emulator.url)
            yield Lab(root, api)
        monkeypatch.undo()


def empty_of_answers(folder: Folder, name: str) -> None:
    """The part *name* as it is before its results were fetched, and what comes after it gone too."""
    shutil.rmtree(folder.results / name)
    for gone in ("results_combined.jsonl", *ANALYSIS):
        (folder.results / gone).unlink(missing_ok=True)


# --- finished runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("age", AGES)
def test_a_finished_run_of_any_age_is_kept_as_it_is(lab: Lab, age: int) -> None:
    folder = lab.folder(age)
    before = snapshot(folder.root)
    ending = lab.resume(*TO_COSTS, "report", "index")
    assert set(ending.verbs.values()) == {"skip"}
    after = snapshot(folder.root)
    replaced = folder.manifest.relative_to(folder.root).as_posix() if age else ""
    assert {name: data for name, data in after.items() if name in before and name != replaced} == {
        name: data for name, data in before.items() if name != replaced
    }
    assert lab.jobs_created() == 0
    assert lab.resume(*TO_COSTS, "report", "index").verbs == ending.verbs
    assert snapshot(folder.root) == {
        **after,
        "run.lock": snapshot(folder.root)["run.lock"],
        ".doit.db": snapshot(folder.root)[".doit.db"],
    }


@pytest.mark.parametrize("age", AGES)
def test_its_manifest_is_upgraded_with_a_backup_and_loses_nothing(lab: Lab, age: int) -> None:
    folder = lab.folder(age)
    original = folder.manifest.read_bytes()
    lab.resume()
    slug = earlier_tool.SLUG if age else "tiny-8b-default"
    document = lab.manifest(slug)
    results = folder.root / slug / "results"
    (backup,) = results.glob("trial_manifest.json.backup.*.json")
    assert backup.read_bytes() == original
    assert document["schema_version"] == 2
    assert document["timestamps"]["created_at"] == CREATED
    assert document["lab_note"] == folder.document()["lab_note"]
    assert sorted(name for names in document["jobs"].values() for name in names) == sorted(
        map(folder.job, folder.names)
    )
    done = {name for name, stage in document["stage_status"].items() if stage["status"] == "completed"}
    assert done == {"downloaded", "parsed", "scored", "stats", "costs", "report"}
    assert all(stage["format"] == "legacy" for name, stage in document["stage_status"].items() if name in done)
    assert jsonl.read_document(folder.root / "run.json")["created_at"] == CREATED


@pytest.mark.parametrize("age", AGES)
def test_a_finished_run_whose_manifest_was_migrated_first_is_kept(lab: Lab, age: int) -> None:
    """A flat folder's migrated manifest names its files where they lay: its copy called whole files damaged."""
    folder = lab.folder(age)
    repair.migrate(folder.manifest)
    before = snapshot(folder.root)
    ending = lab.resume(*TO_COSTS, "report", "index")
    assert (set(ending.verbs.values()), ending.errors) == ({"skip"}, {})
    after = snapshot(folder.root)
    assert {name: data for name, data in after.items() if name in before} == before
    assert not [name for name in after if ".damaged." in name or ".legacy." in name]
    slug = earlier_tool.SLUG if age else "tiny-8b-default"
    stages = lab.manifest(slug)["stage_status"]
    assert {name for name, stage in stages.items() if stage["status"] == "completed"} == set(STAGES)
    assert all(path.startswith(f"{slug}/") for name in STAGES for path in stages[name]["outputs"])
    assert lab.jobs_created() == 0


def test_a_finished_run_whose_requests_are_gone_is_kept(lab: Lab) -> None:
    folder = lab.folder()
    shutil.rmtree(folder.root / "batch_inputs")
    ending = lab.resume()
    assert set(ending.verbs.values()) == {"skip"}
    assert lab.jobs_created() == 0


@pytest.mark.parametrize("lost", ["|q1|treatment|", "|q3|control|"])
def test_without_requests_a_gap_in_the_answers_is_seen(lab: Lab, lost: str) -> None:
    """60 of 100 answers are not all of them: each item must be there under each condition."""
    folder = lab.folder()
    shutil.rmtree(folder.root / "batch_inputs")
    for name in ("results_combined.jsonl", "predictions.csv"):
        path = folder.results / name
        path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if lost not in line))
    ending = lab.resume()
    assert lab.manifest()["stage_status"]["downloaded"]["status"] != "completed"
    assert "batch_inputs/t0_control_part01.jsonl" in str(ending.errors["build"])
    assert lab.jobs_created() == 0


def test_a_finished_run_whose_raw_results_were_cleared_away_is_kept(lab: Lab) -> None:
    folder = lab.folder()
    (folder.results / "results_combined.jsonl").unlink()
    for name in folder.names:
        shutil.rmtree(folder.results / name)
    ending = lab.resume(*TO_COSTS, "report")
    assert set(ending.verbs.values()) == {"skip"}
    assert lab.manifest()["stage_status"]["downloaded"]["status"] == "pending"
    assert lab.jobs_created() == 0


def test_the_plan_of_a_kept_run_of_which_no_submission_is_left_refuses_nothing(lab: Lab) -> None:
    """It said that download is refused, since no part was ever submitted; the command skips it."""
    folder = lab.folder()
    folder.write_manifest(jobs={"t0_control": [None, None], "t0_treatment": [None, None]}, job_status={})
    (folder.results / "results_combined.jsonl").unlink()
    for name in folder.names:
        shutil.rmtree(folder.results / name)
        (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    assert set(lab.resume(*TO_COSTS, "report").verbs.values()) == {"skip"}
    with contextlib.closing(opening.for_reading(words.parse({"rid": "old"}), print)) as opened:
        assert {step.verb for step in plan.plan(opened).steps} == {"skip"}
    assert lab.jobs_created() == 0


# --- what does not hold is not believed --------------------------------------------------------------


STAGES = ("downloaded", "parsed", "scored", "stats", "costs", "report")

# What is wrong, how it is made so, and the stages that still hold.
BROKEN = [
    ("a prediction is missing", lambda r: drop_line(r / "predictions.csv"), STAGES[:1]),
    ("predictions of another run", lambda r: rewrite(r / "predictions.csv", "|q1|", "|q9|"), STAGES[:1]),
    ("a score is missing", lambda r: drop_line(r / "per_item_scores.csv"), STAGES[:2]),
    ("scores are empty", lambda r: (r / "per_item_scores.csv").write_text(""), STAGES[:2]),
    ("significance is cut off", lambda r: cut(r / "significance.json"), STAGES[:3]),
    ("significance of another run", lambda r: rewrite(r / "significance.json", '"0.0": {', '"0.7": {'), STAGES[:3]),
    ("costs without dollars", lambda r: rewrite(r / "costs.json", "usd", "eur"), STAGES[:4]),
    ("another report", lambda r: rewrite(r.parent / "reports" / "report.md", "Evaluation", "Weather"), STAGES[:5]),
    ("combined lacks a row", lambda r: drop_line(r / "results_combined.jsonl"), STAGES[1:]),
    ("combined holds a row twice", lambda r: double_line(r / "results_combined.jsonl"), STAGES[1:]),
]


@pytest.mark.parametrize(("what", "break_it", "held"), BROKEN, ids=[row[0] for row in BROKEN])
def test_only_what_the_files_bear_out_is_recorded_as_done(
    lab: Lab, what: str, break_it: Any, held: tuple[str, ...]
) -> None:
    """The earlier tool's own record claims all of it (age 3 says `completed` everywhere)."""
    folder = lab.folder(3)
    break_it(folder.results)
    lab.resume("prepare")
    stages = lab.manifest()["stage_status"]
    assert sorted(name for name, stage in stages.items() if stage["status"] == "completed") == sorted(held), what


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def double_line(path: Path) -> None:
    text = path.read_text()
    path.write_text(text + text.splitlines(keepends=True)[-1])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_a_file_that_went_missing_is_the_reason_that_is_given(lab: Lab) -> None:
    """It was said of answers and scores that what they rest on was made anew, which nothing had been."""
    folder = lab.folder()
    lab.resume(*TO_COSTS, "report")
    (folder.results / "predictions.csv").unlink()
    with contextlib.closing(opening.for_reading(words.parse({"rid": "old"}), print)) as opened:
        reasons = {phase.name: opened.decide(phase.name, slug).reason for phase, slug in opened.cells()}
    assert reasons["parse"] == "predictions.csv: missing; it is made anew in this tool's format"
    assert reasons["download"].endswith("is made anew in this tool's format: predictions.csv: missing")


def test_a_job_that_nothing_names_is_null_in_the_manifest(lab: Lab) -> None:
    """The ledger's word for it went into `jobs`, where it looked like a job."""
    folder = lab.folder(1)
    (folder.results / "predictions.csv").unlink()
    folder.write_manifest(jobs={group: [None] * len(names) for group, names in folder.document()["jobs"].items()})
    lab.resume(*TO_COSTS)
    document = lab.manifest()
    assert document["jobs"] == {"t0_control": [None, None], "t0_treatment": [None, None]}
    assert "unknown" not in json.dumps(document["datasets"])
    assert lab.jobs_created() == 0


# --- unfinished runs ---------------------------------------------------------------------------------


def test_an_unfinished_analysis_is_made_anew_from_the_answers(lab: Lab) -> None:
    """stats must run; it reads this tool's scores only, so parse and score are done again, and nothing is sent."""
    folder = lab.folder()
    folder.prepare()
    (folder.results / "significance.json").unlink()
    old = {name: (folder.results / name).read_bytes() for name in ("predictions.csv", "per_item_scores.csv")}
    ending = lab.resume()
    assert ending.errors == {}
    assert [ending.verbs[name] for name in ("build", "submit")] == ["skip", "skip"]
    assert [ending.verbs[name] for name in ("download", "parse", "score", "stats", "costs")] == ["run"] * 5
    for name, data in old.items():
        (kept,) = folder.results.glob(f"{name}.legacy.*")
        assert kept.read_bytes() == data
    rows = (folder.results / "per_item_scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * folder.count
    assert lab.jobs_created() == 0
    assert set(lab.resume().verbs.values()) == {"skip"}


def test_a_finished_trial_is_left_alone_while_another_is_made_anew(lab: Lab) -> None:
    """The queue drives all trials of a run; of a finished one of the earlier tool it touches nothing."""
    folder = lab.folder()
    folder.prepare()
    other = folder.root / f"{earlier_tool.SLUG}-tp05"
    shutil.copytree(folder.trial, other)
    (other / "results" / "costs.json").unlink()
    before = snapshot(folder.trial)
    ending = session_kit.resume("old", trial="*-tp05")
    assert ending.errors == {}
    assert ending.verbs["costs"] == "run"
    after = snapshot(folder.trial)
    manifest_name = "results/trial_manifest.json"
    assert {name: after[name] for name in before if name != manifest_name} == {
        name: data for name, data in before.items() if name != manifest_name
    }
    assert lab.jobs_created() == 0


def test_what_cannot_be_made_anew_is_refused_and_named(lab: Lab) -> None:
    """The questions are not here: predictions are made, the old scores stay, stats is refused with the file."""
    folder = lab.folder()
    (folder.results / "significance.json").unlink()
    ending = lab.resume()
    assert ending.verbs["parse"] == "run"
    assert ending.verbs["score"] == "skip"
    assert ending.verbs["stats"] == "refuse"
    assert "sources/squad_v2.jsonl" in str(ending.errors["stats"])
    lines(folder.root / "sources" / "squad_v2.jsonl", items(folder.count))
    assert lab.resume().verbs["stats"] == "run"
    assert lab.jobs_created() == 0


def test_a_forced_phase_is_written_in_this_tools_format(lab: Lab) -> None:
    folder = lab.folder()
    folder.prepare()
    ending = lab.resume(force="all")
    assert ending.errors == {}
    assert "status" in (folder.results / "predictions.csv").read_text().splitlines()[0]
    assert lab.manifest()["stage_status"]["stats"].get("format") is None
    assert lab.jobs_created() == 0


def test_answers_in_another_order_and_shape_are_recognised(lab: Lab) -> None:
    folder = lab.folder()
    for gone in ("results_combined.jsonl", *ANALYSIS):
        (folder.results / gone).unlink()
    raw = {name: (folder.results / name / "results.jsonl").read_bytes() for name in folder.names}
    ending = lab.resume("prepare", "build", "submit", "download", "parse")
    assert "download" not in ending.errors
    assert lab.jobs_created() == 0
    combined = [
        json.loads(row)["custom_id"] for row in (folder.results / "results_combined.jsonl").read_text().splitlines()
    ]
    assert combined == [
        custom_id(item, folder.shard(name)[0]) for name in folder.names for item in folder.shard(name)[1]
    ]
    for name, data in raw.items():
        assert (folder.results / name / "a1" / "BIJOutputSet.jsonl").read_bytes() == data


@pytest.mark.parametrize("age", AGES)
def test_a_known_job_is_asked_for_its_results(lab: Lab, age: int) -> None:
    """Partial: of one part only the job's name is left, in the manifest. It is fetched, not submitted again."""
    folder = lab.folder(age)
    name = folder.names[-1]
    empty_of_answers(folder, name)
    (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    lab.submit(folder, name)
    ending = lab.resume("prepare", "build", "submit", "download", "parse")
    assert set(ending.errors) <= {"prepare"}
    assert lab.jobs_created() == 0
    target = RunPaths(folder.root).trial(earlier_tool.SLUG if age else "tiny-8b-default")
    assert len(target.predictions.read_text().splitlines()) == 1 + 2 * folder.count


def test_an_output_dataset_is_fetched_when_the_job_is_not_known(lab: Lab) -> None:
    folder = lab.folder()
    name = folder.names[-1]
    empty_of_answers(folder, name)
    folder.write_manifest(jobs={"t0_control": [None, None], "t0_treatment": [None, None]}, job_status={})
    lab.submit(folder, name)
    ending = lab.resume("prepare", "build", "submit", "download")
    assert set(ending.errors) <= {"prepare"}
    assert lab.jobs_created() == 0


def test_a_job_breadcrumb_is_enough(lab: Lab) -> None:
    folder = lab.folder(1)
    name = folder.names[0]
    empty_of_answers(folder, name)
    (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    folder.manifest.write_bytes(folder.manifest.read_bytes()[:200])
    lab.submit(folder, name)
    resource = {"name": f"accounts/{ACCOUNT}/batchInferenceJobs/{folder.job(name)}", "model": MODEL, "state": "RUNNING"}
    (folder.results / f"{name}_job.json").write_text(json.dumps(resource))
    ending = lab.resume("prepare", "build", "submit", "download")
    assert set(ending.errors) <= {"prepare"}
    assert lab.jobs_created() == 0


def test_a_job_the_provider_has_lost_is_not_replaced_without_asking(lab: Lab) -> None:
    folder = lab.folder()
    empty_of_answers(folder, folder.names[-1])
    ending = lab.resume("prepare", "build", "submit", "download")
    assert "requeue=auto" in str(ending.errors["download"])
    assert lab.jobs_created() == 0
    again = lab.resume("prepare", "build", "submit", "download", requeue="auto")
    assert "download" not in again.errors
    assert lab.jobs_created() == 1


def test_parts_that_were_never_submitted_are_submitted_once(lab: Lab) -> None:
    """Age 2 knows: null is a job that was never made."""
    folder = lab.folder()
    never = folder.names[1]
    empty_of_answers(folder, never)
    (folder.results / f"{never}_OUTPUT_DATASET_ID.txt").unlink()
    jobs = folder.document()["jobs"]
    jobs["t0_control"][1] = None
    folder.write_manifest(jobs=jobs, job_status={**folder.document()["job_status"], never: "pending"})
    ending = lab.resume("prepare", "build", "submit", "download")
    assert set(ending.errors) <= {"prepare"}
    assert lab.jobs_created() == 1


def test_a_part_whose_requests_are_gone_is_refused_and_named(lab: Lab) -> None:
    folder = lab.folder(1)
    name = folder.names[-1]
    empty_of_answers(folder, name)
    kept = folder.requests(name).read_bytes()
    folder.requests(name).unlink()
    ending = lab.resume()
    assert "batch_inputs/t0_treatment_part02.jsonl" in str(ending.errors["build"])
    assert lab.jobs_created() == 0
    folder.requests(name).write_bytes(kept)
    lab.submit(folder, name)
    again = lab.resume("prepare", "build", "submit", "download")
    assert "download" not in again.errors
    assert lab.jobs_created() == 0


def test_a_control_that_another_trial_produced_is_found(lab: Lab) -> None:
    folder = lab.folder(3)
    for gone in ("results_combined.jsonl", *ANALYSIS):
        (folder.results / gone).unlink()
    shared = folder.root / "shared_controls" / ("ab" * 32)
    rows = [result(item, "control") for item in items(folder.count)]
    lines(shared / "results.jsonl", rows)
    for name in folder.names[:2]:
        shutil.rmtree(folder.results / name)
        (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    registry = {"t0": {"mode": "reuse", "shared_rel": f"shared_controls/{'ab' * 32}", "status": "completed"}}
    folder.write_manifest(
        control_registry=registry,
        jobs={"t0_control": [None, None], "t0_treatment": folder.document()["jobs"]["t0_treatment"]},
    )
    ending = lab.resume("prepare", "build", "submit", "download")
    assert set(ending.errors) <= {"prepare"}
    assert lab.jobs_created() == 0


# --- more than 99 parts, damage, the future, and looking only ----------------------------------------


def test_more_than_99_parts_keep_their_names_and_order(lab: Lab) -> None:
    folder = lab.folder(2, count=101, parts=101)
    (folder.results / "results_combined.jsonl").unlink()
    for gone in ANALYSIS:
        (folder.results / gone).unlink()
    ending = lab.resume("prepare", "build", "submit", "download")
    assert set(ending.errors) <= {"prepare"}
    index = jsonl.read_document(folder.trial / "batch_inputs" / "index.json")
    assert [part["part"] for part in index["parts"]][98:101] == ["t0_control_p99", "t0_control_p100", "t0_control_p101"]
    assert lab.jobs_created() == 0


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("damage", [b"", b"[]", b"\0" * 40, b'{"jobs": 3, "trial": {"model_id": "m"}}', None])
def test_a_damaged_manifest_is_kept_and_rebuilt_from_what_lies_there(lab: Lab, age: int, damage: bytes | None) -> None:
    folder = lab.folder(age)
    broken = folder.manifest.read_bytes()[:-30] if damage is None else damage
    folder.manifest.write_bytes(broken)
    (folder.results / f"{folder.names[0]}_job.json").write_text(
        json.dumps({"name": folder.job(folder.names[0]), "model": MODEL})
    )
    ending = lab.resume(*TO_COSTS, "report")
    (slug,) = (path.parent.parent.name for path in folder.root.glob("*/results/trial_manifest.json"))
    (kept,) = (folder.root / slug / "results").glob("trial_manifest.json.corrupt.*")
    assert kept.read_bytes() == broken
    document = lab.manifest(slug)
    assert document["jobs"]["t0_control"][0] == folder.job(folder.names[0])
    assert set(ending.verbs.values()) == {"skip"}
    assert lab.jobs_created() == 0


@pytest.mark.parametrize(
    ("age", "block"),
    [
        *itertools.product(AGES, ["datasets", "jobs", "temps", "prompts"]),
        (3, "timestamps"),
        (3, "stage_status"),
    ],
)
def test_one_block_of_another_kind_loses_that_block_only(lab: Lab, age: int, block: str) -> None:
    """The model went with it, and a new attempt would have asked one called "unknown"."""
    folder = lab.folder(age)
    folder.write_manifest(**{block: "lost"})
    ending = lab.resume(*TO_COSTS, "report")
    document = lab.manifest(earlier_tool.SLUG if age else "tiny-8b-default")
    assert document["trial"]["model_id"] == MODEL
    assert block == "timestamps" or document["timestamps"]["created_at"] == CREATED
    assert document["lab_note"] == folder.document()["lab_note"]
    assert set(ending.verbs.values()) == {"skip"}
    assert lab.jobs_created() == 0


def test_what_a_lost_record_may_have_named_is_not_submitted(lab: Lab) -> None:
    """The manifest is the only place that named the job of this part; torn, it may have named it."""
    folder = lab.folder(1)
    name = folder.names[-1]
    empty_of_answers(folder, name)
    (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    folder.manifest.write_bytes(folder.manifest.read_bytes()[:40])
    resource = {"name": folder.job(folder.names[0]), "model": MODEL}
    (folder.results / f"{folder.names[0]}_job.json").write_text(json.dumps(resource))
    ending = lab.resume("prepare", "build", "submit", "download")
    assert "requeue=auto" in str(ending.errors["download"])
    assert lab.jobs_created() == 0


def test_a_model_nobody_can_name_is_asked_for(lab: Lab) -> None:
    folder = lab.folder(2)
    never = folder.names[1]
    empty_of_answers(folder, never)
    (folder.results / f"{never}_OUTPUT_DATASET_ID.txt").unlink()
    jobs = {**folder.document()["jobs"], "t0_control": [folder.job(folder.names[0]), None]}
    trial = {**folder.document()["trial"], "model_id": "unknown"}
    folder.write_manifest(trial=trial, jobs=jobs, job_status={})
    with pytest.raises(ConfigError, match="which model") as error:
        lab.resume()
    assert "experiment.yaml" in str(error.value)
    assert lab.jobs_created() == 0


def test_no_model_called_unknown_is_ever_asked(lab: Lab) -> None:
    """Requests that come back after the takeover bring parts that nobody submitted, for a model nobody can name."""
    folder = lab.folder(1)
    name = folder.names[-1]
    empty_of_answers(folder, name)
    (folder.results / f"{name}_OUTPUT_DATASET_ID.txt").unlink()
    folder.manifest.write_bytes(b"")
    away = folder.root.parent / "away"
    (folder.root / "batch_inputs").rename(away)
    lab.resume("prepare", "build", "submit")
    away.rename(folder.root / "batch_inputs")
    ending = lab.resume("prepare", "build", "submit")
    assert "which model was asked is not known" in str(ending.errors["submit"])
    assert lab.jobs_created() == 0


def test_rows_of_a_model_nobody_can_name_are_not_asked_again(lab: Lab) -> None:
    folder = lab.folder(1)
    empty_of_answers(folder, folder.names[-1])
    folder.manifest.write_bytes(b"")
    lab.resume("prepare", "build", "submit")
    ending = lab.resume("download", requeue="auto")
    assert "which model was asked is not known" in str(ending.errors["download"])
    assert lab.jobs_created() == 0


def test_a_manifest_from_the_future_stops_everything(lab: Lab) -> None:
    folder = lab.folder(3)
    folder.write_manifest(schema_version=7)
    before = snapshot(folder.root)
    with pytest.raises(FutureVersion):
        lab.resume()
    assert {name: data for name, data in snapshot(folder.root).items() if name != "run.lock"} == before


def test_looking_says_what_resume_would_do_and_writes_nothing(lab: Lab) -> None:
    folder = lab.folder()
    empty_of_answers(folder, folder.names[-1])
    before = snapshot(folder.root)
    with pytest.raises(Refused, match="has not been taken over") as refused:
        opening.for_reading(words.parse({"rid": "old"}), print)
    assert "3 of 4 parts have all their answers; 1 were submitted and are asked for" in str(refused.value)
    assert snapshot(folder.root) == before


def test_a_takeover_that_is_cut_off_anywhere_is_simply_done_again(lab: Lab) -> None:
    """The disk fails at every single write in turn; the next try ends as if nothing had happened."""
    folder = lab.folder()
    empty_of_answers(folder, folder.names[-1])
    fresh = lab.root / "fresh"
    shutil.copytree(folder.root, fresh)
    boundary = 0
    while True:
        shutil.rmtree(folder.root)
        shutil.copytree(fresh, folder.root)
        if not fails_at(boundary, lambda: lab.resume("prepare")):
            break
        lab.resume("prepare")
        books = [ledger.read(path) for path in sorted(folder.results.glob("*/ledger.jsonl"))]
        assert [book.last.job_id for book in books] == [folder.job(name) for name in folder.names]
        assert [book.last.ended is not None for book in books] == [True, True, True, False]
        assert not any(book.damaged for book in books)
        boundary += 7  # a prime: all kinds of calls are hit, each file several times
    assert boundary > 70
    assert lab.jobs_created() == 0


@pytest.mark.parametrize("ours", [True, False])
def test_a_list_of_parts_that_is_there_is_never_written_over(lab: Lab, ours: bool) -> None:
    folder = lab.folder()
    index = folder.trial / "batch_inputs" / "index.json"
    if ours:
        assert lab.resume("prepare").errors == {}
        (folder.root / "run.json").unlink()  # what a takeover that was cut off leaves
    else:
        lines(index, [{"theirs": 1}])
    before, inode = index.read_bytes(), index.stat().st_ino
    assert set(lab.resume().verbs.values()) == {"skip"}
    [kept] = [path for path in index.parent.glob("index.json*") if path.stat().st_ino == inode]
    assert kept.read_bytes() == before
    assert (kept == index) is ours
    assert lab.jobs_created() == 0


def fails_at(number: int, work: Any) -> bool:
    """Run *work* with the disk failing at operation *number*; whether it came that far."""
    seen = 0

    def failing(_operation: str, _path: Path) -> None:
        nonlocal seen
        seen += 1
        if seen > number:
            raise OSError(28, "No space left on device")

    disk.observer = failing
    try:
        work()
    except DiskTrouble:
        return True
    finally:
        disk.observer = None
    return False


# --- through doit itself -----------------------------------------------------------------------------


def test_doit_resume_takes_it_over(lab: Lab) -> None:
    """The whole way once, with doit's own graph: no phase is missing a file it depends on."""
    folder = lab.folder()
    folder.prepare()
    shutil.copy(Path(__file__).parents[1] / "dodo.py", lab.root)
    first = doit("resume", "rid=old")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "10 skipped" in first.stdout
    (folder.results / "costs.json").write_text("{}")
    second = doit("resume", "rid=old", "to=costs")
    assert second.returncode == 0, second.stdout + second.stderr
    third = doit("resume", "rid=old", "to=costs")
    assert "8 skipped" in third.stdout, third.stdout
    assert lab.jobs_created() == 0


def doit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "doit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ, check=False)


# --- two trials -----------------------------------------------------------------------------------


def two_trials(lab: Lab) -> tuple[Folder, Path]:
    """A finished run, and the folder of a second trial that is a copy of the first."""
    folder = lab.folder()
    folder.prepare()
    other = folder.root / f"{earlier_tool.SLUG}-tp05"
    shutil.copytree(folder.trial, other)
    return folder, other


def test_what_is_lost_of_another_trial_is_not_sent_without_being_announced(lab: Lab) -> None:
    """The queue took a finished trial of the earlier tool for one that needs nothing; its record knows no parts."""
    folder, other = two_trials(lab)
    assert not lab.resume("prepare").errors
    for trial in (folder.trial, other):
        (trial / "results" / "costs.json").unlink()
    for name in folder.names:
        shutil.rmtree(other / "results" / name)
    config = folder.root / "experiment.yaml"
    document = yaml_text.load(config.read_text(), where=str(config))
    config.write_text(json.dumps({**document, "budget": {"confirm_above_usd": 0}}))
    ending = lab.resume("prepare", "build", "submit", "download")
    assert "nobody can be asked here" in str(ending.errors["download"])
    assert lab.jobs_created() == 0


def test_what_one_trials_pass_settled_anew_in_another_is_not_taken_for_damage(lab: Lab) -> None:
    """It was set aside when that trial's turn came, and the queue, which had settled it, found nothing to combine."""
    folder, other = two_trials(lab)
    assert not lab.resume(force="all").errors
    assert lab.jobs_created() == 0
    for trial in (folder.trial, other):
        shutil.rmtree(trial / "results" / folder.names[0])
    ending = lab.resume()
    assert not ending.errors, ending.errors
    assert lab.jobs_created() == 2
    assert not list(other.glob("results/*/*.damaged.*"))
    assert set(lab.resume().verbs.values()) == {"skip"}
