"""What speaks against a verdict: missing answers, few questions or clusters, a test and an interval that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.custom_id import OPEN
from pipeline.report.artifacts import Block, Json
from pipeline.report.model import Model
from pipeline.report.text import counted, is_point, listed, p_phrase, points
from pipeline.report.verdict import TYPE_NAMES
from pipeline.statistics.fdr import adjust

FEW_CLUSTERS = 20  # below, cluster-robust intervals are too short (as in pipeline.statistics)
FEW_ITEMS = 30  # below, any interval of a mean of rates is rough


@dataclass(frozen=True)
class Size:
    """How many questions and, where they share some, clusters a metric rests on."""

    questions: int
    clusters: int | None
    unit: str | None

    @classmethod
    def of(cls, metric: Json, kind: str) -> Size:
        """The size of a metric's object; closed-book questions share no paragraph or title, only a cluster."""
        cluster = metric.get("cluster") or {"n_clusters": metric["n_pairs"], "unit": None}
        shared = cluster["n_clusters"] < metric["n_pairs"]
        return cls(
            metric["n_pairs"], cluster["n_clusters"] if shared else None, cluster["unit"] if kind == OPEN else "cluster"
        )

    @property
    def units(self) -> str:
        """What the tests flip, counted: clusters where questions share some, else questions."""
        return counted(self.questions, "question") if self.clusters is None else counted(self.clusters, str(self.unit))

    def __str__(self) -> str:
        questions = counted(self.questions, "question")
        return questions if self.clusters is None else f"{questions} in {self.units}"


def limits(model: Model, treatment: str) -> list[str]:
    """What a careful reader would ask: missing answers, few questions or clusters, tests that disagree."""
    places: dict[str, list[Block]] = {}
    for block in model.of(treatment):
        for remark in _remarks(model, block):
            places.setdefault(remark, []).append(block)
    return [f"{spots(model, blocks)}: {remark}" for remark, blocks in places.items()]


def _remarks(model: Model, block: Block) -> Iterator[str]:
    em = block.data["metrics"]["em"]
    missing = em["n_missing_samples"]
    if any(missing.values()):
        bounds = em["bounds_delta"]
        yield (
            f"{missing['control']:,} answers of {model.control} and {missing['treatment']:,} of {block.treatment} are "
            f"missing and left out. Had all of them counted against {block.treatment}, the difference would be "
            f"{points(bounds['worst'])} points; all for it, {points(bounds['best'])}."
        )
    p = block.data["samples"]["missing_p_value"]
    if p is not None and p < model.alpha:
        yield (
            f"one condition lacks more answers than the other ({p_phrase('p', p)}, one of several tests and not "
            "corrected for them), so what is missing may not be missing by chance."
        )
    if block.data["n_unpaired"]:
        yield f"{counted(block.data['n_unpaired'], 'question')} met one condition only."
    if 0 < em["n_pairs"] < FEW_ITEMS:
        yield f"{counted(em['n_pairs'], 'question')} {'is' if em['n_pairs'] == 1 else 'are'} few; intervals are rough."
    size = Size.of(em, block.type)
    if em["n_pairs"] > 1 and em["sd_delta"] == 0:
        yield "all questions differ by the same, so the interval is a point. That is no certainty."
    elif is_point(em["primary"]["ci_95"]):
        yield f"all {size.unit}s differ by the same, so the interval is a point. That is no certainty."
    elif size.clusters == 1:
        yield f"all questions share one {size.unit}, so there is nothing to test and no interval."
    elif size.clusters is not None and size.clusters < FEW_CLUSTERS:
        yield (
            f"the questions come from {counted(size.clusters, str(size.unit))}; with fewer than {FEW_CLUSTERS}, "
            "intervals are shorter than they should be."
        )
    if any(warning.startswith("uneven_clusters: ") for warning in em["warnings"]):
        yield (
            f"a few of the {counted(em['cluster']['n_clusters'], str(size.unit))} hold most of the questions; "
            "intervals are shorter than they should be."
        )
    if any(warning.startswith("skewed_mean: ") for warning in em["warnings"]):
        units = "questions" if size.clusters is None else f"{size.unit}s"
        yield (
            f"a few {units} differ much more than the others, all the same way; test and interval err more often than "
            "they say."
        )
    if lowest := out_of_reach(model, block):
        correction = f"can pass the correction for {counted(model.tests(), 'test')} as the others came out"
        what = "can count" if lowest >= model.alpha else correction
        yield f"with {size.units} p cannot be below {lowest:.2g}, so no difference, however large, {what}."
    if _disagree(em, model.alpha):
        yield "the test and the interval disagree, which makes this a borderline case."


def out_of_reach(model: Model, block: Block) -> float | None:
    """The smallest p that so few units can give, where not even that would count; None where a difference could.

    n units have 2^n sign patterns, so a two-sided p is at least 2 / 2^n. Whether that would pass also depends on the
    other tests of the family, which are taken as they came out.
    """
    em = block.data["metrics"]["em"]
    size = Size.of(em, block.type)
    if em["primary"]["q_value"] is None or (units := size.clusters or size.questions) < 2:
        return None  # of one unit there is nothing to test, which is said elsewhere
    lowest = float(2.0 ** (1 - units))
    others = [p for place, p in model.primary.items() if place != (block.treatment, block.temp, block.type, "em")]
    return lowest if adjust(np.array([lowest, *others]))[0] >= model.alpha else None


def spots(model: Model, blocks: Sequence[Block]) -> str:
    """ "Open-book", with the temperatures where there are several: "Open-book, temperature 0 and 0.7"."""
    if len(model.temps) == 1:
        return listed([TYPE_NAMES[block.type] for block in blocks])
    temps = {
        kind: listed([block.temp for block in blocks if block.type == kind])
        for kind in dict.fromkeys(block.type for block in blocks)
    }
    return "; ".join(f"{TYPE_NAMES[kind]}, temperature {of}" for kind, of in temps.items())


def _disagree(metric: Json, alpha: float) -> bool:
    """Whether a 5% test and its 95% interval, which come from different methods, say different things."""
    interval, p = metric["primary"]["ci_95"], metric["primary"]["p_value"]
    if interval is None or p is None or alpha != 0.05:
        return False
    return bool(p < alpha) != bool(interval[0] > 0 or interval[1] < 0)
