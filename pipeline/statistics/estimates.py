"""Mean deltas with their standard errors, intervals and t-tests, for independent and for clustered items.

t instead of the z of Miller (2024, arXiv:2411.00640): equal for many items, honest for few.
Clustered: CR0 of Liang & Zeger (1986, doi:10.1093/biomet/73.1.13), CR1 and its G - 1 degrees of freedom
as in Cameron & Miller (2015, doi:10.3368/jhr.50.2.317).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from pipeline.statistics.numbers import (
    NO_PAIRS,
    ONE_PAIR,
    ZERO_VARIANCE,
    FloatArray,
    IntArray,
    Interval,
    Number,
    Undefined,
    as_p_value,
    without_rounding_noise,
)

ONE_CLUSTER = Undefined("one_cluster: fewer than two clusters have no spread between them")


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, and the degrees of freedom of the t distribution that goes with it."""

    mean: Number
    se: Number
    df: int

    def interval(self, level: float = 0.95) -> Interval:
        """The two-sided t interval; a point where nothing varies."""
        if isinstance(self.mean, Undefined):
            return self.mean
        if isinstance(self.se, Undefined):
            return self.se
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.se
        return [self.mean - half, self.mean + half]

    def p_value(self) -> Number:
        """Two-sided p of `mean = 0`; 1 where all values are 0."""
        if self.mean == 0 and self.se == 0:
            return 1.0
        below = self.p_below(0.0)
        return below if isinstance(below, Undefined) else as_p_value(2 * min(below, self._tail(0.0, above=True)))

    def p_below(self, bound: float) -> Number:
        """One-sided p of the hypothesis `mean >= bound`: small when the mean lies below it."""
        return self._trouble() or as_p_value(self._tail(bound, above=False))

    def p_above(self, bound: float) -> Number:
        """One-sided p of the hypothesis `mean <= bound`: small when the mean lies above it."""
        return self._trouble() or as_p_value(self._tail(bound, above=True))

    def _trouble(self) -> Undefined | None:
        for value in (self.mean, self.se):
            if isinstance(value, Undefined):
                return value
        return ZERO_VARIANCE if self.se == 0 else None

    def _tail(self, bound: float, *, above: bool) -> float:
        assert not isinstance(self.mean, Undefined)
        assert not isinstance(self.se, Undefined)
        t = (self.mean - bound) / self.se
        return float(stdtr(self.df, -t if above else t))  # the lower tail each time: 1 - cdf loses small p


def mean(values: FloatArray) -> Estimate:
    """The mean of independent *values* and sd / sqrt(n)."""
    n = len(values)
    if n == 0:
        return Estimate(NO_PAIRS, NO_PAIRS, 0)
    spread = sd(values)
    return Estimate(
        float(np.mean(values)), spread if isinstance(spread, Undefined) else spread / math.sqrt(n), max(n - 1, 0)
    )


def sd(values: FloatArray) -> Number:
    """The standard deviation (n - 1); exactly 0 where all values are equal."""
    if len(values) < 2:
        return ONE_PAIR if len(values) else NO_PAIRS
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0


def clustered_mean(values: FloatArray, clusters: IntArray) -> Estimate:
    """The mean of *values* whose items share *clusters* (codes from 0 without gaps), with its CR1 standard error."""
    n_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    if n_clusters < 2:
        return Estimate(mean(values).mean, ONE_CLUSTER if len(values) else NO_PAIRS, 0)
    se = cr0(values, clusters) * math.sqrt(n_clusters / (n_clusters - 1))
    return Estimate(float(np.mean(values)), se, n_clusters - 1)


def equal_clusters(clusters: IntArray) -> float:
    """How many clusters of one size would tell as much of the spread between clusters: (sum n_c^2)^2 / sum n_c^4.

    The effective number of Carter, Schnepel & Steigerwald (2017, doi:10.1162/REST_a_00639), for items that agree
    within their cluster: one cluster that holds most of the items leaves little more than one, however many there are.
    """
    squares = np.bincount(clusters).astype(np.float64) ** 2
    return float(squares.sum() ** 2 / (squares @ squares))


def cr0(values: FloatArray, clusters: IntArray) -> float:
    """Square root of (1/n^2) sum over clusters of the squared sum of residuals."""
    residuals = values - np.mean(values) if np.ptp(values) > 0 else np.zeros(len(values))
    # Clusters that balance exactly leave sums of 1e-17, and a standard error that would outweigh all others.
    sums = without_rounding_noise(np.bincount(clusters, residuals).astype(np.float64))
    return math.sqrt(float(sums @ sums)) / len(values)


def paired(control: FloatArray, treatment: FloatArray, deltas: FloatArray) -> dict[str, Any]:
    """The primary estimate of one metric: means of both conditions over the same items and their delta.

    `se_unpaired` is what the standard error would be had the conditions met different items.
    """
    of_control, of_treatment, of_delta = mean(control), mean(treatment), mean(deltas)
    se_unpaired: Number = NO_PAIRS if not len(deltas) else ONE_PAIR
    if not isinstance(of_control.se, Undefined) and not isinstance(of_treatment.se, Undefined):
        se_unpaired = math.hypot(of_control.se, of_treatment.se)
    return {
        "n_pairs": len(deltas),
        "mean_control": of_control.mean,
        "mean_treatment": of_treatment.mean,
        "se_control": of_control.se,
        "se_treatment": of_treatment.se,
        "delta_mean": of_delta.mean,
        "sd_delta": sd(deltas),
        "se": of_delta.se,
        "se_unpaired": se_unpaired,
        "pearson_r": _correlation(control, treatment),
        "ci_95_t": of_delta.interval(),
        "p_t": of_delta.p_value(),
    }


def _correlation(x: FloatArray, y: FloatArray) -> Number:
    if len(x) < 2:
        return ONE_PAIR if len(x) else NO_PAIRS
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Undefined("constant_scores: one condition gives every item the same score")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / math.sqrt(float((x @ x) * (y @ y))), -1, 1))
