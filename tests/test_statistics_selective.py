"""Risk-coverage curves equal their definitions, item by item and in random order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.statistics.numbers import Undefined
from pipeline.statistics.selective import Answers, selective_risk

SEED = [3, 4]


def answers(pairs: list[tuple[float, float]]) -> Answers:
    confidence, loss = np.array(pairs, dtype=float).reshape(-1, 2).T
    return Answers(confidence, loss)


def simulated(seed: int, n: int, samples: int = 5) -> Answers:
    """Self-consistency in steps of 1/5, the surer the less wrong; one item in ten is not answered."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(1, samples + 1, n) / samples
    loss = rng.binomial(samples, 1 - 0.8 * confidence, n) / samples
    silent = rng.random(n) < 0.1
    return Answers(np.where(silent, np.nan, confidence), np.where(silent, np.nan, loss))


def area(side: Answers, upto: int, rng: np.random.Generator, orders: int = 4000) -> float:
    """AURC by its definition, ties in random order."""
    covered = np.isfinite(side.loss)
    confidence, loss = side.confidence[covered], side.loss[covered]
    risks = np.zeros(upto)
    for _ in range(orders):
        order = np.lexsort((rng.random(len(loss)), -confidence))
        risks += loss[order][:upto].cumsum() / np.arange(1, upto + 1)
    return float(np.mean(risks / orders))


def test_distinct_confidences_give_the_mean_of_the_risks() -> None:
    ours = selective_risk(answers([(0.9, 0), (0.8, 1), (0.7, 0), (0.6, 1)]), answers([(0.5, 1)] * 4), 100, SEED)
    curve = ours["control"]
    assert curve["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert curve["e_aurc"] == pytest.approx(curve["aurc"] - (0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert curve["augrc"] == pytest.approx((0 + 1 + 1 + 2) / 16)
    assert [point["coverage"] for point in curve["points"]] == [0.25, 0.5, 0.75, 1.0]
    assert [point["risk"] for point in curve["points"]] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert ours["delta_aurc"] == pytest.approx(1 - curve["aurc"])


def test_generalised_risk_is_of_all_items_also_where_some_are_not_covered() -> None:
    """It was of the covered ones: whoever abstained on half of the questions looked twice as wrong."""
    silent = (math.nan, math.nan)
    ours = selective_risk(answers([(0.9, 0), (0.8, 1), silent, silent]), answers([(0.5, 1)] * 4), 100, SEED)
    assert ours["control"]["max_coverage"] == 0.5
    assert ours["control"]["augrc"] == pytest.approx((0 + 1) / 4 / 2)
    assert ours["treatment"]["augrc"] == pytest.approx((1 + 2 + 3 + 4) / 4 / 4)


def test_ties_count_in_expectation_over_their_order() -> None:
    """Tolerance 4 Monte Carlo standard errors of 4,000 random orders."""
    rng = np.random.default_rng(0)
    control, treatment = simulated(1, 60), simulated(2, 60)
    ours = selective_risk(control, treatment, 100, SEED)
    covered = [int(np.isfinite(side.loss).sum()) for side in (control, treatment)]
    assert ours["control"]["aurc"] == pytest.approx(area(control, covered[0], rng), abs=2e-3)
    common = min(covered)
    assert ours["common_coverage"] == common / 60
    assert ours["delta_aurc"] == pytest.approx(area(treatment, common, rng) - area(control, common, rng), abs=4e-3)


def test_coverage_counts_all_items_and_rises() -> None:
    ours = selective_risk(simulated(5, 300), simulated(6, 300), 100, SEED)
    for condition in ("control", "treatment"):
        coverages = [point["coverage"] for point in ours[condition]["points"]]
        assert coverages == sorted(coverages)
        assert coverages[-1] == ours[condition]["max_coverage"] < 1
        assert all(0 <= point["risk"] <= 1 for point in ours[condition]["points"])


def test_interval_equals_a_bootstrap_over_items() -> None:
    """Within 4 Monte Carlo errors (2.7 SE / sqrt(B)) of a resampling of whole items, 600 times."""
    control, treatment = simulated(7, 80), simulated(8, 80)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(600):
        items = rng.integers(0, 80, 80)
        sides = [Answers(side.confidence[items], side.loss[items]) for side in (control, treatment)]
        drawn.append(selective_risk(*sides, 1, SEED)["delta_aurc"])
    ours = selective_risk(control, treatment, 20_000, SEED)
    tolerance = 4 * 2.7 * float(np.std(drawn)) / math.sqrt(600)
    assert ours["ci_95"] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=tolerance)


def test_swapping_the_conditions_mirrors_the_difference() -> None:
    a, b = simulated(9, 120), simulated(10, 120)
    one, other = selective_risk(a, b, 500, SEED), selective_risk(b, a, 500, SEED)
    assert other["delta_aurc"] == -one["delta_aurc"]
    assert other["ci_95"] == pytest.approx([-one["ci_95"][1], -one["ci_95"][0]], rel=1e-12)
    assert other["control"] == one["treatment"]


def test_one_sample_per_item_has_a_constant_confidence() -> None:
    ours = selective_risk(answers([(1, 0), (1, 1), (1, 1), (1, 0)]), answers([(1, 0)] * 4), 100, SEED)["control"]
    assert ours["confidence_source"] == "constant"
    assert ours["aurc"] == 0.5
    assert isinstance(ours["e_aurc"], Undefined)


def test_nothing_answered_has_no_risk() -> None:
    silent = answers([(np.nan, np.nan)] * 5)
    ours = selective_risk(silent, simulated(1, 5), 100, SEED)
    assert ours["control"]["max_coverage"] == 0
    assert ours["control"]["points"] == []
    assert all(isinstance(ours[key], Undefined) for key in ("delta_aurc", "ci_95"))
    assert isinstance(ours["control"]["aurc"], Undefined)
    empty = selective_risk(answers([]), answers([]), 100, SEED)
    assert isinstance(empty["common_coverage"], Undefined)
    assert isinstance(empty["control"]["max_coverage"], Undefined)


def test_two_items_are_too_few_to_resample() -> None:
    """Half of the resamples hold one item twice; where that item is not answered there is no risk to compare."""
    sides = answers([(1, 0), (np.nan, np.nan)]), answers([(1, 1), (1, 0)])
    assert isinstance(selective_risk(*sides, 1000, SEED)["ci_95"], Undefined)
