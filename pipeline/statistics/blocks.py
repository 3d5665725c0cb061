"""One block of `significance.json`: everything said of two conditions at one temperature and question type.

A dataset's block is made like the block of all items, from its own pairs and its own random streams, so
another dataset changes nothing in it but the q-values, which belong to a family.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.statistics import estimates, meta, missing, selective
from pipeline.statistics.mcnemar import mcnemar
from pipeline.statistics.metric import DIRECTIONS, Metric, Scope, metric
from pipeline.statistics.numbers import FloatArray, Undefined, without_rounding_noise
from pipeline.statistics.table import Pairs
from pipeline.statistics.tost import tost

METRICS = {"open": tuple(DIRECTIONS), "closed": ("em", "f1", "abstain_rate")}


@dataclass(frozen=True)
class _Block:
    """A block without what other blocks add to it: q-values, subgroups, meta-analysis."""

    document: dict[str, Any]
    metrics: dict[str, Metric]

    def enter(self, scope: Scope) -> dict[str, Any]:
        """The document, its tests entered in the families of *scope*."""
        for name, one in self.metrics.items():
            one.enter(name, scope)
        scope.enter("mcnemar", "em", self.document["mcnemar"], "p_exact")
        return self.document


def block(pairs: Pairs, kind: str, scope: Scope) -> dict[str, Any]:
    """The block of *pairs* of type *kind*, with one block per dataset and their meta-analysis inside it."""
    by_dataset: dict[str, _Block] = {}
    for code in np.unique(np.concatenate([pairs.dataset, pairs.unpaired])):
        name = pairs.dataset_names[code]
        by_dataset[name] = _block(pairs.of_dataset(code), kind, scope.within(name))
    first, *others = by_dataset.values()
    # The only dataset is all items: made once, so that simulated numbers cannot differ either.
    whole = _block(pairs, kind, scope) if others else copy.deepcopy(first)
    return whole.enter(scope) | {
        "subgroups": {"dataset": {name: one.enter(scope.within(name)) for name, one in by_dataset.items()}},
        "meta": {
            name: meta.combine(
                {dataset: one.metrics[name].delta for dataset, one in by_dataset.items() if name in one.metrics}
            )
            for name in whole.metrics
        },
    }


def _block(pairs: Pairs, kind: str, scope: Scope) -> _Block:
    settings = scope.settings
    metrics: dict[str, Metric] = {}
    for name in METRICS[kind]:
        if (kind, name) == ("closed", "f1") and not missing.applies(pairs, name).any():
            continue  # NQ-Open has no official F1
        metrics[name] = metric(pairs, name, scope)
    answered = np.isfinite(pairs.control["em"]) & np.isfinite(pairs.treatment["em"])
    samples = missing.samples(pairs, settings.permutation_samples, scope.seed("missing"))
    document = {
        "n_items": len(pairs.item),
        "n_unpaired": len(pairs.unpaired),
        "samples": samples,
        "metrics": {name: one.document for name, one in metrics.items()},
        "abstention": _abstention(pairs),
        "mcnemar": mcnemar(pairs.control["em"][answered], pairs.treatment["em"][answered]),
        "selective_risk": selective.selective_risk(
            _answers(pairs, pairs.control),
            _answers(pairs, pairs.treatment),
            settings.bootstrap_samples,
            scope.seed("selective_risk"),
        ),
        "tost": {
            name: tost(metrics[name].delta, margin, settings.alpha, DIRECTIONS[name])
            for name, margin in sorted(settings.margins.items())
            if name in metrics
        },
        "warnings": _remarks(pairs, samples, settings.cluster),
    }
    return _Block(document, metrics)


def _abstention(pairs: Pairs) -> dict[str, Any]:
    """Abstaining where there is an answer (a loss) and where there is none (right), as far as both kinds occur."""
    kinds = {}
    for kind, chosen in (("answerable", pairs.answerable != 0), ("unanswerable", pairs.answerable == 0)):
        control, treatment = pairs.control["abstain_rate"], pairs.treatment["abstain_rate"]
        paired = chosen & np.isfinite(control) & np.isfinite(treatment)
        if chosen.any():
            deltas = without_rounding_noise(treatment[paired] - control[paired])
            kinds[kind] = estimates.paired(control[paired], treatment[paired], deltas)
    return kinds


def _answers(pairs: Pairs, side: Mapping[str, FloatArray]) -> selective.Answers:
    """Loss and confidence of answered samples: EM without the abstentions that are right on unanswerable questions."""
    present = side["n_samples"] - side["n_missing"]
    answered = np.nan_to_num(np.rint(present * (1 - side["abstain_rate"])))
    right = side["em"] * present - np.where(pairs.answerable == 0, present - answered, 0.0)
    share = np.divide(right, answered, out=np.full(len(answered), math.nan), where=answered > 0)
    loss = without_rounding_noise(1 - np.clip(share, 0, 1))
    return selective.Answers(np.where(np.isfinite(loss), without_rounding_noise(side["consistency"]), math.nan), loss)


def _remarks(pairs: Pairs, samples: dict[str, Any], unit: str) -> list[str]:
    remarks = []
    if len(pairs.unpaired):
        remarks.append(f"unpaired: {len(pairs.unpaired)} items stand in one condition only and are left out")
    if not isinstance(samples["missing_p_value"], Undefined) and samples["missing_p_value"] < 0.05:
        remarks.append("missing_differs: one condition lacks more responses; `bounds_delta` allows for them")
    if unit != "none" and len(np.unique(pairs.cluster)) < len(pairs.item):
        remarks.append(
            f"clustered: items share a {unit}; `primary`, `cluster`, `tost` and `meta` allow for that, "
            "mcnemar, wilcoxon, bootstrap, permutation, ci_95, abstention and selective_risk do not"
        )
    return remarks
