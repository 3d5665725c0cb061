"""Ids are functions of content: the same submission is always called the same, and no other one is."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_trial import CLOSED, OPEN, SmallTrial

from pipeline import paths
from pipeline.queue import attempts

SHA = "a" * 64
MODEL = "accounts/lab/models/m"
ALLOWED = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")  # what the service takes as an id: reference, section on ids
RID = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


def job_id(rid="r1", trial="m-default", part="t0_control_p01", attempt=1, sha=SHA, model=MODEL):
    return attempts.job_id(rid, trial, part, attempt, sha, model)


@given(RID, st.text(min_size=1, max_size=99), st.integers(1, 9999))
@settings(max_examples=200)
def test_every_id_fits_the_service(rid, trial, attempt):
    """63 characters of small letters, digits and dashes; cut at its end a name would lose what makes it differ."""
    name = job_id(rid, trial, attempt=attempt)
    for suffix in ("", "-in", "-out"):
        assert ALLOWED.fullmatch(name + suffix)
    assert name.startswith(attempts.run_prefix(rid))
    assert name.endswith(f"-a{attempt}-{name[-12:]}")


@pytest.mark.parametrize(
    ("rid", "prefix"),
    [
        ("r20260101000000", "tm-r20260101000000-"),
        ("My.Run_7", "tm-my-run-7-"),
        ("0", "tm-0-"),
        ("A--..--B", "tm-a-b-"),
        ("x" * 64, f"tm-{'x' * 24}-"),
        ("x" * 23 + "-y", f"tm-{'x' * 23}-"),
    ],
)
def test_the_runs_name_can_be_recognised(rid, prefix):
    assert paths.is_rid(rid)
    assert attempts.run_prefix(rid) == prefix


def test_the_same_submission_is_always_called_the_same():
    """This very id: a change here would make every running job of every run unknown."""
    assert job_id() == "tm-r1-114bb729-a1-9bea4f205af6"


@pytest.mark.parametrize(
    "other",
    [
        {"rid": "r2"},
        {"rid": "R1"},
        {"trial": "m-other"},
        {"part": "t0_control_p02"},
        {"attempt": 2},
        {"sha": "b" * 64},
        {"model": "accounts/lab/models/n"},
        {"rid": "x" * 40 + "1"},
        {"rid": "x" * 40 + "2"},
    ],
)
def test_any_other_submission_is_called_otherwise(other):
    assert job_id(**other) != job_id()


def test_long_names_that_begin_alike_do_not_share_ids():
    """Ids from the last 8 characters of a run's name collided elsewhere, and old inputs were used."""
    rids = ["x" * 60 + tail for tail in ("a", "b", "ab", "A")]
    names = {job_id(rid, trial, part) for rid, trial, part in itertools.product(rids, ("t", "u"), ("p01", "p02"))}
    assert len(names) == 16
    assert len({attempts.run_prefix(rid) for rid in rids}) == 1


def test_pieces_cannot_be_shifted_into_each_other():
    assert job_id("a", "b-c", "d") != job_id("a", "b", "c-d")
    assert attempts.place_digest("a", "b", "c") != attempts.place_digest("a-b", "", "c")


@given(RID, st.integers(1, 99), st.sampled_from(["", "-in", "-out"]))
def test_an_id_says_whose_it_is(rid, attempt, suffix):
    name = job_id(rid, attempt=attempt)
    found = attempts.parse(name + suffix, attempts.run_prefix(rid))
    assert found == (name, attempts.place_digest(rid, "m-default", "t0_control_p01"), attempt)


@pytest.mark.parametrize(
    "name",
    ["", "tm-r1-", "tm-r1-xyz", "tm-r1-12345678-a1-123", "other", job_id("r1-more"), job_id("r10"), job_id() + "-up"],
)
def test_an_id_of_another_run_is_not_taken_for_ones_own(name):
    """`tm-r1-` also begins the ids of a run called r1-more: its jobs must not be deleted with r1's."""
    assert attempts.parse(name, attempts.run_prefix("r1")) is None


def test_the_number_of_an_attempt_stands_in_its_output():
    assert attempts.number_of(job_id(attempt=12) + "-out") == 12
    assert attempts.number_of("ex-def-t0-con-12345678-p01") == 1


# --- what is sent ---------------------------------------------------------------------------------


@pytest.fixture
def small(quick_path):
    return SmallTrial(quick_path, [OPEN, CLOSED], samples_per_item=3).ready()


def test_a_submission_names_job_and_datasets_after_one_id(small):
    part = small.index.parts[0]
    requests = small.paths.part_requests(part.part)
    found = attempts.submission("r1", small.paths, part, 1, MODEL, requests, part.sha256, part.rows)
    assert found.job_id == job_id("r1", "small-default", part.part, 1, part.sha256)
    assert (found.input_dataset_id, found.output_dataset_id) == (f"{found.job_id}-in", f"{found.job_id}-out")
    assert (found.requests, found.rows, found.model) == (requests, 6, MODEL)
    assert found.display_name == "r1 small-default t0_control_p01 a1"
    assert len(attempts.display_name("x" * 64, small.paths, part, 1)) == 63


def test_a_later_attempt_asks_for_exactly_the_rows_owed_in_their_order(small):
    part = small.index.parts[0]
    lines = small.paths.part_requests(part.part).read_bytes().splitlines(keepends=True)
    ids = attempts.ids_of(small.paths.part_requests(part.part))
    path, written = attempts.write_requests(small.paths, part, 2, {ids[4], ids[1], "foreign"})
    assert path == attempts.requests_of(small.paths, part, 2)
    assert path.read_bytes() == lines[1] + lines[4]
    assert written.size == path.stat().st_size
    assert attempts.ids_of(path) == [ids[1], ids[4]]
    assert attempts.requests_of(small.paths, part, 1) == small.paths.part_requests(part.part)
