"""How a wait is shown: as JSON events, as lines drawn over on a terminal, or as lines where something changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline import console
from pipeline.queue.progress import Progress

if TYPE_CHECKING:
    from rich.text import Text

_HEARTBEAT = 600.0  # seconds after which a log gets a line although nothing but figures changed

Show = Callable[[Progress | None], None]


def shown(
    say: Callable[[str], None],
    *,
    as_json: bool,
    alone: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> Show:
    """What shows the progress it is called with; None tells it that the wait is over.

    Who is not *alone* at the terminal, as the workers of `doit -n`, draws nothing: it would take away others' lines.
    """
    told, told_at, line = "", 0.0, ""

    def show(progress: Progress | None) -> None:
        nonlocal told, told_at, line
        if as_json:
            if progress is not None:
                say(console.as_json(progress.as_json(), pretty=False))
        elif console.is_terminal() and alone():
            console.draw(*(() if progress is None else drawn(progress)))
        elif progress is not None:
            late = clock() - told_at > _HEARTBEAT and progress.line != line
            if progress.steady != told or late:
                say(progress.line)
                told, told_at, line = progress.steady, clock(), progress.line

    return show


def drawn(progress: Progress) -> list[Text]:
    """Lines for a terminal: how far as a bar, parts and time left; figures; what is waited for."""
    share = progress.rows_done / progress.rows if progress.rows else 0.0
    left = f", {progress.left}" if progress.left else ""
    lines = [console.bar(f"{progress.whose}  ", share, f"  {progress.parts_said}{left}")]
    lines += console.packed(progress.figures(), "  ")
    if progress.waits:
        lines.append(console.text(f"  {progress.waits}", console.QUIET))
    return lines
