"""Does an answer say something that its passage does not? A screening heuristic, not entailment.

`span`: the whole answer stands in the passage, on token boundaries. `overlap`: enough of its distinct
content words do. Both compare lower-case tokens cut at punctuation (so `20` is found in `20-storey`)
without articles. A wrong answer copied from the passage counts as supported, a right paraphrase as
unsupported: this measures copying, not correctness (figures in `tests/test_scoring_unsupported.py`).
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.scoring.benchmark import ARTICLES, PUNCTUATION_TO_SPACE, without_articles, words

# Marks outside ASCII that punctuate like their ASCII relatives: quotes, dashes, ellipsis, bullets, brackets.
_MARKS = "‘’‚“”„´«»‹›–—―−…·•"

# Function words, question words, and the words with which a reply introduces itself ("The answer is ...").
_FUNCTION_WORDS = """
am and are as at be because been being both but by can could did do does doing during each for from had has have
having he her hers him his how i if in into is it its itself me more most my of on or other our s she should so
some such t than that their them then there these they this those through to too under until up very was we were
what when where which while who whom whose why will with would you your
according answer context mentioned passage question stated text
"""
_STOP_WORDS = ARTICLES.union(_FUNCTION_WORDS.split())


class Unsupported(NamedTuple):
    """The verdict of each strategy; None where it is not defined because nothing is left to look for."""

    span: bool | None
    overlap: bool | None


class Passage:
    """A passage made ready for many answers."""

    __slots__ = ("_content", "_padded", "_words")

    def __init__(self, text: str) -> None:
        found = _words(text)
        self._padded = _padded(found)
        self._words = ARTICLES.union(found)
        self._content = self._words - _STOP_WORDS

    def unsupported(self, answer: str, threshold: float) -> Unsupported:
        """Judge *answer*; by overlap it is unsupported when less than *threshold* of its content words are found."""
        said = set(found := _words(answer))
        if said <= ARTICLES:
            return Unsupported(None, None)
        # The words first: most answers that are no span of the passage hold a word that it lacks.
        span = said <= self._words and _padded(found) in self._padded
        content = len(said) - len(said & _STOP_WORDS)
        return Unsupported(not span, len(said & self._content) < threshold * content if content else None)


def _padded(found: list[str]) -> str:
    return f" {' '.join(without_articles(found))} "


def _words(text: str) -> list[str]:
    text = text.lower()
    if not text.isascii():
        for mark in _MARKS:
            text = text.replace(mark, " ")
    return words(text, PUNCTUATION_TO_SPACE)
