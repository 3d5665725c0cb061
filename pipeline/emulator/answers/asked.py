"""What a request asks, read from its messages and its custom_id, and the choices chance makes for it.

This is the one place that knows the message format of `build`:

    open book     "Passage:\\n<context>\\n\\nQuestion: <question>"
    closed book   "Question: <question>"

Chance is a hash of seed and custom_id, so the same row gets the same answer whenever and wherever.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

DEFAULT_ABSTENTION = "I don't know."

_PASSAGE = "Passage:\n"
_QUESTION = "Question: "
_SENTENCES = re.compile(r"(?<=[.!?;\n])\s+")
_NO_ANSWER = (
    r"(?:do(?:n['’]t| not) know|unanswerable|no answer|not (?:answerable|contain|given|stated|sure|certain|supported)"
    r"|(?:can ?not|can['’]t) (?:be )?answer(?:ed)?|abstain|insufficient|unknown|not enough)"
)
_ABSTAINS = re.compile(rf"\b{_NO_ANSWER}\b", re.IGNORECASE)
_FORBIDS = re.compile(
    rf"\b(?:never|do(?:n['’]t| not)|must not|avoid|without)\s+(?!know)(?:\w+\s+){{0,4}}[\"“'‘`]?(?:I )?{_NO_ANSWER}",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"([^\"\n]{2,60})\"|“([^”\n]{2,60})”|`([^`\n]{2,60})`|(?<!\w)['‘]([^\n]{2,60}?)['’](?!\w)")
_AFTER_COLON = re.compile(r":\s+([^\"“`\n]{2,60}?)[.!]?$")
_SHOUTED = re.compile(r"\b(UNANSWERABLE|NO[ _]ANSWER|UNKNOWN|ABSTAIN|N/A)\b")


@dataclass(frozen=True)
class Asked:
    """A request as the answerers see it. *abstention* is what the system prompt wants said when nothing fits."""

    custom_id: str
    item_id: str
    condition: str
    sample: int
    passage: str | None
    question: str
    abstention: str | None
    temperature: float


def read(custom_id: str, messages: Sequence[Any], temperature: float) -> Asked:
    """The question in *messages*; text of an unknown format counts as a question without a passage."""
    fields = custom_id.split("|")
    item_id, condition, sample = custom_id, "", "0"
    if len(fields) == 6:
        item_id, condition, sample = unquote(fields[1]), unquote(fields[2]), fields[4]
    system = "\n".join(_text(message) for message in messages if message.get("role") in ("system", "developer"))
    asked = next((_text(message) for message in reversed(messages) if message.get("role") == "user"), "")
    passage, question = _parts(asked)
    return Asked(
        custom_id,
        item_id,
        condition,
        int(sample) if sample.isdecimal() else 0,
        passage,
        question,
        abstention(system),
        temperature,
    )


@lru_cache(maxsize=256)
def abstention(system_prompt: str) -> str | None:
    """What *system_prompt* wants said when there is no answer; None when it does not ask for that.

    A phrase it quotes is used word for word. A sentence that forbids it ("never say you don't know") asks for nothing.
    """
    for sentence in _SENTENCES.split(system_prompt):
        if not _ABSTAINS.search(sentence) or _FORBIDS.search(sentence):
            continue
        phrases = ["".join(groups) for groups in _QUOTED.findall(sentence)]
        phrases += _SHOUTED.findall(sentence) + _AFTER_COLON.findall(sentence)
        return next((phrase for phrase in phrases if _ABSTAINS.search(phrase)), DEFAULT_ABSTENTION)
    return None


def chance(seed: int, custom_id: str, choice: int = 0) -> float:
    """A number in [0, 1) that belongs to this request (and this one of its choices)."""
    digest = hashlib.blake2b(f"{seed}|{choice}|{custom_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def draw(scores: Sequence[float], temperature: float, luck: float) -> int:
    """The index of one of *scores* (best first): the first at temperature 0, else by softmax of score / temperature."""
    if temperature <= 0 or len(scores) == 1:
        return 0
    weights = [math.exp((score - scores[0]) / temperature) for score in scores]
    left = luck * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(scores) - 1


def _parts(text: str) -> tuple[str | None, str]:
    if text.startswith(_PASSAGE):
        # The passage may itself hold such a line; the question is what build put last.
        passage, mark, question = text[len(_PASSAGE) :].rpartition("\n\n" + _QUESTION)
        if mark:
            return passage, question
    return None, text.removeprefix(_QUESTION)


def _text(message: Any) -> str:
    content = message.get("content")
    if isinstance(content, list):  # parts, as in multi-modal requests
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
