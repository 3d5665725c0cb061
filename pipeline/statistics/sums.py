"""Exact distributions of two kinds of sum, by Fourier transform on integers.

`resampled`: the sum of n draws with replacement (the bootstrap) is the n-th convolution power of one draw.
`two_sided_tail`: the sum of given numbers with random signs (sign flips, signed ranks).

Both wrap the sum round a window that Bernstein's inequality shows to hold all but e^-TAIL of it, so the
transforms stay short: about 18 standard deviations instead of the whole range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import expit

from pipeline.statistics.numbers import ComplexArray, FloatArray, IntArray, as_p_value

TAIL = 40.0  # e^-40 = 4e-18, below what a double can add to 1
LARGEST_WINDOW = 1 << 19  # cells; about 30 ms. Beyond it the normal approximation or simulation is as good
# Cells of a resampled sum worth holding for the sake of exactness: 0.4 s and 90 MB. 10 samples of 20,000 items with
# some missing need 1.3 million; 16 samples of 10,000 would need 400 million, and memory ran out.
LARGEST_RESAMPLED = 1 << 21
_NEGLIGIBLE = -45.0  # log of a factor of the transform that can no longer matter


@dataclass(frozen=True)
class SumDistribution:
    """Probabilities of the integers *first*, *first* + 1, ..."""

    first: int
    probability: FloatArray

    def below(self, point: float) -> float:
        """P(sum < point) + P(sum = point) / 2, linear between integers (ties count half, as in BCa's z0)."""
        middle = np.cumsum(self.probability) - self.probability / 2
        return float(np.interp(point - self.first, np.arange(len(middle)), middle, left=0.0, right=1.0))

    def quantile(self, share: float) -> int:
        """The integer that cuts off *share* of the nearer tail.

        Both tails are measured from outside, so that mirrored data give mirrored quantiles to the last cell.
        """
        if share <= 0.5:
            return self.first + _cut(self.probability, share)
        return self.first + len(self.probability) - 1 - _cut(self.probability[::-1], 1 - share)


def window(first: int, probability: FloatArray, draws: int) -> tuple[int, int]:
    """The lowest and the highest sum that `resampled` looks at: what it holds is as long as they are apart."""
    values = first + np.arange(len(probability))
    mean = float(probability @ values)
    variance = float(probability @ (values - mean) ** 2)
    half = _half_width(draws * variance, max(values[-1] - mean, mean - first))
    low = max(draws * first, math.floor(draws * mean - half))
    return low, min(draws * int(values[-1]), math.ceil(draws * mean + half))


def resampled(first: int, probability: FloatArray, draws: int) -> SumDistribution:
    """The distribution of the sum of *draws* independent integers, each *first* + j with *probability*[j]."""
    low, high = window(first, probability, draws)
    size = next_fast_len(high - low + 1, real=True)
    transform = rfft(probability, size)
    power = np.zeros_like(transform)
    magnitude = np.abs(transform)
    matters = magnitude > math.exp(_NEGLIGIBLE / draws)
    power[matters] = transform[matters] ** draws
    wrapped = irfft(power, size)
    return SumDistribution(low, np.maximum(np.roll(wrapped, -((low - draws * first) % size)), 0.0))


def two_sided_tail(sizes: IntArray, counts: IntArray, total: int) -> float | None:
    """P(|S| >= |total|) for S = sum of numbers with fair random signs, *counts*[j] numbers being *sizes*[j].

    Exact to about 1e-10 of itself also where it is 1e-175: the distribution is tilted exponentially until its
    mean is the observed sum, transformed there, and tilted back. None when the window would be too long.
    """
    if total == 0 or not len(sizes):
        return 1.0
    divisor = int(np.gcd.reduce(sizes))
    steps = (sizes // divisor).astype(np.float64)
    whole = int(np.sum(sizes // divisor * counts))
    # S = 2 Y - whole, Y the sum of the numbers that keep their sign: Binomial(count, 1/2) of each size.
    observed = (abs(total) // divisor + whole) // 2
    if observed == whole:
        return as_p_value(2.0 ** (1 - int(counts.sum())))
    tilt = _tilt(steps, counts, observed)
    kept = expit(tilt * steps)
    half = _half_width(float(np.sum(counts * steps**2 * kept * (1 - kept))), float(steps.max()))
    low = max(0, math.floor(observed - half))
    high = min(whole, math.ceil(observed + half))
    if high - low >= LARGEST_WINDOW:
        return None
    size = next_fast_len(high - low + 1, real=True)
    wrapped = irfft(_binomial_transform(steps, counts, kept, size), size)
    tail = wrapped[np.arange(observed, high + 1) % size]
    back = np.exp(-tilt * np.arange(len(tail)))
    log_moment = float(np.sum(counts * (np.logaddexp(0.0, tilt * steps) - math.log(2)))) - tilt * observed
    return as_p_value(2 * math.exp(log_moment) * float(tail @ back))


def _binomial_transform(steps: FloatArray, counts: IntArray, kept: FloatArray, size: int) -> ComplexArray:
    """The transform of sum steps[j] * Binomial(counts[j], kept[j]), where it matters; 0 elsewhere."""
    variances = kept * (1 - kept)
    matters = np.arange(size // 2 + 1)
    magnitude = np.zeros(len(matters))
    # The widest binomial comes first: each leaves fewer frequencies for the next, so many sizes cost little.
    for j in np.argsort(-counts * variances):
        # |1 - share + share e^(-2 i angle)|^2 = 1 - 4 variance sin(angle)^2
        sine = np.sin((math.pi / size) * ((matters * int(steps[j])) % size))
        magnitude += counts[j] / 2 * np.log(np.maximum(1 - 4 * variances[j] * sine**2, 1e-99))
        large = magnitude > _NEGLIGIBLE
        matters, magnitude = matters[large], magnitude[large]
    logarithm = np.zeros(len(matters), dtype=np.complex128)
    for step, number, share in zip(steps, counts, kept, strict=True):
        turn = np.exp((-2j * math.pi / size) * ((matters * int(step)) % size))
        logarithm += number * np.log((1 - share) + share * turn)
    transform = np.zeros(size // 2 + 1, dtype=np.complex128)
    transform[matters] = np.exp(logarithm)
    return transform


def _tilt(steps: FloatArray, counts: IntArray, observed: int) -> float:
    """The tilt under which the mean of the sum is *observed* (more than half of the largest sum, less than all)."""
    low, high = 0.0, 1.0
    while float(np.sum(counts * steps * expit(high * steps))) < observed and high < 64:
        high *= 2
    for _ in range(40):  # any tilt near the right one serves: the result does not depend on it
        middle = (low + high) / 2
        if float(np.sum(counts * steps * expit(middle * steps))) < observed:
            low = middle
        else:
            high = middle
    return high


def _half_width(variance: float, reach: float) -> float:
    """A distance from its mean that a sum of terms of size up to *reach* passes with probability below e^-TAIL.

    Bernstein's inequality: P(S - ES >= x) <= exp(-x^2 / (2 (variance + reach x / 3))).
    """
    third = TAIL * reach / 3
    return third + math.sqrt(third**2 + 2 * TAIL * variance)


def _cut(probability: FloatArray, share: float) -> int:
    return int(np.searchsorted(np.cumsum(probability), share - 1e-12))
