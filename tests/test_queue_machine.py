"""Any order of runs, kills, lost replies, waits, jobs that end badly, and damaged files: the promises hold.

P1 under its final name a file is whole; P2 no job id is lost; P3 one job per part and attempt; P4 one
resume brings the golden bytes; P5 a finished run does nothing; P6 every failure is one of our errors
and nothing outside the run changes. And no row that was answered is ever asked again.
"""

import pytest
from emulator_kit import Api
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_kit import CREATE_DATASET, CREATE_JOB, LINKS, STORAGE, UPLOAD, Crash, Lab, Layout

from pipeline import disk, jsonl
from pipeline.errors import Stopped
from pipeline.queue import attempts

LAYOUT = Layout(items=4, models=("m", "n"))
ANY_GET = {"method": "GET"}
CALLS = (CREATE_DATASET, UPLOAD, CREATE_JOB, LINKS, STORAGE, ANY_GET)
REPLIES = (
    {"reset": True},
    {"reset": True, "commit": True},
    {"respond": "html_502", "commit": True},
    {"respond": "unavailable"},
    {"respond": "rate_limited"},
    {"respond": "quota_full"},
)
ENDS = ("EXPIRED", "EARLY_STOPPED", "FAILED", "CANCELLED")
ROWS = ("drop", "error", "conflict", "corrupt", "foreign", "twice", "both", "wrap")
FILES = ("results.jsonl", "ledger.jsonl", "OUTPUT_DATASET_ID.txt", "a1/BIJOutputSet.jsonl", "a1/error-data", "a1", "a2")


class Machine(RuleBasedStateMachine):
    """One run on one emulator; whatever happens to it is a rule."""

    @initialize()
    def begin(self):
        self.lab = Lab(LAYOUT, queue={"max_attempts": 20, "max_concurrent_jobs": 3})
        self.known: set[str] = set()
        self.wrong = -1  # jobs there were when rows were last made wrong
        self.around = self._around()

    def teardown(self):
        if hasattr(self, "lab"):
            self.finish()
            self.lab.__exit__()

    # --- what may happen -----------------------------------------------------------------------------

    @rule()
    def look_once(self):
        self.lab.go(wait=False)

    @rule(at=st.integers(0, 400))
    def die(self, at):
        left = iter(range(at))

        def before(_what):
            if next(left, None) is None:
                raise Crash

        self.lab.before = before
        try:
            self.lab.go()
        except Crash:
            pass
        finally:
            self.lab.before = lambda _what: None

    @rule(looks=st.integers(0, 20))
    def stop(self, looks):
        left = iter(range(looks))

        def check_stop():
            if next(left, None) is None:
                raise Stopped("stopped")

        self.lab.go(check_stop=check_stop)

    @rule(call=st.sampled_from(CALLS), reply=st.sampled_from(REPLIES), skip=st.integers(0, 8), times=st.integers(1, 3))
    def lose_a_reply(self, call, reply, skip, times):
        if reply.get("respond") == "quota_full" and call is not CREATE_JOB:
            return
        self.lab.fault({"call": {**call, "skip": skip, "times": times}, "do": reply})

    @rule(seconds=st.sampled_from([1, 20, 60, 3600, 90000]))
    def wait(self, seconds):
        self.lab.sleep(seconds)

    @rule(state=st.sampled_from(ENDS), at=st.sampled_from([0.0, 0.25, 0.75]))
    def a_job_ends_badly(self, state, at):
        self.lab.fault({"job": {"times": 1}, "do": {"end": {"state": state, "at": at}}})

    @rule(do=st.sampled_from(ROWS), every=st.integers(1, 3))
    @precondition(lambda self: self.wrong < len(self.lab.jobs()))
    def rows_come_wrong(self, do, every):
        """In one job one way: a row that is both answered twice and corrupt once looks like one good answer."""
        self.wrong = len(self.lab.jobs())
        self.lab.fault({"job": {"times": 1}, "do": {"rows": [{"do": do, "pick": {"every": every}, "code": 503}]}})

    @rule(
        part=st.integers(0, 3), name=st.sampled_from(FILES), how=st.sampled_from(["lost", "cut", "edited", "emptied"])
    )
    def a_file_is_damaged(self, part, name, how):
        folders = sorted(self.lab.run.root.glob("*/results/t*/"))
        path = folders[part] / name if part < len(folders) else None
        if path is None or not path.exists():
            return
        if path.is_dir():
            if not list(path.glob("[Be]*")):
                return
            disk.remove_folder(path)
        elif how == "lost":
            path.unlink()
        else:
            data = path.read_bytes()
            middle = len(data) // 2
            path.write_bytes(
                {"cut": data[:middle], "edited": data[:middle] + b"#" + data[middle + 1 :], "emptied": b""}[how]
            )
        if name == "ledger.jsonl":
            self.known.clear()  # what it knew must come back by `finish`

    @rule()
    @precondition(lambda self: self.lab.jobs())
    def finish(self):
        """Faults stop; one resume; everything is as it would have been."""
        self.lab.heal()
        ending = self.lab.go()
        assert ending.done, ending.text
        assert self.lab.artifacts() == _golden()
        self._no_answered_row_was_asked_again()
        calls, changed = len(self.lab.calls()), []
        self.lab.before = changed.append
        assert self.lab.go("submit").done
        assert (len(self.lab.calls()), changed) == (calls, [])
        self.lab.before = lambda _what: None

    # --- what must hold --------------------------------------------------------------------------------

    @invariant()
    def one_job_for_each_part_and_attempt(self):
        if hasattr(self, "lab"):
            names = [attempts.parse(job, attempts.run_prefix("lab")) for job in self.lab.jobs()]
            places = [(name.place, name.attempt) for name in names]
            assert len(set(places)) == len(places), places

    @invariant()
    def no_job_is_forgotten(self):
        if hasattr(self, "lab"):
            now = {attempt.job_id for book in self.lab.ledgers().values() for attempt in book.attempts}
            assert self.known <= now
            self.known |= now

    @invariant()
    def nothing_else_changes_and_no_key_leaks(self):
        if hasattr(self, "lab"):
            assert self._around() == self.around
            assert not [call for call in self.lab.calls() if call["violation"]]

    def _around(self):
        """Everything beside the run's results that could have been written."""
        kept = (
            path for path in self.lab.folder.rglob("*") if "store" not in path.parts and "results" not in path.parts
        )
        return {path: path.read_bytes() for path in kept if path.is_file() and path.name != "queue.lock"}

    def _no_answered_row_was_asked_again(self):
        answered: dict[str, set[str]] = {}
        with Api(self.lab.emulator.url) as api:
            for job in self.lab.jobs():
                place = attempts.parse(job, attempts.run_prefix("lab")).place
                given = answered.setdefault(place, set())
                sent = self.lab.sent(job)
                assert not given & sent, f"{job} asked again for {given & sent}"
                if api.get(f"/datasets/{job}-out").status_code == 200:
                    given |= usable(api.files(f"{job}-out"), sent)


def usable(files, sent):
    """The ids that these files answer, and answer once."""
    answers: dict[str, set[bytes]] = {}
    for line in b"".join(files.values()).splitlines():
        try:
            row = jsonl.loads(line)
        except jsonl.BadJson:
            continue
        response = row.get("response") or {}
        completion = response if "choices" in response else response.get("body")
        if completion:
            answers.setdefault(row["custom_id"], set()).add(jsonl.dumps(completion))
    return {name for name, given in answers.items() if len(given) == 1 and name in sent}


def _golden():
    from queue_kit import golden

    return golden(LAYOUT)


FAST = settings(
    derandomize=True, max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
LONG = settings(FAST, derandomize=False, max_examples=200, stateful_step_count=40)


def test_the_promises_hold_in_any_order():
    run_state_machine_as_test(Machine, settings=FAST)


@pytest.mark.heavy
def test_the_promises_hold_in_any_order_at_length():
    run_state_machine_as_test(Machine, settings=LONG)
