"""Selective risk: how wrong the answers are that a condition is most sure of.

Confidence is self-consistency, the share of an item's samples that agree. Loss is 1 - EM of the answered
samples: an abstention is neither right nor wrong here, and an item without an answered sample is never
covered. Items of equal confidence count in random order, in expectation.
El-Yaniv & Wiener (2010, JMLR 11:1605); AURC and E-AURC: Geifman et al. (2019, arXiv:1805.08206);
AUGRC: Traub et al. (2024, arXiv:2407.01032).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.statistics.numbers import FloatArray, IntArray, Interval, Number, Undefined, generator

NOT_COVERED = Undefined("not_covered: no item has an answered sample")
NOT_COMPARABLE = Undefined("not_covered: one condition has no answered sample, so there is no common coverage")
CONSTANT = Undefined("constant_confidence: every item is equally sure, so no order of items is better than another")
TOO_FEW = Undefined("too_few_items: fewer than two items, or none covered in too many resamples")
_COMMON = 10  # items; a kind of fewer is drawn item by item
_CELLS = 100_000  # resampled counts held at once, 0.8 MB: stays in the cache


@dataclass(frozen=True)
class Answers:
    """One condition's items: *loss* of the answered samples and *confidence*, both NaN where nothing was answered."""

    confidence: FloatArray
    loss: FloatArray


def selective_risk(control: Answers, treatment: Answers, resamples: int, entropy: list[int]) -> dict[str, Any]:
    """Risk-coverage curves and their areas, and the treatment's AURC minus the control's.

    Both are taken up to the coverage that both reach. The interval is a paired percentile bootstrap over items.
    """
    n = len(control.loss)
    sides = _Levels.of(control), _Levels.of(treatment)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    common = min(int(np.isfinite(side.loss).sum()) for side in (control, treatment))
    delta: Number = NOT_COMPARABLE
    interval: Interval = NOT_COMPARABLE
    if common:
        delta = float(_delta(sides, np.ones((1, n)), harmonic)[0])
        interval = _interval((control, treatment), resamples, entropy, harmonic)
    return {
        "control": _curve(control, sides[0], harmonic),
        "treatment": _curve(treatment, sides[1], harmonic),
        "common_coverage": common / n if n else NOT_COMPARABLE,
        "delta_aurc": delta,
        "ci_95": interval,
        "ci_method": "percentile",
        "B": resamples,
        "seed": entropy,
    }


@dataclass(frozen=True)
class _Levels:
    """Per kind of item a row, per confidence level, the surest first, a column."""

    thresholds: FloatArray
    covered: FloatArray  # 1 where the item has that confidence
    lost: FloatArray  # its loss there

    @classmethod
    def of(cls, answers: Answers) -> _Levels:
        covered = np.isfinite(answers.loss)
        thresholds = np.unique(answers.confidence[covered])[::-1]
        one_hot = ((answers.confidence[:, None] == thresholds) & covered[:, None]).astype(np.float64)
        return cls(thresholds, one_hot, one_hot * np.where(covered, answers.loss, 0.0)[:, None])


def _area(items: FloatArray, losses: FloatArray, upto: FloatArray, harmonic: FloatArray) -> FloatArray:
    """Mean of r_k = (sum of the first k losses) / k over k = 1..*upto*, for each row of counts by level.

    In a block of m equal confidences with mean loss l, after j items with loss S: r_{j+t} = (S + t l) / (j + t),
    whose sum over t = 1..u is u l + (S - j l) (H(j+u) - H(j)), H the *harmonic* numbers.
    """
    before = np.zeros(len(items), dtype=np.int64)
    lost, area = np.zeros(len(items)), np.zeros(len(items))
    for level in range(items.shape[1]):
        size = items[:, level]
        mean = losses[:, level] / np.maximum(size, 1)
        taken = np.clip(upto - before, 0, size).astype(np.int64)
        area += taken * mean + (lost - before * mean) * (harmonic[before + taken] - harmonic[before])
        before += size.astype(np.int64)
        lost += losses[:, level]
    return area / np.maximum(upto, 1)


def _delta(sides: tuple[_Levels, _Levels], weights: FloatArray, harmonic: FloatArray) -> FloatArray:
    """AURC of the second side minus that of the first, each up to the common coverage, per row of item *weights*.

    NaN where a side covers nothing.
    """
    items = [np.rint(weights @ side.covered) for side in sides]
    upto = np.minimum(items[0].sum(axis=1), items[1].sum(axis=1))
    areas = [_area(number, weights @ side.lost, upto, harmonic) for number, side in zip(items, sides, strict=True)]
    return np.where(upto > 0, areas[1] - areas[0], np.nan)


def _interval(answers: tuple[Answers, Answers], resamples: int, entropy: list[int], harmonic: FloatArray) -> Interval:
    """The bootstrap draws how often each kind of item occurs, items of one kind being equal in all that counts."""
    _, first, counts = np.unique(_kinds(answers), return_index=True, return_counts=True)
    order = np.argsort(first)  # by first item, so that swapping the conditions draws the same resamples
    one_each = [Answers(side.confidence[first[order]], side.loss[first[order]]) for side in answers]
    sides = _Levels.of(one_each[0]), _Levels.of(one_each[1])
    deltas = np.concatenate([_delta(sides, drawn, harmonic) for drawn in _resamples(counts[order], resamples, entropy)])
    valid = deltas[np.isfinite(deltas)]
    if len(answers[0].loss) < 2 or len(valid) < 0.95 * resamples:
        return TOO_FEW
    return [float(bound) for bound in np.quantile(valid, [0.025, 0.975])]


def _kinds(answers: tuple[Answers, Answers]) -> IntArray:
    """One code per item; equal codes are equal confidences and losses in both conditions."""
    codes = np.zeros(len(answers[0].loss), dtype=np.int64)
    for column in (values for side in answers for values in (side.confidence, side.loss)):
        _, code = np.unique(column, return_inverse=True)
        _, codes = np.unique(codes * (int(code.max()) + 1) + code, return_inverse=True)
    return codes


def _resamples(counts: IntArray, resamples: int, entropy: list[int]) -> Iterator[FloatArray]:
    """How often each kind occurs among n items drawn from *counts*: multinomial counts, in blocks of rows.

    Kinds of few items are drawn together as one kind, and then item by item: most kinds are such, and an item costs
    a tenth of what the binomial draw of a kind does.
    """
    rng = generator(entropy)
    n, kinds = int(counts.sum()), len(counts)
    common = counts >= _COMMON
    rare_items = np.repeat(np.flatnonzero(~common), counts[~common])
    shares = np.concatenate([[len(rare_items)], counts[common]]) / n
    for start in range(0, resamples, block := max(1, _CELLS // kinds)):
        drawn = rng.multinomial(n, shares, min(block, resamples - start))
        rare = rare_items[rng.integers(0, max(1, len(rare_items)), int(drawn[:, 0].sum()))]
        cells = np.repeat(np.arange(len(drawn)), drawn[:, 0]) * kinds + rare
        rows = np.bincount(cells, minlength=len(drawn) * kinds).reshape(len(drawn), kinds).astype(np.float64)
        rows[:, common] = drawn[:, 1:]
        yield rows


def _curve(answers: Answers, levels: _Levels, harmonic: FloatArray) -> dict[str, Any]:
    """One condition's points, areas and greatest coverage."""
    n = len(answers.loss)
    items, losses = levels.covered.sum(axis=0), levels.lost.sum(axis=0)
    covered = int(items.sum())
    constant = len(items) < 2
    summary: dict[str, Any] = {
        "confidence_source": "constant" if constant else "consistency",
        "points": [
            {"threshold": float(threshold), "coverage": float(reached / n), "risk": float(lost / reached)}
            for threshold, reached, lost in zip(levels.thresholds, items.cumsum(), losses.cumsum(), strict=True)
        ],
        "max_coverage": covered / n if n else NOT_COVERED,
    }
    if not covered:
        return summary | dict.fromkeys(("aurc", "e_aurc", "augrc"), NOT_COVERED)
    aurc = float(_area(items[None], losses[None], np.array([float(covered)]), harmonic)[0])
    best = np.sort(answers.loss[np.isfinite(answers.loss)]).cumsum()
    # AUGRC divides by the number of all items instead of k, so a block of ties needs no harmonic numbers.
    blocks = (losses.cumsum() - losses) * items + losses / items * items * (items + 1) / 2
    return summary | {
        "aurc": aurc,
        "e_aurc": CONSTANT if constant else aurc - float(np.mean(best / np.arange(1, covered + 1))),
        "augrc": float(blocks.sum()) / (covered * n),
    }
