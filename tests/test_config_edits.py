"""Which phases an edit of a run's experiment.yaml rebuilds: those that use the setting, and no others.

A phase below may run without using the setting itself: then the bytes it reads have changed. `report`
stands in a row when the report would be written anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from quick_folder import quick_folder
from ruamel.yaml import YAML
from run_kit import CONFIG, EVERY, ONE_TEMPERATURE, RID, TRIAL, Ran, artifacts, doit, edit, files, reading, tiny

from pipeline import config as configuration
from pipeline import config_checks, jsonl, sealed
from pipeline.emulator import history
from pipeline.paths import RunPaths
from pipeline.runs import create

# "prepare refuses" and "build refuses": nothing runs, nothing is changed, the command for a new run is given.
TABLE = """
setting = new value                              | of a finished run              | before it was submitted

name = another                                   | report                         | -
report.examples = 1                              | report                         | -

prices.models.small.input_per_mtok = 9           | costs report                   | -
prices.models.small.output_per_mtok = 9          | costs report                   | -
prices.batch_discount = 0                        | costs report                   | -
prices.cached_discount = 0                       | costs report                   | -
prices.models.other.input_per_mtok = 9           | -                              | -
provider = fireworks                             | build refuses                  | -

statistics.seed = 1                              | stats report                   | -
statistics.alpha = 0.01                          | stats report                   | -
statistics.bootstrap_samples = 2000              | stats report                   | -
statistics.permutation_samples = 2000            | stats report                   | -
statistics.margins.em = 0.3                      | stats report                   | -
statistics.power = 0.9                           | stats report                   | -
statistics.target_deltas = [0.1]                 | stats report                   | -
control = treatment                              | stats report                   | -
statistics.cluster = none                        | prepare build download..report | prepare build

scoring.extraction = first_line                  | score report                   | -
scoring.unsupported = overlap                    | score report                   | -
scoring.overlap_threshold = 0.5                  | score report                   | -

sources.0.limit = 1                              | prepare refuses                | prepare build
sources.0.benchmark = nq_open                    | prepare refuses                | prepare build
sources.0.dataset = renamed                      | prepare refuses                | prepare build
sources.0.path = moved_elsewhere.jsonl           | -                              | -

prompt_sets.default.control.text = Be brief.     | build refuses                  | build
prompt_sets.default.treatment.text = Be brief.   | build refuses                  | build
models.0.id = accounts/lab/models/other          | build refuses                  | build
models.0.alias = other                           | build refuses                  | build
temperatures = [0, 1]                            | build refuses                  | build
samples_per_item = 3                             | build refuses                  | build
decoding.max_tokens = 9                          | build refuses                  | build
decoding.top_p = 0.9                             | build refuses                  | build
part_size = 5                                    | build refuses                  | build
part_bytes = 10000                               | build refuses                  | build

queue.max_concurrent_jobs = 2                    | -                              | -
queue.poll_seconds = 1                           | -                              | -
queue.max_attempts = 1                           | -                              | -
queue.requeue = never                            | -                              | -
queue.job_deadline_hours = 1                     | -                              | -
budget.max_usd = 1                               | -                              | -
budget.confirm_above_usd = 1                     | -                              | -
repair.external_url = false                      | -                              | -
fireworks.base_url = "http://127.0.0.1:1"        | -                              | -
emulator.job_seconds = 5                         | -                              | -
"""


@dataclass
class Runs:
    """A finished run and one that was only built; each edit works on a copy."""

    base: Path
    calls: int = 0

    def copy(self, name: str) -> Path:
        folder = self.base / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(self.base / name, folder, symlinks=True)


@pytest.fixture(scope="module")
def runs():
    with quick_folder() as base:
        for name, last in (("finished", "index"), ("built", "build")):
            folder = tiny(base / name, ONE_TEMPERATURE)
            assert doit(folder, f"rid={RID}", "config=experiment.yaml", f"to={last}").code == 0
        yield Runs(base, len(history.calls(base / "finished" / "experiments" / f"run_{RID}" / ".emulator")))


def rows() -> list[tuple[str, str, str, str]]:
    """(place, value as YAML, what runs in a finished run, what runs in one that was only built)."""
    found = []
    for line in TABLE.splitlines()[2:]:
        if line.strip():
            setting, finished, built = line.split("|")
            place, _, value = setting.partition(" = ")
            found.append((place, value.strip(), finished.strip(), built.strip()))
    return found


def ran(folder: Path, last: str) -> tuple[str, Ran]:
    """What `doit to=LAST` does about an edit, in the table's words."""
    done = doit(folder, f"to={last}")
    if done.code:
        (phase,) = [cell[0] for cell, (verb, _) in done.decisions.items() if verb == "refuse"]
        return f"{phase} refuses", done
    worked = done.worked
    if last == "costs":
        with reading(folder) as session:
            worked += [
                phase.name for phase, slug in session.cells() if phase.name == "report" and _stale(session, slug)
            ]
    if worked[2:] == list(EVERY[3:9]):
        worked[2:] = ["download..report"]
    return " ".join(worked) or "-", done


def _stale(session: Any, slug: str) -> bool:
    return session.decide("report", slug).verb != "skip"


@pytest.mark.parametrize(("place", "value", "finished", "built"), rows(), ids=lambda text: text)
def test_an_edit_rebuilds_exactly_the_phases_that_use_the_setting(runs, place, value, finished, built):
    for which, last, expected in (("finished", "costs", finished), ("built", "build", built)):
        folder = runs.copy(which)
        emulator = folder / "experiments" / f"run_{RID}" / ".emulator"
        edit(folder, place, YAML(typ="safe").load(value))
        before = files(folder, "decisions.jsonl")
        found, done = ran(folder, last)
        assert found == expected
        assert f"config changed: {place.split('.')[0]}" in done.out
        if which == "finished":
            assert len(history.calls(emulator)) == runs.calls, "the provider was asked"
        if expected.endswith("refuses"):
            assert done.code == 2
            assert "for a new run: doit rid=NEW config=" in done.out
            assert files(folder, "decisions.jsonl") == before


def made(folder: Path) -> dict[str, bytes]:
    """What the phases wrote."""
    return {name: content for name, content in artifacts(folder).items() if name != "experiment.yaml"}


def test_a_report_never_names_a_provider_that_was_not_asked(runs):
    """Named fireworks, an emulated run said so in its report, at list prices, and that a model had been asked."""
    folder = runs.copy("finished")
    edit(folder, "provider", "fireworks")
    before, built = files(folder, "decisions.jsonl"), made(folder)
    for words in ([], ["only=costs"], ["only=report"], ["only=index"], ["from=score", "force=report"]):
        refused = doit(folder, *words)
        assert (refused.code, refused.worked) == (2, [])
        assert "(provider: emulator -> fireworks), since emulator was asked: set it back" in refused.out
    assert files(folder, "decisions.jsonl") == before
    (folder / "experiments" / f"run_{RID}" / "run.json").unlink()  # it is rebuilt from the edited config
    assert doit(folder, "resume", f"rid={RID}").code == 2
    assert made(folder) == built
    edit(folder, "provider", "emulator")
    assert doit(folder).worked == ["index"]  # of which the lost record told
    assert made(folder) == built


def test_the_provider_stays_also_where_the_ledgers_are_gone(runs):
    folder = runs.copy("finished")
    for ledger in (folder / "experiments" / f"run_{RID}").rglob("ledger.jsonl"):
        ledger.unlink()
    edit(folder, "provider", "fireworks")
    assert doit(folder).code == 2


def test_a_run_whose_record_follows_such_an_edit_can_be_set_right(runs):
    """Earlier versions accepted it. The ledgers still say who was asked, and the report follows them again."""
    folder = runs.copy("finished")
    run = folder / "experiments" / f"run_{RID}"
    edit(folder, "provider", "fireworks")
    record = json.loads((run / "run.json").read_text())
    record["config"]["provider"] = "fireworks"
    record["config_sha256"] = hashlib.sha256((run / "experiment.yaml").read_bytes()).hexdigest()
    (run / "run.json").write_bytes(jsonl.dumps_pretty(sealed.sealed(record)))
    assert doit(folder).code == 2
    edit(folder, "provider", "emulator")
    assert doit(folder).code == 0
    assert json.loads((run / "run.json").read_text())["config"]["provider"] == "emulator"


def test_an_edited_question_file_is_told_with_the_ways_to_go_on(runs):
    folder = runs.copy("finished")
    source, frozen = folder / "open.jsonl", f"experiments/run_{RID}/experiment.yaml"
    old = source.read_bytes()
    source.write_bytes(old.replace(b"1871", b"1872"))
    new_run = f"for a new run: doit rid=NEW config={frozen}"
    go_on = f"doit resume rid={RID} from=build"
    reason = doit(folder).decisions["prepare", ""][1]
    assert reason.endswith(
        f": put open.jsonl back as it was, or go on with the prepared items, which hold: {go_on}; {new_run}"
    )
    assert doit(folder, *go_on.split()[1:], "force=score").worked == ["score"]
    (folder / "experiments" / f"run_{RID}" / "prepared" / "open_book.jsonl").unlink()
    assert doit(folder).decisions["prepare", ""][1].endswith(f": put open.jsonl back as it was; {new_run}")
    source.write_bytes(old)
    assert doit(folder).worked == ["prepare"]
    edit(folder, "sources.0.limit", 1)
    assert doit(folder).decisions["prepare", ""][1].endswith(f": set it back; {new_run}")


def test_an_edit_that_nothing_depends_on_is_told_once(runs):
    folder = runs.copy("finished")
    edit(folder, "queue.max_attempts", 5)
    assert "config changed: queue.max_attempts: 3 -> 5" in doit(folder).out
    again = doit(folder)
    assert (again.code, again.worked) == (0, [])
    assert "config changed" not in again.out


@pytest.mark.parametrize("command", [["firectl", "--api-key=fw-secret"], ["firectl", "--api-key", "fw-secret"]])
def test_a_key_that_an_older_run_still_holds_is_not_shown_when_it_is_taken_out(quick_path, monkeypatch, command):
    folder = tiny(quick_path / "old", f"{ONE_TEMPERATURE}\nrepair: {{firectl: {json.dumps(command)}}}\n")
    with monkeypatch.context() as before:
        before.setattr(config_checks, "keys", lambda _values: iter(()))
        assert doit(folder, f"rid={RID}", "config=experiment.yaml", "to=prepare").code == 0
    edit(folder, "repair.firectl", ["firectl", "--quiet", "x"][: len(command)])
    (folder / "experiment.yaml").unlink()
    told = doit(folder)
    assert (told.code, "config changed: repair.firectl: changed\n" in told.out) == (0, True)
    assert "fw-secret" not in told.out + told.err
    assert not [path for path in folder.rglob("*.json*") if b"fw-secret" in path.read_bytes()]


def test_an_edit_is_told_until_every_phase_has_been_brought_up_to_it(runs):
    folder = runs.copy("finished")
    edit(folder, "prices.batch_discount", 0)
    for words in (["to=parse"], ["costs"], [f"trial={TRIAL}", "to=costs"]):
        assert "config changed: prices.batch_discount: 0.5 -> 0" in doit(folder, *words).out
    assert doit(folder).worked == ["report", "index"]
    assert "config changed" not in doit(folder).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold a mapping of settings"),
        ("models: [\n", "is not valid YAML"),
        ("modles: []\n", "modles: unknown key; did you mean 'models'?"),
        ("name: \x0b\n", "is not valid YAML"),
    ],
)
def test_a_config_that_cannot_be_read_stops_the_run_and_says_how_to_get_the_old_one_back(runs, text, said):
    folder = runs.copy("finished")
    config = folder / "experiments" / f"run_{RID}" / "experiment.yaml"
    config.write_text(text)
    before = files(folder, "decisions.jsonl")
    for command in (["list", "--status"], [], ["resume"], ["plan"], ["forget", "parse"]):
        refused = doit(folder, *command)
        assert refused.code == 2
        assert said in refused.err
        assert "run.json holds the config as it was last accepted." in refused.err
    assert files(folder, "decisions.jsonl") == before
    config.unlink()
    assert doit(folder).worked == []


def test_a_second_model_is_a_trial_of_its_own(runs):
    folder = runs.copy("finished")
    edit(folder, "models", [{"id": "accounts/lab/models/small"}, {"id": "accounts/lab/models/second"}])
    done = doit(folder, "to=costs")
    assert done.code == 0
    assert {trial for (_, trial), (verb, _) in done.decisions.items() if verb != "skip"} == {"second-default"}


def test_a_trial_that_was_taken_out_is_not_paid_again_under_another_name(runs):
    """In one step it was refused; in two, with a resume between them, all was submitted once more."""
    folder = runs.copy("finished")
    run = folder / "experiments" / f"run_{RID}"
    small, second = ({"id": f"accounts/lab/models/{name}"} for name in ("small", "second"))
    for models in ([small, second], [second]):
        edit(folder, "models", models)
        assert doit(folder).code == 0
    asked = len(history.calls(run / ".emulator"))
    edit(folder, "models", [second, {**small, "alias": "other"}])
    index, ledgers = run / TRIAL / "batch_inputs" / "index.json", list((run / TRIAL).rglob("ledger.jsonl"))
    away = folder / "away"
    for lost in ([], [index], ledgers, [index, *ledgers]):
        shutil.copytree(run / TRIAL, away)
        for path in lost:
            path.unlink()
        refused = doit(folder)
        assert refused.code == 2
        assert f"the submitted trial {TRIAL} is no longer in the config" in refused.out
        shutil.rmtree(run / TRIAL)
        away.rename(run / TRIAL)
    assert len(history.calls(run / ".emulator")) == asked
    edit(folder, "models", [second, {"id": "accounts/lab/models/third"}])  # what nobody was asked is no such trial
    assert doit(folder, "to=build").code == 0


def test_the_first_treatment_is_the_same_however_the_conditions_are_ordered_in_the_file(runs):
    """It once followed the order of the file; an edited config is read from the file, a resumed one from run.json."""
    folder = tiny(runs.base / "three", CONFIG.replace("    treatment:", "    zealous: {text: Try.}\n    treatment:"))
    assert doit(folder, f"rid={RID}", "config=experiment.yaml", "to=build").code == 0
    with reading(folder) as before:
        conditions = before.workspace.trials[TRIAL].conditions
    edit(folder, "queue.max_attempts", 5)
    with reading(folder) as after:
        assert after.workspace.trials[TRIAL].conditions == conditions == ("control", "treatment", "zealous")


def test_requests_of_before_an_edit_are_not_paid_for(runs):
    """`only=submit` sent the old prompts, and what was sent cannot change."""
    folder = runs.copy("built")
    edit(folder, "prompt_sets.default.control.text", "Be brief.")
    planned = doit(folder, "plan", f"rid={RID}", "only=submit")
    assert "refuse" in planned.out
    assert "nothing would be sent" in planned.out
    index = folder / "experiments" / f"run_{RID}" / TRIAL / "batch_inputs" / "index.json"
    whole = index.read_bytes()
    index.write_bytes(whole[:40])
    damaged = doit(folder, "plan", f"rid={RID}", "only=submit")
    assert damaged.code == 0, damaged.out + damaged.err
    assert "repair  index.json: not JSON" in damaged.out
    index.write_bytes(whole)
    refused = doit(folder, "resume", f"rid={RID}", "only=submit")
    assert refused.code == 2
    assert "the requests are not those that would be built now (setting prompts.control" in refused.out
    assert f"doit resume rid={RID}" in refused.out
    assert not list(folder.rglob("ledger.jsonl"))
    done = doit(folder, "resume", f"rid={RID}", "to=submit")
    assert done.code == 0, done.out
    requests = list((folder / "experiments" / f"run_{RID}" / TRIAL / "batch_inputs").glob("t0_control_*.jsonl"))
    assert all(b"Be brief." in path.read_bytes() for path in requests)
    assert len(list(folder.rglob("ledger.jsonl"))) == 4


def test_an_old_list_of_parts_is_made_anew_where_what_was_sent_is_what_would_be_built(runs):
    """Its settings differ from the config, so it was refused, though no request was to change: pay again, it said."""
    folder = runs.copy("built")
    run = folder / "experiments" / f"run_{RID}"
    index = run / TRIAL / "batch_inputs" / "index.json"
    old = index.read_bytes()
    for place, value in (("prompt_sets.default.control.text", "Be brief."), ("models.0.id", "accounts/lab/models/new")):
        edit(folder, place, value)
    edit(folder, "models.0.alias", "small")
    assert doit(folder, "to=costs").code == 0
    before, calls = made(folder), len(history.calls(run / ".emulator"))
    index.write_bytes(old)
    assert doit(folder, "to=costs").worked == ["build"]
    assert made(folder) == before
    index.write_bytes(old)
    edit(folder, "prompt_sets.default.control.text", "Be verbose.")  # neither what was sent nor what the list is of
    assert doit(folder, "to=costs").code == 2
    assert made(folder) == {**before, f"{TRIAL}/batch_inputs/index.json": old}
    assert len(history.calls(run / ".emulator")) == calls


@pytest.mark.parametrize("harm", [Path.unlink, lambda index: index.write_bytes(b"")], ids=["gone", "empty"])
def test_the_rest_of_a_trial_is_not_sent_to_another_model_where_the_list_of_parts_is_lost(runs, harm):
    """Only the list said which model, and the requests name none: two models answered one trial."""
    folder = runs.copy("built")
    run = folder / "experiments" / f"run_{RID}"
    edit(folder, "queue.max_concurrent_jobs", 1)
    edit(folder, "emulator.job_seconds", 60)
    doit(folder, "to=submit", "wait=0")
    index = run / TRIAL / "batch_inputs" / "index.json"
    built, before = index.read_bytes(), made(folder)
    assert len(history.jobs(run / ".emulator")) == 1
    harm(index)
    edit(folder, "models.0.id", "accounts/lab/models/other")
    edit(folder, "models.0.alias", "small")
    refused = doit(folder, "to=submit", "wait=0")
    assert refused.code == 2
    assert "asked accounts/lab/models/small, not accounts/lab/models/other: set the model back" in refused.out
    edit(folder, "models.0.id", "accounts/lab/models/small")
    doit(folder, "to=submit", "wait=0")
    assert (index.read_bytes(), made(folder)) == (built, before)
    assert len(history.jobs(run / ".emulator")) == 1


def prompt_edited(folder: Path) -> None:
    edit(folder, "prompt_sets.default.control.text", "Be brief.")


def question_edited(folder: Path) -> None:
    (folder / "closed.jsonl").write_text((folder / "closed.jsonl").read_text().replace("Australia", "Austria"))


@pytest.mark.parametrize("harm", [prompt_edited, question_edited])
@pytest.mark.parametrize("listed", [True, False], ids=["with the list", "without the list"])
def test_what_was_sent_stays_as_it_was_where_the_ledgers_are_gone(runs, harm, listed):
    """Breadcrumbs and answers were left, but old answers were published as those to an edited prompt."""
    folder = runs.copy("built")
    run = folder / "experiments" / f"run_{RID}"
    edit(folder, "queue.max_concurrent_jobs", 1)
    edit(folder, "emulator.job_seconds", 60)
    doit(folder, "to=submit", "wait=0")
    for ledger in run.rglob("ledger.jsonl"):
        ledger.unlink()
    for path in run.rglob("trial_manifest.json"):
        path.unlink()  # it has the names of the jobs
    if not listed:
        (run / TRIAL / "batch_inputs" / "index.json").unlink()
    before = {path: path.read_bytes() for path in (run / "experiment.yaml", folder / "closed.jsonl")}
    built = {path.name: path.read_bytes() for path in (run / TRIAL / "batch_inputs").glob("t0*")}
    harm(folder)
    refused = doit(folder, "to=costs", "wait=0")
    assert refused.code == 2
    assert "submitted" in refused.out
    for path, content in before.items():
        path.write_bytes(content)
    doit(folder, "to=submit", "wait=0")
    assert {path.name: path.read_bytes() for path in (run / TRIAL / "batch_inputs").glob("t0*")} == built
    assert len(history.jobs(run / ".emulator")) == 1


@pytest.mark.parametrize("lost", [["run.json"], ["run.json", "ledger.jsonl"]])
def test_a_renamed_trial_is_not_paid_again_where_the_record_of_its_name_is_gone(runs, lost):
    """run.json, rebuilt from the edited config alone, knew no other name: all was built and submitted once more."""
    folder = runs.copy("finished")
    run = folder / "experiments" / f"run_{RID}"
    for path in [path for name in lost for path in run.rglob(name)]:
        path.unlink()
    edit(folder, "models.0.alias", "other")
    refused = doit(folder, "to=submit")
    assert refused.code == 2
    assert f"the submitted trial {TRIAL} is no longer in the config" in refused.out
    edit(folder, "models.0.alias", None)
    assert doit(folder).code == 0
    assert len(history.calls(run / ".emulator")) == runs.calls


# --- a run of a version that left whole numbers as they were written --------------------------------


def stored(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the run's record holds of the config, as its writer would have."""
    record = json.loads((run / "run.json").read_text())
    change(record["config"])
    (run / "run.json").write_bytes(jsonl.dumps_pretty(sealed.sealed(record)))


def test_statistics_that_failed_for_a_point_in_a_whole_number_are_made(runs):
    """A new config's `1e3` became 1000; one that was recorded before did not, and stats ended in a TypeError."""
    folder = runs.copy("finished")
    before = made(folder)
    stored(folder / "experiments" / f"run_{RID}", lambda config: config["statistics"].update(bootstrap_samples=1000.0))
    done = doit(folder, "to=stats", "force=stats")
    assert (done.code, done.worked, made(folder)) == (0, ["stats"], before)


@pytest.fixture(scope="module")
def pointed():
    """A run whose requests were submitted with `max_tokens: 100.0`, from a folder named after that."""
    with quick_folder() as base:
        folder = tiny(base / "pointed", ONE_TEMPERATURE)
        values = configuration.read(folder / "experiment.yaml").values
        older = {**values, "decoding": {"top_k": 50.0}, "sweep": {"max_tokens": [1e2]}}
        create(
            RunPaths(folder / "experiments" / f"run_{RID}"),
            configuration.Config(older, folder),
            "2026-01-01T00:00:00.000Z",
        )
        assert doit(folder, "to=submit").code == 0
        yield folder


def part_lost(run: Path) -> None:
    next(run.glob("*/batch_inputs/*_p01.jsonl")).unlink()


def list_lost(run: Path) -> None:
    next(run.glob("*/batch_inputs/index.json")).unlink()


def saved_anew(run: Path) -> None:
    text = (run / "experiment.yaml").read_text()
    assert (text.count("100.0"), text.count("50.0")) == (1, 1)
    (run / "experiment.yaml").write_text(text.replace("100.0", "100").replace("50.0", "50"))


def record_lost(run: Path) -> None:
    (run / "run.json").unlink()


def config_lost(run: Path) -> None:
    (run / "experiment.yaml").unlink()


@pytest.mark.parametrize(
    "harms", [[part_lost], [list_lost], [saved_anew, part_lost], [record_lost, part_lost], [config_lost, part_lost]]
)
def test_what_was_sent_with_a_point_is_built_again_as_it_was_and_never_sent_again(pointed, tmp_path, harms):
    """With 100 it was another trial: refused once its yaml was saved anew, paid again once its record was lost."""
    folder = shutil.copytree(pointed, tmp_path / "copy", symlinks=True)
    run = folder / "experiments" / f"run_{RID}"
    calls, before = len(history.calls(run / ".emulator")), made(folder)
    for what in harms:
        what(run)
    assert doit(folder, "to=submit").code == 0
    assert made(folder) == before
    assert len(history.calls(run / ".emulator")) == calls
