"""Wilcoxon's signed-rank test and the Hodges-Lehmann shift.

Wilcoxon (1945, doi:10.2307/3001968) tests symmetry about 0, not the mean; zeros are dropped, ties get
average ranks. The p is exact also with ties, since doubled ranks are integers whose signs flip.
Hodges & Lehmann (1963, doi:10.1214/aoms/1177704172): the median of all pairwise means, zeros included.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr

from pipeline.statistics import lattice, sums
from pipeline.statistics.numbers import NO_PAIRS, FloatArray, IntArray, Number, Undefined, as_p_value

ALL_ZERO = Undefined("all_zero: no delta differs from 0, so there are no ranks")


def wilcoxon(deltas: FloatArray) -> dict[str, Any]:
    """The signed-rank test of *deltas*; `statistic` W is the smaller of the two rank sums."""
    summary: dict[str, Any] = {"zero_method": "wilcox"}
    distinct, counts = lattice.grouped(deltas)
    n_nonzero = int(counts.sum())
    if not n_nonzero:
        ranks = dict.fromkeys(("W", "W_plus", "W_minus", "rank_biserial"), ALL_ZERO if len(deltas) else NO_PAIRS)
        p: Number = 1.0 if len(deltas) else NO_PAIRS
        return summary | ranks | {"n_nonzero": 0, "method": "degenerate", "p_value": p}
    doubled = 2 * np.cumsum(counts) - counts + 1  # twice the average rank of each tie group
    positive = np.searchsorted(distinct, deltas[deltas > 0])
    plus = int(doubled[positive].sum())
    minus = int((doubled * counts).sum()) - plus
    exact = sums.two_sided_tail(doubled, counts, plus - minus)
    # The variance of W+ - W- is the sum of squared ranks: that includes the correction for ties.
    spread = math.sqrt(float(np.sum(counts * doubled.astype(np.float64) ** 2)))
    return summary | {
        "W": min(plus, minus) / 2,
        "W_plus": plus / 2,
        "W_minus": minus / 2,
        "n_nonzero": n_nonzero,
        "method": "normal" if exact is None else "exact",
        "p_value": as_p_value(2 * float(ndtr(-abs(plus - minus) / spread))) if exact is None else exact,
        "rank_biserial": (plus - minus) / (plus + minus),
    }


def hodges_lehmann(deltas: FloatArray) -> Number:
    """The median of (d_i + d_j) / 2 over i <= j, in O(n log n): bisection on the value, counting by search."""
    n = len(deltas)
    if not n:
        return NO_PAIRS
    values, counts = np.unique(deltas, return_counts=True)
    pairs = n * (n + 1) // 2
    lower = _kth_sum(values, counts, (pairs + 1) // 2)
    upper = lower if pairs % 2 else _kth_sum(values, counts, pairs // 2 + 1)
    return (lower + upper) / 4


def _kth_sum(values: FloatArray, counts: IntArray, k: int) -> float:
    """The *k*-th smallest (from 1) of the sums of two of the *values*, each pair once and each value with itself."""
    reached = np.concatenate([[0], np.cumsum(counts)])

    def count(bound: float) -> int:
        """How many pair sums are at most *bound*: half of the ordered pairs and of the pairs with itself."""
        ordered = int(counts @ reached[np.searchsorted(values, bound - values, side="right")])
        alone = int(reached[np.searchsorted(values, bound / 2, side="right")])
        return (ordered + alone) // 2

    low, high = 2 * float(values[0]) - 1, 2 * float(values[-1])
    while high - low > 4e-13:  # sums have 12 decimals: at most one lies between
        middle = (low + high) / 2
        if count(middle) >= k:
            high = middle
        else:
            low = middle
    return round((low + high) / 2, 12)
