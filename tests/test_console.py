"""What is a result goes to standard output, what is not to standard error, and nobody is asked who is not there."""

import io
import json
import os
import sys

import pytest

from pipeline import console
from pipeline.plain import visible


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def typed(monkeypatch):
    """Have *text* typed at a terminal, or piped in where there is none."""

    def type_(text, kind=Terminal):
        monkeypatch.setattr(sys, "stdin", kind(text))

    return type_


def test_results_and_messages_go_different_ways(capsys):
    console.say("a result")
    console.warn("a message")
    assert capsys.readouterr() == ("a result\n", "a message\n")


def test_what_an_encoding_lacks_is_an_escape_and_json_stays_json(monkeypatch):
    """With PYTHONIOENCODING=ascii a name with an umlaut ended in a traceback, when the run had just been made."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    console.show_anything()
    console.say("Grüße 漢")
    console.warn("é")
    value = {"Grüße": "漢 🚀 \x7f \xad"}
    console.say(console.as_json(value, pretty=False))
    said, document = streams[0].buffer.getvalue().decode("ascii").splitlines()
    assert said == r"Gr\xfc\xdfe \u6f22"
    assert json.loads(document) == value
    assert streams[1].buffer.getvalue() == b"\\xe9\n"


def test_json_is_json_whatever_it_holds(capsys):
    """Shown as other text is, a soft hyphen in a run's name made a document that no parser took."""
    value = {"name \xad": ["\x1b[2J \x7f \x85 \ufeff \u202e \u2028 \U000e0041 \t\n", "\\", "é 漢字 👩\u200d🚀 \uffff"]}
    for pretty in (True, False):
        console.say(console.as_json(value, pretty=pretty))
        out = capsys.readouterr().out
        assert json.loads(out) == value
        assert visible(out) == out
        assert "é 漢字 👩\u200d🚀" in out
        assert out.count("\n") == (1 if not pretty else 7)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_utf8_is_json_too(monkeypatch, encoding):
    """A folder named in Latin-1 made each --json end in a traceback, a plain error message among them."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    value = {"path": os.fsdecode(b"caf\xe9/experiment.yaml")}
    console.say(console.as_json(value, pretty=False))
    document = stream.buffer.getvalue().decode("ascii")
    assert document == '{"path":"caf\\udce9/experiment.yaml"}\n'
    assert json.loads(document) == value


@pytest.mark.parametrize(
    ("text", "yes"),
    [("y\n", True), ("YES\n", True), (" yes \n", True), ("\n", False), ("no\n", False), ("yeah\n", False), ("", False)],
)
def test_only_a_clear_yes_is_one(typed, capsys, text, yes):
    typed(text)
    assert console.can_ask()
    assert console.ask("Spend $5?") is yes
    assert capsys.readouterr() == ("", "Spend $5? [y/N] ")


def test_where_nobody_sits_the_answer_is_no_and_nothing_is_asked(typed, capsys):
    typed("y\n", io.StringIO)
    assert not console.can_ask()
    assert not console.ask("Spend $5?")
    assert capsys.readouterr() == ("", "")


def test_a_question_shows_what_would_act_unseen(typed, capsys):
    typed("y\n")
    console.ask("Delete \x1b[2J?")
    assert "\x1b" not in capsys.readouterr().err


def test_a_drawn_line_gives_way_to_what_comes_next(capsys):
    console.draw("3 of 9 parts \x1b[2J" + "x" * 500)
    drawn = capsys.readouterr().out
    assert drawn.startswith("3 of 9 parts \\x1b[2J")
    assert "\n" not in drawn
    console.say("done")
    assert capsys.readouterr().out == "\r\x1b[Kdone\n"
    console.say("more")
    console.draw()
    assert capsys.readouterr().out == "more\n"


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of 40 columns that knows colours."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "40", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    yield lambda: monkeypatch.setattr(sys, "stdout", Terminal()) or sys.stdout  # not before the test's own capture
    console.draw()


def test_several_drawn_lines_are_taken_away_and_none_wraps(terminal):
    stream = terminal()
    console.draw("x" * 100, "second")
    assert [len(line) for line in stream.getvalue().split("\n")] == [39, 6]
    console.say("done")
    assert stream.getvalue().endswith("second\r\x1b[K\x1b[A\x1b[Kdone\n")


def test_a_terminal_shows_colours_unless_it_is_asked_not_to(terminal, monkeypatch):
    terminal()
    assert console.painted("refuse \x1b[2J", console.GOOD) == "\x1b[32mrefuse \\x1b[2J\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[32m" not in console.painted("refuse", console.GOOD)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert console.painted("refuse", console.GOOD) == "refuse"
    assert not console.is_terminal()


def test_where_no_terminal_is_nothing_is_coloured(capsys):
    assert console.painted("better \x1b", console.GOOD) == "better \\x1b"


def test_a_bar_fills_what_room_there_is_and_gives_way_where_there_is_none(terminal):
    terminal()
    assert console.bar("trial  ", 0.5, "  3 of 6").plain == f"trial  {'━' * 12}{'─' * 12}  3 of 6"
    assert (
        console.bar("a very long name of a trial  ", 0.5, "  3 of 6").plain == "a very long name of a trial    3 of 6"
    )


def test_a_last_column_goes_on_below_itself_and_commands_stay_whole(terminal, capsys):
    line = "parse  trial  skip  1,200 rows = 1,200 unique custom_ids of the combined file"
    console.say(line)
    assert capsys.readouterr().out == f"{line}\n"  # no terminal
    stream = terminal()
    console.say(line)
    console.say("Next: doit resume rid=a_name_that_is_long force=report trial='*-default'")
    assert stream.getvalue().splitlines() == [
        "parse  trial  skip  1,200 rows = 1,200",
        " " * 20 + "unique custom_ids of",
        " " * 20 + "the combined file",
        "Next: doit resume rid=a_name_that_is_long force=report trial='*-default'",
    ]
