"""`doctor` finds what would stop a run before it starts, says what to do, and neither writes nor submits anything."""

import shutil
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import emulator_kit
import pytest
import run_kit
from scripted_server import ScriptedServer, error, json_answer

from pipeline import doctor
from pipeline.emulator.config import DEFAULT_KEY
from pipeline.paths import resource

MODEL = "accounts/fireworks/models/small"
CONFIG = f"""\
provider: fireworks
models: [{{id: {MODEL}}}]
prompt_sets: {{default: {{control: {{text: Answer.}}, treatment: {{text: Answer well.}}}}}}
sources: [{{dataset: closed, format: jsonl, path: closed.jsonl}}]
prices: {{models: {{small: {{input_per_mtok: 1, output_per_mtok: 2}}}}}}
budget: {{max_usd: 5}}
fireworks: {{base_url: "URL"}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in which a run could start, and an environment without keys or settings of the person who tests."""
    for name in ("FIREWORKS_API_KEY", "FIREWORKS_ACCOUNT_ID", "TRIALMAKE_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(run_kit.tiny(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    """The service: an emulator with a job that runs."""
    with emulator_kit.started(tmp_path_factory.mktemp("store")) as running, emulator_kit.Api(running.url) as api:
        api.dataset("in", [emulator_kit.row()])
        assert api.create_job("theirs").status_code == 200
        yield api


def examine(folder, config=CONFIG, url="https://service.invalid", key=DEFAULT_KEY):
    """name -> finding; nothing but the test itself may have written into *folder*."""
    (folder / "experiment.yaml").write_text(config.replace("URL", url))
    if key:
        (folder / ".env").write_text(f"FIREWORKS_API_KEY={key}\n")
    before = run_kit.tree(folder)
    findings = doctor.examine(folder / "experiment.yaml", sleep=lambda _seconds: None)
    assert run_kit.tree(folder) == before
    assert not key or key not in "\n".join(doctor.as_text(findings))
    return {finding.name: finding for finding in findings}


def failures(found):
    return [name for name, finding in found.items() if finding.ok is False]


# --- the service ------------------------------------------------------------------------------------


def test_all_is_well(folder, emulator):
    calls = len(emulator.calls())
    found = examine(folder, url=emulator.url)
    assert failures(found) == []
    assert found["account"].says == "emulator"
    assert found[f"model {MODEL}"].says == "known"
    assert found["quota"].says.startswith("1 unfinished job")
    assert "firectl quota list" in found["quota"].advice
    assert found["clock"].ok
    assert {call["method"] for call in emulator.calls()[calls:]} == {"GET"}  # nothing that could cost money


def test_an_editor_s_copy_of_the_schema_that_is_out_of_date(folder):
    (folder / "experiment.schema.json").write_bytes(resource("schemas/experiment.schema.json").read_bytes())
    assert "schema" not in examine(folder, key="")
    (folder / "experiment.schema.json").write_text("{}")
    found = examine(folder, key="")
    assert (found["schema"].ok, "pipeline init" in found["schema"].advice) == (None, True)


def test_no_key(folder):
    found = examine(folder, key="")
    assert failures(found) == ["key"]
    assert ".env" in found["key"].advice


def test_a_key_the_service_refuses(folder, emulator):
    found = examine(folder, url=emulator.url, key="fw_wrong")
    assert failures(found) == ["key"]
    assert "FIREWORKS_API_KEY" in found["key"].advice


def test_a_model_the_service_does_not_know(folder, emulator):
    found = examine(folder, CONFIG.replace(f"id: {MODEL}", "id: accounts/fireworks/modles/small"), url=emulator.url)
    assert failures(found) == ["model accounts/fireworks/modles/small"]
    assert "models.id" in found["model accounts/fireworks/modles/small"].advice


@pytest.mark.parametrize(("hours", "ok"), [(0, True), (2, False), (-2, False)])
def test_a_clock_that_is_off(folder, hours, ok):
    date = f"Date: {format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)}"
    with ScriptedServer() as server:
        server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": "accounts/lab"}]}))
        server.on("GET", "/v1/accounts/lab/batchInferenceJobs", json_answer({"batchInferenceJobs": []}))
        server.on("GET", f"/v1/{MODEL}", json_answer({"name": MODEL}, headers=[date]))
        found = examine(folder, url=server.url)
    assert found["clock"].ok is ok
    assert failures(found) == ([] if ok else ["clock"])


def test_an_account_that_may_not_list_its_jobs(folder):
    with ScriptedServer() as server:
        server.on("GET", "/v1/accounts", json_answer({"accounts": [{"name": "accounts/lab"}]}))
        server.on("GET", "/v1/accounts/lab/batchInferenceJobs", error(412, 9, "account suspended"))
        found = examine(folder, url=server.url)
    assert failures(found) == ["account"]
    assert "account suspended" in found["account"].says


def test_a_key_of_several_accounts(folder):
    accounts = json_answer({"accounts": [{"name": "accounts/one"}, {"name": "accounts/two"}]})
    with ScriptedServer() as server:
        server.on("GET", "/v1/accounts", accounts)
        server.on("GET", "/verifyApiKey", json_answer({}))
        found = examine(folder, url=server.url)
    assert failures(found) == ["account"]
    assert "FIREWORKS_ACCOUNT_ID" in found["account"].advice


def test_nobody_there(folder):
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    found = examine(folder, url=f"http://127.0.0.1:{port}")
    assert failures(found) == ["service"]
    assert "network" in found["service"].advice


def test_a_service_that_would_see_the_key_in_clear(folder):
    found = examine(folder, url="http://service.invalid")
    assert failures(found) == ["service"]
    assert found["service"].advice == "use https"


# --- before the service -----------------------------------------------------------------------------


def test_the_emulator_needs_no_key(folder):
    found = examine(folder, run_kit.CONFIG, key="")
    assert failures(found) == []
    assert "no key" in found["provider"].says
    assert found["source open"].says == "3 items (0 closed-book, 3 open-book)"


ANSWERS = {
    "recorded": ('{recorded: answers.json}', "emulator.recorded", '{"question": "Q?", "answers": {"control": ["a"]}}'),
    "replay": ('{replay: {treatment: {path: answers.json}}}', "emulator.replay.treatment", '{"o1": "Isobel Tennant"}'),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no such file"), ("[1]", "expected "), ("folder", "cannot be read")]
)
def test_answers_that_the_emulator_would_give_are_looked_for(folder, kind, content, said):
    """It said "ready", and doit failed where the emulator was to start."""
    setting, name, good = ANSWERS[kind]
    config = run_kit.CONFIG.replace("{job_seconds: 0}", setting)
    path = folder / "answers.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    found = examine(folder, config, key="")
    assert failures(found) == [name]
    assert "answers.json" in found[name].says
    assert said in found[name].says
    assert found[name].advice
    path.rmdir() if content == "folder" else path.unlink(missing_ok=True)
    path.write_text(good)
    assert examine(folder, config, key="")[name].ok


def test_with_a_limit_a_missing_price_keeps_the_whole_run_from_being_sent(folder):
    """It said so as a remark, and "ready" below; that the run would send what has a price was true then."""
    config = CONFIG.replace(f"[{{id: {MODEL}}}]", f"[{{id: {MODEL}}}, {{id: accounts/fireworks/models/large}}]")
    found = examine(folder, config, key="")
    assert failures(found) == ["price large", "key"]
    assert "nothing of the run would be sent" in found["price large"].says
    assert found["price large"].advice == "add prices.models.large, or remove budget.max_usd"


def test_a_model_of_several_trials_is_missed_once(folder):
    one = "{control: {text: Answer.}, treatment: {text: Answer well.}}"
    config = CONFIG.replace(one, f"{one}, other: {one}").replace("small: {", "large: {")
    config = config.replace("budget: {max_usd: 5}", "")
    (folder / "experiment.yaml").write_text(config.replace("URL", "https://service.invalid"))
    findings = doctor.examine(folder / "experiment.yaml", sleep=lambda _seconds: None)
    assert [finding.ok for finding in findings if finding.name == "price small"] == [None]


@pytest.mark.parametrize(
    ("change", "name", "ok", "words"),
    [
        (("samples_per_item", "sampels_per_item"), "config", False, "samples_per_item"),
        (("path: open.jsonl", "path: gone.jsonl"), "source open", False, "gone.jsonl"),
        (("small: {", "large: {"), "price small", None, "prices.models.small"),
    ],
)
def test_what_the_config_lacks(folder, change, name, ok, words):
    config = run_kit.CONFIG.replace(*change).replace("provider: emulator", "provider: fireworks")
    finding = examine(folder, config, key="")[name]
    assert finding.ok is ok
    assert words in finding.says + finding.advice


def test_a_damaged_question_is_named_with_its_line(folder):
    with open(folder / "closed.jsonl", "a") as stream:
        stream.write('{"question": "And?"}\n')
    found = examine(folder, run_kit.CONFIG, key="")
    assert failures(found) == ["source closed"]
    assert "closed.jsonl line 3" in found["source closed"].says


def test_a_budget_is_suggested_before_money_is_spent(folder):
    found = examine(folder, CONFIG.replace("budget: {max_usd: 5}", ""), key="")
    assert found["budget"].ok is None
    assert "budget.max_usd" in found["budget"].advice


def test_a_full_disk(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    assert failures(examine(folder, run_kit.CONFIG, key="")) == ["disk"]


def test_a_folder_without_a_dodo_file_is_remarked(folder):
    (folder / "dodo.py").unlink()
    finding = examine(folder, run_kit.CONFIG, key="")["folder"]
    assert finding.ok is None
    assert "init" in finding.advice


def test_a_setting_in_the_environment_is_named(folder, monkeypatch):
    monkeypatch.setenv("TRIALMAKE_PART_SIZE", "0")
    finding = examine(folder, run_kit.CONFIG, key="")["config"]
    assert finding.ok is False
    assert "TRIALMAKE_PART_SIZE" in finding.says


def test_the_text_shows_advice_below_what_is_wrong_only(folder):
    found = examine(folder, key="").values()
    text = list(doctor.as_text(list(found)))
    assert text[0].startswith("ok    python: ")
    at = text.index("FAIL  key: there is no FIREWORKS_API_KEY")
    assert text[at + 1] == "      Next: put FIREWORKS_API_KEY=... into .env"
    assert text[-1] == f"1 of {len(found)} checks failed"
    assert [finding.as_json()["advice"] for finding in found if finding.ok] == [None] * (len(found) - 1)
