"""Non-inferiority and equivalence against a margin fixed before the run: two one-sided t-tests.

Schuirmann (1987, doi:10.1007/BF01068419). The treatment is non-inferior exactly when the two-sided
interval at 1 - 2 alpha (90% for alpha = 0.05) lies on the right side of the margin.
"""

from __future__ import annotations

from typing import Any

from pipeline.statistics.estimates import Estimate
from pipeline.statistics.numbers import Number, Undefined

NO_DIRECTION = Undefined("no_direction: neither more nor less of this metric is better, so only equivalence is tested")


def tost(delta: Estimate, margin: float, alpha: float, direction: str) -> dict[str, Any]:
    """Both one-sided tests of *delta*; *direction* is `higher` or `lower` (which is better) or `neutral`.

    `p_above` is of the hypothesis delta <= -margin, `p_below` of delta >= margin.
    """
    p_above, p_below = delta.p_above(-margin), delta.p_below(margin)
    non_inferiority: Number = {"higher": p_above, "lower": p_below}.get(direction, NO_DIRECTION)
    equivalence = p_above if isinstance(p_above, Undefined) or isinstance(p_below, Undefined) else max(p_above, p_below)
    return {
        "margin": margin,
        "alpha": alpha,
        "direction": direction,
        "delta_mean": delta.mean,
        "se": delta.se,
        "df": delta.df,
        "p_above": p_above,
        "p_below": p_below,
        "p_non_inferiority": non_inferiority,
        "p_equivalence": equivalence,
        "non_inferior": _verdict(non_inferiority, alpha),
        "equivalent": _verdict(equivalence, alpha),
        "ci_level": 1 - 2 * alpha,
        "ci": delta.interval(1 - 2 * alpha),
        "ci_90": delta.interval(0.90),
    }


def _verdict(p: Number, alpha: float) -> bool | Undefined:
    return p if isinstance(p, Undefined) else p < alpha
