"""The score of one response: which numbers exist for which item, and what extraction changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.scoring import benchmarks
from pipeline.scoring.extraction import after_marker, first_line
from pipeline.scoring.response import ItemScorer, Numbers, ScoringSettings
from pipeline.scoring.unsupported import Passage

PASSAGE = Passage("Oslo is the capital of Norway.")


def scorer(*answers, benchmark="squad_v2", passage=PASSAGE, **settings):
    rules = benchmarks()[benchmark]
    return ItemScorer(rules, rules.golds(answers), passage, ScoringSettings(**settings))


@pytest.mark.parametrize(
    ("answers", "text", "expected"),
    [
        (["Oslo"], "Oslo", Numbers(1, 1.0, 0, None, 0, 0)),
        (["Oslo"], "Bergen", Numbers(0, 0.0, 0, None, 1, 1)),
        (["Oslo"], "I don't know.", Numbers(0, 0.0, 1, None, 0, 0)),
        (["Oslo"], "", Numbers(0, 0.0, 1, None, 0, 0)),
        (["Oslo"], "of it", Numbers(0, 0.0, 0, None, 1, None)),
        ([], "Oslo", Numbers(0, 0.0, 0, 1, 0, 0)),
        ([], "The passage does not say.", Numbers(1, 1.0, 1, 0, 0, 0)),
        ([], "the", Numbers(1, 1.0, 1, 0, 0, 0)),
    ],
)
def test_open_book(answers, text, expected):
    assert scorer(*answers).score(text).numbers == expected


@pytest.mark.parametrize(("benchmark", "f1"), [("squad_v2", 1.0), ("triviaqa", 1.0), ("nq_open", None)])
def test_closed_book_has_no_support_and_f1_where_it_is_official(benchmark, f1):
    score = scorer("Oslo", benchmark=benchmark, passage=None).score("Oslo")
    assert score.numbers == Numbers(1, f1, 0, None, None, None)


def test_the_configured_strategy_comes_first_and_the_other_one_beside_it():
    text = "capital city of Norway"  # no span; two of three content words
    assert scorer("Oslo").score(text).numbers[4:] == (1, 0)
    assert scorer("Oslo", unsupported="overlap").score(text).numbers[4:] == (0, 1)
    assert scorer("Oslo", unsupported="overlap", overlap_threshold=0.9).score(text).numbers[4:] == (1, 1)


@pytest.mark.parametrize("benchmark", ["triviaqa", "nq_open"])
def test_where_a_gold_is_nothing_to_the_benchmark_only_a_reply_that_is_nothing_is_right(benchmark):
    """Whoever declined was right about options called "A", and about an official gold that is a bracket."""
    item = scorer("A", benchmark=benchmark, passage=None)
    assert (item.score("A").numbers.em, item.score("A").numbers.abstained) == (1, 0)
    assert (item.score("I don't know.").numbers.em, item.score("I don't know.").numbers.abstained) == (0, 1)
    assert item.score("B").numbers.em == 0
    assert item.score("").numbers.em == 1  # the official rule for the empty answer


@given(st.text(max_size=60))
def test_on_unanswerable_questions_em_and_false_answer_say_the_same(text):
    numbers = scorer().score(text).numbers
    assert numbers.em == numbers.f1 == numbers.abstained == 1 - numbers.false_answer


def test_extraction_comes_before_everything_else():
    reply = "The passage tells of Norway.\nAnswer: Oslo"
    assert scorer("Oslo").score(reply).numbers.em == 0
    extracted = scorer("Oslo", extraction="after_marker").score(reply)
    assert (extracted.extracted, extracted.numbers.em, extracted.numbers.unsupported) == ("Oslo", 1, 0)
    assert scorer("Oslo", extraction="first_line").score("Oslo\n\nIt is in Norway.").numbers.em == 1
    assert (
        scorer("Oslo", extraction="after_marker").score("Thinking.\nAnswer: I don't know").abstain_rule == "dont_know"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("\n \n", ""), ("Oslo", "Oslo"), ("\n  Oslo \r\nNorway", "Oslo"), (" a b ", "a b")],
)
def test_first_line(text, expected):
    assert first_line(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no marker\n at all ", "no marker\n at all "),
        ("Answer: Oslo", "Oslo"),
        ("answer:Oslo.", "Oslo."),
        ("**Answer:** Oslo", "Oslo"),
        ("**Answer**: *Oslo*", "*Oslo*"),
        ("Final Answer:\n\nOslo\nbecause", "Oslo"),
        ("The answer is: Oslo", "Oslo"),
        ("Answer: Bergen? No.\nAnswer: Oslo", "Oslo"),
        ("Reasons.\nAnswer:", ""),
        ("Manswer: Oslo", "Manswer: Oslo"),
    ],
)
def test_after_marker(text, expected):
    assert after_marker(text) == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"extraction": "last_line"}, "scoring.extraction: is 'last_line'; allowed are none, first_line, after_marker"),
        ({"unsupported": "nli"}, "scoring.unsupported: is 'nli'; allowed are span, overlap"),
    ],
)
def test_an_unknown_name_in_the_settings_is_a_config_error(section, message):
    with pytest.raises(ConfigError) as caught:
        ScoringSettings.of(section)
    assert message in str(caught.value)
