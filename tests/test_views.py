"""What the command line shows of runs is what is there, and showing it changes nothing."""

import json
import os
import shutil

import pytest
import session_kit
from faulty_disk import operations
from ruamel.yaml import YAML
from small_trial import CLOSED, OPEN, settings

from pipeline import disk, done, graph, jsonl, ledger, opening, request, sealed, views
from pipeline.errors import PhaseEnd, UnknownRun, UsageError
from pipeline.paths import RunPaths
from pipeline.providers.base import Accepted, Binding, Job, JobPhase, Submission

RUN = RunPaths.of("r1")
TRIAL = RUN.trial("small-default")


@pytest.fixture
def folder(quick_path, monkeypatch):
    """A folder with one run that has been built, where commands are said."""
    (quick_path / "quiz.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (OPEN, CLOSED)))
    with open(quick_path / "experiment.yaml", "w") as stream:
        YAML(typ="safe").dump(settings(provider="fireworks", name="Ours"), stream)
    monkeypatch.chdir(quick_path)
    return quick_path


@pytest.fixture
def built(folder):
    assert session_kit.go("r1", ("prepare", "build"), may_create=True, config="experiment.yaml").errors == {}
    return folder


def look(view, *words, **asked):
    """What *view* gives for run r1; it may not write anything."""
    found = []

    def ask():
        opened = opening.for_reading(request.parse({"rid": "r1", **asked}), print)
        found.append(view(opened, *words))
        opened.close()

    assert operations(ask) == []
    return found[0]


def lines(text):
    return "\n".join(text)


# --- runs -----------------------------------------------------------------------------------------


def test_where_there_is_no_run_it_says_what_starts_one(folder):
    assert views.runs() == []
    assert "no runs yet" in lines(views.runs_text([]))
    assert not (folder / "experiments").exists()


def test_a_file_where_the_folder_of_the_runs_belongs_is_not_called_no_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert views.runs() == []
    (tmp_path / "experiments").touch()
    with pytest.raises(UnknownRun, match="a file stands where the folder of the runs belongs"):
        views.runs()


def test_runs_are_listed_newest_first_with_what_tells_them_apart(built):
    shutil.copytree(RUN.root, RUN.root.with_name("run_r0"))
    newer = RunPaths.of("r0")
    document = jsonl.loads(newer.record.read_bytes())
    newer.record.write_bytes(
        jsonl.dumps_pretty(sealed.sealed({**document, "rid": "r0", "created_at": "2999-01-01T00:00:00Z"}))
    )
    found = views.runs()
    assert [run["rid"] for run in found] == ["r0", "r1"]
    assert (
        found[1] | {"name": "Ours", "provider": "fireworks", "trials": ["small-default"], "trouble": None} == found[1]
    )
    assert found[1]["folder"] == "experiments/run_r1"
    text = lines(views.runs_text(found))
    assert text.index("r0") < text.index("r1")
    assert "Ours" in text
    assert "1 trial" in text


def test_a_run_that_nothing_can_mend_is_not_promised_to_be(built):
    """The list sent people to `doit resume`, which then asked them for the config."""
    RUN.record.write_bytes(b"{}")
    RUN.config.unlink()
    [found] = views.runs()
    assert found["trouble"] == "its record is damaged and experiment.yaml is gone; bring one of them back"


def test_a_run_without_record_and_config_is_listed_as_one(built):
    """It was left out: "no runs yet"."""
    RUN.record.unlink()
    RUN.config.unlink()
    [found] = views.runs()
    assert found["trouble"] == "its record and experiment.yaml are gone; bring one of them back"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}", "its record is damaged; doit resume mends it"),
        (b'{"schema_version": 99}', "written by a newer version of this tool"),
        (None, "its record is gone; doit resume mends it"),
    ],
)
def test_a_run_in_trouble_does_not_hide_the_others(built, content, said):
    """One run of a newer tool once ended the whole list."""
    other = RunPaths.of("r0")
    shutil.copytree(RUN.root, other.root)
    other.record.unlink() if content is None else other.record.write_bytes(content)
    found = views.runs()
    assert [(run["rid"], run["trouble"]) for run in found] == [("r1", None), ("r0", said)]
    assert said in lines(views.runs_text(found))


def test_a_run_that_may_not_be_read_does_not_hide_the_others(built):
    """Another user's run ended the whole list."""
    other = RunPaths.of("r0")
    shutil.copytree(RUN.root, other.root)
    other.record.unlink()
    other.record.symlink_to("/proc/self/mem")  # opens, and then fails to be read, for root too
    found = views.runs()
    assert [run["rid"] for run in found] == ["r1", "r0"]
    assert found[1]["trouble"].startswith("its record cannot be read (")


def test_a_run_in_a_folder_of_another_name_is_not_listed_as_one_of_its_own(built):
    """It stood there like any other, and every command that was given its name refused it."""
    copy = shutil.copytree(RUN.root, RUN.root.with_name("run_copy"))
    found = views.runs()
    said = "it is a copy of the run 'r1', or a link to it"
    assert [(run["rid"], run["trouble"]) for run in found] == [("r1", None), ("copy", said)]
    assert said in lines(views.runs_text(found))
    RUN.root.rename(copy.with_name("run_r0"))
    said = "it is the run 'r1', renamed; call the folder run_r1 again"
    assert [(run["rid"], run["trouble"]) for run in views.runs()] == [("copy", said), ("r0", said)]


def test_folders_that_hold_no_run_are_left_out(built):
    (RUN.root.parent / "run_empty").mkdir()
    assert [run["rid"] for run in views.runs()] == ["r1"]


# --- status ---------------------------------------------------------------------------------------


def test_status_tells_the_decision_of_every_cell_and_why(built):
    found = look(views.status)
    assert [cell["phase"] for cell in found["cells"]] == list(graph.NAMES)
    decided = {cell["phase"]: cell["decision"] for cell in found["cells"]}
    assert (decided["prepare"], decided["build"], decided["submit"], decided["score"]) == ("skip", "skip", "run", "run")
    by_name = {cell["phase"]: cell for cell in found["cells"]}
    assert by_name["prepare"]["stage"] == "completed"
    assert by_name["prepare"]["duration_s"] >= 0
    assert by_name["build"]["stage"] is None
    assert by_name["build"]["reason"] == "2 parts, 4 requests"
    assert found["jobs"] == {"small-default": {"pending": 2}}
    text = lines(views.status_text(found))
    for cell in found["cells"]:
        assert cell["reason"] in text
    assert "jobs of small-default: 2 pending" in text
    assert json.loads(jsonl.dumps(found)) == found


def test_status_tells_what_differs_in_the_config(built):
    RUN.config.write_text(RUN.config.read_text().replace("name: Ours", "name: Theirs"))
    found = look(views.status)
    assert found["config_changes"] == ["name: Ours -> Theirs"]
    assert "config changed: name: Ours -> Theirs" in lines(views.status_text(found))


def accepted(part):
    """A ledger that says the service has this part's job, as submit writes it before the manifest is."""
    path, model = TRIAL.part(part).ledger, "lab/small"
    sent = Submission("tm-1", "in", "out", TRIAL.part_requests(part), 2, model, part)
    estimate = {"input_tokens": 1, "output_tokens": 1, "usd": None}
    digest = disk.sha256_of(TRIAL.part_requests(part))[0]
    ledger.intend(path, 1, sent, digest, Binding("fireworks", "lab", "https://service.invalid"), estimate)
    job = Job("tm-1", "RUNNING", JobPhase.RUNNING, model, "in", "out")
    ledger.accept(path, 1, Accepted(job, adopted=False))


def test_jobs_are_counted_by_the_ledgers_not_by_the_manifest_that_mirrors_them_later(built):
    """While submit ran, or after kill -9, it said "2 pending" below "1 of 2 parts have no accepted job"."""
    accepted("t0_control_p01")
    found = look(views.status)
    assert [cell["reason"] for cell in found["cells"] if cell["phase"] == "submit"] == [
        "1 of 2 parts have no accepted job, e.g. t0_treatment_p01"
    ]
    assert found["jobs"] == {"small-default": {"pending": 1, "running": 1}}
    assert "jobs of small-default: 1 pending, 1 running" in lines(views.status_text(found))
    TRIAL.part("t0_treatment_p01").root.mkdir()
    TRIAL.part("t0_treatment_p01").results.write_text("{}")
    assert look(views.status)["jobs"] == {"small-default": {"downloaded": 1, "running": 1}}


def test_without_a_list_of_parts_the_manifest_tells_of_jobs(built):
    accepted("t0_control_p01")
    TRIAL.index.write_bytes(b"{")
    assert look(views.status)["jobs"] == {"small-default": {"pending": 2}}


def test_status_names_the_process_that_works_on_the_run(built):
    assert look(views.status)["at_work"] is None
    opened = opening.for_writing(request.parse({"rid": "r1"}), print, may_create=False)
    found = look(views.status)
    opened.close()
    assert found["at_work"]["pid"] == os.getpid()
    said = f"process {os.getpid()} works on it now, since {found['at_work']['since']}"
    assert lines(views.status_text(found)).splitlines()[1] == said
    assert look(views.status)["at_work"] is None


@pytest.mark.parametrize("name", [b'{"pid": 1, "since": "2026-01-01T00:00:00+00:00"}\n', b"", b"{"])
def test_the_name_a_killed_process_left_in_the_lock_is_nobody(built, name):
    """A process may have that number by now; it does not hold the lock."""
    RUN.lock.write_bytes(name)
    found = look(views.status)
    assert found["at_work"] is None
    assert "works on it now" not in lines(views.status_text(found))


@pytest.mark.parametrize("name", [b"", b"{", b"[]", b'{"pid": "x", "since": 1}'])
def test_a_lock_whose_holder_cannot_be_read_names_nobody(built, name):
    opened = opening.for_writing(request.parse({"rid": "r1"}), print, may_create=False)
    RUN.lock.write_bytes(name)
    found = look(views.status)
    opened.close()
    assert found["at_work"] is None


def test_a_failure_is_shown_beside_the_decision(built):
    opened = opening.for_writing(request.parse({"rid": "r1"}), print, may_create=False)
    opened.fail("parse", "small-default", "no such luck", PhaseEnd.FAILED)
    opened.close()
    found = look(views.status)
    [cell] = [cell for cell in found["cells"] if cell["phase"] == "parse"]
    assert (cell["stage"], cell["decision"]) == ("failed", "run")
    assert "no such luck" in cell["reason"]
    assert "[failed]" in lines(views.status_text(found))


# --- explain --------------------------------------------------------------------------------------


def test_explain_shows_each_check_up_to_the_one_that_decided(built):
    [cell] = look(views.explain, "build", None)
    assert (cell["phase"], cell["trial"], cell["decision"]) == ("build", "small-default", "skip")
    assert [check["check"] for check in cell["checks"]] == [reason.__name__ for reason in done.REASONS["build"]]
    assert all(check["found"] is None and check["asks"] for check in cell["checks"])
    TRIAL.part_requests("t0_control_p01").write_bytes(b"")
    [cell] = look(views.explain, "build", None)
    assert cell["decision"] == "repair"
    assert cell["checks"][-1]["found"] == {"decision": "repair", "reason": cell["reason"]}
    assert "t0_control_p01.jsonl: empty" in cell["reason"]


def test_explain_names_each_file_with_its_digest_then_and_now(built):
    RUN.open_book.write_bytes(RUN.open_book.read_bytes().replace(b"Oslo", b"Osla"))
    RUN.closed_book.unlink()
    [cell] = look(views.explain, "prepare", None)
    files = {file["path"]: file for file in cell["outputs"]}
    assert files["prepared/closed_book.jsonl"]["now"] is None
    changed = files["prepared/open_book.jsonl"]
    assert None is not changed["now"] != changed["recorded"]
    text = lines(views.explain_text([cell]))
    assert f"{changed['now'][:12]}" in text
    assert "GONE" in text
    assert "CHANGED" in text


def test_explain_covers_all_or_what_is_chosen(built):
    assert len(look(views.explain, None, None)) == len(graph.NAMES)
    assert [cell["phase"] for cell in look(views.explain, None, None, only="parse,score")] == ["parse", "score"]
    assert {cell["trial"] for cell in look(views.explain, "stats", "small-default")} == {"small-default"}
    with pytest.raises(UsageError, match="there is no phase 'pars'"):
        look(views.explain, "pars", None)
    with pytest.raises(UsageError, match="there is no trial 'x'"):
        look(views.explain, None, "x")


def test_what_explain_says_is_what_doit_will_do(built):
    for cell in look(views.explain, None, None):
        decided = look(lambda opened, cell=cell: opened.decide(cell["phase"], cell["trial"]))
        assert (cell["decision"], cell["reason"]) == (decided.verb, decided.reason)
