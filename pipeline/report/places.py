"""Where a number of the report stands: names of treatment, type and temperature, as short as the trial allows."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report.artifacts import Block, Json
from pipeline.report.model import Model
from pipeline.report.verdict import TYPE_NAMES


def suffix(model: Model, treatment: str) -> str:
    """What tells the figures and anchors of a further treatment apart; nothing for the first."""
    return "" if treatment == model.treatments[0] else f"-{treatment}"


def place(model: Model, block: Block) -> str:
    """The type, with the temperature where there are several: "Open-book, T=0.7"."""
    name = TYPE_NAMES[block.type]
    return name if len(model.temps) == 1 else f"{name}, T={block.temp}"


def where(model: Model, block: Block) -> str:
    """`place`, with the treatment before it where there are several."""
    name = place(model, block)
    return name if len(model.treatments) == 1 else f"{block.treatment}: {name}"


def metrics(model: Model) -> Iterator[tuple[Block, str, Json]]:
    """Every metric of every block, in the report's order."""
    for block in model.blocks:
        for name, metric in block.metrics:
            yield block, name, metric
