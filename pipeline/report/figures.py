"""Figures of differences: forest plots, and questions won and lost.

Each says the same in colour, in grey, and in the table that stands behind it. Where there is nothing to
draw, a sentence says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.plain import visible
from pipeline.report import plot
from pipeline.report.blocks import Figure, Paragraph, Table
from pipeline.report.model import Model
from pipeline.report.places import place
from pipeline.report.text import DASH, count, points, points_span
from pipeline.report.verdict import METRIC_NAMES, Verdict, judged

if TYPE_CHECKING:  # plot imports matplotlib, in its own way
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_NARROW = 0.4  # of a figure's width: below, ticks would run into each other
_LETTER = 0.0119  # of a figure's width: an average letter of a label, which has 9 pt
_LONGEST = 34  # characters of a label
_ARROWS = {"higher": " ↑", "lower": " ↓", "neutral": ""}


@dataclass(frozen=True)
class Row:
    """One line of a forest plot; *delta* and *interval* as shares. A row without *verdict* is a heading."""

    label: str
    delta: float | None = None
    interval: Sequence[float] | None = None
    verdict: Verdict | None = None


def forest(model: Model, treatment: str, name: str) -> Figure | Paragraph:
    """Every metric's difference with its interval, by type and temperature."""
    rows: list[Row] = []
    for block in model.of(treatment):
        rows.append(Row(place(model, block)))
        for metric, data in block.metrics:
            label = METRIC_NAMES[metric] + _ARROWS[data["direction"]]
            verdict = judged(block, metric, model.alpha)
            rows.append(Row(label, data["delta_mean"], data["primary"]["ci_95"], verdict))
    return forest_of(
        rows,
        name,
        f"Difference {treatment} − {model.control}, percentage points",
        f"Difference between {treatment} and {model.control} per metric, type and temperature, with 95% intervals.",
    )


def forest_of(rows: Sequence[Row], name: str, axis: str, alt: str) -> Figure | Paragraph:
    """A forest plot of *rows*; a filled mark is a difference shown after correction."""
    if all(row.delta is None for row in rows):
        return Paragraph("There is no difference to draw: no question was answered in both conditions.")
    height = 0.75 + 0.235 * len(rows)
    labels = [_label(row.label) for row in rows]
    # So wide that the longest label fits; the numbers on the right keep their place.
    left = max(0.25, 0.02 + _LETTER * max(len(label) for label, row in zip(labels, rows, strict=True) if row.verdict))
    width = 0.7 - left

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_axes((left, 0.5 / height, width, 1 - 0.62 / height))
        axes.axvline(0, color=plot.MUTED, linewidth=1)
        axes.grid(axis="y", visible=False)
        for y, row in enumerate(rows):
            if row.verdict is None:
                axes.text(
                    (0.005 - left) / width,
                    y,
                    row.label,
                    transform=axes.get_yaxis_transform(),
                    va="center_baseline",
                    weight="bold",
                )
            elif row.delta is not None:
                _point(axes, y, row)
                axes.text(
                    1 + 0.018 / width, y, points(row.delta), transform=axes.get_yaxis_transform(), va="center_baseline"
                )
                span = points_span(row.interval) if row.interval else "no interval"
                axes.text(
                    1 + 0.106 / width,
                    y,
                    span,
                    transform=axes.get_yaxis_transform(),
                    va="center_baseline",
                    color=plot.MUTED,
                )
            else:
                axes.text(1 + 0.018 / width, y, DASH, transform=axes.get_yaxis_transform(), va="center_baseline")
        axes.set_yticks(
            range(len(rows)), [label if row.verdict else "" for label, row in zip(labels, rows, strict=True)]
        )
        axes.set_ylim(len(rows) - 0.4, -0.6)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -1.0), max(high, 1.0))  # no magnifying glass on differences of nothing
        axes.locator_params(axis="x", nbins=4 if width < _NARROW else 7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis)

    table = Table(
        ("What", "#Difference (points)", "#95% CI", "Verdict"),
        tuple(
            (row.label, points(row.delta), points_span(row.interval), row.verdict.value)
            for row in _with_headings(rows)
            if row.verdict
        ),
    )
    return Figure(name, plot.draw(name, height, paint), alt, table)


def outcomes(model: Model, treatment: str, name: str) -> Figure | Paragraph:
    """Questions won, lost and tied by exact match."""
    blocks = [b for b in model.of(treatment) if b.data["metrics"]["em"]["n_pairs"]]
    if not blocks:
        return Paragraph("There are no wins and losses to draw: no question was answered in both conditions.")
    height = 0.8 + 0.34 * len(blocks)

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_axes((0.25, 0.5 / height, 0.6, 1 - 0.8 / height))
        axes.grid(axis="y", visible=False)
        largest = 0.0
        for y, block in enumerate(blocks):
            em = block.data["metrics"]["em"]
            won, lost = (100 * em[key] / em["n_pairs"] for key in ("wins", "losses"))
            largest = max(largest, won, lost)
            axes.barh(y, won, 0.62, color=plot.GOOD)
            axes.barh(y, -lost, 0.62, facecolor="none", edgecolor=plot.BAD, hatch="////")
            axes.annotate(f"{em['wins']:,}", (won, y), (4, 0), textcoords="offset points", va="center_baseline")
            axes.annotate(
                f"{em['losses']:,}", (-lost, y), (-4, 0), textcoords="offset points", va="center_baseline", ha="right"
            )
            tied = f"{em['ties']:,} tied"
            axes.text(1.03, y, tied, transform=axes.get_yaxis_transform(), va="center_baseline", color=plot.MUTED)
        reach = max(largest * 1.25, 1.0)
        axes.set_xlim(-reach, reach)
        axes.axvline(0, color=plot.MUTED, linewidth=1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}%")
        axes.set_yticks(range(len(blocks)), [place(model, block) for block in blocks])
        axes.set_ylim(len(blocks) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of questions")
        axes.text(0.49, 1.02, "lost", transform=axes.transAxes, ha="right", color=plot.BAD)
        axes.text(0.51, 1.02, "won", transform=axes.transAxes, color=plot.GOOD)

    rows = []
    for block in blocks:
        em = block.data["metrics"]["em"]
        rows.append((place(model, block), *(count(em[key]) for key in ("wins", "ties", "losses", "n_pairs"))))
    return Figure(
        name,
        plot.draw(name, height, paint),
        f"Share of questions that {treatment} won and lost against {model.control} by exact match.",
        Table(("Where", "#Won", "#Tied", "#Lost", "#Questions"), tuple(rows)),
    )


def _point(axes: Axes, y: int, row: Row) -> None:
    assert row.verdict is not None
    assert row.delta is not None
    colour = {"good": plot.GOOD, "bad": plot.BAD}.get(row.verdict.tone, plot.INK if row.verdict.counts else plot.MUTED)
    if row.interval:
        axes.plot([100 * end for end in row.interval], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    fill = colour if row.verdict.counts else plot.PAPER
    axes.plot([100 * row.delta], [y], "o", color=colour, markerfacecolor=fill, markeredgewidth=1.4)


def _label(text: str) -> str:
    """*text* as a label, cut in its middle: a data set may be called anything, and names differ at their ends."""
    shown = visible(text).replace("\n", " ")
    half = _LONGEST // 2
    return shown if len(shown) <= _LONGEST else f"{shown[: half - 1]}…{shown[-half:]}"


def _with_headings(rows: Sequence[Row]) -> list[Row]:
    """The *rows* with their heading in the label, as a table without headings needs them."""
    heading, full = "", []
    for row in rows:
        if row.verdict is None:
            heading = f"{row.label}: "
        full.append(Row(heading + row.label, row.delta, row.interval, row.verdict) if row.verdict else row)
    return full
