"""What is missing from a metric: items it does not apply to, items without a response, and what they could change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.statistics import permutation
from pipeline.statistics.lattice import Lattice
from pipeline.statistics.numbers import NO_PAIRS, BoolArray, FloatArray, Number, Undefined
from pipeline.statistics.table import Pairs


def applies(pairs: Pairs, metric: str) -> BoolArray:
    """Per item whether *metric* is defined for it, also for an item that a condition left unanswered.

    The score tells where there is one; else the item does (false answers: unanswerable questions) or its
    dataset (F1: a benchmark has one or not).
    """
    seen = np.isfinite(pairs.control[metric]) | np.isfinite(pairs.treatment[metric])
    possible = np.ones(len(seen), dtype=bool)
    if metric == "false_answer_rate":
        possible = pairs.answerable == 0
    elif metric == "f1":
        possible = np.isin(pairs.dataset, pairs.dataset[seen])
    defined: BoolArray = seen | (possible & (_silent(pairs.control) | _silent(pairs.treatment)))
    return defined


def bounds(pairs: Pairs, metric: str, applicable: BoolArray, direction: str) -> dict[str, Any]:
    """Both means and their delta over the pairs and what only silence keeps from being one of the *applicable* items.

    Had every missing sample scored worst or best: where neither end is better (abstention), a missing sample at its
    worst is an abstention. An item that a condition answered, but so that the metric is not defined (no content word
    to look for in the passage), is left out of both means, as it is of the pairs: else they would be of other items.
    """
    worst = 0.0 if direction == "higher" else 1.0
    known = applicable & _known_or_silent(pairs.control, metric) & _known_or_silent(pairs.treatment, metric)
    ends = [
        [_filled(side, metric, known, score) for score in (worst, 1 - worst)]
        for side in (pairs.control, pairs.treatment)
    ]
    control, treatment = ends
    return {
        "bounds_control": {"worst": control[0], "best": control[1]},
        "bounds_treatment": {"worst": treatment[0], "best": treatment[1]},
        "bounds_delta": {"worst": _minus(treatment[0], control[1]), "best": _minus(treatment[1], control[0])},
    }


def samples(pairs: Pairs, flips: int, entropy: list[int]) -> dict[str, Any]:
    """Samples asked for and missing in each condition; `missing_p_value` tests whether one misses more, item by item.

    Leaving failures out favours a condition that fails on hard questions.
    """
    more = pairs.treatment["n_missing"] - pairs.control["n_missing"]
    p, permuted = permutation.sign_flip(more, Lattice(np.rint(more).astype(np.int64), 1.0), flips, entropy)
    return {
        "control": _counts(pairs.control),
        "treatment": _counts(pairs.treatment),
        "missing_p_value": p,
        "missing_permutation": permuted,
    }


def _filled(side: Mapping[str, FloatArray], metric: str, usable: BoolArray, score: float) -> Number:
    """The mean of *metric* over the *usable* items with *score* in place of each missing sample."""
    if not usable.any():
        return NO_PAIRS
    known = np.nan_to_num(side[metric]) * (side["n_samples"] - side["n_missing"])
    return float(np.mean((known + score * side["n_missing"])[usable] / side["n_samples"][usable]))


def _known_or_silent(side: Mapping[str, FloatArray], metric: str) -> BoolArray:
    known: BoolArray = (np.isfinite(side[metric]) | _silent(side)) & (side["n_samples"] > 0)
    return known


def _silent(side: Mapping[str, FloatArray]) -> BoolArray:
    silent: BoolArray = side["n_missing"] >= side["n_samples"]
    return silent


def _minus(a: Number, b: Number) -> Number:
    if isinstance(a, Undefined):
        return a
    return b if isinstance(b, Undefined) else a - b


def _counts(side: Mapping[str, FloatArray]) -> dict[str, int]:
    return {
        "expected": int(side["n_samples"].sum()),
        "missing": int(side["n_missing"].sum()),
        "truncated": int(side["n_truncated"].sum()),
    }
