"""Text in CSV cells: a leading `= + - @ TAB CR '` gets one `'` in front, so that no spreadsheet runs it.

Reversible: whoever reads a text column takes one leading `'` off again.
"""

from __future__ import annotations

GUARDED = frozenset("=+-@\t\r'")


def guard(text: str) -> str:
    """*text* as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in GUARDED else text


def unguard(cell: str) -> str:
    """What `guard` was given."""
    return cell.removeprefix("'")
