"""The colours of pages and figures, under the names of their CSS variables.

Each ink has at least 4.5:1 contrast on its paper (WCAG 2.2, AA). Colour never carries anything alone.
"""

from __future__ import annotations

LIGHT = {
    "ink": "#1d2126", "muted": "#5b6570", "line": "#d9dde1", "paper": "#fdfdfb", "wash": "#f3f4f1",
    "accent": "#0b5c8a", "good": "#0b6e5f", "bad": "#a63d1f",
    "s0": "#5b6570", "s1": "#0b5c8a", "s2": "#8a4b9e", "s3": "#94560a", "s4": "#2f7a35",
}  # fmt: skip
DARK = {
    "ink": "#e8e8e4", "muted": "#a3abb3", "line": "#353c44", "paper": "#15181c", "wash": "#1d2126",
    "accent": "#6cb8e6", "good": "#5cc7b2", "bad": "#f08a6a",
    "s0": "#a3abb3", "s1": "#6cb8e6", "s2": "#c99be0", "s3": "#e5ab5c", "s4": "#86cc8b",
}  # fmt: skip


def css(theme: dict[str, str]) -> str:
    """*theme* as declarations of CSS variables."""
    return "".join(f"--{name}:{colour};" for name, colour in theme.items())
