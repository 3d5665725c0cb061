"""The command line through doit: what it lists, runs, forgets, forces, selects, refuses, and says."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from quick_folder import quick_folder
from run_kit import (
    CONFIG,
    EVERY,
    ONE_TEMPERATURE,
    OPEN,
    PASSAGE,
    RID,
    TRIAL,
    QuickClock,
    artifacts,
    at,
    doit,
    edit,
    environment,
    files,
    forked,
    leftovers,
    letters,
    reading,
    tiny,
    tree,
    two_trials,
    watched,
)

from pipeline import __main__ as program
from pipeline import actions, command_line, ledger, plan, request
from pipeline.emulator import history, process
from pipeline.emulator.config import Config as ServiceConfig

OTHER = "other-default"
TRIALS = (TRIAL, OTHER)
START = (f"rid={RID}", "config=experiment.yaml")
NOBODY = 65534  # a user who owns nothing
PER_TRIAL = tuple(phase for phase in EVERY if phase not in ("prepare", "index"))


class Runs:
    """A finished run, the same with two trials, and one that was only built; tests work on copies."""

    def __init__(self, base):
        self.base = base
        for name, config, last in (
            ("one", CONFIG, "index"),
            ("two", two_trials(), "index"),
            ("built", two_trials(), "build"),
        ):
            assert doit(tiny(base / name, config), *START, f"to={last}").code == 0

    def copy(self, name):
        folder = self.base / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(self.base / name, folder, symlinks=True)


@pytest.fixture(scope="module")
def runs():
    with quick_folder() as base:
        yield Runs(base)


@pytest.fixture
def one(runs):
    return runs.copy("one")


@pytest.fixture
def two(runs):
    return runs.copy("two")


@pytest.fixture
def built(runs):
    return runs.copy("built")


@pytest.fixture
def fresh(quick_path):
    """A folder with config and questions, and no run yet."""
    return tiny(quick_path / "fresh")


def run_folder(folder):
    return folder / "experiments" / f"run_{RID}"


def result(folder, name, trial=TRIAL):
    return run_folder(folder) / trial / "results" / name


def calls(folder):
    return len(history.calls(run_folder(folder) / ".emulator"))


def stages(folder, trial=TRIAL):
    manifest = json.loads(result(folder, "trial_manifest.json", trial).read_text())
    return {name: stage["status"] for name, stage in manifest["stage_status"].items()}


# --- list -------------------------------------------------------------------------------------------


def test_list_before_the_first_run_shows_what_there_would_be_to_do(fresh):
    before = tree(fresh)
    listed = doit(fresh, "list", "--status", "--all")
    assert listed.code == 0
    assert {line[0] for line in listed.out.splitlines()} == {"R"}
    assert f"R parse:{TRIAL} " in listed.out
    assert tree(fresh) == before


def test_list_in_an_empty_folder_is_about_the_bundled_example(tmp_path):
    shutil.copy(program.__file__.replace("pipeline/__main__.py", "dodo.py"), tmp_path)
    listed = doit(tmp_path, "list", "--all")
    assert listed.code == 0
    assert "parse:gpt-oss-120b-default" in listed.out
    assert [path.name for path in tmp_path.iterdir()] == ["dodo.py"]


def test_list_while_another_process_works_shows_how_far_it_is(runs, built):
    ready, go = os.pipe(), os.pipe()

    def pause():
        os.write(ready[1], b"x")
        os.read(go[0], 1)

    worker = forked(built, f"trial={TRIAL}", "to=costs", observer=at("rename", "predictions.csv", pause))
    os.read(ready[0], 1)
    before = files(built)
    shown = letters(built)
    assert {phase: shown[phase, TRIAL] for phase in PER_TRIAL} == {
        **dict.fromkeys(("build", "submit", "download"), "U"),
        **dict.fromkeys(("parse", "score", "stats", "costs", "report"), "R"),
    }
    assert {phase: shown[phase, ""] for phase in ("prepare", "build", "submit", "download", "parse")} == {
        "prepare": "U",
        "build": "U",
        "submit": "R",  # the other trial was not submitted
        "download": "R",
        "parse": "R",
    }
    assert files(built) == before

    second = doit(built, "to=costs")
    assert second.code == 2
    assert re.search(rf"another process works on run {RID}: process {worker.pid}, since 20\d\d-", second.err)
    assert "wait until it ends, or stop it" in second.err
    assert files(built) == before
    os.write(go[1], b"x")
    assert worker.wait().code == 0
    for end in (*ready, *go):
        os.close(end)


def test_list_after_a_run_shows_groups_and_trials_up_to_date_and_leaves_no_trace(two):
    before = tree(two)
    shown = letters(two)
    assert {cell for cell, letter in shown.items() if letter == "R"} == {
        ("archive", ""),
        ("archive", TRIAL),
        ("archive", OTHER),
    }
    assert len(shown) == 2 + 9 * 3
    assert tree(two) == before


def test_a_group_speaks_for_all_its_trials(two):
    result(two, "costs.json", OTHER).unlink()
    shown = letters(two)
    assert (shown["costs", OTHER], shown["costs", TRIAL], shown["costs", ""]) == ("R", "U", "R")
    assert (shown["parse", ""], shown["stats", ""]) == ("U", "U")


SITUATIONS = {
    "finished": lambda folder: None,
    "an output is gone": lambda folder: result(folder, "usage.csv").unlink(),
    "an input was edited": lambda folder: result(folder, "per_item_scores.csv").write_text("x"),
    "a setting was edited": lambda folder: edit(folder, "prices.batch_discount", 0),
    "forgotten": lambda folder: doit(folder, "forget", "stats", "build"),
    "the memory is gone": lambda folder: (run_folder(folder) / ".doit.db").unlink(),
    "the manifest is gone": lambda folder: result(folder, "trial_manifest.json").unlink(),
    "the record is gone": lambda folder: (run_folder(folder) / "run.json").unlink(),
    "the trial is gone": lambda folder: shutil.rmtree(run_folder(folder) / TRIAL),
    "older files and records were put back": lambda folder: put_back_older(folder),
}


def put_back_older(folder):
    """The artifacts and records of an earlier state, beside the memory of a later one."""
    older = folder.parent / "older"
    shutil.copytree(run_folder(folder), older)
    edit(folder, "scoring.extraction", "first_line")
    edit(folder, "prices.batch_discount", 0)
    assert doit(folder, "to=costs").code == 0
    (older / ".doit.db").unlink()
    shutil.copytree(older, run_folder(folder), dirs_exist_ok=True)
    shutil.rmtree(older)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_doit_lists_is_what_was_decided_and_what_it_then_does(one, situation):
    """Kept rows of doit's own could disagree with the decisions; so there are none."""
    SITUATIONS[situation](one)
    with reading(one) as session:
        decided = {(p.name, slug): session.decide(p.name, slug).verb for p, slug in session.cells()}
    shown = letters(one)
    assert {cell: "U" if verb == "skip" else "R" for cell, verb in decided.items()} == {c: shown[c] for c in decided}
    done = doit(one, "to=build")
    assert done.code == 0
    for cell, (verb, _) in done.decisions.items():
        assert verb == decided[cell]


def test_looking_writes_nothing_at_all(two, capsys, monkeypatch):
    before = tree(two)
    for words in (["list"], ["list", "--status", "--all"], ["plan"], ["plan", "json=1"], ["info", f"parse:{TRIAL}"]):
        assert doit(two, *words).code == 0
    monkeypatch.chdir(two)
    for words in (["runs"], ["status"], ["status", RID, "--json"], ["explain", RID, "parse"], ["plan", RID, "--json"]):
        assert program.main(words) == 0
    assert "Traceback" not in "".join(capsys.readouterr())
    assert tree(two) == before


def test_a_plan_before_the_first_run_names_requests_and_money_and_writes_nothing(fresh):
    before = tree(fresh)
    planned = doit(fresh, "plan")
    assert planned.code == 0
    assert re.search(r"^prepare +- +run +not done yet$", planned.out, re.M)
    assert "40 requests" in planned.out
    assert "$" in planned.out
    assert tree(fresh) == before


def test_what_cannot_be_read_is_told_by_a_list_and_ends_no_list(two):
    """A question file that is a folder stands for any error of the disk."""
    (two / "open.jsonl").unlink()
    (two / "open.jsonl").mkdir()
    listed = doit(two, "list", "--status")
    assert listed.code == 0
    assert "R prepare" in listed.out
    assert "U parse" in listed.out
    assert "open.jsonl: cannot be read (Is a directory)" in listed.err


@pytest.mark.parametrize("command", [[], ["resume"], ["list"], ["forget", "parse"], ["plan"], ["info", "parse"]])
def test_a_mistyped_variable_is_an_error_everywhere(one, command):
    """It would silently mean the latest run."""
    before = tree(one)
    mistyped = doit(one, *command, f"rdi={RID}")
    assert mistyped.code == 3
    assert "there is no variable rdi=; did you mean rid=?" in mistyped.err
    assert "Traceback" not in mistyped.err
    assert tree(one) == before


@pytest.mark.parametrize("command", [[], ["resume"], ["list"], ["forget", "parse"], ["plan"], ["info", "parse"]])
def test_an_unknown_run_is_an_error_that_lists_the_runs_there_are(one, command):
    before = tree(one)
    unknown = doit(one, *command, "rid=other")
    assert unknown.code == 3
    assert f"there is no run 'other' in experiments/.\nRuns there are: {RID}." in unknown.err
    assert tree(one) == before


def test_resume_starts_no_run(fresh):
    before = tree(fresh)
    resumed = doit(fresh, "resume")
    assert (resumed.code, resumed.err) == (3, "ERROR: there is no run in experiments/ yet.\nNext: doit starts one\n")
    assert tree(fresh) == before


@pytest.mark.parametrize(
    ("word", "said"), [("lst", "did you mean 'list'?"), ("resumee", "did you mean 'resume'?"), ("xyz", "phases are:")]
)
def test_a_mistyped_command_starts_no_run(fresh, word, said):
    """To doit it is the name of a task, and so a command to run."""
    before = tree(fresh)
    mistyped = doit(fresh, word)
    assert mistyped.code == 3
    assert f"there is no command or phase '{word}'" in mistyped.err
    assert said in mistyped.err
    assert tree(fresh) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "2", "resume"], "the command comes first: doit resume ..."),
        (["status"], "Next: python -m pipeline status"),
        (["resume", RID], f"Next: doit resume rid={RID}"),
        (["plan", RID], f"a run is named by rid=, as in rid={RID}."),
        (["plan", "parse"], "doit plan takes no parse"),
        (["plan", "nope"], "there is no command or phase 'nope'"),
        (["info", "nope"], "there is no command or phase 'nope'"),
        (["info"], "doit info wants one task"),
        (["info", "parse:smal"], f"run {RID} has no trial 'smal'; did you mean parse:{TRIAL}?"),
        (["parse:smal"], f"has no trial 'smal'; did you mean parse:{TRIAL}?\nNothing was changed."),
        (["forget", "parse:xyz"], f"Next: trials are: {TRIAL}"),
    ],
)
def test_words_that_mean_something_else_are_refused_with_what_to_type(one, words, said):
    """plan took no notice, info ended in a traceback, and for the others doit's own words knew no trial."""
    before = files(one)
    refused = doit(one, *words)
    assert (refused.code, files(one)) == (3, before)
    assert said in refused.err


def test_the_other_programs_commands_are_known():
    choices = program._parser()._subparsers._group_actions[0].choices
    assert {*command_line.OF_PROGRAM, "plan"} == set(choices)


def test_forget_says_of_which_run(one):
    assert doit(one, "forget", "parse").out.splitlines()[0] == f"run {RID} in experiments/run_{RID}"
    assert doit(one).worked == ["parse"]


def test_help_tells_the_choices_of_doits_own_run(one):
    """It told doit's options and none of the words that choose a run."""
    for command in ("run", "resume"):
        shown = doit(one, "help", command).out
        assert [name for name in request.NAMES if f" {name}=" not in shown] == []


@pytest.mark.parametrize(
    "words",
    [
        ["-r", "zero"],
        ["--backend", "json"],
        ["--db-file", "x"],
        ["list", "--db-file", "x"],
        ["forget", "--backend=dbm"],
    ],
)
def test_options_that_would_go_round_the_record_are_not_there(one, words):
    before = tree(one)
    refused = doit(one, *words)
    assert refused.code == 3
    assert " has no option -" in refused.err
    assert tree(one) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [(("-n", "-1"), "-n -1: expected 0 or more."), (("-P", "foo"), "-P foo: expected process or thread.")],
)
def test_workers_that_cannot_be_are_an_error(one, words, said):
    """doit would do nothing, or take no notice, and say that all is well."""
    refused = doit(one, *words)
    assert (refused.code, refused.err) == (3, f"ERROR: {said}\n")


def test_doit_clean_removes_nothing(one):
    before = tree(one)
    assert doit(one, "clean", "--clean-all").code == 0
    assert tree(one) == before


def test_always_runs_what_is_named_and_submits_nothing(one):
    before, asked = artifacts(one), calls(one)
    done = doit(one, "-a", "to=download")
    assert (done.code, done.worked) == (0, ["prepare", "build", "submit", "download"])
    assert done.decisions["build", TRIAL] == ("run", "asked for with -a")
    assert (artifacts(one), calls(one)) == (before, asked)
    assert doit(one).worked == []


def test_strace_does_no_phase_outside_the_lock(one):
    """It did the phase, for a reader, and then failed to record it."""
    before = tree(one)
    refused = doit(one, "strace", f"parse:{TRIAL}")
    assert (refused.code, tree(one)) == (3, before)
    assert "outside the run's lock" in refused.err


@pytest.mark.parametrize("words", [["ignore", "parse"], ["reset-dep", "parse"]])
def test_a_phase_cannot_be_declared_done(one, words):
    result(one, "predictions.csv").unlink()
    before = tree(one)
    refused = doit(one, *words)
    assert refused.code == 3
    assert "phases cannot be ignored or marked as done" in refused.err
    assert tree(one) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--foo"], "doit run has no option --foo."),
        (["--contniue"], "doit run has no option --contniue; did you mean --continue?"),
        (["list", "-x"], "doit list has no option -x."),
        (["plan", "--foo"], "doit plan has no option --foo."),
        (["-n", "x"], "doit run -n x: -n wants a whole number."),
        (["forget", "-f"], "doit forget -f: option -f requires argument."),
    ],
)
def test_an_option_that_is_not_there_is_one_sentence(one, words, said):
    """doit's own answer is a page of its option objects."""
    refused = doit(one, *words)
    assert refused.code == 3
    assert refused.err.splitlines()[0] == f"ERROR: {said}"
    assert len(refused.err.splitlines()) == 2


@pytest.mark.parametrize(
    "words", [[], ["rid=new", "config=experiment.yaml"], ["resume"], ["list"], ["forget", "parse"]]
)
def test_a_folder_without_a_dodo_file_is_told_so_and_gets_no_run(fresh, words):
    """doit noticed it after the run had been made."""
    (fresh / "dodo.py").unlink()
    before = tree(fresh)
    refused = doit(fresh, *words)
    assert (refused.code, tree(fresh)) == (3, before)
    assert "there is no dodo.py in " in refused.err
    assert "python -m pipeline init FOLDER makes such a folder" in refused.err


@pytest.mark.parametrize("words", [["-k"], ["-f", "../dodo.py"], ["-f", "../dodo.py", "-d", ".."]])
def test_from_another_folder_it_is_the_run_of_the_folder_doit_works_in(fresh, words):
    """The run was looked for before doit changed its folder: a new one was begun, half here and half there."""
    inside = fresh / "notes"
    inside.mkdir()
    (inside / "mine.yaml").write_text((fresh / "experiment.yaml").read_text().replace("name: tiny", "name: mine"))
    for source in ("closed.jsonl", "open.jsonl"):
        shutil.copy(fresh / source, inside)
    assert doit(inside, *words, "rid=a", "config=mine.yaml", "to=prepare").code == 0
    assert [run.name for run in fresh.rglob("run_*")] == ["run_a"]
    assert "name: mine" in (fresh / "experiments" / "run_a" / "experiment.yaml").read_text()
    assert doit(inside, *words, "to=prepare").decisions["prepare", ""][0] == "skip"
    assert "\nU prepare " in doit(inside, "list", "--status", *words).out
    assert doit(inside, "forget", *words, "prepare").code == 0
    assert doit(inside, *words, "to=prepare").decisions["prepare", ""][0] == "run"
    assert [run.name for run in fresh.rglob("run_*")] == ["run_a"]


@pytest.mark.parametrize("words", [["-d", "nowhere"], ["-f", "nowhere/dodo.py"]])
def test_a_folder_that_is_not_there_gets_no_run(fresh, words):
    before = tree(fresh)
    refused = doit(fresh, *words)
    assert (refused.code, tree(fresh)) == (3, before)
    assert "nowhere" in refused.err


def test_help_may_be_left_before_its_end(one):
    command = f"{sys.executable} -m doit help run | head -1; exit ${{PIPESTATUS[0]}}"
    left = subprocess.run(["bash", "-c", command], cwd=one, capture_output=True, text=True)
    assert (left.stdout, left.stderr) == ("PURPOSE\n", "")


def test_with_an_output_file_the_last_words_come_to_who_waits(one):
    ran = doit(one, "-o", "log.txt")
    assert (ran.code, "skipped" in ran.out) == (0, True)
    assert "prepare " in (one / "log.txt").read_text()


def test_there_is_no_database_to_dump(one):
    before = tree(one)
    refused = doit(one, "dumpdb")
    assert refused.code == 3
    assert "python -m pipeline status RID --json shows it all" in refused.err
    assert tree(one) == before


def test_without_a_name_it_is_the_run_that_was_created_last(fresh):
    for rid in ("zebra", "ape"):
        assert doit(fresh, f"rid={rid}", "config=experiment.yaml", "to=prepare").code == 0
    os.utime(fresh / "experiments" / "run_zebra" / "run.json")  # written to later, created earlier
    for words in ([], ["resume"]):
        assert "run ape in experiments/run_ape" in doit(fresh, *words, "to=prepare").out


@pytest.mark.parametrize("word", ["config=experiment.yaml", "limit=1"])
def test_what_shapes_a_new_run_is_an_error_for_one_that_exists(one, word):
    before = files(one)
    refused = doit(one, f"rid={RID}", word)
    assert refused.code == 3
    assert f"{word.split('=')[0]}= starts a new run, but run {RID} exists" in refused.err
    assert files(one) == before


def test_a_run_of_which_nothing_was_submitted_can_get_another_config(fresh):
    """A first try with a wrong config kept its name for ever: neither resume nor config= could mend it."""
    config = fresh / "experiment.yaml"
    right = config.read_text()
    config.write_text(right.replace("path: closed.jsonl", "path: closed.jsonl, fields: {question: query}"))
    failed = doit(fresh, *START, "to=build")
    assert failed.code == 2, failed.out + failed.err
    config.write_text(right)
    again = doit(fresh, "resume", "to=build")
    assert f"it can still change: doit rid={RID} config=experiment.yaml" in again.out
    created = json.loads((run_folder(fresh) / "run.json").read_text())["created_at"]
    planned = doit(fresh, "plan", *START)
    assert "40 requests" in planned.out
    mended = doit(fresh, *START, "to=build")
    assert mended.code == 0
    assert f"run {RID}, of which nothing was submitted, lives by experiment.yaml as it is now" in mended.out
    assert json.loads((run_folder(fresh) / "run.json").read_text())["created_at"] == created
    assert doit(fresh, *START, "to=build").worked == []  # the same config again changes nothing
    assert doit(fresh, "resume", *START, "to=build").code == 3
    assert doit(fresh, "limit=1", "to=build").code == 3
    assert doit(fresh, "to=submit").code == 0
    before = files(fresh)
    config.write_text(right.replace("Answer briefly", "Answer"))
    for words in (START, ("plan", *START), ("list", *START)):
        refused = doit(fresh, *words)
        assert refused.code == 3
        assert f"config= starts a new run, but run {RID} exists" in refused.err
    assert {name for name, facts in files(fresh).items() if facts != before.get(name)} == {"experiment.yaml"}


def test_a_link_that_leads_nowhere_is_not_passed_over_for_the_bundled_example(fresh):
    (fresh / "experiment.yaml").unlink()
    (fresh / "experiment.yaml").symlink_to("gone.yaml")
    refused = doit(fresh)
    assert refused.code == 2
    assert "experiment.yaml: there is no such config file." in refused.err
    assert not (fresh / "experiments").exists()


def test_a_pilot_run_takes_the_first_items_of_each_source(fresh):
    done = doit(fresh, *START, "limit=1", "to=build")
    assert done.code == 0
    assert "closed_book.jsonl: 1 items, open_book.jsonl: 1 items" in doit(fresh, "to=prepare").out


# --- nothing to do ----------------------------------------------------------------------------------


def test_a_run_with_nothing_to_do_writes_nothing_and_asks_nobody(two):
    """The emulator is not even started: its folder would come back."""
    shutil.rmtree(run_folder(two) / ".emulator")
    assert doit(two).worked == []  # the copy's files are looked at once
    before = files(two)
    for words in ([], ["resume", f"rid={RID}"], ["-n", "4"], ["verify=deep"], ["to=parse"], [f"parse:{TRIAL}"]):
        again = doit(two, *words)
        assert (again.code, again.worked) == (0, [])
        assert re.search(r"^\d+ skipped$", again.out, re.M)
    assert files(two) == before


def test_a_run_with_nothing_to_do_remembers_all_it_needs(one):
    """So that a no-op on gigabytes reads none: with the memory warm, no file is hashed."""
    assert doit(one).worked == []
    with reading(one) as session:
        for phase, slug in session.cells():
            session.decide(phase.name, slug)
        assert list(session.workspace.fingerprints.fresh()) == []


def test_without_the_memory_everything_is_looked_at_and_nothing_done(two):
    shutil.rmtree(run_folder(two) / ".emulator")
    (run_folder(two) / ".doit.db").unlink()
    before = artifacts(two)
    again = doit(two)
    assert (again.code, again.worked) == (0, [])
    assert artifacts(two) == before


def test_a_run_copied_elsewhere_without_its_questions_is_as_finished_there(two, quick_path):
    elsewhere = quick_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(two / "dodo.py", elsewhere)
    shutil.copytree(
        two / "experiments", elsewhere / "experiments", ignore=shutil.ignore_patterns(".emulator", ".doit.db")
    )
    copied = doit(elsewhere)
    assert (copied.code, copied.worked) == (0, [])
    assert "source of closed, open is gone, the prepared items hold" in copied.out
    assert artifacts(elsewhere) == artifacts(two)


def test_a_copied_run_needs_its_recorded_answers_for_as_long_as_an_answer_is_missing(quick_path):
    here, there = quick_path / "here", quick_path / "there"
    tiny(here, ONE_TEMPERATURE.replace("job_seconds: 0", "job_seconds: 0, recorded: answers.jsonl"))
    (here / "answers.jsonl").write_text('{"question": "Who?", "answers": {"control": ["Ann"]}}\n')
    assert doit(here, *START, "to=submit").code == 0
    sent = history.jobs(run_folder(here) / ".emulator")
    shutil.copytree(here, there, ignore=shutil.ignore_patterns("answers.jsonl"))
    stuck = doit(there)
    assert stuck.code == 1
    gone = f"{there / 'answers.jsonl'}: there is no such file of recorded answers."
    assert f"download:{TRIAL}: experiments/run_{RID}/.emulator: the emulator did not start: {gone}\n" in stuck.out
    assert "\nNothing was sent; its jobs, and all that arrived from them, are as they were.\nNext: put" in stuck.out
    shutil.move(here / "answers.jsonl", there)
    assert doit(there).code == 0
    assert history.jobs(run_folder(there) / ".emulator") == sent
    (there / "answers.jsonl").unlink()
    assert doit(there).worked == []
    assert doit(there, "force=all").code == 0


# --- forget and force -------------------------------------------------------------------------------


def test_forget_parse_runs_parse_and_nothing_after_it(two):
    before = artifacts(two)
    forgotten = doit(two, "forget", "parse")
    assert (forgotten.code, stages(two)["parsed"], stages(two, OTHER)["parsed"]) == (0, "pending", "pending")
    shown = letters(two)
    assert {phase for phase in EVERY if shown[phase, ""] == "R"} == {"parse"}
    done = doit(two)
    assert (done.code, done.worked) == (0, ["parse"])
    assert done.decisions["parse", TRIAL] == ("run", "forgotten: doit forget asked for it again")
    assert "16 skipped, 2 rebuilt (2 to the same bytes)" in done.out
    assert artifacts(two) == before
    assert doit(two).worked == []


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["parse:" + TRIAL], {("parse", TRIAL)}),
        (["parse", f"trial={OTHER}"], {("parse", OTHER)}),
        (["build"], {("build", TRIAL), ("build", OTHER)}),
        (["prepare", "index"], {("prepare", ""), ("index", "")}),
        (["submit"], set()),
        (["--follow-sub", "parse:" + TRIAL], {("parse", TRIAL)}),
        (["--all"], {("prepare", ""), ("index", ""), *((p, t) for p in PER_TRIAL if p != "submit" for t in TRIALS)}),
        ([], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_forget_stales_exactly_what_is_named(two, words, cells):
    asked = calls(two)
    forgotten = doit(two, "forget", *words)
    assert forgotten.code == 0, forgotten.err
    assert ("submit stays" in forgotten.out) == (words == ["submit"])
    shown = letters(two)
    assert {cell for cell in shown if shown[cell] == "R" and cell[0] != "archive" and not is_group(cell)} == cells
    done = doit(two, "to=costs")
    ran = {cell for cell, (verb, _) in done.decisions.items() if verb != "skip"}
    assert ran == {cell for cell in cells if cell[0] not in ("report", "index")}
    assert calls(two) == asked


def is_group(cell):
    phase, trial = cell
    return not trial and phase not in ("prepare", "index")


def test_what_was_forgotten_stays_forgotten_until_it_is_done(one):
    doit(one, "forget", "build")
    assert doit(one, "to=prepare").worked == []
    assert letters(one)["build", TRIAL] == "R"
    assert doit(one, "to=build").worked == ["build"]
    assert letters(one)["build", TRIAL] == "U"


def test_forgetting_what_is_not_there_is_an_error(one):
    before = files(one)
    unknown = doit(one, "forget", "prase")
    assert unknown.code == 3
    assert "prase" in unknown.err
    assert files(one) == before


def test_force_report_rebuilds_the_report_alone(two):
    before, asked = artifacts(two), calls(two)
    forced = doit(two, "force=report", f"trial={TRIAL}")
    assert (forced.code, forced.worked) == (0, ["report"])
    assert forced.decisions["report", TRIAL] == ("run", "forced by force=")
    assert (artifacts(two), calls(two)) == (before, asked)


def test_force_all_rebuilds_every_phase_and_submits_nothing(one):
    before, asked = artifacts(one), calls(one)
    forced = doit(one, "force=all")
    assert (forced.code, forced.worked) == (0, [phase for phase in EVERY if phase != "submit"])
    assert "1 skipped, 9 rebuilt (9 to the same bytes)" in forced.out
    assert (artifacts(one), calls(one)) == (before, asked)
    assert leftovers(one) == []


def test_force_all_without_the_questions_keeps_the_prepared_items(one):
    (one / "open.jsonl").unlink()
    forced = doit(one, "force=all", "to=costs")
    assert forced.code == 0
    assert forced.decisions["prepare", ""] == (
        "skip",
        "closed_book.jsonl: 2 items, open_book.jsonl: 3 items; source of open is gone, the prepared items hold",
    )


def test_force_does_not_replace_the_items_of_a_submitted_run(one):
    """It once did, and only then was the run refused."""
    before = artifacts(one)
    with open(one / "open.jsonl", "a") as questions:
        questions.write(json.dumps({"id": "o9", "question": "New?", "answers": ["x"], "context": "x"}) + "\n")
    for words in (["force=all"], ["force=prepare"], ["forget", "prepare"], []):
        refused = doit(one, *words)
    assert refused.code == 2
    assert refused.decisions["prepare", ""][0] == "refuse"
    assert "1 refused, 9 not reached" in refused.out
    assert artifacts(one) == before


# --- selection --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "cells"),
    [
        (["to=build"], {("prepare", ""), *(("build", t) for t in TRIALS)}),
        (["from=stats", "to=costs"], {(p, t) for p in ("stats", "costs") for t in TRIALS}),
        (["only=parse", f"trial={TRIAL}"], {("parse", TRIAL)}),
        (["only=stats,score", "trial=small-*"], {("score", TRIAL), ("stats", TRIAL)}),
        (["trial=other*", "to=parse"], {("prepare", ""), *((p, OTHER) for p in PER_TRIAL[:4])}),
        ([f"parse:{OTHER}"], {("prepare", ""), *((p, OTHER) for p in PER_TRIAL[:4])}),
        (["from=archive"], {("archive", TRIAL), ("archive", OTHER), ("index", "")}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_selection_is_about_those_phases_and_trials_only(two, words, cells):
    assert set(doit(two, *words).decisions) == cells


def test_a_selection_that_matches_nothing_is_an_error(two):
    nothing = doit(two, "trial=nothing*")
    assert (nothing.code, "trial=nothing* matches no trial." in nothing.err) == (3, True)
    assert f"trials are: {TRIAL}, {OTHER}" in nothing.err or f"trials are: {OTHER}, {TRIAL}" in nothing.err


def test_a_phase_chosen_alone_names_the_input_it_lacks(one):
    result(one, "predictions.csv").unlink()
    lacking = doit(one, "only=score")
    assert lacking.code == 2
    assert "score needs predictions.csv, which is not there." in lacking.out
    assert f"doit resume rid={RID}" in lacking.out
    assert stages(one)["scored"] == "failed"
    again = doit(one).decisions
    assert (again["parse", TRIAL][0], again["score", TRIAL][0]) == ("repair", "run")
    assert re.match(r"failed last time: .*predictions.csv: score needs predictions.csv", again["score", TRIAL][1])


# The phases asked for, the file that was edited and how, who wrote it, and the command's words.
EDITED = [
    ("parse", "results_combined.jsonl", b"know.", b"knew.", "download", ("from=parse",)),
    ("score", "predictions.csv", b"know.", b"knew.", "parse", ("from=score",)),
    ("score", "predictions.csv", b"know.", b"knew.", "parse", ("only=score", "force=score")),
    ("stats", "per_item_scores.csv", b"1", b"0", "score", ("only=stats", "force=stats")),
    ("archive", "costs.json", b"usd", b"eur", "costs", ("only=archive",)),
]


@pytest.mark.parametrize(("phase", "name", "old", "new", "writer", "words"), EDITED)
def test_an_edited_input_is_named_and_never_published(one, phase, name, old, new, writer, words):
    """A selection leaves out the phase that would repair it: what somebody typed went into the results."""
    before, path = artifacts(one), result(one, name)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with reading(one, **dict(word.split("=") for word in words)) as session:
        planned = [step for step in plan.plan(session).steps if step.phase == phase]
    refused = doit(one, *words)
    assert refused.code == 2
    verb, reason = refused.decisions[phase, TRIAL]
    said = f"{name} is not what {writer} wrote, so it is not used; run {writer} first, which makes it again"
    assert (verb, reason) == ("refuse", f"{said}: doit resume rid={RID}")
    assert [(step.verb, step.reason) for step in planned] == [(verb, reason)]
    assert {file: data for file, data in artifacts(one).items() if not file.endswith(name)} == {
        file: data for file, data in before.items() if not file.endswith(name)
    }
    assert doit(one, "resume", f"rid={RID}").code == 0
    for aside in run_folder(one).rglob("*.damaged.*"):
        aside.unlink()
    assert artifacts(one) == before


def test_the_plan_promises_no_work_that_does_not_come(one):
    """parse writes the same bytes again, and nothing after it runs: the plan said that score would."""
    result(one, "predictions.csv").unlink()
    with reading(one) as session:
        planned = {step.phase: (step.verb, step.reason) for step in plan.plan(session).steps}
    assert planned["parse"] == ("repair", "predictions.csv: missing")
    assert planned["score"] == planned["report"] == ("may run", "if parse writes other bytes")
    assert doit(one).worked == ["parse"]


def test_the_answers_of_one_trial_are_not_taken_for_those_of_another(built):
    """Ids and requests are equal under all models, so what one had answered was published as the other's."""
    assert doit(built, f"trial={TRIAL}", "to=costs").code == 0
    shutil.copytree(result(built, ""), result(built, "", OTHER), dirs_exist_ok=True)
    before, asked = artifacts(built), calls(built)
    for words in (["resume", f"rid={RID}", "to=costs"], ["resume", f"rid={RID}", "only=download"]):
        refused = doit(built, *words)
        assert refused.code == 2
        assert re.search(rf"move {OTHER}/results/t0\S+ out of the run", refused.out), refused.out
        assert set(before.values()) <= set(artifacts(built).values()), "something is lost"
        assert calls(built) == asked
    shutil.rmtree(result(built, "", OTHER))
    assert doit(built, "to=submit").code == 0
    models = [job.model for job in history.jobs(run_folder(built) / ".emulator")]
    assert models.count("accounts/lab/models/other") == models.count("accounts/lab/models/small") == len(models) / 2


def test_what_was_never_submitted_is_not_submitted_by_who_chose_the_phases_after_it(fresh):
    """The plan of `only=download` said that nothing would be sent, and all was, also of a trial of which none ran."""
    (fresh / "experiment.yaml").write_text(two_trials())
    assert doit(fresh, *START, "to=build").code == 0
    assert doit(fresh, "to=submit", f"trial={TRIAL}").code == 0
    sent = jobs(fresh)
    for words in (["only=download"], ["from=download", "to=parse"], ["-s", f"download:{OTHER}"]):
        refused = doit(fresh, *words)
        assert (refused.code, refused.decisions["download", OTHER][0]) == (2, "refuse"), refused.out
        assert "8 of 8 parts were never submitted, e.g. t07_control_p01; run submit first" in refused.out
        assert jobs(fresh) == sent
    planned = doit(fresh, "plan", "only=download")
    assert re.search(rf"download +{OTHER} +refuse +8 of 8 parts were never submitted", planned.out)
    assert "nothing would be sent" in planned.out
    assert doit(fresh, "only=download", f"trial={TRIAL}").code == 0
    assert doit(fresh, "to=download").code == 0
    assert len(jobs(fresh)) == 2 * len(sent)


def test_a_trial_is_not_asked_other_questions_than_another_was_where_the_record_is_lost(fresh):
    """The trial that had been submitted was refused, and the other built with the questions of today, and paid."""
    (fresh / "experiment.yaml").write_text(two_trials())
    assert doit(fresh, *START, "to=submit", f"trial={TRIAL}").code == 0
    sent, questions = jobs(fresh), fresh / "closed.jsonl"
    before = questions.read_bytes()
    questions.write_bytes(before + b'{"id": "late", "question": "Who came late?", "answers": ["a goose"]}\n')
    (run_folder(fresh) / "run.json").unlink()
    for words in ([], [f"trial={OTHER}"]):
        refused = doit(fresh, "to=submit", *words)
        assert refused.code == 2
        assert "closed_book.jsonl: the questions, or how they cluster, are not those that were submitted" in refused.out
        assert jobs(fresh) == sent
    gone_on = doit(fresh, "from=build", "to=submit")
    assert gone_on.code == 0, gone_on.out
    assert len(jobs(fresh)) == 2 * len(sent)
    requests = [sorted((run_folder(fresh) / slug / "batch_inputs").glob("t0_*")) for slug in (TRIAL, OTHER)]
    assert [path.read_bytes() for path in requests[0]] == [path.read_bytes() for path in requests[1]]
    questions.write_bytes(before)
    assert doit(fresh, "to=submit").code == 0
    assert len(jobs(fresh)) == 2 * len(sent)


def test_a_part_of_which_only_damaged_results_are_left_is_not_submitted_by_who_chose_download(fresh):
    """It looked like sent, so download was not refused; the queue then knew nothing to wait for, and no error."""
    assert doit(fresh, *START, "to=download").code == 0
    part = fresh / f"experiments/run_{RID}" / TRIAL / "results/t0_control_p01"
    for path in part.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (part / "results.jsonl").write_bytes(b"")
    sent = jobs(fresh)
    refused = doit(fresh, "only=download")
    assert refused.code == 2
    assert f"1 of 8 parts are in no job that is known, e.g. {TRIAL}/t0_control_p01" in refused.out
    assert "run submit first: doit resume rid=" in refused.out
    assert jobs(fresh) == sent
    assert doit(fresh, "to=download").code == 0


EXPIRED = {"job": {"id": "-a1-", "times": None}, "do": {"end": {"state": "EXPIRED", "at": 0.5}}}


@pytest.fixture
def lacking(fresh):
    """A run that was finished although half of its rows have no answer."""
    (fresh / "experiment.yaml").write_text(ONE_TEMPERATURE)
    assert doit(fresh, *START, "to=build").code == 0
    settings = ServiceConfig.from_dict({"job_seconds": 0, "faults": [EXPIRED]})
    handle = process.start(run_folder(fresh) / ".emulator", settings)
    assert doit(fresh, "to=costs", "requeue=never").code == 0
    yield fresh
    handle.close()


def jobs(folder):
    return [job.id for job in history.jobs(run_folder(folder) / ".emulator")]


@pytest.mark.parametrize("words", [["requeue=auto"], ["force=download"]])
def test_what_was_left_missing_can_be_asked_for_later(lacking, words):
    """Once it was recorded, no word of the user's brought an answer any more."""
    asked = calls(lacking)
    plain = doit(lacking, "to=costs")
    assert (plain.worked, calls(lacking)) == ([], asked)
    assert "4 parts, 20 results, 10 of them without an answer" in plain.out
    again = doit(lacking, "to=costs", *words)
    assert (again.code, again.worked[0]) == (0, "download"), again.out
    assert len(jobs(lacking)) == 8
    full = doit(lacking, "to=costs", *words)
    assert "4 parts, 20 results\n" in doit(lacking, "to=costs").out
    assert (full.code, len(jobs(lacking))) == (0, 8)


@pytest.mark.parametrize("requeue", ["auto", "ask"])
@pytest.mark.parametrize("lost", [["results.jsonl"], ["results.jsonl", "ledger.jsonl"], ["results.jsonl", "a1"]])
def test_what_was_left_missing_is_not_paid_for_because_a_file_is_damaged(lacking, lost, requeue):
    """The damage had the part judged anew: its missing rows alone were submitted, though nobody had asked for them."""
    edit(lacking, "queue.requeue", requeue)
    asked, before = jobs(lacking), artifacts(lacking)
    for name in lost:
        path = run_folder(lacking) / TRIAL / "results" / "t0_control_p01" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    repaired = doit(lacking, "to=costs")
    assert repaired.code == 0, repaired.out
    assert set(repaired.worked) <= {"submit", "download"}
    assert (jobs(lacking), artifacts(lacking)) == (asked, before)


def test_what_is_asked_for_later_is_brought_home_by_a_plain_resume(lacking):
    asked = doit(lacking, "to=costs", "requeue=auto", "wait=0")
    assert (asked.code, len(jobs(lacking))) == (75, 8)
    assert doit(lacking, "to=costs").code == 0
    assert "4 parts, 20 results\n" in doit(lacking, "to=costs").out
    assert len(jobs(lacking)) == 8


def test_paid_rows_of_an_attempt_that_the_ledger_lacks_are_noticed_when_looked_for(lacking):
    older = lacking / "older"
    shutil.copytree(run_folder(lacking) / TRIAL, older)
    assert doit(lacking, "to=costs", "requeue=auto").code == 0
    full = result(lacking, "results_combined.jsonl").read_bytes()
    shutil.copytree(older, run_folder(lacking) / TRIAL, dirs_exist_ok=True)  # the new raw files stay
    assert doit(lacking, "to=costs", "requeue=auto").code == 0
    assert (result(lacking, "results_combined.jsonl").read_bytes(), len(jobs(lacking))) == (full, 8)


@pytest.mark.parametrize("listed", [True, False], ids=["with the list", "without the list"])
def test_a_damaged_first_intent_is_asked_for_by_its_id_where_a_second_one_followed(fresh, listed):
    """The second asked for fewer rows, and passed for the first: all was refused for ever, with advice to pay anew."""
    (fresh / "experiment.yaml").write_text(ONE_TEMPERATURE)
    assert doit(fresh, *START, "to=build").code == 0
    stuck = {"job": {"id": "-a2-", "times": None}, "do": {"stuck": {"in": "RUNNING"}}}
    settings = ServiceConfig.from_dict({"job_seconds": 0, "faults": [EXPIRED, stuck]})
    handle = process.start(run_folder(fresh) / ".emulator", settings)
    for _ in range(2):
        assert doit(fresh, "to=download", "wait=0").code == 75
    assert len(jobs(fresh)) == 8
    for path in run_folder(fresh).rglob("ledger.jsonl"):
        path.write_bytes(b"#" + path.read_bytes())
    if not listed:
        (run_folder(fresh) / TRIAL / "batch_inputs" / "index.json").unlink()
    resumed = doit(fresh, "to=download", "wait=0")
    assert (resumed.code, len(jobs(fresh))) == (75, 8), resumed.out
    known = [ledger.read(path) for path in run_folder(fresh).rglob("ledger.jsonl")]
    assert [[attempt.number for attempt in book.attempts] for book in known] == [[1, 2]] * 4
    handle.close()


def test_edited_items_are_not_built_from_where_the_list_of_parts_is_gone_too(built):
    """The missing list was noticed first, and the parts were made from whatever stood there."""
    prepared = run_folder(built) / "prepared" / "closed_book.jsonl"
    for trial in TRIALS:
        (run_folder(built) / trial / "batch_inputs" / "index.json").unlink()
    prepared.write_bytes(prepared.read_bytes().replace(b"capital", b"Capital"))
    refused = doit(built, "from=build", "to=build")
    assert {refused.decisions["build", trial][0] for trial in TRIALS} == {"refuse"}
    assert "closed_book.jsonl is not what prepare wrote" in refused.out
    assert doit(built, "to=build").code == 0


# --- several at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [("-n", "4"), ("-n", "4", "-P", "thread")], ids=["processes", "threads"])
def test_the_same_bytes_with_several_workers(runs, quick_path, workers):
    folder = tiny(quick_path / "several", two_trials())
    done = doit(folder, *workers, *START, "to=costs")
    assert done.code == 0, done.out + done.err
    there = artifacts(folder)
    assert {TRIAL, OTHER} < {name.split("/")[0] for name in there}
    assert there.items() <= artifacts(runs.base / "two").items()
    assert len(history.jobs(run_folder(folder) / ".emulator")) == 16
    assert set(stages(folder).values()) == set(stages(folder, OTHER).values()) == {"completed", "pending"}
    assert doit(folder, "to=costs").worked == []


def test_several_workers_say_once_what_is_to_be_submitted(fresh):
    """Each said it, and who added the numbers up thought that twice as much would be paid."""
    (fresh / "experiment.yaml").write_text(two_trials())
    assert doit(fresh, *START, "to=build").code == 0
    ended = forked(fresh, "-n", "2", "to=submit").wait()
    assert ended.code == 0, ended.err
    assert re.findall("to be submitted: (.*) requests", ended.out) == ["80"]


def test_workers_that_the_dodo_py_asks_for_are_workers(fresh):
    """doit learns of them last: each said what is to be submitted, as a process that works alone does."""
    (fresh / "experiment.yaml").write_text(two_trials())
    assert doit(fresh, *START, "to=build").code == 0
    with open(fresh / "dodo.py", "a") as dodo:
        dodo.write("\nDOIT_CONFIG['num_process'] = 2\n")
    ended = forked(fresh, "to=submit").wait()
    assert ended.code == 0, ended.err
    assert re.findall("to be submitted: (.*) requests", ended.out) == ["80"]


@pytest.mark.parametrize(("setting", "value"), [("num_process", -2), ("par_type", "proces")])
def test_workers_that_cannot_be_are_refused_in_a_dodo_py_too(fresh, setting, value):
    """Fewer than none did nothing, and all was well."""
    with open(fresh / "dodo.py", "a") as dodo:
        dodo.write(f"\nDOIT_CONFIG[{setting!r}] = {value!r}\n")
    ended = doit(fresh, *START, "to=prepare")
    assert ended.code == 3
    assert f"{value}: expected" in ended.err
    assert ended.worked == []


def test_a_worker_announces_a_trial_that_no_other_knew_of(built):
    """From nothing, one worker submits a trial while the next is being built: its cost must be said, too."""
    with reading(built) as session:
        assert session.announces({TRIAL})
        assert session.announces({TRIAL})  # alone, each time it is asked
        session.share_work()
        assert session.announces({TRIAL})
        assert not session.announces({TRIAL})
        assert session.announces({TRIAL, OTHER})
        assert not session.announces({OTHER})


def test_several_workers_from_nothing_leave_no_request_unsaid(fresh):
    (fresh / "experiment.yaml").write_text(two_trials())
    ended = forked(fresh, "-n", "2", *START, "to=submit").wait()
    assert ended.code == 0, ended.err
    assert sum(map(int, re.findall("to be submitted: (.*) requests", ended.out))) >= 80


# --- endings ----------------------------------------------------------------------------------------


def test_what_is_not_ready_ends_with_75_and_other_trials_go_on(built):
    assert doit(built, f"trial={TRIAL}", "to=download").code == 0
    edit(built, "emulator.job_seconds", 60)
    waited = doit(built, "wait=0", "to=costs")
    assert waited.code == 75
    assert waited.decisions["costs", TRIAL][0] == "run"
    assert ("parse", OTHER) not in waited.decisions
    assert stages(built)["costs"] == "completed"
    assert stages(built, OTHER)["downloaded"] == "in_progress"
    assert "8 of 8 parts of other-default are not" in waited.out
    assert f"Next: doit resume rid={RID} goes on, now or later" in waited.out
    assert letters(built)["download", OTHER] == "R"
    edit(built, "emulator.job_seconds", 0)


def break_disk(name):
    """An observer that fails every write of a file called *name*."""

    def fail(operation, path):
        if operation == "write" and path.name in (name, f".{name}.tmp"):
            raise OSError(28, "No space left on device")

    return fail


def test_a_failure_is_told_recorded_and_outweighs_what_is_not_ready(built):
    assert doit(built, f"trial={TRIAL}", "to=download").code == 0
    edit(built, "emulator.job_seconds", 60)
    with watched(break_disk("predictions.csv")):
        failed = doit(built, "wait=0", "to=costs")
    assert failed.code == 2
    assert "predictions.csv.tmp: could not be written (No space left on device)." in failed.out
    assert "free space or fix permissions on that disk" in failed.out
    assert re.search(r"^\d+ skipped, \d+ built, 1 not ready, 1 failed, 7 not reached$", failed.out, re.M)
    assert f"  failed: parse:{TRIAL}: " in failed.out
    assert f"  not ready: download:{OTHER}: " in failed.out or f"  not ready: submit:{OTHER}: " in failed.out
    assert f"Next: mend what is named above, then doit resume rid={RID}" in failed.out
    manifest = json.loads(result(built, "trial_manifest.json").read_text())
    assert manifest["stage_status"]["parsed"]["status"] == "failed"
    assert "No space left on device" in manifest["stage_status"]["parsed"]["error"]
    assert leftovers(built) == []
    again = doit(built, f"trial={TRIAL}", "to=costs")
    assert (again.code, again.worked) == (0, ["parse", "score", "stats", "costs"])
    assert again.decisions["parse", TRIAL][1].startswith("failed last time: ")


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ([f"score:{TRIAL}"], (TRIAL,)),
        ([f"score:{TRIAL}", f"build:{OTHER}", "prepare"], (TRIAL,)),
        ([f"p*:{TRIAL}"], (TRIAL,)),
        ([f"experiments/run_{RID}/{TRIAL}/results/predictions.csv"], (TRIAL,)),
        ([f"trial={TRIAL}", "parse"], (TRIAL,)),
        (["-n", "2", f"parse:{TRIAL}"], (TRIAL,)),
        ([f"parse:{TRIAL}", "submit"], TRIALS),
        (["parse"], TRIALS),
    ],
)
def test_only_the_trials_of_the_tasks_that_are_named_are_paid_for(built, words, sent):
    """The queue submits for all trials at once, and did so although one cell was named."""
    command = forked if "-n" in words else doit
    ran = command(built, "resume", f"rid={RID}", *words)
    ran = ran.wait() if command is forked else ran
    assert ran.code == 0, ran.out + ran.err
    assert {path.parents[2].name for path in run_folder(built).glob("*/results/*/ledger.jsonl")} == set(sent)


@pytest.mark.parametrize("put", [shutil.copytree, lambda run, copy: copy.symlink_to(run.name)], ids=["copy", "link"])
def test_a_copy_of_a_run_does_not_stand_in_its_way(one, put):
    """As new as its original, it was taken for the latest, and was to be renamed to what there was already."""
    copy = run_folder(one).with_name(f"run_{RID}.bak")
    put(run_folder(one), copy)
    before = files(copy)
    went_on = doit(one)
    assert (went_on.code, went_on.worked) == (0, []), went_on.err
    named = doit(one, "resume", f"rid={RID}.bak")
    assert named.code == 2
    assert f"run_{RID}.bak: is a copy of the run {RID!r}, which is there too, or a link to it." in named.err
    assert f"Next: doit resume rid={RID} goes on with the run itself" in named.err
    assert files(copy) == before
    unknown = doit(one, "resume", "rid=nobody")
    assert f"Runs there are: {RID}." in unknown.err


def test_spending_that_nobody_agreed_to_is_refused_for_every_trial(quick_path):
    """The second trial once went on after the first had been refused, and sent the parts of both."""
    folder = tiny(quick_path / "dear", two_trials() + "budget: {confirm_above_usd: 0}\n")
    refused = doit(folder, *START)
    assert refused.code == 2
    assert "above budget.confirm_above_usd = $0.00, and nobody can be asked here." in refused.out
    assert not (run_folder(folder) / ".emulator").exists()
    agreed = doit(folder, "resume", f"rid={RID}", "yes=1", "to=parse")
    assert agreed.code == 0


def test_the_budget_is_a_hard_stop_with_a_code_of_its_own(quick_path):
    folder = tiny(quick_path / "poor", CONFIG + "budget: {max_usd: 0.0000001}\n")
    stopped = doit(folder, *START)
    assert stopped.code == 76
    assert "budget.max_usd" in stopped.out
    assert not list(run_folder(folder).rglob("ledger.jsonl")), "an intent was made"


def test_a_file_that_cannot_be_read_stops_the_run_and_is_not_taken_for_absent(one):
    """Taken for absent it would be made anew, and a part's results asked for again."""
    hidden = result(one, "predictions.csv")
    before = files(one)
    if os.getuid() == 0:  # whom no permission stops
        one.parent.chmod(0o755)
        for path in (one, *one.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    hidden.chmod(0)
    ended = forked(one, "resume", f"rid={RID}", as_user=NOBODY).wait()
    assert ended.code == 2
    assert "predictions.csv: cannot be read (Permission denied)." in ended.err
    assert "Nothing was changed: this says nothing about the file's content." in ended.err
    assert "Traceback" not in ended.out + ended.err
    hidden.chmod(0o644)
    assert {name: facts[0] for name, facts in files(one).items()} == {name: facts[0] for name, facts in before.items()}
    assert doit(one).worked == []


@pytest.mark.parametrize("words", [["resume"], ["list"], []])
def test_a_folder_of_runs_that_cannot_be_read_is_told(one, words):
    """It ended in a traceback; and a run that cannot be seen must not be taken for none, or a new one would be paid."""
    hidden = one / "experiments"
    if os.getuid() == 0:  # whom no permission stops
        one.parent.chmod(0o755)
        for path in (one, *one.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    hidden.chmod(0)
    try:
        ended = forked(one, *words, as_user=NOBODY).wait()
    finally:
        hidden.chmod(0o755)
    assert (ended.code, ended.out) == (2, "")
    assert "experiments: cannot be read (Permission denied)." in ended.err
    assert doit(one).worked == []


# --- what it says -----------------------------------------------------------------------------------


def test_the_first_run_says_what_it_is_made_from_and_where_the_report_is(runs, quick_path):
    folder = tiny(quick_path / "first")
    said = doit(folder, *START, "to=build").out.splitlines()
    assert said[:2] == [f"new run {RID} from experiment.yaml", f"run {RID} in experiments/run_{RID}"]
    assert said[-2:] == ["2 built", f"Next: doit resume rid={RID} does the phases that were not chosen"]
    assert doit(runs.copy("one")).out.splitlines()[-1] == f"report: experiments/run_{RID}/{TRIAL}/reports/report.md"


def test_the_next_step_is_none_where_the_phases_that_were_not_chosen_are_done_too(one):
    """It said that doit resume does them."""
    assert "were not chosen" not in doit(one, "only=parse").out
    assert "were not chosen" not in doit(one, f"trial={TRIAL}", "from=stats").out
    assert doit(one, "forget", "score").code == 0
    assert "does the phases that were not chosen" in doit(one, "only=parse").out


def test_decisions_are_logged_with_reasons_unless_all_are_skips(one):
    log = run_folder(one) / "logs" / "decisions.jsonl"
    log.unlink()
    doit(one)
    assert not log.exists()
    result(one, "costs.json").unlink()
    done = doit(one)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = {(line["phase"], line["trial"]): (line["decision"], line["reason"]) for line in lines}
    assert logged == done.decisions
    assert logged["costs", TRIAL] == ("repair", "costs.json: missing")
    assert logged["parse", TRIAL] == ("skip", "predictions.csv: 40 rows = 40 unique custom_ids")
    assert "9 skipped, 1 repaired" in done.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text, None),
        (lambda text: text + "# a comment\n", None),
        (
            lambda text: text.replace("[0, 0.7]", "[0]"),
            "experiment.yaml differs from what this run lives by: temperatures",
        ),
        (lambda text: text.replace("Answer briefly", "Answer"), "prompt_sets.default.control.text"),
        (
            lambda text: text.replace("models:", "modles:"),
            "experiment.yaml differs from what this run lives by: is not a",
        ),
    ],
)
def test_a_local_config_that_the_run_does_not_live_by_is_pointed_out(one, change, said):
    (one / "experiment.yaml").write_text(change(CONFIG))
    done = doit(one)
    assert (done.code, done.worked) == (0, [])
    if said is None:
        assert "differs" not in done.out
    else:
        assert said in done.out
        assert "For a new run: doit rid=NEW config=experiment.yaml" in done.out


def test_a_config_that_is_named_is_not_compared_with_the_local_one(quick_path):
    """A new run was told that it lives by another config, and how to have it live by the one not named."""
    folder = tiny(quick_path / "named")
    (folder / "other.yaml").write_text(CONFIG.replace("[0, 0.7]", "[0]"))
    begun = doit(folder, f"rid={RID}", "config=other.yaml", "to=prepare")
    assert (begun.code, "differs" in begun.out) == (0, False)
    assert "experiment.yaml differs from what this run lives by: temperatures" in doit(folder, "to=prepare").out


def test_a_prompt_file_that_was_edited_is_pointed_out(quick_path):
    folder = tiny(quick_path / "prompts", CONFIG.replace("{text: Answer briefly.}", "control.txt"))
    (folder / "control.txt").write_text("Answer briefly.\n")
    assert doit(folder, *START, "to=build").code == 0
    assert "differs" not in doit(folder, "to=build").out
    (folder / "control.txt").write_text("Answer at length.\n")
    said = doit(folder, "to=build")
    assert "prompt_sets.default.control.text: Answer briefly. -> Answer at length." in said.out
    assert said.worked == []


def test_hostile_text_reaches_the_terminal_as_escapes(quick_path):
    folder = tiny(quick_path / "hostile")
    item = {"id": "\x1b]0;owned\x07", "question": "q", "answers": ["x"], "context": "c"}
    (folder / "open.jsonl").write_text(2 * (json.dumps(item) + "\n"))
    shown = doit(folder, *START)
    assert shown.code == 2
    assert "owned" in shown.out
    assert "\x1b" not in shown.out + shown.err


@pytest.mark.parametrize("command", ["list", "list --status --all", "help", "plan"])
def test_looking_imports_nothing_heavy(one, command):
    assert not imported_by(one, *command.split()) & HEAVY


def test_what_is_repaired_from_files_at_hand_imports_nothing_heavy(one):
    results = next(one.glob("experiments/*/*/results/*/results.jsonl"))
    whole = results.read_bytes()
    results.write_bytes(whole[:-10])
    imported = imported_by(one)
    assert results.read_bytes() == whole
    assert "pipeline.queue.work" in imported
    assert not imported & HEAVY


def test_the_last_words_of_a_run_import_nothing_that_a_report_is_made_with(one):
    imported = imported_by(one)
    assert "pipeline.ending" in imported
    assert not imported & {"pipeline.report.model", "pipeline.phases"}


HEAVY = {"pandas", "scipy", "matplotlib", "requests", "numpy", "jinja2", "rich"}


def imported_by(folder: Path, *words: str) -> set[str]:
    """The modules that `doit` with *words* imports in *folder*."""
    command = [sys.executable, "-X", "importtime", "-m", "doit", *words]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment())
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines() if "|" in line}
    assert "doit" in imported
    return imported


# --- what bad input gets ----------------------------------------------------------------------------

FIREWORKS = CONFIG.replace("provider: emulator", "provider: fireworks")
RECORD = {"experiment.yaml", "run.json", "run.lock", ".doit.db", "decisions.jsonl"}


@dataclass
class Bad:
    """A config, questions and environment with one thing wrong, and what is said of it."""

    said: str
    config: str = CONFIG
    questions: str | None = None
    key: str | None = None
    code: int = 2


BAD = {
    "a misspelt key": Bad(
        "experiment.yaml: is not a valid experiment:\n  temperatuers: unknown key; did you mean 'temperatures'?",
        config=CONFIG.replace("temperatures", "temperatuers"),
    ),
    "a missing prompt file": Bad(
        "prompt_sets.default.control: there is no prompt file 'nowhere.txt'.\nNext: create nowhere.txt",
        config=CONFIG.replace("{text: Answer briefly.}", "nowhere.txt"),
    ),
    "a source that is not JSON": Bad("open.jsonl line 2: not JSON", questions=json.dumps(OPEN[0]) + "\n{oh no\n"),
    "an item without a question": Bad("there is no 'question'; there are: id.", questions='{"id": "a"}\n'),
    "a duplicate item id": Bad(
        "open.jsonl line 2: the item id 'o1' stands there twice (first: open.jsonl line 1).",
        questions=2 * (json.dumps({**OPEN[0], "context": PASSAGE}) + "\n"),
    ),
    "a missing source": Bad("there is no such question file.", config=CONFIG.replace("open.jsonl", "nowhere.jsonl")),
    "no key": Bad("there is no FIREWORKS_API_KEY in the environment or .env.", config=FIREWORKS),
    "a wrong key": Bad("the key is not accepted", config=FIREWORKS + "fireworks: {base_url: SERVER}\n", key="canary"),
    "a port that refuses": Bad(
        "Connection refused", config=FIREWORKS + "fireworks: {base_url: 'http://127.0.0.1:1'}\n", key="canary", code=75
    ),
}


@pytest.fixture
def server(quick_path):
    """The address of a service that accepts one key, and it is not ours."""
    handle = process.start(quick_path / "service", ServiceConfig(api_key="another"))
    yield handle.address.url
    handle.close()


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_clear_error_and_leaves_nothing_half_written(quick_path, monkeypatch, request, what):
    bad = BAD[what]
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "emulator")
    monkeypatch.setattr(actions, "time", QuickClock())
    if bad.key:
        monkeypatch.setenv("FIREWORKS_API_KEY", bad.key)
    url = request.getfixturevalue("server") if "SERVER" in bad.config else ""
    folder = tiny(quick_path / "bad", bad.config.replace("SERVER", url))
    if bad.questions is not None:
        (folder / "open.jsonl").write_text(bad.questions)

    refused = doit(folder, *START, "wait=0")
    said = refused.out + refused.err
    assert refused.code == bad.code
    assert said.count(bad.said) == 1 or bad.code == 75
    assert bad.said in said
    assert "Traceback" not in said
    assert "canary" not in said
    run = run_folder(folder)
    assert leftovers(folder) == []
    if "experiment.yaml: " in bad.said or "prompt" in what:
        assert not (folder / "experiments").exists()
    elif bad.config.startswith(CONFIG[:20]) and "fireworks" not in bad.config:
        assert {path.name for path in run.rglob("*") if path.is_file()} == RECORD
    else:
        assert not list(run.rglob("a1"))
        assert {"prepared", TRIAL} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_results_that_stand_in_the_combined_file_are_not_paid_for_again(tmp_path, how):
    """History: raw files, the service's and a part's results gone, it asked anew what lay in the next folder."""
    folder = tiny(tmp_path, ONE_TEMPERATURE)
    assert doit(folder, f"rid={RID}", "config=experiment.yaml", "to=parse").code == 0
    before, run = artifacts(folder), run_folder(folder)
    part = run / TRIAL / "results" / "t0_control_p01"
    shutil.rmtree(part / "a1")
    if how == "gone":
        (part / "results.jsonl").unlink()
    else:
        (part / "results.jsonl").write_bytes(before[f"{TRIAL}/results/t0_control_p01/results.jsonl"][:-20])
    with sqlite3.connect(run / ".emulator" / "emulator.sqlite") as service:
        service.execute("DELETE FROM datasets WHERE id LIKE '%-out'")
    ran = doit(folder, "resume", f"rid={RID}", "to=parse")
    assert (ran.code, ran.worked) == (0, ["download"])
    assert len(history.jobs(run / ".emulator")) == 4
    after = {name: data for name, data in artifacts(folder).items() if ".damaged." not in name}
    assert {name for name, data in before.items() if after.get(name) != data} <= {
        f"{TRIAL}/results/t0_control_p01/a1/{name}" for name in ("BIJOutputSet.jsonl", "error-data")
    }
