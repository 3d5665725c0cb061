"""A whole run with a marked key: it stands in no file, in no line of output, and in no message of an error.

Each place that could show a key has a test of its own; this one looks everywhere, the places nobody thought of
included. If it failed, sharing a run's folder or an error message would share the account.
"""

import re

import pytest
from run_kit import CONFIG, RID, QuickClock, doit, tiny

from pipeline import actions
from pipeline.emulator import history
from pipeline.emulator.config import Config
from pipeline.emulator.server import Emulator

KEY = "fw_CANARY_KEY_6d1f0a2b"
SIGNATURE = "CANARYSIGNATURE77aa"
# The key in clear and as HTTP carries it, a marked signature, and the name under which each real one travels.
HIDDEN = re.compile(rb"CANARY|X-Goog-Signature", re.IGNORECASE)
ONE_TEMPERATURE = CONFIG.replace("[0, 0.7]", "[0]").replace("samples_per_item: 2", "samples_per_item: 1")
LINK = f"https://storage.example.com/a/b?X-Goog-Algorithm=GOOG4&X-Goog-Signature={SIGNATURE}"
STORAGE = {"method": "GET", "path": "^/storage/"}


@pytest.fixture
def world(quick_path, monkeypatch):
    """A folder ready for `doit` and an emulator outside of it that accepts the marked key only."""
    settings = Config.from_dict({"api_key": KEY, "job_seconds": 0, "ready_seconds": 0})
    with Emulator(quick_path / "store", settings) as emulator:
        config = ONE_TEMPERATURE.replace(
            "provider: emulator", f"provider: fireworks\nfireworks: {{base_url: '{emulator.url}'}}"
        )
        config = config.replace("emulator: {job_seconds: 0}", "queue: {poll_seconds: 0.05, max_attempts: 1}")
        folder = tiny(quick_path / "work", config)
        monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
        monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "emulator")
        monkeypatch.setattr(actions, "time", QuickClock())
        monkeypatch.setattr(actions, "_SERVICE_OUTAGE", 0.0)  # a pause of this clock is none of the one outages go by
        yield folder, emulator


def found(folder, *ran):
    """Every place below *folder* and in the output of the commands *ran* that shows what is hidden."""
    texts = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for number, one in enumerate(ran):
        texts |= {f"stdout {number}": one.out.encode(), f"stderr {number}": one.err.encode()}
    places = [name for name, text in texts.items() if HIDDEN.search(text) or HIDDEN.search(name.encode())]
    assert len(texts) > 10, "there was hardly a place to look at"
    return places


@pytest.mark.parametrize("last", ["costs", pytest.param("archive", marks=pytest.mark.heavy)])
def test_a_run_shows_its_key_nowhere(world, last):
    """Heavy all the way to the archive, since the report draws its figures."""
    folder, emulator = world
    first = doit(folder, f"rid={RID}", "config=experiment.yaml", f"to={last}")
    assert first.code == 0, first.err
    assert last in first.worked
    shown = doit(folder, "plan", f"rid={RID}")
    assert shown.code == 0
    assert found(folder, first, shown) == []
    calls = history.calls(emulator.service.store.folder)
    assert any(call["path"].startswith("/storage/") for call in calls), "no signed link was used"
    assert not [call for call in calls if call["violation"]]
    (folder / "leak").write_text(f"Authorization: Bearer {KEY}")
    assert found(folder) == ["leak"], "the search would not have found it"


# What a service, or a proxy before it, may say: all it was sent, and links of its own.
_ECHO = f"no access for Authorization: Bearer {KEY}"
_LASTING = {"times": None}
ERRORS = {
    "the key is refused": (
        {"call": {"path": "/v1/", **_LASTING}, "do": {"respond": {"status": 401, "json": {"error": _ECHO}}}},
        "the key is not accepted",
    ),
    "a create is refused": (
        {
            "call": {"method": "POST", "path": "batchInferenceJobs$", **_LASTING},
            "do": {"respond": {"status": 400, "json": {"code": 3, "message": _ECHO}}},
        },
        "no access for Authorization",
    ),
    "a page instead of an answer": (
        {"call": {"path": "batchInferenceJobs$", **_LASTING}, "do": {"respond": {"status": 502, "text": _ECHO}}},
        "502",
    ),
    "a link is refused": (
        {
            "call": {**STORAGE, **_LASTING},
            "do": {"respond": {"status": 403, "text": f"<Error>{_ECHO}, see {LINK}</Error>"}},
        },
        "403",
    ),
    "a link breaks off": ({"call": {**STORAGE, **_LASTING}, "do": {"reset": True}}, "Connection"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_no_error_shows_the_key_or_a_signature(world, what):
    """A service may repeat what it was sent, and the text of a lost connection holds the whole link."""
    folder, emulator = world
    rule, said = ERRORS[what]
    emulator.service.faults.add([rule])
    failed = doit(folder, f"rid={RID}", "config=experiment.yaml", "to=download")
    assert failed.code != 0
    assert [rule["fired"] > 0 for rule in emulator.service.faults.listing()] == [True]
    assert said in failed.out + failed.err
    assert "Traceback" not in failed.out + failed.err
    assert found(folder, failed) == []
