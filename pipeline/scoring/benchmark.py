"""What a benchmark is to the scorer, and the text work that all of them share.

The official scripts normalise with a generator over characters and a regular expression over the
whole text. Here punctuation goes by `bytes.translate` on UTF-8 (ASCII bytes never stand inside a
longer character, so this is exact) and articles go by token, except where an article touches a
character that is neither letter, digit nor space: only there the regular expression sees more.
`tests/test_scoring_benchmarks.py` holds both against the official functions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import filterfalse

PUNCTUATION = string.punctuation.encode()  # the 32 ASCII characters that all three official scripts treat alike
PUNCTUATION_TO_SPACE = bytes.maketrans(PUNCTUATION, b" " * len(PUNCTUATION))

ARTICLES = frozenset({"a", "an", "the"})

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_ARTICLE_FIRST = re.compile(r"(?:a|an|the)\b")  # in the first four characters: an article and what ends it
_ARTICLE_LAST = re.compile(r"\b(?:a|an|the)\Z")  # likewise in the last four
# ASCII that cannot put a word boundary inside a token: letters, digits, and what str.split cuts at.
_PLAIN = (string.ascii_letters + string.digits + string.whitespace + "\x1c\x1d\x1e\x1f").encode()


@dataclass(frozen=True)
class Benchmark:
    """One benchmark's official rules.

    *tokens* is its normalisation, cut at spaces. *f1* maps (shared, predicted, gold) token counts to
    the official F1; None where the benchmark has no official F1. *keeps_empty_golds* tells whether a
    gold answer that normalises to nothing still counts.
    """

    name: str
    tokens: Callable[[str], list[str]]
    f1: Callable[[int, int, int], float] | None
    keeps_empty_golds: bool

    def normalise(self, text: str) -> str:
        """*text* as the official script compares it."""
        return " ".join(self.tokens(text))

    def golds(self, answers: Iterable[str]) -> tuple[str, ...]:
        """The distinct gold answers, normalised, in order; none means that the question is unanswerable."""
        distinct = dict.fromkeys(map(self.normalise, answers))
        return tuple(gold for gold in distinct if gold or self.keeps_empty_golds)


class Golds:
    """The gold answers of one item, indexed by token so that a long answer meets each gold once."""

    __slots__ = ("_f1", "_sizes", "_tokens", "texts")

    def __init__(self, benchmark: Benchmark, golds: Sequence[str]) -> None:
        self.texts = frozenset(golds)
        self._f1 = benchmark.f1
        counts = [Counter(gold.split()) for gold in golds]
        self._sizes = [count.total() for count in counts]
        self._tokens: dict[str, list[tuple[int, int]]] = {}
        for number, count in enumerate(counts):
            for token, times in count.items():
                self._tokens.setdefault(token, []).append((number, times))

    def f1(self, tokens: Sequence[str]) -> float | None:
        """The best token F1 of an answer against any gold; None where the benchmark has no official F1."""
        if self._f1 is None:
            return None
        predicted = len(tokens)
        if not predicted:
            return max((self._f1(0, 0, size) for size in self._sizes), default=0.0)
        shared: dict[int, int] = {}
        for token in self._tokens.keys() & tokens:
            times = tokens.count(token)
            for number, wanted in self._tokens[token]:
                shared[number] = shared.get(number, 0) + min(times, wanted)
        return max((self._f1(same, predicted, self._sizes[number]) for number, same in shared.items()), default=0.0)


def overlap_f1(shared: int, predicted: int, gold: int) -> float:
    """F1 of token multisets, 0 without overlap; the official scripts' operations, so that the last bit agrees."""
    if shared == 0:
        return 0.0
    precision = 1.0 * shared / predicted
    recall = 1.0 * shared / gold
    return (2 * precision * recall) / (precision + recall)


def tokens_without_articles(text: str, table: bytes | None, deleted: bytes = b"") -> list[str]:
    """Tokens of *text* (lower case already) after mapping ASCII by *table*, deleting *deleted*, dropping articles.

    The same as `re.sub(r"\\b(a|an|the)\\b", " ", text).split()`, provided `_` is mapped or deleted.
    """
    return list(without_articles(words(text, table, deleted)))


def without_articles(tokens: Iterable[str]) -> Iterator[str]:
    """Those of *tokens* that are no article."""
    return filterfalse(ARTICLES.__contains__, tokens)


def words(text: str, table: bytes | None, deleted: bytes = b"") -> list[str]:
    """As `tokens_without_articles`, with those articles left in that are a token of their own."""
    # surrogatepass: a text with a lone surrogate is scored like any other
    data = text.encode("utf-8", "surrogatepass").translate(table, deleted)
    mapped = data.decode("utf-8", "surrogatepass")
    if odd := data.translate(None, _PLAIN):
        marks = {char for char in odd.decode("utf-8", "surrogatepass") if not char.isalnum()}
        if any(_touches_article(mapped, mark) for mark in marks):
            mapped = _ARTICLE.sub(" ", mapped)
    return mapped.split()


def _touches_article(text: str, mark: str) -> bool:
    return any(_ARTICLE_FIRST.match(piece[:4]) or _ARTICLE_LAST.search(piece[-4:]) for piece in text.split(mark))
