"""Lines for the person at the terminal; the only module that prints.

Text that came from outside (a model's answer, a provider's message) may hold control characters that
move the cursor, hide text or reorder it; they are shown as escapes.
"""

from __future__ import annotations

import shutil
import sys

from pipeline.plain import visible

_drawn = False  # whether the cursor stands in a line of `draw`


def say(text: str) -> None:
    """A line on standard output."""
    draw("")
    print(visible(text), flush=True)


def warn(text: str) -> None:
    """A line on standard error: what is not a result."""
    draw("")
    print(visible(text), file=sys.stderr, flush=True)


def draw(text: str) -> None:
    """A line on the terminal that whatever comes next replaces; an empty one only takes it away."""
    global _drawn
    if _drawn:
        print("\r\x1b[K", end="", flush=True)
    _drawn = bool(text)
    if text:
        print(visible(text)[: shutil.get_terminal_size().columns - 1], end="", flush=True)


def is_terminal() -> bool:
    """Whether standard output is a terminal, where a line can be drawn over."""
    return sys.stdout.isatty()


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes; no when nobody can be asked."""
    if not sys.stdin.isatty():
        return False
    print(visible(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin.isatty()
