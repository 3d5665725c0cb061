"""Exact McNemar test on one binary outcome per item.

McNemar (1947, doi:10.1007/BF02295996); mid-p beside it (Fagerland et al. 2013, doi:10.1186/1471-2288-13-91);
the conditional odds ratio b/c with Clopper-Pearson limits, which exclude 1 exactly when p_exact < 0.05
(Fay 2010, doi:10.32614/RJ-2010-008).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import bdtr, betaincinv, gammaln

from pipeline.statistics.numbers import NO_PAIRS, BoolArray, FloatArray, Number, Undefined, as_p_value

NO_DISCORDANT = Undefined("no_discordant: no item is right in one condition only, so there is no odds ratio")
INFINITE = Undefined("or_infinite: no item is right in the control only, so the odds ratio has no upper limit")


def mcnemar(control: FloatArray, treatment: FloatArray) -> dict[str, Any]:
    """The test on items whose mean score exceeds 1/2 in each condition.

    A mean of exactly 1/2 counts as wrong; `without_ties` repeats the test without such items, since the rule
    can decide the answer. With several samples per item the sign-flip test is the better one.
    """
    ties_control, ties_treatment = _tied(control), _tied(treatment)
    kept = ~(ties_control | ties_treatment)
    right_control, right_treatment = (control > 0.5) & ~ties_control, (treatment > 0.5) & ~ties_treatment
    return {
        **_test(right_control, right_treatment),
        "binarize": "mean > 1/2",
        "or_ci_method": "clopper_pearson_conditional",
        "n_ties_control": int(ties_control.sum()),
        "n_ties_treatment": int(ties_treatment.sum()),
        "without_ties": _test(right_control[kept], right_treatment[kept]),
    }


def _tied(means: FloatArray) -> BoolArray:
    tied: BoolArray = np.abs(means - 0.5) < 1e-12
    return tied


def _test(control: BoolArray, treatment: BoolArray) -> dict[str, Any]:
    b = int(np.sum(~control & treatment))
    c = int(np.sum(control & ~treatment))
    exact, mid = (NO_PAIRS, NO_PAIRS) if not len(control) else _p_values(min(b, c), b + c)
    odds_ratio, interval = _odds(b, c)
    return {
        "b": b,
        "c": c,
        "n_both": int(np.sum(control & treatment)),
        "n_neither": int(np.sum(~control & ~treatment)),
        "p_exact": exact,
        "p_mid": mid,
        "odds_ratio": odds_ratio,
        "or_ci_95": interval,
        "or_infinite": c == 0 and b > 0,
    }


def _p_values(smaller: int, n: int) -> tuple[Number, Number]:
    tail = float(bdtr(smaller, n, 0.5))
    if 2 * smaller == n:
        return 1.0, 1.0
    point = math.exp(gammaln(n + 1) - gammaln(smaller + 1) - gammaln(n - smaller + 1) - n * math.log(2))
    return as_p_value(2 * tail), as_p_value(2 * tail - point)


def _odds(b: int, c: int) -> tuple[Any, Any]:
    """b/c and its limits; each is one Beta quantile, so that swapping b and c gives the reciprocals."""
    if b + c == 0:
        return NO_DISCORDANT, NO_DISCORDANT
    lower = 0.0 if b == 0 else float(betaincinv(b, c + 1, 0.025))
    mirrored = 0.0 if c == 0 else float(betaincinv(c, b + 1, 0.025))
    upper = INFINITE if c == 0 else (1 - mirrored) / mirrored
    return (INFINITE if c == 0 else b / c), [lower / (1 - lower), upper]
