"""Bootstrap intervals of a mean delta without drawing a single resample.

The distribution that a bootstrap approaches with ever more resamples is computed: exactly where deltas lie
on a lattice that is not too fine, else on a grid whose error is a thousandth of the Monte Carlo error
at B = 10,000.
BCa: Efron (1987, doi:10.1080/01621459.1987.10478410); for a mean the jackknife has a closed form.
Clusters: whole clusters are drawn and the statistic is the ratio of their sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from pipeline.statistics import lattice, sums
from pipeline.statistics.estimates import ONE_CLUSTER, cr0
from pipeline.statistics.lattice import Lattice
from pipeline.statistics.numbers import NO_PAIRS, ONE_PAIR, FloatArray, IntArray, Interval

_LEVEL = 0.95
_ALPHA = (1 - _LEVEL) / 2


def mean_intervals(deltas: FloatArray, points: Lattice | None) -> dict[str, Any]:
    """Percentile and BCa interval of the mean of *deltas*, whose lattice is *points* if they have one.

    `B` counts Monte Carlo resamples, so it is 0; `exact` says whether the lattice allowed no error at all.
    """
    n = len(deltas)
    if points and n > 1 and not _is_short(points):
        points = None
    summary: dict[str, Any] = {"method": "lattice" if points else "grid", "B": 0, "exact": points is not None}
    if n < 2:
        nothing = ONE_PAIR if n else NO_PAIRS
        return summary | dict.fromkeys(("percentile_95", "bca_95", "z0", "acceleration"), nothing)
    if np.ptp(deltas) == 0:
        point = [float(deltas[0])] * 2
        return summary | {"percentile_95": point, "bca_95": point, "z0": 0.0, "acceleration": 0.0}
    if points:
        step = points.step
        distribution = sums.resampled(*lattice.count(points.steps), n)
        observed = float(points.steps.sum())
    else:
        step = float(np.std(deltas)) / lattice.GRID_PER_SD
        distribution = sums.resampled(*lattice.spread(deltas, step), n)
        observed = float(deltas.sum()) / step
    z0 = float(ndtri(distribution.below(observed)))
    residuals = deltas - deltas.mean()
    acceleration = float(np.sum(residuals**3)) / (6 * float(np.sum(residuals**2)) ** 1.5)

    def bounds(*shares: float) -> list[float]:
        return [distribution.quantile(share) * step / n for share in shares]

    return summary | {
        "percentile_95": bounds(_ALPHA, 1 - _ALPHA),
        "bca_95": bounds(_bca_share(_ALPHA, z0, acceleration), _bca_share(1 - _ALPHA, z0, acceleration)),
        "z0": z0,
        "acceleration": acceleration,
    }


def cluster_interval(deltas: FloatArray, clusters: IntArray) -> Interval:
    """Percentile interval of the mean delta when whole *clusters* (codes from 0) are drawn.

    P(sum S_c / sum n_c <= x) = P(sum (S_c - x n_c) <= 0), so each end is a root of a distribution of a sum.
    """
    n_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    if n_clusters < 2:
        return ONE_CLUSTER if len(deltas) else NO_PAIRS
    totals = np.bincount(clusters, deltas)
    sizes = np.bincount(clusters).astype(np.float64)
    # The ratio never leaves the range of the clusters' own means; with few clusters an end may be one of them.
    lowest, highest = float((totals / sizes).min()), float((totals / sizes).max())
    if highest - lowest < 1e-12:
        return [float(deltas.mean())] * 2
    centre, se = float(deltas.mean()), cr0(deltas, clusters)

    def excess(x: float, share: float) -> float:
        centred = totals - x * sizes
        step = max(float(np.std(centred)), 1e-9 * float(np.abs(centred).max())) / lattice.GRID_PER_SD
        below = sums.resampled(*lattice.spread(centred, step), n_clusters).below(0.0)
        return float(ndtri(min(max(below, 1e-15), 1 - 1e-15)) - ndtri(share))

    def root(share: float) -> float:
        near = centre + float(ndtri(share)) * se
        for low, high in ((near - 1.5 * se, near + 1.5 * se), (lowest, highest)):
            low, high = max(low, lowest), min(high, highest)
            if low < high and excess(low, share) < 0 < excess(high, share):
                return float(brentq(excess, low, high, args=(share,), xtol=1e-10 * se, rtol=1e-13))
        return lowest if share < 0.5 else highest

    return [root(_ALPHA), root(1 - _ALPHA)]


def default_interval(n: int, bootstrap: dict[str, Any], t_interval: Interval) -> tuple[Interval, str]:
    """The interval to quote and its name: BCa from 30 items on, t below, where the bootstrap is too short."""
    if n >= 30:
        return bootstrap["bca_95"], "bca"
    return t_interval, "t"


def _is_short(points: Lattice) -> bool:
    """Whether the sum on this lattice can be held: where 16 samples lack some, its step is 1/720,720."""
    low, high = sums.window(*lattice.count(points.steps), len(points.steps))
    return high - low < sums.LARGEST_RESAMPLED


def _bca_share(share: float, z0: float, acceleration: float) -> float:
    shifted = z0 + float(ndtri(share))
    return float(ndtr(z0 + shifted / (1 - acceleration * shifted)))
