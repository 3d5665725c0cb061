"""Everything `significance.json` says of one metric in one block: estimate, intervals, tests, effects, power."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.statistics import bootstrap, estimates, lattice, missing, permutation, power, ranks
from pipeline.statistics.effects import effects
from pipeline.statistics.estimates import Estimate
from pipeline.statistics.fdr import Families
from pipeline.statistics.lattice import Lattice
from pipeline.statistics.numbers import (
    ZERO_VARIANCE,
    BoolArray,
    FloatArray,
    IntArray,
    Number,
    Undefined,
    seed_of,
    without_rounding_noise,
)
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import Pairs

DIRECTIONS = {
    "em": "higher",
    "f1": "higher",
    "abstain_rate": "neutral",
    "false_answer_rate": "lower",
    "unsupported_rate": "lower",
}
FEW_ITEMS = 30  # below, bootstrap intervals are too short (statistics page, section 4)
# Skewness from which deltas count as skewed (Bulmer 1979, Principles of Statistics): there Wilcoxon's test of a mean
# of 0 rejects 42% instead of 5% with 100 items (two magnitudes, skewness 0.6; simulated).
SKEWED = 0.5
# Cochran (1977, Sampling Techniques, section 2.15): n > 25 skewness^2 keeps a 95% interval of the mean within a point.
SKEWED_MEAN = 1 / 5  # of |skewness| / sqrt(n)
FEW_CLUSTERS = 20  # below, CR1 intervals are too short (section 2)


@dataclass(frozen=True)
class Scope:
    """Where a block stands: *path* seeds its random streams and names no condition, *member* does."""

    settings: StatisticsSettings
    families: Families
    path: str
    member: str
    subgroup: bool = False

    def within(self, dataset: str) -> Scope:
        """The scope of one dataset's block."""
        inner = f"/dataset={dataset}"
        return Scope(self.settings, self.families, self.path + inner, self.member + inner, subgroup=True)

    def seed(self, use: str) -> list[int]:
        """The entropy of the random stream for *use*."""
        return seed_of(self.settings.seed, f"{self.path}/{use}")

    def enter(self, family: str, name: str, test: dict[str, Any], p_key: str, same_as: Any = None) -> None:
        """Enter *test* of metric *name* in its family; tests of subgroups form families of their own."""
        if self.subgroup:
            family = "subgroup" if family == "primary" else f"{family}_subgroup"
        self.families.add(family, f"{self.member}/{name}", test, p_key, same_as and (self.member, same_as))


@dataclass(frozen=True)
class Metric:
    """The object of one metric, its *delta* with the standard error that allows for clusters, and what it rests on.

    *identity* is equal where two metrics say the same of every item, and None where they say nothing.
    """

    document: dict[str, Any]
    delta: Estimate
    identity: tuple[bytes, bytes] | None

    def enter(self, name: str, scope: Scope) -> None:
        """Enter the tests in their families."""
        scope.enter("primary", name, self.document["primary"], "p_value", self.identity)
        scope.enter("wilcoxon", name, self.document["wilcoxon"], "p_value", self.identity)


def metric(pairs: Pairs, name: str, scope: Scope) -> Metric:
    """Everything about metric *name* but its q-values, which `enter` and `Families.close` add.

    `primary` is what to quote: where items share clusters its interval and test allow for that, else it
    repeats `ci_95` and `perm_p_value`.
    """
    settings, direction = scope.settings, DIRECTIONS[name]
    applicable = missing.applies(pairs, name)
    paired = np.isfinite(pairs.control[name]) & np.isfinite(pairs.treatment[name])
    control, treatment = pairs.control[name][paired], pairs.treatment[name][paired]
    deltas = without_rounding_noise(treatment - control)
    of_control, of_treatment = (
        (side["n_samples"] - side["n_missing"])[paired] for side in (pairs.control, pairs.treatment)
    )
    points = lattice.find(deltas, np.concatenate([of_control, of_treatment]))
    delta = estimates.mean(deltas)
    # Nothing is drawn (B = 0); the block's stream is named all the same, where readers of a bootstrap look for it.
    intervals = bootstrap.mean_intervals(deltas, points) | {"seed": scope.seed(f"{name}/bootstrap")}
    ci_95, ci_method = bootstrap.default_interval(len(deltas), intervals, delta.interval())
    p, permuted = permutation.sign_flip(deltas, points, settings.permutation_samples, scope.seed(f"{name}/sign_flip"))
    primary = {"test": "sign_flip", "p_value": p, "ci_method": ci_method, "ci_95": ci_95}
    signed_ranks = ranks.wilcoxon(deltas)
    warnings = _remarks(deltas)
    document: dict[str, Any] = {
        "direction": direction,
        "n_dropped": int(np.sum(applicable & ~paired)),
        "n_not_applicable": int(np.sum(~applicable)),
        "n_missing_samples": {
            "control": int(pairs.control["n_missing"][applicable].sum()),
            "treatment": int(pairs.treatment["n_missing"][applicable].sum()),
        },
        **estimates.paired(control, treatment, deltas),
        **missing.bounds(pairs, name, applicable, direction),
        "ci_95": ci_95,
        "ci_95_method": ci_method,
        "bootstrap": intervals,
        "perm_p_value": p,
        "permutation": permuted,
        "primary": primary,
        "wilcoxon": signed_ranks,
        "hodges_lehmann": ranks.hodges_lehmann(deltas),
        **effects(control, treatment, deltas),
        "warnings": warnings,
    }
    design_effect: Number = 1.0
    units, called = deltas, "pairs"
    if settings.cluster != "none":
        _, clusters = np.unique(pairs.cluster[paired], return_inverse=True)
        document["cluster"], clustered = _clustered(deltas, clusters, points, document, scope, name)
        if (n_clusters := document["cluster"]["n_clusters"]) < len(deltas):
            delta, design_effect = clustered, document["cluster"]["design_effect"]
            primary |= {
                "test": "cluster_sign_flip",
                "p_value": document["cluster"]["sign_flip_p"],
                "ci_method": "cluster_t",
                "ci_95": document["cluster"]["ci_95"],
            }
            if clustered.se == 0 and np.ptp(deltas) > 0:
                warnings.append("zero_variance: the clusters' deltas do not vary, so `primary.ci_95` is a point")
            if n_clusters < FEW_CLUSTERS:
                warnings.append(f"few_clusters: {n_clusters} clusters; below {FEW_CLUSTERS} intervals are too short")
            elif (equal := estimates.equal_clusters(clusters)) < FEW_CLUSTERS:
                warnings.append(
                    f"uneven_clusters: {n_clusters} clusters weigh like {equal:.0f} of one size; below {FEW_CLUSTERS} "
                    "intervals are too short"
                )
            units, called = np.bincount(clusters, deltas - deltas.mean()).astype(np.float64), "clusters"
    warnings += _skewed_mean(units, called)
    variances = power.split(
        deltas,
        (pairs.control[f"{name}_std"][paired], of_control),
        (pairs.treatment[f"{name}_std"][paired], of_treatment),
        # An effect below 1 is mostly noise of its estimate, and would promise more than independent items give.
        design_effect if isinstance(design_effect, Undefined) else max(1.0, design_effect),
    )
    if variances.clipped:
        warnings.append(power.CLIPPED)
    document["power"] = power.summary(variances, len(deltas), settings.alpha, settings.power, settings.target_deltas)
    return Metric(document, delta, _identity(paired, deltas))


def _clustered(
    deltas: FloatArray,
    clusters: IntArray,
    points: Lattice | None,
    of_items: dict[str, Any],
    scope: Scope,
    name: str,
) -> tuple[dict[str, Any], Estimate]:
    """The `cluster` object; where every cluster is one item, resampling clusters is resampling items."""
    estimate = estimates.clustered_mean(deltas, clusters)
    n_clusters = len(np.unique(clusters))
    interval, method = of_items["bootstrap"]["percentile_95"], of_items["bootstrap"]["method"]
    flipped, permuted = of_items["perm_p_value"], of_items["permutation"]
    if n_clusters < len(deltas):
        interval, method = bootstrap.cluster_interval(deltas, clusters), "grid"
        sums = without_rounding_noise(np.bincount(clusters, deltas).astype(np.float64))
        flipped, permuted = permutation.sign_flip(
            sums,
            Lattice(np.rint(sums / points.step).astype(np.int64), points.step) if points else None,
            scope.settings.permutation_samples,
            scope.seed(f"{name}/cluster_sign_flip"),
        )
    return {
        "unit": scope.settings.cluster,
        "n_clusters": n_clusters,
        "se_cr1": estimate.se,
        "se_cr0": estimate.se if isinstance(estimate.se, Undefined) else estimates.cr0(deltas, clusters),
        "ci_95": estimate.interval(),
        "p": estimate.p_value(),
        "design_effect": _design_effect(of_items["se"], estimate.se),
        "bootstrap_ci_95": interval,
        "bootstrap_method": method,
        "sign_flip_p": flipped,
        "permutation": permuted,
    }, estimate


def _design_effect(se: Number, se_cr1: Number) -> Number:
    if isinstance(se, Undefined):
        return se
    if isinstance(se_cr1, Undefined):
        return se_cr1
    return (se_cr1 / se) ** 2 if se > 0 else ZERO_VARIANCE


def _identity(paired: BoolArray, deltas: FloatArray) -> tuple[bytes, bytes] | None:
    """What two tests share that test the same: the items and, up to sign, the deltas. None where all are 0."""
    nonzero = np.flatnonzero(deltas)
    if not len(nonzero):
        return None
    return paired.tobytes(), without_rounding_noise(deltas * math.copysign(1, deltas[nonzero[0]])).tobytes()


def _remarks(deltas: FloatArray) -> list[str]:
    remarks = []
    if 0 < len(deltas) < FEW_ITEMS:
        remarks.append(f"n_small: {len(deltas)} pairs; below {FEW_ITEMS} bootstrap intervals are too short")
    if len(deltas) > 1 and np.ptp(deltas) == 0:
        remarks.append("zero_variance: all deltas are equal, so intervals are a point")
    # Where all that differ do so by the same amount, signed ranks are signs, and test the mean as McNemar does.
    if len(np.unique(np.abs(deltas[deltas != 0]))) > 1 and abs(skewness := _skewness(deltas)) > SKEWED:
        remarks.append(
            f"skewed: the deltas have skewness {skewness:.1f}; `wilcoxon` and `hodges_lehmann` presume symmetry and "
            "do not speak of the mean"
        )
    return remarks


def _skewed_mean(units: FloatArray, what: str) -> list[str]:
    """A warning where the mean of *units* is too far from normal for t, sign flips and intervals to keep their 5%."""
    skewness = _skewness(units)
    if not len(units) or abs(skewness) / math.sqrt(len(units)) <= SKEWED_MEAN:
        return []
    return [
        f"skewed_mean: {len(units)} {what} with skewness {skewness:.1f}; t, sign flips and intervals err more than 5%"
    ]


def _skewness(values: FloatArray) -> float:
    if len(values) < 3 or np.ptp(values) < 1e-12:
        return 0.0
    residuals = values - values.mean()
    return float(np.mean(residuals**3) / np.mean(residuals**2) ** 1.5)
