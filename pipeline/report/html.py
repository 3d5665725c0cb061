"""A report as one HTML page that brings everything along and loads nothing.

Every value is escaped by Jinja2 and made visible on its way out; the only markup that passes is the SVG
of our own figures. The page's content security policy forbids scripts and requests, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.plain import visible
from pipeline.report.blocks import Block, Document, Inline, Line
from pipeline.report.theme import DARK, LIGHT, css

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(document: Document) -> str:
    """*document* as an HTML page."""
    template = _environment().get_template("page.html.j2")
    return template.render(document=document, policy=POLICY, light=css(LIGHT), dark=css(DARK))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {"kind": _kind, "pieces": _pieces, "drawing": Markup}
    environment.filters.update(filters)
    return environment


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kind(block: Block | Inline) -> str:
    return type(block).__name__


def _pieces(line: Line) -> tuple[Inline, ...]:
    return line if isinstance(line, tuple) else (line,)
