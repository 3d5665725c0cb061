"""Standardised effects of a paired comparison.

Cohen's d_z (paired) and d_av (comparable with unpaired studies), Hedges' correction: Lakens (2013,
doi:10.3389/fpsyg.2013.00863). Cliff's delta over all pairs of items: Cliff (1993, doi:10.1037/0033-2909.114.3.494).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.statistics.estimates import mean, sd
from pipeline.statistics.numbers import (
    NO_PAIRS,
    ZERO_VARIANCE,
    FloatArray,
    Number,
    Undefined,
    without_rounding_noise,
)

_CONSTANT = Undefined("constant_scores: neither condition's scores vary")


def effects(control: FloatArray, treatment: FloatArray, deltas: FloatArray) -> dict[str, Any]:
    """Effect sizes; `paired_dominance` counts wins minus losses over the same items, ties in the denominator."""
    n = len(deltas)
    wins, losses = int(np.sum(deltas > 0)), int(np.sum(deltas < 0))
    difference = mean(deltas).mean
    d_z = _ratio(difference, sd(deltas), ZERO_VARIANCE)
    return {
        "cohens_d": d_z,
        "hedges_g": d_z if isinstance(d_z, Undefined) else d_z * (1 - 3 / (4 * (n - 1) - 1)),
        "cohens_d_av": _ratio(difference, _root_mean_square(sd(control), sd(treatment)), _CONSTANT),
        "cliffs_delta": cliffs_delta(control, treatment),
        "paired_dominance": (wins - losses) / n if n else NO_PAIRS,
        "wins": wins,
        "losses": losses,
        "ties": n - wins - losses,
    }


def cliffs_delta(control: FloatArray, treatment: FloatArray) -> Number:
    """P(treatment > control') - P(treatment < control') over all n * n pairs of items."""
    n = len(control)
    if not n:
        return NO_PAIRS
    # Means that are equal on paper are ties here too, whichever order their samples were added in.
    control, treatment = without_rounding_noise(control), without_rounding_noise(treatment)
    ordered = np.sort(control)
    below = np.searchsorted(ordered, treatment, side="left").sum()
    above = (n - np.searchsorted(ordered, treatment, side="right")).sum()
    return float(below - above) / n**2


def _root_mean_square(a: Number, b: Number) -> Number:
    if isinstance(a, Undefined):
        return a
    if isinstance(b, Undefined):
        return b
    return math.sqrt((a**2 + b**2) / 2)


def _ratio(difference: Number, spread: Number, constant: Undefined) -> Number:
    if isinstance(difference, Undefined):
        return difference
    if isinstance(spread, Undefined):
        return spread
    return difference / spread if spread > 0 else constant
