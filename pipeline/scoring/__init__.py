"""Scores of single responses: one file per benchmark, and the abstention and support heuristics beside them.

A benchmark is a module of this package that defines `BENCHMARK`; adding one is adding that file.
Nothing here reads or writes files or knows about runs.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from pipeline.scoring.benchmark import Benchmark


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Every benchmark by its name, the one that prepared rows carry in `benchmark`."""
    modules = (import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__))
    found = (getattr(module, "BENCHMARK", None) for module in modules)
    return {benchmark.name: benchmark for benchmark in found if isinstance(benchmark, Benchmark)}
