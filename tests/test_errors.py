"""The family of errors: its tree as drawn, its words, and its way through a process border."""

import pickle
import re

import pytest

from pipeline import errors
from pipeline.errors import PhaseEnd, Refused, TrialmakeError
from pipeline.providers.base import IdTaken
from pipeline.tasks import PhaseFailed


def family(kind=TrialmakeError):
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


OWN = [kind for kind in family() if kind.__module__ == errors.__name__]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    """The page a user and a maintainer look at first must not drift from the classes."""
    drawn = {}
    parents = [TrialmakeError.__name__]
    for line in errors.__doc__.splitlines():
        if not (found := re.search(r"[├└]── (\w+) .*?(?:exit ([\d /]+))$", line)):
            continue
        depth = found.start() // 4
        name, codes = found.groups()
        drawn[name] = (parents[depth - 1], [int(code) for code in codes.split("/")])
        parents[depth:] = [name]
    assert set(drawn) == {kind.__name__ for kind in OWN} - {"TrialmakeError"}
    for kind in OWN[1:]:
        parent, codes = drawn[kind.__name__]
        assert kind.__base__.__name__ == parent
        assert kind.exit_code == codes[0]


def test_no_error_ends_with_success():
    assert all(kind.exit_code != errors.EXIT_DONE for kind in family())


def test_a_phase_ends_by_what_its_error_is_a_kind_of():
    """It went by the class's own name: a taken id, or a run at work elsewhere, "failed" where others are refused."""
    for kind in family():
        assert (kind.ending == PhaseEnd.NOT_READY) == (kind.exit_code == errors.EXIT_NOT_READY)
        assert (kind.ending == PhaseEnd.REFUSED) == issubclass(kind, Refused)
    assert PhaseFailed(IdTaken("taken.")).ending == "refused"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "it broke."),
        ({"where": "a.jsonl line 3"}, "a.jsonl line 3: it broke."),
        ({"kept": "All kept."}, "it broke.\nAll kept."),
        ({"hint": "doit resume"}, "it broke.\nNext: doit resume"),
        ({"where": "w", "kept": "k", "hint": "h"}, "w: it broke.\nk\nNext: h"),
    ],
)
def test_the_text_says_what_where_what_was_kept_and_what_next(fields, text):
    assert str(TrialmakeError("it broke.", **fields)) == text


@pytest.mark.parametrize("kind", [*OWN, IdTaken], ids=lambda kind: kind.__name__)
def test_an_error_survives_the_border_between_processes(kind):
    """Under `doit -n` errors are pickled; keyword-only arguments once made that fail with a TypeError."""
    error = kind("it broke.", where="there", kept="this", hint="that")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert (copy.what, copy.where, copy.kept, copy.hint) == ("it broke.", "there", "this", "that")
    assert copy.exit_code == error.exit_code
    assert copy.args == error.args


def test_words_added_later_travel_too():
    error = errors.ProviderError("refused.")
    error.what = "refused. (3 parts have trouble)"
    assert str(pickle.loads(pickle.dumps(error))) == "refused. (3 parts have trouble)"
