"""Bootstrap intervals and sign flips equal enumeration, and SciPy's simulations within their Monte Carlo error."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_data import SETS, rows_of, written
from scipy import stats

from pipeline.statistics import bootstrap, lattice, permutation, sums
from pipeline.statistics.analysis import analyse
from pipeline.statistics.estimates import clustered_mean
from pipeline.statistics.numbers import Undefined
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import read_scores

VARYING = [name for name, data in SETS.items() if len(data.deltas) > 1 and np.ptp(data.deltas) > 0]
CLUSTERED = [name for name in VARYING if len(np.unique(SETS[name].clusters)) < len(SETS[name].clusters)]
SEED = [1, 2]
RESAMPLES = 20_000  # of SciPy, in comparisons


def points_of(name: str) -> lattice.Lattice | None:
    return lattice.find(SETS[name].deltas, np.arange(1, SETS[name].samples.max(initial=1) + 1).astype(float))


def test_rates_are_found_on_a_lattice_and_f1_is_not() -> None:
    found = lattice.find(np.array([0.2, -0.4, 0.0]), np.array([5.0]))
    assert found is not None
    assert (found.steps.tolist(), found.step) == ([1, -2, 0], 0.2)
    thirds = lattice.find(np.array([1 / 3 - 1 / 4, 0.5]), np.array([3.0, 4.0]))
    assert thirds is not None
    assert (thirds.steps.tolist(), thirds.step) == ([1, 6], pytest.approx(1 / 12))
    assert lattice.find(SETS["F1, n = 300"].deltas, np.array([1.0])) is None


def test_rates_that_skip_undefined_samples_are_still_found() -> None:
    """Five samples, of which one left nothing to judge: the rate is over four."""
    found = lattice.find(np.array([0.25, -0.2]), np.array([5.0]))
    assert found is not None
    assert (found.steps.tolist(), found.step) == ([5, -4], 0.05)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=5))
def test_distribution_of_resampled_sums_equals_enumeration(values: list[int]) -> None:
    n = len(values)
    everything = np.array([sum(draw) for draw in itertools.product(values, repeat=n)])
    ours = sums.resampled(*lattice.count(np.array(values)), n)
    for point in range(int(everything.min()) - 1, int(everything.max()) + 2):
        expected = np.mean(everything < point) + np.mean(everything == point) / 2
        assert ours.below(point) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9), st.booleans())
def test_distribution_of_random_signs_equals_enumeration(values: list[int], huge: bool) -> None:
    values = [value * (1000 if huge else 1) for value in values]
    everything = np.array([np.dot(signs, values) for signs in itertools.product((-1, 1), repeat=len(values))])
    expected = np.mean(np.abs(everything) >= abs(sum(values)))
    sizes, counts = lattice.grouped(np.array(values))
    assert sums.two_sided_tail(sizes, counts, sum(values)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "c"), [(500, 1), (1000, 300), (9000, 2000), (20_000, 9_900)])
def test_tails_stay_exact_where_they_are_tiny(n: int, c: int) -> None:
    """At one sample per item the sign flip is McNemar's test; here down to 1e-170 and beyond."""
    exact = stats.binomtest(c, n).pvalue
    ours = sums.two_sided_tail(np.array([1]), np.array([n]), n - 2 * c)
    assert ours == pytest.approx(max(exact, 2.2250738585072014e-308), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in VARYING if len(SETS[name].deltas) > 2])  # SciPy's BCa needs three
def test_percentile_and_bca_equal_scipy(name: str) -> None:
    """Within 4 Monte Carlo errors of an endpoint (2.7 SE / sqrt(B) each) and one lattice step."""
    deltas = SETS[name].deltas
    points = points_of(name)
    ours = bootstrap.mean_intervals(deltas, points)
    se = float(np.std(deltas)) / math.sqrt(len(deltas))
    apart = np.gcd.reduce(np.diff(np.unique(points.steps))) * points.step / len(deltas) if points else 0.0
    tolerance = 4 * 2.7 * se / math.sqrt(RESAMPLES) + apart + 1e-9
    for key, method in (("percentile_95", "percentile"), ("bca_95", "BCa")):
        theirs = stats.bootstrap(
            (deltas,), np.mean, method=method, n_resamples=RESAMPLES, vectorized=True, batch=500,
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        assert ours[key] == pytest.approx(list(theirs), abs=tolerance), key
    assert ours["exact"] == (points is not None)
    assert ours["acceleration"] == pytest.approx(stats.skew(deltas) / (6 * math.sqrt(len(deltas))), abs=1e-12)


@pytest.mark.parametrize("name", ["rates of 5, n = 60", "heavy ties, K = 2", "n = 2,000", "uneven samples"])
def test_grid_and_lattice_agree(name: str) -> None:
    """On data that have a lattice, the grid made for F1 is off by a hundredth of SciPy's Monte Carlo error."""
    deltas = SETS[name].deltas
    points = points_of(name)
    assert points is not None
    exact, grid = bootstrap.mean_intervals(deltas, points), bootstrap.mean_intervals(deltas, None)
    se = float(np.std(deltas)) / math.sqrt(len(deltas))
    tolerance = 3e-4 * se + points.step / len(deltas)
    for key in ("percentile_95", "bca_95"):
        assert grid[key] == pytest.approx(exact[key], abs=tolerance)
    assert grid["z0"] == pytest.approx(exact["z0"], abs=2e-3)


def rates_of_uneven_samples(samples: int, n: int) -> tuple[np.ndarray, lattice.Lattice]:
    """Deltas of *n* items of which each condition answered some of *samples* times, and their lattice."""
    rng = np.random.default_rng(0)
    difficulty = rng.random(n)
    answered = [rng.binomial(samples, 0.9, n).clip(1) for _ in range(2)]
    control, treatment = (rng.binomial(number, difficulty) / number for number in answered)
    deltas = np.round(treatment - control, 12) + 0.0
    points = lattice.find(deltas, np.concatenate(answered).astype(float))
    assert points is not None
    return deltas, points


def test_a_lattice_too_fine_to_be_held_gives_way_to_the_grid() -> None:
    """With 16 samples, some missing, a step is 1/720,720: 300 items took 0.8 GB, and 10,000 more than 8 GB."""
    deltas, points = rates_of_uneven_samples(16, 300)
    low, high = sums.window(*lattice.count(points.steps), len(deltas))
    assert high - low > 7 * sums.LARGEST_RESAMPLED
    tracemalloc.start()
    try:
        ours = bootstrap.mean_intervals(deltas, points)
        assert tracemalloc.get_traced_memory()[1] < 8 * 4 * sums.LARGEST_RESAMPLED
    finally:
        tracemalloc.stop()
    assert ours == bootstrap.mean_intervals(deltas, None)
    assert (ours["method"], ours["exact"]) == ("grid", False)


def test_beyond_what_is_held_the_grid_is_as_near_as_promised() -> None:
    deltas, points = rates_of_uneven_samples(12, 1500)
    n, se = len(deltas), float(np.std(deltas)) / math.sqrt(len(deltas))
    ours = bootstrap.mean_intervals(deltas, points)
    assert ours["method"] == "grid"
    exact = sums.resampled(*lattice.count(points.steps), n)
    ends = [exact.quantile(share) * points.step / n for share in (0.025, 0.975)]
    cell = float(np.std(deltas)) / lattice.GRID_PER_SD / n
    assert ours["percentile_95"] == pytest.approx(ends, abs=3e-4 * se + cell)
    assert ours["z0"] == pytest.approx(stats.norm.ppf(exact.below(float(points.steps.sum()))), abs=2e-3)


def test_ten_samples_of_two_thousand_items_are_still_exact() -> None:
    deltas, points = rates_of_uneven_samples(10, 2000)
    assert (round(1 / points.step), bootstrap.mean_intervals(deltas, points)["method"]) == (2520, "lattice")


def test_ties_count_half_in_the_bias_correction() -> None:
    """One win in 40: P(no win) = 0.363 and P(one win) = 0.373, so z0 is that of 0.549 and not of 0.363 or 0.736."""
    name = "one win in 40"
    expected = stats.norm.ppf(stats.binom.cdf(0, 40, 1 / 40) + stats.binom.pmf(1, 40, 1 / 40) / 2)
    assert bootstrap.mean_intervals(SETS[name].deltas, points_of(name))["z0"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["empty", "one item"])
def test_no_interval_from_fewer_than_two_items(name: str) -> None:
    ours = bootstrap.mean_intervals(SETS[name].deltas, points_of(name))
    assert all(isinstance(ours[key], Undefined) for key in ("percentile_95", "bca_95", "z0", "acceleration"))


@pytest.mark.parametrize("name", ["all zero", "constant delta", "two equal deltas"])
def test_equal_deltas_have_a_point_interval(name: str) -> None:
    ours = bootstrap.mean_intervals(SETS[name].deltas, points_of(name))
    assert ours["percentile_95"] == ours["bca_95"] == [SETS[name].deltas[0]] * 2


def test_small_samples_are_quoted_by_t() -> None:
    assert bootstrap.default_interval(29, {"bca_95": [0, 1]}, [2, 3]) == ([2, 3], "t")
    assert bootstrap.default_interval(30, {"bca_95": [0, 1]}, [2, 3]) == ([0, 1], "bca")


@pytest.mark.parametrize("name", CLUSTERED)
def test_cluster_bootstrap_equals_simulation(name: str) -> None:
    """Within 4 Monte Carlo errors of a simulation that draws clusters and divides the sums."""
    data = SETS[name]
    totals, sizes = np.bincount(data.clusters, data.deltas), np.bincount(data.clusters)
    drawn = np.random.default_rng(0).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    simulated = np.quantile(totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    se = clustered_mean(data.deltas, data.clusters).se
    ours = bootstrap.cluster_interval(data.deltas, data.clusters)
    assert ours == pytest.approx(list(simulated), abs=4 * 2.7 * se / math.sqrt(RESAMPLES))


def test_two_clusters_give_their_own_means_as_limits() -> None:
    """A quarter of all resamples is one cluster twice, which is more than either tail of 2.5%."""
    clusters = np.array([0, 0, 1, 1, 1])
    assert bootstrap.cluster_interval(np.array([0.0, 0.2, 0.6, 0.6, 0.9]), clusters) == pytest.approx([0.1, 0.7])
    assert bootstrap.cluster_interval(np.array([0.2, 0.2, 0.2, 0.2, 0.2]), clusters) == pytest.approx([0.2, 0.2])
    assert isinstance(bootstrap.cluster_interval(np.array([0.2, 0.3]), np.array([0, 0])), Undefined)


@pytest.mark.parametrize("name", [name for name in SETS if 1 < len(SETS[name].deltas) <= 13])
def test_sign_flips_equal_scipys_exact_test(name: str) -> None:
    deltas = SETS[name].deltas
    theirs = stats.permutation_test(
        (deltas,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
    ).pvalue
    for points in (points_of(name), None):  # by transform, by enumeration
        ours, _ = permutation.sign_flip(deltas, points, 1000, SEED)
        assert ours == pytest.approx(min(1.0, theirs), rel=1e-9)


@pytest.mark.parametrize("name", VARYING)
def test_simulated_sign_flips_are_within_their_error(name: str) -> None:
    """Within 5 binomial standard errors of the exact p, or of SciPy's simulated one."""
    deltas = SETS[name].deltas
    hits = permutation._hits(deltas, 10_000, SEED)
    exact, how = permutation.sign_flip(deltas, points_of(name), 10_000, SEED)
    if how["method"] == "monte_carlo":
        assert exact == (1 + permutation._hits(deltas[deltas != 0], 10_000, SEED)) / 10_001
        assert how["mc_se"] == pytest.approx(math.sqrt(exact * (1 - exact) / 10_000))
        exact = stats.permutation_test(
            (deltas,), lambda x, axis: np.sum(x, axis=axis), permutation_type="samples", n_resamples=10_000, batch=500,
            vectorized=True, rng=np.random.default_rng(3),
        ).pvalue  # fmt: skip
    assert hits / 10_000 == pytest.approx(exact, abs=5 * math.sqrt(2 * exact * (1 - exact) / 10_000) + 1e-3)


def test_a_simulated_p_is_never_zero() -> None:
    """Every F1 rises, none by the same amount: no random pattern reaches the observed sum, and p was once 0."""
    deltas = np.sqrt(np.arange(1, 201)) / 100
    p, how = permutation.sign_flip(deltas, None, 1000, SEED)
    assert (p, how["method"], how["R"]) == (1 / 1001, "monte_carlo", 1000)


def test_sums_equal_on_paper_are_equal_whatever_their_rounding() -> None:
    """Rounded to 12 decimals 1/15 + 1/15 - 2/15 is 1e-12, and with the other signs -1e-12: p once was 0.5."""
    deltas = np.round([1 / 15, 1 / 15, -2 / 15, 0.5], 12)
    assert permutation.sign_flip(deltas, None, 100, [1])[0] == 5 / 8


def test_equal_magnitudes_do_not_depend_on_rounding() -> None:
    """2 of 27 deltas of 1/3 are negative: half of the exact p is lost when sums that are equal count as smaller."""
    deltas = np.round(np.array([1 / 3] * 18 + [-1 / 3] * 9), 12)
    exact = stats.binomtest(9, 27).pvalue
    p, how = permutation.sign_flip(deltas, None, 200_000, SEED)
    assert how["method"] == "monte_carlo"
    assert p == pytest.approx(exact, abs=5 * how["mc_se"])


@pytest.mark.parametrize(
    ("name", "p", "smallest"),
    [("one item", 1, 1), ("two items", 1, 1), ("two equal deltas", 0.5, 0.5), ("all zero", 1, 1)],
)
def test_the_smallest_reachable_p_is_stated(name: str, p: float, smallest: float) -> None:
    ours, how = permutation.sign_flip(SETS[name].deltas, points_of(name), 1000, SEED)
    assert (ours, how["min_p"]) == (p, smallest)
    assert how["method"] == ("degenerate" if name == "all zero" else "exact")


def test_every_simulated_number_says_how_it_was_found(tmp_path: Path) -> None:
    """The p that is quoted for clustered items once stood there without its seed, so nobody could draw it again."""
    data = SETS["clustered F1"]
    quick = StatisticsSettings(bootstrap_samples=1000, permutation_samples=1000)
    table = read_scores(written(tmp_path / "scores.csv", rows_of(data)))
    block = analyse(table, quick, "control", ["treatment"])["results"]["0"]["open"]
    cluster = block["metrics"]["f1"]["cluster"]
    how = cluster["permutation"]
    assert (how["method"], how["R"], cluster["bootstrap_method"]) == ("monte_carlo", 1000, "grid")
    assert how["seed"] != block["metrics"]["f1"]["permutation"]["seed"]
    _, by_name = np.unique([f"p{cluster}" for cluster in data.clusters], return_inverse=True)
    totals = np.round(np.bincount(by_name, data.deltas), 12)
    again, _ = permutation.sign_flip(totals, None, how["R"], how["seed"])
    assert cluster["sign_flip_p"] == block["metrics"]["f1"]["primary"]["p_value"] == pytest.approx(again)
    assert block["samples"]["missing_permutation"]["method"] == "degenerate"  # nothing is missing
    assert (block["selective_risk"]["ci_method"], block["selective_risk"]["B"]) == ("percentile", 1000)


def test_clusters_of_one_item_are_resampled_as_items_are(tmp_path: Path) -> None:
    table = read_scores(written(tmp_path / "scores.csv", rows_of(SETS["rates of 5, n = 60"])))
    metric = analyse(table, StatisticsSettings(), "control", ["treatment"])["results"]["0"]["open"]["metrics"]["em"]
    assert metric["cluster"]["permutation"] == metric["permutation"]
    assert metric["cluster"]["bootstrap_method"] == metric["bootstrap"]["method"] == "lattice"
