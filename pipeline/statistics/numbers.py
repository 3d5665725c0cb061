"""The kinds of number the statistics deal in: arrays, floats, and numbers that do not exist.

A function that cannot give a number returns `Undefined(reason)` in its place. `seal` turns a finished
document into plain JSON values: each Undefined becomes null and is named, with its reason, in the
`warnings` of the nearest enclosing object. A null without a warning can therefore not be written.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DIGITS = 10  # significant digits of every float written; two BLAS builds agree to about twelve


@dataclass(frozen=True)
class Undefined:
    """Stands where a number would be, had the data one; *reason* reads `code: sentence`."""

    reason: str


Number = float | Undefined
Interval = list[float] | Undefined

NO_PAIRS = Undefined("no_pairs: no item has a value in both conditions")
ONE_PAIR = Undefined("one_pair: a single pair has no spread")
ZERO_VARIANCE = Undefined("zero_variance: the deltas of items or clusters do not vary")


def as_p_value(p: float) -> float:
    """*p* within (0, 1]: rounding may pass 1, and a p-value below the smallest normal double is written as that."""
    return min(1.0, max(float(p), sys.float_info.min))


def without_rounding_noise(values: FloatArray) -> FloatArray:
    """*values* to 12 decimals, as ties and zeros need it: 0.6 - 0.4 and 0.2 are two different floats."""
    return np.round(values, 12) + 0.0  # -0.0 becomes 0.0


def seed_of(seed: int, path: str) -> list[int]:
    """The entropy of the generator that serves the block *path*, so that no block's stream depends on another's."""
    return [seed, crc32(path.encode())]


def generator(entropy: list[int]) -> np.random.Generator:
    """The generator of a block, from what `seed_of` gave and the document records."""
    return np.random.default_rng(np.random.SeedSequence(entropy))


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """*document* as plain JSON values: floats to DIGITS digits, Undefined as null with a warning.

    The document and any object in it may hold a list `warnings`; at least the outermost must.
    Raises ValueError for None, NaN or infinity: they would be nulls nobody explained.
    """
    sealed: dict[str, Any] = _sealed(document, "", {})
    return sealed


def _sealed(value: Any, path: str, reasons: dict[str, list[str]]) -> Any:
    # The plain ones first: a document has thousands of them, and asking for a Mapping takes long.
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return float(f"{float(value):.{DIGITS}g}") + 0.0
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, Mapping):
        own = {} if "warnings" in value else reasons
        prefix = "" if "warnings" in value else f"{path}." if path else ""
        plain = {key: _sealed(child, f"{prefix}{key}", own) for key, child in value.items()}
        if "warnings" in value:
            plain["warnings"] += [f"{reason} ({', '.join(paths)})" for reason, paths in own.items()]
        return plain
    if isinstance(value, list | tuple):
        return [_sealed(child, path, reasons) for child in value]
    if isinstance(value, Undefined):
        paths = reasons.setdefault(value.reason, [])
        if path not in paths:
            paths.append(path)
        return None
    raise ValueError(f"{path}: {value!r} has no place in a document; use Undefined(reason)")
