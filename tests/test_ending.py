"""The last words of a run: verdict, missing answers and cost, from the files that the reports were made of."""

import re
from types import SimpleNamespace

import pytest
from report_kit import Failure, Filtered, better, closed, make

from pipeline.ending import Ending, ending


def came_to(made, slugs=None):
    work = SimpleNamespace(trial_paths=lambda _slug: made.paths, config=made.config.values)
    return ending(work, slugs or [made.trial.slug])


def test_verdict_missing_answers_and_cost_are_told_by_place(tmp_path):
    def answer(request, row):
        return Failure("over capacity") if request.item_id == "c001" else better(request, row)

    found = came_to(make(tmp_path, answer, temperatures=(0, 0.7)))
    lines = list(found.lines())
    assert lines[0][0].endswith(": right answers with treatment instead of control, in points")
    assert [line.split("  ")[1] for line, _ in lines[1:5]] == [
        f"{kind}-book, temperature {temp}" for kind in ("Open", "Closed") for temp in ("0", "0.7")
    ]
    assert all(tone in ("good", "bad", "open") for _, tone in lines)
    assert [line for line, _ in lines[5:]] == [
        "missing: 4 of 96 answers",
        "cost: no list price for lab/model-a: not counted",
    ]
    assert all(line.isascii() for line, _ in lines)
    assert (found.as_json()["missing"], len(found.as_json()["verdicts"])) == (4, 4)


def test_many_missing_answers_are_written_as_those_asked_for_are():
    """It said "1866 of 5,544"."""
    assert ("missing: 1,866 of 5,544 answers", "bad") in list(Ending((), 5544, 1866, None, (), 0, False).lines())


def test_all_that_count_missing_answers_count_the_same(tmp_path):
    """Answers that a filter took were missing in the report alone: overview and last words said "none of 144"."""

    def answer(request, row):
        if request.item_id == "c001":
            return Failure("over capacity")
        filtered = request.condition == "a" and request.item_id in ("c002", "o003", "o004")
        return Filtered() if filtered or request.item_id == "c003" else better(request, row)

    made = make(tmp_path, answer, treatments=("a", "b"), temperatures=(0, 0.5))
    found = came_to(made)
    missing = 2 * 3 * 2 + 2 * 3  # of c001 and c003 under all conditions, of three others under one
    assert f"missing: {missing} of 144 answers" in [line for line, _ in found.lines()]
    assert (found.as_json()["asked"], found.as_json()["missing"]) == (144, missing)
    made.report()
    made.overview()
    assert f"{missing} requests (12.5%) have no answer" in made.markdown
    for page in (made.run.aggregate_report, made.run.index_html):
        assert re.search(rf"144\D+{missing}\D", page.read_text().partition("Missing")[2])
    assert found.as_json()["uncounted"] == 0  # a filtered answer has its tokens, and a failed request needs none


def test_an_interval_without_width_is_no_certainty(tmp_path):
    """Three questions that did not change ended in "no change, 95% CI 0.0 to 0.0", as if that were known exactly."""
    made = make(tmp_path, lambda *_: "x", items=[closed(number) for number in range(3)])
    (line,) = [line for line, _ in came_to(made).lines() if "no change" in line]
    assert line.split("  ")[1:-1] == ["Closed-book", "no change", "0.0", "95% CI a point: no certainty"]


PRICE = {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}


@pytest.mark.parametrize(
    ("provider", "priced", "expected"),
    [
        ("fireworks", ("lab/a", "lab/b"), r"cost: \$[\d.]+"),
        ("fireworks", ("lab/a",), r"cost: \$[\d.]+ by list price; no list price for lab/b: not counted"),
        ("fireworks", (), r"cost: no list price for lab/a and lab/b: not counted"),
        ("emulator", ("lab/a", "lab/b"), r"cost: \$[\d.]+ by list price; the emulator charges nothing"),
        (
            "emulator",
            ("lab/a",),
            r"cost: \$[\d.]+ by list price; no list price for lab/b: not counted; the emulator charges nothing",
        ),
        ("emulator", (), r"cost: no list price for lab/a and lab/b: not counted; the emulator charges nothing"),
    ],
)
def test_what_has_no_list_price_is_named_and_never_0(tmp_path, provider, priced, expected):
    """An emulated run said "$0.00 by list price" where there was none, and a known sum was withheld beside others."""
    made = make(tmp_path, provider=provider, models=("lab/a", "lab/b"), prices=dict.fromkeys(priced, PRICE))
    work = SimpleNamespace(trial_paths=made.run.trial, config=made.config.values)
    found = ending(work, ["a-set", "b-set"])
    (cost,) = [line for line, _ in found.lines() if line.startswith("cost: ")]
    assert re.fullmatch(expected, cost)
    assert "$0.00" not in cost
    assert (found.as_json()["usd"] is None) is (len(priced) < 2)
    assert found.as_json()["unpriced"] == [name for name in ("lab/a", "lab/b") if name not in priced]


def test_a_trial_whose_tokens_nobody_counted_is_named_and_never_0(tmp_path):
    made = make(tmp_path, provider="fireworks", prices={"lab/model-a": PRICE}, tokens=False)
    found = came_to(made)
    (cost,) = [line for line, _ in found.lines() if line.startswith("cost: ")]
    assert cost == "cost: 48 answers came without token counts: not counted"
    assert (found.as_json()["usd"], found.as_json()["uncounted"]) == (None, 48)
    made.report()
    assert "No answer came with token counts, so the cost is not known; it is not 0." in made.markdown
    made.overview()
    overview = made.run.aggregate_report.read_text()
    assert f"Without token counts, so not in what they cost: 48 answers of {made.trial.slug}." in overview
    assert "No list price" not in overview


def test_answers_without_token_counts_beside_others_are_said_too(tmp_path):
    """A condition nobody had counted was left out of the sum, without a word."""
    prices = {"lab/model-a": PRICE}
    made = make(tmp_path, provider="fireworks", prices=prices, tokens=lambda request: request.condition != "control")
    found = came_to(made)
    (cost,) = [line for line, _ in found.lines() if line.startswith("cost: ")]
    assert re.fullmatch(r"cost: \$[\d.]+ by list price; 24 answers came without token counts: not counted", cost)
    assert (found.as_json()["usd"], found.as_json()["uncounted"]) == (None, 24)


def test_of_many_trials_each_has_one_line_best_first(tmp_path):
    made = make(tmp_path, treatments=("a", "b"), temperatures=(0, 0.5))
    lines = [line for line, _ in came_to(made, [f"m-{number}" for number in range(7)]).lines()]
    assert lines[0].endswith("best first")
    assert [line.split()[:2] for line in lines[1:4]] == [["m-0", "a"], ["m-0", "b"], ["m-1", "a"]]
    assert "better" in lines[1]
    assert lines[11] == "  and 4 more"


def test_a_treatment_without_a_difference_is_last_with_a_dash(tmp_path):
    """Its mean was told as "-inf" points."""
    made = make(
        tmp_path,
        lambda request, row: Failure("x") if request.condition == "a" else better(request, row),
        items=[closed(number) for number in range(3)],
        treatments=("a", "b"),
        temperatures=[number / 10 for number in range(13)],
    )
    lines = [line for line, _ in came_to(made).lines()]
    assert [line.split()[1:3] for line in lines[1:3]] == [["b", "+33.3"], ["a", "-"]]


def test_the_earlier_tools_results_have_no_verdict_here(tmp_path):
    made = make(tmp_path)
    made.paths.significance.write_text('{"0.0": {"mcnemar": {"b": 1, "c": 0}}}')
    assert came_to(made).asked == 0
