"""Normalisation, exact match and F1 against the official scripts' text and numbers.

The functions named `official_*` repeat, line by line, what the official scripts do; the faster code
must never differ from them, on any text.
"""

import csv
import json
import os
import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.scoring import benchmarks
from pipeline.scoring.benchmark import Golds
from pipeline.scoring.response import ItemScorer, ScoringSettings

SHARED = Path(os.environ.get("TRIALMAKE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not on this machine")

SQUAD, TRIVIAQA, NQ = (benchmarks()[name] for name in ("squad_v2", "triviaqa", "nq_open"))
ALL = [SQUAD, TRIVIAQA, NQ]


def score(benchmark, text, *answers):
    """(em, f1) of *text*, abstention detection included, as the phase scores it."""
    numbers = ItemScorer(benchmark, benchmark.golds(answers), None, ScoringSettings()).score(text).numbers
    return numbers.em, numbers.f1


# --- the official scripts -------------------------------------------------------------------------


def _articles(text):
    return re.sub(r"\b(a|an|the)\b", " ", text)


def official_squad(s):
    exclude = set(string.punctuation)
    return " ".join(_articles("".join(ch for ch in s.lower() if ch not in exclude)).split())


def official_triviaqa(s):
    exclude = set(string.punctuation + "".join(["‘", "’", "´", "`"]))
    text = "".join(ch if ch not in exclude else " " for ch in s.replace("_", " ").lower())
    return " ".join(_articles(text).split()).strip()


def official_nq(s):
    exclude = set(string.punctuation)
    text = unicodedata.normalize("NFD", s).lower()
    return " ".join(_articles("".join(ch for ch in text if ch not in exclude)).split())


def official_f1(prediction, gold, both_empty):
    predicted, wanted = prediction.split(), gold.split()
    if both_empty is not None and (not predicted or not wanted):
        return both_empty if predicted == wanted else 0
    same = sum((Counter(predicted) & Counter(wanted)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(wanted)
    return (2 * precision * recall) / (precision + recall)


OFFICIAL = {"squad_v2": official_squad, "triviaqa": official_triviaqa, "nq_open": official_nq}


# --- the table of the three normalisations --------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "squad", "triviaqa", "nq"),
    [
        ("D.C.", "DC", 1, 0, 1),
        ("hip-hop", "hip hop", 0, 1, 0),
        ("2,500", "2500", 1, 0, 1),
        ("D'Arcy", "D’Arcy", 0, 1, 0),
        ("file_name", "file name", 0, 1, 0),
        ("u\u0308", "\u00fc", 0, 0, 1),
        ("7.5", "75", 1, 0, 1),
        # what the official scripts have as a consequence
        ("plan A", "plan", 1, 1, 1),
        ("the–end", "–end", 1, 1, 1),
        ("the–end", "end", 0, 0, 0),
        ("thé", "th", 0, 0, 0),
        ("the\u0301", "\u0301", 1, 1, 1),  # a combining accent is no word character, so "the" stands alone
        ("Maße", "MASSE", 0, 0, 0),
        ("café", "cafe", 0, 0, 0),
        ("€5", "5", 0, 0, 0),
        ("$5", "5", 1, 1, 1),
        ("Os\u200blo", "Oslo", 0, 0, 0),
        ("“Oslo”", "Oslo", 0, 0, 0),
        ("‘Oslo’", "Oslo", 0, 1, 0),
        ("´Oslo`", "Oslo", 0, 1, 0),
        ("An apple, a day!", "apple day", 1, 1, 1),
        ("Theatre", "atre", 0, 0, 0),
        ("the\u00a0end", "end", 1, 1, 1),
        ("A.N. Other", "Other", 1, 0, 1),  # deleting the dots makes it "an"
        ("İstanbul", "i̇stanbul", 1, 1, 1),
        ("ＤＣ", "DC", 0, 0, 0),
        ("It was Oslo.", "Oslo", 0, 0, 0),
        ("Oslo", "Oslo, Norway", 0, 0, 0),
    ],
)
def test_each_benchmark_has_its_own_normalisation(prediction, gold, squad, triviaqa, nq):
    assert [score(benchmark, prediction, gold)[0] for benchmark in ALL] == [squad, triviaqa, nq]


TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="aAnNtThHeE _-–'’‘´`.,\n\t\x1c\x00\u0301\u200b\u00a0éİſ1"),
    st.text(alphabet=st.characters(categories=["Cs", "Ll", "Po", "Zs", "Cc", "Mn"])),
)


@pytest.mark.parametrize("benchmark", ALL, ids=lambda benchmark: benchmark.name)
@settings(max_examples=400)
@given(text=TEXTS)
@example("the–a an\u0301")
@example("\x00the\x00 a\x1cthe_an")
@example("\ud800the")
def test_no_text_is_normalised_differently_from_the_official_script(benchmark, text):
    assert benchmark.normalise(text) == OFFICIAL[benchmark.name](text)


# --- exact match and F1 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("benchmark", "prediction", "golds", "expected"),
    [
        (SQUAD, "It was Oslo.", ["Oslo"], (0, 0.5)),
        (TRIVIAQA, "It was Oslo.", ["Oslo"], (0, 0.5)),
        (NQ, "It was Oslo.", ["Oslo"], (0, None)),
        (SQUAD, "no no no", ["no"], (0, 0.5)),
        (SQUAD, "no", ["no no no"], (0, 0.5)),
        # the best gold for each number on its own
        (SQUAD, "Oslo Norway Europe", ["Oslo", "Oslo Norway"], (0, 0.8)),
        (SQUAD, "Oslo", ["Bergen", "Oslo"], (1, 1.0)),
        (SQUAD, "Bergen", ["Oslo"], (0, 0.0)),
        # golds without a token: SQuAD drops them, TriviaQA compares them
        (SQUAD, "Oslo", ["the", "Oslo"], (1, 1.0)),
        (TRIVIAQA, "The The", ["The The"], (1, 0.0)),
        (TRIVIAQA, "Oslo", ["The The", "Oslo"], (1, 1.0)),
        # no gold at all: the empty answer is right, and so is an abstention
        (SQUAD, "", [], (1, 1.0)),
        (SQUAD, "...", [], (1, 1.0)),
        (SQUAD, "I don't know.", [], (1, 1.0)),
        (SQUAD, "", ["the", "!"], (1, 1.0)),
        (SQUAD, "Oslo", [], (0, 0.0)),
        (SQUAD, "", ["Oslo"], (0, 0.0)),
        (SQUAD, "I don't know", ["Oslo", "know"], (0, 0.0)),
        (NQ, "unknown", ["Oslo"], (0, None)),
    ],
)
def test_exact_match_and_f1(benchmark, prediction, golds, expected):
    assert score(benchmark, prediction, *golds) == expected


@pytest.mark.parametrize(("benchmark", "both_empty"), [(SQUAD, 1), (TRIVIAQA, None)], ids=["squad", "triviaqa"])
@settings(max_examples=300)
@given(
    words=st.lists(st.sampled_from(["no", "yes", "oslo", "a", "x"])),
    golds=st.lists(st.text("abxo n", max_size=12), min_size=1),
)
def test_f1_is_the_best_of_the_official_pairwise_ones(benchmark, both_empty, words, golds):
    prediction = benchmark.normalise(" ".join(words))
    kept = benchmark.golds(golds)
    assume(kept)
    expected = max(official_f1(prediction, gold, both_empty) for gold in kept)
    assert Golds(benchmark, kept).f1(prediction.split()) == expected


@given(text=st.text(max_size=40), golds=st.lists(st.text(max_size=40), min_size=1, max_size=6), data=st.data())
@pytest.mark.parametrize("benchmark", ALL, ids=lambda benchmark: benchmark.name)
def test_neither_the_order_of_golds_nor_repeating_one_matters(benchmark, text, golds, data):
    shuffled = data.draw(st.permutations([*golds, golds[0]]))
    assert score(benchmark, text, *golds) == score(benchmark, text, *shuffled)


@given(text=st.text(max_size=40), golds=st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_an_exact_match_has_f1_one_in_squad(text, golds):
    em, f1 = score(SQUAD, text, *golds)
    assert 0 <= f1 <= 1
    assert not em or f1 == 1.0


@pytest.mark.parametrize("benchmark", ALL, ids=lambda benchmark: benchmark.name)
@given(golds=st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_every_gold_that_is_not_blank_is_right(benchmark, golds):
    assume(benchmark.tokens(golds[0]))
    assert score(benchmark, golds[0], *golds) == (1, benchmark.f1 and 1.0)


@pytest.mark.parametrize("benchmark", ALL, ids=lambda benchmark: benchmark.name)
@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "\ud800",
        "a" * 200_000,
        "the " * 50_000,
        "." * 100_000,
        "\u202e\u0301",
        "=1+1",
        '"",""',
        "\r\n",
        "𝟙" * 999,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_texts_have_a_score(benchmark, text):
    em, f1 = score(benchmark, text, "Oslo")
    assert em == 0
    assert f1 in (0.0, None)


def test_a_new_benchmark_is_one_file():
    assert set(benchmarks()) == {"squad_v2", "triviaqa", "nq_open"}
    assert [benchmark.f1 is None for benchmark in ALL] == [False, False, True]


# --- the official scripts' numbers on real predictions --------------------------------------------


def _json(name):
    return json.loads((SHARED / name).read_text(encoding="utf-8"))


def _squad_golds():
    return {
        entry["id"]: [answer["text"] for answer in entry["answers"]]
        for article in _json("squad_v2_dev_sample.json")["data"]
        for paragraph in article["paragraphs"]
        for entry in paragraph["qas"]
    }


def _triviaqa_golds():
    return {
        entry["QuestionId"]: [*entry["Answer"]["NormalizedAliases"], *entry["Answer"].get("HumanAnswers", [])]
        for entry in _json("triviaqa_wikipedia_dev_sample.json")["Data"]
    }


def _nq_lines(name):
    return [json.loads(line) for line in (SHARED / name).read_text(encoding="utf-8").splitlines()]


def _expected(dataset, system):
    with open(SHARED / "expected_official_scores_per_question.csv", encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if (row["dataset"], row["system"]) == (dataset, system)]


def _scored(benchmark, golds, predictions):
    """(em, f1) by id, with the detection of abstentions switched on as always."""
    return {name: score(benchmark, text, *golds[name]) for name, text in predictions.items()}


def _check(expected, scored):
    assert len(expected) == len(scored) == 1000
    wrong = {
        row["id"]: (row["em"], row["f1"], scored[row["id"]])
        for row in expected
        if (int(float(row["em"])), row["f1"] and float(row["f1"]))
        != (scored[row["id"]][0], "" if scored[row["id"]][1] is None else round(scored[row["id"]][1], 10))
    }
    assert not wrong


@needs_data
@pytest.mark.parametrize("system", ["bert_single", "nlnet_single", "docqa_elmo_single"])
def test_squad_v2_equals_the_official_script_on_every_question(system):
    golds = _squad_golds()
    scored = _scored(SQUAD, golds, _json(f"squad_v2_dev_sample.predictions.{system}.json"))
    _check(_expected("squad_v2", system), scored)
    totals = _json("expected_official_scores.json")["squad_v2"][system]
    for prefix, ids in (
        ("", list(scored)),
        ("HasAns_", [name for name in scored if golds[name]]),
        ("NoAns_", [name for name in scored if not golds[name]]),
    ):
        assert totals[f"{prefix}total"] == len(ids)
        assert 100 * sum(scored[name][0] for name in ids) / len(ids) == pytest.approx(
            totals[f"{prefix}exact"], abs=1e-9
        )
        assert 100 * sum(scored[name][1] for name in ids) / len(ids) == pytest.approx(totals[f"{prefix}f1"], abs=1e-9)


@needs_data
@pytest.mark.parametrize("system", ["flan_t5_base", "flan_t5_large"])
def test_triviaqa_equals_the_official_script_on_every_question(system):
    scored = _scored(TRIVIAQA, _triviaqa_golds(), _json(f"triviaqa_wikipedia_dev_sample.predictions.{system}.json"))
    _check(_expected("triviaqa", system), scored)
    totals = _json("expected_official_scores.json")["triviaqa"][system]
    assert sum(em for em, _ in scored.values()) / 10 == pytest.approx(totals["exact_match"], abs=1e-9)
    assert sum(f1 for _, f1 in scored.values()) / 10 == pytest.approx(totals["f1"], abs=1e-9)


@needs_data
def test_triviaqa_official_scores_belong_to_the_fifth_of_five_samples():
    golds = _triviaqa_golds()
    for system, answers in _json("triviaqa_wikipedia_dev_sample.predictions_5x2.json")["systems"].items():
        _check(
            _expected("triviaqa", system), _scored(TRIVIAQA, golds, {name: five[4] for name, five in answers.items()})
        )


@needs_data
def test_nq_open_equals_the_official_script_on_every_question():
    golds = {row["question"]: row["answer"] for row in _nq_lines("nq_open_sample.jsonl")}
    answers = _nq_lines("nq_open_sample.predictions.synthetic.jsonl")
    scored = _scored(NQ, golds, {row["question"]: row["prediction"] for row in answers})
    _check(_expected("nq_open", "synthetic"), scored)
    totals = _json("expected_official_scores.json")["nq_open"]["synthetic"]
    assert sum(em for em, _ in scored.values()) == totals["num_correct"]
