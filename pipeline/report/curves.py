"""Figures of risk against coverage, of accuracy against cost, and of tokens; each with its table.

Control: dashed, hollow. Treatments: solid, filled, each with a mark of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report import plot
from pipeline.report.artifacts import Block
from pipeline.report.blocks import Figure, Line, Paragraph, Table
from pipeline.report.model import Model
from pipeline.report.places import place
from pipeline.report.text import number, percent, usd

if TYPE_CHECKING:  # plot imports matplotlib, in its own way
    import numpy.typing as npt
    from matplotlib.figure import Figure as Canvas

_BINS = 24
_SIDES = ("control", "treatment")


def risk_coverage(model: Model, treatment: str, name: str) -> Figure | Paragraph:
    """How often answers are wrong among the share that a condition is surest of."""
    blocks = [b for b in model.of(treatment) if any(_curve(b, side) for side in _SIDES)]
    if not blocks:
        return Paragraph("There is no risk-coverage curve: no question has an answered sample.")
    columns = min(2, len(blocks))
    series = (0, model.conditions.index(treatment))
    lines = math.ceil(len(blocks) / columns)
    height = 0.45 + 2.15 * lines

    def paint(canvas: Canvas) -> None:
        grid = canvas.subplots(lines, columns, squeeze=False)
        canvas.subplots_adjust(0.09, 0.5 / height, 0.98, 1 - 0.62 / height, hspace=0.55, wspace=0.22)
        for number_, axes in enumerate(grid.flat):
            if number_ >= len(blocks):
                axes.remove()
                continue
            axes.set_title(place(model, blocks[number_]))
            for index, side in zip(series, _SIDES, strict=True):
                curve = _curve(blocks[number_], side)
                x, y = ([100 * point[key] for point in curve] for key in ("coverage", "risk"))
                axes.plot(x, y, **plot.series(index))
            axes.set_xlim(0, 104)
            axes.set_ylim(0, 104)
            axes.set_xlabel("coverage, % of questions")
            if number_ % columns == 0:
                axes.set_ylabel("risk, % wrong")
        plot.legend(canvas, {index: model.conditions[index] for index in series})

    rows = [
        (
            place(model, block),
            condition,
            number(point["threshold"]),
            percent(point["coverage"]),
            percent(point["risk"]),
        )
        for block in blocks
        for condition, side in zip((model.control, treatment), _SIDES, strict=True)
        for point in _curve(block, side)
    ]
    return Figure(
        name,
        plot.draw(name, height, paint),
        f"Risk against coverage of {model.control} and {treatment}, the most consistent answers first.",
        Table(("Where", "Condition", "#Consistency at least", "#Coverage", "#Risk"), tuple(rows)),
    )


def cost_accuracy(model: Model, name: str) -> Figure | Paragraph:
    """What a condition costs against how often it is right; tokens where no price is known."""
    priced = bool(model.costs["usd_per_request"])
    unit = "US dollars per 1,000 requests" if priced else "tokens per request"
    dots: list[tuple[int, str, float, float]] = []
    rows: list[tuple[Line, ...]] = []
    for temp in model.temps:
        for series, condition in enumerate(model.conditions):
            money = model.costs["temps"].get(temp, {}).get(condition)
            em = model.scores.em.get((temp, condition))
            if not money or not money["usage_records"] or em is None or em.value is None:
                continue
            x = 1000 * money["usd_per_request"] if priced else money["total_tokens"] / money["usage_records"]
            dots.append((series, temp, x, 100 * em.value))
            rows.append((temp, condition, usd(x) if priced else number(x, 1), percent(em.value)))
    if not dots:
        return Paragraph("Cost against accuracy cannot be drawn: no answer came with token counts.")

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_axes((0.1, 0.17, 0.87, 0.7))
        for temp in model.temps:
            path = [(x, y) for _, t, x, y in dots if t == temp]
            axes.plot(*zip(*path, strict=True), color=plot.LINE, linewidth=1, zorder=1) if path else None
        for series, temp, x, y in dots:
            axes.plot([x], [y], **{**plot.series(series), "linestyle": "none", "markersize": 8})
            if len(model.temps) > 1:
                axes.annotate(
                    f"T={temp}",
                    (x, y),
                    (0, 9 if series else -17),
                    textcoords="offset points",
                    ha="center",
                    color=plot.MUTED,
                )
        axes.margins(0.14, 0.24)
        axes.set_xlabel(unit)
        axes.set_ylabel("EM, %")
        plot.legend(canvas, dict(enumerate(model.conditions)), markers_only=True)

    return Figure(
        name,
        plot.draw(name, 3.1, paint),
        f"Exact match against {unit}, per condition and temperature, over the questions that each answered.",
        Table(("Temperature", "Condition", f"#{unit[:1].upper()}{unit[1:]}", "#EM"), tuple(rows)),
    )


def tokens(model: Model, name: str) -> Figure | Paragraph:
    """How long requests and answers are, in the provider's tokens."""
    columns = {"prompt_tokens": "Prompt tokens", "completion_tokens": "Completion tokens"}
    counts = {
        column: [model.answers.tokens.get((condition, column), Counter()) for condition in model.conditions]
        for column in columns
    }
    if not any(any(series) for series in counts.values()):
        return Paragraph("There are no token histograms: no answer came with token counts.")
    edges = {column: _edges(series) for column, series in counts.items()}
    shares = {column: [_histogram(series, edges[column]) for series in several] for column, several in counts.items()}

    def paint(canvas: Canvas) -> None:
        grid = canvas.subplots(1, 2)
        canvas.subplots_adjust(0.09, 0.19, 0.98, 0.8, wspace=0.22)
        for axes, (column, title) in zip(grid, columns.items(), strict=True):
            axes.set_title(title)
            for series, values in enumerate(shares[column]):
                colour = plot.SERIES[series % len(plot.SERIES)]
                dash = plot.DASHES[series % len(plot.DASHES)]
                axes.stairs(values, edges[column], color=colour, linestyle=dash, linewidth=1.4)
            axes.set_xlabel("tokens per request")
            axes.set_ylim(bottom=0)
        grid[0].set_ylabel("% of requests")
        plot.legend(canvas, dict(enumerate(model.conditions)), lines_only=True)

    rows = [
        (
            title,
            _range(edges[column][i], edges[column][i + 1] - 1),
            *(f"{s[i]:.1f}%" for s in shares[column]),
        )
        for column, title in columns.items()
        for i in range(len(edges[column]) - 1)
        if any(series[i] for series in shares[column])
    ]
    return Figure(
        name,
        plot.draw(name, 2.6, paint),
        "Histograms of prompt and completion tokens per condition.",
        Table(("Tokens", "#Number", *(f"#{condition}" for condition in model.conditions)), tuple(rows)),
    )


def _curve(block: Block, side: str) -> Sequence[dict[str, float]]:
    points_: Sequence[dict[str, float]] = block.data["selective_risk"][side]["points"]
    return points_


def _edges(series: Sequence[Counter[int]]) -> npt.NDArray[np.float64]:
    """Whole-number bin edges over all *series*, at most _BINS bins."""
    values = [value for counter in series for value in counter] or [0]
    low, high = min(values), max(values) + 1
    width = math.ceil((high - low) / _BINS)
    return np.arange(low, high + width, width, dtype=np.float64)


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _histogram(counter: Counter[int], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Percent of the values of *counter* in each bin."""
    values, weights = np.array(list(counter.keys()), dtype=float), np.array(list(counter.values()), dtype=float)
    heights: npt.NDArray[np.float64] = 100 * np.histogram(values, edges, weights=weights)[0]
    return heights / max(float(weights.sum()), 1.0)
