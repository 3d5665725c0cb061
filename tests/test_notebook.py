"""`load_run` gives what is on disk, to the last digit and character, and the example notebook runs on it."""

import csv
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import report_kit
import run_kit
from report_kit import EVIL, Failure, closed, make, open_book

from pipeline import load_run, runs
from pipeline.errors import NotReady, UnknownRun, UsageError
from pipeline.notebook import METRICS
from pipeline.paths import RunPaths

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = [*EVIL, "NA", "null", "nan", "", "'quoted", "=1+1", "1e5", "two\r\nlines\rand a tab\t"]


def answer(request, row):
    number = int(request.item_id[1:])
    if number == 3 and request.sample_index == 0:
        return Failure("lost")
    return TEXTS[(number + request.sample_index) % len(TEXTS)] if number < len(TEXTS) else row["answers"][0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two trials; most answers are such as a reader of CSV might change."""
    folder = tmp_path_factory.mktemp("runs") / "experiments"
    items = [*map(closed, range(1, 21)), *(open_book(number) for number in range(1, 10))]
    made = make(folder, answer, items=items, samples=3, temperatures=(0, 0.7), models=("lab/model-a", "lab/model-b"))
    runs.create(made.run, made.config, "2026-01-01T00:00:00.000Z")
    return made


@pytest.fixture
def run(made):
    return load_run("lab", made.run.root.parent)


@pytest.fixture
def trial(run):
    return run.trials["model-a-set"]


def rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_run_is_found_by_name_and_the_latest_without(made, monkeypatch):
    monkeypatch.chdir(made.run.root.parent.parent)
    assert load_run().rid == load_run("lab").rid == "lab"
    assert load_run().config["name"] == "Does it help?"
    with pytest.raises(UnknownRun, match="Runs there are: lab"):
        load_run("nope")


def test_a_run_is_shown_in_a_line_or_two(run):
    """A cell that ends with it showed the whole config, prompts included."""
    assert "samples_per_item" in run.config
    assert "samples_per_item" not in repr(run)
    assert all(slug in repr(run) for slug in run.trials)


def test_reading_writes_nothing(made, run):
    before = run_kit.tree(made.run.root)
    for trial in run.trials.values():
        for name in ("predictions", "scores", "deltas", "significance", "costs"):
            assert len(getattr(trial, name))
    assert len(run.items) == 29
    assert run_kit.tree(made.run.root) == before


def test_a_trial_is_named_where_there_are_several(run):
    with pytest.raises(UsageError, match="has 2 trials"):
        _ = run.trial
    assert run.trials["model-b-set"].slug == "model-b-set"


def test_answers_are_exactly_what_the_model_wrote(run, trial):
    golds = run.items.set_index(["dataset", "item_id"]).answers
    for row in trial.predictions.itertuples():
        request = report_kit.RequestId(row.dataset, row.item_id, row.condition, row.temp, row.sample_index, row.type)
        expected = answer(request, {"answers": golds[row.dataset, row.item_id]})
        found = None if pd.isna(row.response_text) else row.response_text
        assert found == (None if isinstance(expected, Failure) else expected)
    assert set(trial.predictions.status) == {"ok", "error"}


def test_numbers_are_those_of_the_file_and_empty_is_nan(made, trial):
    for column in ("em", "f1_std", "false_answer_rate", "n_samples", "consistency"):
        written = [row[column] for row in rows(made.paths.scores)]
        assert ["" if math.isnan(value) else repr(float(value)) for value in trial.scores[column].astype(float)] == [
            "" if cell == "" else repr(float(cell)) for cell in written
        ]
    closed_book = trial.scores[trial.scores.type == "closed"]
    assert closed_book.false_answer_rate.isna().all()


def test_deltas_are_treatment_minus_control_item_by_item(trial):
    scores = trial.scores.set_index(["item_key", "temp", "condition"]).em
    assert len(trial.deltas) == len(trial.scores) / 2
    for row in trial.deltas.itertuples():
        key = (f"{row.dataset}|{row.item_id}", row.temp)
        assert row.em == round(scores[(*key, "treatment")] - scores[(*key, "control")], 12)
    assert set(trial.deltas.treatment) == {"treatment"}


def test_their_means_are_the_reports(trial):
    for temp, types in trial.significance["results"].items():
        for kind, block in types.items():
            deltas = trial.deltas[(trial.deltas.temp == float(temp)) & (trial.deltas.type == kind)]
            for metric in METRICS:
                if metric in block["metrics"]:
                    assert deltas[metric].mean() == pytest.approx(block["metrics"][metric]["delta_mean"], abs=1e-10)


def test_what_is_not_there_yet_is_named_with_the_command(made, tmp_path):
    shutil.copytree(made.run.root, tmp_path / "run_lab")
    shutil.rmtree(tmp_path / "run_lab" / "model-a-set" / "results")
    trial = load_run("lab", tmp_path).trials["model-a-set"]
    for name in ("predictions", "scores", "deltas", "significance", "costs"):
        with pytest.raises(NotReady, match="doit resume rid=lab"):
            getattr(trial, name)


def test_the_earlier_tools_tables_are_read_as_they_are(made, tmp_path):
    """They have fewer columns, and no guard: a leading ' belongs to the answer."""
    shutil.copytree(made.run.root, tmp_path / "run_lab")
    files = RunPaths.of("lab", tmp_path).trial("model-a-set")
    files.predictions.write_text(
        "custom_id,dataset,item_id,response_text,temp\r\nd|1|control|0.0|0|closed,d,1,'tis,0.0\r\n"
    )
    files.scores.write_text(
        "abstain_rate,abstain_rate_std,condition,em,em_std,item_key,temp,type\r\n"
        "0.0,,control,0.0,,d|1|x,0.0,closed\r\n0.0,,treatment,1.0,,d|1|x,0.0,closed\r\n"
    )
    trial = load_run("lab", tmp_path).trials["model-a-set"]
    assert list(trial.predictions.response_text) == ["'tis"]
    [delta] = trial.deltas.to_dict("records")
    assert (delta["dataset"], delta["item_id"], delta["em"]) == ("d", "1|x", 1.0)
    assert math.isnan(delta["f1"])


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, pipeline; print({'pandas', 'numpy', 'scipy', 'doit', 'requests'} & set(sys.modules))"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout == "set()\n"


def test_the_example_notebook_reproduces_a_number_of_the_report(quick_path, monkeypatch, capsys):
    (quick_path / "dodo.py").write_bytes((EXAMPLES.parent / "dodo.py").read_bytes())
    monkeypatch.setenv("TRIALMAKE_EMULATOR__JOB_SECONDS", "0")
    ran = run_kit.doit(quick_path, "rid=example", f"config={EXAMPLES / 'experiment.yaml'}", "limit=40", "poll=0.05")
    assert ran.code == 0, ran.out + ran.err
    monkeypatch.chdir(quick_path)
    monkeypatch.setattr(sys, "argv", ["notebook.py"])
    runpy.run_path(str(EXAMPLES / "notebook.py"))  # it asserts by itself that both agree
    by_hand, in_report = capsys.readouterr().out.splitlines()[-2:]
    assert by_hand.split(maxsplit=2)[2] == in_report.split(maxsplit=2)[2]
    points = f"{100 * float(in_report.split()[2].rstrip(',')):+.1f} points"
    assert points in next((quick_path / "experiments/run_example").glob("*/reports/report.md")).read_text()
