"""What a submission will cost, before it is made.

Input tokens are estimated from the text (about four bytes of UTF-8 a token), output tokens from the
limit that is sent. The provider's own counts replace the estimate as soon as a job ended (`budget.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import jsonl, plain, trials
from pipeline.config import Config
from pipeline.trials import Trial

# English prose under byte-pair encodings; 3.2 and 4.8 bound most texts. Bytes, not characters: a Chinese
# character has three bytes and costs about one token, not a quarter.
BYTES_PER_TOKEN = 4.0
_LOW, _HIGH = 4.8, 3.2
_MESSAGE_TOKENS = 4  # what a chat template adds per message
_UNKNOWN_LIMIT = 512  # output tokens assumed where no limit is sent
_TYPICAL_SHARE = 0.3  # of the limit; short answers rarely use it all


@dataclass(frozen=True)
class Price:
    """US dollars per token of one model in batch mode; None where the price is not known.

    *missing* names the model that has none in the config, which is no price of 0, though the emulator asks for none.
    """

    input: float | None
    output: float | None
    cached: float | None
    missing: str = ""

    @classmethod
    def of(cls, config: Config, trial: Trial) -> Price:
        """The batch price of the trial's model by the config; the emulator is free."""
        listed = _listed(config, trial.model, trial.alias)
        return cls._of(config, listed, "" if listed else without_price(config, trial))

    @classmethod
    def of_model(cls, config: Config, model: str) -> Price:
        """The same for a model that the config may no longer have."""
        return cls._of(config, _listed(config, model, trials.alias({"id": model})), model)

    @classmethod
    def _of(cls, config: Config, listed: Mapping[str, float] | None, missing: str) -> Price:
        if listed is None:
            free = 0.0 if config["provider"] == "emulator" else None
            return cls(free, free, free, missing)
        prices = config["prices"]
        share = (1 - prices["batch_discount"]) / 1e6
        input_price = listed["input_per_mtok"] * share
        return cls(input_price, listed["output_per_mtok"] * share, input_price * (1 - prices["cached_discount"]))

    def usd(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0) -> float | None:
        """The cost of these tokens, cached ones being part of the input; None when the price is not known."""
        if self.input is None or self.output is None or self.cached is None:
            return None
        return (input_tokens - cached_tokens) * self.input + cached_tokens * self.cached + output_tokens * self.output


class Tokens(NamedTuple):
    """Tokens that the provider counted: read, written, and those of the first that it had cached."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Estimate:
    """Tokens of a file of requests: input (low, expected, high), output expected and at most."""

    rows: int
    input_low: int
    input_tokens: int
    input_high: int
    output_expected: int
    output_tokens: int

    def usd(self, price: Price) -> tuple[float, float, float] | None:
        """(low, expected, high) in US dollars; None when the price is not known."""
        low = price.usd(self.input_low, 0)
        expected = price.usd(self.input_tokens, self.output_expected)
        high = price.usd(self.input_high, self.output_tokens)
        return None if low is None or expected is None or high is None else (low, expected, high)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.rows + other.rows,
            self.input_low + other.input_low,
            self.input_tokens + other.input_tokens,
            self.input_high + other.input_high,
            self.output_expected + other.output_expected,
            self.output_tokens + other.output_tokens,
        )

    def share(self, rows: int) -> Estimate:
        """What *rows* of these rows will use, on average."""
        return Estimate(rows, *(round(value * rows / max(self.rows, 1)) for value in list(vars(self).values())[1:]))


NOTHING = Estimate(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Planned:
    """What an invocation is about to submit, all parts together; *usd* is (low, expected, high), None when unknown.

    *listed* is the same for the models that have a price, None where none has; *unpriced* names the others. *trials*
    are those the parts are of; *sent* is the most that what the invocation submitted before may cost.
    """

    parts: int = 0
    estimate: Estimate = NOTHING
    usd: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
    listed: tuple[float, float, float] | None = None
    unpriced: tuple[str, ...] = ()
    trials: frozenset[str] = frozenset()
    sent: float | None = 0.0

    def with_part(self, estimate: Estimate, price: Price, trial: str) -> Planned:
        """The same and one part of *trial* more."""
        usd = estimate.usd(price)
        total = None if usd is None or self.usd is None else add(self.usd, usd)
        listed, unpriced = self.listed, self.unpriced
        if price.missing:
            unpriced = tuple(dict.fromkeys((*unpriced, price.missing)))
        elif usd is not None:
            listed = usd if listed is None else add(listed, usd)
        return Planned(self.parts + 1, self.estimate + estimate, total, listed, unpriced, self.trials | {trial})

    @property
    def at_most(self) -> float | None:
        """The most that the whole invocation may cost, in US dollars; None when that is not known."""
        return None if self.usd is None or self.sent is None else self.usd[2] + self.sent

    @property
    def cost(self) -> str:
        """The price in words; a model without one is named, since what is not counted looks like nothing."""
        notes = [f"no price for {name}: not counted" for name in self.unpriced]
        usd = self.listed if self.unpriced else self.usd
        if usd is not None:
            low, expected, high = map(plain.usd, usd)
            return f"for about {expected} ({'; '.join([f'{low} to at most {high}', *notes])})"
        what = "at an unknown price" if self.usd is None else "free with the emulator"
        return f"{what} ({'; '.join(notes)})" if notes else what


def add(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float, float]:
    """Low, expected and high costs together."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def total(costs: Iterable[float | None]) -> float | None:
    """All of them together; None where one is not known."""
    together = 0.0
    for usd in costs:
        if usd is None:
            return None
        together += usd
    return together


def of_requests(requests: Path) -> Estimate:
    """Tokens that the requests in *requests* will use, from their text and limits."""
    total = NOTHING
    for line in jsonl.lines(requests):
        total += of_body(jsonl.loads(line.data)["body"], 1)
    return total


def of_body(body: Mapping[str, Any], times: int) -> Estimate:
    """Tokens of one request body asked *times* times."""
    texts = [message["content"] for message in body["messages"]]
    size = sum(len(text.encode()) for text in texts)
    overhead = _MESSAGE_TOKENS * len(texts)
    low, typical, high = (times * (int(size / rate) + overhead) for rate in (_LOW, BYTES_PER_TOKEN, _HIGH))
    limit = body.get("max_tokens", _UNKNOWN_LIMIT)
    return Estimate(times, low, typical, high, times * max(1, int(limit * _TYPICAL_SHARE)), times * limit)


def ledger_estimate(planned: Estimate, price: Price) -> dict[str, Any]:
    """What the intent keeps of an estimate: the most it may cost, which is what the budget counts."""
    usd = planned.usd(price)
    return {
        "input_tokens": planned.input_high,
        "output_tokens": planned.output_tokens,
        "usd": None if usd is None else usd[2],
    }


def _listed(config: Config, model: str, alias: str) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = config["prices"]["models"].get(config.price_key(model, alias))
    return found


def without_price(config: Config, trial: Trial) -> str:
    """The trial's model, which has no price, and the entry that may have been meant for it.

    A price list may well name models that are not asked, so such an entry is no error by itself.
    """
    if not config["prices"]["models"]:
        return trial.model
    used = {name for model in config["models"] for name in (model["id"], trials.alias(model))}
    strays = [name for name in config["prices"]["models"] if name not in used]
    for wanted in (trial.alias, trial.model):
        if close := difflib.get_close_matches(wanted, strays, n=1, cutoff=0.75):
            return f"{trial.model} (prices.models has {close[0]!r}; did you mean {wanted!r}?)"
    return trial.model
