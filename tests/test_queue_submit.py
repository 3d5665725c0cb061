"""Submitting: one job per part and attempt, whatever is lost, late, taken, full or refused on the way.

If one of these failed, a batch would be paid twice, or never be submitted at all.
"""

import fcntl
import itertools
import shutil
from datetime import UTC, datetime

import pytest
from emulator_kit import Api
from queue_kit import (
    CREATE_DATASET,
    CREATE_JOB,
    JOB,
    SMALL,
    TEN_ROWS,
    TWO_TRIALS,
    UPLOAD,
    Crash,
    Lab,
    Layout,
    golden,
    lines,
    part_of,
)

from pipeline import config, ledger, parts
from pipeline.emulator import history
from pipeline.errors import (
    EXIT_BUDGET,
    EXIT_NOT_READY,
    AuthError,
    BudgetExceeded,
    NotReady,
    ProviderError,
    Refused,
    Stopped,
    Unreachable,
)
from pipeline.providers.base import Submission
from pipeline.queue import attempts, budget, estimates

CONTROL = "m-p/t0_control_p01"
PRICED = {"models": {"m": {"input_per_mtok": 10.0, "output_per_mtok": 40.0}}}
CREATES = {"dataset": CREATE_DATASET, "upload": UPLOAD, "job": CREATE_JOB}
LOST = {
    "before": {"reset": True},
    "after": {"reset": True, "commit": True},
    "bad gateway before": {"respond": "html_502"},
    "bad gateway after": {"respond": "html_502", "commit": True},
    "page instead of an answer": {"respond": "html_200", "commit": True},
}


# --- replies that are lost, late, repeated -----------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("create", CREATES)
def test_a_lost_reply_to_a_create_costs_nothing(create, how, times):
    with Lab(SMALL, {"call": {**CREATES[create], "times": times}, "do": LOST[how]}) as lab:
        assert lab.go().done
        found_at_once = LOST[how].get("commit") and create != "upload"  # then there is nothing to repeat
        assert lab.fired() == [min(times, 2) if found_at_once else times]
        lab.check()


@pytest.mark.parametrize("create", CREATES)
def test_a_reply_that_comes_too_late_costs_nothing(create):
    with Lab(SMALL, {"call": {**CREATES[create], "times": 1}, "do": {"delay": 0.6}}) as lab:
        lab.read_timeout = 0.2
        assert lab.go().done
        assert lab.fired() == [1]
        lab.check()


@pytest.mark.parametrize("again", ["conflict", "the old object"])
@pytest.mark.parametrize("create", ["dataset", "job"])
def test_a_create_that_arrives_twice_ends_well_with_both_answers(create, again):
    """The reply is lost and the service does not find the object at first: so it is created once more."""
    kind = {"dataset": "datasets", "job": JOB}[create]
    rules = [
        {"call": {**CREATES[create], "times": 1}, "do": {"reset": True, "commit": True}},
        {
            "call": {"method": "GET", "path": f"{kind}/[^:]*-a1-[^:]*$", "skip": 1, "times": 1},
            "do": {"respond": "not_found"},
        },
    ]
    if create == "dataset":
        rules[1]["call"]["skip"] = 0
    if again == "the old object":
        rules.append({"call": {**CREATES[create], "skip": 1, "times": 1}, "do": {"duplicate": "return"}})
    with Lab(SMALL, *rules) as lab:
        assert lab.go().done
        assert lab.fired()[:2] == [1, 1]
        first = lab.calls("POST", f"/{kind}")[:2]
        assert first[1]["status"] == (409 if again == "conflict" else 200)
        lab.check()


@pytest.mark.parametrize("create", CREATES)
def test_a_provider_that_stays_away_is_waited_for_then_left_and_found_again(create):
    with Lab(SMALL, {"call": {**CREATES[create], "times": None}, "do": {"respond": "unavailable"}}) as lab:
        ending = lab.go()
        assert isinstance(ending.error, Unreachable)
        assert ending.error.exit_code == EXIT_NOT_READY
        assert "given up after" in str(ending.error)
        assert 5 < lab.fired()[0] < 200
        lab.heal()
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "2"}, {"retry-after-ms": "1500"}, {}], ids=["seconds", "milliseconds", "none"]
)
def test_being_told_to_slow_down_is_obeyed(headers):
    answer = {"status": 429, "headers": headers, "json": {"code": 8, "message": "rate limit"}}
    with Lab(SMALL, {"call": {"method": "POST", "times": 3}, "do": {"respond": answer}}) as lab:
        before = lab.now()
        assert lab.go("submit").done
        assert lab.fired() == [3]
        assert lab.now() - before >= (4.5 if headers else 0.5)
        lab.sleep(600)
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize(("left", "new"), [("raw file", []), ("later attempt", [3])])
def test_what_was_made_once_is_not_made_again_although_the_service_forgot_it(left, new):
    """Raw files or a later attempt prove that there was a job. Another under its id would be paid a second time."""
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires) as lab, Api(lab.emulator.url) as api:
        assert lab.go().done
        folder = part_of(lab, "control")
        first = lab.ledgers()[CONTROL].attempts[0].job_id
        for remote in (f"/batchInferenceJobs/{first}", f"/datasets/{first}-in", f"/datasets/{first}-out"):
            assert api.delete(remote).status_code == 200
        lab.sleep(600)
        (folder / "results.jsonl").unlink()
        if left == "raw file":
            (folder / "ledger.jsonl").unlink()
            shutil.rmtree(folder / "a2")
        else:
            intents = [line for line in lines(folder / "ledger.jsonl") if b'"intent"' in line]
            (folder / "ledger.jsonl").write_bytes(b"".join(intents))
            shutil.rmtree(folder / "a1")
        before = lab.jobs()
        assert lab.go().done
        assert len(before) == 4
        made = lab.jobs()[len(before) :]
        assert first not in made
        assert [attempts.parse(job, "tm-lab-").attempt for job in made] == new  # 3 asks for the row that a1 had
        lab.check(jobs=len(before) + len(made))


def test_a_service_that_picks_its_own_job_ids_is_asked_under_those():
    """History: the id in the answer was ignored, ours was not found, and each part was paid for three times."""
    own = {"call": {**CREATE_JOB, "times": None}, "do": {"own_id": True}}
    with Lab(SMALL, own, emulator={"job_seconds": 900}) as lab:
        ending = lab.go()
        assert ending.done
        assert lab.fired() == [2]
        assert any("the provider calls this job" in line for line in ending.said)
        assert not [job for job in lab.jobs() if job.startswith("tm-")]
        lab.check()


@pytest.mark.parametrize("lost", [None, "accepted"])
def test_a_service_that_names_the_output_itself_is_not_paid_again(lost):
    """History: the job just created counted as somebody else's; three were paid for each part, none was used."""
    with Lab(SMALL, {"call": {**CREATE_JOB, "times": None}, "do": {"own_output": True}}) as lab:
        assert lab.go("submit").done
        if lost:  # a kill between the service's answer and our own line
            for book in lab.run.root.glob("*/results/*/ledger.jsonl"):
                book.write_bytes(b"".join(line for line in lines(book) if b'"accepted"' not in line))
        assert lab.go().done
        assert all(name.startswith("bij-") for name in lab.breadcrumbs().values())
        lab.check()


def test_a_breadcrumb_that_is_no_text_does_not_stop_a_submission():
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        folder = part_of(lab, "control")
        (folder / "OUTPUT_DATASET_ID.txt").write_bytes(b"tm-lab-\xff\xfe\n")
        book = folder / "ledger.jsonl"
        book.write_bytes(b"".join(line for line in lines(book) if b'"accepted"' not in line))
        assert lab.go().done
        lab.check()


def test_a_run_whose_name_holds_the_word_quota_goes_on_where_it_was_cut_off(monkeypatch):
    """History: "dataset tm-quota-... already exists" was taken for a full quota and waited out for ever."""
    prefix = attempts.run_prefix("quota-study")
    monkeypatch.setattr(attempts, "run_prefix", lambda _rid: prefix)
    with Lab(SMALL, {"call": CREATE_JOB, "do": {"respond": {"status": 400, "text": "no"}}}) as lab:
        lab.go()
        assert len(lab.jobs()) < 2
        assert lab.go().done
        assert all(job.startswith(prefix) for job in lab.jobs())
        assert len(lab.jobs()) == 2


# --- ids that are taken -----------------------------------------------------------------------------


def ids(lab, condition="control", attempt=1):
    """The ids that the part of *condition* will use; the same for its other attempts with the same rows."""
    folder = part_of(lab, condition) if list(lab.run.root.glob("*/results/t*")) else None
    name = folder.name if folder else f"t0_{condition}_p01"
    requests = lab.run.root / "m-p" / "batch_inputs" / f"{name}.jsonl"
    digest = attempts.hashlib.sha256(requests.read_bytes()).hexdigest()
    return attempts.job_id("lab", "m-p", name, attempt, digest, "accounts/fireworks/models/m")


def test_a_job_that_is_ours_already_is_adopted():
    """Another copy of this run, or this one before its ledger was lost, submitted the very same requests."""
    with Lab() as lab:
        assert lab.go().done
        for path in lab.run.root.glob("*/results/*"):
            attempts.disk.remove_folder(path) if path.is_dir() else path.unlink()
        ending = lab.go()
        assert ending.done
        assert sum("adopted tm-lab-" in line for line in ending.said) == 2
        lab.check()


def test_a_job_of_the_same_id_with_other_input_is_left_alone_and_a_new_attempt_made():
    with Lab() as lab, Api(lab.emulator.url) as api:
        job = ids(lab)
        api.dataset("other-in", [{"custom_id": "x", "body": {"messages": [{"role": "user", "content": "?"}]}}])
        assert api.create_job(job, "other-in", "other-out").status_code == 200
        ending = lab.go()
        assert ending.done
        assert any("is there already and reads dataset other-in" in line for line in ending.said)
        assert [attempt.state for attempt in lab.ledgers()[CONTROL].attempts] == ["ID_TAKEN", "COMPLETED"]
        lab.check(jobs=3)


@pytest.mark.parametrize("taken", ["in", "out"])
def test_a_dataset_of_the_same_id_with_other_content_is_left_alone_and_a_new_attempt_made(taken):
    with Lab() as lab, Api(lab.emulator.url) as api:
        name = f"{ids(lab)}-{taken}"
        rows = [{"custom_id": f"x{n}", "body": {"messages": [{"role": "user", "content": "?"}]}} for n in range(5)]
        api.dataset(name, rows)
        ending = lab.go()
        assert ending.done
        assert any(f"dataset {name} is there already" in line for line in ending.said)
        assert [attempt.number for attempt in lab.ledgers()[CONTROL].attempts] == [1, 2]
        assert api.get(f"/datasets/{name}").json()["exampleCount"] == "5"
        lab.check()


def test_a_part_whose_ids_are_always_taken_is_an_error_not_missing_rows():
    with Lab(queue={"max_attempts": 2}) as lab, Api(lab.emulator.url) as api:
        for number in (1, 2):
            assert api.create_dataset(f"{ids(lab, attempt=number)}-in", 7).status_code == 200
        ending = lab.go()
        assert isinstance(ending.error, Refused)
        assert "t0_control_p01 could not be submitted: something else has the ids of each attempt" in str(ending.error)
        assert "orphans lab" in str(ending.error)
        assert len(lab.jobs()) == 1


@pytest.mark.parametrize("requeue", ["never", "ask"])
def test_a_part_whose_ids_were_taken_is_an_error_also_where_no_second_attempt_is_wanted(requeue):
    """With `never` its rows counted as missing, "the provider returned no row", although nobody had been asked."""
    with Lab(queue={"requeue": requeue}) as lab, Api(lab.emulator.url) as api:
        assert api.create_dataset(f"{ids(lab)}-in", 7).status_code == 200
        refused = lab.go()
        assert isinstance(refused.error, Refused)
        assert "t0_control_p01 could not be submitted: something else has the ids of each attempt" in str(refused.error)
        assert "requeue=auto tries other ids" in str(refused.error)
        assert len(lab.jobs()) == 1
        assert lab.go(requeue="auto").done
        lab.check()


def test_our_job_under_another_name_of_the_model_is_ours_when_it_is_younger_than_our_intent():
    """History: refused, with advice that the run's config then refused too; what was paid for was out of reach."""
    renamed = {"edit": {"set": {"model": "accounts/x/models/y"}}}
    with Lab(SMALL, {"call": {"path": f"{JOB}", "times": None}, "do": renamed}) as lab:
        assert lab.go().done
        assert lab.fired()[0] > 2
        lab.check()


def test_an_older_job_under_our_id_with_another_model_is_for_a_person_to_judge():
    other = {"model": "accounts/x/models/y", "createTime": "2020-01-01T00:00:00Z"}
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        for book in lab.run.root.glob("*/results/*/ledger.jsonl"):
            book.write_bytes(b"".join(line for line in lines(book) if b'"intent"' in line))
        lab.fault({"call": {"method": "GET", "path": f"{JOB}/", "times": None}, "do": {"edit": {"set": other}}})
        ending = lab.go("submit")
        assert isinstance(ending.error, Refused)
        assert "with model accounts/x/models/y, not accounts/fireworks/models/m" in str(ending.error)
        assert len(lab.jobs()) == 2
        lab.heal()
        assert lab.go().done
        lab.check()


# --- quota, slots, data sets that do not get ready -----------------------------------------------------


def running_at_once(lab):
    """The most jobs that ran at one moment, by the emulator's own times."""
    spans = [(job.created_at, job.finished_at) for job in history.jobs(lab.store)]
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def test_a_full_quota_is_waited_for_and_costs_no_more_than_one_upload_in_advance():
    with Lab(TWO_TRIALS, emulator={"quota": 2}) as lab:
        ending = lab.go()
        assert ending.done
        assert any("quota" in " ".join(shown.waiting_for) for shown in ending.shown if shown)
        third = [call["seq"] for call in lab.calls("POST", JOB) if call["status"] == 200][2]
        uploads = [call["seq"] for call in lab.calls("POST", ":upload")]
        assert sum(seq < third for seq in uploads) == 3
        assert running_at_once(lab) == 2
        lab.check()


def test_a_quota_that_others_use_up_is_waited_for():
    with Lab(SMALL, {"call": {**CREATE_JOB, "times": 9}, "do": {"respond": "quota_full"}}) as lab:
        assert lab.go().done
        assert lab.fired() == [9]
        lab.check()


def test_a_full_quota_does_not_hold_up_wait_0():
    with Lab(SMALL, {"call": {**CREATE_JOB, "times": None}, "do": {"respond": "quota_full"}}) as lab:
        ending = lab.go(wait=False)
        assert isinstance(ending.error, NotReady)
        lab.heal()
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize("limit", [1, 3])
def test_slots_are_shared_by_all_trials_and_given_to_whichever_needs_them(limit):
    with Lab(TWO_TRIALS, queue={"max_concurrent_jobs": limit}) as lab:
        ending = lab.go("submit", trials=("m-p", "n-p"))
        assert ending.done
        assert running_at_once(lab) == limit
        # While the first trial's parts are waited for, the other's are collected and take free slots.
        assert lab.go().done
        lab.check()


def test_a_trial_that_is_not_chosen_keeps_its_slots_until_its_jobs_end_and_submits_nothing():
    with Lab(TWO_TRIALS, queue={"max_concurrent_jobs": 3}) as lab:
        lab.go("submit", trials=("m-p",), wait=False)
        assert len(lab.jobs()) == 3
        ending = lab.go(trials=("n-p",))
        assert ending.done
        assert "a free slot" in ending.shown[0].waiting_for
        assert running_at_once(lab) == 3
        assert len(lab.jobs()) == 3 + 4
        assert lab.go().done
        lab.check()


def test_jobs_that_never_end_do_not_make_the_others_wait_for_ever():
    """The stuck job holds the only slot: that is said, instead of waiting for it without an end."""
    stuck = {"job": {"times": 1}, "do": {"stuck": {"in": "PENDING"}}}
    with Lab(TWO_TRIALS, stuck, queue={"max_concurrent_jobs": 1, "job_deadline_hours": 30}) as lab:
        lab.poll = 3600.0
        ending = lab.go()
        assert set(ending.errors) == {("submit", "m-p"), ("submit", "n-p")}
        assert all("has been PENDING since" in str(error) for error in ending.errors.values())
        assert len(lab.jobs()) == 1


def test_a_dataset_that_does_not_get_ready_is_told_and_found_again_later():
    stuck = {"dataset": {"id": "-in$", "times": 1}, "do": {"stuck": {"seconds": 7200}}}
    with Lab(SMALL, stuck) as lab:
        ending = lab.go("submit")
        assert isinstance(ending.error, NotReady)
        assert "is still UPLOADING, 120 s after its upload" in str(ending.error)
        assert len(lab.jobs()) == 1  # the other part went on
        lab.sleep(7200)
        assert lab.go().done
        lab.check()


def test_data_sets_that_do_not_get_ready_do_not_keep_the_queue_from_looking_at_its_jobs():
    """History: with wait=0 each part waited out its data set's whole deadline, one after the other."""
    stuck = {"dataset": {"id": "-in$", "times": None}, "do": {"stuck": {"seconds": 36000}}}
    with Lab(TWO_TRIALS, stuck) as lab:
        before = lab.now()
        ending = lab.go("submit", trials=("m-p",), wait=False)
        assert isinstance(ending.error, NotReady)
        assert len(lab.calls("POST", ":upload")) == 1
        assert lab.now() - before < 150
        lab.sleep(40000)
        lab.heal()
        assert lab.go().done
        lab.check()


# --- whose run, which requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["account", "endpoint"])
def test_a_run_is_not_continued_with_another_account_or_endpoint(other):
    """Not even its parts that were never submitted: the run would be spread over two accounts."""
    with Lab(queue={"max_concurrent_jobs": 1}) as lab:
        lab.go("submit", wait=False)
        assert len(lab.jobs()) == 1
        right, calls = getattr(lab, other), len(lab.calls())
        setattr(lab, other, "another")
        ending = lab.go(wait=False)
        assert isinstance(ending.error, Refused)
        assert "but this run now talks to account" in str(ending.error)
        assert len(lab.calls()) == calls
        assert len(lab.ledgers()) == 1
        setattr(lab, other, right)
        assert lab.go().done
        lab.check()


def test_requests_edited_before_their_submission_are_not_sent():
    with Lab() as lab:
        (path,) = lab.run.root.glob("*/batch_inputs/t0_control*.jsonl")
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"discovered", b"invented  ", 1))
        ending = lab.go()
        assert isinstance(ending.error, Refused)
        assert "t0_control_p01.jsonl is not what was built or sent" in str(ending.error)
        assert CONTROL not in lab.ledgers()
        path.write_bytes(whole)
        assert lab.go().done
        lab.check()


def test_requests_edited_between_intent_and_job_are_not_sent():
    with Lab(SMALL, {"call": {**CREATE_DATASET, "times": None}, "do": {"respond": "unavailable"}}) as lab:
        lab.go("submit", wait=False)
        (path,) = lab.run.root.glob("*/batch_inputs/t0_control*.jsonl")
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"discovered", b"invented  ", 1))
        lab.heal()
        ending = lab.go("submit")
        assert isinstance(ending.error, Refused)
        assert len(lab.jobs()) == 1
        path.write_bytes(whole)
        assert lab.go().done
        lab.check()


def test_a_run_whose_parts_are_not_those_it_submitted_is_refused():
    with Lab() as lab:
        assert lab.go("submit").done
        lab.rebuild(decoding={"max_tokens": 99})
        ending = lab.go()
        assert isinstance(ending.error, Refused)
        assert "are not those that were submitted as tm-lab-" in str(ending.error)
        assert len(lab.jobs()) == 2


# --- money -------------------------------------------------------------------------------------------------


def test_the_estimate_of_all_parts_of_all_trials_is_shown_once_before_anything_is_sent():
    prices = {"models": dict.fromkeys("mn", PRICED["models"]["m"])}
    with Lab(TWO_TRIALS, prices=prices) as lab:
        calls = []
        ending = lab.go(confirm=lambda planned: calls.append((planned, len(lab.calls()))))
        assert ending.done
        ((planned, calls_before),) = calls
        assert calls_before == 0
        assert (planned.parts, planned.estimate.rows) == (8, 16)
        low, expected, high = planned.usd
        assert 0 < low < expected < high
        assert planned.cost == f"for about ${expected:.4f} (${low:.4f} to at most ${high:.4f})"
        estimated = [attempt["estimate"]["usd"] for part in lab.attempts() for attempt in part["attempts"]]
        assert sum(estimated) == pytest.approx(high)


def test_a_refusal_to_spend_sends_nothing():
    def refuse(_planned):
        raise Refused("not confirmed.")

    with Lab() as lab:
        assert str(lab.go(confirm=refuse).error) == "not confirmed."
        assert lab.calls() == []
        assert not list(lab.run.root.glob("*/results"))


def test_what_is_under_way_is_not_announced_again():
    with Lab(queue={"max_concurrent_jobs": 1}) as lab:
        lab.go("submit", wait=False)
        ending = lab.go()
        assert [planned.parts for planned in ending.asked] == [1]
        assert lab.go().asked == []


def test_requests_that_are_about_to_be_built_anew_are_not_paid_for_by_another_trials_pass():
    """Of two named tasks, and under -n, one trial is built when the other is submitted: its old prompts were sent."""
    prompts = {"p": {"control": {"text": "Anew."}, "treatment": {"text": "Anew, or say: I don't know"}}}
    with Lab(TWO_TRIALS, queue={"max_concurrent_jobs": 100}) as lab:
        lab.change(prompt_sets=prompts)
        ending = lab.go("submit", before=lab.build)
        assert ending.done, ending.text
        built = [part.sha256 for slug in ("m-p", "n-p") for part in parts.read(lab.run.trial(slug).index).parts]
        assert sorted(book.last.requests_sha256 for book in lab.ledgers().values()) == sorted(built)
        assert len(lab.jobs()) == 8


PRICES = {"models": dict.fromkeys("mn", PRICED["models"]["m"])}


def test_a_trial_that_is_built_when_another_is_under_way_is_announced_too():
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 100}) as lab:
        lab.run.trial("n-p").index.unlink()
        ending = lab.go("submit", before=lab.build)
        assert ending.done, ending.text
        assert [(planned.parts, sorted(planned.trials)) for planned in ending.asked] == [(4, ["m-p"]), (4, ["n-p"])]
        first, second = ending.asked
        assert first.sent == 0
        assert second.sent == pytest.approx(first.usd[2])
        assert second.at_most == pytest.approx(first.usd[2] + second.usd[2])


def test_what_other_workers_sent_counts_with_what_is_to_be_agreed_to_and_what_was_sent_before_does_not():
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 1}) as lab:
        assert lab.go("submit", trials=("m-p",), wait=False).errors
        lab.sleep(3600)
        began = datetime.fromtimestamp(lab.now(), UTC)
        assert lab.go("submit", trials=("m-p",), wait=False, since=began).errors
        ending = lab.go("submit", trials=("n-p",), wait=False, since=began)
        (planned,) = ending.asked
        assert planned.sent == pytest.approx(high_of(lab, "m-p", 1))
        assert sum(book.last is not None for book in lab.ledgers().values()) == 2


def test_a_trial_that_is_taken_out_of_the_config_still_counts_against_the_budget():
    """With it went what it had cost, and the next part was sent beyond the limit."""
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go(trials=("m-p",)).done
        spent = sum(budget.committed(lab.opened()))
        assert spent > 0
        models = config.read_frozen(lab.run.config, base=lab.folder).values["models"]
        lab.change(models=[model for model in models if model["alias"] == "n"], budget={"max_usd": spent})
        ending = lab.go("submit", trials=("n-p",))
        assert isinstance(ending.error, BudgetExceeded)
        assert len(lab.jobs()) == 4
        lab.change(budget={"max_usd": 100.0})
        shutil.copytree(lab.run.trial("m-p").root, lab.run.root / "m-p.bak")  # what a person keeps counts once
        assert sum(budget.committed(lab.opened())) == pytest.approx(spent)
        assert lab.go("submit", trials=("n-p",)).done
        assert len(lab.jobs()) == 8


def test_what_was_sent_counts_against_the_budget_although_its_ledgers_are_lost():
    """What had been paid was counted as nothing, and the limit really passed."""
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go(trials=("m-p",)).done
        spent = sum(budget.committed(lab.opened()))
        lab.change(budget={"max_usd": spent})
        for path in lab.run.root.rglob("ledger.jsonl"):
            path.unlink()
        assert sum(budget.committed(lab.opened())) == pytest.approx(spent)
        lab.run.trial("m-p").attempts.write_bytes(b"{")  # then it is the most that the requests may have cost
        assert sum(budget.committed(lab.opened())) > spent
        ending = lab.go("submit", trials=("n-p",))
        assert isinstance(ending.error, BudgetExceeded)
        lab.run.trial("m-p").part_requests("t0_control_p01").unlink()
        assert None in budget.committed(lab.opened())
        assert len(lab.jobs()) == 4


def test_an_attempt_that_no_record_knows_counts_beside_those_that_attempts_json_has():
    """attempts.json is of the time before it: the second attempt, which may cost the most, counted as nothing."""
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires, prices=PRICES) as lab:
        assert lab.go(requeue="never").done
        once = sum(budget.committed(lab.opened()))
        lab.go("download", requeue="auto", wait=False)
        twice = sum(budget.committed(lab.opened()))
        assert len(lab.jobs()) == 4
        assert twice > once
        for path in lab.run.root.rglob("ledger.jsonl"):
            path.unlink()
        assert sum(budget.committed(lab.opened())) >= twice


@pytest.mark.parametrize("requests", ["here", "lost"])
def test_a_trial_that_was_taken_out_and_has_no_ledgers_counts_by_its_requests(requests):
    """Its price was never known, whatever the config listed, and the advice was to add it."""
    models = [{"id": f"accounts/fireworks/models/{name}", "alias": name} for name in ("m", "n")]
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 100}) as lab:
        assert lab.go(trials=("m-p",)).done
        lab.change(models=models[1:], budget={"max_usd": 5})
        for path in (*lab.run.root.rglob("ledger.jsonl"), lab.run.trial("m-p").attempts):
            path.unlink()
        if requests == "lost":
            lab.run.trial("m-p").part_requests("t0_control_p01").unlink()
        ending = lab.go("submit")
        assert ending.done is (requests == "here"), ending.text
        if requests == "lost":
            assert "while what was submitted before may have cost is not known" in ending.text
            assert "put back its ledgers or batch_inputs/ if they are lost" in ending.text
            assert len(lab.jobs()) == 4


def test_a_price_that_is_added_later_is_that_of_what_was_sent_before():
    """Of a job that never counted its tokens the budget said for ever: add the model's price."""
    with Lab(queue={"max_concurrent_jobs": 1}) as lab, Api(lab.emulator.url) as api:
        lab.go("submit", wait=False)
        assert api.delete(f"/{JOB}/{lab.jobs()[0]}").status_code == 200
        lab.sleep(60)
        lab.change(budget={"max_usd": 100.0})
        assert "no price for" in str(lab.go().error)
        lab.change(prices=PRICED)
        ending = lab.go()
        assert ending.done, ending.text


def test_an_attempt_whose_ids_are_taken_was_not_accepted_so_submit_goes_on():
    """It said that all parts had a job when one had none; a second attempt came with the download only."""
    with Lab() as lab, Api(lab.emulator.url) as api:
        job = ids(lab)
        api.dataset("other-in", [{"custom_id": "x", "body": {"messages": [{"role": "user", "content": "?"}]}}])
        assert api.create_job(job, "other-in", "other-out").status_code == 200
        assert lab.go("submit").done
        first, second = lab.ledgers()[CONTROL].attempts
        assert (first.state, first.accepted, second.accepted) == ("ID_TAKEN", False, True)


def test_an_error_that_several_trials_tell_says_once_that_it_is_the_first():
    stuck = {"job": {"times": 2}, "do": {"stuck": {"in": "PENDING"}}}
    layout = Layout(items=2, models=("m", "n", "o"))
    with Lab(layout, stuck, queue={"max_concurrent_jobs": 2, "job_deadline_hours": 30}) as lab:
        lab.poll = 3600.0
        ending = lab.go()
        assert len(ending.errors) == 3
        assert {error.what.count("this is the first") for error in ending.errors.values()} == {1}


def test_no_other_worker_sends_anything_while_it_is_estimated_and_agreed_to():
    """Parts sent meanwhile were counted twice, or not at all."""
    with Lab(prices=PRICED) as lab:
        held = []

        def confirm(_planned):
            with open(lab.run.queue_lock, "rb") as lock, pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(lab.jobs())

        assert lab.go("submit", confirm=confirm).done
        assert held == [[]]


def test_what_else_lies_in_a_parts_folder_is_no_agreement_to_pay_for_it():
    """Desktop litter in each folder, and budget.confirm_above_usd was never asked about."""
    with Lab(prices=PRICED) as lab:
        for part in parts.read(lab.run.trial("m-p").index).parts:
            folder = lab.run.trial("m-p").part(part.part).root
            (folder / "a1").mkdir(parents=True)
            (folder / ".DS_Store").touch()
        assert [planned.parts for planned in lab.go("submit").asked] == [2]


EXPIRES = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}


@pytest.mark.parametrize("ended", [True, False])
def test_new_attempts_for_what_an_earlier_command_sent_are_announced(ended):
    """They were sent without a word, whatever budget.confirm_above_usd said."""
    with Lab(TEN_ROWS, EXPIRES, prices=PRICED) as lab:
        assert lab.go("submit").done
        if ended:
            lab.go("download", requeue="ask")
        ending = lab.go()
        assert ending.done, ending.text
        again = [part["attempts"][1] for part in lab.attempts()]
        assert [(planned.parts, planned.sent) for planned in ending.asked] == [(2, 0)]
        assert ending.asked[0].estimate.rows == sum(attempt["rows"] for attempt in again) < 20
        assert ending.asked[0].at_most == pytest.approx(sum(attempt["estimate"]["usd"] for attempt in again))


def test_new_attempts_that_nobody_agrees_to_are_not_sent_and_what_runs_is_collected():
    def refuse(_planned):
        raise Refused("not confirmed.")

    with Lab(TEN_ROWS, EXPIRES, prices=PRICED) as lab:
        assert lab.go("submit").done
        assert str(lab.go(confirm=refuse).error) == "not confirmed."
        assert len(lab.jobs()) == 2
        assert all(book.last.collected for book in lab.ledgers().values())
        assert lab.go().done
        lab.check(jobs=4)


def test_who_agreed_to_a_part_is_not_asked_again_when_its_job_ends_early():
    """An expired job needs no second command, nor a person who is awake."""
    with Lab(TEN_ROWS, EXPIRES, prices=PRICED) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert [planned.parts for planned in ending.asked] == [2]
        lab.check(jobs=4)


def test_a_no_to_a_trial_that_came_later_stops_none_that_was_agreed_to():
    with Lab(TWO_TRIALS, prices=PRICES, queue={"max_concurrent_jobs": 1}) as lab:
        lab.run.trial("n-p").index.unlink()
        said = []

        def confirm(planned):
            said.append(planned)
            if "n-p" in planned.trials:
                raise Refused("not confirmed.")

        ending = lab.go("submit", before=lab.build, confirm=confirm)
        assert len(said) == 2
        assert list(ending.errors) == [("submit", "n-p")]
        assert str(ending.error) == "not confirmed."
        assert len(lab.jobs()) == 4


def high_of(lab, slug, last):
    """What the newest *last* intents of a trial may cost at most."""
    books = [book for name, book in lab.ledgers().items() if name.startswith(slug)]
    attempts = sorted((attempt for book in books for attempt in book.attempts), key=lambda each: each.intended_at)
    return sum(attempt.estimate["usd"] for attempt in attempts[-last:])


def high(lab):
    """What one part may cost at most."""
    (attempt,) = {book.last.estimate["usd"] for book in lab.ledgers().values()}
    return attempt


def test_the_budget_is_a_hard_stop_and_what_runs_is_still_collected():
    prices = {"models": dict.fromkeys("mn", PRICED["models"]["m"])}
    with Lab(TWO_TRIALS, prices=prices) as lab:
        lab.go("submit", trials=("m-p",), wait=False)
        most = max(book.last.estimate["usd"] for book in lab.ledgers().values())
    with Lab(TWO_TRIALS, prices=prices, budget={"max_usd": 2.5 * most}) as lab:
        ending = lab.go()
        assert isinstance(ending.error, BudgetExceeded)
        assert ending.error.exit_code == EXIT_BUDGET
        assert "passes budget.max_usd" in str(ending.error)
        sent = len(lab.jobs())
        assert 2 <= sent < 8
        assert all(book.last.collected for book in lab.ledgers().values())
        spent = sum(
            job.counts.input_tokens * 5e-6 + job.counts.output_tokens * 20e-6 for job in history.jobs(lab.store)
        )
        assert spent < 2.5 * most
        lab.change(budget={"max_usd": 100.0})
        assert lab.go().done
        lab.check()


def test_room_that_ended_jobs_leave_in_the_budget_is_used():
    """An estimate is the most a part may cost. What it really cost counts once its job has ended."""
    with Lab(prices=PRICED) as lab:
        lab.go("submit", wait=False)
        each = max(book.last.estimate["usd"] for book in lab.ledgers().values())
    with Lab(prices=PRICED, budget={"max_usd": 1.6 * each}) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert any("room in the budget" in shown.waiting_for for shown in ending.shown if shown)
        assert running_at_once(lab) == 1
        lab.check()


def test_the_budget_counts_trials_that_are_not_driven_now():
    prices = {"models": dict.fromkeys("mn", PRICED["models"]["m"])}
    with Lab(TWO_TRIALS, prices=prices) as lab:
        assert lab.go("submit", trials=("m-p",)).done
        committed = sum(book.last.estimate["usd"] for book in lab.ledgers().values())
        lab.change(budget={"max_usd": committed / 50})
        ending = lab.go("submit", trials=("n-p",))
        assert isinstance(ending.error, BudgetExceeded)
        assert len(lab.jobs()) == 4


def test_without_the_price_of_one_model_a_budget_cannot_be_kept_and_nothing_at_all_is_sent():
    """The plan said so; but the run asked for a yes, and then sent and paid the other model's part of it."""
    with Lab(TWO_TRIALS, prices=PRICED, budget={"max_usd": 100.0}) as lab:
        ending = lab.go()
        assert ending.error.exit_code == EXIT_BUDGET
        assert [str(error) for error in ending.errors.values()] == [str(ending.error)] * 2
        assert "budget.max_usd = $100.00 cannot be kept: no price for accounts/fireworks/models/n." in ending.text
        assert f"add prices.models.n (input_per_mtok, output_per_mtok) to {lab.run.config}" in ending.error.hint
        assert "new run" not in ending.text
        assert ending.asked == [], "somebody was asked to agree to what would then be refused"
        assert lab.calls() == []
        lab.change(prices={"models": dict.fromkeys("mn", PRICED["models"]["m"])})
        assert lab.go().done
        lab.check()


def test_a_trial_without_a_price_is_no_obstacle_to_those_chosen_without_it():
    with Lab(TWO_TRIALS, prices=PRICED, budget={"max_usd": 100.0}) as lab:
        assert lab.go(trials=("m-p",)).done
        assert len(lab.jobs()) == 4
        assert lab.go("submit").errors.keys() == {("submit", "n-p")}
        assert len(lab.jobs()) == 4


def test_a_trial_without_a_price_that_is_not_built_yet_counts():
    """Under `doit -n` one worker submits while another still builds."""
    with Lab(TWO_TRIALS, prices=PRICED, budget={"max_usd": 100.0}) as lab:
        lab.run.trial("n-p").index.unlink()
        assert isinstance(lab.go("submit").errors["submit", "m-p"], BudgetExceeded)
        assert lab.jobs() == []


def test_what_was_sent_without_a_price_counts_against_a_limit_that_is_set_later():
    """Its cost is not known, so neither is what is left of the limit: nobody is asked, and the rest is not sent."""
    with Lab(TWO_TRIALS, prices=PRICED) as lab:
        assert lab.go("submit", trials=("n-p",)).done
        lab.change(budget={"max_usd": 100.0})
        ending = lab.go()
        assert ending.asked == []
        assert ending.errors.keys() == {("submit", "m-p")}, "results of n-p were not collected"
        assert "no price for accounts/fireworks/models/n." in ending.text
        assert len(lab.jobs()) == 4


def test_jobs_that_run_are_collected_though_the_rest_has_no_price():
    with Lab(TWO_TRIALS, prices=PRICED, queue={"max_concurrent_jobs": 1}) as lab:
        lab.go("submit", wait=False)
        lab.change(budget={"max_usd": 100.0})
        ending = lab.go("submit")
        assert ending.errors.keys() == {("submit", "m-p"), ("submit", "n-p")}
        assert [book.last.ended is not None for book in lab.ledgers().values()] == [True]
        assert len(lab.jobs()) == 1


def test_a_run_that_has_all_its_results_needs_no_price():
    with Lab(TWO_TRIALS, prices=PRICED) as lab:
        assert lab.go().done
        for slug in ("m-p", "n-p"):
            lab.record(slug)
        lab.change(budget={"max_usd": 1.0})
        assert lab.go().done
        lab.check()


def test_new_attempts_are_within_the_budget_too():
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires, prices=PRICED) as lab:
        assert lab.go("submit").done
        committed = sum(book.last.estimate["usd"] for book in lab.ledgers().values())
        lab.change(budget={"max_usd": committed / 20})
        ending = lab.go()
        assert isinstance(ending.error, BudgetExceeded)
        assert len(lab.jobs()) == 2
        assert all(book.last.collected for book in lab.ledgers().values())
        lab.change(budget={"max_usd": 1.0})
        assert lab.go().done
        lab.check(jobs=4)


# --- stopping and going on ------------------------------------------------------------------------------------


def test_wait_0_looks_once_and_loses_nothing():
    with Lab() as lab:
        first = lab.go(wait=False)
        assert isinstance(first.error, NotReady)
        assert first.error.exit_code == EXIT_NOT_READY
        assert "2 of 2 parts of m-p are not finished yet" in str(first.error)
        assert len(lab.jobs()) == 2
        assert not lab.go(wait=False).done
        lab.sleep(600)
        assert lab.go(wait=False).done
        lab.check()


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 13])
def test_a_stop_request_is_obeyed_at_each_moment_and_loses_nothing(after):
    looks = itertools.count()

    def check_stop():
        if next(looks) >= after:
            raise Stopped("STOP_REQUESTED was found.")

    with Lab() as lab:
        ending = lab.go(check_stop=check_stop)
        assert isinstance(ending.error, Stopped)
        sent = len(lab.jobs())
        assert sent <= after
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize("after", [0, 3, 4, 5, 9, 14, 20, 23])
def test_a_key_that_is_revoked_midway_stops_at_once_and_a_good_one_goes_on(after):
    with Lab(SMALL, {"call": {"skip": after, "times": None}, "do": {"respond": "key_revoked"}}) as lab:
        ending = lab.go()
        assert isinstance(ending.error, AuthError)
        assert "set a valid key for this account" in str(ending.error)
        assert lab.fired()[0] <= 2  # one for each phase of the one trial
        assert not any(attempt.lost for book in lab.ledgers().values() for attempt in book.attempts)
        lab.heal()
        assert lab.go().done
        lab.check()


def test_the_wrong_key_from_the_start_sends_nothing():
    with Lab() as lab:
        lab.key = "wrong"
        assert isinstance(lab.go().error, AuthError)
        assert lab.jobs() == []
        lab.key = "emulator-key"
        assert lab.go().done
        lab.check()


def test_a_refused_create_says_what_the_provider_said_and_the_other_parts_go_on():
    refusal = {"status": 400, "json": {"code": 3, "message": "model is not available for batch", "details": []}}
    with Lab(SMALL, {"call": {**CREATE_JOB, "times": 1}, "do": {"respond": refusal}}) as lab:
        ending = lab.go("submit")
        assert isinstance(ending.error, ProviderError)
        assert "model is not available for batch" in str(ending.error)
        assert "costs nothing" in str(ending.error)
        assert len(lab.jobs()) == 1
        assert lab.go().done
        lab.check()


# --- what the ledger is for -----------------------------------------------------------------------------------


def test_the_intent_is_on_disk_before_the_first_call():
    with Lab() as lab:
        seen = []

        def before(what):
            if what == "network":
                seen.append({key: book.last.accepted for key, book in lab.ledgers().items()})
                raise Crash

        lab.before = before
        with pytest.raises(Crash):
            lab.go()
        assert seen == [{CONTROL: False}]


@pytest.mark.parametrize("damage", ["lost", "torn", "first line edited", "emptied"])
@pytest.mark.parametrize("raw", ["here", "lost"])
def test_a_ledger_that_is_damaged_is_made_up_from_what_the_provider_says(damage, raw):
    with Lab() as lab:
        assert lab.go().done
        folder = part_of(lab, "control")
        (folder / "results.jsonl").unlink()
        book = folder / "ledger.jsonl"
        data = book.read_bytes()
        match damage:
            case "lost":
                book.unlink()
            case "torn":
                book.write_bytes(data[: len(lines(book)[0]) + 20])
            case "first line edited":
                book.write_bytes(data.replace(b"tm-lab", b"tm-bal", 1))
            case "emptied":
                book.write_bytes(b"")
        if raw == "lost":
            attempts.disk.remove_folder(folder / "a1")
        assert lab.go().done
        assert lab.artifacts() == golden(SMALL)
        assert len(lab.jobs()) == 2
        if raw == "lost":  # else nobody had to be asked
            lab.check()


def test_damaged_lines_are_named():
    with Lab() as lab:
        assert lab.go("submit").done
        book = part_of(lab, "control") / "ledger.jsonl"
        book.write_bytes(book.read_bytes().replace(b'"accepted"', b'"accepteD"'))
        ending = lab.go()
        assert ending.done
        told = [line for line in ending.said if "damaged or torn" in line]
        assert told == [f"{CONTROL}: ledger.jsonl: damaged or torn line 2; what it said is asked for by its id"]
        lab.check()


@pytest.mark.parametrize("missing", ["intent", "accepted", "ended", "collected"])
def test_an_earlier_attempt_is_not_forgotten_when_a_line_of_it_is_damaged(missing):
    """History: with the first intent damaged, all rows of attempt 1 were asked for a third time."""
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires) as lab:
        assert lab.go().done
        folder = part_of(lab, "control")
        (folder / "results.jsonl").unlink()
        book = folder / "ledger.jsonl"
        (number,) = [
            n
            for n, line in enumerate(lines(book))
            if b'"attempt":1' in line and f'"event":"{missing}"'.encode() in line
        ]
        kept = [line if n != number else line.replace(b'"at":"2', b'"at":"3') for n, line in enumerate(lines(book))]
        book.write_bytes(b"".join(kept))
        assert ledger.read(book).damaged
        with Api(lab.emulator.url) as api:  # and the provider forgot it in the meantime
            assert api.delete(f"/{JOB}/{lab.jobs()[0]}").status_code == 200
        lab.sleep(60)
        assert lab.go().done
        lab.check(jobs=4)


def test_requests_of_a_later_attempt_that_are_gone_are_written_anew():
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires) as lab:
        lab.go("submit")
        lab.sleep(600)
        lab.go("download", wait=False)
        assert len(lab.jobs()) == 4
        for path in lab.run.root.glob("*/results/*/a2/requests.jsonl"):
            path.unlink()
        assert lab.go().done
        lab.check(jobs=4)


@pytest.mark.parametrize("sent", [False, True], ids=["intended", "sent"])
def test_requests_of_a_later_attempt_that_lost_a_line_are_written_anew(sent):
    """They read as requests, were not those of the intent, and so were refused for ever."""
    away = {"call": {**CREATE_DATASET, "times": None}, "do": {"respond": "unavailable"}}
    with Lab(TEN_ROWS, EXPIRES) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        if not sent:
            lab.fault(away)
        lab.go("download", wait=False)
        lab.heal()
        assert len(lab.jobs()) == (4 if sent else 2)
        cut = {path: path.read_bytes() for path in lab.run.root.glob("*/results/*/a2/requests.jsonl")}
        for path, whole in cut.items():
            path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
        ending = lab.go()
        assert ending.done, ending.text
        assert {path: path.read_bytes() for path in cut} == cut
        assert all(len([*path.parent.glob("requests.jsonl.damaged.*")]) == 1 for path in cut)
        lab.check(jobs=4)


def test_requests_that_are_not_those_of_their_intent_written_anew_either_are_not_sent():
    """Never other bytes than were intended, and not one copy more at each try."""
    away = {"call": {**CREATE_DATASET, "times": None}, "do": {"respond": "unavailable"}}
    with Lab(TEN_ROWS, EXPIRES) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        lab.fault(away)
        lab.go("download", wait=False)
        lab.heal()
        part = part_of(lab, "control")
        requests, book = part / "a2" / "requests.jsonl", part / "ledger.jsonl"
        meant = ledger.read(book).last
        submission = Submission(
            *(meant.job_id, meant.input_dataset_id, meant.output_dataset_id, requests, meant.rows, meant.model, "")
        )
        ledger.intend(book, 2, submission, "0" * 64, meant.binding, meant.estimate)
        before = requests.read_bytes()
        for _ in range(2):
            refused = lab.go("download").error
            assert "requests.jsonl is not what was built or sent." in str(refused)
            assert [path.name for path in requests.parent.iterdir()] == [requests.name]
            assert requests.read_bytes() == before
        assert len(lab.jobs()) == 3  # the other part's second attempt


def test_the_estimate_counts_bytes_so_that_no_script_of_the_world_is_underestimated():
    """A Chinese character is about one token; by characters it passed for a quarter of one."""
    body = {"messages": [{"role": "user", "content": "谁发现了这个元素" * 50}], "max_tokens": 10}
    assert estimates.of_body(body, 1).input_high >= 350
