"""Paired data sets that the statistics are checked on against SciPy and statsmodels, and score tables from them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_RATES = ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate")
COLUMNS = [
    "item_key", "dataset", "item_id", "type", "condition", "temp", "n_samples", "n_missing",
    *(column for rate in _RATES for column in (rate, f"{rate}_std")),
    "cluster", "answerable", "n_answered", "consistency", "unsupported_alt_rate", "n_truncated",
]  # fmt: skip


@dataclass(frozen=True)
class Paired:
    """Scores of the same items in two conditions; *samples* behind each score, *clusters* of the items."""

    control: np.ndarray
    treatment: np.ndarray
    samples: np.ndarray
    clusters: np.ndarray

    @property
    def deltas(self) -> np.ndarray:
        return np.round(self.treatment - self.control, 12) + 0.0


def _of(control, treatment, samples=1, clusters=None) -> Paired:
    control, treatment = np.asarray(control, dtype=float), np.asarray(treatment, dtype=float)
    n = len(control)
    counts = np.full(n, samples) if np.isscalar(samples) else np.asarray(samples)
    return Paired(control, treatment, counts, np.arange(n) if clusters is None else np.asarray(clusters))


def _rates(seed: int, n: int, samples: int, shift: float = 0.05, clusters=None, agreement: float = 0.0) -> Paired:
    """Rates over *samples* draws; items of a cluster share part of their difficulty and of their delta."""
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(1, 1, n)
    drift = np.zeros(n) if clusters is None else agreement * rng.normal(size=np.max(clusters) + 1)[clusters]
    treated = np.clip(difficulty + shift + drift, 0, 1)
    return _of(rng.binomial(samples, difficulty) / samples, rng.binomial(samples, treated) / samples, samples, clusters)


def _f1(seed: int, n: int, clusters=None) -> Paired:
    rng = np.random.default_rng(seed)

    def scores() -> np.ndarray:
        partial = 2 * rng.integers(1, 6, n) / rng.integers(11, 23, n)
        return np.where(rng.random(n) < 0.4, 1.0, np.where(rng.random(n) < 0.5, 0.0, partial))

    return _of(scores(), scores(), 1, clusters)


def _uneven(seed: int) -> Paired:
    """Rates over 3 to 5 samples: some responses are missing."""
    rng = np.random.default_rng(seed)
    m_c, m_t = rng.integers(3, 6, 80), rng.integers(3, 6, 80)
    p = rng.random(80)
    return _of(rng.binomial(m_c, p) / m_c, rng.binomial(m_t, np.clip(p + 0.1, 0, 1)) / m_t, np.maximum(m_c, m_t))


def _gaps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """F1 and rates, NaN on either side, on both, and where the other side is 0."""
    data = _f1(seed, 60)
    control, treatment = data.control.copy(), data.treatment.copy()
    control[[3, 17, 40]] = treatment[[5, 17, 58, 59]] = np.nan
    treatment[3] = control[5] = 0.0
    return control, treatment


GAPS = _of(*_gaps(10), 1, np.arange(60))  # not in SETS: NaN means that an item is not paired
_UNEVEN = np.repeat(np.arange(8), [1, 2, 5, 8, 12, 20, 20, 22])
SETS: dict[str, Paired] = {
    "empty": _of([], []),
    "one item": _of([0], [1]),
    "two items": _of([0, 1], [1, 1]),
    "two equal deltas": _of([0, 0], [1, 1]),
    "three items": _of([0.2, 0.6, 0.4], [0.4, 0.4, 0.6], 5),
    "all zero": _of([0, 1, 0.5, 1] * 10, [0, 1, 0.5, 1] * 10, 2),
    "constant delta": _of([0.2, 0.4, 0.6] * 12, [0.4, 0.6, 0.8] * 12, 5),
    "one win in 40": _of([0] * 40, [1] + [0] * 39),
    "12 against 5 discordant": _of([0] * 12 + [1] * 5 + [0, 1] * 12, [1] * 12 + [0] * 5 + [0, 1] * 12),
    "13 items with ties": _of(
        [0.2, 0.4, 0.6, 0.8, 0, 0, 1, 0.2, 0.4, 0.6, 0, 0.2, 0.4],
        [0.4, 0.2, 1, 1, 0.6, 0.2, 0.8, 0.8, 0.4, 0.8, 1, 0, 0.6],
        5,
    ),
    "rates of 5, n = 60": _rates(1, 60, 5),
    "heavy ties, K = 2": _rates(2, 200, 2),
    "uneven samples": _uneven(3),
    "F1, n = 25": _f1(4, 25),
    "F1, n = 300": _f1(5, 300),
    "skewed": _of([0] * 100, [1] * 6 + [0] * 94),
    "all improve": _of([0] * 500, [1] * 500),
    "nearly all improve": _of([0] * 499 + [1], [1] * 499 + [0]),
    "clusters of 10": _rates(6, 300, 5, clusters=np.arange(300) // 10, agreement=0.3),
    "8 uneven clusters": _rates(7, 90, 4, clusters=_UNEVEN, agreement=0.3),
    "clustered F1": _f1(8, 200, np.arange(200) // 7),
    "n = 2,000": _rates(9, 2000, 5, shift=0.02),
}  # fmt: skip


def cell(value: float | None) -> str:
    """A number as the score phase writes it; None and NaN as an empty cell."""
    return "" if value is None or value != value else repr(float(value))


def row(item: str = "q1", condition: str = "control", **values: object) -> dict[str, str]:
    """One row of a score table, by column; plain defaults of an answered open-book item."""
    plain: dict[str, object] = {
        "dataset": "squad_v2", "item_id": item, "type": "open", "condition": condition, "temp": "0", "n_samples": 1,
        "n_missing": 0, "em": 0.0, "f1": 0.0, "abstain_rate": 0.0, "false_answer_rate": None, "unsupported_rate": 0.0,
        "cluster": "", "answerable": 1, "n_answered": 1, "consistency": 1.0, "n_truncated": 0,
    }  # fmt: skip
    plain |= values
    plain["item_key"] = f"{plain['dataset']}|{plain['item_id']}"
    texts = {}
    for column in COLUMNS:
        value = plain.get(column)
        texts[column] = value if isinstance(value, str) else str(value) if isinstance(value, int) else cell(value)
    return texts


def rows_of(data: Paired, dataset: str = "squad_v2", kind: str = "open", temp: str = "0") -> list[dict[str, str]]:
    """A score table whose EM (and F1) is *data*."""
    rows = []
    for i, (control, treatment) in enumerate(zip(data.control, data.treatment, strict=True)):
        for condition, score in (("control", control), ("treatment", treatment)):
            rows.append(
                row(
                    f"q{i:04d}", condition, dataset=dataset, type=kind, temp=temp, n_samples=int(data.samples[i]),
                    em=score, f1=score, cluster=f"p{data.clusters[i]}",
                    unsupported_rate=0.0 if kind == "open" else None,
                )
            )  # fmt: skip
    return rows


def text_of(rows: Iterable[Mapping[str, str]]) -> str:
    """The CSV file with *rows*, as the score phase writes it."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([[one[column] for column in COLUMNS] for one in rows])
    return stream.getvalue()


def written(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    """*rows* as a score file under *path*."""
    path.write_text(text_of(rows), encoding="utf-8", newline="")
    return path
