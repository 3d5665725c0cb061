"""The repair ladder: results that are missing or damaged come home by the first rung that has them.

If one of these failed, rows that were paid for would be thrown away, or paid for again while they
were still to be had; or rows of something else would count as results.
"""

import os
import resource
import stat
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from emulator_kit import Api
from queue_kit import CREATE_JOB, JOB, LINKS, POLL, SMALL, STORAGE, TEN_ROWS, Lab, golden, lines, part_of

from pipeline import config_checks
from pipeline.errors import EXIT_NOT_READY, AuthError, ProviderError, Stopped
from pipeline.fingerprints import Fingerprints
from pipeline.providers.rows import read_row
from pipeline.queue.recovery import Ladder, ResultsLost

CONTROL = "t0_control_p01"
UNLISTED = {"name": "unlisted", "call": {**LINKS, "times": None}, "do": {"respond": "not_found"}}
GONE = {"name": "gone", "call": {"method": "GET", "path": "-out(:.*)?$", "times": None}, "do": {"respond": "not_found"}}
NO_KEY = {"respond": {"status": 404, "text": "<Error><Code>NoSuchKey</Code></Error>"}}
DEAD = {"name": "dead", "call": {**STORAGE, "times": None}, "do": {"respond": {"status": 403, "text": "no"}}}


def by(lab, part=f"m-p/{CONTROL}"):
    """Which rung brought each attempt's files."""
    return [attempt.collected_by for attempt in lab.ledgers()[part].attempts]


def forget_results(lab, *, raw):
    """Remove the control part's results, and its raw files too where *raw* says so."""
    folder = part_of(lab, "control")
    (folder / "results.jsonl").unlink()
    if raw:
        for path in (folder / "a1").iterdir():
            path.unlink()
    return folder


def test_raw_files_that_are_still_here_are_enough():
    with Lab() as lab:
        assert lab.go().done
        forget_results(lab, raw=False)
        calls = len(lab.calls())
        lab.emulator.stop()  # not even reachable
        assert lab.go().done
        assert len(lab.calls()) == calls
        lab.check()


def test_raw_files_of_all_attempts_are_enough_without_ledger_key_or_network():
    expires = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}
    with Lab(SMALL, expires) as lab:
        assert lab.go().done
        forget_results(lab, raw=False)
        (part_of(lab, "control") / "ledger.jsonl").unlink()
        lab.emulator.stop()
        assert lab.go().done
        assert lab.artifacts() == golden(SMALL)


@pytest.mark.parametrize("crashed_at", ["BIJOutputSet.jsonl", "error-data"])
def test_raw_files_without_a_record_count_when_they_hold_all_that_was_answered(crashed_at):
    """A kill between the last rename and the ledger's line must not make the files worthless."""
    with Lab() as lab:
        assert lab.go().done
        folder = forget_results(lab, raw=False)
        book = folder / "ledger.jsonl"
        book.write_bytes(b"".join(line for line in lines(book) if b'"collected"' not in line))
        if crashed_at == "error-data":  # it had been moved last, and was not
            (folder / "a1" / "error-data").unlink()
        lab.fault(GONE)
        assert lab.go().done
        assert by(lab) == ["raw files"]
        lab.check()


def test_missing_raw_files_come_by_fresh_links():
    with Lab() as lab:
        assert lab.go().done
        forget_results(lab, raw=True)
        assert lab.go().done
        assert by(lab)[0].startswith("signed links of tm-lab-")
        lab.check()


@pytest.mark.parametrize("how", ["edited", "cut", "emptied"])
def test_a_raw_file_that_is_not_what_was_recorded_is_kept_aside_and_fetched_again(how):
    with Lab() as lab:
        assert lab.go().done
        folder = forget_results(lab, raw=False)
        raw = folder / "a1" / "BIJOutputSet.jsonl"
        data = raw.read_bytes()
        broken = {"edited": data.replace(b"Ada", b"Eve"), "cut": data[:-9], "emptied": b""}[how]
        assert broken != data
        raw.write_bytes(broken)
        ending = lab.go()
        assert ending.done
        (aside,) = (folder / "a1").glob("BIJOutputSet.jsonl.damaged.*")
        assert aside.read_bytes() == broken
        assert f"m-p/{CONTROL}: BIJOutputSet.jsonl: not what was recorded; kept as {aside.name}" in ending.said
        lab.check()


def test_results_that_nobody_has_any_more_are_asked_for_once_more():
    """The whole ladder without success: the rows are owed again, and each rung is named."""
    with Lab(SMALL, GONE) as lab:
        lab.go("submit")
        lab.sleep(600)
        ending = lab.look_twice()
        (lost,) = [line for line in ending.said if "control" in line and "lost" in line]
        assert "signed links of tm-lab-" in lost
        assert "the provider has no such dataset" in lost
        assert "externalUrl of tm-lab-" in lost
        lab.heal()
        assert lab.go().done
        assert [attempt.rows for attempt in lab.ledgers()[f"m-p/{CONTROL}"].attempts] == [2, 2]
        lab.check(jobs=4)


@pytest.mark.parametrize("external", ["", None, "gs://bucket/file.jsonl", "http://10.0.0.7/x", "https://localhost/x"])
def test_an_external_url_that_may_not_be_followed_is_named(external):
    drop = {"rows": [{"pick": {"every": 5}, "do": "drop"}], "external_url": external}
    with Lab(TEN_ROWS, {"job": {"id": "-a1-", "times": None}, "do": drop}) as lab:
        ending = lab.go()
        assert ending.done
        (said,) = [line for line in ending.said if "control" in line and "externalUrl of tm-lab-" in line]
        assert "it is not an http(s) link" in said if external == "gs://bucket/file.jsonl" else True
        assert "was not followed" in said if external and external.startswith("http") else True
        lab.check(jobs=4)


@pytest.mark.parametrize("what", ["no files", "no answers"])
@pytest.mark.parametrize("wait", [True, False])
def test_results_that_are_missing_in_one_look_are_not_paid_for_twice(what, wait):
    """History: one 404, or one list without the file of the answers, led to a second job."""
    with Lab(SMALL) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        lab.sleep(600)
        dataset = f"{lab.jobs()[0]}-out"
        errors = {name: url for name, url in api.links(dataset).items() if "error" in name}
        if what == "no files":  # nor their dataset, in the three questions of one look
            call, do = {"path": f"{dataset}(:getDownloadEndpoint)?$", "times": 3}, {"respond": "not_found"}
        else:
            call, do = {**LINKS, "times": 1}, {"edit": {"set": {"filenameToSignedUrls": errors}}}
        lab.fault({"call": {"method": "GET", **call}, "do": do})
        ending = lab.go("download", wait=wait)
        assert lab.fired() == [call["times"]]
        assert ending.done is wait
        if not wait:
            assert ending.error.exit_code == EXIT_NOT_READY
            assert not lab.go("download", wait=False).done  # no pause has passed
            lab.sleep(POLL)
            assert lab.go("download", wait=False).done
        lab.check()


def test_a_cut_raw_file_of_a_job_nobody_knows_any_more_is_fetched_again():
    """History: without the job's counts, half a file was as good as a whole one: its rows were paid for again."""
    with Lab(TEN_ROWS) as lab, Api(lab.emulator.url) as api:
        assert lab.go().done
        assert api.delete(f"/batchInferenceJobs/{lab.jobs()[0]}").status_code == 200
        lab.sleep(600)
        folder = forget_results(lab, raw=False)
        (folder / "ledger.jsonl").unlink()
        raw = folder / "a1" / "BIJOutputSet.jsonl"
        raw.write_bytes(b"".join(lines(raw)[:5]))
        assert lab.go().done
        assert by(lab)[0].startswith("signed links of tm-lab-")
        lab.check()


def test_the_breadcrumb_knows_the_output_when_ledger_and_job_are_gone():
    own = {"call": {**CREATE_JOB, "times": None}, "do": {"own_output": True}}
    with Lab(SMALL, own) as lab, Api(lab.emulator.url) as api:
        assert lab.go().done
        assert api.delete(f"/batchInferenceJobs/{lab.jobs()[0]}").status_code == 200
        lab.sleep(600)
        folder = forget_results(lab, raw=True)
        (folder / "ledger.jsonl").unlink()
        name = (folder / "OUTPUT_DATASET_ID.txt").read_text().strip()
        (folder / "OUTPUT_DATASET_ID.txt").write_text(f"accounts/emulator/datasets/{name}\n\ufffd#\n")
        assert lab.go().done
        assert by(lab) == [f"signed links of {name}"]
        lab.check()


@pytest.mark.parametrize("floor", [0.0, 90.0])
def test_two_looks_are_as_far_apart_as_the_services_own_steps_however_often_it_is_polled(floor):
    with Lab(SMALL, GONE) as lab:
        lab.poll = 1.0
        lab.go("submit")
        lab.sleep(600)
        for seconds, lost in ((2, not floor), (60, not floor), (60, True)):
            lab.go("download", wait=False, second_look_seconds=floor)
            lab.sleep(seconds)
            lab.go("download", wait=False, second_look_seconds=floor)
            assert any(attempt.lost for book in lab.ledgers().values() for attempt in book.attempts) is lost


def test_an_external_url_of_the_provider_itself_is_followed():
    with Lab(SMALL, UNLISTED, {"job": {"times": None}, "do": {"external_url": "serve"}}) as lab:
        assert lab.go().done
        assert by(lab)[0].startswith("externalUrl of tm-lab-")
        assert lab.fired()[0] > 0
        lab.check()


def test_no_external_url_is_tried_where_the_config_forbids_it():
    serve = {"job": {"times": None}, "do": {"external_url": "serve"}}
    with Lab(SMALL, UNLISTED, serve, repair={"external_url": False}) as lab:
        assert not lab.go().done
        assert lab.fired()[0] > 0
        assert not lab.calls("GET", "/external/")


def test_results_that_are_not_listed_although_their_dataset_is_there_are_not_lost():
    """History: links that the service did not know for an hour cost a second job."""
    with Lab(SMALL, UNLISTED) as lab:
        ending = lab.go()
        assert ending.error.exit_code == EXIT_NOT_READY
        assert "-out is there, but the service knows no files of it" in str(ending.error)
        assert lab.fired()[0] > 1
        lab.heal()
        assert lab.go().done
        lab.check()


@pytest.mark.parametrize(
    "fault",
    [
        {"call": {**STORAGE, "times": 1}, "do": {"respond": "link_expired"}},
        {"call": {**STORAGE, "skip": 1, "times": 1}, "do": {"respond": "link_expired"}},
        {"call": {**STORAGE, "times": 1}, "do": {"respond": {"status": 401, "text": "no"}}},
        {"call": {**STORAGE, "times": 1}, "do": {"damage": {"how": "close"}}},
        {"call": {**STORAGE, "times": 1}, "do": {"damage": {"how": "reset"}}},
        {"call": {**STORAGE, "times": 1}, "do": {"reset": True}},
        {"call": {**LINKS, "times": 1}, "do": {"edit": {"set": {"filenameToSignedUrls": {}}}}},
        {"call": {**LINKS, "times": 2}, "do": {"respond": "html_502"}},
    ],
    ids=["expired", "second-expired", "401", "cut", "reset-midway", "reset", "empty-map", "bad-gateway"],
)
def test_a_download_that_fails_once_is_repeated_with_fresh_links(fault):
    with Lab(SMALL, fault) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert lab.fired() == [fault["call"]["times"]]
        assert not list(lab.run.root.rglob(".incoming"))
        assert not list(lab.run.root.rglob("*.tmp"))
        lab.check()


def test_results_that_cannot_be_had_now_are_not_lost():
    """Storage that refuses for hours says nothing about the rows: nothing is asked again, the next run goes on."""
    with Lab(SMALL, DEAD) as lab:
        ending = lab.go()
        assert ending.error.exit_code == EXIT_NOT_READY
        assert "storage answered 403" in str(ending.error)
        assert lab.fired()[0] > 1
        assert not any(attempt.lost for book in lab.ledgers().values() for attempt in book.attempts)
        assert len(lab.jobs()) == 2
        lab.heal()
        assert lab.go().done
        lab.check()


def test_a_file_of_errors_that_never_comes_is_not_waited_for_where_every_row_is_answered():
    """Its twin arrived whole and was thrown away each time, for ever."""
    with Lab(SMALL) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        store = lab.emulator.service.store
        files = [file for job in lab.jobs() for file in store.dataset(f"{job}-out").files if "error" in file.name]
        for file in files:
            lab.fault({"call": {**STORAGE, "path": f"^/storage/.*{file.object_id}", "times": None}, "do": NO_KEY})
        ending = lab.go("download")
        assert ending.done, ending.text
        assert len(files) == 2
        assert all(fired == 7 for fired in lab.fired())
        assert "storage answered 404" in ending.text
        lab.check()


def test_of_a_job_whose_counts_are_behind_a_file_that_does_not_come_is_waited_for():
    """Taken for whole by the job's own counts, its answers in the other file were asked again."""
    ends = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.8}}}
    counts = {"jobProgress.successfullyProcessedRequests": 5, "jobProgress.failedRequests": 0}
    behind = {"call": {"method": "GET", "path": f"{JOB}/[^/]*-a1-", "times": None}, "do": {"edit": {"set": counts}}}
    with Lab(TEN_ROWS, ends, behind) as lab:
        assert lab.go("submit").done
        lab.sleep(600)
        store = lab.emulator.service.store
        for job in lab.jobs():
            first, second = sorted(store.dataset(f"{job}-out").files, key=lambda file: file.name)
            rows = lines(store.object_path(first.object_id))
            store.object_path(first.object_id).write_bytes(b"".join(rows[:5]))
            store.object_path(second.object_id).write_bytes(b"".join(rows[5:]))
            call = {**STORAGE, "path": f"^/storage/.*{second.object_id}", "times": 12}
            lab.fault({"call": call, "do": {"respond": "unavailable"}})
        ending = lab.go("download")
        assert ending.done, ending.text
        assert lab.fired()[2:] == [12, 12]
        assert [[attempt.rows for attempt in book.attempts] for book in lab.ledgers().values()] == [[10, 2], [10, 2]]


@pytest.mark.parametrize("status", [400, 402, 405, 412])
def test_a_refusal_to_list_the_files_is_not_their_absence(status):
    """Only 404 means gone. An unpaid account (402, 412) must not lead to paying again."""
    refusal = {
        "call": {**LINKS, "times": None},
        "do": {"respond": {"status": status, "json": {"message": "pay first"}}},
    }
    with Lab(SMALL, refusal) as lab:
        ending = lab.go()
        assert isinstance(ending.error, ProviderError)
        assert "pay first" in str(ending.error)
        assert lab.fired()[0] > 0
        lab.heal()
        assert lab.go().done
        lab.check()


def test_a_key_that_is_revoked_at_the_download_stops_at_once_and_loses_nothing():
    revoked = {"call": {**LINKS, "times": None}, "do": {"respond": "key_revoked"}}
    with Lab(SMALL, revoked) as lab:
        ending = lab.go()
        assert isinstance(ending.error, AuthError)
        assert not any(attempt.lost for book in lab.ledgers().values() for attempt in book.attempts)
        lab.heal()
        assert lab.go().done
        lab.check()


def test_rows_of_another_dataset_are_not_taken_for_results():
    """An externalUrl (or firectl) that serves something else has as many rows as were promised, and none of ours."""
    with Lab(SMALL) as lab:
        lab.go("submit")
        lab.sleep(600)
        control, treatment = (f"{job}-out" for job in lab.jobs())
        lab.fault(
            {
                "call": {"method": "GET", "path": f"{control}:getDownloadEndpoint$", "times": None},
                "do": {"respond": "not_found"},
            },
            {
                "call": {"method": "GET", "path": f"{control}$", "times": None},
                "do": {"edit": {"set": {"externalUrl": lab.emulator.service.links.external(treatment)}}},
            },
        )
        assert not lab.go("download", wait=False).done
        assert all(lab.fired())
        assert not (part_of(lab, "control") / "results.jsonl").exists()
        lab.heal()
        assert lab.go().done
        lab.check()


def test_rows_that_stay_behind_the_providers_count_are_asked_again_and_the_others_kept():
    """The job counted a row that is in no file: all rungs are tried, then only that row is asked again."""
    drop = {"job": {"id": ".*", "times": 1}, "do": {"rows": [{"pick": {"every": 5, "offset": 1}, "do": "drop"}]}}
    with Lab(TEN_ROWS, drop) as lab:
        ending = lab.go()
        assert ending.done, ending.text
        assert any("8 of 10 answered rows arrived" in line for line in ending.said)
        assert [attempt.rows for attempt in lab.ledgers()[f"m-p/{CONTROL}"].attempts] == [10, 2]
        assert by(lab)[0] == "what could be had"
        lab.check(jobs=3)


def test_a_second_look_that_brings_less_does_not_replace_what_the_first_one_brought():
    drop = {"job": {"times": 1}, "do": {"rows": [{"pick": {"every": 5}, "do": "drop"}]}}
    with Lab(TEN_ROWS, drop) as lab, Api(lab.emulator.url) as api:
        lab.go("submit")
        lab.sleep(600)
        assert not lab.go("download", wait=False).done
        dataset = f"{lab.jobs()[0]}-out"
        errors = {name: url for name, url in api.links(dataset).items() if "error" in name}
        path = f"{dataset}:getDownloadEndpoint$"
        lab.fault({"call": {**LINKS, "path": path}, "do": {"edit": {"set": {"filenameToSignedUrls": errors}}}})
        lab.sleep(POLL)
        assert lab.go().done
        assert lab.fired()[1] > 0
        assert [attempt.rows for attempt in lab.ledgers()[f"m-p/{CONTROL}"].attempts] == [10, 2]
        lab.check(jobs=3)


# --- firectl -----------------------------------------------------------------------------------------


def firectl(lab, body):
    """A fake firectl on disk: *body* gets `words`, `dataset` and `folder`, and says what it was called with."""
    script = lab.folder / "firectl"
    text = f"""\
        #!{sys.executable}
        import pathlib, sys, time, json, shutil
        here = pathlib.Path({str(lab.folder)!r})
        words, dataset = sys.argv[1:3], sys.argv[3]
        assert sys.argv[4] == "--output-dir"
        folder = pathlib.Path(sys.argv[5]) / "dataset" / dataset
        with open(here / "called", "a") as log:
            log.write(" ".join(words) + "\\n")
        """
    script.write_text(textwrap.dedent(text) + textwrap.dedent(body))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return [str(script)]


COPY = """
        folder.mkdir(parents=True)
        shutil.copytree(here / "kept", folder, dirs_exist_ok=True)
        """


@pytest.fixture
def stranded():
    """A finished run whose raw files and output datasets are gone; the control part's rows are in `kept/`."""
    with Lab() as lab:
        assert lab.go().done
        folder = part_of(lab, "control")
        (folder / "results.jsonl").unlink()
        (folder / "a1").rename(lab.folder / "kept")
        lab.fault(GONE)
        yield lab


def called(lab):
    return (lab.folder / "called").read_text().splitlines()


def test_firectl_brings_what_links_no_longer_do(stranded):
    stranded.change(repair={"firectl": firectl(stranded, COPY)})
    assert stranded.go().done
    assert called(stranded) == ["dataset download"]
    assert by(stranded)[0].startswith("firectl tm-lab-")
    stranded.check()


def test_firectl_is_tried_with_its_old_order_of_words_too(stranded):
    old = 'if words != ["download", "dataset"]:\n    sys.exit("unknown command dataset")\n'
    stranded.change(repair={"firectl": firectl(stranded, old + textwrap.dedent(COPY))})
    assert stranded.go().done
    assert called(stranded) == ["dataset download", "download dataset"]
    stranded.check()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "sys.exit('no such dataset, see https://host/x?sig=SECRET')",
            "exit code 1, no such dataset, see https://host/x",
        ),
        ("", "exit code 0"),
        ("folder.mkdir(parents=True); (folder / 'page.html').write_text('<html>')", "0 of 2 answered rows arrived"),
        ("folder.mkdir(parents=True); (folder / 'x.jsonl').symlink_to('/etc/passwd')", "exit code 0"),
    ],
    ids=["fails", "leaves nothing", "leaves a page", "leaves a link"],
)
def test_a_firectl_that_does_not_help_is_named_and_the_rows_are_asked_again(stranded, body, said):
    stranded.change(repair={"firectl": firectl(stranded, body)})
    ending = stranded.look_twice()
    (lost,) = [line for line in ending.said if "are lost" in line]
    assert said in lost
    assert "SECRET" not in ending.text
    stranded.heal()
    assert stranded.go().done
    stranded.check(jobs=3)


def test_a_firectl_that_is_not_installed_is_said_so(stranded):
    stranded.change(repair={"firectl": ["/nowhere/firectl"]})
    ending = stranded.look_twice()
    assert "/nowhere/firectl cannot be started (No such file or directory)" in ending.text
    stranded.heal()
    assert stranded.go().done
    stranded.check(jobs=3)


def _says(path, text):
    with suppress(OSError):  # it may end while we look
        return text.encode() in path.read_bytes()
    return False


@contextmanager
def nobody_types():
    """A terminal at which nobody sits."""
    before = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        for descriptor in (before, reading, writing):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit(f'asked: {sys.stdin.read(1)!r}')", "exit code 1, asked: ''"),
        ("sys.stdout.write('x' * 300_000_000)", "exit code 0"),
        ("sys.stderr.write('y' * 3_000_000 + '\\nthe end'); sys.exit(3)", "exit code 3, the end"),
        ("import subprocess; subprocess.Popen(['sh', '-c', 'sleep 77; :', str(here)])", "exit code 0"),
    ],
    ids=["asks", "prints", "complains", "leaves a child"],
)
def test_a_firectl_is_not_listened_to_for_ever(stranded, body, said):
    """History: it could ask at the terminal, and all that it printed was held in memory."""
    command = firectl(stranded, body)
    ladder = Ladder(stranded.client, read_row, Fingerprints(stranded.run.root), False, command, firectl_seconds=20)
    attempt = stranded.ledgers()[f"m-p/{CONTROL}"].last
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with nobody_types(), pytest.raises(ResultsLost) as lost:
        ladder.climb(stranded.run.trial("m-p").part(CONTROL), attempt, stranded.asked(f"m-p/{CONTROL}", 1))
    assert said in lost.value.tried[-1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 100_000  # kB
    for _ in range(100):  # what was killed is gone a moment later
        running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, str(stranded.folder))]
        if not running:
            break
        time.sleep(0.05)
    assert not running


def test_a_firectl_that_does_not_end_is_killed_and_said_so(stranded):
    command = firectl(stranded, "time.sleep(60)")
    attempt = stranded.ledgers()[f"m-p/{CONTROL}"].last
    paths = stranded.run.trial("m-p").part(CONTROL)
    ladder = Ladder(stranded.client, read_row, Fingerprints(stranded.run.root), False, command, firectl_seconds=0.5)
    with pytest.raises(ResultsLost) as lost:
        ladder.climb(paths, attempt, stranded.asked(f"m-p/{CONTROL}", 1))
    assert lost.value.tried[-1].endswith(
        "dataset download: ended after 0.5 s without an end; download dataset: ended after 0.5 s without an end"
    )
    assert called(stranded) == ["dataset download", "download dataset"]


def test_a_stop_request_ends_a_firectl(stranded):
    """It was waited for, for up to two hours."""
    command = firectl(stranded, "time.sleep(60)")
    attempt = stranded.ledgers()[f"m-p/{CONTROL}"].last
    paths = stranded.run.trial("m-p").part(CONTROL)

    def check_stop():
        if (stranded.folder / "called").exists():
            raise Stopped("the user asked to stop.")

    ladder = Ladder(stranded.client, read_row, Fingerprints(stranded.run.root), False, command, check_stop=check_stop)
    with pytest.raises(Stopped):
        ladder.climb(paths, attempt, stranded.asked(f"m-p/{CONTROL}", 1))
    assert called(stranded) == ["dataset download"]


@pytest.mark.parametrize("key", ["its environment's", "--api-key", "--api-key="])
def test_a_key_that_firectl_repeats_is_neither_shown_nor_kept(stranded, monkeypatch, key):
    """A new config cannot hold one; an older run's goes on as it was recorded."""
    monkeypatch.setattr(config_checks, "keys", lambda _values: ())
    secret = "canary-7f3a9c51e2"
    script = stranded.folder / "firectl"
    script.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('Error: API key {secret} is not valid')\n")
    script.chmod(0o755)
    command = [str(script)]
    if key.startswith("--"):
        command += [key, secret] if key[-1] != "=" else [key + secret]
    else:
        monkeypatch.setenv("FIREWORKS_API_KEY", secret)
    stranded.change(repair={"firectl": command})
    said = stranded.look_twice().text
    assert "API key *** is not valid" in said
    assert secret not in said
    ledgers = [path.read_bytes() for path in stranded.run.root.rglob("ledger.jsonl")]
    assert any(b"API key *** is not valid" in ledger for ledger in ledgers)
    assert not any(secret.encode() in ledger for ledger in ledgers)


# --- secrets -------------------------------------------------------------------------------------------


def test_neither_key_nor_signature_is_ever_written_or_said():
    """A key that no text holds by chance, and faults that make everything be told."""
    key = "canary-7f3a9c51e2"
    echo = {"status": 400, "json": {"message": f"bad request with Bearer {key}"}}
    faults = [
        {"call": {**STORAGE, "times": 2}, "do": {"respond": "link_expired"}},
        {"call": {**STORAGE, "skip": 2, "times": 1}, "do": {"damage": {"how": "reset"}}},
        {"call": {"method": "POST", "times": 1}, "do": {"reset": True}},
        {"call": {**LINKS, "skip": 1, "times": 1}, "do": {"respond": echo}},
    ]
    with Lab(SMALL, *faults, emulator={"api_key": key}) as lab:
        lab.key = key
        said = lab.go().text
        lab.heal()
        lab.fault(DEAD)
        said += lab.go().text
        lab.heal()
        ending = lab.go()
        assert ending.done
        said += ending.text
        assert "storage answered" in said
        assert "bad request with Bearer ***" in said
        written = {path: path.read_bytes() for path in lab.run.root.rglob("*") if path.is_file()}
        for hidden in (key, "X-Goog-", "Bearer canary"):
            assert hidden not in said
            assert [path for path, data in written.items() if hidden.encode() in data] == []
        lab.check()
