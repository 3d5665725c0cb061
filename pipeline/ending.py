"""What a run came to, for its last words at the terminal: verdicts, missing answers, money.

Read from the artifacts that the reports were made of, so that both say the same. A trial whose results
are the earlier tool's, in its own format, has its report and no verdict here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import disk, jsonl, plain, schema
from pipeline.errors import TrialmakeError
from pipeline.report.artifacts import Block, Json, answers_missing, blocks
from pipeline.report.text import is_point, listed, p_phrase, points, points_span
from pipeline.report.verdict import TYPE_NAMES, judged

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

_PLACES = 12  # lines that are read; more are summed up by trial
_SHOWN = 10  # trials

Line = tuple[str, str]  # words, tone


@dataclass(frozen=True)
class Place:
    """What one treatment did to right answers, for one type of question at one temperature."""

    trial: str
    treatment: str
    control: str
    where: str
    verdict: str
    tone: str
    delta: float | None
    ci_95: Sequence[float] | None
    q: float | None


@dataclass(frozen=True)
class Ending:
    """The results of the trials that are finished; *usd* is what those with a list price cost, None without any."""

    places: tuple[Place, ...]
    asked: int
    missing: int
    usd: float | None
    unpriced: tuple[str, ...]  # models without a list price
    uncounted: int  # answers that came without token counts, and that a list price would make a cost of
    emulated: bool

    def lines(self) -> Iterator[Line]:
        """Verdict, missing answers and cost, each with its tone: good, bad or open."""
        if self.places:
            yield from self._by_place() if len(self.places) <= _PLACES else self._by_trial()
        missing = f"{self.missing:,}" if self.missing else "none"
        yield f"missing: {missing} of {self.asked:,} answers", "bad" if self.missing else "open"
        yield f"cost: {'; '.join(self._cost())}", "open"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "verdicts": [vars(place) for place in self.places],
            "asked": self.asked,
            "missing": self.missing,
            "usd": None if self.unpriced or self.uncounted else self.usd,
            "unpriced": list(self.unpriced),
            "uncounted": self.uncounted,
        }

    def _cost(self) -> Iterator[str]:
        """What has a price is summed, what has none is named: it is unknown, not free."""
        if self.usd is not None:
            yield f"{plain.usd(self.usd)}{' by list price' if self.emulated or self.unpriced or self.uncounted else ''}"
        if self.unpriced:
            yield f"no list price for {listed(self.unpriced)}: not counted"
        if self.uncounted:
            yield f"{self.uncounted:,} answers came without token counts: not counted"
        if self.emulated:
            yield "the emulator charges nothing"

    def _by_place(self) -> Iterator[Line]:
        heads = list(dict.fromkeys((place.trial, place.treatment, place.control) for place in self.places))
        for trial, treatment, control in heads:
            here = [place for place in self.places if (place.trial, place.treatment) == (trial, treatment)]
            yield f"{trial}: right answers with {treatment} instead of {control}, in points", "open"
            cells = plain.columns([(f"  {place.where}", place.verdict, *_figures(place)) for place in here])
            yield from zip(cells, (place.tone for place in here), strict=True)

    def _by_trial(self) -> Iterator[Line]:
        of: dict[tuple[str, str], list[Place]] = {}
        for place in self.places:
            of.setdefault((place.trial, place.treatment), []).append(place)
        means = {entry: _mean(places) for entry, places in of.items()}
        ranked = sorted(of, key=lambda entry: (means[entry] is None, -(means[entry] or 0.0), entry))
        yield "right answers with a treatment instead of its control, in points on average, best first", "open"
        rows = []
        for trial, treatment in ranked[:_SHOWN]:
            verdicts = Counter(place.verdict for place in of[trial, treatment])
            said = ", ".join(f"{verdict} {times}x" for verdict, times in verdicts.most_common())
            rows.append((f"  {trial}", treatment, _ascii(points(means[trial, treatment])), said))
        yield from ((line, "open") for line in plain.columns(rows))
        if len(ranked) > _SHOWN:
            yield f"  and {len(ranked) - _SHOWN} more", "open"


def ending(work: Workspace, slugs: Sequence[str]) -> Ending:
    """What the finished trials *slugs* came to."""
    places: list[Place] = []
    asked = missing = 0
    priced: list[float] = []
    unpriced: dict[str, None] = {}
    uncounted = 0
    ours = [
        schema.load(name)["properties"]["schema_version"]["const"] for name in ("significance.schema", "costs.schema")
    ]
    for slug in slugs:
        paths = work.trial_paths(slug)
        try:
            # Their content has just been found to be what was written: the strict reader would take 20 times as long.
            significance, costs, attempts = (
                jsonl.loads(disk.read_bytes(path)) for path in (paths.significance, paths.costs, paths.attempts)
            )
        except (TrialmakeError, FileNotFoundError, jsonl.BadJson):
            continue  # the earlier tool's; the phases have just said what they think of it
        if [document.get("schema_version") for document in (significance, costs)] != ours:
            continue
        places += _places(slug, significance)
        asked += sum(part["rows"] for part in attempts["parts"])
        missing += answers_missing(significance)
        # Not by `usd`: the emulator's is 0 where a model has no list price, beside others that are example prices.
        if not costs["pricing"]["table_found"]:
            unpriced[costs["pricing"]["model_key"]] = None
            continue
        uncounted += costs["unpriced_answers"]
        if costs["usd"] is not None:
            priced.append(costs["usd"])
    usd = None if (unpriced or uncounted) and not priced else sum(priced)
    emulated = work.config["provider"] == "emulator"
    return Ending(tuple(places), asked, missing, usd, tuple(unpriced), uncounted, emulated)


def _places(slug: str, significance: Json) -> Iterator[Place]:
    several = len(significance["temps"]) > 1
    for block in blocks(significance):
        em = block.data["metrics"]["em"]
        verdict = judged(block, "em", significance["stats_config"]["alpha"])
        yield Place(
            slug,
            block.treatment,
            significance["control"],
            _where(block, several=several),
            verdict.value,
            verdict.tone,
            em["delta_mean"],
            em["primary"]["ci_95"],
            em["primary"]["q_value"],
        )


def _where(block: Block, *, several: bool) -> str:
    return f"{TYPE_NAMES[block.type]}, temperature {block.temp}" if several else TYPE_NAMES[block.type]


def _figures(place: Place) -> tuple[str, str, str]:
    interval = f"95% CI {points_span(place.ci_95)}" if place.ci_95 else ""
    if is_point(place.ci_95):
        interval = "95% CI a point: no certainty"
    corrected = "" if place.q is None else p_phrase("q", place.q)
    return _ascii(points(place.delta)), _ascii(interval), _ascii(corrected)


def _mean(places: Sequence[Place]) -> float | None:
    deltas = [place.delta for place in places if place.delta is not None]
    return sum(deltas) / len(deltas) if deltas else None


def _ascii(text: str) -> str:
    """*text* for a terminal of any encoding, and for whoever searches in a log."""
    return text.replace("−", "-").replace("–", "-").replace("\u00a0", " ")
