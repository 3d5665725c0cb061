"""Means, standard errors, effects, equivalence, pooling and power equal SciPy and statsmodels.

Tolerance 1e-9 relative, unless a test says otherwise: the formulas are the same, only the order of sums differs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from paired_data import SETS, Paired
from scipy import stats  # statsmodels is imported where it is used: it takes a second, which each worker would pay

from pipeline.statistics import estimates, meta, power
from pipeline.statistics.effects import effects
from pipeline.statistics.estimates import Estimate
from pipeline.statistics.numbers import Undefined, seal
from pipeline.statistics.tost import tost

VARYING = [name for name, data in SETS.items() if len(data.deltas) > 1 and np.ptp(data.deltas) > 0]
CLUSTERED = [name for name in VARYING if len(np.unique(SETS[name].clusters)) < len(SETS[name].clusters)]


def near(value: object) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def summary(data: Paired) -> dict:
    return estimates.paired(data.control, data.treatment, data.deltas)


@pytest.mark.parametrize("name", VARYING)
def test_paired_t_equals_scipy(name: str) -> None:
    data = SETS[name]
    ours, theirs = summary(data), stats.ttest_rel(data.treatment, data.control)
    assert ours["n_pairs"] == len(data.control)
    assert ours["delta_mean"] == near(np.mean(data.treatment) - np.mean(data.control))
    assert ours["p_t"] == near(theirs.pvalue)
    assert ours["ci_95_t"] == near(list(theirs.confidence_interval(0.95)))
    assert ours["se_unpaired"] == near(math.hypot(stats.sem(data.control), stats.sem(data.treatment)))
    if np.ptp(data.control) > 0 and np.ptp(data.treatment) > 0:
        assert ours["pearson_r"] == near(stats.pearsonr(data.control, data.treatment).statistic)


@pytest.mark.parametrize("name", CLUSTERED)
def test_cluster_robust_error_equals_statsmodels(name: str) -> None:
    import statsmodels.api as sm

    data = SETS[name]
    fit = sm.OLS(data.deltas, np.ones(len(data.deltas))).fit(
        cov_type="cluster", cov_kwds={"groups": data.clusters}, use_t=True
    )
    plain = sm.OLS(data.deltas, np.ones(len(data.deltas))).fit(
        cov_type="cluster", cov_kwds={"groups": data.clusters, "use_correction": False}, use_t=True
    )
    ours = estimates.clustered_mean(data.deltas, data.clusters)
    assert ours.se == near(fit.bse[0])
    assert estimates.cr0(data.deltas, data.clusters) == near(plain.bse[0])
    assert ours.p_value() == near(fit.pvalues[0])
    assert ours.interval() == near(list(fit.conf_int()[0]))


def test_clusters_of_one_item_change_nothing() -> None:
    data = SETS["F1, n = 300"]
    assert estimates.clustered_mean(data.deltas, data.clusters).se == near(estimates.mean(data.deltas).se)


def test_clusters_that_balance_have_no_spread_of_1e_17() -> None:
    """Two datasets pooled, one of which had such a standard error: it had all the weight, or divided by zero."""
    deltas = np.array([0.5, -0.25, 0.1, 0.15, 0.3, -0.05])
    assert estimates.clustered_mean(deltas, np.array([0, 0, 1, 1, 2, 2])).se == 0


def test_without_pairs_nothing_is_claimed() -> None:
    ours = summary(SETS["empty"])
    assert ours.pop("n_pairs") == 0
    assert all(isinstance(value, Undefined) for value in ours.values())


def test_one_pair_gives_a_mean_and_nothing_else() -> None:
    ours = summary(SETS["one item"])
    assert ours["delta_mean"] == 1
    assert all(isinstance(ours[key], Undefined) for key in ("sd_delta", "se", "ci_95_t", "p_t", "pearson_r"))


def test_equal_deltas_have_a_point_interval_and_no_p() -> None:
    """0.4 - 0.2, 0.6 - 0.4 and 0.8 - 0.6 are three floats; unrounded they once gave Cohen's d = 2.7e15."""
    data = SETS["constant delta"]
    ours = summary(data)
    assert ours["se"] == 0
    assert ours["ci_95_t"] == near([0.2, 0.2])
    assert isinstance(ours["p_t"], Undefined)
    assert isinstance(effects(data.control, data.treatment, data.deltas)["cohens_d"], Undefined)
    assert summary(SETS["all zero"])["p_t"] == 1


def test_one_cluster_has_no_standard_error() -> None:
    data = SETS["rates of 5, n = 60"]
    ours = estimates.clustered_mean(data.deltas, np.zeros(60, dtype=np.int64))
    assert isinstance(ours.se, Undefined)
    assert isinstance(ours.interval(), Undefined)


@pytest.mark.parametrize("name", VARYING)
def test_effect_sizes_equal_their_definitions(name: str) -> None:
    data = SETS[name]
    ours = effects(data.control, data.treatment, data.deltas)
    n = len(data.deltas)
    assert ours["cohens_d"] == near(np.mean(data.deltas) / np.std(data.deltas, ddof=1))
    assert ours["hedges_g"] == near(ours["cohens_d"] * (1 - 3 / (4 * (n - 1) - 1)))
    u = stats.mannwhitneyu(data.treatment, data.control).statistic
    assert ours["cliffs_delta"] == near(2 * u / n**2 - 1)
    assert ours["wins"] + ours["losses"] + ours["ties"] == n
    assert ours["paired_dominance"] == near(np.mean(np.sign(data.deltas)))
    pooled = math.sqrt((np.var(data.control, ddof=1) + np.var(data.treatment, ddof=1)) / 2)
    assert ours["cohens_d_av"] == near(np.mean(data.deltas) / pooled)


def test_one_win_and_99_ties_dominate_by_a_hundredth() -> None:
    """Divided by wins + losses it was 1.0."""
    ours = effects(np.zeros(100), np.eye(1, 100)[0], np.eye(1, 100)[0])
    assert ours["paired_dominance"] == 0.01
    assert ours["cliffs_delta"] == 0.01


def test_means_that_are_equal_on_paper_tie_whichever_order_they_were_added_in() -> None:
    """3/8 of one condition came out a rounding step above 3/8 of the other and won against it."""
    one, other = np.mean([0.4, 0.4, 0.4, 0.3]), np.mean([0.4, 0.4, 0.3, 0.4])
    assert one != other
    ours = effects(np.array([one, 0.0]), np.array([other, 0.0]), np.zeros(2))
    assert ours["cliffs_delta"] == 0


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.parametrize(("margin", "alpha"), [(0.02, 0.05), (0.1, 0.05), (0.1, 0.01), (0.1, 0.2)])
def test_equivalence_equals_statsmodels(name: str, margin: float, alpha: float) -> None:
    """The interval beside a verdict is the one that decides it: with alpha = 0.01 the 90% one was shown."""
    from statsmodels.stats.weightstats import ttost_paired

    data = SETS[name]
    p, above, below = ttost_paired(data.treatment, data.control, -margin, margin)
    ours = tost(estimates.mean(data.deltas), margin, alpha, "higher")
    assert (ours["p_equivalence"], ours["p_above"], ours["p_below"]) == near((p, above[1], below[1]))
    assert ours["p_non_inferiority"] == ours["p_above"]
    assert ours["ci"] == near(list(stats.ttest_rel(data.treatment, data.control).confidence_interval(1 - 2 * alpha)))
    assert ours["non_inferior"] == (ours["ci"][0] > -margin)
    assert ours["equivalent"] == (-margin < ours["ci"][0] and ours["ci"][1] < margin)
    assert alpha != 0.05 or ours["ci_90"] == near(ours["ci"])


def test_where_lower_is_better_the_other_bound_counts() -> None:
    rates = estimates.mean(SETS["n = 2,000"].deltas)
    mirrored = Estimate(-rates.mean, rates.se, rates.df)
    higher, lower = tost(rates, 0.01, 0.05, "higher"), tost(mirrored, 0.01, 0.05, "lower")
    assert lower["p_non_inferiority"] == near(higher["p_non_inferiority"])
    neutral = tost(rates, 0.01, 0.05, "neutral")
    assert isinstance(neutral["non_inferior"], Undefined)
    assert neutral["p_equivalence"] == higher["p_equivalence"]


@pytest.mark.parametrize("name", ["empty", "one item", "two equal deltas", "constant delta"])
def test_no_verdict_without_variance(name: str) -> None:
    """One item with delta +1 was once reported as non-inferior."""
    ours = tost(estimates.mean(SETS[name].deltas), 0.02, 0.05, "higher")
    assert isinstance(ours["non_inferior"], Undefined)
    assert isinstance(ours["equivalent"], Undefined)


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # statsmodels, where its tau2 is negative
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [2, 3, 8])
def test_pooling_equals_statsmodels(seed: int, k: int) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng([seed, k])
    y, se = rng.normal(0.02, 0.05, k), rng.uniform(0.01, 0.05, k)
    ours = meta.combine({f"d{i}": Estimate(y[i], se[i], 50) for i in range(k)})
    theirs = combine_effects(y, se**2, method_re="dl", use_t=False)
    assert ours["fixed"]["estimate"] == near(theirs.mean_effect_fe)
    assert ours["fixed"]["se"] == near(theirs.sd_eff_w_fe)
    assert ours["heterogeneity"]["Q"] == near(theirs.q)
    assert ours["heterogeneity"]["p_value"] == near(stats.chi2.sf(theirs.q, k - 1))
    assert ours["heterogeneity"]["I2"] == near(max(0.0, theirs.i2))
    assert ours["random"]["tau2"] == near(max(0.0, theirs.tau2))
    if theirs.tau2 > 0:  # statsmodels goes on with a negative one
        assert ours["random"]["estimate"] == near(theirs.mean_effect_re)
        assert ours["random"]["se"] == near(theirs.sd_eff_w_re)
        hksj = combine_effects(y, se**2, method_re="dl", use_t=True).conf_int(use_t=True)[3]
        assert ours["random"]["hksj_ci_95"] == near(list(hksj))


def test_a_single_dataset_has_no_heterogeneity() -> None:
    ours = meta.combine(
        {"a": Estimate(0.1, 0.02, 10), "b": Estimate(0.3, 0.0, 10), "c": Estimate(0.3, Undefined("x"), 0)}
    )
    assert (ours["k"], ours["excluded"], ours["heterogeneity"]["df"]) == (1, ["b", "c"], 0)
    assert ours["fixed"]["estimate"] == ours["random"]["estimate"] == 0.1
    assert isinstance(ours["heterogeneity"]["I2"], Undefined)
    nothing = meta.combine({})
    assert nothing["k"] == 0
    assert isinstance(nothing["fixed"]["estimate"], Undefined)


@pytest.mark.parametrize(
    ("omega2", "sigma2", "samples", "items"), [(1 / 9, 0, 1, 969), (1 / 9, 1 / 6, 1, 3876), (1 / 9, 1 / 6, 10, 1260)]
)
def test_published_sample_sizes(omega2: float, sigma2: float, samples: int, items: int) -> None:
    """Miller (2024), section on power: a difference of 3 points at alpha 5% and power 80%."""
    variances = power.Variances(0.0, omega2, sigma2, sigma2)
    assert power.items_needed(variances.at(samples, samples), 0.03, 0.05, 0.8) == items


@pytest.mark.parametrize(("samples", "effect"), [(1, 0.1327), (10, 0.0757)])
def test_published_detectable_effects(samples: int, effect: float) -> None:
    variances = power.Variances(0.0, 1 / 9, 1 / 6, 1 / 6)
    assert power.detectable(variances.at(samples, samples), 198, 0.05, 0.8) == pytest.approx(effect, abs=5e-5)


@pytest.mark.parametrize(("samples", "cut"), [(2, 1 / 3), (4, 1 / 2), (6, 5 / 9)])
def test_samples_cut_the_variance_of_uniform_difficulty(samples: int, cut: float) -> None:
    one = power.Variances(0.0, 1 / 12, 1 / 6, 0.0)
    assert one.at(samples, 1) == pytest.approx((1 - cut) * one.at(1, 1))


@pytest.mark.parametrize("n", [2, 3, 10, 198, 20_000])
@pytest.mark.parametrize(("alpha", "target"), [(0.05, 0.8), (0.01, 0.9), (0.2, 0.5), (0.01, 0.99), (0.05, 0.999)])
def test_the_t_test_shows_its_detectable_effect_as_often_as_asked(n: int, alpha: float, target: float) -> None:
    """By scipy.stats.nct, to 1e-8; its far tail is NaN where it is below the smallest double.

    Two items and a high power once ended the whole phase: the effect lay outside of where it was looked for.
    """
    shift = power.detectable_t(0.25, n, alpha, target) / 0.5 * math.sqrt(n)
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shown = stats.nct.sf(critical, n - 1, shift) + np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
    assert shown == pytest.approx(target, abs=1e-8)


@pytest.mark.parametrize("n", [10, 30, 198])
def test_detectable_effect_equals_statsmodels(n: int) -> None:
    """Tolerance 1e-5, where its root finder stops (for n = 3 and alpha = 0.01 it returns half of the effect)."""
    from statsmodels.stats.power import TTestPower

    theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert power.detectable_t(0.25, n, 0.05, 0.8) == pytest.approx(theirs * 0.5, rel=1e-5)


def test_variance_is_split_between_items_and_samples() -> None:
    rng = np.random.default_rng(0)
    n, samples = 20_000, 4
    p = rng.random(n)
    draws = rng.random((2, n, samples)) < p[:, None]
    control, treatment = draws.mean(axis=2)
    spreads = draws.std(axis=2, ddof=1)
    counts = np.full(n, float(samples))
    ours = power.split(treatment - control, (spreads[0], counts), (spreads[1], counts))
    assert ours.sigma2_control == pytest.approx(1 / 6, rel=0.02)  # Monte Carlo: 3 standard errors are 1.3%
    assert ours.omega2 == pytest.approx(0, abs=0.004)
    assert ours.at(samples, samples) == pytest.approx(ours.total, rel=0.05)


def test_one_sample_per_item_cannot_be_split() -> None:
    data = SETS["12 against 5 discordant"]
    nothing = np.full(len(data.deltas), np.nan), np.ones(len(data.deltas))
    ours = power.split(data.deltas, nothing, nothing)
    assert isinstance(ours.omega2, Undefined)
    assert ours.at(1, 1) == near(np.var(data.deltas, ddof=1))
    assert isinstance(ours.at(2, 2), Undefined)


def test_no_variance_promises_no_detectable_effect() -> None:
    """With s = 0 a detectable effect of 0 was once reported."""
    data = SETS["constant delta"]
    spreads = np.zeros(len(data.deltas)), np.full(len(data.deltas), 5.0)
    ours = power.summary(power.split(data.deltas, spreads, spreads), len(data.deltas), 0.05, 0.8, [0.01])
    assert isinstance(ours["mde"], Undefined)
    assert isinstance(ours["n_required"]["0.01"], Undefined)


@pytest.mark.parametrize(("alpha", "target"), [(0.4, 0.3), (0.4, 0.1), (0.2, 0.2)])
def test_a_power_of_alpha_or_less_promises_nothing(alpha: float, target: float) -> None:
    """A test shows a difference of 0 with probability alpha: an effect below 0 was once reported for this."""
    data = SETS["12 against 5 discordant"]
    nothing = np.full(len(data.deltas), np.nan), np.ones(len(data.deltas))
    variances = power.split(data.deltas, nothing, nothing)
    ours = power.summary(variances, len(data.deltas), alpha, target, [0.01])
    for value in (ours["mde"], ours["mde_t"], ours["n_required"]["0.01"], ours["mde_by_K"]["1"]):
        assert value == power.NOT_ABOVE_ALPHA
    sealed = seal({**ours, "warnings": []})
    assert sealed["mde"] is None
    assert "power_not_above_alpha" in " ".join(sealed["warnings"])


def test_an_effect_that_cannot_be_computed_is_said_to_be_so() -> None:
    """With two items and so small an alpha SciPy's noncentral t is NaN; the effect by z is there all the same."""
    assert power.detectable_t(0.25, 2, 1e-6, 0.8) == power.NOT_COMPUTED
    assert power.detectable(0.25, 2, 1e-17, 0.8) > 0


def test_clustered_items_count_less() -> None:
    single = power.Variances(0.25, 0.2, 0.1, 0.1)
    shared = power.Variances(0.25, 0.2, 0.1, 0.1, design_effect=2.0)
    needed = [power.summary(v, 100, 0.05, 0.8, [0.05])["n_required"]["0.05"] for v in (single, shared)]
    assert needed[1] == pytest.approx(2 * needed[0], abs=1)


def test_plan_answers_what_a_budget_can_detect() -> None:
    ours = power.plan(
        power.Variances(0.0, 1 / 9, 1 / 6, 1 / 6),
        alpha=0.05, power=0.8, deltas=[0.03], samples=[1, 10], items=198, requests=3960,
    )  # fmt: skip
    one, ten = ours["by_samples"]
    assert (one["items_needed"], ten["items_needed"]) == ({"0.03": 3876}, {"0.03": 1260})
    assert (one["requests_needed"], ten["requests_needed"]) == ({"0.03": 7752}, {"0.03": 25200})
    assert (one["detectable"], ten["detectable"]) == (pytest.approx(0.1327, abs=5e-5), pytest.approx(0.0757, abs=5e-5))
    assert (one["affordable_items"], ten["affordable_items"]) == (1980, 198)
    assert ten["detectable_within_budget"] == ten["detectable"]


def test_a_plan_says_what_a_pilot_of_one_sample_cannot_tell() -> None:
    unknown = power.Variances(0.2, power.ONE_SAMPLE, power.ONE_SAMPLE, power.ONE_SAMPLE)
    ours = seal(power.plan(unknown, alpha=0.05, power=0.8, deltas=[0.05], samples=[1, 5], items=500, requests=3))
    one, five = ours["by_samples"]
    assert one["items_needed"] == {"0.05": 628}
    assert five["items_needed"] == {"0.05": None}
    assert one["affordable_items"] == 1
    assert one["detectable_within_budget"] is None
    assert any(text.startswith("one_sample:") and "by_samples.variance" in text for text in ours["warnings"])


def test_a_null_cannot_be_written_without_its_reason() -> None:
    document = {"a": Undefined("no_pairs: none"), "b": {"c": [1, Undefined("no_pairs: none")], "warnings": []}}
    assert seal(document | {"warnings": ["x: y"]}) == {
        "a": None,
        "b": {"c": [1, None], "warnings": ["no_pairs: none (c)"]},
        "warnings": ["x: y", "no_pairs: none (a)"],
    }
    for nameless in (None, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"a\.b: .* has no place"):
            seal({"a": {"b": nameless}, "warnings": []})
