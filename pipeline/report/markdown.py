"""A report as Markdown (GitHub's dialect).

Data stand in code spans and fenced blocks whose fences are longer than any run of backticks in them, so
no answer can become markup; our own words are escaped where they hold a character that means something.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from pipeline.plain import visible
from pipeline.report import text
from pipeline.report.blocks import (
    Block,
    Bullets,
    Code,
    Details,
    Document,
    Figure,
    Findings,
    Heading,
    Inline,
    Line,
    Link,
    Note,
    Paragraph,
    Quotation,
    Table,
)

# `<` and `&` only where they would begin a tag or an entity: "p < 0.05" stays readable as plain text.
_MARKUP = re.compile(r"[\\`*_\[\]|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_BACKTICKS = re.compile("`+")


def markdown(document: Document) -> str:
    """*document* as Markdown; figures are linked as `figures/NAME.svg`."""
    return "\n\n".join(_document(document)) + "\n"


def _document(document: Document) -> Iterator[str]:
    yield f"# {_escaped(document.kind)}: {_escaped(document.title)}"
    yield "\n".join(f"- **{_escaped(term)}:** {_line(value)}" for term, value in document.facts)
    for section in document.sections:
        yield f"## {_escaped(section.title)}"
        for block in section.blocks:
            yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph(line, lead):
            yield f"**{_line(line)}**" if lead else _line(line)
        case Heading(title):
            yield f"### {_escaped(title)}"
        case Note(line):
            yield f"> **Note:** {_line(line)}"
        case Bullets(lines):
            yield "\n".join(f"- {_line(line)}" for line in lines)
        case Findings(items):
            yield "\n".join(f"- **{_line(f.label)}: {_escaped(f.verdict)}.** {_line(f.line)}" for f in items)
        case Table():
            yield from _table(block)
        case Quotation():
            yield from _quotation(block)
        case Figure():
            yield f"![{_escaped(block.alt)}](figures/{block.name}.svg)"
            yield from _folded("The figure in numbers", (block.table,))
        case Details(summary, blocks, _):
            yield from _folded(summary, blocks)


def _folded(summary: Line, blocks: tuple[Block, ...]) -> Iterator[str]:
    # The summary is inside an HTML block, where Markdown is not read.
    yield f"<details>\n<summary>{''.join(_html(piece) for piece in _pieces(summary))}</summary>"
    for block in blocks:
        yield from _block(block)
    yield "</details>"


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"*{_escaped(table.caption)}*"
    rule = ("---:" if numeric else "---" for numeric in table.numeric)
    rows = [[_escaped(title) for title in table.titles], list(rule)]
    rows += [[_line(cell, in_table=True) for cell in row] for row in table.rows]
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _quotation(block: Quotation) -> Iterator[str]:
    if block.label:
        yield f"{_line(block.label)}:"
    shown = visible(block.text)
    fence = "`" * max(3, 1 + _longest_run(shown))
    yield f"{fence}text\n{shown}\n{fence}"
    if block.cut_from is not None:
        yield f"*(cut here; {block.cut_from:,} characters in all)*"


def _line(line: Line, *, in_table: bool = False) -> str:
    return "".join(_inline(piece, in_table=in_table) for piece in _pieces(line))


def _pieces(line: Line) -> tuple[Inline, ...]:
    return line if isinstance(line, tuple) else (line,)


def _inline(piece: Inline, *, in_table: bool) -> str:
    match piece:
        case Code(data):
            span = _code(data)
            return span.replace("|", "\\|") if in_table else span
        case Link(words, href):
            return f"[{_escaped(words)}](<{href}>)"
    return _escaped(piece)


def _code(data: str) -> str:
    shown = visible(data).replace("\n", "\\n").replace("\t", "\\t") or text.DASH
    ticks = "`" * (1 + _longest_run(shown))
    padded = shown.startswith(("`", " ")) or shown.endswith(("`", " "))
    return f"{ticks} {shown} {ticks}" if padded else f"{ticks}{shown}{ticks}"


def _html(piece: Inline) -> str:
    shown = html.escape(visible(piece if isinstance(piece, str) else piece.text)).replace("\n", " ")
    return f"<code>{shown}</code>" if isinstance(piece, Code) else shown


def _escaped(words: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", visible(words).replace("\n", " "))


def _longest_run(shown: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(shown)), default=0)
