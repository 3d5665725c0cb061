"""TAB after `doit` completes commands, phases, trials and values, in a real shell on a pseudo-terminal."""

import os
import pty
import select
import shutil
import subprocess

import pytest

from pipeline import completion, graph, request

_PATIENCE = 20.0  # seconds for a shell to answer; it takes some hundredths
# typed up to TAB -> the words that then stand there
TYPED = {
    "doit resu": ["doit", "resume"],
    "doit pars": ["doit", "parse"],
    "doit resume ri": ["doit", "resume", "rid="],
    "doit resume rid=exa": ["doit", "resume", "rid=example"],
    "doit rid=pilot trial=m": ["doit", "rid=pilot", "trial=model-short"],
    "doit rid=example parse:": ["doit", "rid=example", "parse:model-default"],
    "doit rid=example force=parse,rep": ["doit", "rid=example", "force=parse,report"],
    "doit from=sco": ["doit", "from=score"],
    "doit requeue=n": ["doit", "requeue=never"],
    "doit rid=new config=my_exp": ["doit", "rid=new", "config=my_experiment.yaml"],
}
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], []),
    "zsh": (["-f", "-i"], ["autoload -Uz compinit", "compinit -D -u"]),
}


class Shell:
    """An interactive shell on a pseudo-terminal that has loaded our script."""

    def __init__(self, name, folder):
        options, before = SHELLS[name]
        self._main, other = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "$ "}
        self._process = subprocess.Popen(
            [name, *options],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(other)
        self.send("\n".join([*before, "source completion.sh", "echo loaded'-'now", ""]))
        self.until("loaded-now")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._main)

    def send(self, text):
        os.write(self._main, text.encode())

    def until(self, mark):
        seen = ""
        while mark not in seen:
            ready, _, _ = select.select([self._main], [], [], _PATIENCE)
            assert ready, f"no {mark!r} in {seen!r}"
            seen += os.read(self._main, 65536).decode(errors="replace")
        return seen

    def complete(self, typed):
        """The words of the line after TAB: Ctrl-A goes to its start, where a command is put that shows them."""
        self.send(f"{typed}\t\x01printf '<%s>' \x05; echo ' the'-'end'\n")
        shown = self.until(" the-end").rpartition("<doit>")[2].partition(" the-end")[0]
        return ["doit", *(word.rstrip(">") for word in shown.split("<") if word)]


@pytest.fixture
def folder(tmp_path):
    for place in ("run_example/model-default", "run_pilot/model-short", "run_pilot/logs"):
        (tmp_path / "experiments" / place).mkdir(parents=True)
        if "model" in place:
            (tmp_path / "experiments" / place / "batch_inputs").mkdir()
    (tmp_path / "my_experiment.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("name", SHELLS)
def test_a_tab_completes_each_kind_of_word(name, folder):
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} on this machine")
    (folder / "completion.sh").write_text(completion.script(name))
    with Shell(name, folder) as shell:
        assert {typed: shell.complete(typed) for typed in TYPED} == TYPED


def test_before_the_first_run_nothing_is_offered_and_nothing_complained_of(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash on this machine")
    (tmp_path / "completion.sh").write_text(completion.script("bash"))
    ask = "source completion.sh; COMP_LINE='doit rid=' COMP_POINT=9; _trialmake_doit; printf '%s' \"${#COMPREPLY[@]}\""
    asked = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (asked.stdout, asked.stderr) == ("0", "")


def test_every_variable_and_phase_is_known():
    assert set(completion.VALUES) == set(request.NAMES)
    for shell in SHELLS:
        words = {word.strip("'") for word in completion.script(shell).split()}
        assert words >= {*graph.NAMES, *completion.COMMANDS, *(f"{name}=" for name in request.NAMES)}


def test_what_is_offered_for_a_variable_is_accepted():
    for name, values in completion.VALUES.items():
        if values not in (completion.RUNS, completion.TRIALS, completion.FILES):
            for value in values.split():
                request.parse({name: value})
