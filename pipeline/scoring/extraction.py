"""The answer inside a longer reply: a named, configured step, the same for every condition.

Nothing is guessed: a reply without the marker is taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

# "Answer:", "Final answer:", "**Answer:**", "The answer is: "; emphasis around the colon belongs to the marker.
_MARKER = re.compile(r"\banswer(?:\s+is)?[*_\s]*:[*_]*", re.IGNORECASE)


def first_line(text: str) -> str:
    """The first line that is not blank, without the white space around it; "" if there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def after_marker(text: str) -> str:
    """The first line that is not blank after the last "Answer:"; the whole text when that marker is missing.

    The last one, since a reply that reasons first may name the marker on its way.
    """
    markers = list(_MARKER.finditer(text))
    return first_line(text[markers[-1].end() :]) if markers else text


def whole(text: str) -> str:
    """*text* unchanged."""
    return text


EXTRACTIONS: Mapping[str, Callable[[str], str]] = {
    "none": whole,
    "first_line": first_line,
    "after_marker": after_marker,
}
