"""The plan says what would run, be sent and cost, before anything is: and nothing is written by asking."""

import io
import json
import re
import sys
from contextlib import contextmanager

import pytest
import session_kit
from faulty_disk import operations
from ruamel.yaml import YAML
from small_trial import CLOSED, NEVER, OPEN, settings

from pipeline import graph, ledger, opening, plain, plan, request
from pipeline.errors import UsageError
from pipeline.paths import RunPaths
from pipeline.providers.base import Accepted, Binding, Job, JobPhase, Submission
from pipeline.queue import attempts, estimates

PRICES = {"models": {"lab/small": {"input_per_mtok": 4, "output_per_mtok": 20}}}
GRID = {"temperatures": [0, 0.5], "samples_per_item": 3, "decoding": {"max_tokens": 10}}
REQUESTS = 3 * 2 * 2 * 3  # items x conditions x temperatures x samples
SLUG = "small-default"
TRIAL = RunPaths.of("r1").trial(SLUG)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def folder(quick_path, monkeypatch):
    """A folder with questions and an experiment, where `doit` is said."""
    (quick_path / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (OPEN, NEVER, CLOSED)))
    monkeypatch.chdir(quick_path)
    monkeypatch.delenv("TRIALMAKE_PROVIDER", raising=False)
    configure(quick_path)
    return quick_path


def configure(folder, **changes):
    with open(folder / "experiment.yaml", "w") as stream:
        YAML(typ="safe").dump(settings(**{"provider": "fireworks", "prices": PRICES, **GRID, **changes}), stream)


@contextmanager
def reading(**words):
    opened = opening.for_reading(request.parse(words), print)
    try:
        yield opened
    finally:
        opened.close()


def planned(**words):
    with reading(**words) as opened:
        return plan.plan(opened)


def verbs(found):
    return {step.phase: step.verb for step in found.steps}


def start(*phases, **words):
    """A new run r1, taken through *phases*."""
    ending = session_kit.go("r1", phases, may_create=True, config="experiment.yaml", **words)
    assert ending.errors == {}


def send(part, *, accepted=True, sha256=None):
    """What the ledger of *part* holds once it was submitted, or other requests of this *sha256* in its place."""
    with reading(rid="r1") as opened:
        [listed] = [entry for entry in opened.workspace.index(SLUG).parts if entry.part == part]
    path = TRIAL.part(part).ledger
    name = attempts.job_id("r1", SLUG, part, 1, listed.sha256, "lab/small")
    submission = Submission(name, f"{name}-in", f"{name}-out", path, listed.rows, "lab/small", "x")
    estimate = {"input_tokens": 1, "output_tokens": 1, "usd": 0.25}
    ledger.intend(path, 1, submission, sha256 or listed.sha256, Binding("fireworks", "lab", "x"), estimate)
    if accepted:
        job = Job(name, "RUNNING", JobPhase.RUNNING, "lab/small", f"{name}-in", f"{name}-out")
        ledger.accept(path, 1, Accepted(job, adopted=False))


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- before the first run -------------------------------------------------------------------------


def test_before_any_run_it_tells_what_a_run_would_be(folder):
    found = planned()
    assert set(verbs(found).values()) == {"run"}
    assert next(plan.as_text(found)) == "a new run would be made from experiment.yaml"
    assert list(verbs(found)) == [phase.name for phase in graph.PHASES if phase.by_default]
    assert found.requests == REQUESTS


def test_what_would_be_made_is_told_by_its_config_also_where_its_folder_is_there(folder):
    RunPaths.of("r2").root.mkdir(parents=True)
    found = planned(rid="r2", config="experiment.yaml")
    assert next(plan.as_text(found)) == "a new run would be made from experiment.yaml"


def test_asking_writes_nothing(folder):
    before = tree(folder)
    assert operations(planned) == []
    assert tree(folder) == before


def test_the_estimate_before_build_is_that_of_the_requests_build_writes(folder):
    before = planned()
    start("prepare", "build")
    total = estimates.NOTHING
    for path in TRIAL.inputs.glob("t*.jsonl"):
        total += estimates.of_requests(path)
    assert (before.requests, before.input_tokens, before.output_tokens) == (
        total.rows, total.input_tokens, total.output_expected,
    )  # fmt: skip
    after = planned(rid="r1")
    assert (after.requests, after.input_tokens, after.usd) == (
        before.requests, before.input_tokens, pytest.approx(before.usd),
    )  # fmt: skip
    low, expected, high = before.usd
    assert low < expected < high == pytest.approx((total.input_high * 2e-6) + total.output_tokens * 1e-5)


def test_an_unknown_price_is_not_a_price_of_0(folder):
    configure(folder, prices={})
    assert planned().usd is None


def test_a_model_without_a_price_is_named_in_the_plan(folder):
    configure(folder, prices={"models": {"smal": PRICES["models"]["lab/small"]}}, budget={"max_usd": 5})
    found = planned()
    said = "no price for lab/small (prices.models has 'smal'; did you mean 'small'?): not counted"
    text = "\n".join(plan.as_text(found))
    assert f"out, at an unknown price ({said})" in text
    assert "nothing would be sent until experiment.yaml has each model's" in text
    assert plan.as_json(found)["unpriced"] == ("lab/small (prices.models has 'smal'; did you mean 'small'?)",)
    start("prepare", "build")
    text = "\n".join(plan.as_text(planned(rid="r1")))
    assert "until experiments/run_r1/experiment.yaml has each model's" in text


def test_a_limit_of_items_is_counted(folder):
    assert planned(limit="1").requests == REQUESTS // 3


# --- of a run that has begun ------------------------------------------------------------------------


def test_what_is_done_is_skipped_and_what_is_not_would_run(folder):
    start("prepare", "build")
    found = verbs(planned(rid="r1"))
    assert (found["prepare"], found["build"], found["submit"], found["parse"]) == ("skip", "skip", "run", "run")


def test_what_was_submitted_is_not_counted_again(folder):
    start("prepare", "build")
    send("t0_control_p01")
    found = planned(rid="r1")
    assert found.requests == REQUESTS * 3 // 4
    send("t05_control_p01", accepted=False)  # its job may be there: it is asked for, and counted until then
    assert planned(rid="r1").requests == REQUESTS * 3 // 4
    for part in ("t05_control_p01", "t0_treatment_p01", "t05_treatment_p01"):
        send(part)
    done = planned(rid="r1")
    assert (done.requests, verbs(done)["submit"]) == (0, "skip")
    assert "nothing would be sent" in "\n".join(plan.as_text(done))


def test_results_that_are_here_are_not_asked_for(folder):
    start("prepare", "build")
    TRIAL.part("t0_control_p01").root.mkdir(parents=True)
    TRIAL.part("t0_control_p01").results.write_text("x")
    assert planned(rid="r1").requests == REQUESTS * 3 // 4


@pytest.mark.parametrize("left", ["ledger.jsonl", "OUTPUT_DATASET_ID.txt"])
@pytest.mark.parametrize("listed", [True, False], ids=["with the list", "without the list"])
def test_what_was_sent_is_not_counted_again_where_its_records_are_lost(folder, left, listed):
    """Without the list of parts all of a finished run "would be sent"; without ledgers, what ran. Nothing was."""
    start("prepare", "build")
    send("t0_control_p01")
    if left != "ledger.jsonl":
        TRIAL.part("t0_control_p01").ledger.unlink()
        TRIAL.part("t0_control_p01").output_ids.write_text("tm-r1-0123abcd-a1-0123456789ab-out\n")
    if not listed:
        TRIAL.index.unlink()
    rest = planned(rid="r1")
    assert (rest.requests, verbs(rest)["submit"]) == (REQUESTS * 3 // 4, "run" if listed else "repair")
    for part in ("t05_control_p01", "t0_treatment_p01", "t05_treatment_p01"):
        TRIAL.part(part).root.mkdir(parents=True)
        TRIAL.part(part).output_ids.write_text("tm-r1-0123abcd-a1-0123456789ab-out\n")
    assert "nothing would be sent" in "\n".join(plan.as_text(planned(rid="r1")))


def test_a_run_that_is_refused_would_send_nothing(folder):
    """Another prompt in a submitted run is another experiment; its requests once stood in the plan."""
    start("prepare", "build")
    send("t0_control_p01")
    frozen = RunPaths.of("r1").config
    frozen.write_text(frozen.read_text().replace("Answer or abstain.", "Answer always."))
    found = planned(rid="r1")
    assert verbs(found)["build"] == "refuse"
    assert {verbs(found)[phase] for phase in ("submit", "download", "parse", "index")} == {"not reached"}
    assert found.requests == 0


def test_what_comes_after_a_refused_submit_is_not_reached(folder):
    """Download has no file of submit's to wait for: it stood in the plan as if there were something to collect."""
    start("prepare", "build")
    send("t0_control_p01", sha256="0" * 64)
    found = planned(rid="r1")
    assert (verbs(found)["build"], verbs(found)["submit"]) == ("skip", "refuse")
    assert {verbs(found)[phase] for phase in ("download", "parse", "report", "index")} == {"not reached"}
    [step] = [step for step in found.steps if step.phase == "download"]
    assert step.reason == "since submit is refused"


def test_what_follows_from_new_bytes_may_run(folder):
    start("prepare", "build")
    found = planned(rid="r1", force="prepare")
    assert (verbs(found)["prepare"], verbs(found)["build"]) == ("run", "may run")
    [step] = [step for step in found.steps if step.phase == "build"]
    assert "prepare" in step.reason


@pytest.mark.parametrize("damage", ["index", "part"])
def test_damage_is_part_of_the_plan_and_no_reason_to_fail(folder, damage):
    """A list of parts that was damaged, or a part that was gone, once ended the plan with an error."""
    start("prepare", "build")
    path = TRIAL.index if damage == "index" else TRIAL.part_requests("t0_control_p01")
    whole = planned(rid="r1")
    path.write_bytes(b"{}") if damage == "index" else path.unlink()
    found = planned(rid="r1")
    assert verbs(found)["build"] == "repair"
    assert found.requests == REQUESTS
    assert found.input_tokens == pytest.approx(whole.input_tokens, rel=0.3)


def test_prepared_items_are_enough_when_the_questions_are_gone(folder):
    start("prepare")
    (folder / "quiz.jsonl").unlink()
    found = planned(rid="r1")
    assert (verbs(found)["prepare"], found.requests) == ("skip", REQUESTS)


@pytest.mark.parametrize(
    ("limit", "prices", "said", "verb"),
    [
        (None, PRICES, "", "run"),
        (100, PRICES, "allows it", "run"),
        (0.0001, PRICES, "would stop it", "run"),  # unless the part that runs costs less than the 0.25 committed
        (0.2501, PRICES, "would stop it", "run"),
        (100, {}, "cannot be kept without a price", "refuse"),
    ],
)
def test_the_plan_says_what_the_budget_would_say(folder, limit, prices, said, verb):
    configure(folder, budget={"max_usd": limit}, prices=prices)
    start("prepare", "build")
    send("t0_control_p01")
    found = planned(rid="r1")
    assert found.committed_usd == pytest.approx(0.25)
    assert verbs(found)["submit"] == verb
    text = "\n".join(plan.as_text(found))
    assert ("budget.max_usd" in text) is (limit is not None)
    assert said in text
    assert ("for as long as the next one fits" in text) is (said == "would stop it")


def test_a_part_whose_intent_is_counted_does_not_count_again(folder):
    configure(folder, budget={"max_usd": 100}, prices=PRICES)
    start("prepare", "build")
    before = planned(rid="r1")
    assert before.added_usd == before.usd[2]
    send("t0_control_p01", accepted=False)
    after = planned(rid="r1")
    assert after.usd == before.usd
    assert after.committed_usd == 0.25
    assert 0.7 < after.added_usd / before.added_usd < 0.8  # one part of four, with a prompt of its own
    assert f"at most {plain.usd(after.added_usd)} with {plain.usd(0.25)} spent" in "\n".join(plan.as_text(after))


HELD_BACK = {
    "the budget": {"budget": {"max_usd": 0.0001}},
    "a price that is not known": {"budget": {"max_usd": 100}, "prices": {}},
    "a yes that nobody is there to say": {"budget": {"confirm_above_usd": 0.0001}},
}


@pytest.mark.parametrize("lacking", HELD_BACK)
def test_what_the_queue_would_refuse_is_refused_in_the_plan(folder, lacking):
    """After such a refusal the plan once had submit and download run, and the results of nothing parsed."""
    configure(folder, **HELD_BACK[lacking])
    start("prepare", "build")
    found = planned(rid="r1")
    ending = session_kit.resume("r1", "submit")
    [submit] = [step for step in found.steps if step.phase == "submit"]
    assert submit.verb == "refuse"
    assert submit.reason == ending.errors["submit"].what.rstrip(".")
    assert {verbs(found)[phase] for phase in ("download", "parse", "report", "index")} == {"not reached"}
    assert f"{REQUESTS:,} requests would be sent if that were mended" in "\n".join(plan.as_text(found))
    assert planned(rid="r1") == found  # what was recorded of the refusal changes nothing


def test_a_dear_trial_does_not_hold_back_a_cheap_one(folder):
    """As in the queue: each trial's submit tries its own parts first."""
    models = [{"id": "lab/small"}, {"id": "lab/cheap"}]
    prices = {"models": {**PRICES["models"], "lab/cheap": {"input_per_mtok": 0.001, "output_per_mtok": 0.001}}}
    configure(folder, models=models, prices=prices, budget={"max_usd": 0.0001})
    start("prepare", "build")
    submits = {step.trial: step.verb for step in planned(rid="r1").steps if step.phase == "submit"}
    assert submits == {SLUG: "refuse", "cheap-default": "run"}


def test_a_yes_is_wanted_where_one_can_be_said(folder, monkeypatch):
    configure(folder, budget={"confirm_above_usd": 0.001})
    start("prepare", "build")
    assert verbs(planned(rid="r1", yes="1"))["submit"] == "run"
    monkeypatch.setattr(sys, "stdin", Terminal())
    asking = planned(rid="r1")
    assert verbs(asking)["download"] == "run"
    assert "budget.confirm_above_usd = $0.0010 wants a yes first: yes=1 gives it" in plan.as_text(asking)
    for part in ("t0_control_p01", "t0_treatment_p01", "t05_control_p01", "t05_treatment_p01"):
        (RunPaths.of("r1").trial(SLUG).part(part).root / "a1").mkdir(parents=True)
        assert planned(rid="r1") == asking  # what else lies there is no agreement
        send(part, accepted=False)
        asking = planned(rid="r1")
    assert planned(rid="r1").confirm_above_usd is None  # agreed to when the intents were made


# --- choosing, and the two ways to read it --------------------------------------------------------------


@pytest.mark.parametrize("words", [{"only": "submit"}, {"from": "submit"}, {"only": "parse"}])
def test_a_phase_whose_input_nobody_will_write_is_refused(folder, words):
    """Without a list of parts `only=submit` planned all requests; the command refused, and sent nothing."""
    start("prepare")
    found = planned(rid="r1", **words)
    assert (found.requests, found.steps[0].verb) == (0, "refuse")
    assert re.search(r"needs \S+, which is not there; run \w+ first: doit resume rid=r1", found.steps[0].reason)
    assert {step.verb for step in found.steps[1:]} <= {"not reached"}


def test_only_the_chosen_cells_are_planned(folder):
    assert list(verbs(planned(only="score,parse"))) == ["parse", "score"]
    assert "archive" not in verbs(planned())
    assert "archive" in verbs(planned(only="archive"))
    assert planned(only="parse").requests == 0
    with pytest.raises(UsageError, match="trial=x\\* matches no trial"):
        planned(trial="x*")


def test_the_document_holds_what_the_text_says(folder):
    found = planned()
    document = plan.as_json(found)
    assert document["requests"] == REQUESTS
    assert document["usd"].keys() == {"low", "expected", "high"}
    assert [step["phase"] for step in document["steps"]] == [step.phase for step in found.steps]
    text = "\n".join(plan.as_text(found))
    for step in found.steps:
        assert step.reason in text
    assert f"{REQUESTS:,} requests would be sent" in text


def test_what_download_alone_would_still_send_is_counted(folder):
    """An intent that nobody acknowledged is asked for again by its id: it may never have become a job."""
    start("prepare", "build")
    names = [path.stem for path in sorted(TRIAL.inputs.glob("t*.jsonl"))]
    for name in names:
        send(name, accepted=name != names[0])
    found = planned(rid="r1", only="download")
    assert verbs(found) == {"download": "run"}
    assert found.requests == planned(rid="r1").requests == REQUESTS // len(names)
