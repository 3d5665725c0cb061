"""The sign-flip test: if the conditions do not differ, swapping them within an item changes nothing.

Exact where deltas lie on a lattice or few differ from 0, else by R random flips with p = (1 + hits) / (1 + R)
(Phipson & Smyth 2010, doi:10.2202/1544-6115.1585): a simulated p is never 0. Clusters flip as a whole:
hand in their sums.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.statistics import lattice, sums
from pipeline.statistics.lattice import Lattice
from pipeline.statistics.numbers import NO_PAIRS, FloatArray, as_p_value, generator

ENUMERATED = 20  # deltas; 2^19 sums, 4 MB
_BYTES = 5_000_000  # random signs held at once


def sign_flip(deltas: FloatArray, points: Lattice | None, flips: int, entropy: list[int]) -> tuple[Any, dict[str, Any]]:
    """Two-sided p of `the deltas are symmetric about 0`, and how it was found.

    *points* is the lattice of *deltas*, if any; *flips* and *entropy* serve the simulation only. `R` counts
    simulated flips, so it is 0 for an exact p; `min_p` is the smallest p that so many non-zero deltas can give.
    """
    nonzero = int(np.count_nonzero(deltas))
    how = {"method": "exact", "R": 0, "seed": entropy, "mc_se": 0.0, "min_p": as_p_value(2.0 ** (1 - max(nonzero, 1)))}
    if not len(deltas):
        return NO_PAIRS, how | {"method": "degenerate", "min_p": NO_PAIRS}
    if not nonzero:
        return 1.0, how | {"method": "degenerate"}
    if points:
        sizes, counts = lattice.grouped(points.steps)
        p = sums.two_sided_tail(sizes, counts, int(points.steps.sum()))
        if p is not None:
            return p, how
    if nonzero <= ENUMERATED:
        return _enumerated(deltas[deltas != 0]), how
    p = (1 + _hits(deltas[deltas != 0], flips, entropy)) / (1 + flips)
    return p, how | {"method": "monte_carlo", "R": flips, "mc_se": math.sqrt(p * (1 - p) / flips)}


def _tolerance(deltas: FloatArray) -> float:
    # Sums that are equal on paper differ by the rounding of deltas to 12 decimals, of each item in a cluster's sum:
    # without this a hit is missed, and p too small. Sums that differ on paper do so by far more.
    return 1e-10 * len(deltas)


def _enumerated(deltas: FloatArray) -> float:
    """The share of all sign patterns with a sum as large; one sign is fixed, the mirrored half counts the same."""
    totals = deltas[:1]
    for delta in deltas[1:]:
        totals = np.concatenate([totals + delta, totals - delta])
    return float(np.mean(np.abs(totals) >= abs(float(deltas.sum())) - _tolerance(deltas)))


def _hits(deltas: FloatArray, flips: int, entropy: list[int]) -> int:
    """How many of *flips* random sign patterns reach the observed sum.

    A random byte serves eight items at once: it picks one of the 256 sums these eight can have.
    """
    rng = generator(entropy)
    padded = np.concatenate([deltas, np.zeros(-len(deltas) % 8)]).reshape(-1, 8)
    signs = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    totals = np.zeros(flips)
    block = max(1, _BYTES // flips)
    for start in range(0, len(padded), block):
        tables = padded[start : start + block] @ signs.T
        draws = np.frombuffer(rng.bytes(len(tables) * flips), dtype=np.uint8).reshape(len(tables), flips)
        for table, draw in zip(tables, draws, strict=True):
            totals += table[draw]
    return int(np.count_nonzero(np.abs(totals) >= abs(float(deltas.sum())) - _tolerance(deltas)))
