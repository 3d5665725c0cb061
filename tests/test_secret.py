"""A key that reaches a log or a file is found by someone, so `Secret` must not be printable by accident."""

import copy
import json
import logging
import pickle
import traceback

import pytest

from pipeline.secret import Secret

CANARY = "fw_CANARY_6d1f"


@pytest.mark.parametrize(
    "shown",
    [
        str,
        repr,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>20}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - logging formats like this
        lambda secret: str([secret, {"key": secret}]),
        lambda secret: str(ValueError(secret)),
    ],
)
def test_a_secret_prints_as_stars(shown):
    assert CANARY not in shown(Secret(CANARY))
    assert "***" in shown(Secret(CANARY))


def test_logging_shows_stars(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("test").info("key %s, %r", Secret(CANARY), {"k": Secret(CANARY)})
    assert "***" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize("written", [pickle.dumps, json.dumps])
def test_a_secret_cannot_be_written(written):
    with pytest.raises(TypeError) as caught:
        written({"key": Secret(CANARY)})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_only_reveal_gives_the_value_and_copies_keep_it():
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_a_service_that_repeats_the_key_is_masked_but_ordinary_words_are_not():
    assert Secret(CANARY).mask(f"bad key {CANARY}!".encode()) == b"bad key ***!"
    assert Secret("key").mask(b"bad key") == b"bad key"
