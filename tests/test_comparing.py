"""`compare` and `power` give numbers one can work out on paper, and refuse what cannot be compared or planned."""

import math
import os
import shutil

import pytest
import run_kit
from report_kit import closed, make, open_book

from pipeline import comparing, jsonl, runs, schema
from pipeline.comparing import Wanted
from pipeline.errors import DamagedArtifact, NotReady, UnknownRun, UnreadableFile, UsageError
from pipeline.paths import RunPaths

ITEMS = [closed(number) for number in range(1, 13)]
PRICES = {"model-a": {"input_per_mtok": 1, "output_per_mtok": 1}}
TRIAL = "model-a-set"


def right_up_to(control, treatment):
    """Answers that are right on the first so many questions under each condition."""

    def answer(request, row):
        limit = control if request.condition == "control" else treatment
        return row["answers"][0] if int(request.item_id[1:]) <= limit else "wrong"

    return answer


def started(rid, answer, **settings):
    """The finished run *rid* below `experiments/`, with its record."""
    place = RunPaths.of(f"making-{rid}").root
    made = make(place, answer, **{"items": ITEMS, "prices": PRICES, **settings})
    run = RunPaths.of(rid)
    shutil.move(made.run.root, run.root)
    place.rmdir()
    runs.create(run, made.config, "2026-01-01T00:00:00.000Z")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of 12 questions 3 are right under control; under treatment 6 in `one`, 9 in `two`. `many` has two trials."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        started("one", right_up_to(3, 6))
        started("two", right_up_to(3, 9))
        started("many", right_up_to(0, 6), models=("lab/model-a", "lab/model-b"), samples=2)
    return place


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    """Every test looks from there, and none may write."""
    before = run_kit.tree(folder)
    monkeypatch.chdir(folder)
    yield
    assert run_kit.tree(folder) == before


@pytest.fixture
def copy(folder, tmp_path, monkeypatch):
    """A copy of the runs that a test may change."""
    shutil.copytree(folder / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)


def em(document):
    [block] = document["results"]["0"].values()
    return block["metrics"]["em"]


# --- compare ----------------------------------------------------------------------------------------


def test_the_second_minus_the_first_on_the_items_both_hold():
    """Three of twelve questions won, none lost: 0.25; three sign flips agree with 2/8."""
    found = em(comparing.compare("one", "two"))
    assert (found["delta_mean"], found["n_pairs"]) == (0.25, 12)
    assert (found["mean_control"], found["mean_treatment"]) == (0.5, 0.75)
    assert (found["wins"], found["ties"], found["losses"]) == (3, 9, 0)
    assert found["primary"]["p_value"] == 0.25
    assert found["se"] == pytest.approx((0.25 * 0.75 / 11) ** 0.5)


@pytest.mark.parametrize(
    ("first", "second", "delta"),
    [
        ("two", "one", -0.25),
        ("one::control", "one", 0.25),
        ("one::control", f"two:{TRIAL}:treatment", 0.5),
        ("one::control", "two::control", 0.0),
        ("many:model-a-set", "many:model-b-set", 0.0),
    ],
)
def test_runs_trials_and_conditions_are_named_by_colons(first, second, delta):
    document = comparing.compare(first, second)
    assert em(document)["delta_mean"] == delta
    assert (document["control"], document["treatment"]) == (first, second)


def test_the_text_says_what_is_subtracted_and_counts_what_is_left_out(copy):
    items = [*ITEMS[:10], closed(40)]
    started("other", right_up_to(3, 6), items=items)
    lines = list(comparing.compare_text(comparing.compare("one", "other")))
    assert lines[0] == "other minus one, paired on shared items"
    assert lines[1].split() == ["temp", "type", "metric", "items", "difference", "95%", "CI", "p", "q"]
    assert lines[2].split() == ["0", "closed", "em", "10", "+0.0000", "+0.0000", "to", "+0.0000", "1", "1"]
    assert lines[5] == "left out: 3 items (by type and temperature) that only one of the two holds"
    assert lines[6].startswith("warning: n_small: 10 pairs; ")
    assert lines[6].endswith(" (0 closed em, 0 closed f1, 0 closed abstain_rate)")
    assert len(lines) == 7


def test_a_temperature_that_one_run_lacks_is_no_row_of_dashes(copy):
    started("warmer", right_up_to(3, 6), temperatures=(0, 1))
    lines = list(comparing.compare_text(comparing.compare("one", "warmer")))
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["0", "closed", metric] for metric in ("em", "f1", "abstain_rate")
    ]
    assert lines[5].startswith("left out: 12 items")
    assert lines[5].endswith("; none is shared at 1 closed")


def test_answers_scored_by_other_rules_are_compared_with_a_warning(copy):
    """A difference of scoring once passed for one of the answers."""
    started("cut", right_up_to(3, 6), scoring={"extraction": "first_line"})
    document = comparing.compare("one", "cut")
    warning = "scoring_differs: the answers were scored by other rules (extraction: none -> first_line)"
    assert document["warnings"] == [warning]
    assert schema.problems_in(jsonl.dumps(document), "significance.schema") == []
    assert f"warning: {warning}" in comparing.compare_text(document)
    assert comparing.compare("one", "two")["warnings"] == []


def test_a_question_that_was_changed_under_its_old_id_is_not_compared_with_itself(copy):
    """Equal ids once made equal questions."""
    items = [*ITEMS[:11], closed(12, question="What is asked now?")]
    started("edited", right_up_to(3, 6), items=items)
    with pytest.raises(UsageError, match=r"one and edited hold other .* under the same id: trivia\|c012\."):
        comparing.compare("one", "edited")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"{}", b"[1]", b'"text"', b'{"dataset": [], "id": {}}', b'{"dataset": "trivia']
)
def test_a_damaged_question_is_named_with_its_line(copy, data):
    """It was said to be a bug."""
    path = RunPaths.of("two").closed_book
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + data + b"\n")
    with pytest.raises(DamagedArtifact, match=r"closed_book\.jsonl line 2: is no question(.|\n)*doit resume rid=two"):
        comparing.compare("one", "two")


def test_how_items_cluster_is_not_part_of_the_question(copy):
    started("clustered", right_up_to(3, 6), items=[{**item, "cluster": "all"} for item in ITEMS])
    assert em(comparing.compare("one", "clustered"))["n_pairs"] == 12


@pytest.mark.parametrize(
    ("first", "second", "error", "words"),
    [
        ("one", "nope", UnknownRun, "many"),  # the runs there are
        ("one:nope", "two", UsageError, TRIAL),
        ("many", "one", UsageError, "many:model-a-set, many:model-b-set"),
        ("one::nope", "two", UsageError, "control, treatment"),
        ("one", f"one:{TRIAL}:treatment", UsageError, f"one:{TRIAL}:control"),
    ],
)
def test_what_cannot_be_compared_is_said_with_what_can(first, second, error, words):
    with pytest.raises(error) as caught:
        comparing.compare(first, second)
    assert words in str(caught.value)


def test_a_run_that_is_not_scored_yet_is_named_with_the_command(copy):
    RunPaths.of("two").trial(TRIAL).scores.unlink()
    with pytest.raises(NotReady, match=r"per_item_scores\.csv(.|\n)*doit resume rid=two"):
        comparing.compare("one", "two")


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda: comparing.compare("one::control", "one"), "per_item_scores.csv"),
        (lambda: comparing.power_from_pilot("one", None, None, "em", Wanted()), "significance.json"),
    ],
)
def test_a_trial_one_may_not_look_into_is_told_as_such(copy, tmp_path, ask, name):
    """Another user's folder ended in "This is a bug"."""
    ask()  # what is imported by it may not be readable for whoever else one becomes
    tmp_path.chmod(0o755)
    RunPaths.of("one").trial(TRIAL).root.chmod(0)
    try:
        if os.getuid() == 0:  # whom no permission stops
            os.seteuid(65534)
        with pytest.raises(UnreadableFile, match=rf"{name}: cannot be read \(Permission denied\)"):
            ask()
    finally:
        os.seteuid(os.getuid())
        RunPaths.of("one").trial(TRIAL).root.chmod(0o755)


def test_runs_without_a_shared_item_have_nothing_to_compare(copy):
    started("apart", right_up_to(1, 1), items=[closed(number) for number in range(50, 60)])
    with pytest.raises(UsageError, match="share no item"):
        comparing.compare("one", "apart")


def test_the_default_condition_is_the_trials_own_first_treatment(copy):
    """It was once that of the first prompt set, whichever the trial uses."""
    texts = {
        "short": {"control": "Be brief.", "terse": "Be terse."},
        "long": {"control": "Tell.", "wordy": "Tell all."},
    }
    sets = {name: {key: {"text": text} for key, text in prompts.items()} for name, prompts in texts.items()}
    started("sets", right_up_to(3, 6), prompt_sets=sets)
    assert em(comparing.compare("one", "sets:model-a-long"))["n_pairs"] == 12
    assert em(comparing.compare("sets:model-a-long:wordy", "sets:model-a-short:terse"))["delta_mean"] == 0


def three(rid, models=("lab/model-a",)):
    """A run with two treatments, of which the first changes nothing."""

    def answer(request, row):
        right = int(request.item_id[1:]) <= {"control": 3, "brief": 3, "loud": 6}[request.condition]
        return row["answers"][0] if right else "wrong"

    return started(rid, answer, treatments=("brief", "loud"), models=models)


def test_which_of_several_treatments_was_taken_is_said(copy):
    """Of a trial with two treatments the first was taken without a word."""
    three("m", models=("lab/model-a", "lab/model-b"))
    document = comparing.compare("m:model-a-set", "m:model-b-set:loud")
    assert (document["control"], document["treatment"]) == ("m:model-a-set:brief", "m:model-b-set:loud")
    said = next(comparing.compare_text(document))
    assert said == "m:model-b-set:loud minus m:model-a-set:brief, paired on shared items"
    assert em(document)["delta_mean"] == 0.25
    assert schema.problems_in(jsonl.dumps(document), "significance.schema") == []
    assert comparing.compare("one", "m:model-a-set")["treatment"] == "m:model-a-set:brief"
    assert comparing.compare("one", "m:model-a-set")["control"] == "one", "it has one treatment only"


# --- power ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("omega2", "sigma2", "samples", "items"),
    [(1 / 9, 0, 1, 969), (1 / 9, 1 / 6, 1, 3876), (1 / 9, 1 / 6, 10, 1260)],  # Miller 2024, arXiv:2411.00640
)
def test_items_needed_are_those_published(omega2, sigma2, samples, items):
    planned = comparing.power_from_variances(omega2, sigma2, Wanted(deltas=[0.03]))
    row = next(row for row in planned["by_samples"] if row["samples"] == samples)
    assert row["items_needed"] == {"0.03": items}
    assert row["requests_needed"] == {"0.03": 2 * samples * items}


@pytest.mark.parametrize(("samples", "effect"), [(1, 0.1327), (10, 0.0757)])  # the same paper, 198 items
def test_what_items_can_show_is_what_is_published(samples, effect):
    planned = comparing.power_from_variances(1 / 9, 1 / 6, Wanted(items=198, requests=2 * samples * 198))
    row = next(row for row in planned["by_samples"] if row["samples"] == samples)
    assert row["detectable"] == pytest.approx(effect, abs=5e-5)
    assert row["affordable_items"] == 198
    assert row["detectable_within_budget"] == row["detectable"]


def test_a_pilots_variance_is_that_of_its_deltas():
    """Run `one`: 3 of 12 deltas are 1. With one sample an item, more samples cannot be planned for."""
    planned = comparing.power_from_pilot("one", None, None, "em", Wanted())
    assert planned["total_variance"] == pytest.approx(12 / 11 * 0.25 * 0.75)
    one, two = planned["by_samples"][:2]
    assert one["items_needed"]["0.05"] == 643  # ceil(2.8016^2 * 0.204545 / 0.05^2)
    assert two["items_needed"]["0.05"] is None
    assert any("one_sample" in warning for warning in planned["warnings"])
    text = list(comparing.power_text(planned))
    assert text[0] == "by em in one at temperature 0, closed questions"
    assert text[3].split() == ["1", "16,055", "4,014", "643"]
    assert text[4].split() == ["2", "-", "-", "-"]
    assert text[-1] == "warning: one_sample: with one sample per item the variance within items cannot be told apart"


def test_samples_that_never_differ_are_said_to_be_no_help():
    text = "\n".join(
        comparing.power_text(comparing.power_from_pilot("many:model-a-set", "0.0", "closed", "em", Wanted()))
    )
    assert "more samples change nothing" in text


def test_a_pilot_without_any_difference_is_not_said_to_need_fewer_samples(copy):
    """Nothing can be planned from it, and only the reason is said."""
    started("same", right_up_to(3, 3))
    text = "\n".join(comparing.power_text(comparing.power_from_pilot("same", None, None, "em", Wanted())))
    assert "warning: zero_variance: " in text
    assert "more samples" not in text


def test_money_buys_requests_at_the_pilots_price():
    costs = jsonl.read_document(RunPaths.of("one").trial(TRIAL).costs)
    per_request = costs["usd_per_request"]
    assert per_request == pytest.approx(costs["usd"] / costs["usage_records"], abs=1e-6)
    planned = comparing.power_from_pilot("one", None, None, "em", Wanted(usd=1000.5 * per_request))
    assert planned["by_samples"][0]["affordable_items"] == 500
    assert planned["usd_per_request"] == per_request
    assert any(line.startswith("a request costs $0.") for line in comparing.power_text(planned))


def test_the_pilots_treatment_is_the_one_that_is_named(copy):
    """It was the first one, whatever the name said."""

    def answer(request, row):
        return (
            row["answers"][0] if int(request.item_id[1:]) <= {"control": 3, "a": 3, "b": 6}[request.condition] else ""
        )

    started("three", answer, treatments=("a", "b"))
    planned = comparing.power_from_pilot("three:model-a-set:b", None, None, "em", Wanted())
    assert planned["total_variance"] == pytest.approx(0.25 * 0.75 * 12 / 11)
    assert comparing.power_from_pilot("three", None, None, "em", Wanted())["total_variance"] == 0
    with pytest.raises(UsageError, match=r"no treatment c(.|\n)*it has: a, b"):
        comparing.power_from_pilot("three:model-a-set:c", None, None, "em", Wanted())


def test_the_plan_says_which_of_several_treatments_it_is_made_by(copy):
    three("m")
    planned = comparing.power_from_pilot("m", None, None, "em", Wanted())
    assert planned["pilot"] == f"m:{TRIAL}:brief"
    assert next(comparing.power_text(planned)).startswith(f"by em in m:{TRIAL}:brief at temperature 0")
    assert comparing.power_from_pilot("one", None, None, "em", Wanted())["pilot"] == "one"


def test_a_pilot_of_one_cluster_tells_nothing(copy):
    """Its items were planned by as if they were independent."""
    passage = {"cluster": "all", "is_unanswerable": False, "answers": ["gold"]}

    def answer(request, row):
        return "gold" if request.condition != "control" and int(request.item_id[1:]) % 2 else "wrong"

    started("single", answer, items=[open_book(number, **passage) for number in range(1, 41)])
    planned = comparing.power_from_pilot("single", None, None, "em", Wanted())
    assert set(planned["by_samples"][0]["items_needed"].values()) == {None}
    assert "warning: one_cluster: fewer than two clusters have no spread between them" in comparing.power_text(planned)


def test_one_item_shows_nothing():
    planned = comparing.power_from_variances(0.1, 0, Wanted(items=1, requests=3))
    assert [planned["by_samples"][0][key] for key in ("detectable", "detectable_within_budget")] == [None, None]
    assert planned["warnings"][0].startswith("one_pair: ")


def test_the_most_that_can_be_asked_for_is_planned():
    """Beyond it the plan ended as a bug: a float was too large, or a division by zero."""
    wanted = Wanted([1e-6], items=10**15 - 1, requests=10**15 - 1)
    assert comparing.power_from_variances(1, 1, wanted)["by_samples"][0]["items_needed"]["1e-06"] > 10**12


def test_clusters_need_more_items(copy):
    answers = {"is_unanswerable": False, "answers": ["gold"]}
    questions = [open_book(number, cluster=f"passage {number // 5}", **answers) for number in range(1, 41)]

    def by_passage(request, row):
        return "gold" if request.condition != "control" and int(request.item_id[1:]) // 5 % 2 else "wrong"

    started("clustered", by_passage, items=questions)
    planned = comparing.power_from_pilot("clustered", None, None, "em", Wanted())
    assert planned["design_effect"] > 3
    assert "clusters multiply items by" in list(comparing.power_text(planned))[1]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: comparing.power_from_pilot("one", "3", None, "em", Wanted()), "it has: 0"),
        (lambda: comparing.power_from_pilot("one", "warm", None, "em", Wanted()), "is no number"),
        (lambda: comparing.power_from_pilot("one", None, "open", "em", Wanted()), "it has: closed"),
        (lambda: comparing.power_from_pilot("one", None, None, "accuracy", Wanted()), "it has: abstain_rate, em"),
        (lambda: comparing.power_from_pilot("many", None, None, "em", Wanted()), "has 2 trials"),
        (lambda: comparing.power_from_variances(-1, 0, Wanted()), "0 or more"),
        (lambda: comparing.power_from_variances(0.1, 0, Wanted(usd=5)), "--requests"),
        (lambda: comparing.power_from_variances(math.nan, 0, Wanted()), "0 or more"),
        (lambda: comparing.power_from_variances(0.1, math.inf, Wanted()), "0 or more"),
        (lambda: comparing.power_from_variances(1e308, 1e308, Wanted()), "at most 1"),
        (lambda: Wanted(items=10**400), "must be a number above 0, and below 1e+15"),
        (lambda: Wanted(usd=1e308), "must be a number above 0, and below 1e+15"),
        (lambda: Wanted(deltas=[1e-300]), "at least 0.000001"),
        (lambda: Wanted(items=0), "--items 0: must be a number above 0"),
        (lambda: Wanted(usd=-1), "--usd -1: must be a number above 0"),
        (lambda: Wanted(usd=math.nan), "--usd nan: must be a number above 0"),
        (lambda: Wanted(usd=math.inf), "--usd inf: must be a number above 0"),
        (lambda: Wanted(deltas=[0.01, 0]), "--delta"),
        (lambda: Wanted(deltas=[math.nan]), "--delta"),
        (lambda: Wanted(deltas=[2]), "two points, say, are 0.02"),
        (lambda: Wanted(requests=1, usd=1), "give one of them"),
    ],
)
def test_what_cannot_be_planned_is_said_with_what_can(ask, words):
    with pytest.raises(UsageError) as caught:
        ask()
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "wanted"), [("significance.json", Wanted()), ("costs.json", Wanted(usd=5))])
@pytest.mark.parametrize("data", ["{}", "[]", '{"results": {}}'])
def test_a_pilots_file_that_is_not_what_its_phase_writes_is_named(copy, name, wanted, data):
    """An emptied object once ended in a KeyError that called itself a bug."""
    (RunPaths.of("one").trial(TRIAL).results / name).write_text(data)
    with pytest.raises(DamagedArtifact, match=f"{name}.* does not fit schemas/"):
        comparing.power_from_pilot("one", None, None, "em", wanted)


def test_a_pilot_of_one_item_is_too_few(copy):
    started("single", right_up_to(0, 1), items=ITEMS[:1])
    with pytest.raises(UsageError, match=r"too few items with em .*: 1"):
        comparing.power_from_pilot("single", None, None, "em", Wanted())


def test_a_pilot_without_prices_buys_nothing(copy):
    started("free", right_up_to(3, 6), prices=None)
    with pytest.raises(UsageError, match="no cost to plan with"):
        comparing.power_from_pilot("free", None, None, "em", Wanted(usd=5))
