"""Text from outside acts nowhere it is shown, and columns line up."""

import pytest

from pipeline import console
from pipeline.plain import columns, readable, visible


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


def test_what_a_service_says_is_shown_on_one_line_without_what_signs_its_links():
    said = r'see https://h/a?sig=SECRET and "https:\/\/h\/b?sig=SECRET", HTTP://H/c#SECRET ' + "\x1b]0;x\n\u202eend"
    shown = readable(said)
    assert shown == r'see https://h/a?... and "https:\/\/h\/b?...", HTTP://H/c?... \x1b]0;x \u202eend'


def test_megabytes_that_a_service_says_take_no_time_and_a_link_that_is_cut_shows_no_signature():
    """A body of nothing but beginnings of links took a minute for 140 kB."""
    assert readable("http://" * 2_000_000).endswith("...")
    for length in range(2_000, 2_500):
        assert "SECRET" not in readable("x" * length + " https://h/a?sig=" + "SECRET" * 9)
        assert "SECRET" not in readable("https://h/" + "a" * length + "?sig=" + "SECRET" * 9)
