"""An extractive question answerer without training: it reads the passage and the question, nothing else.

1. Sentences are scored by the idf-weighted share of the question's content words they hold.
2. In the best ones, spans of the type the question word asks for (a date, a number, a name, a reason, a
   noun phrase) are scored by nearness to the matched words, less what they repeat of the question.
3. If the system prompt asks for it, abstaining competes with a score of its own.

The method is that of the sliding-window and distance baselines of Richardson et al. 2013 (MCTest) and
Rajpurkar et al. 2016 (SQuAD), with answer types. A passage and a question are each analysed once.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pipeline.emulator.answers.asked import DEFAULT_ABSTENTION, Asked, draw

_BEST_SENTENCES = 3
_BEST_SPANS = 5
_SPREAD = 0.35  # scores this far apart differ by a factor e at temperature 1
_ABSTAIN_AT = 0.9  # score at which answering and abstaining are level; set on 1,000 SQuAD v2 dev questions, 2026-11
_NAME_BONUS = 0.1  # names answer "what" more often than other noun phrases do
_VERB_MALUS = 0.15  # a span that is one word in -ed or -ing is seldom an answer
_FADING = 0.05  # per character: at 20 characters a matched word counts half
_SPAN_WORDS = 12  # no longer answers, except for reasons
_REASON_WORDS = 20

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z0-9])")
_TOKEN = re.compile(r"\w+(?:[-'’./]\w+|,\d{3}\b)*%?|[^\w\s]")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:(?:\d{{1,2}} )?(?:{_MONTHS})(?: \d{{1,2}}(?:st|nd|rd|th)?)?(?:,? \d{{4}})?|(?:early |late |mid-)?\d{{4}}s|"
    r"(?:early |late |mid-)?(?:the )?\d{1,2}(?:st|nd|rd|th) centur(?:y|ies)|1\d{3}|20\d{2}|\d+ (?:BC|AD|BCE|CE))\b"
)
_NUMBER = re.compile(
    r"(?:[$£€]\s?)?\b(?:\d[\d,.]*\d|\d|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|"
    r"forty|fifty|hundreds?|thousands?|half|dozens?)\b(?:[- ](?:hundred|thousand|million|billion|trillion|percent))*%?",
    re.IGNORECASE,
)
_NUMBER_UNIT = re.compile(r"\s?(?:[a-z°]+/[a-z]+|[a-zA-Z°%]+)")
_REASON = re.compile(r"\b(?:because(?: of)?|due to|owing to|in order to|so that|as a result of|by|to|for|since)\s+")
_CLAUSE_END = re.compile(r"[,;:.()]|\s(?:which|who|and|but|while|when)\s")
_FUNCTION_WORDS = """
    a an the of in on at to for from by with and or but nor as is are was were be been being am do does did done has
    have had having that this these those it its he she they them their his her him we our us you your i my me not no
    than then there here which who whom whose what when where why how will would can could should may might must shall
    also such into over under after before during about between through against among within without up down out off
    so if because while although though however both each more most other some any all many much few only very own
    same too s t one
"""
_STOPWORDS = frozenset(_FUNCTION_WORDS.split())
_QUESTION_WORDS = re.compile(r"\b(who|whom|whose|when|where|why|how|what|which)\b", re.IGNORECASE)
_AMOUNT = re.compile(r"\bhow (many|much|long|far|old|tall|large|big|fast|often|high|deep)\b", re.IGNORECASE)
_TIME_NOUN = re.compile(r"\b(?:what|which) (?:\w+ )?(year|date|month|decade|century|day|time)\b", re.IGNORECASE)
_NUMBER_NOUN = re.compile(r"\bwhat (?:\w+ )?(percent|percentage|number|amount|size|population|rate)\b", re.IGNORECASE)
_NAME_NOUN = re.compile(
    r"\b(?:what|which) (?:\w+ )?(person|man|woman|king|queen|leader|scientist|author|writer|country|city|state|river|"
    r"town|company|organization|group|party|university|school|name|region|island|war|battle|president|place|nation)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Word:
    stem: str  # "" for punctuation
    start: int
    end: int
    is_content: bool
    is_name: bool


@dataclass(frozen=True)
class _Sentence:
    text: str
    words: tuple[_Word, ...]
    stems: frozenset[str]


@dataclass(frozen=True)
class _Passage:
    sentences: tuple[_Sentence, ...]
    idf: dict[str, float]
    rare: float  # idf of a word the passage does not hold


def answer(asked: Asked, luck: float) -> str:
    """The best span of the passage, or the abstention the system prompt asks for.

    At temperature 0 the best, above it one of the best few, chosen by *luck* in [0, 1).
    """
    options = [(score, text) for text, score in _ranked(asked.passage or "", asked.question)]
    if asked.abstention is not None:
        options.append((_ABSTAIN_AT, asked.abstention))
        options.sort(key=lambda option: -option[0])
    if not options:
        return asked.abstention or DEFAULT_ABSTENTION
    scores = [score / _SPREAD for score, _ in options]
    return options[draw(scores, asked.temperature, luck)][1]


@lru_cache(maxsize=8192)
def _ranked(passage: str, question: str) -> tuple[tuple[str, float], ...]:
    analysed = _analyse(passage)
    wanted = frozenset(word.stem for word in _words(_QUESTION_WORDS.sub(" ", question)) if word.is_content)
    total = sum(analysed.idf.get(stem, analysed.rare) for stem in wanted) or 1.0
    by_overlap = sorted(
        (
            (sum(analysed.idf[stem] for stem in wanted & sentence.stems) / total, -number)
            for number, sentence in enumerate(analysed.sentences)
        ),
        reverse=True,
    )
    find, typed = _span_finder(question)
    best: dict[str, float] = {}
    for overlap, number in by_overlap[:_BEST_SENTENCES]:
        sentence = analysed.sentences[-number]
        matched = [
            (word.start, word.end, analysed.idf[word.stem] / total)
            for word in sentence.words
            if word.is_content and word.stem in wanted
        ]
        for start, end, fit in _spans(sentence, find, typed):
            text = sentence.text[start:end]
            if " " not in text and text.endswith(("ed", "ing", "known")):
                fit -= _VERB_MALUS
            score = overlap + fit + _nearness(start, end, matched)
            best[text] = max(score, best.get(text, score))
    return tuple(sorted(best.items(), key=lambda item: (-item[1], item[0]))[:_BEST_SPANS])


@lru_cache(maxsize=2048)
def _analyse(passage: str) -> _Passage:
    sentences = []
    for text in _SENTENCE_END.split(passage):
        words = tuple(_words(text))
        sentences.append(_Sentence(text, words, frozenset(word.stem for word in words if word.is_content)))
    frequency = Counter(stem for sentence in sentences for stem in sentence.stems)
    idf = {stem: math.log(1 + len(sentences) / count) for stem, count in frequency.items()}
    return _Passage(tuple(sentences), idf, math.log(1 + len(sentences)) * 1.2)


def _words(text: str) -> Iterator[_Word]:
    for match in _TOKEN.finditer(text):
        token = match.group()
        lower = token.lower()
        is_word = token[0].isalnum()
        is_content = is_word and lower not in _STOPWORDS
        is_name = is_content and (token[0].isupper() or token[0].isdigit())
        yield _Word(_stem(lower) if is_word else "", match.start(), match.end(), is_content, is_name)


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("’s")
    for suffix in ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "ed", "es", "ly", "al", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 4:
            return word[: -len(suffix)]
    return word


_Finder = Callable[[_Sentence], Iterator[tuple[int, int]]]


def _span_finder(question: str) -> tuple[_Finder, float]:
    """What kind of span the question asks for, and how much more such a span is worth than any noun phrase."""
    first = _QUESTION_WORDS.search(question)
    word = first.group().lower() if first else ""
    if word == "when" or _TIME_NOUN.search(question):
        return _dates, 0.5
    if amount := _AMOUNT.search(question):
        return (_numbers if amount.group(1).lower() == "many" else _amounts), 0.5
    if _NUMBER_NOUN.search(question):
        return _amounts, 0.4
    if word in ("who", "whom", "whose", "where") or _NAME_NOUN.search(question):
        return _names, 0.3
    if word in ("why", "how"):
        return _reasons, 0.2
    return _phrases, 0.0


def _spans(sentence: _Sentence, find: _Finder, typed: float) -> Iterator[tuple[int, int, float]]:
    for start, end in find(sentence):
        yield start, end, typed
    if typed:
        for start, end in _phrases(sentence):
            yield start, end, 0.0
    else:
        for start, end in _names(sentence):
            yield start, end, _NAME_BONUS


def _dates(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _DATE.finditer(sentence.text))


def _numbers(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _NUMBER.finditer(sentence.text))


def _amounts(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    for match in _NUMBER.finditer(sentence.text):
        unit = _NUMBER_UNIT.match(sentence.text, match.end())
        yield match.start(), unit.end() if unit else match.end()


def _reasons(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    for match in _REASON.finditer(sentence.text):
        stop = _CLAUSE_END.search(sentence.text, match.end())
        end = stop.start() if stop else len(sentence.text.rstrip(" ."))
        if 0 < sentence.text.count(" ", match.end(), end) + 1 <= _REASON_WORDS:
            yield match.end(), end


def _names(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    return _runs(sentence, lambda word: word.is_name and not word.stem[0].isdigit())


def _phrases(sentence: _Sentence) -> Iterator[tuple[int, int]]:
    return _runs(sentence, lambda word: word.is_content)


def _runs(sentence: _Sentence, belongs: Callable[[_Word], bool]) -> Iterator[tuple[int, int]]:
    """Maximal runs of words that belong; a run goes on over a single "of", "the" or "and" between names."""
    words, index = sentence.words, 0
    while index < len(words):
        if not belongs(words[index]):
            index += 1
            continue
        first = last = index
        while index + 1 < len(words):
            if belongs(words[index + 1]):
                index += 1
            elif (
                index + 2 < len(words)
                and words[index].is_name
                and words[index + 2].is_name
                and words[index + 1].stem in ("of", "the", "and", "de")
            ):
                index += 2
            else:
                break
            last = index
        if last - first < _SPAN_WORDS:
            yield words[first].start, words[last].end
        index += 1


def _nearness(start: int, end: int, matched: list[tuple[int, int, float]]) -> float:
    """Matched words (start, end, weight) by their distance from a span; those inside count against it."""
    near = 0.0
    for word_start, word_end, weight in matched:
        if word_end <= start:
            near += weight / (1 + _FADING * (start - word_end))
        elif word_start >= end:
            near += weight / (1 + _FADING * (word_start - end))
        else:
            near -= weight
    return near
