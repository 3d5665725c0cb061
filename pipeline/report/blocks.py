"""What a report is made of, free of any markup: sections of paragraphs, tables, figures and quotations.

A plain `str` is the tool's own words. Whatever a model, a provider or a question file wrote stands in
`Code` (a short text within a line) or in a `Quotation`, and every writer shows those as the characters
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONG = 24  # rows


@dataclass(frozen=True)
class Code:
    """Data within a line: an id, a digest, a name from outside."""

    text: str


@dataclass(frozen=True)
class Link:
    """A way to another file of the run; *href* is relative and made by us."""

    text: str
    href: str


Inline = str | Code | Link
Line = Inline | tuple[Inline, ...]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; *lead* is the one that opens the report."""

    line: Line
    lead: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list without order."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Note:
    """What a reader must not overlook."""

    line: Line


@dataclass(frozen=True)
class Finding:
    """One judgement: what was compared, the verdict in a word or two, and the sentence behind it.

    *tone* is good, bad or open; it colours the verdict and never says anything the words do not.
    """

    label: Line
    verdict: str
    tone: str
    line: Line


@dataclass(frozen=True)
class Findings:
    """The judgements a report opens with."""

    items: tuple[Finding, ...]


@dataclass(frozen=True)
class Table:
    """Rows under *columns*; a column whose title starts with `#` holds numbers (the sign is not shown).

    The cells of one that *wraps* may take several lines.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]
    caption: str = ""
    wraps: bool = False

    @property
    def titles(self) -> tuple[str, ...]:
        """The column titles as shown."""
        return tuple(column.removeprefix("#") for column in self.columns)

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        return tuple(column.startswith("#") for column in self.columns)


@dataclass(frozen=True)
class Quotation:
    """Text as it was sent or received, line for line; *cut_from* is its full length when it was cut."""

    text: str
    label: Line = ""
    cut_from: int | None = None


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows in words (*alt*) and in numbers (*table*)."""

    name: str
    svg: str
    alt: str
    table: Table


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until somebody asks; on paper only *printed* ones unfold by themselves."""

    summary: Line
    blocks: tuple[Block, ...]
    printed: bool = False


Block = Paragraph | Heading | Bullets | Note | Findings | Table | Quotation | Figure | Details


@dataclass(frozen=True)
class Section:
    """A section; *anchor* is its fragment in the HTML page."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report. *facts* are shown below the title, as term and value."""

    kind: str
    title: str
    facts: tuple[tuple[str, Line], ...]
    sections: tuple[Section, ...]


def folded(table: Table, what: str) -> Table | Details:
    """*table*, folded away on a screen when it is so long that it would bury what follows."""
    return table if len(table.rows) <= _LONG else Details(f"{what}: {len(table.rows)} rows", (table,), printed=True)


def figures(blocks: Sequence[Block]) -> list[Figure]:
    """The figures in *blocks*, also in folded ones, in order."""
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Details):
            found += figures(block.blocks)
    return found
