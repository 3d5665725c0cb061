"""McNemar, Wilcoxon, Hodges-Lehmann and Benjamini-Hochberg equal SciPy and statsmodels, or enumeration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_data import GAPS, SETS, Paired, rows_of, written
from scipy import stats  # statsmodels is imported where it is used: it takes a second, which each worker would pay

from pipeline.statistics.analysis import analyse
from pipeline.statistics.fdr import Families, adjust
from pipeline.statistics.mcnemar import mcnemar
from pipeline.statistics.numbers import Undefined
from pipeline.statistics.ranks import hodges_lehmann, wilcoxon
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores

VARYING = [name for name, data in SETS.items() if len(data.deltas) > 1 and np.ptp(data.deltas) > 0]


def outcomes(b: int, c: int, both: int = 3, neither: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([0.0] * b + [1.0] * c + [1.0] * both + [0.0] * neither),
        np.array([1.0] * b + [0.0] * c + [1.0] * both + [0.0] * neither),
    )


@pytest.mark.parametrize(("b", "c"), [(12, 5), (5, 12), (1, 0), (0, 7), (8, 8), (3, 40), (600, 500), (6000, 1000)])
def test_mcnemar_equals_scipy_and_statsmodels(b: int, c: int) -> None:
    """Relative tolerance 1e-9, also at p = 1e-100 and below."""
    from statsmodels.stats import contingency_tables

    ours = mcnemar(*outcomes(b, c))
    reference = stats.binomtest(b, b + c)
    table = [[3, c], [b, 4]]
    assert (ours["b"], ours["c"], ours["n_both"], ours["n_neither"]) == (b, c, 3, 4)
    assert ours["p_exact"] == pytest.approx(max(reference.pvalue, 2.2250738585072014e-308), rel=1e-9)
    assert ours["p_exact"] == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue, rel=1e-9)
    point = stats.binom.pmf(min(b, c), b + c, 0.5)
    assert ours["p_mid"] == pytest.approx(1.0 if b == c else reference.pvalue - point, rel=1e-6)
    limits = reference.proportion_ci(0.95, method="exact")
    lower, upper = ours["or_ci_95"]
    assert lower == pytest.approx(limits.low / (1 - limits.low), rel=1e-9)
    if c == 0:
        assert ours["or_infinite"]
        assert isinstance(upper, Undefined)
        assert isinstance(ours["odds_ratio"], Undefined)
    else:
        assert upper == pytest.approx(limits.high / (1 - limits.high), rel=1e-9)
        assert ours["odds_ratio"] == b / c
        assert (lower > 1 or upper < 1) == (ours["p_exact"] < 0.05)


def test_no_discordant_items_are_no_evidence() -> None:
    ours = mcnemar(*outcomes(0, 0))
    assert ours["p_exact"] == ours["p_mid"] == 1
    assert not ours["or_infinite"]
    assert isinstance(ours["odds_ratio"], Undefined)
    assert isinstance(mcnemar(np.array([]), np.array([]))["p_exact"], Undefined)


def test_a_mean_of_one_half_is_a_counted_tie() -> None:
    """Forty items of two samples: counting ties as right gives b = 7, c = 0 and p = 0.016; as wrong, p = 1."""
    control = np.array([0.5] * 6 + [1.0] * 7 + [0.0] + [0.5] * 7 + [1.0] * 19)
    treatment = np.array([1.0] * 6 + [0.5] * 7 + [0.5] + [0.5] * 7 + [1.0] * 19)
    ours = mcnemar(control, treatment)
    assert (ours["b"], ours["c"], ours["p_exact"]) == (6, 7, pytest.approx(1.0))
    assert (ours["n_ties_control"], ours["n_ties_treatment"], ours["binarize"]) == (13, 15, "mean > 1/2")
    assert (ours["without_ties"]["b"], ours["without_ties"]["c"], ours["without_ties"]["n_both"]) == (0, 0, 19)


@pytest.mark.parametrize("name", VARYING)
def test_wilcoxon_equals_scipy(name: str) -> None:
    """Relative tolerance 1e-9: the exact method where SciPy has one, its normal one where ours is, else convolution."""
    deltas = SETS[name].deltas
    ours = wilcoxon(deltas)
    nonzero = deltas[deltas != 0]
    approximate = stats.wilcoxon(deltas, zero_method="wilcox", correction=False, method="asymptotic")
    ranks = stats.rankdata(np.abs(nonzero))
    assert ours["W"] == approximate.statistic
    assert ours["n_nonzero"] == len(nonzero)
    assert ours["W_plus"] == ranks[nonzero > 0].sum()
    assert ours["rank_biserial"] == pytest.approx((ours["W_plus"] - ours["W_minus"]) / ranks.sum())
    ties = len(np.unique(np.abs(nonzero))) < len(nonzero)
    if ours["method"] == "normal":
        assert ours["p_value"] == pytest.approx(approximate.pvalue, rel=1e-9)
    elif not ties and len(nonzero) <= 50:
        assert ours["p_value"] == pytest.approx(stats.wilcoxon(nonzero, method="exact").pvalue, rel=1e-9)
    elif len(nonzero) <= 300:
        assert ours["p_value"] == pytest.approx(convolved(ranks, nonzero), rel=1e-9)


def convolved(ranks: np.ndarray, deltas: np.ndarray) -> float:
    """The exact two-sided p of the signed-rank test, one rank after the other."""
    doubled = np.rint(2 * ranks).astype(int)
    chance = np.ones(1)
    for rank in doubled:
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    plus = np.arange(len(chance))
    distance = np.abs(2 * plus - doubled.sum())
    return float(chance[distance >= abs(2 * doubled[deltas > 0].sum() - doubled.sum())].sum())


def test_wilcoxon_of_binary_outcomes_is_exact_mcnemar() -> None:
    """The normal approximation gives 0.090 for 12 against 5 discordant items, the exact test 0.143."""
    data = SETS["12 against 5 discordant"]
    assert wilcoxon(data.deltas)["p_value"] == pytest.approx(stats.binomtest(5, 17).pvalue, rel=1e-9)
    assert wilcoxon(data.deltas)["p_value"] == pytest.approx(0.1435, abs=1e-4)


def test_wilcoxon_falls_back_to_the_normal_for_many_different_deltas() -> None:
    ours = wilcoxon(np.random.default_rng(0).normal(0.05, 1, 4000))
    assert ours["method"] == "normal"


def test_wilcoxon_without_ranks() -> None:
    assert wilcoxon(SETS["one item"].deltas)["p_value"] == 1
    assert wilcoxon(SETS["one item"].deltas)["W"] == 0
    zero, empty = wilcoxon(SETS["all zero"].deltas), wilcoxon(SETS["empty"].deltas)
    assert zero["p_value"] == 1
    assert isinstance(zero["W"], Undefined)
    assert isinstance(empty["p_value"], Undefined)


def test_rounding_noise_makes_no_ranks() -> None:
    """0.6 - 0.4, 0.8 - 0.6 and 0.2 are three floats; ranked raw they moved a p from 0.128 to 0.104."""
    data = SETS["13 items with ties"]
    raw = data.treatment - data.control
    assert len(np.unique(np.abs(raw))) > len(np.unique(np.abs(data.deltas)))
    nonzero = data.deltas[data.deltas != 0]
    exact = convolved(stats.rankdata(np.abs(nonzero)), nonzero)
    assert wilcoxon(data.deltas)["p_value"] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in SETS if len(SETS[name].deltas) > 0])
def test_hodges_lehmann_equals_brute_force(name: str) -> None:
    deltas = SETS[name].deltas
    first, second = np.triu_indices(len(deltas))
    assert hodges_lehmann(deltas) == pytest.approx(np.median((deltas[first] + deltas[second]) / 2), abs=1e-12)


def test_hodges_lehmann_is_not_the_median() -> None:
    assert hodges_lehmann(np.array([1.0] * 40 + [0.0] * 60)) == 0.5


def test_benjamini_hochberg_runs_from_the_largest_p_down() -> None:
    """Upwards from the smallest, every test got the smallest q: 0.004 four times."""
    assert adjust(np.array([0.001, 0.5, 0.9, 0.95])) == pytest.approx([0.004, 0.95, 0.95, 0.95])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.001, 0.01, 0.02, 0.2, 0.5, 1.0]) | st.floats(1e-12, 1), max_size=12))
def test_benjamini_hochberg_equals_scipy_and_statsmodels(values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.array(values)
    ours = adjust(p)
    if values:
        assert ours == pytest.approx(stats.false_discovery_control(p, method="bh"), rel=1e-12)
        assert ours == pytest.approx(multipletests(p, method="fdr_bh")[1], rel=1e-12)
    else:
        assert len(ours) == 0


def test_families_count_a_hypothesis_once_and_leave_nulls_out() -> None:
    families = Families()
    tests = [{"p": 0.01}, {"p": 0.04}, {"p": 0.04}, {"p": Undefined("no_pairs: none")}, {"p": 0.5}]
    for name, test, same_as in zip("abcde", tests, [None, "x", "x", None, None], strict=True):
        families.add("primary", name, test, "p", same_as)
    alone = {"p": 0.3}
    families.add("mcnemar", "f", alone, "p")
    fdr = families.close()
    assert fdr["families"] == {"primary": {"m": 3, "members": ["a", "b", "e"]}, "mcnemar": {"m": 1, "members": ["f"]}}
    assert [test["q_value"] for test in tests if test is not tests[3]] == pytest.approx([0.03, 0.06, 0.06, 0.5])
    assert isinstance(tests[3]["q_value"], Undefined)
    assert alone["q_value"] == 0.3
    assert math.isclose(tests[1]["q_value"], tests[2]["q_value"])


def test_an_item_without_a_score_on_one_side_is_left_out_by_every_test(tmp_path: Path) -> None:
    """As SciPy's `nan_policy="omit"` does; taken for 0, the six items would change p and the mean."""
    table = read_scores(written(tmp_path / "scores.csv", rows_of(GAPS)))
    quick = StatisticsSettings(bootstrap_samples=1000, permutation_samples=1000)
    ours = analyse(table, quick, "control", ["treatment"])["results"]["0"]["open"]["metrics"]["em"]
    kept = np.isfinite(GAPS.control) & np.isfinite(GAPS.treatment)
    # An item without a score on both sides and no missing answer is one that the metric does not apply to.
    assert (ours["n_pairs"], ours["n_dropped"], ours["n_not_applicable"]) == (kept.sum(), 5, 1)
    theirs = stats.ttest_rel(GAPS.treatment, GAPS.control, nan_policy="omit")
    assert ours["p_t"] == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours["ci_95_t"] == pytest.approx(list(theirs.confidence_interval(0.95)), rel=1e-9)
    assert ours["mean_control"] == pytest.approx(GAPS.control[kept].mean(), rel=1e-9)
    assert ours["wilcoxon"]["W"] == stats.wilcoxon(GAPS.deltas[kept], zero_method="wilcox", method="approx").statistic
    deltas = GAPS.deltas[kept & (GAPS.deltas != 0)]
    exact = convolved(stats.rankdata(np.abs(deltas)), deltas)
    assert ours["wilcoxon"]["p_value"] == pytest.approx(exact, rel=1e-9)
    whole = stats.ttest_rel(np.nan_to_num(GAPS.treatment), np.nan_to_num(GAPS.control)).pvalue
    assert abs(whole - theirs.pvalue) > 1e-3  # the data tell the two apart


@pytest.mark.parametrize(
    ("deltas", "codes"),
    [
        ([1.0] * 2 + [-0.2] * 8 + [0.0] * 20, {"skewed", "skewed_mean"}),
        ([1.0] * 20 + [-0.2] * 100 + [0.0] * 280, {"skewed"}),  # enough items for the mean
        ([1.0] * 30 + [-1.0] * 10 + [0.0] * 260, set()),  # one magnitude: ranks are signs
        ([0.6, -0.6, 0.2, -0.2] * 10, set()),
        ([0.2] * 40, set()),
        ([1.0], set()),
    ],
)
def test_skewed_deltas_are_warned_of(deltas: list[float], codes: set[str], tmp_path: Path) -> None:
    """With no difference Wilcoxon rejects half of such experiments, t with 30 items a fifth; nothing said so."""
    control = np.maximum(0.0, -np.array(deltas))
    data = Paired(control, control + deltas, np.full(len(deltas), 5), np.arange(len(deltas)))
    table = read_scores(written(tmp_path / "scores.csv", rows_of(data)))
    metrics = analyse(table, StatisticsSettings(bootstrap_samples=1), "control", ["treatment"])["results"]["0"]["open"]
    warnings = metrics["metrics"]["em"]["warnings"]
    assert {text.partition(":")[0] for text in warnings if text.startswith("skewed")} == codes
