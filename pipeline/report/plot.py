"""One way of drawing: matplotlib to an SVG that is the same bytes each time and takes its colours from the page.

Figures are drawn in placeholder colours, which become CSS variables, so that one drawing serves light,
dark and print; text stays text. Neither a user's matplotlibrc nor a display has any influence, and
matplotlib's font cache goes into a folder that is gone after the import: nothing outside a run changes.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.report.theme import DARK, LIGHT, css

with tempfile.TemporaryDirectory() as _scratch:
    _before = os.environ.get("MPLCONFIGDIR")
    os.environ["MPLCONFIGDIR"] = _scratch
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    matplotlib.get_configdir()  # remembered by matplotlib; asked for only later, it would be made in the user's home

    if _before is None:
        del os.environ["MPLCONFIGDIR"]
    else:
        os.environ["MPLCONFIGDIR"] = _before

WIDTH = 6.6  # inches; 475 pt, what a phone shows without shrinking the text below 10 px

# Placeholder colours, never seen: matplotlib writes them, `_themed` turns them into variables.
INK, MUTED, LINE, PAPER = "#010203", "#020304", "#030405", "#040506"
GOOD, BAD = "#050607", "#060708"
SERIES = ("#070809", "#08090a", "#090a0b", "#0a0b0c", "#0b0c0d")  # the control, then treatments
_VARIABLES = {
    INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", GOOD: "good", BAD: "bad",
    **{colour: f"s{number}" for number, colour in enumerate(SERIES)},
}  # fmt: skip

MARKERS = ("o", "s", "D", "^", "v")
DASHES = ((0, (4, 2)), "solid", (0, (1, 1.5)), (0, (5, 1, 1, 1)), (0, (8, 2)))

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a data set's name is a dollar sign
}

# The font serves to measure; whoever reads the page has fonts for what it lacks (3.9 also says so of whole scripts).
_NO_GLYPH = r"Glyph \d+ .*missing from|Matplotlib currently does not support \w+ natively"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REWRITTEN = re.compile(
    r">[^<]*"  # no attribute but text, which stays what it is: a data set may be called `#010203`
    r'|(?P<reference>\bid="|url\(#|href="#)'
    r'|(?P<font>font: [^;"]*?[\d.]+px)[^;"]*'
    rf"|(?P<colour>{'|'.join(_VARIABLES)})"
)

_lock = threading.Lock()  # matplotlib's settings are one global; `doit -n` may draw two trials in threads


def draw(name: str, height: float, paint: Callable[[Figure], None]) -> str:
    """The SVG element that *paint* makes on a canvas of WIDTH x *height* inches; *name* makes its ids unique."""
    stream = io.StringIO()
    with _lock, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_GLYPH, UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        canvas = Figure(figsize=(WIDTH, height))
        paint(canvas)
        FigureCanvasSVG(canvas).print_svg(stream, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return _themed(stream.getvalue(), name)


def series(number_: int) -> dict[str, Any]:
    """How a series is drawn: the control (0) dashed and hollow, the others by their own dash and marker."""
    index = number_ % len(SERIES)
    colour = SERIES[index]
    return {
        "color": colour,
        "linestyle": DASHES[index],
        "marker": MARKERS[index],
        "markerfacecolor": PAPER if number_ == 0 else colour,
        "markeredgewidth": 1.4,
    }


def legend(canvas: Figure, names: Mapping[int, str], *, markers_only: bool = False, lines_only: bool = False) -> None:
    """A legend above the plots, top right; *names* maps the number of a series to its name."""
    handles = []
    for number_, name in names.items():
        style = series(number_)
        if markers_only:
            style["linestyle"] = "none"
        if lines_only:
            style["marker"] = "none"
        handles.append(Line2D([], [], label=name, **style))
    canvas.legend(handles=handles, loc="upper right", ncols=min(len(names), 3), handlelength=3, borderaxespad=0.1)


def standalone(svg: str) -> str:
    """The element *svg* as a file of its own: it brings its colours, light and dark, and its background."""
    style = (
        f"<style>svg{{--font:system-ui,sans-serif;{css(LIGHT)}background:var(--paper)}}"
        f"@media (prefers-color-scheme:dark){{svg{{{css(DARK)}}}}}</style>"
    )
    start = svg.index(">") + 1
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg[:start]}{style}{svg[start:]}\n'


def _themed(text: str, name: str) -> str:
    """The `<svg>` element of matplotlib's *text*: variables for colours, the page's font, unique ids, no metadata."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<svg ", '<svg aria-hidden="true" ', text, count=1)
    return _REWRITTEN.sub(lambda match: _rewritten(match, name), _NOT_IN_XML.sub("\ufffd", text))


def _rewritten(match: re.Match[str], name: str) -> str:
    if reference := match["reference"]:
        return f"{reference}{name}-"
    if font := match["font"]:
        return f"{font} var(--font)"
    return f"var(--{_VARIABLES[match['colour']]})" if match["colour"] else match.group()
