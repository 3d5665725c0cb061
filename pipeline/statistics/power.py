"""How many items and samples an effect needs, and which effect a number of items can detect.

Miller (2024, arXiv:2411.00640), with the variance of an item's delta split into what differs between items
(omega2) and what differs between samples of one item (sigma2, which more samples reduce). No "observed power":
it only restates the p-value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, ndtri, stdtrit

from pipeline.statistics.estimates import sd
from pipeline.statistics.numbers import NO_PAIRS, ONE_PAIR, ZERO_VARIANCE, FloatArray, Number, Undefined

ONE_SAMPLE = Undefined("one_sample: with one sample per item the variance within items cannot be told apart")
NOT_ABOVE_ALPHA = Undefined("power_not_above_alpha: a test shows more often than that what is not there")
NOT_COMPUTED = Undefined("not_computed: the noncentral t distribution has no value for so small an alpha")
CLIPPED = "omega2_clipped: the variance between items came out below 0 and was set to 0"
SAMPLES = (1, 2, 3, 5, 10, 20)  # samples per item for which the detectable effect is shown


@dataclass(frozen=True)
class Variances:
    """What the variance of an item's delta is made of.

    *total* is at the pilot's own number of samples; *omega2* and both *sigma2* are Undefined where each item
    was asked once. *clipped* tells that omega2 came out negative and was set to 0. *design_effect* multiplies them
    all for clustered items; Undefined where there is one cluster only.
    """

    total: Number
    omega2: Number
    sigma2_control: Number
    sigma2_treatment: Number
    design_effect: Number = 1.0
    clipped: bool = False

    def at(self, samples_control: float, samples_treatment: float) -> Number:
        """The variance of a delta of means over so many samples each."""
        if self.omega2 == ONE_SAMPLE and samples_control == samples_treatment == 1:
            return self.total
        if isinstance(self.omega2, Undefined):
            return self.omega2
        if isinstance(self.sigma2_control, Undefined) or isinstance(self.sigma2_treatment, Undefined):
            return ONE_SAMPLE
        return self.omega2 + self.sigma2_control / samples_control + self.sigma2_treatment / samples_treatment


def split(
    deltas: FloatArray,
    control: tuple[FloatArray, FloatArray],
    treatment: tuple[FloatArray, FloatArray],
    design_effect: Number = 1.0,
) -> Variances:
    """The variances behind *deltas*, from each condition's (sd of an item's samples, NaN for one; their number)."""
    spread = sd(deltas)
    if isinstance(spread, Undefined):
        return Variances(spread, spread, spread, spread, design_effect)
    total = spread**2
    sigma2: list[float] = []
    noise = 0.0
    for spreads, samples in (control, treatment):
        known = np.isfinite(spreads) & (samples > 1)
        if not known.any():
            return Variances(total, ONE_SAMPLE, ONE_SAMPLE, ONE_SAMPLE, design_effect)
        sigma2.append(float(np.mean(spreads[known] ** 2)))
        noise += sigma2[-1] * float(np.mean(1 / samples))
    between = total - noise
    return Variances(total, max(0.0, between), sigma2[0], sigma2[1], design_effect, clipped=between < 0)


def detectable(variance: Number, n: float, alpha: float, power: float) -> Number:
    """The smallest true delta that *n* items show with probability *power*: z s / sqrt(n)."""
    if isinstance(variance, Undefined):
        return variance
    if n < 2:
        return ONE_PAIR
    if trouble := _trouble(variance, alpha, power):
        return trouble
    return _z(alpha, power) * math.sqrt(variance / n)


def detectable_t(variance: Number, n: int, alpha: float, power: float) -> Number:
    """The same for the t-test, from the noncentral t distribution."""
    if isinstance(variance, Undefined):
        return variance
    if trouble := _trouble(variance, alpha, power):
        return trouble
    df = n - 1
    critical = -float(stdtrit(df, alpha / 2))

    def missing(shift: float) -> float:
        far = float(nctdtr(df, shift, -critical))  # the wrong tail; NaN where it is below the smallest double
        return power - (1 - float(nctdtr(df, shift, critical)) + (0.0 if math.isnan(far) else far))

    high = 2 * critical + 10.0
    while missing(high) > 0:  # two items and a power of 99.9% need more than three critical values
        high *= 2
    try:
        shift = brentq(missing, 0.0, high, xtol=1e-10)
    except ValueError:  # NaN on the way: two items and alpha = 1e-6, for one
        return NOT_COMPUTED
    return float(shift) * math.sqrt(variance / n)


def items_needed(variance: Number, delta: float, alpha: float, power: float) -> int | Undefined:
    """The items that show a true *delta* with probability *power*: z^2 s^2 / delta^2, rounded up."""
    if isinstance(variance, Undefined):
        return variance
    if trouble := _trouble(variance, alpha, power):
        return trouble
    return math.ceil(round(_z(alpha, power) ** 2 * variance / delta**2, 6))


def summary(variances: Variances, n: int, alpha: float, power: float, deltas: Sequence[float]) -> dict[str, Any]:
    """The `power` object of a metric with *n* pairs; clustered items count as n / design effect."""
    if n < 2:
        nothing = ONE_PAIR if n else NO_PAIRS
        keys = ("mde", "mde_t", "sigma2_control", "sigma2_treatment", "omega2", "mde_by_K", "n_required")
        return {"alpha": alpha, "power": power, "design_effect": 1.0, **dict.fromkeys(keys, nothing)}
    inflated = _times(variances.total, variances.design_effect)
    by_samples = {
        str(samples): detectable(_times(variances.at(samples, samples), variances.design_effect), n, alpha, power)
        for samples in SAMPLES
    }
    return {
        "alpha": alpha,
        "power": power,
        "design_effect": variances.design_effect,
        "mde": detectable(inflated, n, alpha, power),
        "mde_t": detectable_t(inflated, n, alpha, power),
        "n_required": {format(delta, "g"): items_needed(inflated, delta, alpha, power) for delta in deltas},
        "sigma2_control": variances.sigma2_control,
        "sigma2_treatment": variances.sigma2_treatment,
        "omega2": variances.omega2,
        "mde_by_K": by_samples,
    }


def plan(
    variances: Variances,
    *,
    alpha: float,
    power: float,
    deltas: Sequence[float],
    samples: Sequence[int] = SAMPLES,
    items: int | None = None,
    requests: int | None = None,
) -> dict[str, Any]:
    """What an experiment of two conditions at one temperature would need, and what it could detect.

    Per number of samples K: the items and requests (2 K items) that each of *deltas* needs; the smallest
    effect that *items* can show; and that of as many items as a budget of *requests* pays for. Values are
    `Undefined` where the pilot cannot tell; hand the result to `numbers.seal`.
    """
    rows = []
    for number in samples:
        variance = _times(variances.at(number, number), variances.design_effect)
        needed = {format(delta, "g"): items_needed(variance, delta, alpha, power) for delta in deltas}
        row: dict[str, Any] = {
            "samples": number,
            "variance": variance,
            "items_needed": needed,
            "requests_needed": {
                delta: n if isinstance(n, Undefined) else 2 * number * n for delta, n in needed.items()
            },
        }
        if items is not None:
            row["detectable"] = detectable(variance, items, alpha, power)
        if requests is not None:
            row["affordable_items"] = requests // (2 * number)
            row["detectable_within_budget"] = detectable(variance, row["affordable_items"], alpha, power)
        rows.append(row)
    return {
        "alpha": alpha,
        "power": power,
        "design_effect": variances.design_effect,
        "total_variance": variances.total,
        "omega2": variances.omega2,
        "sigma2_control": variances.sigma2_control,
        "sigma2_treatment": variances.sigma2_treatment,
        "by_samples": rows,
        "warnings": [CLIPPED] if variances.clipped else [],
    }


def _trouble(variance: float, alpha: float, power: float) -> Undefined | None:
    """Why no effect and no number of items can be given. Below alpha, z s / sqrt(n) could even be negative."""
    if variance == 0:
        return ZERO_VARIANCE
    return NOT_ABOVE_ALPHA if power <= alpha else None


def _z(alpha: float, power: float) -> float:
    return float(ndtri(power) - ndtri(alpha / 2))


def _times(variance: Number, factor: Number) -> Number:
    if isinstance(variance, Undefined):
        return variance
    return factor if isinstance(factor, Undefined) else variance * factor
