"""The words of the command line: each is understood, or refused with the nearest valid spelling."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import graph, request
from pipeline.errors import UsageError
from pipeline.request import Request

DEFAULT = [phase.name for phase in graph.PHASES if phase.by_default]


def test_no_words_choose_nothing():
    assert request.parse({}) == Request()
    assert Request().wait


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ({"rid": "r1"}, {"rid": "r1"}),
        ({"config": "a/b.yaml"}, {"config": Path("a/b.yaml")}),
        ({"config": ""}, {"config": None}),
        ({"force": "report"}, {"forced": frozenset({"report"})}),
        ({"force": "score, stats"}, {"forced": frozenset({"score", "stats"})}),
        ({"force": "all"}, {"forced": frozenset({"all"})}),
        ({"trial": "m-*"}, {"trials": "m-*"}),
        ({"wait": "0"}, {"wait": False}),
        ({"wait": "No"}, {"wait": False}),
        ({"wait": "1"}, {"wait": True}),
        ({"verify": "deep"}, {"deep": True}),
        ({"yes": "1"}, {"yes": True}),
        ({"limit": "20"}, {"limit": 20}),
        ({"requeue": "never"}, {"requeue": "never"}),
        ({"json": "true"}, {"json": True}),
        ({"poll": "0.5"}, {"poll_seconds": 0.5}),
    ],
)
def test_each_word_says_one_thing(words, chosen):
    found = request.parse(words)
    assert {key: value for key, value in vars(found).items() if value != getattr(Request(), key)} == {
        key: value for key, value in chosen.items() if value != getattr(Request(), key)
    }


@pytest.mark.parametrize(
    ("words", "phases"),
    [
        ({"only": "parse"}, ["parse"]),
        ({"only": "parse,score"}, ["parse", "score"]),
        ({"only": "archive"}, ["archive"]),
        ({"from": "score"}, DEFAULT[DEFAULT.index("score") :]),
        ({"to": "score"}, DEFAULT[: DEFAULT.index("score") + 1]),
        ({"from": "parse", "to": "stats"}, ["parse", "score", "stats"]),
        ({"from": "report", "to": "index"}, ["report", "index"]),
        ({"to": "archive"}, [name for name in graph.NAMES if name != "index"]),
        ({"from": "archive"}, ["archive", "index"]),
        ({"from": "score", "only": "report,parse"}, ["report"]),
        ({"from": "report", "to": "index", "only": "archive"}, ["archive"]),
        ({"from": "prepare", "to": "prepare"}, ["prepare"]),
    ],
)
def test_phases_are_chosen_by_span_and_by_name(words, phases):
    """archive is not part of what is built by default; it is chosen by its name alone."""
    assert request.parse(words).phases == frozenset(phases)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rdi": "x"}, "there is no variable rdi=; did you mean rid=?"),
        ({"forec": "x"}, "there is no variable forec=; did you mean force=?"),
        ({"zzzzz": "x"}, "there is no variable zzzzz="),
        ({"rid": ""}, "rid=: a run's id has letters"),
        ({"rid": "../x"}, "rid=../x: a run's id has letters"),
        ({"rid": "x" * 65}, "at most 64"),
        ({"force": "pars"}, "force=pars: there is no such phase; did you mean 'parse'?"),
        ({"force": ""}, "force= names no phase"),
        ({"force": ","}, "force= names no phase"),
        ({"force": "submit"}, "submit cannot be forced"),
        ({"force": "stats", "from": "costs"}, "force=stats is not among the chosen phases: costs, report, index."),
        ({"force": "score,report", "only": "report"}, "force=score is not among the chosen phases: report."),
        ({"only": "all"}, "only=all: there is no such phase"),
        ({"only": ""}, "only= names no phase"),
        ({"from": "parse,score"}, "from= and to= take one phase each"),
        ({"from": "stats", "to": "parse"}, "from=stats comes after to=parse"),
        ({"from": "score", "only": "parse"}, "only=parse leaves nothing of score to index"),
        ({"to": "score", "only": "archive"}, "only=archive leaves nothing of prepare to score"),
        ({"wait": "maybe"}, "wait=maybe: expected 1 or 0"),
        ({"wait": ""}, "wait=: expected 1 or 0"),
        ({"yes": "2"}, "yes=2: expected 1 or 0"),
        ({"verify": "full"}, "verify=full: expected deep"),
        ({"requeue": "always"}, "requeue=always: expected auto or ask or never"),
        ({"limit": "0"}, "limit=0: expected a whole number"),
        ({"limit": "-1"}, "limit=-1: expected a whole number"),
        ({"limit": "1.5"}, "limit=1.5: expected a whole number"),
        ({"limit": "²"}, "limit=²: expected a whole number"),
        ({"limit": "9" * 5000}, "expected a whole number"),
        ({"poll": "0"}, "poll=0: expected seconds"),
        ({"poll": "nan"}, "poll=nan: expected seconds"),
        ({"poll": "inf"}, "poll=inf: expected seconds"),
        ({"poll": "fast"}, "poll=fast: expected seconds"),
    ],
)
def test_a_wrong_word_is_a_usage_error(words, said):
    """doit passes any name on; `rdi=X` would quietly have meant the latest run."""
    with pytest.raises(UsageError) as refused:
        request.parse(words)
    assert said in str(refused.value)
    assert refused.value.exit_code == 3


WORDS = st.dictionaries(
    st.sampled_from(request.NAMES), st.text(max_size=6) | st.sampled_from([*graph.NAMES, "1", "all"])
)


@given(WORDS)
def test_any_words_are_understood_or_refused(words):
    try:
        found = request.parse(words)
    except UsageError as refused:
        found = refused
    assert str(found)


@given(st.sampled_from(graph.NAMES), st.sampled_from(graph.NAMES), st.sets(st.sampled_from(graph.NAMES), min_size=1))
def test_a_selection_never_means_everything_by_being_empty(first, last, only):
    """An empty set of phases stands for all of them, so a choice that leaves none must be an error."""
    try:
        phases = request.parse({"from": first, "to": last, "only": ",".join(sorted(only))}).phases
    except UsageError:
        return
    assert phases
    assert phases <= only
