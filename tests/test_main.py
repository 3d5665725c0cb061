"""`python -m pipeline`: every command as text and as JSON, its exit code, its errors; those that look write nothing."""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import webbrowser
from pathlib import Path

import earlier_tool
import emulator_kit
import pytest
import run_kit

from pipeline import __main__ as program
from pipeline import errors, lock, yaml_text
from pipeline.plain import visible

RID, TRIAL = run_kit.RID, run_kit.TRIAL
# A soft hyphen, a control of the second kind, a tag and a line end of Unicode, as text copied from the web may hold.
UNSEEN = "Answer\xad brief\x85ly,  with é and 漢字\U000e0041.\u2028Then stop. \\"
CONFIG = run_kit.CONFIG.replace("Answer briefly.", f'"{UNSEEN.encode("unicode_escape").decode()}"')
CONFIG = CONFIG.replace("name: tiny", 'name: "ti\\xadny"')


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run. Its environment is nobody's."""
    folder = run_kit.tiny(tmp_path_factory.mktemp("runs"), CONFIG)
    ran = run_kit.doit(folder, f"rid={RID}", "config=experiment.yaml", "poll=0.05")
    assert ran.code == 0, ran.out + ran.err
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No settings, key or browser of the person who tests."""
    for name in [name for name in os.environ if name.startswith(("TRIALMAKE_", "FIREWORKS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(webbrowser, "open", lambda _url: False)


@pytest.fixture
def call(finished, monkeypatch, capsys):
    """(exit code, standard output, standard error) of a command given in the finished run's folder."""
    monkeypatch.chdir(finished)

    def run(*words):
        code = program.main([*words])
        return code, *capsys.readouterr()

    return run


# What each command that looks says of the finished run: arguments, a piece of the text, a piece of the JSON.
LOOKS = {
    "runs": ([], f"{RID} ", lambda said: said[0]["rid"] == RID),
    "status": ([], "predictions.csv: 40 rows", lambda said: len(said["cells"]) == 11),
    "status RID": ([RID], f"run {RID} in experiments/run_{RID}", lambda said: said["jobs"][TRIAL] == {"downloaded": 8}),
    "explain": ([], "no  The user asked for it. (forced)", lambda said: said[0]["phase"] == "prepare"),
    "explain PHASE": (["score"], "per_item_scores.csv  ", lambda said: [cell["phase"] for cell in said] == ["score"]),
    "explain ALL": ([RID, "score", TRIAL], ", as recorded", lambda said: said[0]["trial"] == TRIAL),
    "plan": ([], "nothing would be sent", lambda said: said["requests"] == 0),
    "open": ([], "index.html (no browser", lambda said: Path(said["path"]).is_file()),
    "doctor": ([], "ready: doit plan", lambda said: all(finding["ok"] for finding in said)),
    "config show": ([], "samples_per_item: 2", lambda said: said["samples_per_item"] == 2),
    "config check": ([], f"valid; trials: {TRIAL}", lambda said: said["trials"] == [TRIAL]),
    "config settings": ([], "statistics.seed ", lambda said: len(said) > 50),
    "compare": (
        [f"{RID}::control", RID], "minus tiny::control", lambda said: said["treatment"] == RID,
    ),
    "power": ([RID, "--delta", "0.03"], "to show 0.03", lambda said: "0.03" in said["by_samples"][0]["items_needed"]),
    "manifest check": (
        [f"experiments/run_{RID}/{TRIAL}/results/trial_manifest.json"],
        "changes nothing", lambda said: "valid" in said["says"][0],
    ),
    "manifest migrate": (
        [f"experiments/run_{RID}/{TRIAL}/results/trial_manifest.json"],
        "nothing was changed", lambda said: "valid" in said["says"][0],
    ),
}  # fmt: skip


def test_without_the_environment_it_says_so_in_two_lines():
    """The last line of `make smoke`, typed before the environment was active, ended in a traceback."""
    ran = subprocess.run(
        [sys.executable, "-S", "-m", "pipeline", "open"],
        cwd=Path(program.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "the project's environment is not active, or older than the code.\nNext: make setup" in ran.stderr


@pytest.mark.parametrize("name", LOOKS)
def test_a_command_that_looks_says_what_there_is_and_writes_nothing(finished, call, name):
    arguments, text, holds = LOOKS[name]
    words = [word for word in name.split() if word.islower()] + arguments
    before = run_kit.files(finished)
    code, out, err = call(*words)
    assert (code, err) == (0, "")
    assert text in out
    code, out, err = call(*words, "--json")
    assert (code, err) == (0, "")
    assert holds(json.loads(out))
    assert visible(out) == out
    assert run_kit.files(finished) == before


def test_every_command_is_tried_here():
    [commands] = [action.choices for action in program._parser()._actions if action.dest == "command"]
    assert set(commands) == {name.split()[0] for name in LOOKS} | {"init", "completion", "emulate", "orphans"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stauts"], errors.EXIT_USAGE, "; did you mean 'status'?"),
        (["xyzzy"], errors.EXIT_USAGE, "invalid choice: 'xyzzy'"),
        (["runs", "extra"], errors.EXIT_USAGE, "unrecognized arguments: extra"),
        (["compare", "one"], errors.EXIT_USAGE, "required: second"),
        (["power", "--items", "many"], errors.EXIT_USAGE, "--items"),
        (["power"], errors.EXIT_USAGE, "name a finished run"),
        (["power", RID, "--omega2", "1"], errors.EXIT_USAGE, "one of the two"),
        (["power", "--omega2", "0.1", "--type", "open"], errors.EXIT_USAGE, "choose variances of a finished run"),
        (["status", "nope"], errors.EXIT_USAGE, f"Runs there are: {RID}."),
        (["status", "../x"], errors.EXIT_USAGE, "there is no run '../x'"),
        (["status", ""], errors.EXIT_USAGE, "there is no run ''"),
        (["status", "x" * 300], errors.EXIT_USAGE, "at most 64"),
        (["status", f"{RID}/{TRIAL}"], errors.EXIT_USAGE, f"there is no run '{RID}/{TRIAL}'"),
        (["explain", f"{RID}/{TRIAL}", "score"], errors.EXIT_USAGE, "there is no run"),
        (["plan", f"{RID}/{TRIAL}"], errors.EXIT_USAGE, "there is no run"),
        (["open", f"{RID}/{TRIAL}"], errors.EXIT_USAGE, "there is no run"),
        (["compare", f"{RID}/{TRIAL}", RID], errors.EXIT_USAGE, "there is no run"),
        (["power", "x" * 300], errors.EXIT_USAGE, "there is no run"),
        (["manifest", "check", f"experiments/run_{RID}"], errors.EXIT_USAGE, "is a folder"),
        (["manifest", "migrate", "experiments"], errors.EXIT_USAGE, "is a folder"),
        (["explain", RID, "scores"], errors.EXIT_USAGE, "phases are: prepare, build"),
        (["explain", RID, "score", "nope"], errors.EXIT_USAGE, f"trials are: {TRIAL}"),
        (["manifest", "check", "nope.json"], errors.EXIT_USAGE, "there is no manifest"),
        (["config", "check", "nope.yaml"], errors.EXIT_ERROR, "there is no such config file"),
        (["doctor", "nope.yaml"], errors.EXIT_FAILED, None),
        ([], errors.EXIT_USAGE, None),
    ],
)
def test_what_cannot_be_meant_is_one_message_and_an_exit_code(call, words, code, said):
    found, _, err = call(*words)
    assert found == code
    if said is not None:
        assert err.startswith("ERROR: ")
        assert said in err
        assert "Traceback" not in err


@pytest.mark.parametrize("command", ["status", "explain", "open"])
def test_before_the_first_run_there_is_nothing_to_look_at(tmp_path, monkeypatch, capsys, command):
    """A run that did not exist was once shown, with the time of asking as its name."""
    monkeypatch.chdir(tmp_path)
    assert program.main([command]) == errors.EXIT_USAGE
    assert "no run here yet.\nNext: doit starts one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_run_the_plan_says_what_it_would_be_made_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run_kit.tiny(tmp_path))
    assert program.main(["plan"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("a new run would be made from experiment.yaml\n")
    assert "40 requests would be sent" in text
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("limit", "provider", "prices", "said"),
    [
        ("5", "emulator", {}, "budget.max_usd = $5.00 allows it: at most $0.00"),
        ("0.000001", "emulator", None, "budget.max_usd = $0.000001 would stop it: at most $0.0"),
        ("5", "fireworks", {}, "budget.max_usd cannot be kept without a price"),
    ],
)
def test_the_plan_says_what_the_budget_would(tmp_path, monkeypatch, capsys, limit, provider, prices, said):
    monkeypatch.chdir(run_kit.tiny(tmp_path))
    monkeypatch.setenv("TRIALMAKE_BUDGET__MAX_USD", limit)
    monkeypatch.setenv("TRIALMAKE_PROVIDER", provider)
    if prices is not None:
        monkeypatch.setenv("TRIALMAKE_PRICES__MODELS", json.dumps(prices))
    assert program.main(["plan"]) == 0
    assert said in capsys.readouterr().out


def test_a_phase_may_stand_where_the_run_is_left_out(call, finished, tmp_path, monkeypatch):
    """Unless a run has that very name."""
    assert call("explain", "parse")[1].startswith(f"parse  {TRIAL}  skip")
    assert call("explain", "parse", TRIAL)[1].startswith(f"parse  {TRIAL}  skip")
    shutil.copytree(finished / "experiments" / f"run_{RID}", tmp_path / "experiments" / "run_parse")
    monkeypatch.chdir(tmp_path)
    code, _, err = call("explain", "parse")
    assert code == errors.EXIT_ERROR
    assert "its folder is called 'run_parse'" in err


def test_a_phase_where_no_run_may_be_looked_for_is_told_as_such(call, tmp_path, monkeypatch):
    """`explain score` beside another user's experiments/ was said to be a bug."""
    call("explain", "score")  # what is imported by it may not be readable for whoever else one becomes
    (tmp_path / "experiments").mkdir(mode=0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    try:
        if os.getuid() == 0:  # whom no permission stops
            os.seteuid(65534)
        code, _, err = call("explain", "score")
    finally:
        os.seteuid(os.getuid())
    assert (code, "cannot be read (Permission denied)" in err) == (errors.EXIT_ERROR, True)


def test_open_shows_the_page_in_a_browser(call, monkeypatch):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda url: shown.append(url) or True)
    code, out, _ = call("open")
    assert (code, out) == (0, f"experiments/run_{RID}/index.html\n")
    assert shown == [Path(f"experiments/run_{RID}/index.html").resolve().as_uri()]


def test_open_before_the_pages_are_there_says_how_to_get_them(call, finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "experiments", tmp_path / "experiments")
    (tmp_path / "experiments" / f"run_{RID}" / "index.html").unlink()
    monkeypatch.chdir(tmp_path)
    code, _, err = call("open")
    assert code == errors.EXIT_NOT_READY
    assert f"Next: doit resume rid={RID}" in err


def test_settings_of_the_environment_are_part_of_the_effective_config(call, monkeypatch):
    monkeypatch.setenv("TRIALMAKE_STATISTICS__SEED", "42")
    assert json.loads(call("config", "show", "--json")[1])["statistics"]["seed"] == 42


def test_what_config_show_prints_is_a_config(call, tmp_path):
    (tmp_path / "experiment.yaml").write_text(call("config", "show")[1])
    for name in ("closed.jsonl", "open.jsonl"):
        shutil.copy(name, tmp_path)
    assert call("config", "check", str(tmp_path / "experiment.yaml"))[0] == 0


def test_config_show_prints_a_prompt_that_reads_back_as_the_same(call):
    """A soft hyphen came out as the four characters `\\xad`: as a config another prompt, and no JSON at all."""
    _, as_yaml, _ = call("config", "show")
    _, as_json, _ = call("config", "show", "--json")
    assert visible(as_yaml) == as_yaml
    for shown in (yaml_text.load(as_yaml, where="shown"), json.loads(as_json)):
        assert shown["name"] == "ti\xadny"
        assert shown["prompt_sets"]["default"]["control"]["text"] == UNSEEN


def test_an_encoding_that_lacks_a_character_stops_no_command(finished, tmp_path):
    """A note on a path with an umlaut ended `doit` in a traceback, and `runs` said "This is a bug"."""
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    local = folder / "experiment.yaml"
    local.write_text(local.read_text().replace("open.jsonl", "öpen.jsonl").replace("ti\\xadny", "Grüße 漢"))
    shutil.copy(folder / "open.jsonl", folder / "öpen.jsonl")

    def run(*words):
        surroundings = {**run_kit.environment(), "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, "-m", *words]
        ran = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, b"")
        return ran.stdout.decode("ascii")

    assert r"sources[1].path: open.jsonl -> \xf6pen.jsonl" in run("doit", "only=prepare")
    assert r"ti\xadny" in run("pipeline", "runs")
    shown = yaml_text.load(run("pipeline", "config", "show"), where="shown")
    assert shown["name"] == "Grüße 漢"
    assert shown["prompt_sets"]["default"]["control"]["text"] == UNSEEN
    assert json.loads(run("pipeline", "config", "show", "--json")) == shown


def test_a_runs_frozen_config_is_read_where_the_original_lay(call):
    """A refused run advises to start the next one from it; its question files were then looked for beside it."""
    frozen = f"experiments/run_{RID}/experiment.yaml"
    assert call("config", "check", frozen)[0] == 0
    code, out, _ = call("doctor", frozen)
    assert code == 0
    assert "source open: 3 items" in out


def test_init_makes_a_folder_and_says_what_comes_next(call, tmp_path):
    code, out, _ = call("init", str(tmp_path / "new"))
    assert code == 0
    assert out.splitlines()[-1] == f"Next: cd {tmp_path / 'new'} && doit plan && doit"
    code, _, err = call("init", str(tmp_path / "new"))
    assert code == errors.EXIT_USAGE
    assert "Nothing was written." in err
    assert json.loads(call("init", str(tmp_path / "newer"), "--json")[1])[0] == str(
        tmp_path / "newer" / "experiment.yaml"
    )


def test_doctor_fails_as_a_whole_when_a_check_does(call, tmp_path):
    config = Path("experiment.yaml").read_text().replace("path: open.jsonl", "path: gone.jsonl")
    Path("broken.yaml").write_text(config)
    code, out, _ = call("doctor", "broken.yaml")
    Path("broken.yaml").unlink()
    assert code == errors.EXIT_FAILED
    assert "FAIL  source open: gone.jsonl" in out
    assert out.splitlines()[-1].startswith("1 of ")


def test_doctor_asks_the_service(call, tmp_path, monkeypatch):
    """The command as a user gives it; the checks themselves are in test_doctor.py."""
    with emulator_kit.started(tmp_path / "store") as service:
        config = Path("experiment.yaml").read_text().replace("provider: emulator", "provider: fireworks")
        config = config.replace("accounts/lab/models", "accounts/fireworks/models")
        Path("real.yaml").write_text(config + f"fireworks: {{base_url: {service.url}}}\n")
        monkeypatch.setenv("FIREWORKS_API_KEY", "emulator-key")
        code, out, _ = call("doctor", "real.yaml")
        Path("real.yaml").unlink()
    assert code == 0, out
    assert "ok    key: accepted by the service" in out


def test_a_program_gets_an_error_as_json_too(call, tmp_path, monkeypatch):
    """A run of the earlier tool that was not taken over yet ended with a message and no document."""
    earlier_tool.Folder(run_kit.tiny(tmp_path) / "experiments" / "run_old").build()
    monkeypatch.chdir(tmp_path)
    before = run_kit.tree(tmp_path)
    for command in ("status", "plan", "explain", "orphans"):
        code, out, err = call(command, "old", "--json")
        told = json.loads(out)
        assert (told["exit_code"], told["error"], told["next"]) == (code, "Refused", "doit resume rid=old")
        assert "parts have all their answers" in told["kept"]
        assert told["kept"] in err
    ran = run_kit.doit(tmp_path, "plan", "rid=old", "json=1")
    assert (json.loads(ran.out)["what"], ran.code) == (told["what"], code)
    assert run_kit.tree(tmp_path) == before


def test_orphans_are_listed_and_adopted(call, finished, tmp_path, monkeypatch):
    """The command as a user gives it; what is whose is told in test_orphans.py."""
    shutil.copytree(finished / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    assert "no orphans" in call("orphans")[1]
    Path(f"experiments/run_{RID}/{TRIAL}/results/t0_control_p01/ledger.jsonl").unlink()
    before = run_kit.files(tmp_path / "experiments" / f"run_{RID}" / TRIAL)
    with lock.only_writer(Path(f"experiments/run_{RID}/run.lock"), f"run {RID}"):  # as while a doit waits
        listed = json.loads(call("orphans", RID, "--json")[1])
    assert run_kit.files(tmp_path / "experiments" / f"run_{RID}" / TRIAL) == before
    assert {orphan["verdict"] for orphan in listed["orphans"]} == {"wanted"}
    code, _, err = call("orphans", RID, "--delete")
    assert code == errors.EXIT_ERROR
    assert "Nothing was deleted." in err
    [job] = [orphan["id"] for orphan in listed["orphans"] if orphan["kind"] == "job"]
    assert f"adopted {job}" in call("orphans", RID, "--adopt")[1]
    assert "no orphans" in call("orphans", RID)[1]


def test_orphans_takes_no_trial_for_a_run(call, finished, tmp_path, monkeypatch):
    """`orphans RID/TRIAL` took the trial's folder over as a run of the earlier tool, and wrote a config into it."""
    shutil.copytree(finished / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    before = run_kit.tree(tmp_path)
    code, _, err = call("orphans", f"{RID}/{TRIAL}")
    assert (code, f"there is no run '{RID}/{TRIAL}'" in err) == (errors.EXIT_USAGE, True)
    assert run_kit.tree(tmp_path) == before


def test_a_run_of_another_name_that_is_there_can_be_looked_at(call, finished, tmp_path, monkeypatch):
    """doit takes no such name; what stands in the folder is told all the same."""
    earlier_tool.Folder(tmp_path / "experiments" / "run_my pilot").build()
    monkeypatch.chdir(tmp_path)
    code, _, err = call("status", "my pilot")
    assert (code, "is a run of the earlier tool" in err) == (errors.EXIT_ERROR, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, ""),
        ([], errors.EXIT_USAGE, "required: --store"),
        (["--store", "new", "--port", "x"], errors.EXIT_USAGE, "argument --port: invalid int value: 'x'"),
        (["--store", "experiment.yaml"], errors.EXIT_USAGE, "experiment.yaml: is no folder.\nNext: name a new one"),
        (["--store", "new", "--port", "99999"], errors.EXIT_USAGE, "--port: there is no such port (bind(): port must"),
        (["--store", "new", "--port", "TAKEN"], errors.EXIT_ERROR, "cannot be used (Address already in use)"),
    ],
)
def test_an_emulator_that_cannot_start_says_why(tmp_path, monkeypatch, capsys, words, code, said):
    """A file for a store and a port above 65535 were "a bug", and a mistyped word had the exit code of an error."""
    monkeypatch.chdir(run_kit.tiny(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = [word.replace("TAKEN", str(other.getsockname()[1])) for word in words]
        assert program.main(["emulate", *words]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_prints_a_script(call, shell):
    code, out, _ = call("completion", shell)
    assert code == 0
    assert "_trialmake_doit doit" in out


def test_a_manifest_of_the_earlier_tool_is_migrated_once(call, tmp_path):
    path = earlier_tool.Folder(tmp_path / "run_old", age=1).build().manifest
    before = path.read_bytes()
    assert "earlier tool's" in call("manifest", "check", str(path))[1]
    assert path.read_bytes() == before
    assert "kept as" in call("manifest", "migrate", str(path))[1]
    assert json.loads(path.read_bytes())["schema_version"] == 2
    [backup] = path.parent.glob("trial_manifest.json.backup.*.json")
    assert backup.read_bytes() == before
    assert "changes nothing" in call("manifest", "check", str(path))[1]


def test_an_unforeseen_error_is_one_line_and_its_place_on_request(call, monkeypatch):
    views = importlib.import_module("pipeline.views")
    monkeypatch.setattr(views, "runs", lambda: 1 / 0)
    code, _, err = call("runs")
    assert code == errors.EXIT_ERROR
    assert err == "ERROR: ZeroDivisionError: division by zero\nThis is a bug; --debug shows where.\n"
    assert "Traceback" in call("--debug", "runs")[2]
    assert "Traceback" in call("runs", "--debug")[2]


def test_a_reader_that_goes_away_is_no_trouble(finished):
    """`... | head -1` once ended with Python's own words on a broken pipe."""
    command = [sys.executable, "-c", "import sys; sys.argv = ['x', 'config', 'settings']; "
               "import runpy; runpy.run_module('pipeline', run_name='__main__')"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(program.__file__).parents[1])}
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, cwd=finished, env=environment) as process:
        os.close(writing)
        assert process.stderr.read() == b""
    assert process.returncode == errors.EXIT_FAILED
