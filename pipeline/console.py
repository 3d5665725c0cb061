"""Lines for the person at the terminal; the only module that prints.

Text that came from outside (a model's answer, a provider's message) may hold control characters that
move the cursor, hide text or reorder it; they are shown as escapes. Colour says nothing that the words
do not say; it is left out where `NO_COLOR` is set, on a dumb terminal, and where no terminal is.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.plain import INVISIBLE, visible

if TYPE_CHECKING:  # a tenth of a second, for what only a terminal needs
    from rich.console import Console
    from rich.text import Text

QUIET, GOOD, BAD, WARNING, STRONG = "dim", "green", "bold red", "yellow", "bold"
_SHORTEST_BAR, _LONGEST_BAR = 8, 40
_NOT_ASCII = re.compile(r"[^\n -~]")
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")  # between two columns
_NARROW, _LEAST = 40, 20  # columns: no terminal is narrower than the first, no last column than the second

_drawn = 0  # the lines of `draw` that the cursor stands at the end of


def show_anything() -> None:
    """From now on, what the encoding of standard output or error lacks is shown as an escape.

    A name or a path may hold any character, and an encoding of the environment (`PYTHONIOENCODING=ascii`, an old
    locale) must not end a run that has begun.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line on standard output."""
    draw()
    print(folded(visible(text)), flush=True)


def warn(text: str) -> None:
    """A line on standard error: what is not a result."""
    draw()
    with suppress(OSError):  # whose reader has gone; whoever writes there next is told
        sys.stdout.flush()  # what was shown before, comes before
    print(visible(text), file=sys.stderr, flush=True)


def say_no_more() -> None:
    """The reader of standard output has gone, as of `... | head`: Python must not try to write either, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_json(value: Any, *, pretty: bool = True) -> str:
    """*value* as JSON to print, the same value for whoever parses it.

    Our escapes (`\\xad`) mean nothing in JSON, so what would act unseen, or standard output cannot encode, stands
    there as JSON's own (`\\u00ad`). So does half a surrogate pair: a byte in a file's name that is not UTF-8, which
    `jsonl` refuses to write into a file.
    """
    layout: dict[str, Any] = {"indent": 2} if pretty else {"separators": (",", ":")}
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, **layout)
    return (INVISIBLE if is_unicode() else _NOT_ASCII).sub(lambda match: json.dumps(match.group())[1:-1], text)


def draw(*lines: str | Text) -> None:
    """Lines on the terminal that whatever comes next replaces; none: only take those away."""
    global _drawn
    if _drawn:
        print("\r\x1b[K" + "\x1b[A\x1b[K" * (_drawn - 1), end="", flush=True)
    _drawn = len(lines)
    if lines:
        print("\n".join(_fitted(line) for line in lines), end="", flush=True)


def text(words: str, style: str = "") -> Text:
    """*words* for `draw`, in a style of this module."""
    from rich.text import Text

    return Text(visible(words), style)


def bar(before: str, share: float, after: str) -> Text:
    """A bar between two texts, *share* of it filled, as long as the terminal allows; none where it is too narrow."""
    line, end = text(before), text(after)
    room = min(_LONGEST_BAR, _width() - line.cell_len - end.cell_len)
    if room >= _SHORTEST_BAR:
        filled = min(room, int(room * share))
        full, empty = "━─" if is_unicode() else "#-"
        line.append(full * filled, GOOD)
        line.append(empty * (room - filled), QUIET)
    line.append_text(end)
    return line


def packed(pieces: Iterable[str], indent: str) -> list[Text]:
    """*pieces* on as few indented lines as hold them whole, for `draw`: a terminal may be narrow."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(joined := f"{lines[-1]}, {piece}") <= _width():
            lines[-1] = joined
        else:
            lines.append(f"{indent}{piece}")
    return [text(line) for line in lines]


def painted(words: str, style: str) -> str:
    """*words* as standard output shows them in *style*: with colours on a terminal that wants some."""
    return _rendered(text(words, style)) if style and is_terminal() else visible(words)


def folded(line: str) -> str:
    """*line*, whose last column goes on below itself where the terminal is too narrow for it.

    Lines without columns (commands to copy, paths) are left to the terminal.
    """
    if "\n" in line or len(line) <= _NARROW or not is_terminal():
        return line
    indent = max((gap.end() for gap in _GAP.finditer(line)), default=0)
    if not indent:
        return line
    room = _console().width - indent
    if room < _LEAST or len(line) <= _console().width:
        return line
    pieces = textwrap.wrap(line[indent:], room, break_long_words=False, break_on_hyphens=False)
    return line[:indent] + f"\n{' ' * indent}".join(pieces)


def is_terminal() -> bool:
    """Whether standard output is a terminal where a line can be drawn over."""
    return sys.stdout.isatty() and not _console().is_dumb_terminal


def is_unicode() -> bool:
    """Whether standard output can show every character."""
    return (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def ask(question: str) -> bool:
    """Whether the person at the terminal says yes; no when nobody can be asked."""
    if not sys.stdin.isatty():
        return False
    draw()
    print(visible(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Whether somebody sits at the terminal."""
    return sys.stdin.isatty()


def _fitted(line: str | Text) -> str:
    """*line* cut to the terminal's width, rendered: a line that wrapped could not be taken away again."""
    cut = text(line) if isinstance(line, str) else line.copy()
    cut.truncate(_width(), overflow="ellipsis")
    return _rendered(cut)


def _rendered(line: Text) -> str:
    console = _console()
    with console.capture() as captured:
        console.print(line, end="", soft_wrap=True)
    return captured.get()


def _width() -> int:
    """Columns a drawn line may take: one is left, so that the cursor does not move on by itself."""
    return _console().width - 1


def _console() -> Console:
    """What knows the terminal: its width now, its colours, and whether `NO_COLOR` asks for none."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)
