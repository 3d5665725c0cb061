"""What is a result goes to standard output, what is not to standard error, and nobody is asked who is not there."""

import io
import sys

import pytest

from pipeline import console


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
    console.draw("")
    assert capsys.readouterr().out == "more\n"
