"""Does an answer say something that its passage does not? A screening heuristic, not entailment.

`span`: the whole answer stands in the passage, on token boundaries. `overlap`: enough of its distinct
content words do. Both compare lower-case tokens cut at punctuation (so `20` is found in `20-storey`)
without articles. Wrong answers copied from the passage count as supported, paraphrases as
unsupported; see the known limits in the scoring notes before citing either.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.scoring.benchmark import PUNCTUATION_TO_SPACE, tokens_without_articles

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
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())


class Unsupported(NamedTuple):
    """The verdict of each strategy; None where it is not defined because nothing is left to look for."""

    span: bool | None
    overlap: bool | None


class Passage:
    """A passage made ready for many answers."""

    __slots__ = ("_padded", "_words")

    def __init__(self, text: str) -> None:
        tokens = _tokens(text)
        self._padded = f" {' '.join(tokens)} "
        self._words = frozenset(tokens)

    def unsupported(self, answer: str, threshold: float) -> Unsupported:
        """Judge *answer*; by overlap it is unsupported when less than *threshold* of its content words are found."""
        tokens = _tokens(answer)
        if not tokens:
            return Unsupported(None, None)
        # The words first: most answers that are no span of the passage hold a word that it lacks.
        span = self._words.issuperset(tokens) and f" {' '.join(tokens)} " in self._padded
        content = set(tokens) - _STOP_WORDS
        overlap = len(content & self._words) < threshold * len(content) if content else None
        return Unsupported(not span, overlap)


def _tokens(text: str) -> list[str]:
    text = text.lower()
    if not text.isascii():
        for mark in _MARKS:
            text = text.replace(mark, " ")
    return tokens_without_articles(text, PUNCTUATION_TO_SPACE)
