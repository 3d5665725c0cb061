"""Numbers and words as a report shows them. A value that does not exist is an en dash, never 0."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pipeline import plain

DASH = "–"
MINUS = "−"
NBSP = "\u00a0"


def sha256(text: str) -> str:
    """The digest of *text* in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def count(value: float | None) -> str:
    """1234 -> "1,234"."""
    return DASH if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """0.27058 -> "27.1%"."""
    return DASH if share is None else f"{_fixed(100 * share, 1)}%"


def points(delta: float | None) -> str:
    """A difference of shares in percentage points, always with its sign: 0.1294 -> "+12.9"."""
    if delta is None:
        return DASH
    text = _fixed(100 * delta, 1)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"


def unsigned_points(size: float | None) -> str:
    """A size in percentage points: 0.1026 -> "10.3"."""
    return DASH if size is None else _fixed(100 * size, 1)


def exact_points(size: float) -> str:
    """A size that somebody set, in percentage points, with all its digits: 0.02 -> "2.0", 0.0025 -> "0.25"."""
    text = f"{100 * size:.10g}"
    return f"{text}.0" if text.isdigit() else text


def exact_percent(share: float) -> str:
    """A share that somebody set, with all its digits: 0.5 -> "50%", 0.999 -> "99.9%"."""
    return f"{100 * share:.10g}%"


def points_span(interval: Sequence[float] | None) -> str:
    """[0.0665, 0.1923] -> "+6.7 to +19.2"."""
    return DASH if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def is_point(interval: Sequence[float] | None) -> bool:
    """Whether *interval* has no width: nothing varied, which says nothing of other questions."""
    return interval is not None and interval[0] == interval[1]


def percent_span(interval: Sequence[float] | None) -> str:
    """[0.18, 0.36] -> "18.0 to 36.0"."""
    return DASH if interval is None else f"{_fixed(100 * interval[0], 1)} to {_fixed(100 * interval[1], 1)}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with *digits* decimals."""
    return DASH if value is None else _fixed(value, digits)


def number_span(interval: Sequence[float | None] | None, digits: int = 3) -> str:
    """Two numbers; an end that does not exist is infinite."""
    if interval is None:
        return DASH
    low, high = interval
    return f"{number(low, digits)} to {'∞' if high is None else number(high, digits)}"


def p_cell(p: float | None) -> str:
    """A p- or q-value in a table: four decimals, or that it is smaller."""
    if p is None:
        return DASH
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def p_phrase(name: str, p: float | None) -> str:
    """A p- or q-value in a sentence: "p = 0.002", "p < 0.001", with spaces that do not break."""
    if p is None:
        return f"{name} undefined"
    return f"{name}{NBSP}<{NBSP}0.001" if p < 0.001 else f"{name}{NBSP}={NBSP}{p:.3f}"


def usd(value: float | None) -> str:
    """US dollars, with as many decimals as the sum needs; a price that six decimals would cut short has two digits."""
    if value is None:
        return DASH
    if 0 < value < 1e-5 and value != round(value, 6):
        exponent = int(f"{value:.1e}".partition("e")[2])
        return f"${value:.{1 - exponent}f}"
    return plain.usd(value)


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def counted(number_: int, singular: str, plural: str | None = None) -> str:
    """ "1 question", "85 questions"."""
    return f"{number_:,} {singular if number_ == 1 else plural or singular + 's'}"


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.,") else f"{MINUS}{text[1:]}"
    return text
