"""How long the statistics take, as ratios to peers that give the same numbers.

    python benchmarks/stats.py            all three; the last one needs some minutes
    python benchmarks/stats.py --quick    without the whole phase

1. Bootstrap intervals of 5 metrics, 10,000 items, against scipy.stats.bootstrap (BCa, 9,999 resamples).
2. Sign-flip tests of the same, against scipy.stats.permutation_test (10,000 flips).
3. The whole phase on 20,000 items x 5 temperatures x 2 conditions (K = 5), from CSV to JSON, against a
   straightforward NumPy implementation that draws one resample at a time (`one_at_a_time` below). That one
   runs a tenth of its 10,000 resamples and flips, on all items, and the time of these is scaled by ten; what
   does not resample runs once, by our own code where SciPy would take longer or not fit in memory.

Times are CPU seconds of one thread, one run each: other work on the machine moves them little, threads not at all.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np
from scipy import stats as scipy_stats

from pipeline.phases.stats import stats
from pipeline.statistics import bootstrap, estimates, lattice, permutation, ranks
from pipeline.statistics.effects import effects
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import RATES, Pairs, read_scores

SAMPLES = 5
TEMPS = (0, 0.3, 0.5, 0.7, 1)
DATASETS = (("squad_v2", "open", 0.5, 10), ("triviaqa", "closed", 0.25, 1), ("nq_open", "closed", 0.25, 1))
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the whole phase")
    quick = parser.parse_args().quick
    print(f"{'job':<52}{'here':>9}{'peer':>10}{'ratio':>8}{'wanted':>8}")
    deltas = five_metrics(10_000)
    show(
        "bootstrap, n = 10,000, 5 metrics: scipy BCa",
        20,
        timed(lambda: intervals(deltas)),
        timed(lambda: scipy_bca(deltas)),
    )
    show(
        "sign flips, n = 10,000, 5 metrics: scipy",
        500,
        timed(lambda: flips(deltas)),
        timed(lambda: scipy_flips(deltas)),
    )
    if quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / "per_item_scores.csv"
        write_scores(scores, 20_000)
        settings = StatisticsSettings(seed=1, margins={"em": 0.02, "f1": 0.02})
        ours = timed(lambda: stats(scores, Path(folder) / "significance.json", settings, "control", ["treatment"]))
        fixed, resampled = one_at_a_time(scores, RESAMPLES // 10)
        show("whole phase, 20,000 items x 5 temps: one at a time", 20, ours, fixed + 10 * resampled)


def show(job: str, wanted: float, ours: float, theirs: float) -> None:
    print(f"{job:<52}{ours:>8.2f}s{theirs:>9.1f}s{theirs / ours:>7.0f}x{wanted:>7.0f}x", flush=True)


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def five_metrics(n: int) -> list[np.ndarray]:
    """Deltas of four rates over 5 samples, and of F1."""
    rng = np.random.default_rng(5)
    skill = rng.random(n)
    rates = [
        (rng.binomial(SAMPLES, np.clip(skill + 0.02, 0, 1)) - rng.binomial(SAMPLES, skill)) / SAMPLES for _ in range(4)
    ]
    partial = rng.integers(0, 9, (2, n)) / rng.integers(8, 14, (2, n))
    f1 = np.where(rng.random((2, n)) < skill, 1.0, np.minimum(partial, 1))
    return [np.round(delta, 12) for delta in (*rates, f1[1] - f1[0])]


def intervals(deltas: list[np.ndarray]) -> None:
    for delta in deltas:
        bootstrap.mean_intervals(delta, lattice.find(delta, np.array([float(SAMPLES)])))


def flips(deltas: list[np.ndarray]) -> None:
    for delta in deltas:
        permutation.sign_flip(delta, lattice.find(delta, np.array([float(SAMPLES)])), RESAMPLES, [1, 2])


def scipy_bca(deltas: list[np.ndarray]) -> None:
    for delta in deltas:
        scipy_stats.bootstrap((delta,), np.mean, batch=100, rng=np.random.default_rng(1))


def scipy_flips(deltas: list[np.ndarray]) -> None:
    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(x, axis=axis)

    for delta in deltas:
        scipy_stats.permutation_test(
            (delta,), mean, permutation_type="samples", n_resamples=RESAMPLES, batch=100, rng=np.random.default_rng(1)
        )


def one_at_a_time(path: Path, resamples: int) -> tuple[float, float]:
    """Seconds of the parts without resampling, and of *resamples* resamples and flips of everything that has them.

    Kept simple on purpose: percentile and BCa from the same resamples, no interpolation of ties in the AURC.
    Wilcoxon is SciPy's; Hodges-Lehmann is ours, as all pairs of 20,000 items do not fit in memory.
    """
    rng = np.random.default_rng(1)
    start = time.process_time()
    scores = read_scores(path)
    fixed, resampled = time.process_time() - start, 0.0
    for temp in scores.temps:
        for kind in scores.types:
            everything = scores.pairs(temp, kind, "control", "treatment")
            datasets = [everything.of_dataset(code) for code in np.unique(everything.dataset)]
            for pairs in (everything, *(datasets if len(datasets) > 1 else ())):  # an only dataset is everything
                start = time.process_time()
                for name in RATES:
                    without_resampling(pairs, name)
                fixed += time.process_time() - start
                start = time.process_time()
                for name in RATES:
                    resampled_one_at_a_time(pairs, name, resamples, rng)
                flipped_one_at_a_time(pairs.treatment["n_missing"] - pairs.control["n_missing"], resamples, rng)
                aurc_one_at_a_time(pairs, resamples, rng)
                resampled += time.process_time() - start
    return fixed, resampled


def paired(pairs: Pairs, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = np.isfinite(pairs.control[name]) & np.isfinite(pairs.treatment[name])
    return (
        pairs.control[name][kept],
        pairs.treatment[name][kept],
        np.unique(pairs.cluster[kept], return_inverse=True)[1],
    )


def without_resampling(pairs: Pairs, name: str) -> None:
    control, treatment, clusters = paired(pairs, name)
    if not len(control):
        return
    deltas = np.round(treatment - control, 12)
    estimates.paired(control, treatment, deltas)
    estimates.clustered_mean(deltas, clusters)
    scipy_stats.wilcoxon(deltas, method="asymptotic")
    ranks.hodges_lehmann(deltas)
    effects(control, treatment, deltas)


def resampled_one_at_a_time(pairs: Pairs, name: str, resamples: int, rng: np.random.Generator) -> Any:
    control, treatment, clusters = paired(pairs, name)
    if not len(control):
        return None
    deltas = treatment - control
    n, observed = len(deltas), deltas.mean()
    means = np.empty(resamples)
    for b in range(resamples):
        means[b] = deltas[rng.integers(0, n, n)].mean()
    z0 = scipy_stats.norm.ppf((np.sum(means < observed) + np.sum(means == observed) / 2 + 0.5) / (resamples + 1))
    p = flipped_one_at_a_time(deltas, resamples, rng)
    totals, sizes = np.bincount(clusters, deltas), np.bincount(clusters)
    if len(totals) == n:
        return np.quantile(means, [0.025, 0.975]), z0, p
    by_cluster = np.empty(resamples)
    for b in range(resamples):
        drawn = rng.integers(0, len(totals), len(totals))
        by_cluster[b] = totals[drawn].sum() / sizes[drawn].sum()
    by_clusters = np.quantile(by_cluster, [0.025, 0.975]), flipped_one_at_a_time(totals, resamples, rng)
    return np.quantile(means, [0.025, 0.975]), z0, p, by_clusters


def flipped_one_at_a_time(values: np.ndarray, flips: int, rng: np.random.Generator) -> float:
    totals = np.empty(flips)
    for r in range(flips):
        totals[r] = (values * rng.choice([-1.0, 1.0], len(values))).sum()
    return float((1 + np.sum(np.abs(totals) >= abs(values.sum()))) / (flips + 1))


def aurc_one_at_a_time(pairs: Pairs, resamples: int, rng: np.random.Generator) -> Any:
    sides = []
    for side in (pairs.control, pairs.treatment):
        answered = np.nan_to_num(side["abstain_rate"], nan=1.0) < 1
        sides.append((np.where(answered, side["consistency"], -1.0), 1 - np.nan_to_num(side["em"]), answered))
    n = len(pairs.item)
    differences = np.empty(resamples)
    for b in range(resamples):
        drawn = rng.integers(0, n, n)
        areas = []
        for confidence, loss, answered in sides:
            order = np.argsort(-confidence[drawn], kind="stable")
            covered = int(answered[drawn].sum())
            areas.append(np.mean(loss[drawn][order][:covered].cumsum() / np.arange(1, covered + 1)))
        differences[b] = areas[1] - areas[0]
    return np.quantile(differences, [0.025, 0.975])


def write_scores(path: Path, n_items: int) -> None:
    """A score table of *n_items* over DATASETS and TEMPS, one sample in a hundred missing."""
    rng = np.random.default_rng(9)
    columns = ["item_key", "dataset", "item_id", "type", "condition", "temp", "n_samples", "n_missing"]
    columns += [column for rate in RATES for column in (rate, f"{rate}_std")]
    columns += ["cluster", "answerable", "n_answered", "consistency", "unsupported_alt_rate", "n_truncated"]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for dataset, kind, share, per_cluster in DATASETS:
            n = int(n_items * share)
            skill = np.clip(rng.beta(1.2, 1, n) + 0.2 * rng.normal(size=n)[np.arange(n) // per_cluster], 0, 1)
            answerable = rng.random(n) < (0.6 if dataset == "squad_v2" else 2)
            for temp in TEMPS:
                for shift, condition in ((0.0, "control"), (0.02, "treatment")):
                    cells = simulated(rng, np.clip(skill + shift, 0, 1), answerable, kind, dataset != "nq_open")
                    for i in range(n):
                        writer.writerow([
                            f"{dataset}|{i}", dataset, f"q{i}", kind, condition, temp, SAMPLES,
                            *(column[i] for column in cells[:-2]), f"p{i // per_cluster}", int(answerable[i]),
                            *(column[i] for column in cells[-2:]), "", 0,
                        ])  # fmt: skip


def simulated(
    rng: np.random.Generator, skill: np.ndarray, answerable: np.ndarray, kind: str, has_f1: bool
) -> list[list[object]]:
    """n_missing, mean and std of each rate, n_answered, consistency: columns of cells."""
    shape = (len(skill), SAMPLES)
    kept = rng.random(shape) > 0.01
    right = rng.random(shape) < skill[:, None]
    abstained = rng.random(shape) < np.where(answerable, 0.1, 0.5)[:, None]
    em = np.where(answerable[:, None], right & ~abstained, abstained)
    partial = np.minimum(rng.integers(0, 9, shape) / rng.integers(8, 14, shape), 1)
    f1 = np.where(em, 1.0, np.where(answerable[:, None] & ~abstained, partial, 0.0))
    everywhere = np.ones(len(skill), dtype=bool)
    rates = {
        "em": (em, everywhere),
        "f1": (f1, everywhere & has_f1),
        "abstain_rate": (abstained, everywhere),
        "false_answer_rate": (~abstained, ~answerable & (kind == "open")),
        "unsupported_rate": (~abstained & (rng.random(shape) < 0.2), everywhere & (kind == "open")),
    }
    present = kept.sum(axis=1)
    cells: list[list[object]] = [list(SAMPLES - present)]
    for values, applies in rates.values():
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(kept, values, 0.0).sum(axis=1) / present
            spread = np.sqrt((np.where(kept, values - mean[:, None], 0.0) ** 2).sum(axis=1) / (present - 1))
        cells.append([repr(float(x)) if a and m else "" for x, a, m in zip(mean, applies, present, strict=True)])
        cells.append([repr(float(x)) if a and m > 1 else "" for x, a, m in zip(spread, applies, present, strict=True)])
    answered = (kept & ~abstained).sum(axis=1)
    agreeing = np.maximum((kept & right & ~abstained).sum(axis=1), np.minimum(present, 1))
    share = [repr(a / m) if m else "" for a, m in zip(agreeing.tolist(), present.tolist(), strict=True)]
    return [*cells, list(answered), share]


if __name__ == "__main__":
    main()
