"""Benjamini-Hochberg q-values within declared families of hypotheses.

Benjamini & Hochberg (1995, doi:10.1111/j.2517-6161.1995.tb02031.x). A family counts each hypothesis once:
where two metrics say the same of every item (false answers and EM on unanswerable questions do), the
second one shares the q-value of the first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from pipeline.statistics.numbers import FloatArray, Undefined

NO_P = Undefined("no_p_value: without a p-value a test is in no family")


def adjust(p: FloatArray) -> FloatArray:
    """The q-value of each p: q_(i) = min over j >= i of m p_(j) / j, the minimum running from the largest p down."""
    m = len(p)
    descending = np.argsort(p)[::-1]
    running = np.minimum.accumulate(p[descending] * m / np.arange(m, 0, -1))
    q = np.empty(m)
    q[descending] = np.minimum(running, 1.0)
    return q


class Families:
    """Collects tests while blocks are made, and gives every test its q-value when all are known."""

    def __init__(self) -> None:
        self._families: dict[str, dict[str, dict[str, Any]]] = {}
        self._twins: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._seen: dict[Hashable, dict[str, Any]] = {}

    def add(self, family: str, member: str, test: dict[str, Any], p_key: str, same_as: Hashable = None) -> None:
        """Enter *test*, whose p is `test[p_key]`, as *member* of *family*; `close` sets `test["q_value"]`.

        Tests with an equal *same_as* that is not None are one hypothesis.
        """
        members = self._families.setdefault(family, {})
        p = test[p_key]
        test["q_value"] = NO_P if isinstance(p, Undefined) else p
        if isinstance(p, Undefined):
            return
        if same_as is not None:
            first = self._seen.setdefault((family, same_as), test)
            if first is not test:
                self._twins.append((first, test))
                return
        members[member] = test

    def close(self) -> dict[str, Any]:
        """Set every q-value and return the top-level `fdr` object."""
        for members in self._families.values():
            tests = list(members.values())
            p = np.array([test["q_value"] for test in tests], dtype=np.float64)
            for test, q in zip(tests, adjust(p), strict=True):
                test["q_value"] = float(q)
        for first, twin in self._twins:
            twin["q_value"] = first["q_value"]
        families = {name: {"m": len(members), "members": sorted(members)} for name, members in self._families.items()}
        return {"method": "benjamini_hochberg", "families": families}
