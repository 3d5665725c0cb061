"""The report: what it says, that it says the same each time, and that nothing in it can act."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from report_kit import EVIL, Failure, Filtered, Made, better, closed, hostile_run, make, open_book

from pipeline import custom_id, jsonl
from pipeline.custom_id import RequestId
from pipeline.errors import DamagedArtifact
from pipeline.phases.costs import costs
from pipeline.plain import visible
from pipeline.report import plot, text
from pipeline.report.model import read
from pipeline.report.overview import Entry, ranked
from pipeline.report.verdict import Verdict, judge
from pipeline.version import VERSION

# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make(tmp_path_factory.mktemp("plain"), items=[*map(closed, range(40)), *map(open_book, range(40))])
    made.report()
    made.overview()
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every text that comes from outside is hostile: answers, errors, questions, passages, golds, names."""
    made = hostile_run(tmp_path_factory.mktemp("hostile"))
    made.report()
    made.overview()
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two treatments, two temperatures, several data sets (one without F1), missing answers, two trials, prices."""
    items = [closed(i, dataset=f"set {'ab'[i % 2]}", benchmark=("nq_open", "triviaqa")[i % 2]) for i in range(20)]
    items += [open_book(i, dataset=f"open {'xy'[i % 2]}") for i in range(20)]

    def answer(request: Any, row: dict[str, Any]) -> Any:
        number = int(row["id"][1:])
        if request.condition == "cot" and number % 10 == 7:
            return Failure("engine overloaded")
        if request.sample_index == 2 and number % 10 == 3:
            return "maybe"
        return better(
            request._replace(condition="control") if request.condition == "cot" and number % 3 else request, row
        )

    made = make(
        tmp_path_factory.mktemp("large"),
        answer,
        items=items,
        treatments=("brief", "cot"),
        temperatures=(0, 0.25),
        samples=3,
        models=("lab/a", "lab/b"),
        statistics={"alpha": 0.01, "margins": {"em": 0.1}},
        prices={"lab/a": {"input_per_mtok": 1.0, "output_per_mtok": 2.0}},
    )
    made.report()
    made.overview()
    return made


@pytest.fixture
def undrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a run whose figures are blank: drawing takes longer than all the rest, and its test reads words."""
    monkeypatch.setattr(plot, "draw", lambda name, *_: f'<svg xmlns="http://www.w3.org/2000/svg" id="{name}"></svg>')
    return tmp_path


# --- numbers as text -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.percent(0.27058), "27.1%"),
        (text.percent(None), "–"),
        (text.points(0.1294), "+12.9"),
        (text.points(-0.0004), "0.0"),
        (text.points(-0.355), "−35.5"),
        (text.points(None), "–"),
        (text.points_span([-0.004, 0.218]), "−0.4 to +21.8"),
        (text.number_span([2.51, None], 2), "2.51 to ∞"),
        (text.p_cell(0.00001), "<0.0001"),
        (text.p_cell(1.0), "1.0000"),
        (text.p_cell(None), "–"),
        (text.usd(None), "–"),
        (text.usd(0.0), "$0.00"),
        (text.usd(0.6), "$0.60"),
        (text.usd(1234.5), "$1,234.50"),
        (text.usd(0.022639), "$0.0226"),
        (text.usd(0.000024), "$0.000024"),
        (text.usd(0.000005), "$0.000005"),
        (text.usd(4.561e-06), "$0.0000046"),
        (text.usd(6.85e-07), "$0.00000069"),
        (text.usd(9.999e-08), "$0.00000010"),
        (text.listed(["a", "b", "c"]), "a, b and c"),
        (visible("a\x1b[0m\u202eb\r\n\tc"), "a\\x1b[0m\\u202eb\\r\n\tc"),
    ],
)
def test_numbers_and_controls_are_shown_so(shown: str, expected: str) -> None:
    assert shown == expected


# --- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "direction", "p", "q", "tost", "expected"),
    [
        (0.1, "higher", 0.001, 0.004, None, Verdict.BETTER),
        (-0.1, "higher", 0.001, 0.004, None, Verdict.WORSE),
        (-0.1, "lower", 0.001, 0.004, None, Verdict.BETTER),
        (0.1, "lower", 0.001, 0.004, None, Verdict.WORSE),
        (0.1, "neutral", 0.001, 0.004, None, Verdict.MORE),
        (-0.1, "neutral", 0.001, 0.004, None, Verdict.FEWER),
        (0.1, "higher", 0.03, 0.2, None, Verdict.HINT_BETTER),
        (0.1, "lower", 0.03, 0.2, None, Verdict.HINT_WORSE),
        (0.1, "neutral", 0.03, 0.2, None, Verdict.HINT),
        (0.01, "higher", 0.6, 0.9, (True, True), Verdict.EQUIVALENT),
        (0.01, "higher", 0.6, 0.9, (True, False), Verdict.NOT_WORSE),
        (0.01, "higher", 0.6, 0.9, (False, False), Verdict.UNCLEAR),
        (0.01, "higher", 0.6, 0.9, (None, None), Verdict.UNCLEAR),
        (0.01, "higher", 0.6, 0.9, None, Verdict.UNCLEAR),
        (0.01, "higher", 0.05, 0.05, None, Verdict.UNCLEAR),
        (0.0, "higher", 1.0, 1.0, None, Verdict.SAME),
        (None, "higher", None, None, None, Verdict.NONE),
        (0.1, "higher", 0.001, None, None, Verdict.NONE),
    ],
)
def test_a_difference_is_judged(
    delta: float | None, direction: str, p: float | None, q: float | None, tost: Any, expected: Verdict
) -> None:
    metric = {
        "delta_mean": delta,
        "direction": direction,
        "primary": {"p_value": p, "q_value": q},
        "wins": int(bool(delta)),
        "losses": 0,
    }
    test = tost and {"non_inferior": tost[0], "equivalent": tost[1]}
    assert judge(metric, test, 0.05) is expected


def test_the_verdict_comes_first_with_interval_p_q_and_n(plain: Made) -> None:
    first = plain.markdown.split("## ")[1]
    assert first.startswith("Verdict")
    assert "With treatment instead of control: on open-book questions, more right answers (+" in first
    assert re.search(r"points \(95% CI \+[\d.]+ to \+[\d.]+, p\s<\s0\.001, q\s[<=]\s0\.\d+\), over 40 questions", first)
    assert re.search(r"\d+ won, \d+ lost, \d+ tied", first)


def test_one_comparison_has_its_interval_and_p_in_the_first_sentence(plain: Made) -> None:
    lead = plain.markdown.partition("## Verdict")[2].strip().splitlines()[0]
    assert re.search(r"more right answers \(\+[\d.]+ points, 95% CI \+[\d.]+ to \+[\d.]+, p\s<\s0\.001, q", lead)


def test_the_verdict_of_a_row_is_not_the_column_that_a_narrow_screen_cuts_off(plain: Made) -> None:
    assert "| Metric | Verdict | Difference | 95% CI | p | q | control |" in plain.markdown


def test_what_is_the_same_is_said_once(undrawn: Path) -> None:
    """Three temperatures without any change took a paragraph of zeros."""
    made = make(undrawn, lambda request, row: "x", items=[*map(open_book, range(9))], temperatures=(0, 0.3, 0.7))
    made.report()
    assert "Open-book, false answers: no change.** At temperature 0, 0.3 and 0.7: 100.0% with both" in made.markdown
    assert "0.0% right with both, over 9 questions in 5 paragraphs. Every question came out the same." in made.markdown


def test_a_long_table_is_folded_away(plain: Made, large: Made) -> None:
    assert re.search(r"<summary>Effect sizes: \d\d rows</summary>", large.markdown)
    assert "<summary>Effect sizes" not in plain.markdown


def test_verdicts_that_differ_between_temperatures_are_each_named(undrawn: Path) -> None:
    """ "Better" at one temperature and "unclear" or the same at another was once called "mixed", as if they clashed."""

    def answer(request: Any, row: dict[str, Any]) -> str:
        abstains = request.condition == "treatment" and request.temp == "0.7"
        return "I don't know" if abstains else "something else"

    made = make(undrawn, answer, items=[*map(open_book, range(40))], temperatures=(0, 0.25, 0.7))
    made.report()
    assert "**Open-book, false answers: no change at temperature 0 and 0.25, better at 0.7.** " in made.markdown
    assert "**Open-book, abstentions: no change at temperature 0 and 0.25, more at 0.7.** " in made.markdown


def test_the_emulator_s_answers_are_called_that(undrawn: Path) -> None:
    made = make(undrawn, provider="emulator")
    made.report()
    assert "No language model was asked" in made.markdown
    assert "No language model was asked" in made.html


def test_the_methods_of_an_emulated_run_cannot_be_copied_as_if_a_model_had_been_asked(
    undrawn: Path, plain: Made
) -> None:
    """ "We asked MODEL 24 questions" was offered for a paper although nobody had asked any model."""
    made = make(undrawn, provider="emulator")
    made.report()
    methods = made.markdown.partition("Methods, ready to adapt")[2].partition("```text\n")[2]
    assert methods.startswith("[No model was asked: the emulator stood in for lab/model-a, ")
    assert "Model lab/model-a (not asked: the emulator stood in for it), prompt set" in made.markdown
    assert "the emulator" not in plain.markdown.partition("How to cite and reproduce")[2]


def test_missing_answers_are_counted_and_bounded(large: Made) -> None:
    assert "engine overloaded" in large.markdown
    assert re.search(
        r"0 answers of control and 6 of cot are missing .* would be .\d+\.\d points; all for it", large.markdown
    )
    assert "| Open-book | 0 | cot | 60 | 54 | 6 | 0 |" in large.markdown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            lambda request: f"no answer is recorded for item {request.item_id!r} of {request.condition!r}",
            {"no answer is recorded for item '…' of 'control'": 3, "no answer is recorded for item '…' of 'cot'": 3},
        ),
        (
            lambda r: f"{r.item_id}: HTTP {503 if r.condition == 'cot' else 500}, request 0a{ord(r.item_id[-1])}",
            {"…: HTTP 500, request …": 3, "…: HTTP 503, request …": 3},
        ),
        (lambda request: "gpt-oss-120b is overloaded, error 7", {"gpt-oss-120b is overloaded, error 7": 6}),
        (lambda request: f"lost {custom_id.join(request)}", {"lost …": 6}),
    ],
)
def test_missing_answers_are_counted_by_their_reason(undrawn: Path, said: Any, shown: dict[str, int]) -> None:
    """One line an item id, and then "other reasons 1,900", told nothing."""
    names = ["who wrote it", "where-is-it", "o-3"]  # not every id holds a digit
    items = [closed(number, id=name) for number, name in enumerate([*names, "answered"])]

    def answer(request: RequestId, row: Any) -> Any:
        return "x" if request.item_id == "answered" else Failure(said(request))

    made = make(undrawn, answer, items=items, treatments=("cot",))
    made.report()
    table = made.markdown.partition("Why answers are missing")[2].partition("###")[0]
    rows = re.findall(r"^\| `500: (.+)` \| (\d+) \|$", table, re.MULTILINE)
    assert {text: int(times) for text, times in rows} == shown
    assert ("differs from message to message" in table) is ("…" in "".join(shown))


def test_each_mean_stands_between_its_bounds(large: Made, plain: Made) -> None:
    """Only the difference in EM was bounded, in a sentence."""
    document = jsonl.read_document(large.paths.significance)
    block = document["contrasts"]["cot"]["results"]["0"]["open"]
    table = large.markdown.partition("Open-book, temperature 0: what missing answers could change")[2]
    for name, shown in (("em", "EM"), ("abstain_rate", "Abstain"), ("false_answer_rate", "False-Ans")):
        metric = block["metrics"][name]
        ends = {
            of: [metric[f"bounds_{of}"][end] for end in ("worst", "best")] for of in ("control", "treatment", "delta")
        }
        missing = metric["n_missing_samples"]
        cells = (
            shown, missing["control"], missing["treatment"],
            text.percent(metric["mean_control"]), text.percent_span(ends["control"]),
            text.percent(metric["mean_treatment"]), text.percent_span(ends["treatment"]),
            text.points(metric["delta_mean"]), text.points_span(ends["delta"]),
        )  # fmt: skip
        assert f"| {' | '.join(map(str, cells))} |" in table
    assert "what missing answers could change" not in plain.markdown


def test_nothing_is_promised_of_data_that_can_show_nothing(undrawn: Path) -> None:
    """Of one passage, p is 1 whatever happens; "23 points would have been found" was said of it all the same."""
    shared = {"cluster": "one", "context": "The passage.", "is_unanswerable": False, "answers": ["gold"]}
    cases = {
        "passage": [open_book(i, **shared) for i in range(1, 41)],
        "two": [closed(1), closed(2)],
        "one": [closed(1)],
    }
    runs, said = {}, {}
    for name, items in cases.items():
        (undrawn / name).mkdir()
        runs[name] = make(undrawn / name, items=items)
        runs[name].report()
        said[name] = runs[name].markdown.partition("## Verdict")[2].partition("<details>")[0]
    assert "all questions share one paragraph, so there is nothing to test and no interval." in said["passage"]
    assert "(no interval, p" in said["passage"]
    assert "No difference was shown, and none was ruled out.\n" in said["passage"]
    document = jsonl.read_document(runs["passage"].paths.significance)
    power = document["results"]["0"]["open"]["metrics"]["em"]["power"]
    assert (power["design_effect"], power["mde"], power["mde_t"]) == (None, None, None)
    assert "So few questions could hardly have shown any difference." in said["two"]
    assert "1 question is few" in said["one"]
    assert "A true difference of" not in "".join(said.values())


def test_what_so_few_paragraphs_cannot_show_is_told(undrawn: Path) -> None:
    """Of 7 paragraphs no p is below 2/2^7: 75 points were called a hint, as if the difference were too small."""

    def answer(request: Any, row: dict[str, Any]) -> str:
        number = int(request.item_id[1:])
        if request.temp == "0":
            return "wrong" if request.condition == "treatment" or number % 4 == 0 else row["answers"][0]
        return row["answers"][0] if (number + 7 * (request.condition == "control")) % 5 else "wrong"

    def told(paragraphs: int, temperatures: tuple[float, ...]) -> str:
        folder = undrawn / f"{paragraphs} {len(temperatures)}"
        folder.mkdir()
        shared = {"is_unanswerable": False, "answers": ["gold"]}
        items = [open_book(i, cluster=f"p{i % paragraphs}", **shared) for i in range(40)]
        made = make(folder, answer, items=items, temperatures=temperatures)
        made.report()
        return made.markdown.partition("## Verdict")[2].partition("<details>")[0]

    seven = told(7, (0, 0.3, 0.5, 0.7))
    assert "Alone this would count; among 8 tests it does not; with 7 paragraphs none could." in seven
    assert (
        "with 7 paragraphs p cannot be below 0.016, so no difference, however large, can pass the correction for 8 "
        "tests as the others came out." in seven
    )
    assert "With 7 paragraphs none could have been shown." in seven
    assert "A true difference of" not in seven
    five = told(5, (0,))
    assert "with 5 paragraphs p cannot be below 0.062, so no difference, however large, can count." in five
    for enough in (told(10, (0, 0.3, 0.5, 0.7)), told(7, (0,))):
        assert "cannot be below" not in enough
        assert ": worse.** 0.0% right" in enough


def test_a_point_is_no_certainty(undrawn: Path) -> None:
    made = make(undrawn, lambda request, row: "x", items=[*map(closed, range(35))])
    made.report()
    made.overview()
    assert "all questions differ by the same, so the interval is a point. That is no certainty." in made.markdown
    assert "Where an interval is a point, all questions or clusters" in made.run.aggregate_report.read_text()


def test_without_a_variance_equivalence_is_not_tested_and_the_row_says_so(undrawn: Path) -> None:
    """An interval from 0.0 to 0.0 lay within the margin, "the interval decides" was said, the verdict was a dash."""
    made = make(undrawn, lambda request, row: "x", items=[*map(closed, range(3))], statistics={"margins": {"em": 0.02}})
    made.report()
    assert "| EM | ±2.0 | 0.0 | 0.0 to 0.0 | – | – | not tested: no variance |" in made.markdown
    assert "it is a point, no certainty, and nothing is tested" in made.markdown


def test_clusters_that_do_not_vary_are_no_certainty(undrawn: Path) -> None:
    """Each passage had one question won and one lost: an interval from 0.0 to 0.0 stood there without a remark."""

    def answer(request: Any, row: dict[str, Any]) -> str:
        right = (int(request.item_id[1:]) // 25 == 0) == (request.condition == "control")
        return row["answers"][0] if right else "wrong"

    shared = {"is_unanswerable": False, "answers": ["gold"]}
    made = make(undrawn, answer, items=[open_book(i, cluster=f"p{i % 25}", **shared) for i in range(50)])
    made.report()
    assert "all paragraphs differ by the same, so the interval is a point. That is no certainty." in made.markdown


def test_a_design_effect_below_1_is_planned_with_as_1_and_that_is_said(undrawn: Path) -> None:
    """The report had 1.00 where `cluster.design_effect` was 0.66, and nothing told why."""
    made = make(undrawn, items=[open_book(i, is_unanswerable=False, answers=["gold"]) for i in range(60)])
    made.report()
    em = jsonl.read_document(made.paths.significance)["results"]["0"]["open"]["metrics"]["em"]
    assert em["cluster"]["design_effect"] < 1 == em["power"]["design_effect"]
    assert "Design effect: by how much shared clusters multiply them, taken as at least 1." in made.markdown
    page = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text()
    assert "`power.design_effect` (Miller 2024): `cluster.design_effect`, but at least 1" in page


def test_a_few_clusters_that_hold_most_questions_are_told(undrawn: Path, plain: Made) -> None:
    made = make(undrawn, items=[open_book(i, cluster=f"passage {max(0, i - 30)}") for i in range(60)])
    made.report()
    remark = "a few of the 30 paragraphs hold most of the questions; intervals are shorter than they should be."
    assert remark in made.markdown
    assert "hold most of the questions" not in plain.markdown


def test_no_answer_at_all_is_not_a_zero(undrawn: Path) -> None:
    """A condition without any response has no score, no difference and no verdict."""
    made = make(undrawn, lambda request, row: Failure("down") if request.condition == "treatment" else "gold 1")
    made.report()
    assert "not defined" in made.markdown
    first = made.markdown.partition("## Verdict")[2].partition("## ")[0]
    assert "No question was answered with both treatment and control, so there is nothing to compare." in first
    assert "ndefined" not in first
    assert "| EM | not defined | – | – | – | – | – | – | – | – | 0 |" in made.markdown
    assert "no question was answered in both conditions" in made.html


def test_equivalence_is_shown_with_the_interval_that_decides_it(large: Made) -> None:
    """The verdict is at alpha = 0.01, beside which a 90% interval once stood that lay within the margin."""
    test = jsonl.read_document(large.paths.significance)["results"]["0"]["open"]["tost"]["em"]
    assert "| 98% CI |" in large.markdown
    assert re.search(rf"\| EM \| ±10\.0 \| [^|]+ \| {re.escape(text.points_span(test['ci']))} \|", large.markdown)
    assert text.points_span(test["ci"]) != text.points_span(test["ci_90"])


# --- cells that do not apply, and blocks that are absent ---------------------------------------------


def test_what_does_not_apply_is_a_dash(plain: Made, large: Made) -> None:
    for page in (plain.markdown, plain.html, large.markdown, large.html):
        assert not re.search(r"\bNone\b(?!\.)|\bnan\b|\binf\b", page)
    assert "No list price for `lab/model-a` under prices.models: not counted. What was paid is not" in plain.markdown
    assert re.search(r"\| all \| 160 \| 0 \|.*\| – \|", plain.markdown)


def test_a_model_without_a_list_price_costs_no_0_dollars(undrawn: Path) -> None:
    """Emulated, it stood at $0.00 beside another's example price, in its report and in the overview."""
    price = {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}
    made = make(undrawn, provider="emulator", models=("lab/b", "lab/a"), prices={"lab/a": price})
    made.report()
    made.overview()
    assert "No list price for `lab/b` under prices.models: not counted. The emulator charges nothing." in made.markdown
    assert "$0.00" not in made.markdown
    sent = made.run.aggregate_report.read_text().partition("What was sent")[2].partition("## ")[0]
    assert re.search(r"\| b-set \| `lab/b` \| `set` \| 48 \| 0 \| – \|", sent)
    assert re.search(r"\| a-set \| `lab/a` \| `set` \| 48 \| 0 \| \\\$[\d.]+ \|", sent)
    assert "No list price for `lab/b`: not counted." in sent


def test_discounts_are_said_as_they_are_counted(undrawn: Path) -> None:
    """12.5% off was "12%", and 99.6% was all."""
    made = make(undrawn, prices={"lab/model-a": {"input_per_mtok": 1.0, "output_per_mtok": 2.0}})
    document = jsonl.read_document(made.paths.costs)
    document["pricing"] |= {"batch_discount": 0.125, "cached_discount": 0.996}
    made.paths.costs.write_bytes(jsonl.dumps_pretty(document))
    made.report()
    assert "12.5% off for batch mode, 99.6% more off cached input." in made.markdown


def test_an_unpriced_row_is_counted(undrawn: Path) -> None:
    made = make(undrawn, tokens=False)
    made.report()
    assert "| all | 0 | 48 | 0 | 0 | 0 | 0 | – |" in made.markdown
    assert "There are no token histograms" in made.markdown
    assert not (made.paths.figures / "tokens.svg").exists()


def test_unpriced_answers_leave_the_price_of_a_question_and_of_a_gain_open(undrawn: Path) -> None:
    """Half of the control's answers counted as $0: a question cost half of it, and a gain three times what it did."""
    price = {"lab/model-a": {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}}
    made = make(undrawn, samples=2, prices=price, tokens=lambda r: (r.condition, r.sample_index) != ("control", 0))
    made.report()
    section = made.markdown[made.markdown.index("## Cost-Effectiveness") :]
    rows = [line for line in section.splitlines() if line.startswith(("| control | 24 |", "| treatment | 24 |"))]
    assert [row.endswith("| – | – |") for row in rows] == [True, False]
    assert (
        "24 answers under control came without token counts: what they cost is not known, so nor is the price of a "
        "question or of a gain there."
    ) in made.markdown
    assert "A price per point needs a list price, the token counts of every answer and scores" in made.markdown


def test_a_gain_is_one_over_the_same_questions(undrawn: Path) -> None:
    """Its control having failed on easy questions, a treatment that gained nothing had a price per point gained."""

    def answer(request: RequestId, row: dict[str, Any]) -> str | Failure:
        number = int(row["id"][1:])
        if number <= 10 and request.condition == "control":
            return Failure("overloaded")
        return row["answers"][0] if number <= 20 else "something else"

    price = {"lab/model-a": {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}}
    made = make(undrawn, answer, items=[*map(closed, range(1, 31))], prices=price)
    made.report()
    costs = made.markdown[made.markdown.index("What a gain costs") :]
    (shown,) = re.findall(r"\| treatment − control \| 0 \| (.*) \|", costs)
    extra, share, gained, each = shown.replace("\\", "").split(" | ")
    assert (gained, each) == ("0.0", "–")
    # `treatment` is two letters longer than `control` in every id, and each letter a token to the kit.
    assert (float(extra.removeprefix("$")), share) == (pytest.approx(30 * 0.5 * 2 * 1000 / 1e6), "3.6%")
    assert "10 requests came without token counts; so that this makes no condition cheaper, each is" in costs


def test_what_the_content_filter_stopped_is_told_one_way(undrawn: Path) -> None:
    """It had "no response", was among the answers that were paid for, and cost nothing that did not count."""
    price = {"lab/model-a": {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}}

    def answer(request: RequestId, row: dict[str, Any]) -> str | Filtered:
        return Filtered() if int(row["id"][1:]) == 2 else better(request, row)

    made = make(undrawn, answer, items=[*map(closed, range(1, 4))], prices=price)
    made.report()
    told = made.markdown.replace("\\", "")
    assert "2 requests (33.3%) have no answer; left out, not scored 0." in told
    assert "for 6 requests, at $1,000.00 per million input tokens" in told
    assert "| `stopped by the content filter (finish_reason content_filter)` | 2 |" in told
    each = {
        name: (20 + len(f"trivia|c002|{name}|0|0|closed")) * 0.5 / 1000 + 0.001 for name in ("control", "treatment")
    }
    assert f"| spent on rows that do not count | at least ${sum(each.values()):.4f} |" in told
    counting = jsonl.read_document(made.paths.costs)["usd"] - sum(each.values())
    assert f"| the rows that count | ${counting:.4f} |" in told
    assert re.search(r"\| Part \| Rows \| With a response \| Failed \|", told)


def test_a_margin_is_said_as_it_was_tested_and_power_of_the_test_alone(undrawn: Path) -> None:
    """0.25 points were "±0.2", stronger than what was tested; of a corrected test the power was promised, "100%"."""

    def answer(request: RequestId, row: dict[str, Any]) -> str:
        return "wrong" if int(row["id"][1:]) <= 4 and request.condition == "control" else row["answers"][0]

    made = make(
        undrawn,
        answer,
        items=[*map(closed, range(1, 3001))],
        statistics={"margins": {"em": 0.0025}, "power": 0.999, "target_deltas": [0.0004]},
        report={"examples": 0},
    )
    made.report()
    assert "By two one-sided tests at alpha 0.05 the difference lies within ±0.25 points." in made.markdown
    assert "| Closed-book | EM | ±0.25 | +0.1 |" in made.markdown
    assert "with which 99.9% of such runs would have p < 0.05, not corrected for other tests" in made.markdown
    assert "| n for 0.04 |" in made.markdown


def test_what_such_runs_would_find_is_of_the_test_before_its_correction(undrawn: Path) -> None:
    def answer(request: RequestId, row: dict[str, Any]) -> str:
        changed = {1: "control", 2: "treatment", 3: "treatment"}.get(int(row["id"][1:]))
        return row["answers"][0] if changed in (None, request.condition) else "wrong"

    made = make(undrawn, answer, items=[*map(closed, range(1, 41))])
    made.report()
    told = r"A true difference of [\d.]+ points or more would have p < 0\.05 in 80% of such runs, before the correction"
    assert re.search(told, made.markdown)


def test_a_difference_below_the_default_margin_was_called_small_by_nobody(undrawn: Path) -> None:
    def answer(request: RequestId, row: dict[str, Any]) -> str:
        number = int(row["id"][1:])
        right = number > 1000 or (request.condition == "treatment" and number <= 15)
        return row["answers"][0] if right else "wrong"

    made = make(undrawn, answer, items=[*map(closed, range(1, 2001))], report={"examples": 0})
    made.report()
    assert "So treatment gives more right answers, by less than the margin of ±2.0 points." in made.markdown


def test_a_few_clusters_that_differ_are_not_called_questions(undrawn: Path) -> None:
    items = [open_book(i, cluster=f"p{i % 25}", is_unanswerable=False, answers=[f"gold {i}"]) for i in range(1, 101)]

    def answer(request: RequestId, row: dict[str, Any]) -> str:
        return row["answers"][0] if request.condition == "treatment" and row["cluster"] == "p0" else "wrong"

    made = make(undrawn, answer, items=items)
    made.report()
    assert "Open-book: a few paragraphs differ much more than the others, all the same way" in made.markdown


def test_no_interval_is_made_elsewhere_where_there_is_none(undrawn: Path) -> None:
    """ "Elsewhere they are t intervals" was the interval of false answers, which no question there can have."""
    items = [open_book(i, cluster=f"p{i % 25}", is_unanswerable=False, answers=[f"gold {i}"]) for i in range(1, 101)]
    made = make(undrawn, items=items)
    made.report()
    assert len(re.findall(r"and there tests flip whole clusters\.", made.markdown)) == 2


def test_the_smallest_prices_are_shown_with_two_digits(undrawn: Path) -> None:
    """Six decimals called a question $0.000001 and the gain free."""
    made = make(undrawn, prices={"lab/model-a": {"input_per_mtok": 0.02, "output_per_mtok": 0.05}})
    made.report()
    section = made.markdown[made.markdown.index("## Cost-Effectiveness") :].replace("\\", "")
    assert "| control | 24 | 10 | $0.00000056 | $0.0000013 |" in section
    assert "| treatment | 24 | 22 | $0.00000058 | $0.00000064 |" in section
    assert "| $0.00000058 | 4.3% | +50.0 | $0.000000012 |" in section  # by the sums of six decimals it was $0.000001


def test_without_examples_and_request_files_the_report_still_stands(undrawn: Path) -> None:
    made = make(undrawn, report={"examples": 0})
    for part in made.index.parts:
        made.paths.part_requests(part.part).unlink()
    made.report()
    assert "There are none to show" in made.markdown
    assert "The request files of 2 parts are no longer here" in made.markdown
    assert "You are under treatment." in made.markdown


def test_what_was_sent_is_read_from_the_requests(undrawn: Path) -> None:
    """A report that repeats the config can claim a parameter that never left the machine."""
    made = make(undrawn)
    for part in made.index.parts:
        path = made.paths.part_requests(part.part)
        path.write_bytes(
            path.read_bytes().replace(b'"max_tokens":32', b'"max_tokens":99').replace(b"under t", b"above t")
        )
    made.report()
    assert '{"max_tokens":99,"temperature":0.0}' in made.markdown
    assert '{"max_tokens":16,"temperature":0.0}' in made.markdown
    assert "You are above treatment." in made.markdown
    assert text.sha256("You are above treatment.") in made.html


def test_an_artifact_of_another_shape_is_named_and_the_old_report_stays(undrawn: Path) -> None:
    made = make(undrawn)
    made.report()
    before = written(made)
    made.paths.significance.write_bytes(b'{"schema_version": 3, "results": {}}')
    with pytest.raises(DamagedArtifact, match=r"does not fit schemas/significance\.schema\.json") as caught:
        made.report()
    assert "force=stats" in str(caught.value)
    assert written(made) == before


def test_an_artifact_of_an_earlier_format_is_called_that_and_not_damaged(undrawn: Path) -> None:
    made = make(undrawn)
    document = jsonl.loads(made.paths.costs.read_bytes())
    made.paths.costs.write_bytes(jsonl.dumps_pretty({**document, "schema_version": 1}))
    with pytest.raises(DamagedArtifact) as caught:
        made.report()
    assert caught.value.what == "is of an earlier format (1; now it is 4)."
    assert caught.value.hint == "doit resume rid=lab writes it anew"


def test_submissions_of_which_no_record_is_left_are_not_left_out_of_a_total(undrawn: Path) -> None:
    """With one part's ledger lost, what the others add up to was shown as the whole, and the provider was blamed."""
    made = make(undrawn, prices={"lab/model-a": {"input_per_mtok": 1, "output_per_mtok": 1}})
    history = jsonl.read_document(made.paths.attempts)
    history["parts"][0]["attempts"] = []
    made.paths.attempts.write_bytes(jsonl.dumps_pretty(history))
    costs(made.paths, made.config, made.trial)
    found = jsonl.read_document(made.paths.costs)["attempts"]
    assert (found["estimated_usd_at_most"], found["provider_usd"], found["parts_without_record"]) == (None, None, 1)
    made.report()
    assert ", and those of 1 part of which no record is left, so the totals are not known." in made.markdown
    assert "The provider gave no counts" not in made.markdown
    [row] = [line for line in made.markdown.splitlines() if line.startswith(f"| `{history['parts'][0]['part']}` |")]
    assert row.split(" | ")[4:6] == ["–", "–"]


def test_a_row_that_is_cut_short_is_named_with_its_line(undrawn: Path) -> None:
    made = make(undrawn)
    made.paths.scores.write_bytes(made.paths.scores.read_bytes() + b'"trivia|c999","trivia"\r\n')
    with pytest.raises(DamagedArtifact, match="cells") as caught:
        made.report()
    assert str(caught.value.where).endswith("per_item_scores.csv line 50")


# --- many data sets, temperatures, treatments --------------------------------------------------------


def test_every_treatment_temperature_and_dataset_has_its_place(large: Made) -> None:
    titles = re.findall(r"^## (.*)$", large.markdown, re.MULTILINE)
    assert titles[:6] == [
        "Verdict",
        "Data Balance",
        "Results: brief against control",
        "Datasets: brief against control",
        "Results: cot against control",
        "Datasets: cot against control",
    ]
    assert len(re.findall(r"^### Temperature 0\.25$", large.markdown, re.MULTILINE)) == 2
    for dataset in ("set a", "set b", "open x", "open y"):
        assert f"`{dataset}`" in large.markdown
    assert "Hartung" in large.markdown or "HKSJ" in large.markdown
    names = {path.stem for path in large.paths.figures.iterdir()}
    both = {"forest", "outcomes", "risk-coverage", "forest-datasets"}
    assert names == {"cost-accuracy", "tokens", *both, *(f"{name}-cot" for name in both)}


def test_the_methods_name_what_was_done_and_nothing_else(undrawn: Path, plain: Made) -> None:
    """The paragraph is there to be copied: it named no method for intervals, and vouched for when margins were set."""
    methods = plain.markdown.partition("Methods, ready to adapt")[2]
    assert "abstentions (Trialmake's patterns, version 1) as the empty answer" in methods
    assert "False-Ans 2 and Unsupported 2 [say whether they were fixed before the answers were seen]" in methods
    assert (
        "95% intervals are cluster-robust (CR1, t) where questions share a paragraph, and there tests flip whole "
        "clusters; elsewhere they are BCa bootstraps, t intervals below 30 questions." in methods
    )
    made = make(undrawn, items=[*map(closed, range(12))], scoring={"extraction": "first_line"})
    made.report()
    methods = made.markdown.partition("Methods, ready to adapt")[2]
    assert "Answers, taken from the replies by first_line, were scored" in methods
    assert "95% intervals are t intervals." in methods


def test_headings_of_the_earlier_tool_are_kept(plain: Made) -> None:
    headings = re.findall(r"^##* (.*)$", plain.markdown, re.MULTILINE)
    assert headings[0].startswith("Evaluation Report")
    kept = "Prompts", "Data Balance", "Pairing Analysis", "Results", "Significance", "Unsupported Sensitivity"
    assert {*kept, "Power / MDE", "Cost-Effectiveness", "Cost"} <= set(headings)


@pytest.mark.parametrize("run", ["plain", "hostile", "large"])
def test_every_figure_has_its_table_and_no_id_is_there_twice(run: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(run)
    tree = Tree.of(made.html)
    drawn = [node for node in tree.nodes if node.attributes.get("class") == "drawing"]
    assert len(drawn) == len(list(made.paths.figures.iterdir())) == made.markdown.count("](figures/") >= 4
    for figure in drawn:
        inside = [node.tag for node in tree.below(figure)]
        assert inside.count("svg") == 1
        assert inside.count("table") == 1
    ids = Counter(node.attributes["id"] for node in tree.nodes if "id" in node.attributes)
    assert not {name: times for name, times in ids.items() if times > 1}
    targets = {node.attributes["href"].removeprefix("#") for node in tree.nodes if node.tag == "a"}
    assert targets <= set(ids)
    for name in re.findall(r"\]\(figures/(.*?)\)", made.markdown):
        assert (made.paths.figures / name).is_file()


def test_a_figure_that_the_report_no_longer_has_is_removed(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.paths.figures.mkdir(parents=True)
    (made.paths.figures / "forest-gone.svg").write_text("<svg/>")
    made.report()
    assert not (made.paths.figures / "forest-gone.svg").exists()


# --- hostile text ------------------------------------------------------------------------------------

ALLOWED_TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "header", "nav", "main", "section", "h1", "h2", "h3",
    "a", "p", "dl", "div", "dt", "dd", "ol", "ul", "li", "figure", "figcaption", "details", "summary", "pre", "code",
    "strong", "span", "table", "thead", "tbody", "tr", "th", "td",
    "svg", "g", "path", "defs", "clippath", "rect", "text", "use", "pattern",
}  # fmt: skip


def test_hostile_text_stays_text_in_html(hostile: Made) -> None:
    for page in (hostile.html, hostile.run.index_html.read_text()):
        tree = Tree.of(page)
        assert {node.tag for node in tree.nodes} <= ALLOWED_TAGS
        for node in tree.nodes:
            assert not [
                name for name in node.attributes if name.startswith("on") or name in ("src", "srcset", "action")
            ]
            for name in ("href", "xlink:href"):
                assert re.fullmatch(r"#.*|data:,|[\w-]+/reports/report\.html|", node.attributes.get(name, ""))
        assert "default-src 'none'" in page.replace("&#39;", "'")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile.html
    assert "{{ 7 * 7 }}" in hostile.html


def test_hostile_text_stays_text_in_markdown(hostile: Made) -> None:
    """Parsed as GitHub would: no heading, link, image or tag but our own."""
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    tokens = parser.parse(hostile.markdown)
    kinds = Counter(token.type for token in every(tokens))
    assert kinds["link_open"] == 0
    images = [token.attrs["src"] for token in every(tokens) if token.type == "image"]
    assert images == [f"figures/{name}" for name in re.findall(r"\]\(figures/(.*?)\)", hostile.markdown)]
    for token in every(tokens):
        if token.type in ("html_block", "html_inline"):
            assert re.fullmatch(
                r"(<details>\n<summary>[^<]*(<code>[^<]*</code>)?</summary>|</details>)\n?", token.content
            )
        if token.type == "inline" and token.content.startswith("OWNED"):
            pytest.fail(token.content)
    headings = [b.content for a, b in pairwise(tokens) if a.type == "heading_open"]
    assert not [heading for heading in headings if "OWNED" in heading]
    fences = [token.content for token in tokens if token.type == "fence"]
    for payload in EVIL:
        assert any(visible(payload) in fence for fence in fences), payload


def test_controls_are_shown_as_escapes(hostile: Made) -> None:
    hidden = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069]")
    for name, data in hostile.written().items():
        found = hidden.search(data.decode())
        assert not found, f"{name}: {found}"
    assert "\\x1b[31mred\\x1b]8;;" in hostile.html
    assert "\\u202eabc\\u2066 zero\\u200bwidth \\x00" in hostile.markdown


def test_a_long_answer_is_cut_and_says_so(hostile: Made) -> None:
    assert "x" * 1_201 not in hostile.markdown
    assert "characters in all" in hostile.html
    assert re.search(r"\(cut here; 5,\d\d\d characters in all\)", hostile.markdown)


def test_figures_are_well_formed_and_load_nothing(hostile: Made, large: Made) -> None:
    for made in (hostile, large):
        for path in made.paths.figures.iterdir():
            for node in ElementTree.fromstring(path.read_bytes()).iter():
                for name, value in node.attrib.items():
                    assert not name.endswith("href") or value.startswith("#")
                    assert "url(" not in value or "url(#" in value


# --- determinism -------------------------------------------------------------------------------------


def test_a_label_is_drawn_as_it_is_called(tmp_path: Path) -> None:
    """`#010203` was shown as `var(--ink)`, U+FFFF made the file no XML, and 数 warned of a glyph on the terminal."""
    names = ["#010203", 'a id="b', "url(#x", 'href="#y', "font: 9px z", "z\uffff", "数据集", "مجموعة"]
    items = [closed(number, dataset=names[number % len(names)]) for number in range(2 * len(names))]
    made = make(tmp_path, better, items=items)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.report()
    root = ElementTree.fromstring((made.paths.figures / "forest-datasets.svg").read_text())
    labels = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in names:
        assert any(name.replace("\uffff", "\ufffd") in (label or "") for label in labels), name


def test_the_same_artifacts_give_the_same_bytes(tmp_path: Path, large: Made) -> None:
    """Also with another hash seed, a matplotlibrc that lies about, and no home to write to."""
    before = large.written()
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\nsvg.fonttype: path\n")
    script = (
        "import sys; from pathlib import Path; from pipeline import config, parts; from pipeline.paths import RunPaths;"
        "from pipeline.phases.report import report; from pipeline.phases.index import index;"
        "run = RunPaths(Path(sys.argv[1])); c = config.read_frozen(run.config, base=run.root); t = c.trials[0];"
        "p = run.trial(t.slug); report(run, p, c, t, parts.read(p.index));"
        "index(run, c, [run.trial(t.slug) for t in c.trials])"
    )
    from pipeline import config

    large.run.config.write_bytes(config.frozen_text(large.config))
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "DISPLAY")}
    environment |= {"PYTHONHASHSEED": "7", "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-c", script, large.run.root], cwd=tmp_path, env=environment, check=True)
    after = large.written()
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert list(home.iterdir()) == []


def test_neither_place_nor_time_shows(large: Made) -> None:
    year = re.compile(r"\b20[2-9]\d-\d\d-\d\d|\b\d\d:\d\d:\d\d\b")
    for name, data in large.written().items():
        page = data.decode()
        assert str(large.run.root.parent) not in page, name
        assert not year.search(page), name


def test_the_model_holds_no_answers_but_those_it_shows(large: Made) -> None:
    model = read(large.run, large.paths, large.config, large.trial, large.index)
    assert {item for item, _, _ in model.answers.answers} == {example.item for example in model.examples}
    assert len(model.examples) <= 2 * 2 * (2 * 2 + 1) * 5  # treatments, temperatures, cases, examples each
    asked = sum(group.asked for group in model.answers.counts.values())
    assert asked == large.index.rows


def test_whoever_cites_or_repeats_it_is_told_the_version_the_config_and_the_run(plain: Made) -> None:
    """`doit forget report` without the run's name was about the latest run, whichever that is."""
    end = plain.markdown.partition("## How to cite and reproduce")[2]
    assert f"Trialmake {VERSION}, run lab, trial " in end
    assert "`doit rid=NEW config=experiments/run_lab/experiment.yaml`" in end
    assert "`doit forget report rid=lab && doit resume rid=lab`" in end
    assert f"| Trialmake | {VERSION} |" in end


# --- the run as a whole --------------------------------------------------------------------------------


def test_trials_stand_best_first_and_link_their_reports(large: Made) -> None:
    page, markdown = large.run.index_html.read_text(), large.run.aggregate_report.read_text()
    links = [
        node.attributes["href"] for node in Tree.of(page).nodes if node.attributes.get("href", "").endswith(".html")
    ]
    assert links == ["a-set/reports/report.html", "b-set/reports/report.html"] * 2
    assert markdown.index("[a-set](<a-set/reports/report.md>) | brief") < markdown.index("| cot |")
    assert "Confirm a choice on new questions" in markdown
    assert "**Of 4 treatments, a-set with brief and b-set with brief come first, equal: +" in markdown
    assert "| b-set | `lab/b` | `set` | " in markdown.partition("What was sent")[2]
    assert "figures/" not in markdown
    assert (large.run.root / links[0]).is_file()


def test_of_equal_treatments_none_comes_first(undrawn: Path) -> None:
    """Of two equal trials the one whose name is first in the alphabet was said to come first."""
    made = make(undrawn, models=("lab/b", "lab/a"), items=[*map(closed, range(12))])
    made.overview()
    told = made.run.aggregate_report.read_text()
    assert "**Of 2 treatments, a-set with treatment and b-set with treatment come first, equal: +" in told
    assert "comes first:" not in told
    (undrawn / "other").mkdir()
    made = make(
        undrawn / "other", lambda r, row: better(r, row) if r.condition != "cot" else "x", treatments=("a", "cot")
    )
    made.overview()
    assert "**Of 2 treatments, model-a-set with a comes first: +" in made.run.aggregate_report.read_text()


@pytest.mark.parametrize(
    ("won", "kinds", "said"),
    [
        (["open"], "both", "**No treatment gave more right answers than its control on average. The first is"),
        ([], "closed", "**No treatment gave more right answers than its control. The first is"),
        (["closed"], "closed", "**model-a-set with treatment: 0.0 points of right answers against its control ("),
    ],
)
def test_nothing_is_said_of_every_place_that_only_the_mean_shows(undrawn: Path, won, kinds, said) -> None:
    """Beside "+90.0 better" stood that nothing was better, and one of 3,000 questions won was none."""
    many = [*map(closed, range(1, 3001))]
    items = many if kinds == "closed" else [*many[:20], *map(open_book, range(1, 21))]

    def answer(request: RequestId, row: dict[str, Any]) -> str:
        right = row["answers"][0] if row["answers"] else "I don't know"
        if kinds == "both":
            return right if (request.condition == "treatment") == (request.type in won) else "something else"
        one = int(row["id"][1:]) == 7
        return right if not one or (won and request.condition == "treatment") else "something else"

    made = make(undrawn, answer, items=items)
    made.overview()
    assert said in made.run.aggregate_report.read_text()


def test_types_that_were_not_asked_are_not_named_beside_prices(undrawn: Path, large: Made) -> None:
    price = {"lab/model-a": {"input_per_mtok": 1000.0, "output_per_mtok": 2000.0}}
    made = make(undrawn, items=[*map(closed, range(12))], prices=price)
    made.report()
    assert "over the questions that both conditions answered. Money: of all requests. No price" in made.markdown
    assert "over the questions of both types that both conditions answered." in large.markdown


def test_a_trial_without_a_difference_comes_last() -> None:
    def entry(slug: str, delta: float | None) -> Entry:
        block: Any = type("Block", (), {"data": {"metrics": {"em": {"delta_mean": delta}}}})()
        return Entry(slug, "m", "p", "treatment", 0.05, {("open", "0"): block}, 1, 0, None, False, 0)

    order = ranked([entry("none", None), entry("b", 0.1), entry("worse", -0.2), entry("a", 0.1)])
    assert [item.slug for item in order] == ["a", "b", "worse", "none"]


def test_a_damaged_cost_file_is_named(tmp_path: Path) -> None:
    made = make(tmp_path)
    document = jsonl.read_document(made.paths.costs)
    del document["pricing"]
    made.paths.costs.write_bytes(jsonl.dumps_pretty(document))
    with pytest.raises(DamagedArtifact, match="pricing: missing"):
        made.overview()


# --- helpers -------------------------------------------------------------------------------------------


class Node:
    """An element with its place in the order of the page."""

    def __init__(self, tag: str, attributes: dict[str, str], start: int) -> None:
        self.tag, self.attributes, self.start, self.end = tag, attributes, start, start


class Tree(HTMLParser):
    """The elements of a page as a strict reader sees them: every element is closed in its turn."""

    VOID = frozenset({"meta", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._open: list[Node] = []

    @classmethod
    def of(cls, page: str) -> Tree:
        tree = cls()
        tree.feed(page)
        tree.close()
        assert not tree._open, [node.tag for node in tree._open]
        return tree

    def below(self, node: Node) -> list[Node]:
        return self.nodes[node.start + 1 : node.end]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, len(self.nodes))
        self.nodes.append(node)
        if tag not in self.VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append(Node(tag, {name: value or "" for name, value in attrs}, len(self.nodes)))

    def handle_endtag(self, tag: str) -> None:
        node = self._open.pop()
        assert node.tag == tag, (node.tag, tag)
        node.end = len(self.nodes)


def written(made: Made) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in made.paths.reports.rglob("*") if path.is_file()}


def every(tokens: Any) -> Iterator[Any]:
    for token in tokens:
        yield token
        yield from every(token.children or [])
