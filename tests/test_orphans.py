"""What the provider has under a run's prefix and no ledger owns: found, taken over, or deleted on request.

If one of these failed, a paid job would stay unknown, or (worse) another run's job would be deleted.
"""

import json
import shutil
from pathlib import Path

import pytest
import run_kit
from emulator_kit import Api
from queue_kit import JOB, SMALL, TWO_TRIALS, Lab, part_of

from pipeline import disk, orphans
from pipeline.__main__ import main
from pipeline.errors import ProviderError, Refused
from pipeline.queue import attempts

CONTROL = "m-p/t0_control_p01"
ROW = {"custom_id": "x", "body": {"messages": [{"role": "user", "content": "?"}]}}


def verdicts(lab):
    return {(orphan.kind, orphan.id): orphan.verdict for orphan in orphans.find(lab.context())}


def lose(lab, words="control", *, all_of_it=True):
    """Remove what the run knows of a part: its ledger, or all of it."""
    folder = part_of(lab, words)
    if all_of_it:
        disk.remove_folder(folder)
    else:
        (folder / "ledger.jsonl").unlink()
    return folder


def test_a_run_that_knows_its_jobs_has_no_orphans():
    with Lab(TWO_TRIALS) as lab:
        assert lab.go().done
        assert orphans.find(lab.context()) == []


def test_a_job_that_the_run_lost_is_wanted_and_can_be_adopted():
    with Lab() as lab:
        lab.go("submit")
        lose(lab)
        job = lab.jobs()[0]
        found = orphans.find(lab.context())
        assert [(orphan.kind, orphan.id, orphan.verdict, orphan.part) for orphan in found] == [
            ("job", job, "wanted", CONTROL),
            ("dataset", f"{job}-in", "wanted", CONTROL),
        ]
        assert found[0].line == f"wanted   job      {job}  VALIDATING  {CONTROL} attempt 1"
        assert found[0].as_json()["created_at"].startswith("20")
        posts = len(lab.calls("POST"))
        assert [orphan.id for orphan in orphans.adopt(lab.context(), found)] == [job]
        assert len(lab.calls("POST")) == posts
        last = lab.ledgers()[CONTROL].last
        assert (last.job_id, last.accepted, last.adopted) == (job, True, True)
        assert (part_of(lab, "control") / "OUTPUT_DATASET_ID.txt").read_text() == f"{job}-out\n"
        assert orphans.find(lab.context()) == []
        assert lab.go().done
        lab.check()


def test_what_is_wanted_is_not_deleted():
    with Lab() as lab:
        lab.go("submit")
        lose(lab)
        with pytest.raises(Refused, match="none of these may be deleted"):
            orphans.delete(lab.context(), orphans.find(lab.context()))
        assert len(lab.calls("DELETE")) == 0
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_job_whose_requests_are_gone_or_damaged_here_is_wanted_all_the_same(harm):
    """It counted as stale: `--delete` deleted a paid job, and the next resume paid for it again."""
    with Lab() as lab:
        lab.go("submit")
        lose(lab)
        harm(lab.run.trial("m-p").part_requests("t0_control_p01"))
        assert set(verdicts(lab).values()) == {"wanted"}
        with pytest.raises(Refused, match="none of these may be deleted"):
            orphans.delete(lab.context(), orphans.find(lab.context()))
        with pytest.raises(Refused, match="is not what was built or sent"):
            orphans.adopt(lab.context(), orphans.find(lab.context()))
        lab.rebuild()
        assert lab.go().done
        lab.check()


def test_a_second_attempt_is_wanted_where_its_requests_are_known_and_unclear_where_not():
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires) as lab:
        assert lab.go().done
        first, _, second, _ = lab.jobs()
        lose(lab, all_of_it=False)
        assert verdicts(lab)["job", second] == "wanted"
        (part_of(lab, "control") / "a2" / "requests.jsonl").unlink()
        assert verdicts(lab)["job", second] == "unclear"
        assert [orphan.id for orphan in orphans.adopt(lab.context(), orphans.find(lab.context()))] == [first]
        with pytest.raises(Refused):
            orphans.delete(lab.context(), orphans.find(lab.context()))
        (part_of(lab, "control") / "results.jsonl").unlink()
        assert lab.go().done
        lab.check(jobs=4)


def test_what_an_earlier_build_left_is_stale_and_deleted_on_request_with_its_data_sets():
    with Lab() as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        old = lab.jobs()
        disk.remove_folder(lab.run.root / "m-p" / "results")
        lab.rebuild(decoding={"max_tokens": 99})
        found = orphans.find(lab.context())
        assert {orphan.verdict for orphan in found} == {"stale"}
        assert len(found) == 6
        assert lab.go().done  # it has other ids: they are not in the way
        new = [job for job in lab.jobs() if job not in old]
        deleted = orphans.delete(lab.context(), orphans.find(lab.context()))
        assert [orphan.kind for orphan in deleted] == ["job"] * 2 + ["dataset"] * 4
        lab.sleep(60)
        assert orphans.find(lab.context()) == []
        with Api(lab.emulator.url) as api:
            left = {
                entry["name"].rpartition("/")[2]
                for entry in api.get("/batchInferenceJobs").json()["batchInferenceJobs"]
            }
        assert left == set(new)


def test_the_command_deletes_what_an_earlier_build_left(tmp_path, monkeypatch, capsys):
    folder = run_kit.tiny(tmp_path)
    assert run_kit.doit(folder, f"rid={run_kit.RID}", "config=experiment.yaml", "to=download").code == 0
    trial = folder / "experiments" / f"run_{run_kit.RID}" / run_kit.TRIAL
    shutil.rmtree(trial / "results")
    run_kit.edit(folder, "decoding.max_tokens", 99)
    assert run_kit.doit(folder, f"rid={run_kit.RID}", "to=build").code == 0
    monkeypatch.chdir(folder)
    assert main(["orphans", run_kit.RID, "--delete", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [orphan["kind"] for orphan in told["deleted"]] == ["job"] * 8 + ["dataset"] * 16
    assert {orphan["id"] for orphan in told["deleted"]} == {orphan["id"] for orphan in told["orphans"]}
    assert main(["orphans", run_kit.RID]) == 0
    assert "no orphans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("remote", "verdict"),
    [
        # The run "LAB" has the same slug, the run "lab-b" a prefix that begins with ours.
        (attempts.job_id("LAB", "m-p", "t0_control_p01", 1, "0" * 64, "m"), "foreign"),
        (attempts.job_id("lab", "gone-p", "t0_control_p01", 1, "0" * 64, "m"), "foreign"),
        (attempts.job_id("lab-b", "m-p", "t0_control_p01", 1, "0" * 64, "m"), None),
        ("tm-lab-deadbeef-notes", None),
        ("somebody-elses", None),
    ],
)
def test_what_is_another_runs_is_never_deleted(remote, verdict):
    with Lab() as lab, Api(lab.emulator.url) as api:
        api.dataset(f"{remote}-in", [ROW])
        assert api.create_job(remote, f"{remote}-in").status_code == 200
        expected = {("job", remote): verdict, ("dataset", f"{remote}-in"): verdict} if verdict else {}
        assert verdicts(lab) == expected
        if expected:
            with pytest.raises(Refused):
                orphans.delete(lab.context(), orphans.find(lab.context()))
        assert api.get(f"/batchInferenceJobs/{remote}").status_code == 200


def test_with_another_account_nothing_is_called_an_orphan():
    with Lab() as lab:
        lab.go("submit")
        lab.endpoint = "emulator:another"
        with pytest.raises(Refused, match="but this run now talks to"):
            orphans.find(lab.context())


def test_listing_goes_through_all_pages():
    with Lab() as lab, Api(lab.emulator.url) as api:
        names = {attempts.job_id("lab", "m-p", "t0_control_p01", 1, f"{n:064}", "m") for n in range(230)}
        for name in names:
            assert api.create_dataset(f"{name}-in").status_code == 200
        assert {name for _, name in verdicts(lab)} == {f"{name}-in" for name in names}


def test_ids_stay_within_the_providers_rule_however_long_the_runs_name_is():
    rule = attempts.re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
    for rid in ("r20260101120000", "A" * 64, "x.y_z-" * 10, "0", "--", "ü" * 9):
        job = attempts.job_id(rid, "m-p", "t0_control_p01", 99, "f" * 64, "m")
        assert rule.fullmatch(f"{job}-out"), job
        assert attempts.parse(f"{job}-out", attempts.run_prefix(rid)) == attempts.Name(
            job, attempts.place_digest(rid, "m-p", "t0_control_p01"), 99
        )


@pytest.mark.parametrize("value", [7, "x", {"a": 1}])
def test_a_list_that_is_none_is_no_empty_list(value):
    """It ended in a traceback; taken for empty, every job of the run would be one that is not there."""
    odd = {"call": {"method": "GET", "path": f"{JOB}$", "times": None}, "do": {"edit": {"set": {JOB: value}}}}
    with Lab(SMALL) as lab:
        lab.go("submit")
        lab.fault(odd)
        with pytest.raises(ProviderError, match="answered with no list"):
            orphans.find(lab.context())
        assert lab.fired()[0] > 0
