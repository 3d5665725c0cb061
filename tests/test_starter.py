"""`init` gives a folder from which the first experiment runs, and overwrites nothing."""

import json
import shutil

import pytest
import run_kit

from pipeline import config, doctor, starter
from pipeline.errors import UnreadableFile, UsageError


def test_the_folder_it_makes_is_checked_planned_and_run_as_it_is(quick_path, monkeypatch):
    folder = quick_path / "new" / "mine"
    starter.init(folder)
    monkeypatch.chdir(folder)
    written = folder / "experiment.yaml"
    assert [finding for finding in doctor.examine(written) if not finding.ok] == []
    assert config.read(written)["provider"] == "emulator"
    plan = run_kit.doit(folder, "plan")
    assert plan.code == 0, plan.err
    assert "8 requests would be sent" in plan.out
    assert not (folder / "experiments").exists()
    ran = run_kit.doit(folder, "rid=first", "config=experiment.yaml")
    assert ran.code == 0, ran.out + ran.err
    assert (folder / "experiments/run_first/index.html").is_file()
    assert run_kit.doit(folder).worked == []


def test_an_editor_finds_the_schema_beside_the_config(tmp_path):
    starter.init(tmp_path)
    first = (tmp_path / "experiment.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=experiment.schema.json"
    assert json.loads((tmp_path / "experiment.schema.json").read_text())["title"] == "Trialmake experiment"


def test_keys_and_runs_stay_out_of_version_control(tmp_path):
    starter.init(tmp_path)
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert {".env", "experiments/"} <= set(ignored)


def test_a_gitignore_of_ones_own_is_kept(tmp_path):
    (tmp_path / ".gitignore").write_text("mine\n")
    assert ".gitignore" not in {path.name for path in starter.init(tmp_path)}
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["experiment.yaml", "dodo.py", "prompts/control.txt"])
def test_what_is_there_is_kept_and_nothing_is_put_beside_it(tmp_path, name):
    starter.init(tmp_path / "other")
    (tmp_path / "mine" / name).parent.mkdir(parents=True)
    shutil.copy(tmp_path / "other" / name, tmp_path / "mine" / name)
    before = run_kit.tree(tmp_path / "mine")
    with pytest.raises(UsageError, match="is there already"):
        starter.init(tmp_path / "mine")
    assert run_kit.tree(tmp_path / "mine") == before


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_no_folder(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file is a file"):
        starter.init(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_is_too_long_is_told(tmp_path):
    with pytest.raises(UnreadableFile, match="File name too long"):
        starter.init(tmp_path / ("x" * 300))
