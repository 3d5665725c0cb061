"""The ledger: an intent is durable before any call, and no damage makes it say what never happened."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from faulty_disk import ERRORS, FaultyDisk, operations

from pipeline import jsonl, ledger
from pipeline.errors import DiskTrouble, Refused, UnreadableFile
from pipeline.ledger import Ledger
from pipeline.providers.base import Accepted, Binding, Counts, Job, JobPhase, Submission

BINDING = Binding("fireworks", "lab", "https://api.fireworks.ai")
ESTIMATE = {"input_tokens": 10, "output_tokens": 20, "usd": 0.001}
FILES = {"BIJOutputSet.jsonl": {"sha256": "a" * 64, "size": 812}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t0_control_p01" / "ledger.jsonl"


def submission(number, job="tm-r1-a"):
    return Submission(f"{job}{number}", f"{job}{number}-in", f"{job}{number}-out", Path("x"), 4, "lab/m", "r1")


def job(number, state="COMPLETED", phase=JobPhase.COMPLETED, **counts):
    name = f"tm-r1-a{number}"
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(name, state, phase, "lab/m", f"{name}-in", f"{name}-out", "", created, counts=Counts(**counts))


def intend(path, number=1):
    ledger.intend(path, number, submission(number), "d" * 64, BINDING, ESTIMATE)


STORY = [
    intend,
    lambda path: ledger.accept(path, 1, Accepted(job(1, "VALIDATING", JobPhase.RUNNING), adopted=True)),
    lambda path: ledger.observe(path, 1, "RUNNING"),
    lambda path: ledger.end(path, 1, job(1, "EXPIRED", JobPhase.PARTIAL, succeeded=3, failed=1, input_tokens=0)),
    lambda path: ledger.collect(path, 1, FILES, "signed links"),
    lambda path: intend(path, 2),
    lambda path: ledger.accept(path, 2, Accepted(job(2, "PENDING", JobPhase.RUNNING), adopted=False)),
    lambda path: ledger.end(path, 2, job(2, "FAILED", JobPhase.FAILED)),
    lambda path: ledger.lose(path, 2, ["signed links: 404"]),
]


def told(path, events=None):
    for event in STORY[:events]:
        event(path)
    return ledger.read(path)


# --- replay ---------------------------------------------------------------------------------------


def test_a_part_that_asked_for_nothing_has_an_empty_ledger(path):
    assert ledger.read(path) == Ledger()
    assert Ledger().last is None
    assert not path.parent.exists()


def test_an_intent_is_known_with_all_it_takes_to_ask_again(path):
    [attempt] = told(path, 1).attempts
    assert (attempt.job_id, attempt.input_dataset_id, attempt.output_dataset_id) == (
        "tm-r1-a1", "tm-r1-a1-in", "tm-r1-a1-out",
    )  # fmt: skip
    assert (attempt.requests_sha256, attempt.rows, attempt.model) == ("d" * 64, 4, "lab/m")
    assert (attempt.binding, attempt.estimate) == (BINDING, ESTIMATE)
    assert abs(datetime.now(UTC) - attempt.intended_at) < timedelta(minutes=5)
    assert not attempt.accepted
    assert attempt.ended is None
    assert attempt.state is None


def test_each_event_moves_its_attempt_on(path):
    states = [ledger.read(path).last for event in STORY if event(path) is None]
    one, two = ledger.read(path).attempts
    assert [attempt.number for attempt in states] == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert states[1].accepted
    assert states[1].adopted
    assert states[1].accepted_at.tzinfo is not None
    assert [attempt.state for attempt in states[:4]] == [None, "VALIDATING", "RUNNING", "EXPIRED"]
    assert (states[3].ended, dict(states[3].counts)) == (
        JobPhase.PARTIAL, {"succeeded": 3, "failed": 1, "input_tokens": 0},
    )  # fmt: skip
    assert (one.collected, one.collected_by, one.lost) == (FILES, "signed links", ())
    assert (two.ended, two.lost, two.collected) == (JobPhase.FAILED, ("signed links: 404",), None)


def test_results_found_after_all_are_not_lost_any_more(path):
    told(path)
    ledger.collect(path, 2, FILES, "firectl")
    assert ledger.read(path).last.lost == ()
    ledger.lose(path, 2, ["gone again"])
    assert ledger.read(path).last.collected is None


def test_when_a_state_was_seen_and_results_were_missed_is_known_by_the_callers_clock(path):
    first, then = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    told(path)
    ledger.observe(path, 2, "NOT_FOUND", first)
    ledger.miss(path, 2, ["signed links: 404"], then)
    last = ledger.read(path).last
    assert (last.state_at, last.missing_at) == (first, then)
    ledger.lose(path, 2, ["signed links: 404"])
    assert ledger.read(path).last.missing_at is None
    ledger.miss(path, 2, [], then)
    ledger.collect(path, 2, FILES, "firectl")
    assert ledger.read(path).last.missing_at is None


def test_an_attempt_without_an_end_is_open(path):
    for number, event in enumerate(STORY):
        event(path)
        assert ledger.read(path).open is (number in (0, 1, 2, 5, 6))


def test_an_attempt_that_was_seen_was_accepted(path):
    """The line of its acceptance may be damaged; created again it would be paid twice."""
    intend(path)
    ledger.observe(path, 1, "RUNNING")
    assert ledger.read(path).last.accepted


def test_the_service_may_know_the_output_dataset_better(path):
    intend(path)
    ended = job(1)
    ledger.end(path, 1, Job(**{**vars(ended), "output_dataset_id": "its-own-name"}))
    assert ledger.read(path).last.output_dataset_id == "its-own-name"


# --- durable, one line an event -------------------------------------------------------------------


def test_an_event_is_one_synced_line(path):
    first = operations(lambda: intend(path))
    assert first[-3:] == ["write ledger.jsonl", "fsync ledger.jsonl", "fsync_dir t0_control_p01"]
    for event in STORY[1:]:
        assert operations(lambda event=event: event(path))[:2] == ["write ledger.jsonl", "fsync ledger.jsonl"]
    lines = path.read_bytes().splitlines()
    assert len(lines) == len(STORY)
    assert all(jsonl.dumps(jsonl.loads_checked(line)) == line for line in lines)
    assert jsonl.loads(lines[1])["remote_created_at"] == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("error", ERRORS)
def test_an_intent_that_is_not_on_disk_is_an_error(path, error):
    """Nothing may be sent then: the caller never gets past this line."""
    path.parent.mkdir()
    steps = len(operations(lambda: intend(path.parent / "healthy" / "ledger.jsonl")))
    for fail_at in range(steps):
        target = path.parent / str(fail_at) / "ledger.jsonl"
        with FaultyDisk(fail_at, error) as faulty, pytest.raises(DiskTrouble):
            intend(target)
        assert faulty.fired


def test_a_wrong_event_is_never_written(path):
    with pytest.raises(ValueError, match="would write an invalid ledger event"):
        ledger.intend(path, 1, submission("A B"), "d" * 64, BINDING, ESTIMATE)
    with pytest.raises(ValueError, match="would write an invalid ledger event"):
        ledger.intend(path, 0, submission(1), "d" * 64, BINDING, ESTIMATE)
    assert not path.exists()


# --- damage ---------------------------------------------------------------------------------------


def test_a_torn_tail_is_skipped_and_the_next_event_stands_alone(path):
    """A kill in the middle of an append leaves any prefix of the last line."""
    before = told(path, 5)
    whole = path.read_bytes()
    intend(path, 2)
    last = path.read_bytes()[len(whole) :]
    for length in range(1, len(last) - 1):
        path.write_bytes(whole + last[:length])
        torn = ledger.read(path)
        assert (torn.attempts, torn.damaged) == (before.attempts, (6,))
    intend(path, 2)
    mended = ledger.read(path)
    assert [attempt.number for attempt in mended.attempts] == [1, 2]
    assert mended.damaged == (6,)


def test_no_flipped_bit_makes_it_say_what_never_happened(path):
    """A line counts as it was written or not at all; a line end that is gone takes the next line with it."""
    whole = told(path)
    lines = path.read_bytes().splitlines(keepends=True)
    without = {}
    for number in range(len(lines)):
        for gone in ({number}, {number, number + 1}):
            path.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in gone))
            without.setdefault(number, []).append(ledger.read(path).attempts)
    chosen = random.Random(11)
    content = b"".join(lines)
    for _ in range(300):
        place = chosen.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        found = ledger.read(path)
        if found.damaged:
            assert found.attempts in without[content.count(b"\n", 0, place)]
        else:
            assert found == whole  # white space at the end of a line


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{}",
        b'{"event": "intent"}',
        b'{"crc": "00000000"}',
        b"\xff\xfe",
        b"\x00" * 50,
    ],
)
def test_a_line_that_is_not_ours_is_counted_and_skipped(path, line):
    before = told(path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:3], line, *lines[3:]]) + b"\n")
    assert ledger.read(path) == Ledger(before.attempts, (4,))


def test_an_edited_line_is_not_believed(path):
    told(path, 4)
    path.write_bytes(path.read_bytes().replace(b'"succeeded":3', b'"succeeded":4'))
    found = ledger.read(path)
    assert found.damaged == (4,)
    assert found.last.ended is None


def test_lines_in_another_order_or_twice_do_no_harm(path):
    """What one line says needs only its intent before it."""
    told(path)
    lines = path.read_bytes().splitlines(keepends=True)
    chosen = random.Random(5)
    for _ in range(50):
        shuffled = chosen.choices(lines, k=len(lines))
        path.write_bytes(b"".join(shuffled))
        found = ledger.read(path)
        assert {attempt.number for attempt in found.attempts} <= {1, 2}
        assert all(attempt.job_id == f"tm-r1-a{attempt.number}" for attempt in found.attempts)


def test_unreadable_is_not_empty(path):
    """Taken for empty, its jobs would be submitted again."""
    path.mkdir(parents=True)
    with pytest.raises(UnreadableFile):
        ledger.read(path)


# --- whose jobs these are -------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["provider", "account", "endpoint"])
def test_a_ledger_is_only_continued_where_it_began(path, change):
    """With another account's key the run once polled nothing, and submitted everything again."""
    intend(path)
    attempt = ledger.read(path).last
    ledger.check_binding(attempt, BINDING, "ledger")
    with pytest.raises(Refused) as refused:
        ledger.check_binding(attempt, Binding(**{**vars(BINDING), change: "other"}), "ledger")
    assert "was submitted to account 'lab' at https://api.fireworks.ai, but this run now talks to" in str(refused.value)
    assert "Nothing was sent." in str(refused.value)


def test_what_the_earlier_tool_did_not_record_is_no_mismatch(path):
    ledger.intend(path, 1, submission(1), "d" * 64, Binding("fireworks", "", ""), ESTIMATE)
    attempt = ledger.read(path).last
    ledger.check_binding(attempt, BINDING, "ledger")
    with pytest.raises(Refused):
        ledger.check_binding(attempt, Binding("other", "lab", "x"), "ledger")
