"""Answers that were recorded: by question for the closed book, by item id for replayed systems.

Closed book, JSON Lines:   {"question": "...", "answers": {"control": ["variant", ...], "treatment": [...]}}
Replay, one of:            {item id: answer}                          SQuAD and TriviaQA predictions
                           {item id: [answer per sample, ...]}
                           {"systems": {system: {item id: answers}}}  several systems in one file
                           {"question": "...", "prediction": "..."}   JSON Lines, NQ-Open predictions
An NQ question's item id is the first 16 hex digits of the sha256 of its NFC form. A replayed answer is
given back as it was recorded, an empty one too.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import disk, jsonl
from pipeline.emulator.answers.asked import DEFAULT_ABSTENTION, Asked, draw
from pipeline.emulator.config import Replay
from pipeline.errors import ConfigError

_GONE = "there is no such file of recorded answers."
_BRING_BACK = (
    "put it there (a copied run needs it too, for as long as an answer is missing), or change emulator.recorded or "
    "emulator.replay in the config"
)
_VARIANT_STEP = 0.5  # how much less likely each further recorded variant is, in units of temperature


class ClosedBook:
    """Recorded answers to questions without a passage."""

    def __init__(self, path: Path | None) -> None:
        self._answers: dict[str, Mapping[str, list[str]]] = {}
        if path is not None:
            for line in _lines(path):
                record = line.value
                answers: Any = record.get("answers")
                if not isinstance(record.get("question"), str) or not _is_variants(answers):
                    raise ConfigError("expected {question, answers: {condition: [text, ...]}}.", where=line.place)
                self._answers[_key(record["question"])] = answers

    def answer(self, asked: Asked, luck: float) -> str:
        """One recorded variant; for an unknown question the abstention asked for, or else a guess."""
        variants = self._answers.get(_key(asked.question), {}).get(asked.condition)
        if variants:
            scores = [-_VARIANT_STEP * number for number in range(len(variants))]
            return variants[draw(scores, asked.temperature, luck)]
        return asked.abstention or _guess(asked.question)


class ReplayedSystem:
    """The outputs of one system, by item id."""

    def __init__(self, source: Replay) -> None:
        self._answers = _predictions(source)

    def answer(self, asked: Asked) -> str | None:
        """The recorded answer; of several runs the one the sample index names. None when there is none."""
        runs = self._answers.get(asked.item_id)
        return runs[asked.sample % len(runs)] if runs else None


def question_id(question: str) -> str:
    """The item id of a question that has none of its own (NQ-Open)."""
    return hashlib.sha256(unicodedata.normalize("NFC", question).encode()).hexdigest()[:16]


class _Line:
    def __init__(self, path: Path, number: int, value: Any) -> None:
        self.place = f"{path} line {number}"
        if not isinstance(value, dict):
            raise ConfigError("expected a JSON object.", where=self.place)
        self.value: dict[str, Any] = value


def _lines(path: Path) -> list[_Line]:
    try:
        return [_Line(path, line.number, jsonl.loads(line.data)) for line in jsonl.lines(path)]
    except FileNotFoundError as error:
        raise ConfigError(_GONE, where=str(path), hint=_BRING_BACK) from error
    except jsonl.BadJson as error:
        raise ConfigError(f"{error}.", where=str(path)) from error


def _predictions(source: Replay) -> dict[str, list[str]]:
    path = source.path
    try:
        document = jsonl.loads(disk.read_bytes(path))
    except FileNotFoundError as error:
        raise ConfigError(_GONE, where=str(path), hint=_BRING_BACK) from error
    except jsonl.BadJson:  # more than one document: lines
        return _by_question(path)
    if isinstance(document, dict) and set(document) == {"question", "prediction"}:
        return _by_question(path)
    if isinstance(document, dict) and isinstance(document.get("systems"), dict):
        document = _system(document["systems"], source)
    if not isinstance(document, dict) or not document:
        raise ConfigError("expected {item id: answer}.", where=str(path))
    answers = {item_id: answer if isinstance(answer, list) else [answer] for item_id, answer in document.items()}
    for item_id, runs in answers.items():
        if not runs or not all(isinstance(run, str) for run in runs):
            raise ConfigError(f"{item_id!r}: expected a text, or a list with a text for each run.", where=str(path))
    return answers


def _by_question(path: Path) -> dict[str, list[str]]:
    answers = {}
    for line in _lines(path):
        question, prediction = line.value.get("question"), line.value.get("prediction")
        if not isinstance(question, str) or not isinstance(prediction, str):
            raise ConfigError("expected {question, prediction}.", where=line.place)
        answers[question_id(question)] = [prediction]
    return answers


def _system(systems: Mapping[str, Any], source: Replay) -> Any:
    if source.system is None and len(systems) == 1:
        return next(iter(systems.values()))
    if source.system is None or source.system not in systems:
        raise ConfigError(
            f"system {source.system!r} is not in this file.",
            where=str(source.path),
            hint=f"name one of: {', '.join(sorted(systems))}",
        )
    return systems[source.system]


def _is_variants(answers: Any) -> bool:
    return isinstance(answers, dict) and all(
        isinstance(variants, list) and variants and all(isinstance(text, str) for text in variants)
        for variants in answers.values()
    )


def _key(question: str) -> str:
    return " ".join(unicodedata.normalize("NFC", question).casefold().split())


def _guess(question: str) -> str:
    """A short wrong answer made of the question's own words, as a model that must not abstain would give."""
    words = [word.strip("?.,!\"'") for word in question.split()[1:]]
    named = [word for word in words if word[:1].isupper()]
    return " ".join(named[:2]) or max(words, key=len, default="") or DEFAULT_ABSTENTION
