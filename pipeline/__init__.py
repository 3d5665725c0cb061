"""Make for batch-LLM experiments: phases as files with dependencies, resumable, never paid twice.

`pipeline.load_run(rid)` gives a finished run as DataFrames; nothing heavy is imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.notebook import load_run as load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    if name == "load_run":
        from pipeline.notebook import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
