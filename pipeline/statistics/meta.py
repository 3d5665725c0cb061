"""One delta out of several datasets: fixed and random effects, and how much the datasets disagree.

DerSimonian & Laird (1986, doi:10.1016/0197-2456(86)90046-2), tau2 cut off at 0. With two or three datasets
its z interval covers about 85%; the Hartung-Knapp-Sidik-Jonkman t interval stands beside it
(IntHout et al. 2014, doi:10.1186/1471-2288-14-25).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri, stdtrit

from pipeline.statistics.estimates import Estimate
from pipeline.statistics.numbers import FloatArray, Undefined, as_p_value

NO_GROUPS = Undefined("no_groups: no dataset has two items and a variance above 0")
ONE_GROUP = Undefined("one_group: a single dataset says nothing of the differences between datasets")
_Z = float(ndtri(0.975))


def combine(groups: Mapping[str, Estimate]) -> dict[str, Any]:
    """Pool the mean deltas of *groups* (by dataset name); a group without a variance above 0 is left out."""
    usable = {name: (group.mean, group.se) for name, group in sorted(groups.items()) if _usable(group)}
    summary = {
        "k": len(usable),
        "groups": [{"dataset": name, "estimate": y, "se": se} for name, (y, se) in usable.items()],
        "excluded": sorted(set(groups) - set(usable)),
    }
    if not usable:
        pooled = dict.fromkeys(("estimate", "se", "ci_95", "p"), NO_GROUPS)
        no_spread = dict.fromkeys(("Q", "df", "p_value", "I2"), NO_GROUPS)
        more = {"tau2": NO_GROUPS, "hksj_ci_95": NO_GROUPS}
        return summary | {"fixed": pooled, "random": pooled | more, "heterogeneity": no_spread}
    y, se = (np.array(column, dtype=np.float64) for column in zip(*usable.values(), strict=True))
    weights = se**-2.0
    fixed = _pooled(y, weights)
    if len(y) == 1:
        no_spread = dict.fromkeys(("Q", "p_value", "I2"), ONE_GROUP)
        more = {"tau2": ONE_GROUP, "hksj_ci_95": ONE_GROUP}
        return summary | {"fixed": fixed, "random": fixed | more, "heterogeneity": no_spread | {"df": 0}}
    df = len(y) - 1
    q = float(np.sum(weights * (y - fixed["estimate"]) ** 2))
    tau2 = max(0.0, (q - df) / float(weights.sum() - (weights**2).sum() / weights.sum()))
    weights = 1 / (se**2 + tau2)
    random = _pooled(y, weights)
    hksj = math.sqrt(float(np.sum(weights * (y - random["estimate"]) ** 2) / (df * weights.sum())))
    half = float(stdtrit(df, 0.975)) * hksj
    return summary | {
        "fixed": fixed,
        "random": random | {"tau2": tau2, "hksj_ci_95": [random["estimate"] - half, random["estimate"] + half]},
        "heterogeneity": {
            "Q": q,
            "df": df,
            "p_value": as_p_value(float(chdtrc(df, q))),
            "I2": max(0.0, (q - df) / q) if q > 0 else 0.0,
        },
    }


def _usable(group: Estimate) -> bool:
    return not isinstance(group.mean, Undefined) and not isinstance(group.se, Undefined) and group.se > 0


def _pooled(y: FloatArray, weights: FloatArray) -> dict[str, Any]:
    estimate, se = float(np.sum(weights * y) / weights.sum()), float(weights.sum() ** -0.5)
    return {
        "estimate": estimate,
        "se": se,
        "ci_95": [estimate - _Z * se, estimate + _Z * se],
        "p": as_p_value(2 * float(ndtr(-abs(estimate) / se))),
    }
