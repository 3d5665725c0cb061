"""What `doit resume` does when a file of a finished run is not what it was: the truth table.

Each row damages one file, then asks: what is decided first, which phases run, is the damaged file kept.
Behind every row stand the same promises: `doit list` shows the decisions, the provider is not asked
anything, every artifact has its old bytes afterwards, nothing else is left behind, and a second resume
finds nothing to do.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from quick_folder import quick_folder
from run_kit import EVERY, ONE_TEMPERATURE, RID, TRIAL, doit, files, letters, reading, tiny

from pipeline.emulator import history

# "-": every phase is skipped, nothing ran, nothing is kept. What did not run is all the rest.
TABLE = """
file and what became of it      | decided first                                  | ran           | kept as

source              deleted   | -                                              | -             | -
source              emptied   | prepare refuse: items of a submitted run       | -             | -
source              flipped   | prepare refuse: items of a submitted run       | -             | -
source              older     | prepare refuse: items of a submitted run       | -             | -
source              touched   | -                                              | -             | -
source              edited    | prepare refuse: items of a submitted run       | -             | -
source              symlink   | -                                              | -             | -
source              dangling  | -                                              | -             | -

experiment.yaml     deleted   | -                                              | -             | -
experiment.yaml     touched   | -                                              | -             | -
experiment.yaml     edited    | -                                              | -             | -

run.json            deleted   | prepare run: its record was lost               | prepare index | -
run.json            emptied   | prepare run: its record was lost               | prepare index | corrupt
run.json            truncated | prepare run: its record was lost               | prepare index | corrupt
run.json            flipped   | prepare run: its record was lost               | prepare index | corrupt
run.json            older     | index run: not done yet                        | index         | -
run.json            touched   | -                                              | -             | -
run.json            edited    | -                                              | -             | -
run.json            folder    | prepare run: its record was lost               | prepare index | corrupt
run.json            symlink   | -                                              | -             | -

open_book.jsonl     deleted   | prepare repair: missing                        | prepare       | -
open_book.jsonl     emptied   | prepare repair: empty                          | prepare       | -
open_book.jsonl     truncated | prepare repair: bytes, was                     | prepare       | damaged
open_book.jsonl     flipped   | prepare repair: not what was written           | prepare       | damaged
open_book.jsonl     older     | prepare repair: bytes, was                     | prepare       | damaged
open_book.jsonl     touched   | -                                              | -             | -
open_book.jsonl     edited    | prepare repair: bytes, was                     | prepare       | damaged
open_book.jsonl     folder    | prepare repair: a folder stands in its place   | prepare       | damaged
open_book.jsonl     symlink   | prepare repair: a symlink stands in its place  | prepare       | damaged
open_book.jsonl     dangling  | prepare repair: a symlink stands in its place  | prepare       | damaged

index.json          deleted   | build repair: missing                          | build         | -
index.json          emptied   | build repair: empty                            | build         | -
index.json          truncated | build repair: not JSON                         | build         | damaged
index.json          flipped   | build repair: checksum                         | build         | damaged
index.json          older     | build run: changed since                       | build         | -
index.json          touched   | -                                              | -             | -
index.json          edited    | build repair: not as it was written            | build         | damaged
index.json          folder    | build repair: a folder stands in its place     | build         | damaged
index.json          symlink   | build repair: a symlink stands in its place    | build         | damaged
index.json          dangling  | build repair: a symlink stands in its place    | build         | damaged

part requests       deleted   | build repair: missing                          | build         | -
part requests       emptied   | build repair: empty                            | build         | -
part requests       truncated | build repair: bytes, was                       | build         | damaged
part requests       flipped   | build repair: not what was written             | build         | damaged
part requests       older     | build repair: bytes, was                       | build         | damaged
part requests       touched   | -                                              | -             | -
part requests       edited    | build repair: bytes, was                       | build         | damaged
part requests       folder    | build repair: a folder stands in its place     | build         | damaged
part requests       symlink   | build repair: a symlink stands in its place    | build         | damaged
part requests       dangling  | build repair: a symlink stands in its place    | build         | damaged

ledger.jsonl        deleted   | -                                              | -             | -
ledger.jsonl        emptied   | -                                              | -             | -
ledger.jsonl        truncated | -                                              | -             | -
ledger.jsonl        flipped   | -                                              | -             | -
ledger.jsonl        older     | -                                              | -             | -
ledger.jsonl        touched   | -                                              | -             | -
ledger.jsonl        edited    | -                                              | -             | -
ledger.jsonl        folder    | -                                              | -             | -
ledger.jsonl        symlink   | -                                              | -             | -

OUTPUT_DATASET_ID   deleted   | -                                              | -             | -
OUTPUT_DATASET_ID   truncated | -                                              | -             | -
OUTPUT_DATASET_ID   older     | -                                              | -             | -
OUTPUT_DATASET_ID   edited    | -                                              | -             | -

raw rows            deleted   | -                                              | -             | -
raw rows            emptied   | -                                              | -             | -
raw rows            truncated | -                                              | -             | -
raw rows            flipped   | -                                              | -             | -
raw rows            older     | -                                              | -             | -
raw rows            edited    | -                                              | -             | -
raw rows            folder    | -                                              | -             | -

part results        deleted   | download repair: missing                       | download      | -
part results        emptied   | download repair: empty                         | download      | -
part results        truncated | download repair: bytes, was                    | download      | damaged
part results        flipped   | download repair: not what was written          | download      | damaged
part results        older     | download repair: bytes, was                    | download      | damaged
part results        touched   | -                                              | -             | -
part results        edited    | download repair: bytes, was                    | download      | damaged
part results        folder    | download repair: a folder stands in its place  | download      | damaged
part results        symlink   | download repair: a symlink stands in its place | download      | damaged
part results        dangling  | download repair: a symlink stands in its place | download      | damaged

combined            deleted   | download repair: missing                       | download      | -
combined            emptied   | download repair: empty                         | download      | -
combined            truncated | download repair: bytes, was                    | download      | damaged
combined            flipped   | download repair: not what was written          | download      | damaged
combined            older     | download repair: bytes, was                    | download      | damaged
combined            touched   | -                                              | -             | -
combined            edited    | download repair: bytes, was                    | download      | damaged
combined            folder    | download repair: a folder stands in its place  | download      | damaged
combined            symlink   | download repair: a symlink stands in its place | download      | damaged
combined            dangling  | download repair: a symlink stands in its place | download      | damaged

attempts.json       deleted   | download repair: missing                       | download      | -
attempts.json       emptied   | download repair: empty                         | download      | -
attempts.json       truncated | download repair: bytes, was                    | download      | damaged
attempts.json       flipped   | download repair: not what was written          | download      | damaged
attempts.json       older     | download repair: bytes, was                    | download      | damaged
attempts.json       touched   | -                                              | -             | -
attempts.json       edited    | download repair: bytes, was                    | download      | damaged
attempts.json       folder    | download repair: a folder stands in its place  | download      | damaged
attempts.json       symlink   | download repair: a symlink stands in its place | download      | damaged
attempts.json       dangling  | download repair: a symlink stands in its place | download      | damaged

predictions.csv     deleted   | parse repair: missing                          | parse         | -
predictions.csv     emptied   | parse repair: empty                            | parse         | -
predictions.csv     truncated | parse repair: bytes, was                       | parse         | damaged
predictions.csv     flipped   | parse repair: not what was written             | parse         | damaged
predictions.csv     older     | parse repair: bytes, was                       | parse         | damaged
predictions.csv     touched   | -                                              | -             | -
predictions.csv     edited    | parse repair: bytes, was                       | parse         | damaged
predictions.csv     folder    | parse repair: a folder stands in its place     | parse         | damaged
predictions.csv     symlink   | parse repair: a symlink stands in its place    | parse         | damaged
predictions.csv     dangling  | parse repair: a symlink stands in its place    | parse         | damaged

usage.csv           deleted   | parse repair: missing                          | parse         | -
usage.csv           emptied   | parse repair: empty                            | parse         | -
usage.csv           truncated | parse repair: bytes, was                       | parse         | damaged
usage.csv           flipped   | parse repair: not what was written             | parse         | damaged
usage.csv           older     | parse repair: bytes, was                       | parse         | damaged
usage.csv           touched   | -                                              | -             | -
usage.csv           edited    | parse repair: bytes, was                       | parse         | damaged
usage.csv           folder    | parse repair: a folder stands in its place     | parse         | damaged
usage.csv           symlink   | parse repair: a symlink stands in its place    | parse         | damaged
usage.csv           dangling  | parse repair: a symlink stands in its place    | parse         | damaged

per_item_scores.csv deleted   | score repair: missing                          | score         | -
per_item_scores.csv emptied   | score repair: empty                            | score         | -
per_item_scores.csv truncated | score repair: bytes, was                       | score         | damaged
per_item_scores.csv flipped   | score repair: not what was written             | score         | damaged
per_item_scores.csv older     | score repair: bytes, was                       | score         | damaged
per_item_scores.csv touched   | -                                              | -             | -
per_item_scores.csv edited    | score repair: bytes, was                       | score         | damaged
per_item_scores.csv folder    | score repair: a folder stands in its place     | score         | damaged
per_item_scores.csv symlink   | score repair: a symlink stands in its place    | score         | damaged
per_item_scores.csv dangling  | score repair: a symlink stands in its place    | score         | damaged

significance.json   deleted   | stats repair: missing                          | stats         | -
significance.json   emptied   | stats repair: empty                            | stats         | -
significance.json   truncated | stats repair: bytes, was                       | stats         | damaged
significance.json   flipped   | stats repair: not what was written             | stats         | damaged
significance.json   older     | stats repair: bytes, was                       | stats         | damaged
significance.json   touched   | -                                              | -             | -
significance.json   edited    | stats repair: bytes, was                       | stats         | damaged
significance.json   folder    | stats repair: a folder stands in its place     | stats         | damaged
significance.json   symlink   | stats repair: a symlink stands in its place    | stats         | damaged
significance.json   dangling  | stats repair: a symlink stands in its place    | stats         | damaged

costs.json          deleted   | costs repair: missing                          | costs         | -
costs.json          emptied   | costs repair: empty                            | costs         | -
costs.json          truncated | costs repair: bytes, was                       | costs         | damaged
costs.json          flipped   | costs repair: not what was written             | costs         | damaged
costs.json          older     | costs repair: bytes, was                       | costs         | damaged
costs.json          touched   | -                                              | -             | -
costs.json          edited    | costs repair: bytes, was                       | costs         | damaged
costs.json          folder    | costs repair: a folder stands in its place     | costs         | damaged
costs.json          symlink   | costs repair: a symlink stands in its place    | costs         | damaged
costs.json          dangling  | costs repair: a symlink stands in its place    | costs         | damaged

report.md           deleted   | report repair: missing                         | report        | -
report.md           emptied   | report repair: empty                           | report        | -
report.md           flipped   | report repair: not what was written            | report        | damaged
report.md           edited    | report repair: bytes, was                      | report        | damaged
report.md           folder    | report repair: a folder stands in its place    | report        | damaged
report.md           symlink   | report repair: a symlink stands in its place   | report        | damaged

report.html         deleted   | report repair: missing                         | report        | -
report.html         flipped   | report repair: not what was written            | report        | damaged
report.html         symlink   | report repair: a symlink stands in its place   | report        | damaged
report.html         folder    | report repair: a folder stands in its place    | report        | damaged

figure              deleted   | report repair: missing                         | report        | -
figure              flipped   | report repair: not what was written            | report        | damaged
figure              folder    | report repair: a folder stands in its place    | report        | damaged
figure              symlink   | report repair: a symlink stands in its place   | report        | damaged

archive             deleted   | archive repair: missing                        | archive       | -
archive             emptied   | archive repair: empty                          | archive       | -
archive             truncated | archive repair: bytes, was                     | archive       | damaged
archive             flipped   | archive repair: not what was written           | archive       | damaged
archive             older     | archive repair: bytes, was                     | archive       | damaged
archive             touched   | -                                              | -             | -
archive             edited    | archive repair: bytes, was                     | archive       | damaged
archive             folder    | archive repair: a folder stands in its place   | archive       | damaged
archive             symlink   | archive repair: a symlink stands in its place  | archive       | damaged

SHA256SUMS          deleted   | archive repair: missing                        | archive       | -
SHA256SUMS          flipped   | archive repair: not what was written           | archive       | damaged
SHA256SUMS          edited    | archive repair: bytes, was                     | archive       | damaged
SHA256SUMS          folder    | archive repair: a folder stands in its place   | archive       | damaged

aggregate_report.md deleted   | index repair: missing                          | index         | -
aggregate_report.md flipped   | index repair: not what was written             | index         | damaged
aggregate_report.md edited    | index repair: bytes, was                       | index         | damaged
aggregate_report.md symlink   | index repair: a symlink stands in its place    | index         | damaged

index.html          deleted   | index repair: missing                          | index         | -
index.html          truncated | index repair: bytes, was                       | index         | damaged
index.html          flipped   | index repair: not what was written             | index         | damaged
index.html          touched   | -                                              | -             | -
index.html          edited    | index repair: bytes, was                       | index         | damaged
index.html          folder    | index repair: a folder stands in its place     | index         | damaged

manifest            deleted   | parse run: not done yet                        | parse..report | -
manifest            emptied   | parse run: not done yet                        | parse..report | corrupt
manifest            truncated | parse run: not done yet                        | parse..report | corrupt
manifest            flipped   | parse run: not done yet                        | parse..report | corrupt
manifest            older     | score run: not done yet                        | score..report | -
manifest            touched   | -                                              | -             | -
manifest            edited    | -                                              | -             | -
manifest            folder    | parse run: not done yet                        | parse..report | corrupt
manifest            symlink   | -                                              | -             | -
manifest            dangling  | parse run: not done yet                        | parse..report | corrupt

.doit.db            deleted   | -                                              | -             | -
.doit.db            emptied   | -                                              | -             | -
.doit.db            truncated | -                                              | -             | damaged
.doit.db            flipped   | -                                              | -             | -
.doit.db            older     | -                                              | -             | -
.doit.db            touched   | -                                              | -             | -
.doit.db            folder    | -                                              | -             | damaged

decisions.jsonl     deleted   | -                                              | -             | -
decisions.jsonl     truncated | -                                              | -             | -
decisions.jsonl     edited    | -                                              | -             | -
"""

PLACES = {
    "experiment.yaml": "experiment.yaml",
    "run.json": "run.json",
    "decisions.jsonl": "logs/decisions.jsonl",
    ".doit.db": ".doit.db",
    "index.html": "index.html",
    "aggregate_report.md": "aggregate_report.md",
    "open_book.jsonl": "prepared/open_book.jsonl",
    "index.json": f"{TRIAL}/batch_inputs/index.json",
    "part requests": f"{TRIAL}/batch_inputs/t0_control_p01.jsonl",
    "ledger.jsonl": f"{TRIAL}/results/t0_control_p01/ledger.jsonl",
    "OUTPUT_DATASET_ID": f"{TRIAL}/results/t0_control_p01/OUTPUT_DATASET_ID.txt",
    "raw rows": f"{TRIAL}/results/t0_control_p01/a1/BIJOutputSet.jsonl",
    "part results": f"{TRIAL}/results/t0_control_p01/results.jsonl",
    "combined": f"{TRIAL}/results/results_combined.jsonl",
    "manifest": f"{TRIAL}/results/trial_manifest.json",
    "figure": f"{TRIAL}/reports/figures/forest.svg",
    "archive": f"{TRIAL}/archive/{TRIAL}.tar.gz",
    "SHA256SUMS": f"{TRIAL}/archive/SHA256SUMS",
    "report.md": f"{TRIAL}/reports/report.md",
    "report.html": f"{TRIAL}/reports/report.html",
    "source": "../../open.jsonl",
    **{
        name: f"{TRIAL}/results/{name}"
        for name in (
            *("attempts.json", "predictions.csv", "usage.csv", "per_item_scores.csv", "significance.json"),
            "costs.json",
        )
    },
}
# What may differ after a resume: it says when and how often, not what.
HISTORY = ("run.json", "trial_manifest.json", ".doit.db", "run.lock", "queue.lock", "decisions.jsonl", "ledger.jsonl")
# A file that no phase writes stays as it is found; so the row itself puts it back.
UNMENDED = ("source", "experiment.yaml", "ledger.jsonl", "OUTPUT_DATASET_ID", "raw rows", ".doit.db", "decisions.jsonl")


@dataclass
class World:
    """A finished run, a copy of it, and an older valid version of each file."""

    folder: Path
    kept: Path
    older: dict[str, bytes]
    clean: bool = True

    @property
    def run(self) -> Path:
        return self.folder / "experiments" / f"run_{RID}"

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder, symlinks=True)
        assert doit(self.folder, "archive").worked == doit(self.folder).worked == []
        self.clean = True

    def artifacts(self) -> dict[str, bytes]:
        """name -> content of every file but the history of the run."""
        found = (path for path in sorted(self.run.rglob("*")) if path.is_file() and ".emulator" not in path.parts)
        return {p.relative_to(self.run).as_posix(): p.read_bytes() for p in found if p.name not in HISTORY}

    def leftovers(self, path: Path) -> list[Path]:
        """What was kept of *path* beside it."""
        return sorted(path.parent.glob(f"{path.name}.*.2*Z*"))

    def calls(self) -> int:
        return len(history.calls(self.run / ".emulator"))


@pytest.fixture(scope="module")
def world():
    with quick_folder() as base:
        yield build(base)


def build(base: Path) -> World:
    other = tiny(base / "older", ONE_TEMPERATURE)
    for name, count in (("closed.jsonl", 1), ("open.jsonl", 2)):
        lines = (other / name).read_text().splitlines(keepends=True)
        (other / name).write_text("".join(lines[:count]))
    run = tiny(base / "run", ONE_TEMPERATURE)
    assert doit(other, f"rid={RID}", "config=experiment.yaml").code == doit(other, "archive").code == 0
    assert doit(run, f"rid={RID}", "config=experiment.yaml", "to=parse").code == 0
    older = {name: (other / "experiments" / f"run_{RID}" / place).read_bytes() for name, place in PLACES.items()}
    for name in ("run.json", "manifest", "decisions.jsonl"):  # an older state of this very run
        older[name] = (run / "experiments" / f"run_{RID}" / PLACES[name]).read_bytes()
    assert doit(run).code == doit(run, "archive").code == 0
    shutil.copytree(run, base / "kept", symlinks=True)
    return World(run, base / "kept", older)


@pytest.fixture
def clean(world):
    """The world as it was built; copied anew only when a test left it otherwise."""
    if not world.clean:
        world.restore()
    world.clean = False
    return world


def damage(path: Path, action: str, older: bytes) -> None:
    """Do to *path* what a disk, a person or another tool may do."""
    data, status = path.read_bytes(), path.stat()
    match action:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":  # one byte, in place, and the time put back
            with open(path, "r+b") as file:
                file.seek(len(data) // 2)
                file.write(bytes([data[len(data) // 2] ^ 1]))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "older":
            path.write_bytes(older)
        case "touched":
            os.utime(path)
        case "edited":
            path.write_bytes(data + b"\n")
        case "folder":
            path.unlink()
            path.mkdir()
            (path / "inside").write_bytes(b"")
        case "symlink":  # to the very same content
            path.rename(path.with_name("elsewhere"))
            path.symlink_to("elsewhere")
        case "dangling":
            path.unlink()
            path.symlink_to("nowhere")
        case _:
            raise AssertionError(action)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    action: str
    decides: str
    ran: str
    kept: str


def span(phases: list[str]) -> str:
    """The phases as the table writes them: four and more in a row by their ends."""
    if len(phases) > 3 and phases == list(EVERY[EVERY.index(phases[0]) :][: len(phases)]):
        return f"{phases[0]}..{phases[-1]}"
    return " ".join(phases) or "-"


def rows() -> list[Row]:
    lines = [line.split("|") for line in TABLE.splitlines()[2:] if line.strip()]
    return [
        Row(*what.rsplit(maxsplit=1), decides.strip(), ran.strip(), kept.strip()) for what, decides, ran, kept in lines
    ]


def seen(world: World, name: str, action: str) -> Row:
    """What happens when the file *name* is damaged by *action*; all that holds for every row is asserted here."""
    path = world.run / PLACES[name]
    selection = ["archive"] if name in ("archive", "SHA256SUMS") else []
    good, before, calls = path.read_bytes(), world.artifacts(), world.calls()
    damage(path, action, world.older[name])

    with reading(world.folder) as session:
        decisions = {(phase.name, slug): session.decide(phase.name, slug) for phase, slug in session.cells()}
    shown = letters(world.folder)
    assert {cell: "U" if decision.verb == "skip" else "R" for cell, decision in decisions.items()} == {
        cell: shown[cell] for cell in decisions
    }
    resumed = doit(world.folder, *selection)
    assert "Traceback" not in resumed.out + resumed.err
    refused = any(verb == "refuse" for verb, _ in resumed.decisions.values())
    assert resumed.code == (2 if refused else 0), resumed.out + resumed.err

    left = world.leftovers(path)
    kept = left[0].name.removeprefix(path.name).split(".")[1] if left else "-"
    for entry in left:
        remove(entry)
    if name in UNMENDED:
        remove(path)
        path.write_bytes(good)
    if path.is_symlink():  # a record is read, and kept up to date, through a link
        path.with_name("elsewhere").replace(path)
    remove(path.with_name("elsewhere"))
    assert len(left) < 2
    assert world.artifacts() == before
    assert world.calls() == calls, "the provider was asked"
    again = doit(world.folder, *selection)
    assert (again.code, again.worked) == (0, []), again.out

    asked = {cell: found for cell, found in decisions.items() if selection or cell[0] != "archive"}
    first = next(((cell, found) for cell, found in asked.items() if found.verb != "skip"), None)
    decides = f"{first[0][0]} {first[1].verb}: {first[1].reason}" if first else "-"
    return Row(name, action, decides, span(resumed.worked), kept)


def often() -> list[Any]:
    """Every row; of files that stand beside another of their phase all but two are left to the heavy tests."""
    twins, kept = ("attempts.json", "usage.csv", "costs.json"), ("deleted", "flipped")
    return [
        pytest.param(row, marks=pytest.mark.heavy) if row.name in twins and row.action not in kept else row
        for row in rows()
    ]


@pytest.mark.parametrize("row", often(), ids=lambda row: f"{row.name} {row.action}")
def test_a_damaged_file_is_decided_and_mended_as_the_table_says(clean, row):
    found = seen(clean, row.name, row.action)
    verb, _, reason = row.decides.partition(": ")
    assert found.decides.startswith(verb)
    assert reason in found.decides
    assert (found.ran, found.kept) == (row.ran, row.kept)
    clean.clean = row.name != "manifest"  # a rebuilt one has lost the record of the archive


def test_the_table_is_long_enough_and_knows_every_file():
    assert len(rows()) >= 150
    assert {row.name for row in rows()} == set(PLACES)


# --- several things at once -----------------------------------------------------------------------------

PART = f"{TRIAL}/results/t0_control_p01"
INPUTS = f"{TRIAL}/batch_inputs"
LEDGERS_ONLY = (
    *(".doit.db", "run.json", "prepared", INPUTS, f"{TRIAL}/reports", "index.html", "aggregate_report.md"),
    *(PLACES[name] for name in ("manifest", "attempts.json", "combined", "predictions.csv", "costs.json")),
)
# what is gone -> the phases that run; the provider is asked for what it has, and never for more
SEVERAL = {
    "a part's results and raw rows": ((f"{PART}/results.jsonl", f"{PART}/a1"), "download"),
    "all of a part, its ledger too": ((PART,), "submit download"),
    "all results and the manifest": ((f"{TRIAL}/results",), "submit..report"),
    "the whole trial": ((TRIAL,), "build..report"),
    "the prepared items": (("prepared",), "prepare"),
    "the requests and their index": ((INPUTS,), "build"),
    "the requests and a part's results": ((INPUTS, f"{PART}/results.jsonl"), "build download"),
    "the requests and the prepared items": ((INPUTS, "prepared"), "prepare build"),
    "the record and the memory": (("run.json", ".doit.db"), "prepare index"),
    "the provider and a part's results": ((".emulator", f"{PART}/results.jsonl"), "download"),
    "everything but ledgers, results and scores": (LEDGERS_ONLY, "prepare build download..index"),
}


@pytest.mark.parametrize("what", SEVERAL)
def test_what_is_lost_together_is_made_or_fetched_again_and_never_paid_twice(world, what):
    gone, ran = SEVERAL[what]
    world.restore()
    world.clean = False
    before, calls = world.artifacts(), world.calls()
    for name in gone:
        remove(world.run / name)
    with reading(world.folder) as session:
        decided = {phase.name: session.decide(phase.name, slug).verb for phase, slug in session.cells()}
    resumed = doit(world.folder)
    assert resumed.code == 0, resumed.out + resumed.err
    phases = resumed.worked
    middle = list(EVERY[3:])
    assert ran == (span(phases[:2]) + " download..index" if phases[2:] == middle else span(phases))
    assert decided[phases[0]] != "skip"
    if ".emulator" in gone:
        assert not (world.run / ".emulator").exists(), "the provider was not needed"
    else:
        asked = history.calls(world.run / ".emulator")[calls:]
        assert {call["method"] for call in asked} <= {"GET"}
    assert {name: data for name, data in world.artifacts().items() if "archive/" not in name} == {
        name: data for name, data in before.items() if "archive/" not in name
    }
    assert doit(world.folder).worked == []


def test_a_part_without_its_ledger_is_settled_from_the_raw_rows_that_are_here(world):
    world.restore()
    world.clean = False
    before, calls = world.artifacts(), world.calls()
    for name in ("ledger.jsonl", "results.jsonl"):
        remove(world.run / PART / name)
    resumed = doit(world.folder)
    assert (resumed.code, resumed.worked[0], world.calls()) == (0, "submit", calls)
    assert world.artifacts() == before


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (("run.json", "experiment.yaml"), "neither run.json nor experiment.yaml is left of this run."),
        ((".emulator", PART), "was submitted to account 'emulator' at emulator:"),
        (("prepared", "../../open.jsonl"), "open.jsonl: there is no such question file."),
    ],
    ids=["record and config", "provider and part", "items and questions"],
)
def test_what_cannot_be_had_again_is_refused_and_sends_nothing(world, gone, said):
    world.restore()
    world.clean = False
    for name in gone:
        remove(world.run / name)
    before = world.artifacts()
    refused = doit(world.folder)
    assert refused.code == 2
    assert said in refused.out + refused.err
    assert world.artifacts() == before
    assert [path.name for path in world.run.parent.iterdir()] == [world.run.name], "no other run was begun"
    if (world.run / ".emulator").exists():
        assert len(history.jobs(world.run / ".emulator")) in (0, 4)


WITHOUT_RECORD_AND_CONFIG = {
    "nothing more": (),
    "the lists of parts": (f"{INPUTS}/index.json",),
    "the ledgers": (f"{TRIAL}/results/*/ledger.jsonl",),
    "lists and ledgers": (f"{INPUTS}/index.json", f"{TRIAL}/results/*/ledger.jsonl"),
    "lists and manifest": (f"{INPUTS}/index.json", PLACES["manifest"]),
}


@pytest.mark.parametrize("lost", WITHOUT_RECORD_AND_CONFIG)
def test_a_run_without_record_and_config_is_not_taken_for_the_earlier_tools(world, lost):
    """History: it was taken over: index.json overwritten, the items prepared anew, and its answers locked away."""
    world.restore()
    world.clean = False
    config = (world.run / "experiment.yaml").read_bytes()
    for pattern in ("run.json", "experiment.yaml", *WITHOUT_RECORD_AND_CONFIG[lost]):
        for path in [*world.run.glob(pattern)]:
            remove(path)
    before, calls = files(world.run), world.calls()
    for words in (("resume", f"rid={RID}"), ("plan", f"rid={RID}"), (f"rid={RID}", "config=experiment.yaml")):
        refused = doit(world.folder, *words)
        assert refused.code == 2
        assert f"experiments/run_{RID}: neither run.json nor experiment.yaml is left of this run." in refused.err
        assert f"Next: put experiments/run_{RID}/experiment.yaml back" in refused.err
        assert files(world.run) == before
    (world.run / "experiment.yaml").write_bytes(config)
    mended = doit(world.folder)
    assert (mended.code, world.calls()) == (0, calls), mended.out + mended.err


def test_a_repair_says_how_many_parts_it_mends(clean):
    """History: it named the first, whatever else was damaged."""
    results = clean.run / TRIAL / "results"
    before, calls = clean.artifacts(), clean.calls()
    for part, action in (("t0_control_p01", "deleted"), ("t0_control_p02", "emptied"), ("t0_treatment_p01", "edited")):
        damage(results / part / "results.jsonl", action, b"")
    (clean.run / TRIAL / "batch_inputs" / "t0_control_p01.jsonl").unlink()
    (clean.run / TRIAL / "batch_inputs" / "t0_control_p02.jsonl").unlink()
    mended = doit(clean.folder)
    assert mended.worked == ["build", "download"]
    assert mended.decisions["build", TRIAL][1].endswith("t0_control_p01.jsonl: missing; and 1 more part")
    assert mended.decisions["download", TRIAL][1].endswith("results.jsonl: missing; and 2 more parts")
    [aside] = clean.leftovers(results / "t0_treatment_p01" / "results.jsonl")
    assert (
        f"{TRIAL}/results/t0_treatment_p01/results.jsonl was not what was recorded; kept as {aside.name}" in mended.out
    )
    aside.unlink()
    assert (clean.artifacts(), clean.calls()) == (before, calls)
