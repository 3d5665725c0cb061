"""How often tests reject a true hypothesis and intervals miss the truth, by simulation.

    pytest -m heavy -s tests/test_statistics_calibration.py      prints the figures of codex/calibration.md

A rate must lie within 3.5 Monte Carlo standard errors of nominal where theory promises it (RUNS = 4,000: 5% +- 1.2
points); exact tests of discrete data may stay below. Where theory does not promise it, the document warns, and
the warning is asserted here beside the figure that earns it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from paired_data import Paired, rows_of, written

from pipeline.statistics import bootstrap, estimates, lattice, meta, permutation, power, selective
from pipeline.statistics.analysis import analyse
from pipeline.statistics.estimates import Estimate
from pipeline.statistics.fdr import adjust
from pipeline.statistics.mcnemar import mcnemar
from pipeline.statistics.ranks import wilcoxon
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores
from pipeline.statistics.tost import tost

pytestmark = pytest.mark.heavy

RUNS = 4000
ALPHA = 0.05
Scores = tuple[np.ndarray, np.ndarray]


def error(rate: float, runs: int = RUNS) -> float:
    """3.5 Monte Carlo standard errors of a rate."""
    return 3.5 * math.sqrt(rate * (1 - rate) / runs)


def show(what: str, **rates: float) -> None:
    print(f"\n{what:<44}" + "  ".join(f"{name} {100 * rate:5.1f}%" for name, rate in rates.items()), end="")


def same_skill(n: int, samples: int) -> Callable[[np.random.Generator], Scores]:
    """No difference: both conditions answer each item with the same probability."""

    def draw(rng: np.random.Generator) -> Scores:
        skill = rng.random(n)
        return rng.binomial(samples, skill) / samples, rng.binomial(samples, skill) / samples

    return draw


def rare_changes(n: int, wins: float, losses: float) -> Callable[[np.random.Generator], Scores]:
    """One sample per item, few items change: heavy ties, and skewed where wins and losses differ."""

    def draw(rng: np.random.Generator) -> Scores:
        kind = rng.choice([0, 1, 2, 3], n, p=[wins, losses, 0.6, 0.4 - wins - losses])
        return np.isin(kind, (1, 2)).astype(float), np.isin(kind, (0, 2)).astype(float)

    return draw


def partial_credit(n: int) -> Callable[[np.random.Generator], Scores]:
    """Like F1: many 0 and 1, the rest anything; no difference."""

    def draw(rng: np.random.Generator) -> Scores:
        kind, part = rng.random((2, n)), rng.random((2, n))
        control, treatment = np.where(kind < 0.4, 1.0, np.where(kind < 0.7, 0.0, part))
        return control, treatment

    return draw


def rare_gains(n: int) -> Callable[[np.random.Generator], Scores]:
    """No difference on average: of 5 samples each, 5% of items gain all and 25% lose one."""

    def draw(rng: np.random.Generator) -> Scores:
        kind = rng.choice([0, 1, 2], n, p=[0.05, 0.25, 0.7])
        return np.where(kind == 1, 0.2, 0.0), np.where(kind == 0, 1.0, 0.0)

    return draw


def shared_drift(
    clusters: np.ndarray, drift: float = 0.33, gain: float = 0.0
) -> Callable[[np.random.Generator], Scores]:
    """A difference of *gain* on average, but the items of a cluster gain or lose together: correlation about 0.2."""

    def draw(rng: np.random.Generator) -> Scores:
        skill = rng.uniform(0.4, 0.6, len(clusters))
        moved = skill + gain + drift * rng.choice([-1, 1], clusters.max() + 1)[clusters]
        return rng.binomial(1, skill).astype(float), rng.binomial(1, moved).astype(float)

    return draw


def rejections(draw: Callable[[np.random.Generator], Scores], samples: int, runs: int = RUNS) -> dict[str, float]:
    """How often each test of independent items has p <= ALPHA."""
    rng = np.random.default_rng(2024)
    rejected = dict.fromkeys(("t", "sign_flip", "wilcoxon", "mcnemar", "mid_p"), 0)
    for run in range(runs):
        control, treatment = draw(rng)
        deltas = np.round(treatment - control, 12)
        points = lattice.find(deltas, np.array([float(samples)]))
        table = mcnemar(control, treatment)
        p = estimates.mean(deltas).p_value()
        rejected["t"] += isinstance(p, float) and p <= ALPHA
        rejected["sign_flip"] += permutation.sign_flip(deltas, points, 1000, [1, run])[0] <= ALPHA
        rejected["wilcoxon"] += wilcoxon(deltas)["p_value"] <= ALPHA
        rejected["mcnemar"] += table["p_exact"] <= ALPHA
        rejected["mid_p"] += table["p_mid"] <= ALPHA
    return {name: count / runs for name, count in rejected.items()}


def coverage(draw: Callable[[np.random.Generator], Scores], truth: float, runs: int = RUNS) -> dict[str, float]:
    """How often each interval of independent items holds *truth*."""
    rng = np.random.default_rng(2025)
    held = dict.fromkeys(("t", "percentile", "bca", "quoted"), 0)
    for _ in range(runs):
        control, treatment = draw(rng)
        deltas = np.round(treatment - control, 12)
        delta = estimates.mean(deltas)
        intervals = bootstrap.mean_intervals(deltas, lattice.find(deltas, np.array([1.0, 5.0])))
        quoted, _ = bootstrap.default_interval(len(deltas), intervals, delta.interval())
        for name, interval in (
            ("t", delta.interval()),
            ("percentile", intervals["percentile_95"]),
            ("bca", intervals["bca_95"]),
            ("quoted", quoted),
        ):
            held[name] += interval[0] - 1e-9 <= truth <= interval[1] + 1e-9
    return {name: count / runs for name, count in held.items()}


def warnings_of(draw: Callable[[np.random.Generator], Scores], clusters: np.ndarray | None, folder: Path) -> str:
    """All warnings of the document made from one draw."""
    control, treatment = draw(np.random.default_rng(1))
    clusters = np.arange(len(control)) if clusters is None else clusters
    data = Paired(control, treatment, np.ones(len(control), dtype=int), clusters)
    settings = StatisticsSettings(bootstrap_samples=1000, permutation_samples=1000)
    table = read_scores(written(folder / "scores.csv", rows_of(data)))
    block = analyse(table, settings, "control", ["treatment"])["results"]["0"]["open"]
    return " ".join(block["warnings"] + block["metrics"]["em"]["warnings"])


@pytest.mark.parametrize(
    ("what", "draw", "samples"),
    [
        ("rates of 5, n = 100", same_skill(100, 5), 5),
        ("rates of 5, n = 15", same_skill(15, 5), 5),
        ("one sample, n = 200", same_skill(200, 1), 1),
        ("heavy ties: 6% change, n = 300", rare_changes(300, 0.03, 0.03), 1),
        ("partial credit, n = 60", partial_credit(60), 1),
    ],
)
def test_type_one_error_of_independent_items(what: str, draw: Callable, samples: int) -> None:
    found = rejections(draw, samples)
    show(f"rejects at 5%: {what}", **found)
    for name in ("sign_flip", "wilcoxon", "mcnemar", "mid_p"):
        assert found[name] <= ALPHA + error(ALPHA), name
    assert found["t"] == pytest.approx(ALPHA, abs=error(ALPHA))
    if what in ("rates of 5, n = 100", "partial credit, n = 60"):  # enough different sums to use the 5% up
        assert found["sign_flip"] == pytest.approx(ALPHA, abs=error(ALPHA))


@pytest.mark.parametrize(
    ("what", "draw", "truth"),
    [
        ("rates of 5, n = 100", same_skill(100, 5), 0.0),
        ("partial credit, n = 60", partial_credit(60), 0.0),
        ("heavy ties, n = 300", rare_changes(300, 0.05, 0.03), 0.02),
        ("skewed: 10% win, n = 200", rare_changes(200, 0.10, 0.01), 0.09),
    ],
)
def test_coverage_of_independent_items(what: str, draw: Callable, truth: float) -> None:
    """The percentile interval may fall short by sqrt((n - 1) / n) and z for t: under a point from n = 60 on."""
    found = coverage(draw, truth)
    show(f"covers 95%: {what}", **found)
    for name, rate in found.items():
        assert rate == pytest.approx(0.95, abs=error(0.95) + 0.01), name


def test_limits_of_the_odds_ratio_hold_at_least_95_percent() -> None:
    """Exact limits of a discrete number are conservative. Five wins to three losses among 300 items."""
    rng = np.random.default_rng(13)
    draw = rare_changes(300, 0.05, 0.03)
    held = 0
    for _ in range(RUNS):
        table = mcnemar(*draw(rng))
        low, high = table["or_ci_95"]
        held += low <= 5 / 3 and (table["or_infinite"] or high >= 5 / 3)
    show("covers 95%: odds ratio, n = 300", clopper_pearson=held / RUNS)
    assert held / RUNS >= 0.95 - error(0.95)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_small_skewed_samples_are_covered_too_rarely_and_warned_of(n: int, tmp_path: Path) -> None:
    def draw(rng: np.random.Generator) -> Scores:
        return np.zeros(n), np.minimum(rng.exponential(0.2, n), 1.0)

    truth = 0.2 * (1 - math.exp(-5))
    found = coverage(draw, truth)
    show(f"covers 95%: exponential deltas, n = {n}", **found)
    assert found["percentile"] < found["t"] < 0.95
    assert found["quoted"] == found["t"]  # below 30 items t is quoted, the least bad
    assert "n_small" in warnings_of(draw, None, tmp_path)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_skewed_items_are_judged_wrongly_and_warned_of(n: int, tmp_path: Path) -> None:
    """A mean of 0 without symmetry: Wilcoxon finds its shift ever more often, t and sign flips recover slowly."""
    runs = RUNS // 4
    found = rejections(rare_gains(n), 5, runs)
    found = {name: found[name] for name in ("t", "sign_flip", "wilcoxon")}  # of McNemar this is no null
    show(f"rejects at 5%: skewed, n = {n}", **found)
    warnings = warnings_of(rare_gains(n), None, tmp_path)
    assert found["wilcoxon"] > 2 * ALPHA
    assert "skewed: " in warnings
    if max(found["t"], found["sign_flip"]) > ALPHA + error(ALPHA, runs) + 0.01:
        assert "skewed_mean: " in warnings
    assert n > 100 or "skewed_mean: " in warnings
    for fair in (same_skill(100, 5), rare_changes(300, 0.03, 0.03)):
        assert "skewed" not in warnings_of(fair, None, tmp_path)


@pytest.mark.parametrize(("n_clusters", "size"), [(30, 10), (100, 5), (8, 25)])
def test_clustered_items(n_clusters: int, size: int, tmp_path: Path) -> None:
    """Tests that ignore clusters reject several times too often; CR1 and cluster sign flips hold their level."""
    clusters = np.repeat(np.arange(n_clusters), size)
    draw = shared_drift(clusters)
    rng = np.random.default_rng(7)
    runs = RUNS // 4
    rejected = dict.fromkeys(("naive_t", "naive_flip", "cr1", "cluster_flip", "cluster_bootstrap"), 0)
    for _ in range(runs):
        control, treatment = draw(rng)
        deltas = treatment - control
        totals = np.bincount(clusters, deltas)
        steps = np.rint(totals).astype(np.int64)
        interval = bootstrap.cluster_interval(deltas, clusters)
        rejected["naive_t"] += estimates.mean(deltas).p_value() <= ALPHA
        points = lattice.Lattice(deltas.astype(np.int64), 1.0)
        rejected["naive_flip"] += permutation.sign_flip(deltas, points, 100, [1])[0] <= ALPHA
        rejected["cr1"] += estimates.clustered_mean(deltas, clusters).p_value() <= ALPHA
        rejected["cluster_flip"] += permutation.sign_flip(totals, lattice.Lattice(steps, 1.0), 100, [1])[0] <= ALPHA
        rejected["cluster_bootstrap"] += not interval[0] <= 0 <= interval[1]
    found = {name: count / runs for name, count in rejected.items()}
    show(f"rejects at 5%: {n_clusters} clusters of {size}", **found)
    assert min(found["naive_t"], found["naive_flip"]) > 2 * ALPHA
    assert found["cluster_flip"] <= ALPHA + error(ALPHA, runs)
    assert found["cr1"] == pytest.approx(ALPHA, abs=error(ALPHA, runs) + 0.01)
    warnings = warnings_of(draw, clusters, tmp_path)
    assert "clustered: " in warnings
    if n_clusters < 20:
        assert "few_clusters" in warnings
    else:
        assert found["cluster_bootstrap"] == pytest.approx(ALPHA, abs=error(ALPHA, runs) + 0.02)


@pytest.mark.parametrize(
    ("n_clusters", "sizes"),
    [
        (30, [10]),
        (30, [6, 10, 14]),
        (100, [1, 3, 5, 7, 9]),
        (8, [5, 10, 35, 50]),
        (30, [2, 4, 6, 8, 30]),
        (100, [1] * 9 + [41]),
    ],
)
def test_coverage_of_a_difference_among_clusters(n_clusters: int, sizes: list[int], tmp_path: Path) -> None:
    """A true difference of 10 points: intervals that allow for clusters hold it, unless clusters are few or uneven."""
    clusters = np.repeat(np.arange(n_clusters), np.resize(sizes, n_clusters))
    draw = shared_drift(clusters, drift=0.3, gain=0.1)
    rng = np.random.default_rng(14)
    runs = RUNS // 4
    held = dict.fromkeys(("naive_t", "naive_bca", "cr1", "cluster_bootstrap"), 0)
    for _ in range(runs):
        control, treatment = draw(rng)
        deltas = treatment - control
        for name, interval in (
            ("naive_t", estimates.mean(deltas).interval()),
            ("naive_bca", bootstrap.mean_intervals(deltas, lattice.Lattice(deltas.astype(np.int64), 1.0))["bca_95"]),
            ("cr1", estimates.clustered_mean(deltas, clusters).interval()),
            ("cluster_bootstrap", bootstrap.cluster_interval(deltas, clusters)),
        ):
            held[name] += interval[0] - 1e-9 <= 0.1 <= interval[1] + 1e-9
    found = {name: count / runs for name, count in held.items()}
    equal = estimates.equal_clusters(clusters)
    show(f"covers 95%: {n_clusters} clusters like {equal:.0f} even ones", **found)
    assert max(found["naive_t"], found["naive_bca"]) < 0.90
    warned = any(f"{code}_clusters: " in warnings_of(draw, clusters, tmp_path) for code in ("few", "uneven"))
    assert warned == (equal < 20)
    if not warned:
        assert found["cr1"] == pytest.approx(0.95, abs=error(0.95, runs) + 0.01)
        assert found["cluster_bootstrap"] == pytest.approx(0.95, abs=error(0.95, runs) + 0.02)


def test_non_inferiority_at_its_margin() -> None:
    """A treatment worse by exactly the margin passes in 5% of experiments."""
    rng = np.random.default_rng(8)
    passed = dict.fromkeys(("non_inferior", "lower_is_better", "equivalent"), 0)
    for _ in range(RUNS):
        skill = rng.uniform(0.1, 1, 400)
        deltas = (rng.binomial(5, skill - 0.05) - rng.binomial(5, skill)) / 5
        delta = estimates.mean(deltas)
        ours = tost(delta, 0.05, ALPHA, "higher")
        mirrored = tost(Estimate(-delta.mean, delta.se, delta.df), 0.05, ALPHA, "lower")
        passed["non_inferior"] += ours["non_inferior"]
        passed["lower_is_better"] += mirrored["non_inferior"]
        passed["equivalent"] += ours["equivalent"]
    found = {name: count / RUNS for name, count in passed.items()}
    show("passes at 5%: delta equal to the margin", **found)
    assert found["non_inferior"] == pytest.approx(ALPHA, abs=error(ALPHA))
    assert found["lower_is_better"] == found["non_inferior"]
    assert found["equivalent"] <= ALPHA + error(ALPHA)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_pooled_intervals_of_few_datasets(k: int) -> None:
    """The z interval of DerSimonian and Laird misses too often; the one by Hartung, Knapp, Sidik, Jonkman does not."""
    rng = np.random.default_rng(9)
    held = dict.fromkeys(("fixed", "dersimonian_laird", "hksj"), 0)
    runs = RUNS
    for _ in range(runs):
        means = 0.02 + rng.normal(0, 0.05, k)
        groups = {}
        for g in range(k):
            deltas = rng.normal(means[g], 0.4, 200)
            groups[str(g)] = estimates.mean(deltas)
        pooled = meta.combine(groups)
        for name, interval in (
            ("fixed", pooled["fixed"]["ci_95"]),
            ("dersimonian_laird", pooled["random"]["ci_95"]),
            ("hksj", pooled["random"]["hksj_ci_95"]),
        ):
            held[name] += interval[0] <= 0.02 <= interval[1]
    found = {name: count / runs for name, count in held.items()}
    show(f"covers 95%: {k} datasets that differ", **found)
    assert found["hksj"] == pytest.approx(0.95, abs=error(0.95, runs) + 0.01)
    assert found["dersimonian_laird"] < 0.93


def test_false_discoveries() -> None:
    """Nineteen true nulls and one effect: at most 5% of discoveries are false, 0.11 false ones on average."""
    rng = np.random.default_rng(10)
    false, share = [], []
    for _ in range(2 * RUNS):
        p = rng.random(20)
        p[0] = 1e-9
        found = adjust(p) <= ALPHA
        false.append(int(found[1:].sum()))
        share.append(false[-1] / max(1, int(found.sum())))
    show("Benjamini-Hochberg, 19 nulls and 1 effect", false_discovery_rate=float(np.mean(share)))
    print(f"  false discoveries {np.mean(false):.3f}", end="")
    assert np.mean(share) <= ALPHA
    assert np.mean(false) == pytest.approx(0.11, abs=0.02)


def test_a_detectable_effect_is_detected_as_often_as_promised() -> None:
    rng = np.random.default_rng(11)
    n, samples = 300, 5
    skill_variance = 2 * (1 / 6) / samples  # both conditions' samples; skill itself cancels
    promised = power.detectable(skill_variance, n, ALPHA, 0.8)
    shown = 0
    for _ in range(RUNS):
        skill = rng.random(n)
        deltas = (rng.binomial(samples, skill) - rng.binomial(samples, skill)) / samples + promised
        shown += estimates.mean(deltas).p_value() <= ALPHA
    show("power at the detectable effect (80%)", t=shown / RUNS)
    assert shown / RUNS == pytest.approx(0.8, abs=error(0.8))


def test_interval_of_the_aurc_difference() -> None:
    """The truth is the difference in a population of a million items; 400 experiments of 400 items."""
    rng = np.random.default_rng(12)

    def answers(n: int, sharpness: float) -> selective.Answers:
        skill = rng.random(n)
        confidence = np.clip(np.rint(5 * (sharpness * skill + (1 - sharpness) * rng.random(n))), 1, 5) / 5
        return selective.Answers(confidence, 1 - rng.binomial(5, skill) / 5)

    truth = selective.selective_risk(answers(1_000_000, 0.3), answers(1_000_000, 0.6), 1, [1])["delta_aurc"]
    runs, held = 400, 0
    for run in range(runs):
        low, high = selective.selective_risk(answers(400, 0.3), answers(400, 0.6), 1000, [1, run])["ci_95"]
        held += low <= truth <= high
    show("covers 95%: difference of AURC, n = 400", percentile=held / runs)
    assert held / runs == pytest.approx(0.95, abs=error(0.95, runs) + 0.01)
