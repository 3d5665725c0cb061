"""The scores of one response to one item, by the official rules of the item's benchmark.

The order is fixed: extract the answer (a configured step), ask whether it abstains, score an
abstention as the empty answer. An answer that equals a gold answer of the item never counts as an
abstention, whatever it says. What has no meaning for an item is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.errors import ConfigError
from pipeline.scoring import abstention
from pipeline.scoring.abstention_patterns import VERSIONS
from pipeline.scoring.benchmark import Benchmark, Golds
from pipeline.scoring.extraction import EXTRACTIONS
from pipeline.scoring.unsupported import Passage, Unsupported

# Rule name: nothing is left after the benchmark's normalisation ("the", "..."), officially an empty answer.
EMPTY_AFTER_NORMALISATION = "empty_after_normalisation"

SHORT = 100  # characters; what is shorter tends to come again ("unknown", "1990"), so its reading is remembered
REMEMBERED = 1 << 14  # readings of short texts, about 10 MB


@dataclass(frozen=True)
class ScoringSettings:
    """The `scoring` section of the config; the defaults are the config's."""

    extraction: str = "none"
    unsupported: str = "span"
    overlap_threshold: float = 0.6
    abstention_patterns: int = 1

    def __post_init__(self) -> None:
        _one_of("extraction", self.extraction, EXTRACTIONS)
        _one_of("unsupported", self.unsupported, Unsupported._fields)
        _one_of("abstention_patterns", self.abstention_patterns, VERSIONS)

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> ScoringSettings:
        """The settings in a validated `scoring` section. Raises ConfigError for a name that does not exist here."""
        return cls(**section)


class Numbers(NamedTuple):
    """What is averaged over the samples of an item; None where it has no meaning for the item."""

    em: int
    f1: float | None
    abstained: int
    false_answer: int | None
    unsupported: int | None
    unsupported_alt: int | None


class Score(NamedTuple):
    """One scored response: its numbers, why it counts as an abstention, and the texts that were compared.

    *normalised* is "" for an abstention; two responses with equal *normalised* gave the same answer.
    """

    numbers: Numbers
    abstain_rule: str | None
    extracted: str
    normalised: str


class ItemScorer:
    """Scores the responses to one item; each distinct text once.

    *golds* come from `benchmark.golds(answers)`; none means that the question is unanswerable.
    *passage* is None for closed-book items.
    """

    __slots__ = ("_benchmark", "_golds", "_passage", "_scores", "_settings")

    def __init__(
        self, benchmark: Benchmark, golds: Sequence[str], passage: Passage | None, settings: ScoringSettings
    ) -> None:
        self._benchmark = benchmark
        self._golds = Golds(benchmark, golds)
        self._passage = passage
        self._settings = settings
        self._scores: dict[str, Score] = {}

    def score(self, text: str) -> Score:
        """The score of the reply *text*, exactly as the model wrote it."""
        score = self._scores.get(text)
        if score is None:
            score = self._scores[text] = self._score(text)
        return score

    def _score(self, text: str) -> Score:
        extracted = EXTRACTIONS[self._settings.extraction](text)
        read = _remembered if len(extracted) <= SHORT else _reading
        tokens, normalised, rule = read(self._benchmark, self._settings.abstention_patterns, extracted)
        if rule is not None and rule != abstention.EMPTY and normalised in self._golds.texts:
            rule = None
        em = int(normalised in self._golds.texts)  # who declines in words has not written the empty answer
        if rule is not None:
            tokens, normalised = [], ""
        if self._golds.texts:
            f1 = self._golds.f1(tokens)
            false_answer = None
        else:
            # The one gold of an unanswerable question is the empty answer.
            em = int(rule is not None)
            f1 = None if self._benchmark.f1 is None else float(em)
            false_answer = 1 - em
        primary, alternative = self._unsupported(extracted, abstained=rule is not None)
        return Score(
            Numbers(em, f1, int(rule is not None), false_answer, primary, alternative), rule, extracted, normalised
        )

    def _unsupported(self, answer: str, *, abstained: bool) -> tuple[int | None, int | None]:
        """By the configured strategy and by the other one."""
        if self._passage is None:
            return None, None
        if abstained:
            return 0, 0
        span, overlap = self._passage.unsupported(answer, self._settings.overlap_threshold)
        return (span, overlap) if self._settings.unsupported == "span" else (overlap, span)


def _reading(benchmark: Benchmark, version: int, text: str) -> tuple[list[str], str, str | None]:
    """What can be said about a reply without its item: tokens, normalised text, rule of abstention."""
    tokens = benchmark.tokens(text)
    rule = abstention.rule(text, version)
    if rule is None and not tokens:
        rule = EMPTY_AFTER_NORMALISATION
    return tokens, " ".join(tokens), rule


_remembered = lru_cache(REMEMBERED)(_reading)


def _one_of(key: str, value: object, allowed: Mapping[Any, object] | Sequence[str]) -> None:
    if value not in allowed:
        names = ", ".join(str(name) for name in allowed)
        raise ConfigError(f"is {value!r}; allowed are {names}.", where=f"scoring.{key}")
