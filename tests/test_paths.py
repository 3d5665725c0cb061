"""Every file has one name, and no id from outside leads out of the run's folder."""

from functools import cached_property
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import paths
from pipeline.paths import PartPaths, RunPaths, TrialPaths

RUN = RunPaths.of("r1", Path("experiments"))
TRIAL = RUN.trial("m-default")


def files_of(place):
    names = [name for name, value in vars(type(place)).items() if isinstance(value, cached_property)]
    return [getattr(place, name) for name in names]


def test_the_tree_in_the_docstring_shows_every_file():
    """It is the only map of a run's folder; a name that is not on it cannot be found."""
    part = TRIAL.part("t0_control_p01")
    every = [*files_of(RUN), *files_of(TRIAL), *files_of(part)]
    every += [part.attempt_requests(2), part.success_rows(1), part.error_rows(1), TRIAL.part_requests(part.root.name)]
    assert len(every) == len(set(every)) > 30
    missing = [path.name for path in every if path.name.replace("m-default", "<trial>") not in paths.__doc__]
    assert missing == []


@pytest.mark.parametrize("text", ["a", "r20260101000000", "A.b_c-1", "0", "x" * 64])
def test_what_may_name_a_run(text):
    assert paths.is_rid(text)
    assert RunPaths.of(text).rid == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "../x", "a/b", "a\\b", "-a", "_a", ".a", "a b", "a\n", "a\x00", "ä", "x" * 65, "a*", "run|1", "~"],
)
def test_what_may_not_name_a_run(text):
    assert not paths.is_rid(text)


@given(st.text(max_size=10) | st.text("./\\-_aA0", max_size=8))
@settings(max_examples=200)
def test_no_id_leads_out_of_the_folder_of_runs(text):
    if paths.is_rid(text):
        root = RunPaths.of(text, Path("/e")).root
        assert root.parent == Path("/e")
        assert Path(str(root)).resolve().parent == Path("/e")


def test_runs_are_listed_by_name_and_nothing_else_is(tmp_path):
    for name in ("run_b", "run_a", "other", ".run_c"):
        (tmp_path / name).mkdir()
    (tmp_path / "run_file").write_text("")
    assert [run.rid for run in paths.runs(tmp_path)] == ["a", "b"]
    assert paths.runs(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_records_name_files_relative_to_the_run():
    assert TRIAL.relative(TRIAL.predictions) == "m-default/results/predictions.csv"
    assert TRIAL.relative(TRIAL.part("t0_a_p01").results) == "m-default/results/t0_a_p01/results.jsonl"
    assert TRIAL.slug == "m-default"
    assert TrialPaths(RUN.root / "m-default") == TRIAL


def test_several_raw_files_of_one_kind_have_names_of_their_own():
    names = [paths.raw_file(Path("a1"), errors=errors, number=n).name for errors in (False, True) for n in (1, 2, 10)]
    assert names == [
        "BIJOutputSet.jsonl", "BIJOutputSet.2.jsonl", "BIJOutputSet.10.jsonl",
        "error-data", "error-data.2", "error-data.10",
    ]  # fmt: skip
    part = PartPaths(Path("p"))
    assert (part.success_rows(3), part.error_rows(3)) == (Path("p/a3/BIJOutputSet.jsonl"), Path("p/a3/error-data"))


def test_what_is_shipped_is_found():
    for name in ("schemas/experiment.schema.json", "schemas/trial_manifest.v2.json", "examples/experiment.yaml"):
        assert paths.resource(name).is_file()
