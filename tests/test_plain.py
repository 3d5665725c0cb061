"""Text from outside acts nowhere it is shown, and columns line up."""

import pytest

from pipeline import console
from pipeline.plain import columns, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with é, 漢字 and ✓", "plain, with é, 漢字 and ✓"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),  # would rename the terminal's window
        ("over\rwritten", "over\\rwritten"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # would read "exe.png"
        ("soft\xadhyphen zero\u200bwidth", "soft\\xadhyphen zero\\u200bwidth"),
        ("line\u2028separator", "line\\u2028separator"),
        ("\ufeffmark", "\\ufeffmark"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("half \ud800", "half \\ud800"),  # and could not be encoded
        ("👩\u200d🚀 فارسی\u200cها", "👩\u200d🚀 فارسی\u200cها"),  # joiners belong to emoji and scripts
    ],
)
def test_what_would_act_unseen_is_an_escape(text, shown):
    assert visible(text) == shown


def test_all_lines_of_the_terminal_are_made_visible(capsys):
    console.say("an answer: \x1b[2J")
    console.warn("a message: \u202e")
    assert capsys.readouterr() == ("an answer: \\x1b[2J\n", "a message: \\u202e\n")


def test_columns_line_up_and_no_line_ends_in_spaces():
    rows = [("a", "bbb", ""), ("aaa", "b", "the rest")]
    assert list(columns(rows)) == ["a    bbb", "aaa  b    the rest"]
    assert list(columns([])) == []
