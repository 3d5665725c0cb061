"""The tutorial, done as it says: each command of its console blocks is given, and must say what stands there."""

import re
import shlex
import subprocess
from pathlib import Path

import run_kit

from pipeline import __main__ as program

# The other pages show what one would see in the tutorial's folder.
PAGES = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in ("tutorial", "resume", "statistics")]
LEFT_OUT = "..."


def steps():
    """(command with the lines typed after it, output that is shown) of each `$` in the console blocks."""
    for block in re.findall(r"```console\n(.*?)```", "".join(page.read_text() for page in PAGES), re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *lines = part.splitlines()
            typed = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
            yield "\n".join([command, *typed]), [line for line in lines if not line.startswith("> ")]


def matches(shown, said):
    """Whether *said* is what is *shown*; a line `...` stands for any lines, `...` at a line's end for its rest."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == LEFT_OUT
        else re.escape(line.removesuffix(LEFT_OUT)) + (".*\n" if line.endswith(LEFT_OUT) else "\n")
        for line in shown
    )  # fmt: skip
    return re.fullmatch(pattern, said) is not None


def give(command, folder, capsys):
    """What *command* says in *folder*, and the folder one is in afterwards."""
    words = shlex.split(command)
    if words[0] == "cd":
        return "", (folder / words[1]).resolve()
    if words[0] == "doit":
        ran = run_kit.doit(folder, *words[1:], *([] if words[1:] == ["plan"] else ["poll=0.05"]))
        return ran.out, folder
    if words[:3] == ["python", "-m", "pipeline"]:
        with run_kit.contextlib.chdir(folder):
            program.main(words[3:])
        return capsys.readouterr().out, folder
    ran = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    return ran.stdout, folder


def test_the_tutorial_is_what_happens(quick_path, monkeypatch, capsys):
    for name in ("FIREWORKS_API_KEY", "TRIALMAKE_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRIALMAKE_EMULATOR__JOB_SECONDS", "0")
    folder = quick_path / "clone"
    folder.mkdir()
    wrong = []
    for command, shown in steps():
        said, folder = give(command, folder, capsys)
        if not matches(shown, said):
            wrong.append(f"$ {command}\n{said}")
    assert not wrong, "\n".join(wrong)
    assert (folder / "experiments" / "run_third").is_dir()


def test_a_difference_is_noticed():
    assert matches(["a", "...", "b ..."], "a\nx\ny\nb 1 2\n")
    assert not matches(["a", "b"], "a\nx\nb\n")
    assert not matches(["10 built"], "9 built, 1 failed\n")
    assert len(list(steps())) >= 20
