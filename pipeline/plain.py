"""Plain text for people: columns that line up, sums of money, and nothing in it that would act unseen.

A model's answer or a service's message may hold characters that move the cursor, hide text or reorder
it; wherever such text is shown, on the terminal or in a report, they stand as escapes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence

# Controls but newline and tab, soft hyphen, bidirectional marks, overrides and isolates, zero-width and
# invisible characters (but the joiners that scripts and emoji need), line and paragraph separators, tags,
# lone surrogates. Written out instead of asking `unicodedata`, whose answers change with Python's version.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)

# Slashes may be escaped, as in JSON that was taken for text.
_SIGNED_LINK = re.compile(r"(https?:(?:\\?/){2}[^\s?#\"'<>]+)[?#][^\s\"'<>]*", re.IGNORECASE)

WORDS_SHOWN = 300  # characters of a service's own words in a message


def visible(text: str) -> str:
    """*text* with every character that would act unseen as an escape such as `\\x1b` or `\\u202e`."""
    if text.isprintable() and text.isascii():  # as nearly every line is: a fifth of the time
        return text
    return INVISIBLE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def readable(words: str) -> str:
    """A service's *words* on one line of at most WORDS_SHOWN characters, all visible; links without what signs them."""
    start = words[: 8 * WORDS_SHOWN]  # a service may say megabytes, and what is cut off a link is not shown either
    line = visible(_SIGNED_LINK.sub(r"\1?...", " ".join(start.split())))
    return line if len(line) <= WORDS_SHOWN else line[:WORDS_SHOWN] + "..."


def columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of equally many cells as lines, each cell but the last as wide as its column."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def lacking(module: str | None) -> str:
    """What to say where a library cannot be imported: a newcomer's first stumble, and anybody's after an update."""
    return (
        f"ERROR: {sys.executable} does not have {module}: the project's environment is not active, or older than the "
        "code.\nNext: make setup in the clone, . .venv/bin/activate, then the same command again"
    )


def usd(value: float) -> str:
    """US dollars, with more decimals where the sum is small: "$0.60", "$0.0226", "$0.000024"."""
    decimals = 2 if value >= 1 or value == round(value, 2) else 4 if value >= 0.001 else 6
    return f"${value:,.{decimals}f}"
