"""One request row in, one chat completion or one row error out: a function of seed and row alone.

Tokens by a simple rule: one token per started four bytes of UTF-8, and four more per message. The
tokens of the system prompt count as cached, as a prompt cache would serve a prefix that every row
shares. Ids and `created` are hashes of the row, so a repeated row repeats its answer byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.emulator.answers import asked as asking
from pipeline.emulator.answers import baseline
from pipeline.emulator.answers.recorded import ClosedBook, ReplayedSystem
from pipeline.emulator.config import Config

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
_CREATED_FROM = 1_788_000_000  # seconds since the epoch: late August 2026, when the live captures were made
_DEFAULT_TEMPERATURE = 1.0  # of the chat completions API

# Parameters of the service's chat completions; any other key fails its row, as was seen live.
_PARAMETERS = """
    messages prompt_token_ids model max_tokens max_completion_tokens temperature top_p top_k min_p typical_p n stop
    seed presence_penalty frequency_penalty repetition_penalty logit_bias logprobs top_logprobs response_format tools
    tool_choice parallel_tool_calls reasoning_effort reasoning_history thinking user echo ignore_eos stream
    stream_options prompt_truncate_len context_length_exceeded_behavior mirostat_target mirostat_lr metadata
    service_tier prompt_cache_key prompt_cache_isolation_key raw_output perf_metrics_in_response prediction
"""
_BODY_KEYS = frozenset(_PARAMETERS.split())
_WHOLE_NUMBERS = ("n", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class JobSettings:
    """What a job says for all its rows; a row's own parameters win."""

    model: str
    system_prompt: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A completion or an error, never both."""

    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class Answerer:
    """Answers rows after *config*: a replayed system for its condition, else baseline and recorded answers.

    Raises ConfigError when a file of recorded answers cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._seed = config.seed
        self._closed_book = ClosedBook(config.recorded)
        self._replayed = {condition: ReplayedSystem(source) for condition, source in config.replay.items()}

    def complete(self, custom_id: str, body: Mapping[str, Any], job: JobSettings) -> Outcome:
        """What the service answers to one row that passed validation."""
        for key in body:
            if key not in _BODY_KEYS:
                return _refused(f"Extra inputs are not permitted, field: '{key}'", 400)
        if body.get("model", job.model) != job.model:
            return _refused(f"model {body['model']!r} is not the model of the job", 400)
        parameters = {**job.defaults, **{key: value for key, value in body.items() if value is not None}}
        for name in _WHOLE_NUMBERS:
            value = parameters.get(name, 1)
            if type(value) is not int or value < 1:
                return _refused(f"{name}: {value!r} is not a positive whole number", 400)
        temperature = parameters.get("temperature", _DEFAULT_TEMPERATURE)
        if type(temperature) not in (int, float) or temperature < 0:
            return _refused(f"temperature: {temperature!r} is not a number, 0 or more", 400)
        messages = list(parameters.get("messages") or [])
        if job.system_prompt and messages and messages[0].get("role") != "system":
            messages.insert(0, {"role": "system", "content": job.system_prompt})
        question = asking.read(custom_id, messages, float(temperature))
        texts = [self._answer(question, choice) for choice in range(parameters.get("n", 1))]
        if None in texts:
            return _refused(f"no answer is recorded for item {question.item_id!r} of {question.condition!r}", 404)
        known = [text for text in texts if text is not None]
        return Outcome(response=_completion(custom_id, body, job.model, messages, parameters, known))

    def _answer(self, question: asking.Asked, choice: int) -> str | None:
        if (system := self._replayed.get(question.condition)) is not None:
            return system.answer(question)
        luck = asking.chance(self._seed, question.custom_id, choice)
        if question.passage is not None:
            return baseline.answer(question, luck)
        return self._closed_book.answer(question, luck)


def tokens(text: str) -> int:
    """Tokens of *text* by the emulator's rule."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _completion(
    custom_id: str,
    body: Mapping[str, Any],
    model: str,
    messages: list[Any],
    parameters: Mapping[str, Any],
    texts: list[str],
) -> dict[str, Any]:
    digest = hashlib.sha256(orjson.dumps([custom_id, body], option=orjson.OPT_SORT_KEYS)).hexdigest()
    limit = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    stops = parameters.get("stop") or []
    choices, completion_tokens = [], 0
    for index, full in enumerate(texts):
        text, reason = _limited(full, [stops] if isinstance(stops, str) else stops, limit)
        completion_tokens += tokens(text)
        choices.append({"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reason})
    sizes = [tokens(_content(message)) + TOKENS_PER_MESSAGE for message in messages]
    prompt_tokens = sum(sizes) + len(parameters.get("prompt_token_ids") or [])
    cached = sizes[0] if messages and messages[0].get("role") == "system" else 0
    return {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": _CREATED_FROM + int(digest[24:32], 16) % 86_400,
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _limited(text: str, stops: list[Any], limit: int | None) -> tuple[str, str]:
    """*text* up to the first stop sequence and within *limit* tokens, and why it ended."""
    for stop in stops:
        if isinstance(stop, str) and stop:
            text = text.partition(stop)[0]
    if limit is not None and tokens(text) > limit:
        kept = text.encode()[: limit * BYTES_PER_TOKEN]
        return kept.decode("utf-8", "ignore"), "length"
    return text, "stop"


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "" if content is None else orjson.dumps(content).decode()


def _refused(message: str, code: int) -> Outcome:
    return Outcome(error={"message": message, "code": code})
