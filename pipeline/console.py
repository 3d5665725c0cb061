"""Lines for the person at the terminal; the only module that prints.

Text that came from outside (a model's answer, a provider's message) may hold control characters that
move the cursor, hide text or reorder it; they are shown as escapes.
"""

from __future__ import annotations

import re
import sys

# C0 and C1 controls but newline and tab, and the bidirectional overrides and isolates.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """*text* with every control character as an escape such as `\\x1b`."""
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """A line on standard output."""
    print(visible(text), flush=True)


def warn(text: str) -> None:
    """A line on standard error: what is not a result."""
    print(visible(text), file=sys.stderr, flush=True)


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes; no when nobody can be asked."""
    if not sys.stdin.isatty():
        return False
    print(visible(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin.isatty()
